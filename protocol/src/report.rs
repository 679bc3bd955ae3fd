//! What nodes tell each other of themselves: what is observed, beside what was agreed.
//!
//! A report is always whole, so whoever has the newest one needs no other. The largest that
//! the limits allow (every replica of a cluster on one node, each with a reason why it failed)
//! fits into one message, because reasons share a budget of their own.

mod counts;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::counts::{
    ArmCounts, CanaryReport, LATENCY_BUCKETS, latency_bucket, latency_bucket_nanos,
};
use crate::id::{Epoch, NodeId, ReplicaId, TenantId};
use crate::limits::{CANARIES_MAX, NODE_REPORT_BYTES_MAX, REPLICAS_MAX, TENANTS_MAX};
use crate::tenant::Demand;
use crate::wire::{self, WireError};

/// What a node knows of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Which node.
    pub node: NodeId,
    /// How much of the registry's log it has applied: its requests are routed by this.
    pub epoch: Epoch,
    /// Whether it answers requests.
    pub ready: bool,
    /// The entry that told it to drain, once it has applied it.
    pub draining: Option<Epoch>,
    /// Its process.
    pub pid: u32,
    /// Its replicas, sorted, none twice. One that is not among them is unknown.
    pub replicas: Vec<(ReplicaId, ReplicaReport)>,
    /// What tenants that have limits asked of it in the last second, sorted, none twice.
    pub demands: Vec<(TenantId, Demand)>,
    /// What it has answered of models whose canary is under way, one of each.
    pub canaries: Vec<CanaryReport>,
}

/// What a node knows of one of its replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaReport {
    /// Its condition.
    pub condition: ReplicaCondition,
    /// Measured time of a row in a full batch, in nanoseconds.
    pub row_nanos: u64,
    /// Memory that its engine accounts, in bytes.
    pub memory_bytes: u64,
}

/// A replica's condition. Unknown is not one: then nothing is reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplicaCondition {
    /// Its node fetches, loads or warms it up.
    Loading,
    /// It can serve.
    Ready,
    /// Its engine has failed, and its node tries again after a while.
    Failed {
        /// Why, of at most [`REASON_BYTES_MAX`] bytes.
        reason: String,
    },
    /// Its engine has failed too often: its node has given up on it.
    GivenUp {
        /// Why, of at most [`REASON_BYTES_MAX`] bytes.
        reason: String,
    },
}

/// One message from a node to another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// The newest report.
    Report {
        /// Which life of the node: drawn at its start.
        life: u64,
        /// Rises with each report of this life.
        sequence: u64,
        /// The report.
        report: Arc<NodeReport>,
    },
    /// Nothing has changed since an earlier report.
    Still {
        /// Whose.
        node: NodeId,
        /// In which life.
        life: u64,
        /// Which one.
        sequence: u64,
    },
}

/// Why a report is not one.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The bytes are not a message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// It is of another format.
    #[error("a report in schema {found}; this node reads {SCHEMA}")]
    Schema {
        /// Which.
        found: u16,
    },
    /// Too many replicas.
    #[error("a report of {count} replicas; a cluster has at most {REPLICAS_MAX}")]
    Replicas {
        /// How many.
        count: usize,
    },
    /// Replicas are not sorted, or one stands twice.
    #[error("replica {replica} of a report is out of order")]
    Order {
        /// Which.
        replica: ReplicaId,
    },
    /// Too many tenants, or they are not sorted.
    #[error("a report of {count} tenants, of whom there are at most {TENANTS_MAX} in their order")]
    Tenants {
        /// How many.
        count: usize,
    },
    /// Too many canaries, or counts of another layout.
    #[error(
        "{count} counts of canaries in a report; at most {CANARIES_MAX}, of at most {LATENCY_BUCKETS} buckets each, are read"
    )]
    Canaries {
        /// How many.
        count: usize,
    },
    /// A reason is too long.
    #[error("the reason of replica {replica} is longer than {REASON_BYTES_MAX} bytes")]
    Reason {
        /// Whose.
        replica: ReplicaId,
    },
}

