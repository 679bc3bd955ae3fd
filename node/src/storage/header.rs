//! The header of every file that the log and its snapshots consist of.
//!
//! ```text
//!  0  magic      8   "PACELOG\0"
//!  8  version    2   format version, 1
//! 10  kind       2   1 log segment, 2 snapshot
//! 12  (zero)     4
//! 16  cluster   16   which cluster wrote it
//! 32  node       8   which of its nodes
//! 40  number     8   segment: its sequence number; snapshot: index of the last entry in it
//! 48  first      8   segment: log offset of byte 0; snapshot: bytes of its meta part
//! 56  size       8   segment: bytes of the file; snapshot: bytes of meta and state together
//! 64  crc        4   CRC32C of bytes 0 to 63
//! 68  (zero)     4
//! ```
//! Numbers are little-endian. The identity keeps a disk from one cluster, or from another node,
//! from being used by mistake.

/// Who writes a file: a node of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The cluster's random identity.
    pub cluster: u128,
    /// The node's id in it.
    pub node: u64,
}

/// Why a file is not one of this node's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Too short, another file, or damaged.
    #[error("its header is damaged: {reason}")]
    Damaged {
        /// What is wrong.
        reason: &'static str,
    },
    /// Written by a later release.
    #[error("it has format version {found}, this release reads up to {supported}")]
    Version {
        /// The file's.
        found: u16,
        /// The largest that is known.
        supported: u16,
    },
    /// Written in another cluster.
    #[error("it belongs to cluster {found:032x}, not to {expected:032x}")]
    WrongCluster {
        /// The file's.
        found: u128,
        /// This node's.
        expected: u128,
    },
    /// Written by another node.
    #[error("it belongs to node {found}, not to node {expected}")]
    WrongNode {
        /// The file's.
        found: u64,
        /// This one.
        expected: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Segment = 1,
    Snapshot = 2,
}

/// What a header says. The picture in the module's documentation has the meaning of each field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: FileKind,
    pub(crate) owner: Owner,
    pub(crate) number: u64,
    pub(crate) first: u64,
    pub(crate) size: u64,
}

impl Header {
    pub(crate) const BYTES: usize = 72;

    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10..12].copy_from_slice(&(self.kind as u16).to_le_bytes());
        bytes[16..32].copy_from_slice(&self.owner.cluster.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.owner.node.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.number.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.first.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.size.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..64]);
        bytes[64..68].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header of the given kind, whoever wrote it.
    pub(crate) fn decode(file: &[u8], kind: FileKind) -> Result<Self, HeaderError> {
        let damaged = |reason| Err(HeaderError::Damaged { reason });
        let Some(bytes) = file.first_chunk::<{ Self::BYTES }>() else {
            return damaged("the file is shorter than a header");
        };
        if &bytes[..8] != MAGIC {
            return damaged("the file does not begin as ours do");
        }
        let version = u16::from_le_bytes(field(bytes, 8));
        if version > VERSION {
            return Err(HeaderError::Version {
                found: version,
                supported: VERSION,
            });
        }
        if crc32c::crc32c(&bytes[..64]) != u32::from_le_bytes(field(bytes, 64)) {
            return damaged("its checksum does not match");
        }
        if u16::from_le_bytes(field(bytes, 10)) != kind as u16 {
            return damaged("it is another kind of file");
        }
        Ok(Self {
            kind,
            owner: Owner {
                cluster: u128::from_le_bytes(field(bytes, 16)),
                node: u64::from_le_bytes(field(bytes, 32)),
            },
            number: u64::from_le_bytes(field(bytes, 40)),
            first: u64::from_le_bytes(field(bytes, 48)),
            size: u64::from_le_bytes(field(bytes, 56)),
        })
    }

    /// Refuses what somebody else wrote.
    pub(crate) fn check_owner(&self, expected: Owner) -> Result<(), HeaderError> {
        let found = self.owner;
        if found.cluster != expected.cluster {
            let (found, expected) = (found.cluster, expected.cluster);
            return Err(HeaderError::WrongCluster { found, expected });
        }
        if found.node != expected.node {
            return Err(HeaderError::WrongNode {
                found: found.node,
                expected: expected.node,
            });
        }
        Ok(())
    }
}

fn field<const N: usize>(bytes: &[u8; Header::BYTES], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

const MAGIC: &[u8; 8] = b"PACELOG\0";
const VERSION: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        kind: FileKind::Segment,
        owner: Owner {
            cluster: 0x1234_5678_9abc_def0_1122_3344_5566_7788,
            node: 7,
        },
        number: 3,
        first: 4096,
        size: 65_536,
    };

    #[test]
    fn a_header_is_read_as_written_and_no_flipped_bit_passes() {
        let bytes = HEADER.encode();
        assert_eq!(Header::decode(&bytes, FileKind::Segment), Ok(HEADER));
        assert!(Header::decode(&bytes[..71], FileKind::Segment).is_err());
        assert!(Header::decode(&bytes, FileKind::Snapshot).is_err());
        for bit in 0..68 * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                Header::decode(&flipped, FileKind::Segment).is_err(),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn somebody_elses_file_is_refused_by_name() {
        let cluster = Owner {
            cluster: 9,
            node: 7,
        };
        assert!(matches!(
            HEADER.check_owner(cluster),
            Err(HeaderError::WrongCluster { expected: 9, .. })
        ));
        let node = Owner {
            node: 8,
            ..HEADER.owner
        };
        let expected = Err(HeaderError::WrongNode {
            found: 7,
            expected: 8,
        });
        assert_eq!(HEADER.check_owner(node), expected);
        assert_eq!(HEADER.check_owner(HEADER.owner), Ok(()));
    }

    #[test]
    fn a_later_format_is_refused_by_number() {
        let mut bytes = HEADER.encode();
        bytes[8] = 2;
        let refused = Err(HeaderError::Version {
            found: 2,
            supported: 1,
        });
        assert_eq!(Header::decode(&bytes, FileKind::Segment), refused);
    }
}
