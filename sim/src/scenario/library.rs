//! The scenarios that come along, each a text that says what it is for and what must hold.

use std::fmt;

use super::Scenario;

/// No scenario has this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownScenario {
    /// What was asked for.
    pub name: String,
}

impl Scenario {
    /// Every scenario that comes along, in the order of the list.
    pub fn all() -> Vec<Self> {
        TEXTS.iter().map(|text| shipped(text)).collect()
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

fn shipped(text: &str) -> Scenario {
    Scenario::read(text, "a scenario that comes along").expect("a test reads all of them")
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

const TEXTS: [&str; 27] = [
    include_str!("../../scenarios/steady.toml"),
    include_str!("../../scenarios/overload.toml"),
    include_str!("../../scenarios/standing-queue.toml"),
    include_str!("../../scenarios/flash-crowd.toml"),
    include_str!("../../scenarios/slow-replica.toml"),
    include_str!("../../scenarios/node-kill.toml"),
    include_str!("../../scenarios/noisy-tenant.toml"),
    include_str!("../../scenarios/leader-kill.toml"),
    include_str!("../../scenarios/zone-loss.toml"),
    include_str!("../../scenarios/rolling-restart.toml"),
    include_str!("../../scenarios/partition.toml"),
    include_str!("../../scenarios/thundering-herd.toml"),
    include_str!("../../scenarios/retry-storm.toml"),
    include_str!("../../scenarios/drain-under-overload.toml"),
    include_str!("../../scenarios/region-latency.toml"),
    include_str!("../../scenarios/cold-start.toml"),
    include_str!("../../scenarios/bad-canary.toml"),
    include_str!("../../scenarios/shadow.toml"),
    include_str!("../../scenarios/bad-version.toml"),
    include_str!("../../scenarios/engine-crash.toml"),
    include_str!("../../scenarios/given-up.toml"),
    include_str!("../../scenarios/out-of-memory.toml"),
    include_str!("../../scenarios/failing-replica.toml"),
    include_str!("../../scenarios/failing-model.toml"),
    include_str!("../../scenarios/sequences.toml"),
    include_str!("../../scenarios/criticality.toml"),
    include_str!("../../scenarios/mixed-clients.toml"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_a_scenario_that_is_found_by_its_name() {
        for scenario in Scenario::all() {
            assert_eq!(Scenario::named(&scenario.name), Ok(scenario));
        }
    }

    #[test]
    fn an_unknown_name_lists_what_there_is() {
        let unknown = Scenario::named("stead").unwrap_err().to_string();
        let says = "there is no scenario 'stead'; there are: steady, overload, standing-queue";
        assert!(unknown.starts_with(says), "{unknown}");
    }
}
