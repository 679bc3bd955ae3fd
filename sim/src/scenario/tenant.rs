//! On whose behalf clients send, and what each may take.

use paceline_protocol::tenant::TenantLimits;
use serde::{Deserialize, Serialize};

/// A tenant, as the operator makes it before the first model is deployed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantPlan {
    /// What clients name it by.
    pub name: String,
    /// Its share of a device beside others', 1 to 100.
    #[serde(default = "one")]
    pub weight: u32,
    /// Requests a second over all nodes; unlimited unless given.
    #[serde(default)]
    pub requests_per_s: Option<u32>,
    /// Requests at a time over all nodes; unlimited unless given.
    #[serde(default)]
    pub concurrency: Option<u32>,
}

impl TenantPlan {
    /// As the registry has it.
    pub fn limits(&self) -> TenantLimits {
        TenantLimits {
            weight: self.weight,
            requests_per_s: self.requests_per_s,
            concurrency: self.concurrency,
        }
    }
}

fn one() -> u32 {
    1
}
