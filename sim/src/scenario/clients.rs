//! Who sends requests.

use paceline_protocol::Criticality;
use serde::{Deserialize, Serialize};

use crate::workload::Workload;

/// Clients that are alike. Each request is sent to a node that its client believes to be well; an
/// answer that does not come because the node was lost is asked for once more, at another node.
/// Requests of a sequence must not run twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clients {
    /// The model that they address.
    pub model: String,
    /// When they begin, in milliseconds: best after the model is ready.
    #[serde(default = "from_ms")]
    pub from_ms: u64,
    /// What they send, and when, from then on.
    pub workload: Workload,
    /// Bytes of a row's inputs, where the workload says none.
    #[serde(default = "row_bytes")]
    pub row_bytes: u64,
    /// Rows have one of so many shapes, each equally likely.
    #[serde(default = "one_shape")]
    pub shapes: u64,
    /// The shortest budget, in microseconds.
    pub budget_min_us: u64,
    /// The longest budget, in microseconds; each one between is equally likely.
    pub budget_max_us: u64,
    /// So many of a thousand hang up before their deadline.
    #[serde(default)]
    pub cancel_permille: u64,
    /// So many of a thousand requests must not run twice.
    #[serde(default)]
    pub once_permille: u64,
    /// So many of a thousand clients whose request was refused send it again, as a new one,
    /// after a pause.
    #[serde(default)]
    pub again_permille: u64,
    /// The longest such pause, in milliseconds; each one is equally likely.
    #[serde(default = "again_ms")]
    pub again_ms: u64,
    /// The tenant that they send for; unless given, the one that the workload names, if the scenario
    /// has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// How much their requests matter.
    #[serde(default)]
    pub criticality: Criticality,
    /// Of a thousand of their requests that they have stayed for, so many must be answered in time.
    #[serde(default)]
    pub answered_permille_min: u64,
    /// 99 of 100 of their answers must have taken no longer, in microseconds; 0 is any time.
    #[serde(default)]
    pub p99_us_max: u64,
}

fn from_ms() -> u64 {
    4_000
}

fn row_bytes() -> u64 {
    256
}

fn one_shape() -> u64 {
    1
}

fn again_ms() -> u64 {
    100
}
