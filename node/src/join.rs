//! How a machine becomes a node: the join door, `paceline-join/1`, from both sides.
//!
//! ```text
//!   new node                                             member
//!   ── TLS: the member's chain must lead to the token's pin ──▶   nothing was sent yet
//!   ── token id, masked secret, certificate request ─────────▶   [`Admits::token`], unmask, compare
//!                                                                [`Admits::admit`]: a committed id
//!   ◀── id, certificate, authority, cookie, peers ────────────   signed, if it is a voter
//! ```
//!
//! The new node writes its key before it asks, and `identity.json` after all else that it was
//! given. Whatever is interrupted is repeated with the same key, and the registry answers the
//! same key with the same id. [`paceline_protocol::join`] says why the secret travels masked.

mod client;
pub mod door;
mod mask;
mod pinned;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use paceline_protocol::join::{Answer, JoinRequest, Joined, Peer, Request};
use paceline_protocol::{Digest, Failure, JoinToken, NodeId, Secret, TokenId};
use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::KeyUsage;

pub use self::door::Door;
use crate::config::{self, Config};
use crate::identity::authority::{self, Authority, AuthorityError};
use crate::identity::credentials::Credentials;
use crate::identity::files::{Files, FilesError, Given};
use crate::identity::trust::Trust;
use crate::identity::{Identity, IdentityError, replace};
use crate::node::keep_first_peers;
use crate::storage::disk::Disk;
use crate::transport::Boxed;
use paceline_protocol::Subject;

/// What the door asks of the registry, as it is seen from this node.
pub trait Admits: Send + Sync + 'static {
    /// SHA-256 of a token's secret, if there is such a token, whether or not it is still good.
    fn token(&self, token: TokenId) -> Boxed<'_, Option<Digest>>;

    /// Commits that a node is admitted. Whoever asks has shown the token's secret.
    fn admit(&self, admission: Admission) -> Boxed<'_, Result<Admitted, Failure>>;

    /// What signs nodes, if this node is a voter.
    fn authority(&self) -> Option<Arc<Authority>>;

    /// Where the join door of a voter is, if one is known.
    fn voter(&self) -> Option<String>;
}

/// A node that may be admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// By which token.
    pub token: TokenId,
    /// SHA-256 of the secret that was shown.
    pub secret_sha256: Digest,
    /// SHA-256 of the node's public key.
    pub key_sha256: Digest,
    /// What people shall call it.
    pub name: String,
    /// Where it stands.
    pub zone: String,
}

/// A node that was admitted.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// Its id.
    pub node: NodeId,
    /// What opens the mesh.
    pub cookie: Secret,
    /// Nodes that it can speak to first.
    pub peers: Vec<Peer>,
    /// What people call it.
    pub name: String,
}

