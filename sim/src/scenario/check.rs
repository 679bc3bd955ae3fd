//! Whether a scenario can be run, and where it cannot.

use paceline_protocol::limits::{
    DRAIN_DEADLINE_MAX_MS, MODELS_MAX, REQUEST_BUDGET_MAX_MS, ROWS_MAX, TENANT_LIMIT_MAX,
    TENANT_WEIGHT_MAX, TENANTS_MAX, VERSIONS_KEPT_MAX,
};
use paceline_protocol::registry::ReplicaTarget;
use paceline_protocol::traffic::WEIGHT_ALL;
use paceline_protocol::{ModelName, TenantName, VersionNumber};

use super::event::node_position;
use super::{Clients, Group, Model, Replicas, Scenario, TenantPlan, Version, What};

/// A setting that no scenario can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The path of its key: names, and positions in lists from 0.
    pub path: Vec<String>,
    /// What it is.
    pub value: String,
    /// What it may be.
    pub allowed: String,
}

/// Looks at one table after another.
struct Check {
    problems: Vec<Problem>,
    path: Vec<String>,
}

impl Scenario {
    /// Everything that keeps the scenario from being run; nothing if it can be.
    pub fn problems(&self) -> Vec<Problem> {
        let mut check = Check {
            problems: Vec::new(),
            path: Vec::new(),
        };
        check.scenario(self);
        check.problems
    }
}

impl Check {
    fn scenario(&mut self, scenario: &Scenario) {
        let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let is_name = !scenario.name.is_empty() && scenario.name.chars().all(kebab);
        self.hold(
            "name",
            &scenario.name,
            is_name,
            "lower-case letters, digits and dashes",
        );
        self.within(
            "models",
            scenario.models.len() as u64,
            (1, MODELS_MAX as u64),
        );
        self.within("clients", scenario.clients.len() as u64, (1, CLIENTS_MAX));
        self.inside("cluster", |check| check.cluster(scenario));
        for (position, model) in scenario.models.iter().enumerate() {
            self.inside(&format!("models.{position}"), |check| {
                check.model(model, &scenario.models[..position]);
            });
        }
        self.within(
            "tenants",
            scenario.tenants.len() as u64,
            (0, TENANTS_MAX as u64),
        );
        for (position, tenant) in scenario.tenants.iter().enumerate() {
            self.inside(&format!("tenants.{position}"), |check| {
                check.tenant(tenant, &scenario.tenants[..position]);
            });
        }
        for (position, clients) in scenario.clients.iter().enumerate() {
            self.inside(&format!("clients.{position}"), |check| {
                check.clients(clients, &scenario.models);
                check.tenant_of(clients, &scenario.tenants);
            });
        }
        self.events(scenario);
        let expect = scenario.expect;
        self.inside("expect", |check| {
            let permille = (0, 1_000);
            check.within(
                "answered_permille_min",
                expect.answered_permille_min,
                permille,
            );
            let sticky = expect.sticky_permille_min;
            check.within("sticky_permille_min", sticky, permille);
            let calm = expect.calm_answered_permille_min;
            check.within("calm_answered_permille_min", calm, permille);
            let calm_from = (0, scenario.ends_ms());
            check.within("calm_from_ms", expect.calm_from_ms, calm_from);
        });
    }

    fn cluster(&mut self, scenario: &Scenario) {
        let cluster = &scenario.cluster;
        let nodes = scenario.nodes() as u64;
        self.within("groups", nodes, (1, NODES_MAX as u64));
        self.within("permits", u64::from(cluster.permits), (1, 1 << 20));
        let delay = cluster.queue_delay_max_ms;
        self.within("queue_delay_max_ms", delay, (0, REQUEST_BUDGET_MAX_MS));
        for (position, group) in cluster.groups.iter().enumerate() {
            self.inside(&format!("groups.{position}"), |check| check.group(group));
        }
        let network = cluster.network;
        self.inside("network", |check| {
            for (key, us) in [
                ("zone_us", network.zone_us),
                ("region_us", network.region_us),
                ("world_us", network.world_us),
            ] {
                check.within(key, us, (0, 10_000_000));
            }
            check.within("jitter_permille", network.jitter_permille, (0, 100_000));
            check.within("loss_per_million", network.loss_per_million, (0, 1_000_000));
            check.within("mbit_per_s", network.mbit_per_s, (1, 10_000_000));
        });
        let delays = cluster.delays;
        self.inside("delays", |check| {
            check.within("fsync_us", delays.fsync_us, (0, 10_000_000));
            check.within("boot_ms", delays.boot_ms, (0, 600_000));
            check.within("wake_us", delays.wake_us, (0, 1_000_000));
            check.within("gather_us", delays.gather_us, (0, 1_000_000));
        });
    }

