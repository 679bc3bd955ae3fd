//! A record of a node's decisions, as a file: what stands before the steps, and how damage is
//! told.
//!
//! ```text
//!  0  schema      2   layout of all that follows, steps included
//!  2  magic      14   "PACELINERECORD"
//! 16  header      4   bytes of the header
//! 20  body        4   bytes of the body
//! 24  checksum    8   FNV-1a of header and body
//! 32  header          a RecordHeader
//!     body            the steps of each machine, which `paceline-core` writes and reads
//! ```
//! Numbers are little-endian. Steps are written as the machines' own types, so a record is read by
//! a release with the same ones: [`SCHEMA`] changes with them.

use serde::{Deserialize, Serialize};

use crate::NodeId;
use crate::limits::{RECORD_BYTES_MAX, RECORD_HEADER_BYTES_MAX};
use crate::wire::{self, WireError};

/// The layout that is written, and the only one that is read.
pub const SCHEMA: u16 = 5;

/// What a record says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordHeader {
    /// The release that made it.
    pub release: String,
    /// The node that it is of.
    pub node: NodeId,
    /// What was recorded, in the order of the body.
    pub machines: Vec<RecordedMachine>,
}

/// What there is of one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedMachine {
    /// Its kind: `router`, `device`, …
    pub machine: String,
    /// Which of its kind; empty where a node has one.
    pub instance: String,
    /// Steps that are there.
    pub steps: u64,
    /// Steps that are missing because the machine was too large to be copied.
    pub unkept: u64,
    /// When the first and the last were taken, in nanoseconds since the node's start.
    pub span_nanos: Option<(u64, u64)>,
}

/// Why bytes are no record that can be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Something else.
    #[error("this is no record of a node; `paceline debug record` makes them")]
    Foreign,
    /// Another layout.
    #[error(
        "the record has layout {found} and this release reads layout {SCHEMA}: replay it with the \
         release that made it"
    )]
    Schema {
        /// The file's.
        found: u16,
    },
    /// The end is missing.
    #[error("the record is truncated: {bytes} of {wanted} bytes are there")]
    Truncated {
        /// How many there are.
        bytes: usize,
        /// How many there should be, at least.
        wanted: usize,
    },
    /// Something stands behind it.
    #[error("the record has {wanted} bytes, and the file {bytes}")]
    Trailing {
        /// How many there are.
        bytes: usize,
        /// How many there should be.
        wanted: usize,
    },
    /// Some bytes are not what was written.
    #[error("the record is damaged: its checksum does not fit its bytes")]
    Damaged,
    /// More than is read.
    #[error("a record has at most {limit} bytes of {part}, and this one {bytes}")]
    TooLarge {
        /// Of which part.
        part: &'static str,
        /// How many there are.
        bytes: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// The bytes are not values, or not those of this release.
    #[error("the record's {part} cannot be read, or another build wrote them: {cause}")]
    Malformed {
        /// Which part.
        part: &'static str,
        /// What the codec says.
        cause: WireError,
    },
    /// Its numbers contradict each other.
    #[error("the record contradicts itself: what it says of its steps is not what they are")]
    Inconsistent,
}

/// Makes a file of a header and a body.
///
/// # Errors
/// [`RecordError::TooLarge`].
pub fn seal(header: &RecordHeader, body: &[u8]) -> Result<Vec<u8>, RecordError> {
    let header = wire::encode(header).map_err(malformed)?;
    let header_bytes = checked("header", header.len(), RECORD_HEADER_BYTES_MAX)?;
    let body_bytes = checked("steps", body.len(), RECORD_BYTES_MAX)?;
    let mut file = Vec::with_capacity(PRELUDE_BYTES + header.len() + body.len());
    file.extend_from_slice(&SCHEMA.to_le_bytes());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&header_bytes.to_le_bytes());
    file.extend_from_slice(&body_bytes.to_le_bytes());
    file.extend_from_slice(&checksum(&[&header, body]).to_le_bytes());
    file.extend_from_slice(&header);
    file.extend_from_slice(body);
    Ok(file)
}

