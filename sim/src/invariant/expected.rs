//! I14 and what a scenario itself demands: so many answers, in all and once all is mended.

use std::collections::BTreeMap;

use paceline_core::Instant;
use paceline_protocol::registry::Change;
use paceline_protocol::traffic::Sequence;
use paceline_protocol::{ModelName, ReplicaId};

use super::Invariant;
use super::agreed::news;
use crate::fact::{CopyEnd, End, Fact, RequestNumber};
use crate::scenario::{Expect, Scenario};

pub(super) struct Expected {
    expect: Expect,
    /// From then on nothing is broken any more.
    calm_from: Instant,
    /// When each request was sent, and by whom.
    sent: Vec<(Instant, u16)>,
    clients: Vec<OfClients>,
    all: Share,
    calm: Share,
    latencies: Latencies,
    /// The model whose version is looked at, and the one that serves.
    first: Option<ModelName>,
    serving: u32,
    copies: u64,
    sticky: Sticky,
}

/// Where requests of sequences go.
#[derive(Default)]
struct Sticky {
    last: BTreeMap<Sequence, ReplicaId>,
    stayed: u64,
    moved: u64,
}

/// What clients of a kind demand, and get.
struct OfClients {
    answered_permille_min: u64,
    p99_us_max: u64,
    share: Share,
    latencies: Latencies,
}

/// Of answers, in microseconds.
#[derive(Default)]
struct Latencies(Vec<u64>);

#[derive(Clone, Copy, Default)]
struct Share {
    answered: u64,
    stayed: u64,
}

impl Expected {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let mended_ms = scenario.mended_ms().max(scenario.expect.calm_from_ms);
        let calm_from = (mended_ms + GRACE_MS) * 1_000_000;
        let clients = scenario.clients.iter().map(|of| OfClients {
            answered_permille_min: of.answered_permille_min,
            p99_us_max: of.p99_us_max,
            share: Share::default(),
            latencies: Latencies::default(),
        });
        let first = scenario.models.first();
        Self {
            expect: scenario.expect,
            calm_from: Instant::from_nanos(calm_from),
            sent: Vec::new(),
            clients: clients.collect(),
            all: Share::default(),
            calm: Share::default(),
            latencies: Latencies::default(),
            first: first.and_then(|model| ModelName::new(model.name.as_str()).ok()),
            serving: 0,
            copies: 0,
            sticky: Sticky::default(),
        }
    }

    fn ended(&mut self, now: Instant, (request, end): (RequestNumber, End)) {
        let sent = self.sent.get(request.0 as usize).copied();
        let (sent, client) = sent.unwrap_or((Instant::ZERO, 0));
        let took_us = now.nanos_since(sent) / 1_000;
        if end == End::Answered && self.expect.p99_us_max > 0 {
            self.latencies.0.push(took_us);
        }
        self.all.count(end);
        if let Some(of) = self.clients.get_mut(usize::from(client)) {
            of.share.count(end);
            if end == End::Answered && of.p99_us_max > 0 {
                of.latencies.0.push(took_us);
            }
        }
        if sent >= self.calm_from {
            self.calm.count(end);
        }
    }
}

impl Latencies {
    /// Whether 99 of 100 took no longer than this; 0 is any time.
    fn judge(&self, whose: &str, most_us: u64) -> Result<(), String> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * 99).div_ceil(100).saturating_sub(1);
        let p99 = sorted.get(rank).copied().unwrap_or(0);
        if most_us == 0 || p99 <= most_us {
            return Ok(());
        }
        Err(format!(
            "99 of 100 answers{whose} took up to {p99} µs; {most_us} are expected"
        ))
    }
}

impl Sticky {
    fn see(&mut self, sequence: Sequence, replica: ReplicaId) {
        match self.last.insert(sequence, replica) {
            Some(before) if before == replica => self.stayed += 1,
            Some(_) => self.moved += 1,
            None => {}
        }
    }

    fn judge(&self, permille_min: u64) -> Result<(), String> {
        let Self { stayed, moved, .. } = self;
        let all = stayed + moved;
        // A run in which nothing follows proves nothing.
        if permille_min == 0 || (all > 0 && stayed * 1_000 >= all * permille_min) {
            return Ok(());
        }
        Err(format!(
            "{stayed} of {all} requests of sequences went where the one before had gone; \
             {permille_min} of a thousand are expected"
        ))
    }
}

impl Share {
    fn count(&mut self, end: End) {
        self.stayed += u64::from(end != End::Cancelled);
        self.answered += u64::from(end == End::Answered);
    }

    fn judge(self, what: &str, permille_min: u64) -> Result<(), String> {
        let Self { answered, stayed } = self;
        if answered * 1_000 >= stayed * permille_min {
            return Ok(());
        }
        Err(format!(
            "{answered} of {stayed} requests {what} were answered; {permille_min} of a thousand \
             are expected"
        ))
    }
}

