//! What a client and a node say to each other before and beside requests.
//!
//! ```text
//!   client                                                   node
//!     │  the first stream:  Hello ─────────────────────────►  │
//!     │  ◄──────────────────────── Greeting: welcome, refused │
//!     │  ◄────────────── Greeting: other nodes, go away, …    │  for as long as it lasts
//!     │                                                       │
//!     │  any other stream:  frames ────────────────────────►  │  ClientInfer, Cancel
//!     │  ◄─────────────────────────────────────────── frames  │  ClientAnswer, Failed
//!     │  one stream each:   frames ────────────────────────►  │  ClientInfer in parts, Cancel
//!     │  ◄─────────────────────────────────────────── frames  │  ClientPart …, ClientEnd, Failed
//! ```
//!
//! The first stream carries these messages, each behind its length as four bytes, the lowest
//! first. Every other stream carries [frames](crate::frame). A stream may carry any number of
//! requests, told apart by their numbers, which are unique on their connection and begin at 1.
//! Requests with a body over [`LANE_BYTES_MAX`] have a stream of their own. Answers come back on
//! the stream of their request; only a larger one to a request that was not comes on a stream
//! that the node opens, so that nothing waits behind it. A request whose answer shall come in parts
//! has a stream of its own, too: QUIC's flow control on it is what holds the node back, and it ends
//! with exactly one `ClientEnd` or `Failed`. A client that is no longer interested
//! says `Cancel`, or stops the stream. A frame with number 0 ends its stream as a whole. A node
//! that stops says that it goes away, refuses what arrives from then on, answers what it has, and
//! closes the connection with [`CLOSED_ANSWERED`].

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, NodeId};
use crate::tenant::ApiKey;
use crate::wire::{self, WireError};

/// The plane's name in the handshake (ALPN, RFC 7301).
pub const CLIENT_PROTOCOL: &[u8] = b"paceline-client/1";
/// The same for nodes that want to join.
pub const JOIN_PROTOCOL: &[u8] = b"paceline-join/1";
/// The first number in a [`Hello`] and in a [`Welcome`]; it rises when old readers could not go on.
pub const CLIENT_SCHEMA: u16 = 5;
/// Largest hello: a key, a release, and room.
pub const HELLO_BYTES_MAX: usize = 4 << 10;
/// Largest greeting: the addresses of 64 nodes, each as long as a name may be.
pub const GREETING_BYTES_MAX: usize = 32 << 10;
/// Largest frame body that shares a stream with others: what takes 13 µs at 10 Gbit/s holds
/// nobody up.
pub const LANE_BYTES_MAX: usize = 16 << 10;
/// What a node closes a connection with (RFC 9000, section 20.2) once it has answered everything
/// that it took on it, and given the answers time to arrive: what has no answer then was not
/// executed, as far as the node can know. Any other code leaves that open.
pub const CLOSED_ANSWERED: u32 = 6;
/// Bytes in front of every message of the first stream: its length.
pub const LENGTH_BYTES: usize = 4;

/// The first that a client says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`CLIENT_SCHEMA`].
    pub schema: u16,
    /// Who the client is; who shows no key is the tenant `default`, where that is allowed.
    pub api_key: Option<ApiKey>,
    /// The client's release, for people.
    pub release: String,
}

/// What a node says on the first stream. Variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Greeting {
    /// The first word: requests may be sent.
    Welcome(Welcome),
    /// The first and last word: they may not.
    Refused(crate::error::Failure),
    /// Where clients reach the cluster's nodes has changed.
    Nodes(Vec<ClientDoor>),
    /// The node leaves: new requests belong elsewhere, what it has taken it finishes.
    GoAway,
    /// The node stays after all.
    Stay,
}

/// Whom a client has reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`CLIENT_SCHEMA`].
    pub schema: u16,
    /// The cluster.
    pub cluster: u128,
    /// The node in it.
    pub node: NodeId,
    /// The epoch that it has applied.
    pub epoch: Epoch,
    /// Where clients reach the cluster's nodes, this one included.
    pub nodes: Vec<ClientDoor>,
    /// Requests that this connection may have in flight; more are refused.
    pub in_flight_max: u32,
    /// Largest body of a request, in bytes.
    pub body_bytes_max: u64,
}

