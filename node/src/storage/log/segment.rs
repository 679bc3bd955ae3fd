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
        let mut file = create_zeros(disk, TEMPORARY_NAME, new.size)?;
        begin(file.as_mut(), &new)?;
        Self::named(disk, file, (TEMPORARY_NAME, new))
    }

    /// The same out of the room that [`reserve`] keeps: it needs no more of the disk.
    pub(super) fn create_from_reserve(disk: &Arc<dyn Disk>, new: NewSegment) -> io::Result<Self> {
        let mut file = disk.open(RESERVE_NAME)?;
        begin(file.as_mut(), &new)?;
        Self::named(disk, file, (RESERVE_NAME, new))
    }

    fn named(
        disk: &Arc<dyn Disk>,
        file: Box<dyn DiskFile>,
        (made_as, new): (&str, NewSegment),
    ) -> io::Result<Self> {
        disk.rename(made_as, &name(new.sequence))?;
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

/// Takes the room of a whole segment, so that whatever else fills the disk, the log can go on
/// for one more. A reserve that an interrupted run left is made anew.
pub(super) fn reserve(disk: &Arc<dyn Disk>, size: u64) -> io::Result<()> {
    create_zeros(disk, RESERVE_NAME, size).map(drop)
}

/// A file of zeros, durable but for its name; nothing of it stays if there is no room.
fn create_zeros(disk: &Arc<dyn Disk>, name: &str, size: u64) -> io::Result<Box<dyn DiskFile>> {
    match disk.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = disk.create(name)?;
    let filled = write_zeros(file.as_mut(), 0, size).and_then(|()| file.sync_data());
    if let Err(error) = filled {
        // What stays would only take room; opening the log removes it too.
        let _ = disk.remove(name);
        return Err(error);
    }
    Ok(file)
}

fn begin(file: &mut dyn DiskFile, new: &NewSegment) -> io::Result<()> {
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
/// Room for the next segment.
const RESERVE_NAME: &str = "segment.reserve";
const ZEROS_BYTES: usize = 1 << 20;
