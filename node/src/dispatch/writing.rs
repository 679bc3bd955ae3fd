//! Frames onto a stream: small ones together, large tensors without another copy.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;

use crate::transport::SendHalf;

/// The sending half of a stream, with what is gathered for its next write.
pub(super) struct Writer {
    pub(super) send: Box<dyn SendHalf>,
    gathered: BytesMut,
}

impl Writer {
    pub(super) fn new(send: Box<dyn SendHalf>) -> Self {
        Self {
            send,
            gathered: BytesMut::new(),
        }
    }

    /// Takes the next slices of what shall be said.
    pub(super) async fn write(&mut self, parts: &[Bytes]) -> io::Result<()> {
        for part in parts {
            if self.gathered.len() + part.len() > GATHERED_BYTES_MAX {
                self.flush().await?;
            }
            if part.len() > GATHERED_BYTES_MAX {
                self.send.write_all(part).await?;
            } else {
                self.gathered.extend_from_slice(part);
            }
        }
        Ok(())
    }

    /// Hands over what has been gathered.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if !self.gathered.is_empty() {
            self.send.write_all(&self.gathered).await?;
            self.gathered.clear();
        }
        Ok(())
    }
}

/// What is gathered for one write; beyond it, a copy costs more than a write does.
const GATHERED_BYTES_MAX: usize = 32 << 10;