    fn group(&mut self, group: &Group) {
        self.within("count", u64::from(group.count), (1, NODES_MAX as u64));
        self.within("lanes", u64::from(group.lanes), (1, 1_024));
        self.within("speed_permille", group.speed_permille, (1, 1_000_000));
        self.within("memory_mib", group.memory_mib, (1, 1 << 30));
    }

    fn model(&mut self, model: &Model, before: &[Model]) {
        let is_name = ModelName::new(model.name.as_str()).is_ok();
        let allowed = "1 to 128 of a-z, 0-9, '.', '_' and '-'";
        self.hold("name", &model.name, is_name, allowed);
        let is_new = before.iter().all(|other| other.name != model.name);
        self.hold(
            "name",
            &model.name,
            is_new,
            "a name that no other model has",
        );
        if let Replicas::Count(count) = model.replicas {
            self.within("replicas", u64::from(count), (1, NODES_MAX as u64));
        }
        let versions = model.versions.len() as u64;
        self.within("versions", versions, (1, VERSIONS_KEPT_MAX as u64));
        for (position, version) in model.versions.iter().enumerate() {
            let is_first = position == 0 && version.canary.is_some();
            let allowed =
                "a canary from the second version on: it is compared with one that serves";
            self.hold("versions.0.canary", "a canary", !is_first, allowed);
            if version.shadow.is_some() {
                let is_beside = position > 0 && version.canary.is_none();
                let allowed = "a shadow from the second version on, that is no canary";
                let path = format!("versions.{position}.shadow");
                self.hold(&path, "a shadow", is_beside, allowed);
            }
            self.inside(&format!("versions.{position}"), |check| {
                check.version(version)
            });
        }
    }

    fn version(&mut self, version: &Version) {
        self.within("deploy_ms", version.deploy_ms, (0, TIME_MS_MAX));
        self.within("rows_max", u64::from(version.rows_max), (1, ROWS_MAX));
        self.within("load_ms", version.load_ms, (0, TIME_MS_MAX));
        self.within("memory_mib", version.memory_mib, (0, 1 << 30));
        self.within("fails_permille", version.fails_permille, (0, 1_000));
        self.within(
            "load_fails_permille",
            version.load_fails_permille,
            (0, 1_000),
        );
        if let Some(weight) = version.shadow {
            self.within("shadow", u64::from(weight), (1, u64::from(WEIGHT_ALL)));
        }
        if let Some(canary) = &version.canary {
            let plan = canary.plan(VersionNumber(1), ReplicaTarget::Each);
            let weights = format!("{:?} of {} ms", canary.weights, canary.hold_ms);
            let allowed =
                "one to 16 weights from 1 to 10000, rising, each held for 1 ms to 30 days";
            self.hold("canary", &weights, plan.check().is_ok(), allowed);
        }
        let cost = version.cost;
        self.inside("cost", |check| {
            check.within("fixed_ns", cost.fixed_ns, (0, COST_NS_MAX));
            check.within("row_ns", cost.row_ns, (0, COST_NS_MAX));
            check.within("token_ns", cost.token_ns, (0, COST_NS_MAX));
            check.within("noise_permille", cost.noise_permille, (0, 1_000));
        });
    }

    fn clients(&mut self, clients: &Clients, models: &[Model]) {
        self.known(&clients.model, models);
        self.within("from_ms", clients.from_ms, (0, TIME_MS_MAX));
        if let Err(invalid) = clients.workload.check() {
            let path = format!("workload.{}", invalid.key);
            self.hold(&path, &invalid.value, false, &invalid.allowed);
        }
        self.within("row_bytes", clients.row_bytes, (0, 1 << 30));
        self.within("shapes", clients.shapes, (1, 1 << 20));
        let longest = paceline_protocol::limits::REQUEST_BUDGET_MAX_MS * 1_000;
        self.within("budget_min_us", clients.budget_min_us, (1, longest));
        let budgets = (clients.budget_min_us, longest);
        self.within("budget_max_us", clients.budget_max_us, budgets);
        self.within("cancel_permille", clients.cancel_permille, (0, 1_000));
        self.within("once_permille", clients.once_permille, (0, 1_000));
        self.within("again_permille", clients.again_permille, (0, 1_000));
        let answered = clients.answered_permille_min;
        self.within("answered_permille_min", answered, (0, 1_000));
        self.within("again_ms", clients.again_ms, (1, TIME_MS_MAX));
    }

