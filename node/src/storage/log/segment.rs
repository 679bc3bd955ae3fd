//! One segment file that is written to.

use std::io;
use std::sync::Arc;

use crate::storage::disk::{Disk, DiskFile};
use crate::storage::header::{FileKind, Header, Owner};

/// A segment and how far it is filled.
pub(super) struct Segment {
    pub(super) file: Box<dyn DiskFile>,
    pub(super) sequence: u64,
    /// Log offset of byte 0.
    pub(super) base: u64,
    /// Bytes of the file.
    pub(super) size: u64,
    /// Where the next record goes, in bytes.
    pub(super) position: u64,
}

/// What a new segment shall be.
pub(super) struct NewSegment {
    pub(super) owner: Owner,
    pub(super) sequence: u64,
    pub(super) base: u64,
    pub(super) size: u64,
    /// Its first record.
    pub(super) checkpoint: Vec<u8>,
}

impl Segment {
    /// Creates a segment with its checkpoint. When it has its name, all of it is durable: a
    /// named segment with a damaged header was not left by a crash.
    pub(super) fn create(disk: &Arc<dyn Disk>, new: NewSegment) -> io::Result<Self> {
        match disk.remove(TEMPORARY_NAME) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = disk.create(TEMPORARY_NAME)?;
        let filled = fill(file.as_mut(), &new);
        if let Err(error) = filled {
            // What stays would only take room; opening the log removes it too.
            let _ = disk.remove(TEMPORARY_NAME);
            return Err(error);
        }
        disk.rename(TEMPORARY_NAME, &name(new.sequence))?;
        disk.sync_dir()?;
        Ok(Self {
            file,
            sequence: new.sequence,
            base: new.base,
            size: new.size,
            position: (Header::BYTES + new.checkpoint.len()) as u64,
        })
    }

    /// Bytes that still fit.
    pub(super) fn room(&self) -> u64 {
        self.size - self.position
    }

    /// Log offset of the next record.
    pub(super) fn end(&self) -> u64 {
        self.base + self.position
    }
}

/// The file of a segment.
pub(super) fn name(sequence: u64) -> String {
    format!("segment-{sequence:010}.log")
}

/// The sequence number of a segment's file, or `None` if it is another file.
pub(super) fn sequence_of(name: &str) -> Option<u64> {
    let sequence = name
        .strip_prefix("segment-")?
        .strip_suffix(".log")?
        .parse()
        .ok()?;
    (self::name(sequence) == name).then_some(sequence)
}

fn fill(file: &mut dyn DiskFile, new: &NewSegment) -> io::Result<()> {
    let NewSegment {
        owner,
        sequence,
        base,
        size,
        ..
    } = *new;
    let header = Header {
        kind: FileKind::Segment,
        owner,
        number: sequence,
        first: base,
        size,
    };
    let mut start = header.encode().to_vec();
    start.extend_from_slice(&new.checkpoint);
    file.write_at(0, &start)?;
    write_zeros(file, start.len() as u64, size)?;
    file.sync_data()
}

/// Writes zeros from `start` to `end`: room that is really allocated, and blocks that need no
/// change of metadata when they are written again.
pub(super) fn write_zeros(file: &mut dyn DiskFile, start: u64, end: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS_BYTES.min((end - start) as usize)];
    let mut at = start;
    while at < end {
        let bytes = zeros.len().min((end - at) as usize);
        file.write_at(at, &zeros[..bytes])?;
        at += bytes as u64;
    }
    Ok(())
}

/// A segment that is being made.
pub(super) const TEMPORARY_NAME: &str = "segment.new";
const ZEROS_BYTES: usize = 1 << 20;
