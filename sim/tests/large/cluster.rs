//! A cluster of any size: the same traffic, whatever its size, and one node that dies.

use paceline_sim::{Arrivals, Clients, Expect, Fault, Group, Model, Replicas, Scenario, What};

/// How large.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) nodes: u16,
    pub(crate) models: u32,
    /// Of each model.
    pub(crate) replicas: u32,
}

impl Size {
    pub(crate) fn all_replicas(self) -> u32 {
        self.models * self.replicas
    }

    /// Everything that `steady` says of a node and a model, so many times. Clients begin when all
    /// replicas had time to come up: an entry of the log after the other, 1.3 ms each.
    pub(crate) fn cluster(self, rate_per_s: u64, duration_ms: u64) -> Scenario {
        let mut scenario = Scenario::named("steady").expect("it comes along");
        let from_ms = 3_000 + 2 * u64::from(self.all_replicas());
        let names: Vec<String> = (0..self.models)
            .map(|number| format!("m{number}"))
            .collect();
        let (model, clients) = (scenario.models[0].clone(), scenario.clients[0].clone());
        scenario.name = format!("nodes-{}", self.nodes);
        scenario.cluster.groups = vec![Group {
            count: self.nodes,
            ..scenario.cluster.groups[0].clone()
        }];
        let models = names.iter().map(|name| Model {
            name: name.clone(),
            replicas: Replicas::Count(self.replicas),
            ..model.clone()
        });
        scenario.models = models.collect();
        let clients = names.iter().map(|name| {
            let mut clients = Clients {
                model: name.clone(),
                from_ms,
                budget_min_us: 2_000_000,
                budget_max_us: 10_000_000,
                cancel_permille: 0,
                ..clients.clone()
            };
            clients.workload.duration_ms = duration_ms;
            let base_rate_per_s = rate_per_s / u64::from(self.models);
            // Once all come at a time: a large cluster would share no batch otherwise.
            clients.workload.arrivals = Arrivals::FlashCrowd {
                base_rate_per_s,
                peak_rate_per_s: 50 * base_rate_per_s,
                at_ms: duration_ms / 4,
                ramp_ms: 0,
                hold_ms: 10,
            };
            clients
        });
        scenario.clients = clients.collect();
        let node = format!("n{}", self.nodes - 1);
        scenario.faults = vec![Fault {
            at_ms: from_ms + duration_ms / 2,
            for_ms: 7_000,
            what: What::Kill { node },
        }];
        scenario.expect = Expect {
            answers_min: rate_per_s * duration_ms / 1_100,
            answered_permille_min: 1_000,
            ..Expect::default()
        };
        scenario
    }
}