/// Takes a file apart: its header, and the bytes of its body.
///
/// # Errors
/// [`RecordError`] says what is wrong with the file.
pub fn open(file: &[u8]) -> Result<(RecordHeader, &[u8]), RecordError> {
    let magic = file.get(2..).unwrap_or_default();
    if !magic.starts_with(&MAGIC[..magic.len().min(MAGIC.len())]) {
        return Err(RecordError::Foreign);
    }
    let truncated = |wanted| RecordError::Truncated {
        bytes: file.len(),
        wanted,
    };
    let (prelude, rest) = file
        .split_first_chunk::<PRELUDE_BYTES>()
        .ok_or_else(|| truncated(PRELUDE_BYTES))?;
    let found = u16::from_le_bytes([prelude[0], prelude[1]]);
    if found != SCHEMA {
        return Err(RecordError::Schema { found });
    }
    let number = |at: usize| {
        let bytes = std::array::from_fn(|place| prelude[at + place]);
        u32::from_le_bytes(bytes) as usize
    };
    let (header_bytes, body_bytes) = (number(16), number(20));
    checked("header", header_bytes, RECORD_HEADER_BYTES_MAX)?;
    checked("steps", body_bytes, RECORD_BYTES_MAX)?;
    let wanted = PRELUDE_BYTES + header_bytes + body_bytes;
    if file.len() > wanted {
        let bytes = file.len();
        return Err(RecordError::Trailing { bytes, wanted });
    }
    let (header, body) = rest
        .split_at_checked(header_bytes)
        .filter(|(_, body)| body.len() == body_bytes)
        .ok_or_else(|| truncated(wanted))?;
    if checksum(&[header, body]).to_le_bytes() != prelude[24..] {
        return Err(RecordError::Damaged);
    }
    let header = wire::decode(header, RECORD_HEADER_BYTES_MAX).map_err(malformed)?;
    Ok((header, body))
}

fn checked(part: &'static str, bytes: usize, limit: usize) -> Result<u32, RecordError> {
    if bytes > limit {
        return Err(RecordError::TooLarge { part, bytes, limit });
    }
    Ok(bytes as u32)
}

fn malformed(cause: WireError) -> RecordError {
    RecordError::Malformed {
        part: "header",
        cause,
    }
}

/// FNV-1a, 64 bit: it finds what copying does to files, and is no proof against intent.
fn checksum(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

const MAGIC: &[u8; 14] = b"PACELINERECORD";
const PRELUDE_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let header = RecordHeader {
            release: "0.1.0".to_owned(),
            node: NodeId(2),
            machines: vec![RecordedMachine {
                machine: "router".to_owned(),
                instance: String::new(),
                steps: 7,
                unkept: 0,
                span_nanos: Some((1, 9)),
            }],
        };
        let file = seal(&header, b"steps").unwrap();
        assert_eq!(open(&file).unwrap(), (header, b"steps".as_slice()));
        file
    }

    #[test]
    fn what_is_cut_off_anywhere_is_called_truncated() {
        let file = file();
        for length in 0..file.len() {
            let error = open(&file[..length]).unwrap_err().to_string();
            let said = format!("truncated: {length} of ");
            assert!(error.contains(&said), "{length} bytes: {error}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named() {
        let changed = |at: usize, byte: u8| {
            let mut file = file();
            file[at] = byte;
            open(&file).unwrap_err().to_string()
        };
        let end = file().len() - 1;
        assert!(changed(0, 9).contains("layout 9"), "{}", changed(0, 9));
        assert!(changed(5, 0).contains("no record"), "{}", changed(5, 0));
        assert!(changed(19, 255).contains("at most"), "{}", changed(19, 255));
        assert!(changed(end, 0).contains("damaged"), "{}", changed(end, 0));
        assert!(changed(30, 0).contains("damaged"), "{}", changed(30, 0));
        let error = open(b"[http]\nlisten = 1\n").unwrap_err();
        assert!(matches!(error, RecordError::Foreign), "{error}");
        let mut longer = file();
        longer.push(0);
        let error = open(&longer).unwrap_err();
        assert!(matches!(error, RecordError::Trailing { .. }), "{error}");
    }
}
