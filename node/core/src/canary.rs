//! Machine of canaries: from what nodes have answered to the next stage, the end, or patience.
//!
//! It runs on the leader, for every canary that is in a stage. What a broken guard is, and when
//! enough is known, [`judge`] says. A stage is judged by what was answered in it; where the version
//! that serves has answered too little in it for that, as when all requests go to the canary, by
//! all that it has answered since the canary began.
//!
//! A new leader counts a stage's time, and what is answered in it, from when it began to lead. It
//! says everything as of the entry that began the canary, so what was decided for another one, or
//! twice, is refused.

mod verdict;

use std::collections::BTreeMap;

use paceline_protocol::registry::CanaryStage;
use paceline_protocol::report::{ArmCounts, CanaryReport, LATENCY_BUCKETS};
use paceline_protocol::{Epoch, ModelName, NodeId};
use serde::{Deserialize, Serialize};

pub use self::verdict::{Both, Verdict, judge};
use crate::record::{Recordable, Recording, Tape};
use crate::registry::{Canary, Registry};
use crate::{Instant, Machine};

/// Watches over all canaries.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Canaries {
    watched: BTreeMap<ModelName, Watch>,
}

/// What can happen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Input {
    /// The canaries that are under way and not promoted; all others are over.
    UnderWay(Vec<(ModelName, Canary)>),
    /// What a node has answered, by its newest word.
    Heard {
        /// The node.
        node: NodeId,
        /// Of one model.
        report: CanaryReport,
    },
}

/// What shall be written. If it is not, it is said again two seconds later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// The canary enters a stage.
    Advance {
        /// The model.
        model: ModelName,
        /// The canary.
        since: Epoch,
        /// The stage.
        stage: u32,
    },
    /// It has its stages behind it.
    Promote {
        /// The model.
        model: ModelName,
        /// The canary.
        since: Epoch,
    },
    /// It has broken a guard.
    Abort {
        /// The model.
        model: ModelName,
        /// The canary.
        since: Epoch,
        /// Which one, and how.
        reason: Box<str>,
    },
}

/// A canary, and what is known of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Watch {
    canary: Canary,
    entered: Instant,
    nodes: BTreeMap<NodeId, CanaryReport>,
    /// Whether what a node has counted when it is first heard is older than this leader's look.
    is_late: bool,
    /// All that was counted, also in lives of nodes that are over.
    total: Both,
    /// That of it which was counted before the stage.
    before: Both,
    /// Until when nothing is said, since something was.
    quiet_until: Option<Instant>,
}

/// The canaries of a registry that are to be watched.
pub fn under_way(registry: &Registry) -> Input {
    let models = registry.models().iter();
    let canaries = models.filter_map(|(name, model)| {
        let canary = model.canary.as_ref().filter(|_| !model.is_promoting());
        canary.map(|canary| (name.clone(), canary.clone()))
    });
    Input::UnderWay(canaries.collect())
}

impl Canaries {
    fn under_way(&mut self, now: Instant, canaries: Vec<(ModelName, Canary)>) {
        let mut before = std::mem::take(&mut self.watched);
        for (model, canary) in canaries {
            let known = before.remove(&model);
            let known = known.filter(|watch| watch.canary.since == canary.since);
            let watch = match known {
                Some(watch) if watch.canary.stage == canary.stage => watch,
                Some(watch) => watch.enter(now, canary),
                None => Watch::begin(now, canary),
            };
            self.watched.insert(model, watch);
        }
    }
}

impl Machine for Canaries {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, now: Instant, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::UnderWay(canaries) => {
                self.under_way(now, canaries);
                self.wake(now, out);
            }
            Input::Heard { node, report } => {
                let Some(watch) = self.watched.get_mut(&report.model) else {
                    return;
                };
                if watch.canary.since == report.since {
                    let model = report.model.clone();
                    watch.hear(node, report);
                    watch.look(now, &model, out);
                }
            }
        }
    }

    fn wake(&mut self, now: Instant, out: &mut Vec<Effect>) {
        for (model, watch) in &mut self.watched {
            watch.look(now, model, out);
        }
    }

    fn next_wakeup(&self) -> Option<Instant> {
        let wakeups = self.watched.values().filter_map(Watch::next_wakeup);
        wakeups.min()
    }
}

