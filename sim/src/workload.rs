//! Workloads: who sends what, when.

mod invalid;
mod limits;
mod sizes;
mod weights;

pub use self::invalid::InvalidWorkload;
pub use self::sizes::{Sizes, WeightedSize};
