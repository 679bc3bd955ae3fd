//! A growing byte buffer whose content starts at a multiple of 64.

use bytes::{Bytes, BytesMut};

use crate::limits::TENSOR_ALIGN_BYTES;

/// Collects tensor bytes so that the first one lies at a multiple of [`TENSOR_ALIGN_BYTES`],
/// which lets engines read values without copying or splitting cache lines.
///
/// The alignment holds for what fits the capacity given at the start; a buffer that grows past
/// it is aligned again when it is frozen, at the cost of one copy.
#[derive(Debug)]
pub struct AlignedBuffer {
    bytes: BytesMut,
    start: usize,
}

impl AlignedBuffer {
    /// An empty buffer with room for `capacity` bytes. Cost: one allocation.
    pub fn with_capacity(capacity: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(capacity + TENSOR_ALIGN_BYTES);
        let start = misalignment(bytes.as_ptr());
        bytes.resize(start, 0);
        Self { bytes, start }
    }

    /// Appends bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes collected so far.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether nothing has been collected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes collected so far.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Where further bytes are appended, for readers that can write into it without a copy.
    pub(crate) fn bytes_mut(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// Grows or shrinks to `len` bytes, new ones being zero, and lends them for writing.
    pub fn resized(&mut self, len: usize) -> &mut [u8] {
        self.bytes.resize(self.start + len, 0);
        &mut self.bytes[self.start..]
    }

    /// The collected bytes, aligned.
    pub fn freeze(self) -> Bytes {
        let start = self.start;
        let content = self.bytes.freeze().slice(start..);
        if misalignment(content.as_ptr()) == 0 || content.is_empty() {
            content
        } else {
            Self::copied(&content)
        }
    }

    /// An aligned copy of `bytes`.
    pub fn copied(bytes: &[u8]) -> Bytes {
        let mut buffer = Self::with_capacity(bytes.len());
        buffer.extend(bytes);
        let start = buffer.start;
        buffer.bytes.freeze().slice(start..)
    }
}

/// How many bytes lie between `pointer` and the next multiple of the alignment.
fn misalignment(pointer: *const u8) -> usize {
    let past = pointer.addr() % TENSOR_ALIGN_BYTES;
    if past == 0 {
        0
    } else {
        TENSOR_ALIGN_BYTES - past
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_aligned_even_when_it_outgrows_its_capacity() {
        for capacity in [0, 1, 63, 64, 1000] {
            let mut buffer = AlignedBuffer::with_capacity(capacity);
            for step in 0..200u32 {
                buffer.extend(&step.to_le_bytes());
            }
            let bytes = buffer.freeze();
            assert_eq!(bytes.len(), 800);
            assert_eq!(bytes.as_ptr().addr() % TENSOR_ALIGN_BYTES, 0);
            assert_eq!(bytes[796..], 199u32.to_le_bytes());
        }
    }
}