impl NodeReport {
    /// The report with reasons cut to what may be said: each to its own limit, and all of them
    /// together to a budget; whoever comes after its end says nothing.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let mut budget = REASONS_BYTES_MAX;
        for (_, replica) in &mut self.replicas {
            if let ReplicaCondition::Failed { reason } | ReplicaCondition::GivenUp { reason } =
                &mut replica.condition
            {
                let limit = budget.min(REASON_BYTES_MAX);
                reason.truncate(reason.floor_char_boundary(limit));
                budget -= reason.len();
            }
        }
        self
    }

    fn check(&self) -> Result<(), ReportError> {
        let count = self.replicas.len();
        if count > REPLICAS_MAX {
            return Err(ReportError::Replicas { count });
        }
        let demands = &self.demands;
        let count = demands.len();
        if count > TENANTS_MAX || !demands.is_sorted_by(|(one, _), (next, _)| one < next) {
            return Err(ReportError::Tenants { count });
        }
        let count = self.canaries.len();
        if count > CANARIES_MAX || !self.canaries.iter().all(CanaryReport::is_sound) {
            return Err(ReportError::Canaries { count });
        }
        let mut before = None;
        for (replica, report) in &self.replicas {
            let replica = *replica;
            if before >= Some(replica) {
                return Err(ReportError::Order { replica });
            }
            before = Some(replica);
            match &report.condition {
                ReplicaCondition::Failed { reason } | ReplicaCondition::GivenUp { reason } => {
                    if reason.len() > REASON_BYTES_MAX {
                        return Err(ReportError::Reason { replica });
                    }
                }
                ReplicaCondition::Loading | ReplicaCondition::Ready => {}
            }
        }
        Ok(())
    }
}

impl Told {
    /// Who says it.
    pub fn node(&self) -> NodeId {
        match self {
            Self::Report { report, .. } => report.node,
            Self::Still { node, .. } => *node,
        }
    }

    /// The message in bytes, its schema number first.
    ///
    /// # Errors
    /// The report is not within the limits.
    pub fn encode(&self) -> Result<Vec<u8>, ReportError> {
        if let Self::Report { report, .. } = self {
            report.check()?;
        }
        let encoded = wire::encode(self)?;
        let mut bytes = Vec::with_capacity(encoded.len() + 2);
        bytes.extend_from_slice(&SCHEMA.to_le_bytes());
        bytes.extend_from_slice(&encoded);
        let (bytes_now, limit) = (bytes.len(), NODE_REPORT_BYTES_MAX);
        if bytes_now > limit {
            let bytes = bytes_now;
            return Err(WireError::TooLarge { bytes, limit }.into());
        }
        Ok(bytes)
    }

    /// Reads what [`Told::encode`] wrote, and checks it.
    ///
    /// # Errors
    /// [`ReportError`]
    pub fn decode(bytes: &[u8]) -> Result<Self, ReportError> {
        let (schema, encoded) = bytes.split_at_checked(2).unwrap_or_default();
        let found = <[u8; 2]>::try_from(schema).map_or(0, u16::from_le_bytes);
        if found != SCHEMA {
            return Err(ReportError::Schema { found });
        }
        let told: Self = wire::decode(encoded, NODE_REPORT_BYTES_MAX)?;
        if let Self::Report { report, .. } = &told {
            report.check()?;
        }
        Ok(told)
    }
}

