//! What is simulated: nodes, a network, models, clients, what an operator does, and what breaks.

mod check;
mod clients;
mod cluster;
mod event;
mod library;
mod model;
mod read;
mod tenant;

use serde::{Deserialize, Serialize};

pub(crate) use self::check::NODES_MAX;
pub use self::check::Problem;
pub use self::clients::Clients;
pub use self::cluster::{Cluster, Delays, Group, Network};
pub(crate) use self::event::node_position;
pub use self::event::{Fault, Operation, What};
pub use self::library::UnknownScenario;
pub use self::model::{Cost, Model, Replicas, Trial, Version};
pub use self::read::ScenarioError;
pub use self::tenant::TenantPlan;

/// A scenario: everything of a run but its seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// In kebab-case.
    pub name: String,
    /// One sentence.
    pub summary: String,
    /// Where it runs.
    pub cluster: Cluster,
    /// On whose behalf clients send; those that name none are the tenant of requests without a key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<TenantPlan>,
    /// What is deployed.
    pub models: Vec<Model>,
    /// Who sends requests.
    pub clients: Vec<Clients>,
    /// What the operator does.
    #[serde(default)]
    pub operations: Vec<Operation>,
    /// What breaks, and when it is mended.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// What must hold at the end, beyond what always holds.
    pub expect: Expect,
}

/// What must hold at the end of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// Fewer answers than this prove nothing.
    pub answers_min: u64,
    /// Of a thousand requests whose clients stayed, so many are answered in time.
    pub answered_permille_min: u64,
    /// The same, of those that were sent after the last fault was mended, and after `calm_from_ms`,
    /// and a grace of 5 s.
    pub calm_answered_permille_min: u64,
    /// When what the workload itself does to the cluster is over, in milliseconds.
    pub calm_from_ms: u64,
    /// 99 of 100 answers took no longer, in microseconds; 0 is any time.
    pub p99_us_max: u64,
    /// The version of the first model that serves at the end; 0 is any.
    pub serving: u32,
    /// Of a thousand requests of sequences, after the first of each, so many go where the one before
    /// went.
    pub sticky_permille_min: u64,
    /// Copies for shadows that were sent, at least.
    pub copies_min: u64,
}

impl Scenario {
    /// Nodes, over all groups.
    pub fn nodes(&self) -> usize {
        let groups = self.cluster.groups.iter();
        groups.map(|group| usize::from(group.count)).sum()
    }

    /// Batches that all nodes together run at a time.
    pub fn lanes(&self) -> u64 {
        let groups = self.cluster.groups.iter();
        groups
            .map(|group| u64::from(group.count) * u64::from(group.lanes))
            .sum()
    }

    /// When clients begin, in milliseconds.
    pub fn begins_ms(&self) -> u64 {
        self.clients.iter().map(|c| c.from_ms).min().unwrap_or(0)
    }

    /// When the last client has stopped sending, in milliseconds.
    pub fn ends_ms(&self) -> u64 {
        let ends = self
            .clients
            .iter()
            .map(|c| c.from_ms + c.workload.duration_ms);
        ends.max().unwrap_or(0)
    }

    /// When the last fault was mended, in milliseconds; 0 without any.
    pub fn mended_ms(&self) -> u64 {
        let ends = self.faults.iter().map(|fault| fault.at_ms + fault.for_ms);
        ends.max().unwrap_or(0)
    }

    /// Rows a second that the devices can carry with full batches of the first model's first
    /// version.
    pub fn capacity_rows_per_s(&self) -> u64 {
        let version = self.models.first().and_then(|model| model.versions.first());
        version.map_or(0, |version| {
            let rows = u64::from(version.rows_max);
            let batch_ns = version.cost.batch_ns(version.rows_max, 0).max(1);
            self.lanes() * rows * 1_000_000_000 / batch_ns
        })
    }
}
