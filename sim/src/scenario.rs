//! What is simulated: a cluster, a model, its clients, and how long things take.

use std::fmt;

use paceline_core::admission;

/// A scenario: everything of a run but its seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// In kebab-case.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Nodes, at least 1; each serves its own clients with its own replica.
    pub nodes: u16,
    /// Batches that a node's device runs at a time.
    pub lanes: u16,
    /// Of every node.
    pub admission: admission::Options,
    /// What the engine costs.
    pub model: ModelCost,
    /// Who sends requests.
    pub clients: Clients,
    /// What takes time besides the engine.
    pub delays: Delays,
    /// When each version of the model is published and deployed, in milliseconds. The first is
    /// best at 0.
    pub deploys_ms: Vec<u64>,
    /// Fewer answers than this prove nothing.
    pub answers_min: u64,
}

/// A batch of `n` rows takes `fixed_nanos + n × row_nanos`, with noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelCost {
    /// Largest batch, in rows.
    pub rows_max: u32,
    /// Cost of any batch, in nanoseconds.
    pub fixed_nanos: u64,
    /// Cost of a row, in nanoseconds.
    pub row_nanos: u64,
    /// Each batch differs from that by up to so many thousandths.
    pub noise_permille: u64,
}

/// Requests arrive at random, independently of each other and of the answers (open loop).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clients {
    /// When the first one may come, in milliseconds: best after the model is ready.
    pub from_ms: u64,
    /// How long they come, in milliseconds.
    pub duration_ms: u64,
    /// Requests a second, over all nodes.
    pub rate_per_s: u64,
    /// A request has 1 to so many rows, each number equally likely.
    pub rows_most: u32,
    /// Rows have one of so many shapes, each equally likely.
    pub shapes: u64,
    /// The shortest budget, in microseconds.
    pub budget_min_us: u64,
    /// The longest budget, in microseconds; each one between is equally likely.
    pub budget_max_us: u64,
    /// So many of a thousand clients hang up before their deadline.
    pub cancel_permille: u64,
}

/// How long things take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delays {
    /// From proposing a command to applying it, in microseconds.
    pub commit_us: u64,
    /// Fetching, loading and warming up a replica, in milliseconds.
    pub load_ms: u64,
    /// Waking a lane's thread, in microseconds.
    pub wake_us: u64,
    /// Gathering the inputs of a batch, in microseconds.
    pub gather_us: u64,
}

/// No scenario has this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownScenario {
    /// What was asked for.
    pub name: String,
}

impl Scenario {
    /// Every scenario.
    pub fn all() -> Vec<Self> {
        vec![Self::steady(), Self::overload()]
    }

    /// One node under a load that it carries: two fifths of what full batches do. Some budgets
    /// are shorter than a batch, and a fiftieth of the clients hang up.
    pub fn steady() -> Self {
        Self {
            name: "steady",
            summary: "one node with two lanes, offered two fifths of what full batches carry",
            nodes: 1,
            lanes: 2,
            admission: admission::Options::default(),
            model: ModelCost {
                rows_max: 32,
                fixed_nanos: 200_000,
                row_nanos: 20_000,
                noise_permille: 100,
            },
            clients: Clients {
                from_ms: 1_000,
                duration_ms: 20_000,
                rate_per_s: 12_000,
                rows_most: 4,
                shapes: 2,
                budget_min_us: 400,
                budget_max_us: 50_000,
                cancel_permille: 20,
            },
            delays: Delays {
                commit_us: 3_000,
                load_ms: 400,
                wake_us: 6,
                gather_us: 3,
            },
            deploys_ms: vec![0],
            answers_min: 200_000,
        }
    }

    /// The same node offered twice what full batches carry, by clients who all wait 50 ms:
    /// what is answered in time must stay close to the capacity.
    pub fn overload() -> Self {
        let steady = Self::steady();
        let capacity = steady.capacity_per_s();
        Self {
            name: "overload",
            summary: "the node of steady, offered twice what full batches carry",
            clients: Clients {
                duration_ms: 10_000,
                rate_per_s: 2 * capacity,
                budget_min_us: 50_000,
                budget_max_us: 50_000,
                cancel_permille: 0,
                ..steady.clients
            },
            answers_min: 9 * capacity,
            ..steady
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

    /// Requests a second that the devices can carry with full batches.
    pub fn capacity_per_s(&self) -> u64 {
        let ModelCost {
            rows_max,
            fixed_nanos,
            row_nanos,
            ..
        } = self.model;
        let rows = u64::from(rows_max);
        let batch_nanos = fixed_nanos + row_nanos * rows;
        let lanes = u64::from(self.nodes) * u64::from(self.lanes);
        let rows_per_s = lanes * rows * 1_000_000_000 / batch_nanos.max(1);
        // The mean of 1 to `rows_most` is half of `rows_most + 1`.
        rows_per_s * 2 / u64::from(self.clients.rows_most + 1)
    }
}

impl fmt::Display for UnknownScenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Scenario::all().iter().map(|s| s.name).collect();
        write!(
            f,
            "there is no scenario '{}'; there are: {}",
            self.name,
            names.join(", ")
        )
    }
}

impl std::error::Error for UnknownScenario {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kebab_case_and_found_again() {
        for scenario in Scenario::all() {
            let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(scenario.name.chars().all(kebab), "{}", scenario.name);
            assert_eq!(Scenario::named(scenario.name), Ok(scenario));
        }
    }

    #[test]
    fn an_unknown_name_lists_what_there_is() {
        let unknown = Scenario::named("stead").unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "there is no scenario 'stead'; there are: steady, overload"
        );
    }

    #[test]
    fn capacity_is_what_full_batches_give() {
        // 32 rows in 840 µs on each of 2 lanes are 76,190 rows/s; 2.5 rows a request.
        assert_eq!(Scenario::steady().capacity_per_s(), 30_476);
    }
}