const SCHEMA: u16 = 2;
/// A sentence and the name of a file.
pub const REASON_BYTES_MAX: usize = 256;
/// Of all reasons of a report: 256 of the longest ones tell what is wrong with a node.
const REASONS_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::ModelName;

    /// A canary's counts, each as long on the wire as it may be.
    fn longest(number: usize) -> CanaryReport {
        let arm = ArmCounts {
            requests: u64::MAX,
            failures: u64::MAX,
            latencies: vec![u32::MAX.into(); LATENCY_BUCKETS],
        };
        CanaryReport {
            model: ModelName::new(format!("{number:0>128}")).unwrap(),
            since: Epoch(u64::MAX),
            life: u64::MAX,
            stable: arm.clone(),
            canary: arm,
        }
    }

    fn told(replicas: Vec<(ReplicaId, ReplicaReport)>) -> Told {
        let report = NodeReport {
            canaries: (0..CANARIES_MAX).map(longest).collect(),
            node: NodeId(u64::MAX),
            epoch: Epoch(u64::MAX),
            ready: true,
            draining: Some(Epoch(u64::MAX)),
            pid: u32::MAX,
            replicas,
            demands: (1..=TENANTS_MAX as u64)
                .map(|tenant| (TenantId(u64::MAX - (TENANTS_MAX as u64 - tenant)), MOST))
                .collect(),
        };
        Told::Report {
            life: u64::MAX,
            sequence: u64::MAX,
            report: Arc::new(report.bounded()),
        }
    }

    const MOST: Demand = Demand {
        arrivals: u32::MAX,
        peak: u32::MAX,
    };

    fn failed(reason: &str) -> ReplicaReport {
        let reason = reason.to_owned();
        ReplicaReport {
            condition: ReplicaCondition::Failed { reason },
            row_nanos: u64::MAX,
            memory_bytes: u64::MAX,
        }
    }

    #[test]
    fn the_largest_cluster_on_one_node_fits() {
        let reason = "ü".repeat(5_000);
        let last = u64::MAX - REPLICAS_MAX as u64;
        let replicas = (0..REPLICAS_MAX as u64).map(|n| (ReplicaId(last + n), failed(&reason)));
        let told = told(replicas.collect());
        let bytes = told.encode().unwrap();
        assert!(bytes.len() > REPLICAS_MAX * 20, "{}", bytes.len());
        assert_eq!(Told::decode(&bytes).unwrap(), told);
    }

    #[test]
    fn what_is_not_in_order_or_too_long_is_refused() {
        let encode = |replicas| {
            let Told::Report { report, .. } = told(vec![]) else {
                unreachable!("it is a report")
            };
            let mut report = Arc::unwrap_or_clone(report);
            report.replicas = replicas;
            let report = Arc::new(report);
            // As a peer would that does not check.
            let told = Told::Report {
                life: 1,
                sequence: 1,
                report,
            };
            let mut bytes = SCHEMA.to_le_bytes().to_vec();
            bytes.extend(wire::encode(&told).unwrap());
            bytes
        };
        let twice = encode(vec![(ReplicaId(1), failed("")), (ReplicaId(1), failed(""))]);
        assert!(matches!(
            Told::decode(&twice),
            Err(ReportError::Order { .. })
        ));
        let long = encode(vec![(ReplicaId(1), failed(&"x".repeat(257)))]);
        assert!(matches!(
            Told::decode(&long),
            Err(ReportError::Reason { .. })
        ));
        let many = (0..=REPLICAS_MAX as u64).map(|n| (ReplicaId(n), failed("")));
        let many = Told::decode(&encode(many.collect()));
        assert!(
            matches!(many, Err(ReportError::Replicas { .. })),
            "{many:?}"
        );
        let Told::Report { report, .. } = told(vec![]) else {
            unreachable!("it is a report")
        };
        let mut report = Arc::unwrap_or_clone(report);
        report.demands.swap(3, 4);
        assert!(matches!(
            report.check(),
            Err(ReportError::Tenants { count: TENANTS_MAX })
        ));
        let mut wrong = longest(0);
        wrong.canary.latencies.push(1);
        let wrong = NodeReport {
            node: NodeId(1),
            epoch: Epoch(1),
            ready: true,
            draining: None,
            pid: 1,
            replicas: Vec::new(),
            demands: Vec::new(),
            canaries: vec![wrong],
        };
        let wrong = Told::Report {
            life: 1,
            sequence: 1,
            report: Arc::new(wrong),
        };
        let refused = wrong.encode();
        assert!(matches!(refused, Err(ReportError::Canaries { count: 1 })));
        assert!(matches!(
            Told::decode(&[7, 0]),
            Err(ReportError::Schema { found: 7 })
        ));
        assert!(Told::decode(&[]).is_err());
        assert!(Told::decode(&[2, 0]).is_err());
        assert!(Told::decode(&vec![1; NODE_REPORT_BYTES_MAX + 9]).is_err());
    }

    fn condition() -> impl Strategy<Value = ReplicaCondition> {
        prop_oneof![
            Just(ReplicaCondition::Loading),
            Just(ReplicaCondition::Ready),
            ".*".prop_map(|reason| ReplicaCondition::Failed { reason }),
            ".*".prop_map(|reason| ReplicaCondition::GivenUp { reason }),
        ]
    }

    proptest! {
        #[test]
        fn reports_come_back_as_they_were(
            replicas in proptest::collection::btree_map(
                any::<u64>(),
                (condition(), any::<u64>(), any::<u64>()),
                0..40,
            ),
        ) {
            let replicas = replicas.into_iter().map(|(id, (condition, row_nanos, memory_bytes))| {
                let report = ReplicaReport { condition, row_nanos, memory_bytes };
                (ReplicaId(id), report)
            });
            let told = told(replicas.collect());
            prop_assert_eq!(&Told::decode(&told.encode().unwrap()).unwrap(), &told);
            let still = Told::Still { node: NodeId(3), life: 4, sequence: 5 };
            prop_assert_eq!(&Told::decode(&still.encode().unwrap()).unwrap(), &still);
        }

        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut with_schema = SCHEMA.to_le_bytes().to_vec();
            with_schema.extend(&bytes);
            let _ = Told::decode(&bytes);
            let _ = Told::decode(&with_schema);
        }
    }
}
