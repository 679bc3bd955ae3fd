//! The answering side of the join door.
//!
//! Whoever knocks has shown nothing: it gets one stream, one bounded request, a deadline, and
//! few wrong guesses. A token that does not exist and one whose secret is wrong are refused in
//! the same words, after the same work.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use paceline_core::Machine;
use paceline_core::guesses::{Effect, Guesses, Input, Options, Source};
use paceline_protocol::join::{Answer, JoinRequest, Joined, Request};
use paceline_protocol::limits::{JOIN_REQUEST_BYTES_MAX, NAME_BYTES_MAX};
use paceline_protocol::registry::Refusal;
use paceline_protocol::{Digest, ErrorCode, Failure};
use quinn::{Connection, SendStream, VarInt};
use rustls::pki_types::CertificateDer;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Admission, Admits, Admitted, mask, unix};
use crate::clock::Clock;
use crate::identity::authority::{Authority, key_in_certificate, key_in_request};
use crate::identity::credentials::Credentials;
use paceline_protocol::Subject;

/// The join door of one node. Cheap to clone; the clones share their limits.
#[derive(Clone)]
pub struct Door {
    inner: Arc<Inner>,
}

struct Inner {
    credentials: Credentials,
    admits: Arc<dyn Admits>,
    guesses: Mutex<Guesses>,
    clock: Clock,
    places: Semaphore,
}

impl Door {
    /// A door of the node with these credentials.
    pub fn new(credentials: Credentials, admits: Arc<dyn Admits>) -> Self {
        Self {
            inner: Arc::new(Inner {
                credentials,
                admits,
                guesses: Mutex::new(Guesses::new(Options::default())),
                clock: Clock::start(),
                places: Semaphore::new(PLACES),
            }),
        }
    }

    /// Answers the one request on a connection over [`paceline_protocol::join::PROTOCOL`], and
    /// closes it. Ends after 30 s at the latest.
    pub async fn serve(&self, connection: &Connection) {
        let Ok(_place) = self.inner.places.try_acquire() else {
            connection.close(CLOSE_REFUSED, b"busy");
            return;
        };
        let from = connection.remote_address();
        let read = timeout(REQUEST_LIMIT, read(connection)).await;
        let Ok(Some((bytes, mut send))) = read else {
            tracing::debug!(%from, "no request on the join door");
            connection.close(CLOSE_REFUSED, b"no request");
            return;
        };
        let answer = match Request::decode(&bytes) {
            Ok(request) => self.inner.answer(connection, request).await,
            Err(error) => refused(ErrorCode::ParameterInvalid, error.to_string()),
        };
        match &answer {
            // As many as anybody likes to cause.
            Answer::Refused(failure) if failure.code == ErrorCode::Overloaded => {
                tracing::debug!(%from, %failure, "refused on the join door");
            }
            Answer::Refused(failure) => {
                tracing::warn!(%from, code = %failure.code, %failure, "refused on the join door");
            }
            _ => {}
        }
        let encoded = answer.encode().unwrap_or_else(|error| {
            tracing::error!(%error, "an answer of the join door cannot be sent");
            Vec::new()
        });
        // Who asked closes once it has read; who does not read is not waited for.
        let sent = async {
            send.write_all(&encoded).await.ok()?;
            send.finish().ok()?;
            connection.closed().await;
            Some(())
        };
        let _ = timeout(SEND_LIMIT, sent).await;
        connection.close(CLOSE_DONE, b"done");
    }
}

async fn read(connection: &Connection) -> Option<(Vec<u8>, SendStream)> {
    let (send, mut receive) = connection.accept_bi().await.ok()?;
    let bytes = receive.read_to_end(JOIN_REQUEST_BYTES_MAX).await.ok()?;
    Some((bytes, send))
}

impl Inner {
    async fn answer(&self, connection: &Connection, request: Request) -> Answer {
        let source = source_of(connection.remote_address().ip());
        if let Some(refusal) = self.attempt(source) {
            return Answer::Refused(refusal);
        }
        let answered = async {
            match request {
                Request::Join(request) => self.join(connection, request, source).await,
                Request::Renew {
                    certificate,
                    request,
                } => self.renew(&certificate.into(), &request, source),
            }
        };
        match timeout(DECIDE_LIMIT, answered).await {
            Ok(answer) => answer.unwrap_or_else(Answer::Refused),
            Err(_late) => refused(
                ErrorCode::Unknown,
                "the cluster did not decide in time; repeat it, the node gets the same id",
            ),
        }
    }