/// Where clients reach a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientDoor {
    /// The node.
    pub node: NodeId,
    /// `host:port` of its SDK door.
    pub address: String,
}

impl Greeting {
    /// The message behind its length.
    ///
    /// # Errors
    /// It is over [`GREETING_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        behind_length(&wire::encode(self)?, GREETING_BYTES_MAX)
    }

    /// Reads a message whose length has been taken off.
    ///
    /// # Errors
    /// Anything but a greeting.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        wire::decode(bytes, GREETING_BYTES_MAX)
    }
}

impl Hello {
    /// The message behind its length.
    ///
    /// # Errors
    /// It is over [`HELLO_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        behind_length(&wire::encode(self)?, HELLO_BYTES_MAX)
    }

    /// Reads a message whose length has been taken off.
    ///
    /// # Errors
    /// Anything but a hello.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        wire::decode(bytes, HELLO_BYTES_MAX)
    }
}

/// The length that stands in front of a message.
///
/// # Errors
/// It is over `limit`.
pub fn message_length(bytes: [u8; LENGTH_BYTES], limit: usize) -> Result<usize, WireError> {
    let bytes = u32::from_le_bytes(bytes) as usize;
    if bytes > limit {
        return Err(WireError::TooLarge { bytes, limit });
    }
    Ok(bytes)
}

fn behind_length(message: &[u8], limit: usize) -> Result<Vec<u8>, WireError> {
    let bytes = message.len();
    if bytes > limit {
        return Err(WireError::TooLarge { bytes, limit });
    }
    let mut out = Vec::with_capacity(LENGTH_BYTES + bytes);
    out.extend_from_slice(&(bytes as u32).to_le_bytes());
    out.extend_from_slice(message);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorCode, Failure};
    use crate::tenant::KeyId;
    use crate::token::Secret;

    fn doors(count: u64) -> Vec<ClientDoor> {
        let door = |node| ClientDoor {
            node: NodeId(node),
            address: "h".repeat(300),
        };
        (0..count).map(door).collect()
    }

    fn hello() -> Hello {
        let key = ApiKey {
            id: KeyId([7; 8]),
            secret: Secret::new([9; 32]),
        };
        Hello {
            schema: CLIENT_SCHEMA,
            api_key: Some(key),
            release: "0.1.0".to_owned(),
        }
    }

    #[test]
    fn messages_come_back_as_they_were() {
        let hello = hello();
        let bytes = hello.encode().unwrap();
        let (length, rest) = bytes.split_first_chunk().unwrap();
        assert_eq!(
            message_length(*length, HELLO_BYTES_MAX).unwrap(),
            rest.len()
        );
        assert_eq!(Hello::decode(rest).unwrap(), hello);

        let welcome = Greeting::Welcome(Welcome {
            schema: CLIENT_SCHEMA,
            cluster: u128::MAX,
            node: NodeId(3),
            epoch: Epoch(812),
            nodes: doors(64),
            in_flight_max: 1_024,
            body_bytes_max: 64 << 20,
        });
        let refused = Greeting::Refused(Failure::new(ErrorCode::Overloaded, "full"));
        for greeting in [
            welcome,
            refused,
            Greeting::Nodes(doors(3)),
            Greeting::GoAway,
            Greeting::Stay,
        ] {
            let bytes = greeting.encode().unwrap();
            assert_eq!(Greeting::decode(&bytes[LENGTH_BYTES..]).unwrap(), greeting);
        }
    }

    #[test]
    fn limits_are_held_before_anything_is_read() {
        assert!(Greeting::Nodes(doors(200)).encode().is_err());
        let length = u32::MAX.to_le_bytes();
        assert!(message_length(length, HELLO_BYTES_MAX).is_err());
        assert!(Hello::decode(&[0; HELLO_BYTES_MAX + 1]).is_err());
        assert!(Hello::decode(&[255; 40]).is_err());
    }

    #[test]
    fn a_key_is_checked_and_never_printed() {
        let shown = format!("{:?}", hello());
        assert!(shown.contains("***"), "{shown}");
        // A hostile hello cannot bring in what is no key.
        let forged = wire::encode(&(1u16, Some("pk_secret"), "0.1.0")).unwrap();
        assert!(Hello::decode(&forged).is_err());
    }
}
