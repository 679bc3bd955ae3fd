//! How consensus is tuned.

use openraft::{Config, SnapshotPolicy};

use super::error::OptionsError;
use super::wire::APPEND_ENTRIES_MAX;
use crate::storage::log::LogOptions;

/// Options of [`super::RaftNode`]. The defaults suit machines of one data centre whose disks
/// sync in under 15 ms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftOptions {
    /// How often a leader shows that it lives, in milliseconds. Default 50. At most a quarter
    /// of `election_min_ms`, so that lost ones cause no election.
    pub heartbeat_ms: u64,
    /// Shortest silence after which a node stands for election, in milliseconds. Default 200.
    /// At least ten times what an append with its sync takes; raise it for slower disks.
    pub election_min_ms: u64,
    /// Longest such silence, and how long a leader may answer without hearing from a quorum, in
    /// milliseconds. Default 300. The spread keeps two nodes from standing at once.
    pub election_max_ms: u64,
    /// Entries between two snapshots of the registry. Default 2,000: at most a few megabytes
    /// of log are applied again after a restart. The log keeps twice as many, so that the
    /// snapshot before the last one can still be used if the last is damaged.
    pub snapshot_every_entries: u64,
    /// Most writes that are under way; further ones are refused as overloaded. Default 1,024:
    /// what a disk that syncs in 10 ms finishes within a second, many times over.
    pub writes_in_flight_max: usize,
    /// How the log uses its disk.
    pub log: LogOptions,
}

impl Default for RaftOptions {
    fn default() -> Self {
        Self {
            heartbeat_ms: 50,
            election_min_ms: 200,
            election_max_ms: 300,
            snapshot_every_entries: 2000,
            writes_in_flight_max: 1024,
            log: LogOptions::default(),
        }
    }
}

impl RaftOptions {
    /// Checks the options and translates them.
    pub(super) fn config(&self) -> Result<Config, OptionsError> {
        let refuse = |key, value, allowed: &str| {
            Err(OptionsError {
                key,
                value,
                allowed: allowed.to_owned(),
            })
        };
        if self.heartbeat_ms == 0 || self.heartbeat_ms * 4 > self.election_min_ms {
            let allowed = "1 to a quarter of election_min_ms";
            return refuse("heartbeat_ms", self.heartbeat_ms, allowed);
        }
        if self.election_max_ms <= self.election_min_ms {
            return refuse(
                "election_max_ms",
                self.election_max_ms,
                "more than election_min_ms",
            );
        }
        if self.snapshot_every_entries == 0 {
            return refuse("snapshot_every_entries", 0, "at least 1");
        }
        if self.writes_in_flight_max == 0 {
            return refuse("writes_in_flight_max", 0, "at least 1");
        }
        let config = Config {
            cluster_name: "paceline".to_owned(),
            heartbeat_interval: self.heartbeat_ms,
            election_timeout_min: self.election_min_ms,
            election_timeout_max: self.election_max_ms,
            // A node that was cut off must not raise the term of those that were not.
            enable_pre_vote: Some(true),
            // The committed position on disk may be older than what was answered before a loss
            // of power, so a leader that comes back has to be elected again.
            enable_leader_restore: Some(false),
            allow_log_reversion: Some(false),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_every_entries),
            max_in_snapshot_log_to_keep: self.snapshot_every_entries * 2,
            replication_lag_threshold: self.snapshot_every_entries * 2,
            max_payload_entries: APPEND_ENTRIES_MAX,
            api_channel_size: Some(self.writes_in_flight_max as u64 * 2),
            ..Config::default()
        };
        config.validate().map_err(|error| OptionsError {
            key: "raft",
            value: 0,
            allowed: error.to_string(),
        })
    }
}
