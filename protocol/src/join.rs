//! What is said on the join door, `paceline-join/1`: one request, one answer, on one stream of
//! a connection on which only the cluster has shown a certificate.
//!
//! **The secret itself is never sent.** Both sides derive the same 32 bytes from their TLS
//! connection and the secret's digest ([`CHANNEL_LABEL`], RFC 5705), and the new node sends its
//! secret XORed with them, as SCRAM does (RFC 5802, section 3). A node that knows the digest
//! recovers the secret and compares; on any other connection, and to whoever does not know the
//! digest, what was sent is noise. So a stolen certificate of a node that was removed cannot
//! collect tokens, and the digest, which lies in every node's registry, admits nobody.
//!
//! **A node whose certificate has expired** shows it with a request that its own key has
//! signed. Whoever replays both gets a certificate for a key that it does not have.

use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::id::{NodeId, TokenId};
use crate::limits::{JOIN_ANSWER_BYTES_MAX, JOIN_REQUEST_BYTES_MAX};
use crate::token::Secret;
use crate::wire::{self, WireError};

/// The door's name in the handshake (ALPN, RFC 7301).
pub const PROTOCOL: &[u8] = b"paceline-join/1";
/// Label of the bytes that both sides derive from their connection; their context is the
/// SHA-256 of the secret.
pub const CHANNEL_LABEL: &[u8] = b"EXPORTER-paceline-join-1";

/// What is asked on the join door. Variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Admit a new node.
    Join(JoinRequest),
    /// Sign a node's key once more.
    Renew {
        /// The certificate that it has (X.509, DER), expired or not.
        certificate: Vec<u8>,
        /// A request for a new one of the same key (PKCS#10, DER).
        request: Vec<u8>,
    },
}

/// A new node asks to be admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The token that it was given.
    pub token: TokenId,
    /// The token's secret, masked for this connection.
    pub masked: Secret,
    /// A request for a certificate of its key (PKCS#10, DER).
    pub request: Vec<u8>,
    /// What people shall call it; if it is empty, the cluster finds a name.
    pub name: String,
    /// Where it stands.
    pub zone: String,
}

/// What is answered. Variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The node is admitted.
    Joined(Box<Joined>),
    /// The key is signed once more.
    Renewed {
        /// The new certificate (X.509, DER).
        certificate: Vec<u8>,
    },
    /// This node cannot sign, since it is not a voter; another one can.
    NotAVoter {
        /// Where a voter's join door is (`host:port`), if one is known.
        voter: Option<String>,
    },
    /// No.
    Refused(Failure),
}

/// All that a new node needs to be one of the cluster's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Its id, for ever.
    pub node: NodeId,
    /// The cluster.
    pub cluster: u128,
    /// The certificate of its key (X.509, DER).
    pub certificate: Vec<u8>,
    /// The certificate of the cluster's authority (X.509, DER).
    pub authority: Vec<u8>,
    /// What opens the mesh.
    pub cookie: Secret,
    /// Nodes to speak to first.
    pub peers: Vec<Peer>,
    /// What people call it: as it has wished, or as was found.
    pub name: String,
}

/// Where a node is reached by its peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Which node.
    pub node: NodeId,
    /// Its peer port: `host:port`.
    pub address: String,
}

/// Why bytes are not what is said on the join door.
#[derive(Debug, thiserror::Error)]
pub enum JoinMessageError {
    /// They do not encode or decode.
    #[error("a malformed message on the join door: {0}")]
    Wire(#[from] WireError),
    /// They were written by a later release.
    #[error("a message of schema {schema} on the join door; this release understands {SCHEMA}")]
    Schema {
        /// The message's.
        schema: u16,
    },
}

impl Request {
    /// The request as it is sent.
    ///
    /// # Errors
    /// It is longer than anybody reads.
    pub fn encode(&self) -> Result<Vec<u8>, JoinMessageError> {
        encode(self, JOIN_REQUEST_BYTES_MAX)
    }

    /// Reads a request.
    ///
    /// # Errors
    /// Too long, malformed, or of a later release.
    pub fn decode(bytes: &[u8]) -> Result<Self, JoinMessageError> {
        decode(bytes, JOIN_REQUEST_BYTES_MAX)
    }
}

impl Answer {
    /// The answer as it is sent.
    ///
    /// # Errors
    /// It is longer than anybody reads.
    pub fn encode(&self) -> Result<Vec<u8>, JoinMessageError> {
        encode(self, JOIN_ANSWER_BYTES_MAX)
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// Too long, malformed, or of a later release.
    pub fn decode(bytes: &[u8]) -> Result<Self, JoinMessageError> {
        decode(bytes, JOIN_ANSWER_BYTES_MAX)
    }
}

fn encode<T: Serialize>(message: &T, limit: usize) -> Result<Vec<u8>, JoinMessageError> {
    let mut bytes = SCHEMA.to_le_bytes().to_vec();
    bytes.extend(wire::encode(message)?);
    if bytes.len() > limit {
        let bytes = bytes.len();
        return Err(WireError::TooLarge { bytes, limit }.into());
    }
    Ok(bytes)
}

/// The schema is looked at alone: the rest of a later release's message may not decode.
fn decode<T: serde::de::DeserializeOwned>(
    bytes: &[u8],
    limit: usize,
) -> Result<T, JoinMessageError> {
    let Some((schema, rest)) = bytes.split_first_chunk() else {
        return Ok(wire::decode(&[], limit)?);
    };
    let schema = u16::from_le_bytes(*schema);
    if schema != SCHEMA {
        return Err(JoinMessageError::Schema { schema });
    }
    Ok(wire::decode(rest, limit - 2)?)
}

const SCHEMA: u16 = 1;

#[cfg(test)]
mod tests;