/// Why a machine did not become a node, or a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The directory is a node's already.
    #[error(
        "'{place}' is node {node} of cluster {cluster:032x} already: \
         start it with `paceline serve --data-dir {place}`, or choose another directory"
    )]
    Member {
        /// The directory.
        place: String,
        /// The node.
        node: NodeId,
        /// Its cluster.
        cluster: u128,
    },
    /// The address means nothing.
    #[error("'{seed}' is not an address of a node (HOST:PORT of its SDK door): {reason}")]
    Seed {
        /// What was given.
        seed: String,
        /// What is wrong.
        reason: String,
    },
    /// Nobody answers there. Nothing was sent.
    #[error("no node answers at {seed}: {reason}")]
    Unreachable {
        /// Where.
        seed: String,
        /// What is known.
        reason: String,
    },
    /// Somebody else answers there. Nothing was sent.
    #[error(
        "the node at {seed} belongs to another cluster than the token does; nothing was sent to it"
    )]
    Pin {
        /// Where.
        seed: String,
    },
    /// The right cluster answers, with a certificate that is not good now. Nothing was sent.
    #[error(
        "the certificate of the node at {seed} cannot be accepted: {reason}; \
         nothing was sent to it. Are the clocks of both machines right?"
    )]
    Certificate {
        /// Where.
        seed: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The request was sent, and what became of it is not known.
    #[error("{seed} was asked and did not answer: {reason}; repeat it, the node gets the same id")]
    Unknown {
        /// Where.
        seed: String,
        /// What is known.
        reason: String,
    },
    /// The answer makes no sense.
    #[error("{seed} gave an answer that cannot be used: {reason}")]
    Answer {
        /// Where.
        seed: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nodes answer, and none of them can sign.
    #[error("no voter was found from {seed} on; name a voter's address")]
    NoVoter {
        /// Where the search began.
        seed: String,
    },
    /// The cluster says no.
    #[error("the cluster refuses: {0}")]
    Refused(Failure),
    /// The data directory.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What is kept there.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The node's key cannot be used.
    #[error(transparent)]
    Key(#[from] AuthorityError),
}

/// Makes the machine with this data directory a node of the cluster that `token` belongs to,
/// by way of the member at `seed`. The directory keeps what `config` says, so that it suffices
/// to start the node; where the name is left to its default, the cluster finds one. Takes some 10 ms, and 30 s at most for each address tried.
///
/// # Errors
/// [`JoinError`]. Unless it says otherwise, the cluster knows nothing of it.
pub async fn join(
    disk: &Arc<dyn Disk>,
    seed: &str,
    token: &JoinToken,
    config: &Config,
) -> Result<Joined, JoinError> {
    if let Some(Identity { cluster, node }) = Identity::load(disk)? {
        let place = disk.place();
        return Err(JoinError::Member {
            place,
            node,
            cluster,
        });
    }
    let files = Files::new(disk.clone());
    let key = files.key()?;
    let request = authority::request(&key)?;
    let name = match &config.node.name {
        // The founder's, as a rule: two nodes never have the same.
        name if *name == Config::default().node.name => String::new(),
        name => name.clone(),
    };
    let compose = |connection: &quinn::Connection| {
        let masked = mask::apply(connection, &token.secret.digest(), &token.secret)?;
        Some(Request::Join(JoinRequest {
            token: token.id,
            masked,
            request: request.clone(),
            name: name.clone(),
            zone: config.node.zone.clone(),
        }))
    };
    let (door, answer) = client::ask_a_voter(seed, token.pin, &compose).await?;
    let wrong = |reason: String| JoinError::Answer {
        seed: door.clone(),
        reason,
    };
    let joined = match answer {
        Answer::Joined(joined) => *joined,
        Answer::Refused(failure) => return Err(JoinError::Refused(failure)),
        other => return Err(wrong(format!("{other:?}"))),
    };
    let given = Given {
        certificate: &joined.certificate.clone().into(),
        authority: &joined.authority.clone().into(),
        cookie: &joined.cookie,
    };
    let identity = Identity {
        cluster: joined.cluster,
        node: joined.node,
    };
    check_given(&given, (token.pin, identity.subject()), key).map_err(wrong)?;
    files.save_given(&given)?;
    let mut kept = config.clone();
    kept.node.name.clone_from(&joined.name);
    let stored = keep_first_peers(disk, &joined.peers)
        .and_then(|()| keep_configuration(disk, &kept.kept()))
        .and_then(|()| identity.store(disk));
    let place = disk.place();
    stored.map_err(|cause| IdentityError::Io { place, cause })?;
    Ok(joined)
}

/// Keeps what the node was given, so that its directory suffices to start it.
///
/// # Errors
/// What the disk says.
pub(crate) fn keep_configuration(disk: &Arc<dyn Disk>, kept: &str) -> std::io::Result<()> {
    if kept.is_empty() {
        return Ok(());
    }
    replace(disk, config::KEPT, kept.as_bytes())
}

/// Whether what was given is the pinned authority's, and the node's own.
fn check_given(
    given: &Given<'_>,
    (pin, subject): (Digest, Subject),
    key: KeyPair,
) -> Result<(), String> {
    if authority::key_in_certificate(given.authority) != Some(pin) {
        return Err("its authority is not the token's".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let trust = Trust::new(given.authority, subject.cluster, provider);
    let trust = trust.map_err(|error| error.to_string())?;
    let certificate = given.certificate.clone();
    let credentials = Credentials::new(subject, key, certificate, trust);
    check(
        &credentials.map_err(|error| error.to_string())?,
        given.certificate,
    )
}

/// Has the node's key signed once more by way of the join door at `door`, and shows the new
/// certificate from then on. It remains to be saved: [`Files::save_certificate`].
///
/// # Errors
/// [`JoinError`]; the old certificate is shown on.
pub async fn renew(
    door: &str,
    credentials: &Credentials,
) -> Result<CertificateDer<'static>, JoinError> {
    let request = Request::Renew {
        certificate: credentials.certificate().to_vec(),
        request: credentials.request()?,
    };
    let pin = authority::key_in_certificate(credentials.trust().authority());
    let pin = pin.expect("what is trusted was parsed when it was loaded");
    let compose = |_: &quinn::Connection| Some(request.clone());
    let (door, answer) = client::ask_a_voter(door, pin, &compose).await?;
    let wrong = |reason: String| JoinError::Answer {
        seed: door.clone(),
        reason,
    };
    let certificate = match answer {
        Answer::Renewed { certificate } => CertificateDer::from(certificate),
        Answer::Refused(failure) => return Err(JoinError::Refused(failure)),
        other => return Err(wrong(format!("{other:?}"))),
    };
    check(credentials, &certificate).map_err(wrong)?;
    let shown = credentials.renew(certificate.clone());
    shown.map_err(|error| wrong(error.to_string()))?;
    Ok(certificate)
}

/// Whether a certificate that was given is good, and the node's own.
fn check(credentials: &Credentials, certificate: &CertificateDer<'_>) -> Result<(), String> {
    let usage = KeyUsage::client_auth();
    let subject: Subject = credentials
        .trust()
        .subject(certificate, usage, unix(SystemTime::now()))
        .map_err(|error| error.to_string())?;
    if subject != credentials.subject() {
        return Err(format!("a certificate of {subject}"));
    }
    Ok(())
}

fn unix(now: SystemTime) -> UnixTime {
    // Before 1970 no certificate is good, as at its first second.
    UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests;
