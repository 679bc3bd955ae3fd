//! What each side says first on a connection: which protocol, and which process.
//!
//! A node that is back within an instant is nowhere missed. Its life tells that it is another
//! process: what is under way to the one before ends at once, and not at its deadline.

use paceline_protocol::NodeId;

/// A process of a node: drawn at random when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life(pub(super) u64);

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerLife {
    pub(super) node: NodeId,
    pub(super) life: Life,
}

impl Life {
    /// The hello of this process.
    pub(super) fn hello(self) -> [u8; HELLO_BYTES] {
        let mut hello = [0; HELLO_BYTES];
        hello[..PREFIX.len()].copy_from_slice(&PREFIX);
        hello[PREFIX.len()..].copy_from_slice(&self.0.to_le_bytes());
        hello
    }

    /// Who says this; `None` if it is not what this version says.
    pub(super) fn of(hello: &[u8]) -> Option<Self> {
        let life = hello.strip_prefix(&PREFIX)?;
        Some(Self(u64::from_le_bytes(life.try_into().ok()?)))
    }
}

/// A magic word, and the schema of what follows.
const PREFIX: [u8; 6] = *b"PLHI\x02\x00";
/// The length of every hello.
pub(super) const HELLO_BYTES: usize = PREFIX.len() + size_of::<u64>();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_is_read_back_and_nothing_else_is() {
        let life = Life(0x0102_0304_0506_0708);
        let hello = life.hello();
        assert_eq!(Life::of(&hello), Some(life));
        assert_eq!(Life::of(&hello[..13]), None);
        assert_eq!(Life::of(&[&hello[..], &[0]].concat()), None);
        let mut older = hello;
        older[4] = 1;
        assert_eq!(Life::of(&older), None);
    }
}
