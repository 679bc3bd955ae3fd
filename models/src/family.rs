//! Model families: what a version computes, and how it is loaded.

mod affine;
mod encoder;
mod identity;
mod mlp;
mod precision;

use std::fmt;
use std::sync::Arc;

pub(crate) use affine::Affine;
use encoder::Encoder;
pub(crate) use encoder::{
    Claim, EncoderPlan, EncoderSection, Outline, encoder_claim, encoder_files,
};
pub use encoder::{EncoderError, TextReader};
use identity::Identity;
pub(crate) use identity::check_identity;
use mlp::Mlp;
pub use mlp::MlpError;
pub(crate) use mlp::{Activation, Dense, Head, MlpPlan, arg_max};
pub(crate) use precision::Precision;

use crate::account::{Account, Accounted};
use crate::crew::Crew;
use crate::engine::{DeviceSpec, LoadError, LoadedModel, MemoryUse};
use crate::folder::{Plan, examine};
use crate::kernel::Kernels;
use crate::offload::{Offload, PassLimits};
use crate::source::ModelSource;

/// Recognises, checks and loads a version; its memory is taken before anything is allocated.
///
/// # Errors
/// [`LoadError`].
pub(crate) fn load(
    source: &ModelSource,
    path: &Path,
    account: &Account,
    device: DeviceSpec,
) -> Result<Arc<dyn LoadedModel>, LoadError> {
    let (description, plan) = examine(source)?;
    let reserve = |memory: MemoryUse| account.reserve(&device, memory);
    Ok(match plan {
        Plan::Identity => Arc::new(Identity::new(description)),
        Plan::Mlp(plan) => {
            let reservation = reserve(plan.memory(description.rows_max, path.workspace()))?;
            let model = Mlp::load(description, &plan, path)?;
            Arc::new(Accounted::new(model, reservation))
        }
        Plan::Encoder(plan) => {
            let reservation = reserve(plan.memory(description.rows_max, path.workspace()))?;
            let model = Encoder::load(description, &plan, path)?;
            Arc::new(Accounted::new(model, reservation))
        }
    })
}

/// How a model computes.
#[derive(Clone, Debug)]
pub(crate) enum Path {
    /// Kernels of our own.
    Kernels {
        /// The best of this machine, unless they are named.
        kernels: Option<Kernels>,
        /// Who shares a batch.
        crew: Crew,
    },
    /// candle's operations, elsewhere.
    Offload(Arc<dyn Offload>),
}

impl Path {
    /// What a batch's memory follows from.
    pub(crate) fn workspace(&self) -> Workspace {
        match self {
            Self::Kernels { .. } => Workspace::Kernels,
            Self::Offload(offload) => Workspace::Passes(offload.pass_limits()),
        }
    }
}

/// How a batch is computed, as far as its memory is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workspace {
    /// By kernels of our own, in place where that can be.
    Kernels,
    /// By candle's operations, of which each has a result of its own.
    Passes(PassLimits),
}

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
