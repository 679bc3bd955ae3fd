//! What becomes of the last layer's numbers.

use serde::Deserialize;

/// The function behind the last layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Head {
    /// Each row becomes a distribution.
    Softmax,
    /// Each number becomes a probability of its own.
    Sigmoid,
    /// Nothing: the numbers are the answer.
    None,
}

impl Head {
    /// Applies it in place to rows of `columns` numbers. Cost: an exponential a number.
    pub(crate) fn apply(self, values: &mut [f32], columns: usize) {
        match self {
            Self::Softmax => values.chunks_exact_mut(columns).for_each(softmax),
            Self::Sigmoid => values.iter_mut().for_each(|value| *value = sigmoid(*value)),
            Self::None => {}
        }
    }
}

/// The largest number is taken off first: the exponential of what remains cannot overflow.
fn softmax(row: &mut [f32]) {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for value in &mut *row {
        *value = (*value - largest).exp();
        sum += *value;
    }
    for value in row {
        *value /= sum;
    }
}

/// By the exponential of −|x|, for the same reason.
fn sigmoid(x: f32) -> f32 {
    let small = (-x.abs()).exp();
    if x >= 0.0 {
        1.0 / (1.0 + small)
    } else {
        small / (1.0 + small)
    }
}

/// Position of the largest number; the first of equals. NaN is never larger.
pub(crate) fn arg_max(row: &[f32]) -> usize {
    let mut best = 0;
    for (position, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = position;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_neither_overflow_nor_vanish() {
        let mut row = [1000.0, 999.0, -1000.0];
        Head::Softmax.apply(&mut row, 3);
        assert!(
            (row[0] - 0.731_058_6).abs() < 1e-6 && row[2] == 0.0,
            "{row:?}"
        );
        let mut values = [-200.0, 0.0, 200.0];
        Head::Sigmoid.apply(&mut values, 1);
        assert_eq!(values, [(-200f32).exp(), 0.5, 1.0]);
        let mut same = [f32::MAX, -1.5];
        Head::None.apply(&mut same, 2);
        assert_eq!(same, [f32::MAX, -1.5]);
    }

    #[test]
    fn the_first_of_equals_is_the_largest() {
        assert_eq!(arg_max(&[0.2, 0.4, 0.4]), 1);
        assert_eq!(arg_max(&[f32::NAN, 0.4]), 0);
    }
}
