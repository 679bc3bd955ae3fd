//! What happens to a cluster from outside: operations of its operator, and faults.

use serde::{Deserialize, Serialize};

/// Something that the operator does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// When, in milliseconds.
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub action: Action,
}

/// What an operator can do. Nodes are named `n0`, `n1`, …, in the order of the groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum Action {
    /// Drain a node.
    Drain {
        /// Which.
        node: String,
        /// How long that may take, in milliseconds.
        #[serde(default = "deadline_ms")]
        deadline_ms: u64,
    },
    /// Take a node back.
    Undrain {
        /// Which.
        node: String,
    },
}

/// Something that breaks, and is mended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// When, in milliseconds.
    pub at_ms: u64,
    /// How long until it is mended.
    pub for_ms: u64,
    /// What.
    #[serde(flatten)]
    pub kind: FaultKind,
}

/// What can break. A node is named `n0`, …, or is the `leader` of that moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum FaultKind {
    /// A node's process dies; when it is mended, it is started again.
    Kill {
        /// Which.
        node: String,
    },
    /// A node stands still, and goes on as if nothing had been.
    Stall {
        /// Which.
        node: String,
    },
    /// Nodes cannot be reached by the others, nor they by them.
    Partition {
        /// One side; the others are the other.
        nodes: Vec<String>,
        /// Whether only what the others send is lost.
        #[serde(default)]
        one_way: bool,
    },
    /// A node's device takes longer.
    Slow {
        /// Which.
        node: String,
        /// Its speed, in thousandths.
        speed_permille: u64,
    },
    /// The lines of a node get slower.
    Lag {
        /// Which.
        node: String,
        /// Every message to and from it takes so much longer, in microseconds.
        extra_us: u64,
    },
}

fn deadline_ms() -> u64 {
    60_000
}
