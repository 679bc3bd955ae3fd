//! The asking side of the join door.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use paceline_protocol::Digest;
use paceline_protocol::join::{Answer, PROTOCOL, Request};
use paceline_protocol::limits::JOIN_ANSWER_BYTES_MAX;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, TransportConfig, VarInt};
use tokio::time::timeout;

use super::JoinError;
use super::pinned::{Doubt, Pinned};

/// Asks at `seed`, and at the voter that it names if it is none itself. `compose` makes the
/// request for a connection on which the pin has been checked. Returns who answered, too.
pub(super) async fn ask_a_voter(
    seed: &str,
    pin: Digest,
    compose: &(impl Fn(&Connection) -> Option<Request> + Sync),
) -> Result<(String, Answer), JoinError> {
    let mut door = seed.to_owned();
    for _ in 0..HOPS_MAX {
        match ask(&door, pin, compose).await? {
            Answer::NotAVoter { voter: Some(voter) } => door = voter,
            Answer::NotAVoter { voter: None } => break,
            answer => return Ok((door, answer)),
        }
    }
    let seed = seed.to_owned();
    Err(JoinError::NoVoter { seed })
}

/// Asks at the first address of `seed` that answers.
async fn ask(
    seed: &str,
    pin: Digest,
    compose: &(impl Fn(&Connection) -> Option<Request> + Sync),
) -> Result<Answer, JoinError> {
    let mut failed = JoinError::Seed {
        seed: seed.to_owned(),
        reason: "the name has no address".to_owned(),
    };
    for address in resolve(seed).await? {
        let asking = Asking {
            seed,
            address,
            pinned: Arc::new(Pinned::new(
                pin,
                Arc::new(rustls::crypto::ring::default_provider()),
            )),
        };
        match asking.connect().await {
            Ok((endpoint, connection)) => {
                let answer = asking.exchange(&connection, compose).await;
                connection.close(VarInt::from_u32(0), b"done");
                // The member would wait for its own deadline if it were not told.
                let _ = timeout(GOODBYE_LIMIT, endpoint.wait_idle()).await;
                return answer;
            }
            Err(error @ (JoinError::Pin { .. } | JoinError::Certificate { .. })) => {
                return Err(error);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

async fn resolve(seed: &str) -> Result<Vec<SocketAddr>, JoinError> {
    let wrong = |reason: String| JoinError::Seed {
        seed: seed.to_owned(),
        reason,
    };
    let resolved = timeout(RESOLVE_LIMIT, tokio::net::lookup_host(seed)).await;
    let resolved = resolved.map_err(|_| wrong("the name is not resolved in time".to_owned()))?;
    let addresses = resolved.map_err(|error| wrong(error.to_string()))?;
    Ok(addresses.take(ADDRESSES_MAX).collect())
}

struct Asking<'a> {
    seed: &'a str,
    address: SocketAddr,
    pinned: Arc<Pinned>,
}

impl Asking<'_> {
    /// A connection on which the pin has been checked. Until then nothing is sent but the
    /// handshake itself.
    async fn connect(&self) -> Result<(Endpoint, Connection), JoinError> {
        let local: SocketAddr = if self.address.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let endpoint =
            Endpoint::client(local).map_err(|error| self.unreachable(error.to_string()))?;
        let config = config(self.pinned.clone()).map_err(|error| self.unreachable(error))?;
        let connecting = endpoint
            .connect_with(config, self.address, NAME)
            .map_err(|error| self.unreachable(error.to_string()))?;
        match timeout(CONNECT_LIMIT, connecting).await {
            Ok(Ok(connection)) => Ok((endpoint, connection)),
            Ok(Err(error)) => Err(self.doubted(error.to_string())),
            Err(_late) => Err(self.unreachable("it does not answer in time".to_owned())),
        }
    }

    async fn exchange(
        &self,
        connection: &Connection,
        compose: &(impl Fn(&Connection) -> Option<Request> + Sync),
    ) -> Result<Answer, JoinError> {
        let request = compose(connection).map(|request| request.encode());
        let request = request
            .ok_or_else(|| self.unreachable("the connection has no keys".to_owned()))?
            .map_err(|error| self.unreachable(error.to_string()))?;
        let exchanged = timeout(ANSWER_LIMIT, exchange(connection, &request)).await;
        let bytes = exchanged
            .unwrap_or_else(|_late| Err("the answer does not come in time".to_owned()))
            .map_err(|reason| JoinError::Unknown {
                seed: self.seed.to_owned(),
                reason,
            })?;
        Answer::decode(&bytes).map_err(|error| JoinError::Answer {
            seed: self.seed.to_owned(),
            reason: error.to_string(),
        })
    }

    fn doubted(&self, reason: String) -> JoinError {
        let seed = self.seed.to_owned();
        match self.pinned.doubt() {
            Some(Doubt::OtherAuthority) => JoinError::Pin { seed },
            Some(Doubt::Certificate(reason)) => JoinError::Certificate { seed, reason },
            None => JoinError::Unreachable { seed, reason },
        }
    }

    fn unreachable(&self, reason: String) -> JoinError {
        JoinError::Unreachable {
            seed: self.seed.to_owned(),
            reason,
        }
    }
}

async fn exchange(connection: &Connection, request: &[u8]) -> Result<Vec<u8>, String> {
    let (mut send, mut receive) = connection
        .open_bi()
        .await
        .map_err(|error| error.to_string())?;
    send.write_all(request)
        .await
        .map_err(|error| error.to_string())?;
    // A stream that cannot be finished was stopped; reading tells why.
    let _ = send.finish();
    let answer = receive.read_to_end(JOIN_ANSWER_BYTES_MAX).await;
    answer.map_err(|error| match connection.close_reason() {
        Some(reason) => reason.to_string(),
        None => error.to_string(),
    })
}

fn config(pinned: Arc<Pinned>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(pinned)
        .with_no_client_auth();
    tls.alpn_protocols = vec![PROTOCOL.to_vec()];
    // Each connection checks the pin anew.
    tls.resumption = rustls::client::Resumption::disabled();
    tls.enable_early_data = false;
    let tls = QuicClientConfig::try_from(tls).expect("ring has QUIC's initial cipher suite");
    let mut config = ClientConfig::new(Arc::new(tls));
    let mut transport = TransportConfig::default();
    let window = VarInt::from_u32(JOIN_ANSWER_BYTES_MAX as u32);
    let idle = ANSWER_LIMIT.try_into().expect("twenty seconds fit");
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(window)
        .receive_window(window)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(idle));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// TLS wants a name. Whose certificate it must be, the pin says.
const NAME: &str = "join.paceline";
/// The seed, and twice a node that was a voter a moment ago.
const HOPS_MAX: usize = 3;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The door's own limits, and a lost packet.
const ANSWER_LIMIT: Duration = Duration::from_secs(25);
const GOODBYE_LIMIT: Duration = Duration::from_millis(500);