impl Invariant for Expected {
    fn name(&self) -> &'static str {
        "I14 expected"
    }

    fn observe(&mut self, now: Instant, fact: &Fact<'_>) -> Result<(), String> {
        if let Fact::Submitted { client, .. } = *fact {
            self.sent.push((now, client));
        }
        if let Some((Change::Activate { model, version, .. }, outcome)) = news(fact)
            && outcome.result.is_ok()
            && Some(model) == self.first.as_ref()
        {
            self.serving = version.0;
        }
        if let Fact::Sequenced { sequence, replica } = *fact {
            self.sticky.see(sequence, replica);
        }
        self.copies += u64::from(matches!(fact, Fact::Copied(CopyEnd::Answered)));
        if let Fact::Ended { request, end, .. } = *fact {
            self.ended(now, (request, end));
        }
        Ok(())
    }

    fn end(&self, _now: Instant) -> Result<(), String> {
        let expect = self.expect;
        self.all
            .judge("whose clients stayed", expect.answered_permille_min)?;
        let calm = "that were sent when all was mended";
        self.calm.judge(calm, expect.calm_answered_permille_min)?;
        self.latencies.judge("", expect.p99_us_max)?;
        if expect.serving > 0 && expect.serving != self.serving {
            let (serving, wanted) = (self.serving, expect.serving);
            return Err(format!(
                "version {serving} of the first model serves at the end; {wanted} is expected"
            ));
        }
        self.sticky.judge(expect.sticky_permille_min)?;
        if self.copies < expect.copies_min {
            let (copies, wanted) = (self.copies, expect.copies_min);
            return Err(format!(
                "{copies} copies were answered by shadows; {wanted} are expected"
            ));
        }
        for (position, of) in self.clients.iter().enumerate() {
            let whose = format!(" of clients {position}");
            of.share.judge(&whose[1..], of.answered_permille_min)?;
            of.latencies.judge(&whose, of.p99_us_max)?;
        }
        Ok(())
    }
}

/// Detectors, elections and placement have their time.
const GRACE_MS: u64 = 5_000;

#[cfg(test)]
mod tests {
    use paceline_protocol::Epoch;

    use super::*;

    #[test]
    fn a_sequence_that_moves_too_often_and_copies_that_were_not_answered_are_found() {
        let mut scenario = Scenario::named("node-kill").unwrap();
        scenario.expect = Expect {
            sticky_permille_min: 500,
            copies_min: 1,
            ..Expect::default()
        };
        let mut expected = Expected::new(&scenario);
        let mut see = |fact: Fact<'_>| {
            expected.observe(Instant::ZERO, &fact).unwrap();
            expected.end(Instant::ZERO)
        };
        let sent = |replica| Fact::Sequenced {
            sequence: Sequence(7),
            replica: ReplicaId(replica),
        };
        let none = see(sent(1)).unwrap_err();
        assert!(none.starts_with("0 of 0 requests of sequences"), "{none}");
        assert!(
            see(sent(1))
                .unwrap_err()
                .starts_with("0 copies were answered")
        );
        assert_eq!(see(Fact::Copied(CopyEnd::Answered)), Ok(()));
        assert_eq!(see(sent(2)), Ok(()), "every other one");
        let moved = see(sent(3)).unwrap_err();
        assert!(moved.starts_with("1 of 3 requests of sequences"), "{moved}");
    }

    fn judge(expect: Expect, ends: &[(u64, End)]) -> bool {
        let mut scenario = Scenario::named("node-kill").unwrap();
        scenario.expect = expect;
        let mut expected = Expected::new(&scenario);
        for (number, (at_ms, end)) in ends.iter().enumerate() {
            let request = RequestNumber(number as u32);
            let now = Instant::from_nanos(at_ms * 1_000_000);
            let submitted = Fact::Submitted {
                request,
                deadline: Instant::FAR,
                is_once: false,
                client: 0,
            };
            expected.observe(now, &submitted).unwrap();
            let ended = Fact::Ended {
                request,
                end: *end,
                epoch: Epoch(1),
            };
            expected.observe(now.plus_nanos(5_000_000), &ended).unwrap();
        }
        expected.end(Instant::ZERO).is_ok()
    }

    #[test]
    fn too_few_answers_in_all_or_in_calm_are_found() {
        let ends = [
            (6_000, End::Gone),
            (6_000, End::Cancelled),
            (90_000, End::Answered),
        ];
        let all = |permille| Expect {
            answered_permille_min: permille,
            calm_answered_permille_min: 1_000,
            ..Expect::default()
        };
        assert!(judge(all(500), &ends));
        assert!(!judge(all(501), &ends));
        assert!(!judge(all(0), &[(90_000, End::Gone)]));
        let fast = |p99_us_max| Expect {
            p99_us_max,
            ..Expect::default()
        };
        assert!(judge(fast(5_000), &ends) && !judge(fast(4_999), &ends));
    }
}
