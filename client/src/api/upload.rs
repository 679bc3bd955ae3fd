//! A file on its way to a node: exactly the bytes that its manifest promised, or a typed end.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::ApiError;

/// Why a file was not uploaded.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The node did not take it.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file has another size than when its manifest was made.
    #[error("{} changed while it was pushed: it had {wanted} bytes, now it has {found}", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// Bytes promised.
        wanted: u64,
        /// Bytes found.
        found: u64,
    },
}

/// A file to send, opened anew for each attempt.
#[derive(Clone, Copy, Debug)]
pub struct UploadSource<'a> {
    /// Where its bytes are.
    pub path: &'a Path,
    /// How many there are.
    pub bytes: u64,
}

/// Reads exactly the promised number of bytes and remembers why it could not.
pub(crate) struct Exactly<'a> {
    source: UploadSource<'a>,
    file: File,
    sent: u64,
    /// Called with the bytes sent so far.
    on_bytes: &'a mut dyn FnMut(u64),
    failure: Option<UploadError>,
}

impl<'a> Exactly<'a> {
    pub(crate) fn open(
        source: UploadSource<'a>,
        on_bytes: &'a mut dyn FnMut(u64),
    ) -> Result<Self, UploadError> {
        let unreadable = |error| UploadError::Unreadable {
            path: source.path.to_owned(),
            source: error,
        };
        let file = File::open(source.path).map_err(unreadable)?;
        let found = file.metadata().map_err(unreadable)?.len();
        if found != source.bytes {
            return Err(changed(source, found));
        }
        on_bytes(0);
        Ok(Self {
            source,
            file,
            sent: 0,
            on_bytes,
            failure: None,
        })
    }

    /// Why reading ended early, if it did.
    pub(crate) fn failure(self) -> Option<UploadError> {
        self.failure
    }
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.source.bytes - self.sent;
        let most = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        match self.file.read(&mut buffer[..most]) {
            Ok(0) => {
                self.failure = Some(changed(self.source, self.sent));
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Ok(read) => {
                self.sent += read as u64;
                (self.on_bytes)(self.sent);
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failure = Some(UploadError::Unreadable {
                    path: self.source.path.to_owned(),
                    source: error,
                });
                Err(kind.into())
            }
        }
    }
}

fn changed(source: UploadSource<'_>, found: u64) -> UploadError {
    UploadError::Changed {
        path: source.path.to_owned(),
        wanted: source.bytes,
        found,
    }
}
