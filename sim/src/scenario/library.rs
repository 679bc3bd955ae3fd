//! The scenarios that come along.

use std::fmt;

use super::{
    Action, Clients, Cluster, Cost, Delays, Expect, Fault, FaultKind, Group, Model, Network,
    Operation, Replicas, Scenario, Version,
};

/// No scenario has this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownScenario {
    /// What was asked for.
    pub name: String,
}

impl Scenario {
    /// Every scenario.
    pub fn all() -> Vec<Self> {
        vec![
            Self::steady(),
            Self::overload(),
            Self::node_kill(),
            Self::leader_kill(),
            Self::partition(),
            Self::rolling_restart(),
        ]
    }

    /// One node under a load that it carries: two fifths of what full batches do. Some budgets
    /// are shorter than a batch, and a fiftieth of the clients hang up.
    pub fn steady() -> Self {
        Self {
            name: "steady".to_owned(),
            summary: "one node with two lanes, offered two fifths of what full batches carry"
                .to_owned(),
            cluster: cluster(1),
            models: vec![model(Replicas::Each, vec![version(0)])],
            clients: vec![Clients {
                model: MODEL.to_owned(),
                from_ms: 2_000,
                duration_ms: 20_000,
                rate_per_s: 12_000,
                rows_most: 4,
                row_bytes: 256,
                shapes: 2,
                budget_min_us: 400,
                budget_max_us: 50_000,
                cancel_permille: 20,
                once_permille: 0,
            }],
            operations: Vec::new(),
            faults: Vec::new(),
            expect: Expect {
                answers_min: 200_000,
                ..Expect::default()
            },
        }
    }

    /// The same node offered twice what full batches carry, by clients who all wait 50 ms:
    /// what is answered in time must stay close to the capacity.
    pub fn overload() -> Self {
        let mut overload = Self::steady();
        let capacity = overload.capacity_per_s();
        overload.name = "overload".to_owned();
        overload.summary = "the node of steady, offered twice what full batches carry".to_owned();
        let clients = &mut overload.clients[0];
        clients.duration_ms = 10_000;
        clients.rate_per_s = 2 * capacity;
        (clients.budget_min_us, clients.budget_max_us) = (50_000, 50_000);
        clients.cancel_permille = 0;
        overload.expect.answers_min = 9 * capacity;
        overload
    }

    /// Three nodes, one of which is killed and comes back, twice.
    pub fn node_kill() -> Self {
        let kill = |at_ms, node: &str| Fault {
            at_ms,
            for_ms: 8_000,
            kind: FaultKind::Kill {
                node: node.to_owned(),
            },
        };
        Self {
            name: "node-kill".to_owned(),
            summary: "three nodes, of which one is killed after the other; clients lose nothing"
                .to_owned(),
            faults: vec![kill(6_000, "n1"), kill(20_000, "n2")],
            ..three()
        }
    }

    /// Three nodes, whose leader is killed, whichever it is.
    pub fn leader_kill() -> Self {
        let fault = Fault {
            at_ms: 6_000,
            for_ms: 8_000,
            kind: FaultKind::Kill {
                node: "leader".to_owned(),
            },
        };
        Self {
            name: "leader-kill".to_owned(),
            summary: "three nodes, whose leader is killed; clients lose nothing".to_owned(),
            faults: vec![fault],
            ..three()
        }
    }

    /// Three nodes, one of which cannot be reached by the others for a while, and is by clients.
    pub fn partition() -> Self {
        let fault = Fault {
            at_ms: 6_000,
            for_ms: 8_000,
            kind: FaultKind::Partition {
                nodes: vec!["n0".to_owned()],
                one_way: false,
            },
        };
        Self {
            name: "partition".to_owned(),
            summary: "three nodes, one of which the others do not reach for a while".to_owned(),
            faults: vec![fault],
            ..three()
        }
    }

