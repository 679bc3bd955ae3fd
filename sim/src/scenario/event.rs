//! What happens to a cluster from outside: operations of its operator, and faults.

use serde::{Deserialize, Serialize};

/// Something that the operator does. Nodes are named `n0`, `n1`, …, in the order of the groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do", deny_unknown_fields)]
pub enum Operation {
    /// Drain a node.
    Drain {
        /// When, in milliseconds.
        at_ms: u64,
        /// Which.
        node: String,
        /// How long that may take, in milliseconds.
        #[serde(default = "deadline_ms")]
        deadline_ms: u64,
    },
    /// Take a node back.
    Undrain {
        /// When, in milliseconds.
        at_ms: u64,
        /// Which.
        node: String,
    },
}

/// Something that breaks, and is mended. A node is named `n0`, …, or is the `leader` of that
/// moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// When, in milliseconds.
    pub at_ms: u64,
    /// How long until it is mended.
    pub for_ms: u64,
    /// What.
    pub what: What,
}

/// What can break.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum What {
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
    /// Engines on a node die, and fail what they run. Until that is mended none can be loaded.
    Crash {
        /// Which.
        node: String,
        /// Those of this model; all of them if there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
    },
    /// The memory of a node's device is nearly full: what does not fit fails.
    OutOfMemory {
        /// Which.
        node: String,
        /// The largest batch that still fits, in rows; with 0 no replica can be loaded either.
        rows_max: u32,
    },
    /// The engines of a node are there, and fail batches at once.
    Erring {
        /// Which.
        node: String,
        /// How many of a thousand batches.
        fails_permille: u64,
    },
    /// The lines of a node get slower.
    Lag {
        /// Which.
        node: String,
        /// Every message to and from it takes so much longer, in microseconds.
        extra_us: u64,
    },
}

impl Operation {
    /// When, in milliseconds.
    pub fn at_ms(&self) -> u64 {
        match self {
            Self::Drain { at_ms, .. } | Self::Undrain { at_ms, .. } => *at_ms,
        }
    }

    /// Which node.
    pub fn node(&self) -> &str {
        match self {
            Self::Drain { node, .. } | Self::Undrain { node, .. } => node,
        }
    }
}

impl What {
    /// Whom it meets.
    pub fn nodes(&self) -> &[String] {
        match self {
            Self::Partition { nodes, .. } => nodes,
            Self::Kill { node }
            | Self::Stall { node }
            | Self::Slow { node, .. }
            | Self::Crash { node, .. }
            | Self::OutOfMemory { node, .. }
            | Self::Erring { node, .. }
            | Self::Lag { node, .. } => std::slice::from_ref(node),
        }
    }
}

/// The position of the node of this name.
pub(crate) fn node_position(name: &str, nodes: usize) -> Option<u16> {
    let digits = name.strip_prefix('n')?;
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u16 = digits.parse().ok().filter(|_| is_plain)?;
    (usize::from(number) < nodes).then_some(number)
}

fn deadline_ms() -> u64 {
    60_000
}
