//! Memory of kernels: buffers that begin where cache lines do, and what is reused between calls.

use super::bf16::Pair;

/// Numbers of 32 bits in a cache line.
const LINE: usize = 16;

/// Numbers of 32 bits that begin at a cache line, so that no vector lies across two.
#[derive(Clone, Debug, Default)]
pub(super) struct Aligned<T> {
    /// [`LINE`] more than are used: those before the line begins, and after the end.
    values: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy + Default> Aligned<T> {
    /// So many zeros.
    pub(super) fn zeroed(len: usize) -> Self {
        const { assert!(size_of::<T>() == 4, "numbers of 32 bits") };
        let values = vec![T::default(); len + LINE];
        // What cannot be aligned is only slower.
        let start = values.as_ptr().align_offset(LINE * size_of::<T>());
        let start = if start < LINE { start } else { 0 };
        Self { values, start, len }
    }

    pub(super) fn values(&self) -> &[T] {
        &self.values[self.start..][..self.len]
    }

    pub(super) fn values_mut(&mut self) -> &mut [T] {
        &mut self.values[self.start..][..self.len]
    }

    /// The first `len`, which hold anything; grows when there are fewer.
    pub(super) fn at_least(&mut self, len: usize) -> &mut [T] {
        if self.len < len {
            *self = Self::zeroed(len);
        }
        &mut self.values_mut()[..len]
    }

    /// Bytes that are kept.
    pub(super) fn bytes(&self) -> u64 {
        (self.values.capacity() * size_of::<T>()) as u64
    }
}

/// What kernels need while they run, kept between calls so that they allocate nothing. A call leaves
/// nothing in it that another one reads.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The keys of one head in panels.
    pub(super) keys: Aligned<f32>,
    /// The values of one head in panels.
    pub(super) values: Aligned<f32>,
    /// The scores of a few queries against all keys.
    pub(super) scores: Aligned<f32>,
    /// Rows that were rounded to bfloat16.
    pub(super) left: Aligned<Pair>,
    /// The keys of one head, rounded.
    pub(super) half_keys: Aligned<Pair>,
    /// The values of one head, rounded.
    pub(super) half_values: Aligned<Pair>,
}

impl Scratch {
    /// None yet: it grows with what it is used for.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes that it has grown to.
    pub fn bytes(&self) -> u64 {
        let floats = self.keys.bytes() + self.values.bytes() + self.scores.bytes();
        floats + self.left.bytes() + self.half_keys.bytes() + self.half_values.bytes()
    }

    /// As large as anything that tests need, and full of what must not be read.
    #[cfg(test)]
    pub(super) fn poisoned() -> Self {
        let floats = || filled(f32::NAN);
        let pairs = || filled(Pair::MAX);
        Self {
            keys: floats(),
            values: floats(),
            scores: floats(),
            left: pairs(),
            half_keys: pairs(),
            half_values: pairs(),
        }
    }
}

#[cfg(test)]
fn filled<T: Copy + Default>(value: T) -> Aligned<T> {
    let mut buffer = Aligned::zeroed(1 << 17);
    buffer.values_mut().fill(value);
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_begin_at_cache_lines() {
        for len in [1, 15, 16, 17, 1_000, 100_000] {
            let mut buffer = Aligned::<f32>::default();
            assert_eq!(buffer.at_least(len).len(), len);
            assert_eq!(buffer.values().as_ptr().addr() % 64, 0);
            assert_eq!(buffer.at_least(1).len(), 1);
            assert_eq!(buffer.values().len(), len, "it does not shrink");
        }
    }
}
