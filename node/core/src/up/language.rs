//! What the machine [`Up`](super::Up) hears and says, and how patient it is.

use std::time::Duration;

use crate::time::Instant;

/// How patient the supervisor of a local cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether a dead node is started again.
    pub restarts: bool,
    /// Wait before a dead node is started again. Default 2 s: its ports and its lock are free
    /// by then, and a person has seen that it died.
    pub backoff_min: Duration,
    /// Longest wait; each start that did not get as far as ready doubles it. Default 30 s.
    pub backoff_max: Duration,
    /// Starts in a row that may end before the node was ready. Default 5.
    pub failures_max: u32,
    /// After how long a node that is not ready, or whose models are not, is reported. Default
    /// 20 s. It is only reported: one that reads a long log is not helped by an end.
    pub late_after: Duration,
    /// How long nodes may take to stop. Default 6 s: the 5 s that a node gives its requests,
    /// and one to close its log.
    pub stop_limit: Duration,
    /// How long ends of killed processes are waited for. Default 1 s.
    pub kill_limit: Duration,
}

/// What a node was before the cluster is brought up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// It has never joined.
    New,
    /// It belongs to the cluster.
    Member,
    /// It did, and was removed: it is not started, and nobody waits for it.
    Removed,
}

/// What can happen. Nodes are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Everything is prepared; nodes may be started.
    Begin,
    /// The node answers that it is ready.
    Ready {
        /// Which.
        node: usize,
    },
    /// Every model answers on the node.
    Serving {
        /// Which.
        node: usize,
    },
    /// The node's process has ended, or did not begin.
    Ended {
        /// Which.
        node: usize,
        /// How.
        ending: Ending,
    },
    /// A person or the system wants the cluster to end.
    StopAsked,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// There was none: what it needs could not be prepared.
    NotStarted,
    /// By itself, with an exit code that says it failed.
    Failed,
    /// By itself, without a failure.
    Done,
    /// By a signal.
    Killed,
    /// The cluster has removed it, and it knows.
    Removed,
}

/// What shall be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start the node's process; ends in [`Input::Ready`] or [`Input::Ended`].
    Start {
        /// Which.
        node: usize,
    },
    /// Say that the dead node will be started again then.
    Wait {
        /// Which.
        node: usize,
        /// When.
        until: Instant,
    },
    /// Say that the dead node is left so.
    Leave {
        /// Which.
        node: usize,
        /// Starts in a row that did not get as far as ready.
        failures: u32,
    },
    /// Say that the node does not belong to the cluster any more, and is left out.
    Removed {
        /// Which.
        node: usize,
    },
    /// Say that the node takes long.
    Late {
        /// Which.
        node: usize,
    },
    /// Say that the cluster is ready: every model answers on every node. Once.
    Raised,
    /// Say that a node which had died is ready again.
    Back {
        /// Which.
        node: usize,
    },
    /// Ask the node's process to stop; ends in [`Input::Ended`].
    Stop {
        /// Which.
        node: usize,
    },
    /// End the node's process at once; ends in [`Input::Ended`].
    Kill {
        /// Which.
        node: usize,
    },
    /// All is over.
    Finish {
        /// Whether it ended as it was asked to.
        well: bool,
    },
}

impl Default for Options {
    fn default() -> Self {
        Self {
            restarts: true,
            backoff_min: Duration::from_secs(2),
            backoff_max: Duration::from_secs(30),
            failures_max: 5,
            late_after: Duration::from_secs(20),
            stop_limit: Duration::from_secs(6),
            kill_limit: Duration::from_secs(1),
        }
    }
}