    fn tenant(&mut self, tenant: &TenantPlan, before: &[TenantPlan]) {
        let is_name = TenantName::new(tenant.name.as_str()).is_ok();
        let allowed = "1 to 128 of a-z, 0-9, '.', '_' and '-'";
        self.hold("name", &tenant.name, is_name, allowed);
        let is_new = before.iter().all(|other| other.name != tenant.name);
        let allowed = "a name that no other tenant has";
        self.hold("name", &tenant.name, is_new, allowed);
        let weights = (1, u64::from(TENANT_WEIGHT_MAX));
        self.within("weight", u64::from(tenant.weight), weights);
        for (key, limit) in [
            ("requests_per_s", tenant.requests_per_s),
            ("concurrency", tenant.concurrency),
        ] {
            if let Some(limit) = limit {
                self.within(key, u64::from(limit), (1, u64::from(TENANT_LIMIT_MAX)));
            }
        }
    }

    /// Whether there is a tenant of the name that clients give.
    fn tenant_of(&mut self, clients: &Clients, tenants: &[TenantPlan]) {
        let Some(name) = &clients.tenant else { return };
        let is_known = tenants.iter().any(|known| known.name == *name);
        let names: Vec<&str> = tenants.iter().map(|tenant| tenant.name.as_str()).collect();
        let allowed = match names[..] {
            [] => "none: the scenario has no tenants".to_owned(),
            _ => names.join(", "),
        };
        self.hold("tenant", name, is_known, &allowed);
    }

    fn events(&mut self, scenario: &Scenario) {
        let nodes = scenario.nodes();
        let last = nodes.saturating_sub(1);
        for (position, operation) in scenario.operations.iter().enumerate() {
            self.inside(&format!("operations.{position}"), |check| {
                check.within("at_ms", operation.at_ms(), (0, TIME_MS_MAX));
                let name = operation.node();
                let is_known = node_position(name, nodes).is_some();
                check.hold("node", name, is_known, &format!("n0 to n{last}"));
                if let super::Operation::Drain { deadline_ms, .. } = operation {
                    check.within("deadline_ms", *deadline_ms, (1, DRAIN_DEADLINE_MAX_MS));
                }
            });
        }
        for (position, fault) in scenario.faults.iter().enumerate() {
            self.inside(&format!("faults.{position}"), |check| {
                check.within("at_ms", fault.at_ms, (0, TIME_MS_MAX));
                check.within("for_ms", fault.for_ms, (1, TIME_MS_MAX));
                for name in fault.what.nodes() {
                    let is_known = name == "leader" || node_position(name, nodes).is_some();
                    check.hold("what", name, is_known, &format!("n0 to n{last}, or leader"));
                }
                check.inside("what", |check| {
                    if let What::Crash { model, .. } = &fault.what
                        && let Some(model) = model
                    {
                        check.known(model, &scenario.models);
                    }
                    if let What::OutOfMemory { rows_max, .. } = fault.what {
                        check.within("rows_max", u64::from(rows_max), (0, ROWS_MAX));
                    }
                    if let What::Erring { fails_permille, .. } = fault.what {
                        check.within("fails_permille", fails_permille, (1, 1_000));
                    }
                });
            });
        }
    }

    /// Whether there is a model of this name.
    fn known(&mut self, model: &str, models: &[Model]) {
        let is_known = models.iter().any(|known| known.name == model);
        let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
        self.hold("model", model, is_known, &names.join(", "));
    }

    fn within(&mut self, key: &str, value: u64, (least, most): (u64, u64)) {
        let is_allowed = (least..=most).contains(&value);
        self.hold(
            key,
            &value.to_string(),
            is_allowed,
            &format!("{least} to {most}"),
        );
    }

    fn hold(&mut self, key: &str, value: &str, is_allowed: bool, allowed: &str) {
        if !is_allowed {
            let own = key.split('.').map(str::to_owned);
            self.problems.push(Problem {
                path: self.path.iter().cloned().chain(own).collect(),
                value: value.chars().take(80).collect(),
                allowed: allowed.to_owned(),
            });
        }
    }

    fn inside(&mut self, path: &str, look: impl FnOnce(&mut Self)) {
        let before = self.path.len();
        self.path.extend(path.split('.').map(str::to_owned));
        look(self);
        self.path.truncate(before);
    }
}

/// Most nodes of a simulated cluster, where the product has 64: what a node knows of each other
/// takes some 40 bytes, so that of a thousand takes 40 MB.
pub(crate) const NODES_MAX: usize = 1_000;
/// Groups of clients: each is a stream of events of its own.
const CLIENTS_MAX: u64 = 1_000;
/// 31 days, as a workload may last.
const TIME_MS_MAX: u64 = 31 * 24 * 3_600 * 1_000;
/// A thousand seconds: sums stay far below 2⁶³.
const COST_NS_MAX: u64 = 1_000_000_000_000;
