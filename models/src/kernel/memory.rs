//! Memory of kernels: buffers that begin where cache lines do, and what is reused between calls.

/// Floats in a cache line.
const LINE: usize = 16;

/// Floats that begin at a cache line, so that no vector lies across two.
#[derive(Clone, Debug, Default)]
pub(super) struct Aligned {
    /// Up to [`LINE`] floats more than are used: those before the line begins, and after the end.
    values: Vec<f32>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// So many zeros.
    pub(super) fn zeroed(len: usize) -> Self {
        let values = vec![0.0; len + LINE];
        // What cannot be aligned is only slower.
        let start = values.as_ptr().align_offset(LINE * size_of::<f32>());
        let start = if start < LINE { start } else { 0 };
        Self { values, start, len }
    }

    pub(super) fn values(&self) -> &[f32] {
        &self.values[self.start..][..self.len]
    }

    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..][..self.len]
    }

    /// The first `len` floats, which hold anything; grows when there are fewer.
    pub(super) fn at_least(&mut self, len: usize) -> &mut [f32] {
        if self.len < len {
            *self = Self::zeroed(len);
        }
        &mut self.values_mut()[..len]
    }

    /// Bytes that are kept.
    pub(super) fn bytes(&self) -> u64 {
        (self.values.capacity() * size_of::<f32>()) as u64
    }
}

/// What kernels need while they run, kept between calls so that they allocate nothing. A call leaves
/// nothing in it that another one reads.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The keys of one head in panels.
    pub(super) keys: Aligned,
    /// The values of one head in panels.
    pub(super) values: Aligned,
    /// The scores of a few queries against all keys.
    pub(super) scores: Aligned,
}

impl Scratch {
    /// None yet: it grows with what it is used for.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes that it has grown to.
    pub fn bytes(&self) -> u64 {
        self.keys.bytes() + self.values.bytes() + self.scores.bytes()
    }

    /// As large as anything that tests need, and full of what must not be read.
    #[cfg(test)]
    pub(super) fn poisoned() -> Self {
        let poisoned = || {
            let mut buffer = Aligned::zeroed(1 << 17);
            buffer.values_mut().fill(f32::NAN);
            buffer
        };
        Self {
            keys: poisoned(),
            values: poisoned(),
            scores: poisoned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_begin_at_cache_lines() {
        for len in [1, 15, 16, 17, 1_000, 100_000] {
            let mut buffer = Aligned::default();
            assert_eq!(buffer.at_least(len).len(), len);
            assert_eq!(buffer.values().as_ptr().addr() % 64, 0);
            assert_eq!(buffer.at_least(1).len(), 1);
            assert_eq!(buffer.values().len(), len, "it does not shrink");
        }
    }
}
