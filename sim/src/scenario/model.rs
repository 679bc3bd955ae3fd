//! What a scenario deploys: models, their versions, and what these cost.

use paceline_core::batcher::Policy;
use paceline_core::cost::CostFit;
use paceline_protocol::VersionNumber;
use paceline_protocol::registry::{CanaryGuards, CanaryPlan, CanaryStage, ReplicaTarget};
use serde::{Deserialize, Serialize};

/// A model and its versions over time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// What clients address.
    pub name: String,
    /// How many replicas.
    #[serde(default)]
    pub replicas: Replicas,
    /// In the order of their numbers, from 1; the first is best deployed at 0.
    pub versions: Vec<Version>,
}

/// How many replicas a deployment wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Replicas {
    /// One on each node.
    #[default]
    Each,
    /// This many, on as many nodes as possible.
    Count(u32),
}

/// A version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// When it is published and deployed, in milliseconds.
    #[serde(default)]
    pub deploy_ms: u64,
    /// Then it is tried as a canary, rather than deployed, once a version serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Trial>,
    /// Then it is deployed never, and gets copies of so many ten-thousandths of the requests, once a
    /// version serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<u16>,
    /// Largest batch, in rows.
    pub rows_max: u32,
    /// Most tokens in a batch; 0 is any number, and then rows are what batches are counted in.
    #[serde(default)]
    pub tokens_max: u32,
    /// When batches are formed, and of which requests: our way, or another server's.
    #[serde(default)]
    pub policy: Policy,
    /// What batches cost.
    pub cost: Cost,
    /// Fetching, loading and warming up a replica, in milliseconds.
    #[serde(default = "load_ms")]
    pub load_ms: u64,
    /// Memory of a replica, in MiB.
    #[serde(default = "memory_mib")]
    pub memory_mib: u64,
    /// So many of a thousand batches fail in the engine.
    #[serde(default)]
    pub fails_permille: u64,
    /// So many of a thousand attempts to load a replica fail.
    #[serde(default)]
    pub load_fails_permille: u64,
}

/// How a version is tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Its shares of the requests, in units of 1/10,000, one after another.
    pub weights: Vec<u16>,
    /// How long each of them lasts at least, in milliseconds.
    pub hold_ms: u64,
}

impl Trial {
    /// As the registry has it.
    pub fn plan(&self, version: VersionNumber, replicas: ReplicaTarget) -> CanaryPlan {
        let weights = self.weights.iter();
        let stages = weights.map(|weight| CanaryStage {
            weight: *weight,
            hold_ms: self.hold_ms,
        });
        CanaryPlan {
            version,
            replicas,
            stages: stages.collect(),
            guards: CanaryGuards::default(),
        }
    }
}

/// A batch of `n` rows and `t` tokens takes `fixed_ns + n × row_ns + t × token_ns`, with noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Cost of any batch, in nanoseconds.
    pub fixed_ns: u64,
    /// Cost of a row, in nanoseconds.
    pub row_ns: u64,
    /// Cost of a token that goes in or is asked for, in nanoseconds.
    #[serde(default)]
    pub token_ns: u64,
    /// Each batch differs from that by up to so many thousandths.
    #[serde(default)]
    pub noise_permille: u64,
}

impl Version {
    /// Tokens of a row where full batches are full of both; 0 where tokens are not counted.
    pub fn row_tokens(&self) -> u32 {
        match self.tokens_max {
            0 => 0,
            most => (most / self.rows_max.max(1)).max(1),
        }
    }

    /// What a warm-up finds of what batches cost.
    pub fn measured(&self) -> CostFit {
        let (row, full) = (self.row_tokens(), self.tokens_max);
        let one_row_ns = self.cost.batch_ns(1, u64::from(row));
        let full_ns = self.cost.batch_ns(self.rows_max, u64::from(full));
        match full {
            0 => CostFit::from_warm_up(one_row_ns, self.rows_max, full_ns),
            full => CostFit::from_batches((row, one_row_ns), (full, full_ns)),
        }
    }
}

impl Cost {
    /// What a batch takes without noise, in nanoseconds.
    pub fn batch_ns(self, rows: u32, tokens: u64) -> u64 {
        let rows_ns = self.row_ns.saturating_mul(u64::from(rows));
        let tokens_ns = self.token_ns.saturating_mul(tokens);
        self.fixed_ns
            .saturating_add(rows_ns)
            .saturating_add(tokens_ns)
    }
}

impl Replicas {
    /// As the registry has it.
    pub fn target(self) -> ReplicaTarget {
        match self {
            Self::Each => ReplicaTarget::Each,
            Self::Count(count) => ReplicaTarget::Count(count),
        }
    }
}

fn load_ms() -> u64 {
    400
}

fn memory_mib() -> u64 {
    1
}
