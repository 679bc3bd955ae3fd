//! What became of requests in some span of time: counts by kind, and times.

use std::collections::BTreeMap;

use serde::Serialize;

use super::latency::Latencies;
use super::wire::Miss;

/// Why a request has no good answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// The node said no: 4xx and 503, load and mistakes alike. The code says which.
    Refused,
    /// The node tried, and it went wrong: the other statuses.
    Failed,
    /// No answer within the time: the node's own word on it (504), or none came.
    Expired,
    /// The connection did not come about, broke, or did not speak HTTP.
    Lost,
    /// An answer that differs from the one that is expected.
    Wrong,
}

impl Kind {
    /// As people read it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Lost => "lost",
            Self::Wrong => "wrong",
        }
    }
}

/// What ended in a span of time, and what began.
#[derive(Clone, Debug)]
pub(super) struct Interval {
    /// Requests that were sent.
    pub(super) sent: u64,
    /// Of right answers, in time or not, from the moment that was due.
    pub(super) latencies: Latencies,
    /// Right answers that came after the deadline.
    pub(super) late: u64,
    /// What has no right answer, by kind and code.
    pub(super) misses: BTreeMap<(Kind, String), u64>,
    /// What was sent once more, by the code of the first attempt.
    pub(super) retried: BTreeMap<String, u64>,
    /// Given up before they were sent: their deadline was over while every connection was busy.
    pub(super) unsent: u64,
    /// Sent after they were due, for want of a free connection.
    pub(super) waited: u64,
    /// How long after it was due a request was sent for which a connection was waiting.
    pub(super) lateness: Latencies,
}

impl Interval {
    pub(super) fn new() -> Self {
        Self {
            sent: 0,
            latencies: Latencies::new(),
            late: 0,
            misses: BTreeMap::new(),
            retried: BTreeMap::new(),
            unsent: 0,
            waited: 0,
            lateness: Latencies::new(),
        }
    }

    /// Takes in a right answer, so long after it was due.
    pub(super) fn answered(&mut self, nanos: u64, deadline_nanos: u64) {
        self.latencies.record(nanos);
        self.late += u64::from(nanos > deadline_nanos);
    }

    /// Takes in a request without one.
    pub(super) fn missed(&mut self, miss: Miss) {
        *self.misses.entry((miss.kind, miss.code)).or_default() += 1;
    }

    /// Right answers within the deadline.
    pub(super) fn good(&self) -> u64 {
        self.latencies.count() - self.late
    }

    /// Requests of a kind.
    pub(super) fn of(&self, kind: Kind) -> u64 {
        let same = self.misses.iter().filter(|((its, _), _)| *its == kind);
        same.map(|(_, count)| count).sum()
    }

    /// Requests without a right answer, however late; those that were not sent are not among them.
    pub(super) fn missing(&self) -> u64 {
        self.misses.values().sum()
    }

    /// Adds what another span had, and empties that one.
    pub(super) fn take(&mut self, other: &mut Self) {
        self.sent += std::mem::take(&mut other.sent);
        self.late += std::mem::take(&mut other.late);
        self.unsent += std::mem::take(&mut other.unsent);
        self.waited += std::mem::take(&mut other.waited);
        self.latencies.add(&other.latencies);
        other.latencies.clear();
        self.lateness.add(&other.lateness);
        other.lateness.clear();
        for (key, count) in std::mem::take(&mut other.misses) {
            *self.misses.entry(key).or_default() += count;
        }
        for (code, count) in std::mem::take(&mut other.retried) {
            *self.retried.entry(code).or_default() += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_time_is_good_and_all_else_has_its_kind() {
        let miss = |kind, code: &str| Miss {
            kind,
            code: code.to_owned(),
            may_repeat: false,
        };
        let (mut whole, mut part) = (Interval::new(), Interval::new());
        for nanos in [10, 100, 101] {
            part.sent += 1;
            part.answered(nanos, 100);
        }
        part.missed(miss(Kind::Refused, "OVERLOADED"));
        part.missed(miss(Kind::Lost, "NO_CONNECTION"));
        whole.take(&mut part);
        part.missed(miss(Kind::Refused, "QUEUE_FULL"));
        part.unsent += 2;
        whole.take(&mut part);
        assert_eq!(
            (whole.good(), whole.late, whole.latencies.count()),
            (2, 1, 3)
        );
        assert_eq!((whole.of(Kind::Refused), whole.of(Kind::Lost)), (2, 1));
        assert_eq!(
            (whole.of(Kind::Failed), whole.missing(), whole.unsent),
            (0, 3, 2)
        );
        assert_eq!(
            (part.sent, part.latencies.count(), part.missing()),
            (0, 0, 0)
        );
    }
}
