//! How large requests are: a distribution of whole numbers, and what draws from it.

mod pareto;
mod powers;

use paceline_core::Random;
use serde::{Deserialize, Serialize};

use self::pareto::Pareto;
use super::weights::Weights;
use super::{InvalidWorkload, within};
use crate::draws;

/// A distribution of sizes: of rows, tokens or bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Sizes {
    /// Always the same.
    Fixed {
        /// This.
        size: u32,
    },
    /// Each size of a range, equally likely.
    Uniform {
        /// The smallest.
        least: u32,
        /// The largest, which is drawn too.
        most: u32,
    },
    /// Many small ones and few very large ones: a Pareto distribution that ends at `most`. The
    /// share of sizes of at least n is (n⁻ᵃ − (most+1)⁻ᵃ) / (least⁻ᵃ − (most+1)⁻ᵃ).
    Pareto {
        /// The smallest, from 1.
        least: u32,
        /// a, in thousandths, from 100 to 100,000: the smaller, the heavier the tail. Sizes of
        /// files and transfers are often near 1,100 to 1,500.
        shape_permille: u32,
        /// The largest.
        most: u32,
    },
    /// One of a list.
    Choice {
        /// 1 to 1,000 sizes with their weights.
        of: Vec<WeightedSize>,
    },
}

/// A size of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightedSize {
    /// This.
    pub size: u32,
    /// It is drawn as often as its weight's share of all weights.
    pub weight: u32,
}

impl Sizes {
    /// Whether it can be drawn from, and all it draws is from `least` to `most`; `key` is the
    /// path of its key, such as `rows`.
    ///
    /// # Errors
    /// [`InvalidWorkload`] names the first setting that is not allowed.
    pub(super) fn check(&self, key: &str, least: u32, most: u32) -> Result<(), InvalidWorkload> {
        let bounds = (u64::from(least), u64::from(most));
        let hold = |name: &str, size: &u32, bounds: (u64, u64)| {
            within(&format!("{key}.{name}"), u64::from(*size), bounds)
        };
        match self {
            Self::Fixed { size } => hold("size", size, bounds),
            Self::Uniform { least, most } => {
                hold("least", least, bounds)?;
                hold("most", most, (u64::from(*least), bounds.1))
            }
            Self::Pareto {
                least,
                shape_permille,
                most,
            } => {
                hold("least", least, (bounds.0.max(1), bounds.1))?;
                hold("shape_permille", shape_permille, SHAPE_PERMILLE)?;
                hold("most", most, (u64::from(*least), bounds.1))
            }
            Self::Choice { of } => {
                Weights::check(&format!("{key}.of"), of.iter().map(|one| one.weight))?;
                of.iter().enumerate().try_for_each(|(index, one)| {
                    hold(&format!("of.{index}.size"), &one.size, bounds)
                })
            }
        }
    }
}

/// Shapes of a tail. Below 0.1 the steps of the drawn logarithm would show; above 100 next to
/// all sizes are the least.
const SHAPE_PERMILLE: (u64, u64) = (100, 100_000);

/// Checked [`Sizes`], ready to be drawn from.
#[derive(Clone, Debug)]
pub(super) enum Sizer {
    Fixed(u32),
    Uniform(u32, u32),
    Pareto(Pareto),
    Choice(Weights, Vec<WeightedSize>),
}

impl Sizer {
    /// Of sizes that [`Sizes::check`] lets pass.
    pub(super) fn new(sizes: &Sizes) -> Self {
        match sizes {
            Sizes::Fixed { size } => Self::Fixed(*size),
            Sizes::Uniform { least, most } => Self::Uniform(*least, *most),
            Sizes::Pareto {
                least,
                shape_permille,
                most,
            } => Self::Pareto(Pareto::new(*least, *most, *shape_permille)),
            Sizes::Choice { of } => {
                Self::Choice(Weights::new(of.iter().map(|one| one.weight)), of.clone())
            }
        }
    }

    /// A size. Cost: a random number, 4.3 on average with a tail, none for a fixed size.
    pub(super) fn draw(&self, random: &mut Random) -> u32 {
        match self {
            Self::Fixed(size) => *size,
            Self::Uniform(least, most) => {
                draws::between(random, u64::from(*least), u64::from(*most)) as u32
            }
            Self::Pareto(pareto) => pareto.draw(random),
            Self::Choice(weights, of) => of[weights.draw(random)].size,
        }
    }

    /// The mean in thousandths, rounded down. Cost: with a tail, a term for each size.
    pub(super) fn mean_thousandths(&self) -> u64 {
        match self {
            Self::Fixed(size) => u64::from(*size) * 1_000,
            Self::Uniform(least, most) => (u64::from(*least) + u64::from(*most)) * 500,
            Self::Pareto(pareto) => pareto.mean_thousandths(),
            Self::Choice(_, of) => {
                let weights: u128 = of.iter().map(|one| u128::from(one.weight)).sum();
                let sum: u128 = of
                    .iter()
                    .map(|one| u128::from(one.size) * u128::from(one.weight))
                    .sum();
                // At most 1,000 × the largest size, whatever the weights.
                (sum * 1_000 / weights.max(1)) as u64
            }
        }
    }
}

#[cfg(test)]
mod tests;
