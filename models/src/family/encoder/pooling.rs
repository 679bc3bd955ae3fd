//! From the vectors of a text's tokens to one.

use super::settings::Pooling;

/// Writes the pooled vector of one sequence: `[tokens, width] f32` → `[width] f32`. Cost: one
/// pass for the mean. Sums are taken in the order of the tokens.
pub(super) fn pool(pooling: Pooling, hidden: &[f32], pooled: &mut [f32]) {
    let width = pooled.len();
    match pooling {
        Pooling::Cls => pooled.copy_from_slice(&hidden[..width]),
        Pooling::Mean => {
            pooled.fill(0.0);
            for token in hidden.chunks_exact(width) {
                for (sum, value) in pooled.iter_mut().zip(token) {
                    *sum += value;
                }
            }
            let count = (hidden.len() / width) as f32;
            pooled.iter_mut().for_each(|value| *value /= count);
        }
    }
}

/// Makes a vector's length 1; what has no length stays as it is.
pub(super) fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    let length = length.max(LENGTH_MIN);
    vector.iter_mut().for_each(|value| *value /= length);
}

/// The shortest vector that is divided by its own length, as in PyTorch's `normalize`.
pub(super) const LENGTH_MIN: f32 = 1e-12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_of_tokens_and_the_first_is_the_first() {
        let hidden = [1.0, 2.0, 5.0, -4.0, 3.0, 5.0];
        let mut pooled = [9.0; 2];
        pool(Pooling::Mean, &hidden, &mut pooled);
        assert_eq!(pooled, [3.0, 1.0]);
        pool(Pooling::Cls, &hidden, &mut pooled);
        assert_eq!(pooled, [1.0, 2.0]);
    }

    #[test]
    fn a_vector_gets_the_length_one_if_it_has_any() {
        let mut vector = [3.0, -4.0];
        normalize(&mut vector);
        assert_eq!(vector, [0.6, -0.8]);
        let mut nothing = [0.0, 0.0];
        normalize(&mut nothing);
        assert_eq!(nothing, [0.0, 0.0]);
    }
}
