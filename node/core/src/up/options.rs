//! How patient the supervisor of a local cluster is.

use std::time::Duration;

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
