//! Buffers of large bodies, used again.
//!
//! An allocator gives memory of their size back to the system, which takes and clears it page by
//! page: for an image of 600 KB that costs as much as a copy of it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;

/// Buffers that nobody uses. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Spares(Arc<Mutex<Vec<BytesMut>>>);

/// A buffer that is kept for the next body when this is dropped.
pub(in crate::gateway) struct Buffer {
    bytes: BytesMut,
    spares: Spares,
}

impl Spares {
    /// An empty buffer with room for `bytes`.
    pub(super) fn buffer(&self, bytes: usize) -> Buffer {
        let mut spares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The last that came back is the likeliest to be in a cache.
        let fits = |spare: &BytesMut| spare.capacity() >= bytes;
        let found = (bytes >= KEPT_BYTES_MIN)
            .then(|| spares.iter().rposition(fits))
            .flatten();
        let found = found.map(|place| spares.swap_remove(place));
        drop(spares);
        Buffer {
            bytes: found.unwrap_or_else(|| BytesMut::with_capacity(bytes)),
            spares: self.clone(),
        }
    }
}

impl fmt::Debug for Spares {
    /// What bodies held is nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spares").finish_non_exhaustive()
    }
}

impl std::ops::Deref for Buffer {
    type Target = BytesMut;

    fn deref(&self) -> &BytesMut {
        &self.bytes
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        if (KEPT_BYTES_MIN..=KEPT_BYTES_MAX).contains(&bytes.capacity()) {
            bytes.clear();
            let mut spares = self.spares.0.lock().unwrap_or_else(PoisonError::into_inner);
            if spares.len() < KEPT_MAX {
                spares.push(bytes);
            }
        }
    }
}

/// From here on an allocator asks the system (glibc: M_MMAP_THRESHOLD).
const KEPT_BYTES_MIN: usize = 128 << 10;
/// Larger ones are rare, and would be kept for nothing.
const KEPT_BYTES_MAX: usize = 2 << 20;
/// So that 32 MiB are kept at most.
const KEPT_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_empty_and_is_kept_if_it_is_worth_it() {
        let spares = Spares::default();
        let kept = || spares.0.lock().unwrap().len();
        let mut first = spares.buffer(600_000);
        first.extend_from_slice(&[7; 600_000]);
        let place = first.as_ptr();
        drop(first);
        assert_eq!(kept(), 1);
        let again = spares.buffer(500_000);
        assert!(again.is_empty() && again.as_ptr() == place);
        // One that is larger than what is spare, a small one, and one that is too large.
        drop(again);
        drop([600_001, 100, KEPT_BYTES_MAX + 1].map(|bytes| spares.buffer(bytes)));
        assert_eq!(kept(), 2);
        drop((0..40).map(|_| spares.buffer(700_000)).collect::<Vec<_>>());
        assert_eq!(kept(), KEPT_MAX);
    }
}