    async fn join(
        &self,
        connection: &Connection,
        request: JoinRequest,
        source: Source,
    ) -> Result<Answer, Failure> {
        let known = self.admits.token(request.token).await;
        // A token that does not exist costs the same work as one that does.
        let digest = known.unwrap_or(Digest([0; 32]));
        let secret = mask::apply(connection, &digest, &request.masked)
            .ok_or_else(|| Failure::new(ErrorCode::Internal, "the connection has no keys"))?;
        let shown = secret.digest();
        if !bool::from(shown.0.ct_eq(&digest.0)) {
            return Err(Refusal::TokenUnknown.into());
        }
        let Some(authority) = self.admits.authority() else {
            self.right(source);
            let voter = self.admits.voter();
            return Ok(Answer::NotAVoter { voter });
        };
        let invalid = |reason: String| Failure::new(ErrorCode::ParameterInvalid, reason);
        name("name", &request.name).map_err(invalid)?;
        name("zone", &request.zone).map_err(invalid)?;
        let key = key_in_request(&request.request).map_err(|error| invalid(error.to_string()))?;
        let admission = Admission {
            token: request.token,
            secret_sha256: shown,
            key_sha256: key,
            name: request.name,
            zone: request.zone,
        };
        let admitted = self.admits.admit(admission).await?;
        // Only now: whoever has a token that is used up shall not write to the log for ever.
        self.right(source);
        let joined = self.given(&authority, admitted, &request.request)?;
        tracing::info!(node = joined.node.0, "a node was admitted");
        Ok(Answer::Joined(Box::new(joined)))
    }

    fn given(
        &self,
        authority: &Authority,
        admitted: Admitted,
        request: &[u8],
    ) -> Result<Joined, Failure> {
        let cluster = self.credentials.subject().cluster;
        let subject = Subject {
            node: admitted.node,
            cluster,
        };
        let certificate = sign(authority, request, subject)?;
        Ok(Joined {
            node: admitted.node,
            cluster,
            certificate: certificate.to_vec(),
            authority: authority.certificate().to_vec(),
            cookie: admitted.cookie,
            peers: admitted.peers,
            name: admitted.name,
        })
    }

    fn renew(
        &self,
        certificate: &CertificateDer<'_>,
        request: &[u8],
        source: Source,
    ) -> Result<Answer, Failure> {
        let refuse = |reason: String| Failure::new(ErrorCode::Unauthenticated, reason);
        let trust = self.credentials.trust();
        let owner = trust
            .owner(certificate, unix(SystemTime::now()))
            .map_err(|error| refuse(format!("the certificate is not accepted: {error}")))?;
        let key = key_in_request(request)
            .map_err(|error| Failure::new(ErrorCode::ParameterInvalid, error.to_string()))?;
        if key_in_certificate(certificate) != Some(key) {
            let reason = "the request is not for the key of the certificate";
            return Err(refuse(reason.to_owned()));
        }
        self.right(source);
        let Some(authority) = self.admits.authority() else {
            let voter = self.admits.voter();
            return Ok(Answer::NotAVoter { voter });
        };
        let certificate = sign(&authority, request, owner)?.to_vec();
        Ok(Answer::Renewed { certificate })
    }

    fn attempt(&self, source: Source) -> Option<Failure> {
        match self.step(Input::Attempt(source)).first() {
            Some(Effect::Refuse { retry_after }) => {
                let wait_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
                let failure = Failure::new(ErrorCode::Overloaded, "too many wrong attempts");
                Some(failure.retry_after_ms(wait_ms))
            }
            Some(Effect::Check) | None => None,
        }
    }

    fn right(&self, source: Source) {
        self.step(Input::Right(source));
    }

    fn step(&self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        let guesses = self.guesses.lock();
        let mut guesses = guesses.unwrap_or_else(PoisonError::into_inner);
        guesses.step(self.clock.now(), input, &mut effects);
        effects
    }
}

fn sign(
    authority: &Authority,
    request: &[u8],
    subject: Subject,
) -> Result<CertificateDer<'static>, Failure> {
    let signed = authority.sign(request, subject, SystemTime::now());
    signed.map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))
}

fn refused(code: ErrorCode, message: impl Into<std::borrow::Cow<'static, str>>) -> Answer {
    Answer::Refused(Failure::new(code, message))
}

/// Names are read by people, in tables.
fn name(what: &str, text: &str) -> Result<(), String> {
    if text.len() > NAME_BYTES_MAX {
        let bytes = text.len();
        return Err(format!(
            "a {what} has at most {NAME_BYTES_MAX} bytes, this one has {bytes}"
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("a {what} has no control characters"));
    }
    Ok(())
}

/// What an attacker cannot choose freely: an IPv4 address, or the network part of an IPv6 one.
fn source_of(address: IpAddr) -> Source {
    match address.to_canonical() {
        IpAddr::V4(address) => Source(u64::from(address.to_bits())),
        IpAddr::V6(address) => Source((address.to_bits() >> 64) as u64),
    }
}

/// Requests that are answered at a time: each may wait for the registry.
const PLACES: usize = 32;
/// From the handshake to the last byte of the request.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// For the registry to commit: an election, and the write after it.
const DECIDE_LIMIT: Duration = Duration::from_secs(15);
const SEND_LIMIT: Duration = Duration::from_secs(5);
const CLOSE_DONE: VarInt = VarInt::from_u32(0);
const CLOSE_REFUSED: VarInt = VarInt::from_u32(2);
