//! Reads single segments and words what is wrong with them.

use std::io;
use std::sync::Arc;

use super::super::error::OpenError;
use super::super::segment::name;
use crate::storage::disk::{self, Disk};
use crate::storage::header::{FileKind, Header, Owner};

/// A segment that was read.
pub(super) struct SegmentFile {
    pub(super) name: String,
    pub(super) content: Vec<u8>,
    pub(super) header: Header,
}

/// Where something is damaged that was durable.
pub(super) struct Damage {
    position: u64,
    pub(super) offset: u64,
    durable: u64,
}

impl Damage {
    pub(super) fn at(header: &Header, position: u64, durable: u64) -> Self {
        Self {
            position,
            offset: header.first + position,
            durable,
        }
    }
}

/// The directory that is read, and whose log it should be.
pub(super) struct Reading<'a> {
    pub(super) disk: &'a Arc<dyn Disk>,
    pub(super) owner: Owner,
}

impl Reading<'_> {
    pub(super) fn load(&self, sequence: u64) -> Result<SegmentFile, OpenError> {
        let name = name(sequence);
        let content = self.content(&name)?;
        let header = self.header(&name, &content, sequence)?;
        // All of a segment was durable before it had its name, so a shorter file lost something.
        let bytes = content.len() as u64;
        if bytes != header.size {
            let durable = header.first + header.size;
            return Err(self.corrupt(&name, Damage::at(&header, bytes, durable)));
        }
        Ok(SegmentFile {
            name,
            content,
            header,
        })
    }

    pub(super) fn content(&self, file: &str) -> Result<Vec<u8>, OpenError> {
        disk::read_file(self.disk, file, SEGMENT_BYTES_MAX)
            .map_err(|cause| self.failed("read", file, cause))
    }

    pub(super) fn start(&self, file: &str) -> Result<Vec<u8>, OpenError> {
        let mut start = vec![0; Header::BYTES];
        let read = self
            .disk
            .open(file)
            .and_then(|opened| opened.read_at(0, &mut start));
        start.truncate(read.map_err(|cause| self.failed("read", file, cause))?);
        Ok(start)
    }

    pub(super) fn header(
        &self,
        file: &str,
        content: &[u8],
        sequence: u64,
    ) -> Result<Header, OpenError> {
        let header = Header::decode(content, FileKind::Segment).and_then(|header| {
            header.check_owner(self.owner)?;
            Ok(header)
        });
        let place = self.disk.place();
        let header = header.map_err(|cause| OpenError::Header {
            place,
            file: file.to_owned(),
            cause,
        })?;
        if header.number != sequence {
            let reason = format!("its header says it is segment {}", header.number);
            return Err(self.contradicts(file, 0, reason));
        }
        Ok(header)
    }

    pub(super) fn failed(&self, action: &'static str, file: &str, cause: io::Error) -> OpenError {
        OpenError::Io {
            place: self.disk.place(),
            action,
            file: file.to_owned(),
            cause,
        }
    }

    pub(super) fn corrupt(&self, file: &str, damage: Damage) -> OpenError {
        let (place, file) = (self.disk.place(), file.to_owned());
        let Damage {
            position,
            offset,
            durable,
        } = damage;
        OpenError::Corrupt {
            place,
            file,
            position,
            offset,
            durable,
        }
    }

    pub(super) fn contradicts(&self, file: &str, position: u64, reason: String) -> OpenError {
        let (place, file) = (self.disk.place(), file.to_owned());
        OpenError::Contradiction {
            place,
            file,
            position,
            reason,
        }
    }
}

/// A larger file is not a segment of ours.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
