//! Who sends requests.

use serde::{Deserialize, Serialize};

/// Clients that are alike. Requests arrive at random, independently of each other and of the
/// answers (open loop). Each is sent to a node that its client believes to be well; an answer
/// that does not come because the node was lost is asked for once more, at another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clients {
    /// The model that they address.
    pub model: String,
    /// When the first request may come, in milliseconds: best after the model is ready.
    #[serde(default = "from_ms")]
    pub from_ms: u64,
    /// How long they come, in milliseconds.
    pub duration_ms: u64,
    /// Requests a second, over all nodes.
    pub rate_per_s: u64,
    /// A request has 1 to so many rows, each number equally likely.
    #[serde(default = "one")]
    pub rows_most: u32,
    /// Bytes of a row's inputs.
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
}

fn from_ms() -> u64 {
    2_000
}

fn one() -> u32 {
    1
}

fn row_bytes() -> u64 {
    256
}

fn one_shape() -> u64 {
    1
}
