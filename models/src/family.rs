//! Model families: what a version computes, and how it is loaded.

mod encoder;
mod identity;
mod mlp;

use std::fmt;

pub use encoder::EncoderError;
pub(crate) use encoder::{
    Claim, Encoder, EncoderPlan, EncoderSection, Outline, Path, Reading, encoder_claim,
    encoder_files,
};
pub(crate) use identity::{Identity, check_identity};
pub use mlp::MlpError;
pub(crate) use mlp::{Activation, Dense, Head, Mlp, MlpPlan, arg_max};

/// A kind of model that this build serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// A multi-layer perceptron: dense layers, an activation between them, a head.
    Mlp,
    /// Gives back what it gets.
    Identity,
    /// A transformer that reads text: embeddings, classes, or how well a text answers a query.
    Encoder,
}

impl Family {
    /// Every family, as messages list them.
    pub const SERVED: &'static str = "mlp, identity, encoder";

    /// The family of this name in a `model.toml`.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Mlp, Self::Identity, Self::Encoder]
            .into_iter()
            .find(|family| family.name() == name)
    }

    /// Its name in `model.toml` and in the registry.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mlp => "mlp",
            Self::Identity => "identity",
            Self::Encoder => "encoder",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_families_is_the_families() {
        let named: Vec<_> = Family::SERVED.split(", ").map(Family::named).collect();
        let families = [Family::Mlp, Family::Identity, Family::Encoder];
        assert_eq!(named, families.map(Some));
        assert_eq!(Family::named("tree"), None);
    }
}