    /// Three nodes that are drained, killed, started and taken back, one after the other.
    pub fn rolling_restart() -> Self {
        let (mut operations, mut faults) = (Vec::new(), Vec::new());
        for number in 0..3 {
            let (at_ms, node) = (5_000 + number * 8_000, format!("n{number}"));
            operations.push(Operation {
                at_ms,
                action: Action::Drain {
                    node: node.clone(),
                    deadline_ms: 60_000,
                },
            });
            let kind = FaultKind::Kill { node: node.clone() };
            faults.push(Fault {
                at_ms: at_ms + 3_000,
                for_ms: 1_000,
                kind,
            });
            operations.push(Operation {
                at_ms: at_ms + 5_000,
                action: Action::Undrain { node },
            });
        }
        Self {
            name: "rolling-restart".to_owned(),
            summary: "three nodes are drained, stopped and taken back one after the other"
                .to_owned(),
            operations,
            faults,
            ..three()
        }
    }

    /// The scenario of this name.
    ///
    /// # Errors
    /// [`UnknownScenario`] lists what there is.
    pub fn named(name: &str) -> Result<Self, UnknownScenario> {
        let found = Self::all()
            .into_iter()
            .find(|scenario| scenario.name == name);
        found.ok_or_else(|| UnknownScenario {
            name: name.chars().take(64).collect(),
        })
    }
}

/// Three nodes in three zones under a load that two of them carry.
fn three() -> Scenario {
    let mut cluster = cluster(1);
    cluster.groups = (0..3)
        .map(|zone| Group {
            zone: format!("z{zone}"),
            ..cluster.groups[0].clone()
        })
        .collect();
    let steady = Scenario::steady();
    let clients = Clients {
        from_ms: 4_000,
        duration_ms: 30_000,
        rate_per_s: 3_000,
        budget_min_us: 2_000_000,
        budget_max_us: 10_000_000,
        cancel_permille: 0,
        ..steady.clients[0].clone()
    };
    Scenario {
        cluster,
        clients: vec![clients],
        models: vec![model(Replicas::Count(2), vec![version(0)])],
        expect: Expect {
            answers_min: 80_000,
            answered_permille_min: 1_000,
            calm_answered_permille_min: 1_000,
            p99_us_max: 0,
        },
        ..steady
    }
}

fn cluster(nodes: u16) -> Cluster {
    Cluster {
        groups: vec![Group {
            count: nodes,
            zone: "z0".to_owned(),
            region: "r0".to_owned(),
            lanes: 2,
            speed_permille: 1_000,
            memory_mib: 16 << 10,
        }],
        permits: paceline_core::admission::Options::default().permits,
        network: Network::default(),
        delays: Delays::default(),
    }
}

fn model(replicas: Replicas, versions: Vec<Version>) -> Model {
    Model {
        name: MODEL.to_owned(),
        replicas,
        versions,
    }
}

fn version(deploy_ms: u64) -> Version {
    Version {
        deploy_ms,
        rows_max: 32,
        cost: Cost {
            fixed_ns: 200_000,
            row_ns: 20_000,
            noise_permille: 100,
        },
        load_ms: 400,
        memory_mib: 1,
        fails_permille: 0,
    }
}

impl fmt::Display for UnknownScenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = Scenario::all();
        let names: Vec<&str> = all.iter().map(|s| s.name.as_str()).collect();
        write!(
            f,
            "there is no scenario '{}'; there are: {}",
            self.name,
            names.join(", ")
        )
    }
}

impl std::error::Error for UnknownScenario {}

const MODEL: &str = "simulated";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kebab_case_and_found_again() {
        for scenario in Scenario::all() {
            let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(scenario.name.chars().all(kebab), "{}", scenario.name);
            assert_eq!(Scenario::named(&scenario.name), Ok(scenario));
        }
    }

    #[test]
    fn an_unknown_name_lists_what_there_is() {
        let unknown = Scenario::named("stead").unwrap_err().to_string();
        let says = "there is no scenario 'stead'; there are: steady, overload, node-kill";
        assert!(unknown.starts_with(says), "{unknown}");
    }

    #[test]
    fn capacity_is_what_full_batches_give() {
        // 32 rows in 840 µs on each of 2 lanes are 76,190 rows/s; 2.5 rows a request.
        assert_eq!(Scenario::steady().capacity_per_s(), 30_476);
    }
}