impl Recordable for Canaries {
    fn state_bytes(&self) -> usize {
        let watches = self.watched.values().map(|watch| {
            let reports = watch.nodes.len() * REPORT_BYTES;
            size_of::<Watch>() + watch.canary.plan.stages.len() * size_of::<CanaryStage>() + reports
        });
        watches.sum()
    }

    fn input_bytes(input: &Input) -> usize {
        match input {
            Input::UnderWay(canaries) => size_of_val(&canaries[..]),
            Input::Heard { .. } => REPORT_BYTES,
        }
    }

    fn recording(tape: Tape<Self>) -> Recording {
        Recording::Canaries(tape)
    }
}

/// A report with the buckets of both latencies.
const REPORT_BYTES: usize = size_of::<CanaryReport>() + 2 * LATENCY_BUCKETS * size_of::<u64>();

impl Watch {
    fn begin(now: Instant, canary: Canary) -> Self {
        Self {
            is_late: canary.stage.is_some(),
            canary,
            entered: now,
            nodes: BTreeMap::new(),
            total: Both::default(),
            before: Both::default(),
            quiet_until: None,
        }
    }

    fn enter(self, now: Instant, canary: Canary) -> Self {
        Self {
            canary,
            entered: now,
            before: self.total.clone(),
            quiet_until: None,
            ..self
        }
    }

    /// A node that lives anew counts from zero: what it had counted stays counted.
    fn hear(&mut self, node: NodeId, report: CanaryReport) {
        let known = self.nodes.insert(node, report.clone());
        let is_first = known.is_none();
        let known = known.filter(|known| known.life == report.life);
        let none = ArmCounts::default();
        let news = |now: &ArmCounts, before: Option<&ArmCounts>| now.since(before.unwrap_or(&none));
        let stable = news(&report.stable, known.as_ref().map(|known| &known.stable));
        let canary = news(&report.canary, known.as_ref().map(|known| &known.canary));
        self.total.stable.add(&stable);
        self.total.canary.add(&canary);
        if is_first && self.is_late {
            self.before.stable.add(&stable);
            self.before.canary.add(&canary);
        }
    }

    fn look(&mut self, now: Instant, model: &ModelName, out: &mut Vec<Effect>) {
        if self.quiet_until.is_some_and(|until| now < until) {
            return;
        }
        let Some(effect) = self.decide(now, model) else {
            // Said before and not done: it may be said again at any time from now on.
            self.quiet_until = None;
            return;
        };
        self.quiet_until = Some(now.plus_nanos(SAY_AGAIN_NANOS));
        out.push(effect);
    }

    fn decide(&self, now: Instant, model: &ModelName) -> Option<Effect> {
        let stage = self.canary.stage?;
        let Canary { since, plan, .. } = &self.canary;
        let (model, since) = (model.clone(), *since);
        match judge(&self.in_stage(), plan.guards) {
            Verdict::Broken(reason) => {
                let reason = reason.into_boxed_str();
                return Some(Effect::Abort {
                    model,
                    since,
                    reason,
                });
            }
            Verdict::Unclear => return None,
            Verdict::Good if now < self.holds_until()? => return None,
            Verdict::Good => {}
        }
        Some(match stage + 1 < plan.stages.len() as u32 {
            true => Effect::Advance {
                model,
                since,
                stage: stage + 1,
            },
            false => Effect::Promote { model, since },
        })
    }

    fn in_stage(&self) -> Both {
        let canary = self.total.canary.since(&self.before.canary);
        let stable = self.total.stable.since(&self.before.stable);
        let fewest = u64::from(self.canary.plan.guards.requests_min);
        match stable.requests >= fewest {
            true => Both { stable, canary },
            false => Both {
                stable: self.total.stable.clone(),
                canary,
            },
        }
    }

    fn holds_until(&self) -> Option<Instant> {
        let stage = self.canary.stage? as usize;
        let hold_ms = self.canary.plan.stages.get(stage)?.hold_ms;
        Some(self.entered.plus_nanos(hold_ms.saturating_mul(1_000_000)))
    }

    /// What has not come by then comes with what is heard.
    fn next_wakeup(&self) -> Option<Instant> {
        if self.quiet_until.is_some() {
            return self.quiet_until;
        }
        let is_good = judge(&self.in_stage(), self.canary.plan.guards) == Verdict::Good;
        self.holds_until().filter(|_| is_good)
    }
}

/// A write over a slow line takes a second.
const SAY_AGAIN_NANOS: u64 = 2_000_000_000;

#[cfg(test)]
mod tests;
