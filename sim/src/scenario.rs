//! What is simulated: nodes, a network, models, clients, what an operator does, and what breaks.

mod clients;
mod cluster;
mod event;
mod library;
mod model;

use serde::{Deserialize, Serialize};

pub use self::clients::Clients;
pub use self::cluster::{Cluster, Delays, Group, Network};
pub use self::event::{Action, Fault, FaultKind, Operation};
pub use self::library::UnknownScenario;
pub use self::model::{Cost, Model, Replicas, Version};

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
    /// The same, of those that were sent after the last fault was mended and a grace of 5 s.
    pub calm_answered_permille_min: u64,
    /// 99 of 100 answers took no longer, in microseconds; 0 is any time.
    pub p99_us_max: u64,
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
        let ends = self.clients.iter().map(|c| c.from_ms + c.duration_ms);
        ends.max().unwrap_or(0)
    }

    /// When the last fault was mended, in milliseconds; 0 without any.
    pub fn mended_ms(&self) -> u64 {
        let ends = self.faults.iter().map(|fault| fault.at_ms + fault.for_ms);
        ends.max().unwrap_or(0)
    }

    /// Requests a second that the devices can carry with full batches of the first model's first
    /// version, if the first clients' requests are what comes.
    pub fn capacity_per_s(&self) -> u64 {
        let (Some(model), Some(clients)) = (self.models.first(), self.clients.first()) else {
            return 0;
        };
        let Some(version) = model.versions.first() else {
            return 0;
        };
        let rows = u64::from(version.rows_max);
        let batch_ns = version.cost.batch_ns(version.rows_max).max(1);
        let rows_per_s = self.lanes() * rows * 1_000_000_000 / batch_ns;
        // The mean of 1 to `rows_most` is half of `rows_most + 1`.
        rows_per_s * 2 / u64::from(clients.rows_most + 1)
    }
}
