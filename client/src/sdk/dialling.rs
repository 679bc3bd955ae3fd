//! From an address to a session: handshake, hello, welcome.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use paceline_protocol::client::{CLIENT_SCHEMA, Greeting, Hello};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, TransportConfig, VarInt};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::frames::read_greeting;
use super::session::Opened;

/// The client's sockets: one for each family of addresses that the machine has.
pub(crate) struct Dialler {
    v4: Option<Endpoint>,
    v6: Option<Endpoint>,
    hello: Vec<u8>,
}

impl Dialler {
    /// Opens the sockets. Called within the runtime that shall drive them.
    pub(crate) fn new(tls: QuicClientConfig, hello: &Hello) -> std::io::Result<Self> {
        let mut config = ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::new(transport()));
        let open = |address: SocketAddr| {
            let mut endpoint = Endpoint::client(address)?;
            endpoint.set_default_client_config(config.clone());
            Ok::<_, std::io::Error>(endpoint)
        };
        let v4 = open((Ipv4Addr::UNSPECIFIED, 0).into());
        let v6 = open((Ipv6Addr::UNSPECIFIED, 0).into()).ok();
        let v4 = if v6.is_some() { v4.ok() } else { Some(v4?) };
        let hello = hello.encode().map_err(std::io::Error::other)?;
        Ok(Self { v4, v6, hello })
    }

    /// Connects with the node at `address`, in at most [`DIAL_LIMIT`].
    pub(crate) async fn dial(&self, address: &str) -> Result<Opened, String> {
        let dialled = timeout(DIAL_LIMIT, self.try_dial(address)).await;
        dialled.unwrap_or_else(|_late| Err("it does not answer".to_owned()))
    }

    /// Closes every connection; their nodes are told.
    pub(crate) fn close(&self) {
        for endpoint in [&self.v4, &self.v6].into_iter().flatten() {
            endpoint.close(VarInt::from_u32(0), b"");
        }
    }

    async fn try_dial(&self, address: &str) -> Result<Opened, String> {
        let resolved = lookup_host(address)
            .await
            .map_err(|error| error.to_string())?;
        let mut reason = "the name has no address".to_owned();
        for resolved in resolved.take(ADDRESSES_TRIED_MAX) {
            match self.connect(resolved).await {
                Ok(connection) => return self.greet(connection, address).await,
                Err(error) => reason = error,
            }
        }
        Err(reason)
    }

    async fn connect(&self, address: SocketAddr) -> Result<Connection, String> {
        let endpoint = if address.is_ipv4() {
            &self.v4
        } else {
            &self.v6
        };
        let endpoint = endpoint
            .as_ref()
            .ok_or("this machine has no such addresses")?;
        let connecting = endpoint.connect(address, SERVER_NAME);
        let connecting = connecting.map_err(|error| error.to_string())?;
        connecting.await.map_err(|error| error.to_string())
    }

    async fn greet(&self, connection: Connection, address: &str) -> Result<Opened, String> {
        let greeted = async {
            let (mut send, mut greetings) = connection.open_bi().await?;
            send.write_all(&self.hello).await?;
            send.finish()?;
            let greeting = read_greeting(&mut greetings).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((greetings, greeting))
        };
        let refuse = |reason: String| {
            connection.close(CLOSE_REFUSED, b"");
            Err(reason)
        };
        match greeted.await {
            Ok((greetings, Greeting::Welcome(welcome))) if welcome.schema == CLIENT_SCHEMA => {
                Ok(Opened {
                    connection,
                    greetings,
                    welcome,
                    address: address.to_owned(),
                })
            }
            Ok((_, Greeting::Refused(failure))) => refuse(format!("{}: {failure}", failure.code)),
            Ok(_) => refuse("it speaks another version".to_owned()),
            Err(error) => {
                let reason = connection.close_reason();
                refuse(reason.map_or_else(|| error.to_string(), |reason| reason.to_string()))
            }
        }
    }
}

fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    let idle = IDLE_MAX.try_into().expect("thirty seconds fit");
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(LARGE_ANSWERS_MAX)
        .stream_receive_window(STREAM_WINDOW_BYTES)
        .receive_window(WINDOW_BYTES)
        .send_window(SEND_WINDOW_BYTES)
        // Nodes send none; but who takes none sends none either, and ours are signs of life.
        .datagram_receive_buffer_size(Some(DATAGRAM_BYTES_MAX))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(idle));
    config
}

/// Three lost packets at QUIC's first timeouts.
const DIAL_LIMIT: Duration = Duration::from_secs(2);
/// Addresses of one name that are tried one after another.
const ADDRESSES_TRIED_MAX: usize = 4;
/// Certificates name nodes, and any node will do: this only has to be a name.
const SERVER_NAME: &str = "node.paceline";
/// Large answers to small requests that a node may send at a time.
const LARGE_ANSWERS_MAX: VarInt = VarInt::from_u32(64);
/// What a stream may hold that nobody has read. A slow reader shows that it reads by an eighth of it.
const STREAM_WINDOW_BYTES: VarInt = VarInt::from_u32(4 << 20);
/// As much for more streams than a connection has: who does not read one holds up no other.
const WINDOW_BYTES: VarInt = VarInt::from_u32(1 << 30);
const SEND_WINDOW_BYTES: u64 = 32 << 20;
const DATAGRAM_BYTES_MAX: usize = 1 << 10;
/// Keeps an idle connection open; while an answer is due, life signs are sent more often.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const IDLE_MAX: Duration = Duration::from_secs(30);
const CLOSE_REFUSED: VarInt = VarInt::from_u32(2);
