//! Rows as tokens: what a text becomes, once, before it waits in a queue.
//!
//! A prepared request is one BYTES tensor `[rows, 2]`: for each row its token ids as 32-bit
//! numbers, little endian, and its segments, a byte a token, or nothing where all are 0. Rows
//! have the lengths that they have: nothing is padded. It slices and joins by rows as any tensor
//! does, so whoever splits a request need not know of tokens; and no signature has an input of
//! that shape, so it is never taken for what a client sent.

use paceline_protocol::{Dtype, Shape, Tensor};

/// A row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sequence {
    /// At least one.
    pub(super) ids: Vec<u32>,
    /// One for each id, or none where all are 0.
    pub(super) segments: Vec<u32>,
    /// Whether the text was longer.
    pub(super) is_cut: bool,
}

/// A row of a prepared request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    ids: &'a [[u8; 4]],
    segments: &'a [u8],
}

/// What rows may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowLimits {
    pub(super) tokens_max: usize,
    /// Ids are below.
    pub(super) vocabulary: usize,
    /// Segments are below.
    pub(super) segments: usize,
}

impl RowLimits {
    /// # Errors
    /// What the row has and should not have.
    pub(super) fn check(&self, row: Row<'_>) -> Result<(), String> {
        let segments = row.segments.iter().map(|segment| u32::from(*segment));
        self.check_parts(row.ids(), segments)
    }

    /// The same before it is packed.
    pub(super) fn check_sequence(&self, row: &Sequence) -> Result<(), String> {
        self.check_parts(row.ids.iter().copied(), row.segments.iter().copied())
    }

    fn check_parts(
        &self,
        mut ids: impl ExactSizeIterator<Item = u32>,
        mut segments: impl ExactSizeIterator<Item = u32>,
    ) -> Result<(), String> {
        let tokens = ids.len();
        if tokens == 0 || tokens > self.tokens_max {
            return Err(format!("a row of {tokens} tokens"));
        }
        if let Some(id) = ids.find(|id| *id as usize >= self.vocabulary) {
            return Err(format!("the token id {id}"));
        }
        if segments.len() != 0 && segments.len() != tokens {
            return Err(format!("{} segments for {tokens} tokens", segments.len()));
        }
        match segments.find(|segment| *segment as usize >= self.segments) {
            Some(segment) => Err(format!("the segment {segment}")),
            None => Ok(()),
        }
    }

    /// As a message says it.
    pub(super) fn told(&self) -> String {
        format!(
            "rows of 1 to {} tokens with ids below {}",
            self.tokens_max, self.vocabulary
        )
    }
}

impl<'a> Row<'a> {
    pub(super) fn tokens(self) -> usize {
        self.ids.len()
    }

    pub(super) fn ids(self) -> impl ExactSizeIterator<Item = u32> + 'a {
        self.ids.iter().map(|id| u32::from_le_bytes(*id))
    }

    /// One for each id.
    pub(super) fn segments(self) -> impl Iterator<Item = usize> + 'a {
        let zeros = self.ids.len() - self.segments.len();
        let stated = self.segments.iter().map(|segment| usize::from(*segment));
        stated.chain(std::iter::repeat_n(0, zeros))
    }
}

/// Rows as one tensor. A segment that does not fit a byte becomes the largest that does, which
/// no model has.
pub(super) fn pack(sequences: &[Sequence]) -> Tensor {
    let mut elements = Vec::with_capacity(sequences.len() * 2);
    for Sequence { ids, segments, .. } in sequences {
        elements.push(
            ids.iter()
                .flat_map(|id| id.to_le_bytes())
                .collect::<Vec<u8>>(),
        );
        let narrow = |segment: &u32| u8::try_from(*segment).unwrap_or(u8::MAX);
        let is_plain = segments.iter().all(|segment| *segment == 0);
        elements.push(if is_plain {
            Vec::new()
        } else {
            segments.iter().map(narrow).collect()
        });
    }
    let column = Tensor::from_byte_strings(&elements);
    let shape = Shape::new(&[sequences.len() as u64, 2]).expect("two dimensions");
    Tensor::new(Dtype::Bytes, shape, column.data().clone()).expect("two elements a row")
}

/// Whether a request was prepared.
pub(super) fn is_packed(inputs: &[Tensor]) -> bool {
    matches!(inputs, [tensor] if tensor.dtype() == Dtype::Bytes
        && matches!(tensor.shape().dims(), [_, 2]))
}

/// The rows of a prepared request, in order. What is no whole id is left out.
pub(super) fn unpack(tensor: &Tensor) -> impl Iterator<Item = Row<'_>> {
    let mut elements = tensor.byte_strings();
    std::iter::from_fn(move || {
        let (ids, segments) = (elements.next()?, elements.next()?);
        Some(Row {
            ids: ids.as_chunks::<4>().0,
            segments,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sequence(ids: &[u32], segments: &[u32]) -> Sequence {
        Sequence {
            ids: ids.to_vec(),
            segments: segments.to_vec(),
            is_cut: false,
        }
    }

    #[test]
    fn limits_name_what_breaks_them() {
        let limits = RowLimits {
            tokens_max: 3,
            vocabulary: 10,
            segments: 2,
        };
        let told = |sequence: Sequence| {
            let packed = pack(&[sequence]);
            limits.check(unpack(&packed).next().unwrap()).err()
        };
        assert_eq!(told(sequence(&[1, 9, 0], &[0, 1, 1])), None);
        assert_eq!(told(sequence(&[], &[])).unwrap(), "a row of 0 tokens");
        assert_eq!(told(sequence(&[1; 4], &[])).unwrap(), "a row of 4 tokens");
        assert_eq!(told(sequence(&[1, 10], &[])).unwrap(), "the token id 10");
        assert_eq!(
            told(sequence(&[1, 2], &[1])).unwrap(),
            "1 segments for 2 tokens"
        );
        assert_eq!(told(sequence(&[1], &[2])).unwrap(), "the segment 2");
        assert_eq!(told(sequence(&[1], &[1 << 20])).unwrap(), "the segment 255");
    }

    proptest! {
        #[test]
        fn rows_come_back_whole_and_in_part(
            rows in proptest::collection::vec(proptest::collection::vec((0u32..9, 0u32..3), 1..20), 1..9),
            cut in 0usize..9,
        ) {
            let sequences: Vec<_> = rows.iter().map(|row| {
                let (ids, segments): (Vec<u32>, Vec<u32>) = row.iter().copied().unzip();
                sequence(&ids, &segments)
            }).collect();
            let packed = pack(&sequences);
            prop_assert!(is_packed(std::slice::from_ref(&packed)));
            let cut = cut.min(rows.len());
            let parts = [packed.slice_rows(0..cut as u64), packed.slice_rows(cut as u64..rows.len() as u64)];
            let both = parts.iter().flat_map(unpack);
            for (row, wanted) in both.zip(&sequences) {
                prop_assert_eq!(row.tokens(), wanted.ids.len());
                prop_assert!(row.ids().eq(wanted.ids.iter().copied()));
                prop_assert!(row.segments().eq(wanted.segments.iter().map(|it| *it as usize)));
            }
            prop_assert_eq!(parts.iter().flat_map(unpack).count(), rows.len());
        }
    }
}
