//! Where a scenario runs: nodes in zones and regions, what lies between them, and what takes time.

use std::time::Duration;

use paceline_core::admission;
use serde::{Deserialize, Serialize};

/// The nodes and the network between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Nodes that are alike; ids count through all groups, from 1.
    pub groups: Vec<Group>,
    /// Requests that a node admits at a time.
    #[serde(default = "permits")]
    pub permits: u32,
    /// How long requests should wait for their batch when there is more to do than is done, in
    /// milliseconds; 0 sets no limit.
    #[serde(default = "queue_delay_max_ms")]
    pub queue_delay_max_ms: u64,
    /// What lies between nodes.
    #[serde(default)]
    pub network: Network,
    /// What takes time besides engine and network.
    #[serde(default)]
    pub delays: Delays,
}

/// Nodes that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// How many.
    pub count: u16,
    /// Where they stand.
    #[serde(default = "zone")]
    pub zone: String,
    /// Where the zone is.
    #[serde(default = "region")]
    pub region: String,
    /// Batches that a node's device runs at a time.
    #[serde(default = "lanes")]
    pub lanes: u16,
    /// How fast the device is, in thousandths of what models' costs say.
    #[serde(default = "thousand")]
    pub speed_permille: u64,
    /// Memory of the device for replicas, in MiB.
    #[serde(default = "memory_mib")]
    pub memory_mib: u64,
}

/// One-way times between nodes. A message that is lost on the way is sent again, as QUIC does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Within a zone, in microseconds.
    pub zone_us: u64,
    /// Between zones of a region.
    pub region_us: u64,
    /// Between regions.
    pub world_us: u64,
    /// Each message takes up to so many thousandths longer.
    pub jitter_permille: u64,
    /// So many of a million messages are lost, and arrive later by a retransmission.
    pub loss_per_million: u64,
    /// Bits that a link carries, in Mbit/s; the time of a message grows with its size.
    pub mbit_per_s: u64,
}

/// How long things take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Delays {
    /// Writing an entry of the log to disk, in microseconds.
    pub fsync_us: u64,
    /// From the start of a node's process until it takes requests, in milliseconds.
    pub boot_ms: u64,
    /// Waking a lane's thread, in microseconds.
    pub wake_us: u64,
    /// Gathering the inputs of a batch, in microseconds.
    pub gather_us: u64,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            zone_us: 100,
            region_us: 500,
            world_us: 30_000,
            jitter_permille: 200,
            loss_per_million: 0,
            mbit_per_s: 10_000,
        }
    }
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            fsync_us: 1_000,
            boot_ms: 500,
            wake_us: 6,
            gather_us: 3,
        }
    }
}

fn permits() -> u32 {
    admission::Options::default().permits
}

fn queue_delay_max_ms() -> u64 {
    admission::Options::default().queue_delay_max.as_millis() as u64
}

impl Cluster {
    /// How much each node takes on.
    pub(crate) fn admission(&self) -> admission::Options {
        admission::Options {
            permits: self.permits,
            queue_delay_max: Duration::from_millis(self.queue_delay_max_ms),
        }
    }
}

fn zone() -> String {
    "z0".to_owned()
}

fn region() -> String {
    "r0".to_owned()
}

fn lanes() -> u16 {
    2
}

fn thousand() -> u64 {
    1_000
}

fn memory_mib() -> u64 {
    16 << 10
}
