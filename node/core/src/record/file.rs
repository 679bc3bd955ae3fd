//! Records as bytes: what `paceline debug record` writes and `paceline sim replay` reads.

use paceline_protocol::NodeId;
use paceline_protocol::limits::RECORD_BYTES_MAX;
use paceline_protocol::record::{self, RecordError, RecordHeader};
use paceline_protocol::wire::{self, WireError};

use super::Kept;

/// The bytes of a node's record.
///
/// # Errors
/// [`RecordError::TooLarge`].
pub fn write(node: NodeId, release: &str, kept: &[Kept]) -> Result<Vec<u8>, RecordError> {
    let header = RecordHeader {
        release: release.to_owned(),
        node,
        machines: kept.iter().map(Kept::summary).collect(),
    };
    let body = wire::encode(&kept).map_err(malformed)?;
    record::seal(&header, &body)
}

/// The record in a file, and what the file says of it.
///
/// # Errors
/// [`RecordError`] says what is wrong with the file.
pub fn read(bytes: &[u8]) -> Result<(RecordHeader, Vec<Kept>), RecordError> {
    let (header, body) = record::open(bytes)?;
    let kept: Vec<Kept> = wire::decode(body, RECORD_BYTES_MAX).map_err(malformed)?;
    // What stands before the body is for who cannot read it, and must not say something else.
    let summary: Vec<_> = kept.iter().map(Kept::summary).collect();
    if !kept.iter().all(Kept::is_whole) || summary != header.machines {
        return Err(RecordError::Inconsistent);
    }
    Ok((header, kept))
}

fn malformed(cause: WireError) -> RecordError {
    RecordError::Malformed {
        part: "steps",
        cause,
    }
}
