//! What doors tell of models beyond inference, whatever they speak: how they are configured, what
//! they have done, and which versions there are; and the two commands of Triton's repository.
//!
//! ```text
//!   registry ─┐                      ┌─▶ Configuration ─┐
//!   router   ─┼──▶ Models ──────────▶├─▶ ModelStatistics ├──▶ JSON (oip), protobuf, …
//!   observed ─┘      │ load, unload  └─▶ VersionState   ─┘
//!                    └──────▶ the registry's Deploy and Undeploy
//! ```
//!
//! Plain structs without a protocol: each door writes them its own way. Read [`Models`] first.
//! Deliberately absent: metadata and readiness, which doors read off the routes themselves.

mod configuration;
mod repository;
mod state;
mod statistics;

use paceline_protocol::{ErrorCode, Failure, ModelName};

pub use self::configuration::{Configuration, TensorConfiguration};
pub use self::repository::{check_load_parameter, check_unload_parameter};
pub use self::state::{ModelSummary, State, VersionState};
pub use self::statistics::{BatchStatistics, ModelStatistics};
use crate::clock::Clock;
use crate::observed::Observed;
use crate::tenants::Caller;
use crate::{registry, router};

/// What there is to tell of models, as this node sees it. Cheap to clone.
#[derive(Clone)]
pub struct Models {
    /// What shall be.
    pub registry: registry::Handle,
    /// What requests can be sent to.
    pub router: router::Handle,
    /// What is.
    pub observed: Observed,
    /// When it is asked.
    pub clock: Clock,
}

impl Models {
    /// A model that there is and that the caller may change. What was done to it by way of another
    /// node counts; without a quorum it is what was known here last.
    ///
    /// # Errors
    /// `MODEL_NOT_FOUND` or `PERMISSION_DENIED`, by name.
    async fn changed(&self, caller: Caller, name: &str) -> Result<ModelName, Failure> {
        let _is_current = self.registry.catch_up().await;
        let registry = self.registry.current();
        let known = ModelName::new(name).ok();
        let known = known.filter(|model| registry.models().contains_key(model));
        let model = known.ok_or_else(|| unknown(name))?;
        if registry.may_change(caller.tenant, &model) {
            return Ok(model);
        }
        let message = format!("model '{model}' belongs to another tenant");
        Err(Failure::new(ErrorCode::PermissionDenied, message))
    }
}

fn unknown(name: &str) -> Failure {
    let shown: String = name.chars().take(64).collect();
    let message = format!("there is no model {shown:?}");
    Failure::new(ErrorCode::ModelNotFound, message)
}
