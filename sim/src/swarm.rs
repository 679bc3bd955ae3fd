//! Policy that draws what breaks in a run from its seed.
//!
//! Each class of faults is there in half of all seeds only, and how often its faults come is drawn
//! too: runs that differ in what they leave out find more than runs that all have a bit of
//! everything (Groce et al., "Swarm testing", ISSTA 2012).

use paceline_core::Random;

use crate::draws;
use crate::scenario::{Expect, Fault, Operation, Scenario, What};

/// What can be drawn.
#[derive(Clone, Copy)]
enum Class {
    Kill,
    KillLeader,
    Stall,
    Partition,
    OneWay,
    Slow,
    Lag,
    Drain,
    Crash,
    OutOfMemory,
    Erring,
}

/// The scenario with faults and operations of this seed in the place of its own. What it expects
/// of calm times it still does; faults are drawn so that the last one is mended before clients
/// end.
pub fn with_faults(scenario: &Scenario, seed: u64) -> Scenario {
    let mut random = Random::stream(seed, "swarm");
    let mut drawn = Scenario {
        operations: Vec::new(),
        faults: Vec::new(),
        expect: Expect {
            answers_min: 1,
            calm_answered_permille_min: scenario.expect.calm_answered_permille_min,
            calm_from_ms: scenario.expect.calm_from_ms,
            ..Expect::default()
        },
        ..scenario.clone()
    };
    let from_ms = scenario.begins_ms() + SETTLED_MS;
    let until_ms = scenario.ends_ms().saturating_sub(CALM_MS);
    if until_ms <= from_ms {
        return drawn;
    }
    for class in CLASSES {
        let is_on = random.below(2) == 0;
        // From one fault in the whole run to one a second, each magnitude equally likely.
        let mean_ms = 1_000 << random.below(6);
        if !is_on {
            continue;
        }
        let mut at_ms = from_ms + draws::exponential(&mut random, mean_ms * 1_000_000) / 1_000_000;
        while at_ms < until_ms && drawn.faults.len() < FAULTS_MAX {
            let most_ms = (until_ms - at_ms).min(LONGEST_MS);
            let for_ms = (20 << random.below(9)).min(most_ms).max(1);
            class.draw(&mut drawn, (at_ms, for_ms), &mut random);
            at_ms += 1 + draws::exponential(&mut random, mean_ms * 1_000_000) / 1_000_000;
        }
    }
    drawn.faults.sort_by_key(|fault| fault.at_ms);
    drawn
}

impl Class {
    fn draw(self, drawn: &mut Scenario, (at_ms, for_ms): (u64, u64), random: &mut Random) {
        let nodes = drawn.nodes() as u64;
        let node = format!("n{}", random.below(nodes));
        let what = match self {
            Self::Kill => What::Kill { node },
            Self::KillLeader => What::Kill {
                node: "leader".to_owned(),
            },
            Self::Stall => What::Stall { node },
            Self::Partition | Self::OneWay => {
                let all = (0..nodes).filter(|_| random.below(2) == 0);
                let mut nodes: Vec<String> = all.map(|number| format!("n{number}")).collect();
                if nodes.is_empty() {
                    nodes.push(node);
                }
                let one_way = matches!(self, Self::OneWay);
                What::Partition { nodes, one_way }
            }
            Self::Slow => What::Slow {
                node,
                speed_permille: 1_000 >> random.below(7),
            },
            Self::Lag => What::Lag {
                node,
                extra_us: 500 << random.below(9),
            },
            Self::Crash => {
                let same = |fault: &&Fault| {
                    matches!(fault.what, What::Crash { .. }) && fault.what.nodes() == [node.clone()]
                };
                if drawn.faults.iter().filter(same).count() >= CRASHES_MAX {
                    return;
                }
                let model = drawn.models[random.below(drawn.models.len() as u64) as usize]
                    .name
                    .clone();
                drawn.faults.push(Fault {
                    at_ms,
                    for_ms: for_ms.min(CRASH_MS_MAX),
                    what: What::Crash {
                        node,
                        model: (random.below(2) == 0).then_some(model),
                    },
                });
                return;
            }
            Self::OutOfMemory => What::OutOfMemory {
                node,
                rows_max: 1 << random.below(6),
            },
            Self::Erring => What::Erring {
                node,
                fails_permille: 1_000 >> random.below(4),
            },
            Self::Drain => {
                let deadline_ms = 100 << random.below(8);
                drawn.operations.push(Operation::Drain {
                    at_ms,
                    node: node.clone(),
                    deadline_ms,
                });
                let at_ms = at_ms + for_ms;
                drawn.operations.push(Operation::Undrain { at_ms, node });
                return;
            }
        };
        drawn.faults.push(Fault {
            at_ms,
            for_ms,
            what,
        });
    }
}

const CLASSES: [Class; 11] = [
    Class::Kill,
    Class::KillLeader,
    Class::Stall,
    Class::Partition,
    Class::OneWay,
    Class::Slow,
    Class::Lag,
    Class::Drain,
    Class::Crash,
    Class::OutOfMemory,
    Class::Erring,
];
/// Before the first fault clients are served for a moment.
const SETTLED_MS: u64 = 500;
/// After the last one it is seen whether all is well again.
const CALM_MS: u64 = 8_000;
/// The longest fault: placement has replaced what was lost by then.
const LONGEST_MS: u64 = 8_000;
const FAULTS_MAX: usize = 200;
/// An engine that has died twice is ready again within the 5 s after which calm is expected.
const CRASHES_MAX: usize = 2;
/// It is mended before its replica is loaded again, so each is one failure.
const CRASH_MS_MAX: u64 = 400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_differ_in_what_they_break_and_every_plan_can_be_run() {
        let scenario = Scenario::named("node-kill").unwrap();
        let mut kinds = std::collections::BTreeSet::new();
        let mut without = 0;
        for seed in 0..200 {
            let drawn = with_faults(&scenario, seed);
            assert_eq!(drawn, with_faults(&scenario, seed));
            assert_eq!(drawn.problems(), []);
            assert!(drawn.mended_ms() + CALM_MS <= scenario.ends_ms());
            without += u32::from(drawn.faults.is_empty());
            let kind = |fault: &Fault| {
                format!("{:?}", fault.what)
                    .split(' ')
                    .next()
                    .map(str::to_owned)
            };
            kinds.extend(drawn.faults.iter().filter_map(kind));
        }
        assert_eq!(kinds.len(), 8, "{kinds:?}");
        assert!(without < 20, "{without} of 200 break nothing");
    }
}
