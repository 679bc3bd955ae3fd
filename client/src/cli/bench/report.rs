//! What was measured, as JSON has it and as people read it.

use std::collections::BTreeMap;
use std::time::Duration;

use paceline_protocol::ModelName;
use serde::Serialize;

use super::arrivals::Arrivals;
use super::compared::Compared;
use super::interval::{Interval, Kind};
use super::latency::{ERROR_MAX, Latencies};
use super::load::{Load, Measured};
use super::provenance::{Provenance, cores};
use super::timeline::Second;
use crate::cli::table::fields;
use crate::cli::units;

/// What was measured. `docs/bench.md` describes it; what is added to it leaves the number of the
/// schema, what changes its meaning raises it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    schema: u32,
    pub(super) provenance: Provenance,
    pub(super) model: ModelName,
    pub(super) version: Option<String>,
    /// Doors that were asked.
    pub(super) nodes: Vec<String>,
    /// `closed` or `open`.
    r#loop: &'static str,
    /// `closed`, `constant`, `poisson` or `trace`.
    arrivals: &'static str,
    /// What random moments were drawn from.
    pub(super) seed: Option<u64>,
    connections: u32,
    /// Requests a second that were due; null in a closed loop and of a trace.
    rate_due: Option<u32>,
    warm_up_seconds: f64,
    /// For how long requests were due.
    pub(super) window_seconds: f64,
    /// Until the last answer.
    pub(super) seconds: f64,
    /// An answer is good within this time of the moment when its request was due.
    pub(super) deadline_ns: u64,
    /// Ended early by Ctrl-C.
    pub(super) cut_short: bool,
    /// Requests that were sent and ended, however.
    requests: u64,
    /// Right answers, in time or not.
    pub(super) succeeded: u64,
    /// Right answers within the deadline.
    pub(super) good: u64,
    /// Right answers after it.
    pub(super) late: u64,
    /// What ended otherwise, by kind.
    pub(super) kinds: Kinds,
    /// The same by code.
    pub(super) errors: BTreeMap<String, u64>,
    /// With --retry, how many were sent once more, by the code of the first attempt; however
    /// they ended then, they are counted above once.
    retried: BTreeMap<String, u64>,
    /// Due, and given up before they were sent: no connection was free within the deadline.
    pub(super) unsent: u64,
    succeeded_per_second: f64,
    pub(super) good_per_second: f64,
    /// Of all that were due; null if none was.
    pub(super) good_share: Option<f64>,
    /// Of right answers; null if there was none.
    pub(super) latency_ns: Option<Quantiles>,
    /// By how much of its value a quantile may be above the truth; it is never below.
    latency_error: f64,
    /// Pairs of the largest latency of a bucket and how many are in it, rising.
    pub(super) latency_buckets_ns: Vec<(u64, u64)>,
    sender: Sender,
    /// What ended without a right answer, by kind and code; JSON has the sums.
    #[serde(skip)]
    pub(super) misses: Vec<(Kind, String, u64)>,
    /// Why the figures may not be what they seem.
    pub(super) warnings: Vec<String>,
    pub(super) timeline: Vec<Second>,
    /// With --compare, this run beside an earlier one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) compared: Option<Compared>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Quantiles {
    pub(super) mean: u64,
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
    pub(super) p999: u64,
    pub(super) max: u64,
}

/// Requests without a right answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Kinds {
    pub(super) refused: u64,
    pub(super) failed: u64,
    pub(super) expired: u64,
    pub(super) lost: u64,
    pub(super) wrong: u64,
}

/// How this program itself did.
#[derive(Clone, Debug, Serialize)]
struct Sender {
    /// How long after it was due a request was sent for which a connection was waiting; null in a
    /// closed loop.
    lateness_ns: Option<Quantiles>,
    /// Sent after they were due, for want of a free connection; their latency has that wait.
    waited: u64,
    /// Processor time; null where the system does not tell it.
    cpu_seconds: Option<f64>,
    /// Whether the figures are this program's rather than the server's.
    limited: bool,
}

/// What the figures are about.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) model: ModelName,
    pub(super) version: Option<String>,
    pub(super) nodes: Vec<String>,
}

/// What the system's own timers may take, on a machine that is not busy.
const LATENESS_MAX: Duration = Duration::from_millis(1);
/// Past this share of all cores, who makes the load waits for a processor itself.
const CPU_SHARE_MAX: f64 = 0.9;
/// Past this share of requests that waited for a connection, there are too few of them.
const WAITED_SHARE_MAX: f64 = 0.01;
/// A hundredth of fewer answers is none of them.
const ANSWERS_MIN: u64 = 100;

impl Report {
    pub(super) fn new(
        provenance: Provenance,
        subject: Subject,
        load: &Load,
        measured: Measured,
    ) -> Self {
        let Measured { total, elapsed, .. } = &measured;
        let seconds = elapsed.as_secs_f64();
        let succeeded = total.latencies.count();
        let is_open = load.arrivals != Arrivals::Closed;
        // In a closed loop, answers are as many as the time to the last one allowed.
        let span = if is_open { measured.window } else { *elapsed };
        let due = succeeded + total.missing() + total.unsent;
        let sender = Sender::of(&measured, load.warm_up);
        Self {
            schema: SCHEMA,
            provenance,
            model: subject.model,
            version: subject.version,
            nodes: subject.nodes,
            r#loop: if is_open { "open" } else { "closed" },
            arrivals: load.arrivals.name(),
            seed: load.arrivals.seed(),
            connections: load.connections,
            rate_due: load.arrivals.rate(),
            warm_up_seconds: load.warm_up.as_secs_f64(),
            window_seconds: measured.window.as_secs_f64(),
            seconds,
            deadline_ns: super::arrivals::nanos(load.deadline),
            cut_short: measured.cut_short,
            requests: succeeded + total.missing(),
            succeeded,
            good: total.good(),
            late: total.late,
            kinds: Kinds::of(total),
            errors: by_code(total),
            retried: total.retried.clone(),
            unsent: total.unsent,
            succeeded_per_second: a_second(succeeded, *elapsed),
            good_per_second: a_second(total.good(), span),
            good_share: (due > 0).then(|| total.good() as f64 / due as f64),
            latency_ns: Quantiles::of(&total.latencies),
            latency_error: ERROR_MAX,
            latency_buckets_ns: total.latencies.buckets().collect(),
            misses: misses(total),
            warnings: warnings(total, &sender),
            sender,
            timeline: measured.seconds,
            compared: None,
        }
    }

    /// As people read it.
    pub(super) fn text(&self) -> String {
        let mut pairs = vec![
            ("load", self.load()),
            (
                "requests",
                format!("{} in {:.1} s", self.requests, self.seconds),
            ),
            (
                "succeeded",
                format!("{}, {:.1}/s", self.succeeded, self.succeeded_per_second),
            ),
            ("good", self.goodput()),
        ];
        for (code, count) in &self.errors {
            pairs.push(("failed", format!("{count} {code}")));
        }
        for (code, count) in &self.retried {
            pairs.push(("sent again", format!("{count} {code}")));
        }
        if self.unsent > 0 {
            let why = "every connection was busy until their deadline";
            pairs.push(("not sent", format!("{}: {why}", self.unsent)));
        }
        if let Some(latency) = self.latency_ns {
            for (name, nanos) in latency.named() {
                pairs.push((name, units::nanoseconds(nanos)));
            }
        }
        pairs.extend(self.compared.iter().flat_map(Compared::fields));
        fields(&pairs)
    }

    /// Requests that were sent and have no right answer.
    pub(super) fn missing(&self) -> u64 {
        self.misses.iter().map(|(_, _, count)| count).sum()
    }

    /// Whether the figures are the client's.
    pub(super) fn is_limited(&self) -> bool {
        self.sender.limited
    }

    /// What load was made, in words.
    pub(super) fn load(&self) -> String {
        let connections = units::counted(self.connections as usize, "connection");
        let rate = self.rate_due.map(|rate| format!("{rate} requests/s due, "));
        let rate = rate.unwrap_or_default();
        match self.r#loop {
            "closed" => format!("closed loop, {connections}"),
            _ => format!("open loop, {}, {rate}{connections}", self.arrivals),
        }
    }

    /// Good answers, in words.
    pub(super) fn goodput(&self) -> String {
        let share = self.good_share.unwrap_or(0.0) * 100.0;
        format!(
            "{}, {:.1}/s, within {}: {share:.2} % of those due",
            self.good,
            self.good_per_second,
            units::nanoseconds(self.deadline_ns)
        )
    }
}

impl Quantiles {
    fn of(latencies: &Latencies) -> Option<Self> {
        (latencies.count() > 0).then(|| Self {
            mean: latencies.mean(),
            p50: latencies.quantile(0.5),
            p90: latencies.quantile(0.9),
            p99: latencies.quantile(0.99),
            p999: latencies.quantile(0.999),
            max: latencies.max(),
        })
    }

    /// From the middle to the end of the tail.
    pub(super) fn named(self) -> [(&'static str, u64); 5] {
        [
            ("p50", self.p50),
            ("p90", self.p90),
            ("p99", self.p99),
            ("p99.9", self.p999),
            ("max", self.max),
        ]
    }
}

impl Kinds {
    fn of(interval: &Interval) -> Self {
        Self {
            refused: interval.of(Kind::Refused),
            failed: interval.of(Kind::Failed),
            expired: interval.of(Kind::Expired),
            lost: interval.of(Kind::Lost),
            wrong: interval.of(Kind::Wrong),
        }
    }
}

impl Sender {
    fn of(measured: &Measured, warm_up: Duration) -> Self {
        let total = &measured.total;
        let lateness_ns = Quantiles::of(&total.lateness);
        let is_late =
            lateness_ns.is_some_and(|lateness| u128::from(lateness.p99) > LATENESS_MAX.as_nanos());
        let cpu = measured.cpu.map(|cpu| cpu.as_secs_f64());
        // Its time is that of the whole process.
        let could_use = (measured.elapsed + warm_up).as_secs_f64() * cores() as f64;
        let is_busy = cpu.is_some_and(|cpu| cpu > could_use * CPU_SHARE_MAX) && could_use > 1.0;
        Self {
            lateness_ns,
            waited: total.waited,
            cpu_seconds: cpu,
            limited: is_late || is_busy,
        }
    }
}

fn warnings(total: &Interval, sender: &Sender) -> Vec<String> {
    let mut warnings = Vec::new();
    if sender.limited {
        let late = sender.lateness_ns.map(|lateness| {
            let p99 = units::nanoseconds(lateness.p99);
            format!(" (p99 of its lateness: {p99})")
        });
        warnings.push(format!(
            "the client could not send in time{}: these figures are the client's; give it more \
             cores, a machine of its own, or less to do",
            late.unwrap_or_default()
        ));
    }
    if total.waited as f64 > total.sent as f64 * WAITED_SHARE_MAX {
        warnings.push(format!(
            "{} of {} requests waited for a free connection, which is in their latency: the server \
             is slower than the load, or --concurrency is too small",
            total.waited, total.sent
        ));
    }
    let answers = total.latencies.count();
    if (1..ANSWERS_MIN).contains(&answers) {
        warnings.push(format!(
            "{answers} answers are too few for a p99: it is the largest of them"
        ));
    }
    warnings
}

fn misses(interval: &Interval) -> Vec<(Kind, String, u64)> {
    let misses = interval.misses.iter();
    misses
        .map(|((kind, code), count)| (*kind, code.clone(), *count))
        .collect()
}

fn by_code(interval: &Interval) -> BTreeMap<String, u64> {
    let mut codes = BTreeMap::new();
    for ((_, code), count) in &interval.misses {
        *codes.entry(code.clone()).or_default() += count;
    }
    codes
}

fn a_second(count: u64, span: Duration) -> f64 {
    count as f64 / span.as_secs_f64().max(1e-9)
}

pub(super) const SCHEMA: u32 = 1;

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::bench::timeline::Timeline;
    use crate::cli::bench::wire::{Exchange, Miss, Question};
    use crate::cli::infer::Body;

    fn load(arrivals: Arrivals) -> Load {
        Load {
            exchange: Exchange::new(Question {
                nodes: vec!["127.0.0.1:8000".parse().unwrap()],
                api_key: None,
                path: "/".to_owned(),
                bodies: vec![Body {
                    bytes: Vec::new(),
                    json_bytes: None,
                }],
                limit: Duration::from_secs(1),
            }),
            arrivals,
            connections: 2,
            warm_up: Duration::from_secs(1),
            duration: Duration::from_secs(2),
            deadline: Duration::from_millis(50),
            retry: false,
        }
    }

    /// Two seconds: eight answers of 1 to 8 ms, one after the deadline, one refused, two not sent.
    fn measured() -> Measured {
        let mut timeline = Timeline::default();
        let mut first = Interval::new();
        first.sent = 9;
        for ms in 1..=8u64 {
            first.answered(ms * 1_000_000, 50_000_000);
            first.lateness.record(60_000);
        }
        timeline.push(first);
        let mut second = Interval::new();
        second.sent = 1;
        second.waited = 1;
        second.unsent = 2;
        second.answered(80_000_000, 50_000_000);
        second.missed(Miss {
            kind: Kind::Refused,
            code: "<OVERLOADED>".to_owned(),
            may_repeat: false,
        });
        timeline.push(second);
        Measured {
            total: timeline.total,
            seconds: timeline.seconds,
            window: Duration::from_secs(2),
            elapsed: Duration::from_millis(2_500),
            cut_short: false,
            cpu: Some(Duration::from_millis(20)),
        }
    }

    fn subject() -> Subject {
        Subject {
            model: ModelName::new("m").unwrap(),
            version: Some("1".to_owned()),
            nodes: vec!["127.0.0.1:8000".to_owned()],
        }
    }

    pub(in crate::cli::bench) fn report() -> Report {
        let load = load(Arrivals::Poisson { rate: 6, seed: 7 });
        Report::new(Provenance::of_process(), subject(), &load, measured())
    }

    #[test]
    fn goodput_is_what_came_in_time_of_what_was_due() {
        let report = report();
        assert_eq!((report.requests, report.succeeded), (10, 9));
        assert_eq!((report.good, report.late, report.unsent), (8, 1, 2));
        assert_eq!(report.good_per_second, 4.0, "over the window");
        assert_eq!(report.succeeded_per_second, 3.6, "over all of the time");
        assert_eq!(report.good_share, Some(8.0 / 12.0));
        let text = report.text();
        for wanted in [
            "load       open loop, poisson, 6 requests/s due, 2 connections\n",
            "good       8, 4.0/s, within 50.0 ms: 66.67 % of those due\n",
            "failed     1 <OVERLOADED>\n",
            "not sent   2: every connection was busy until their deadline\n",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in\n{text}");
        }
    }

    /// Whoever reads the JSON relies on its keys and their types.
    #[test]
    fn json_has_a_stable_schema() {
        let json = serde_json::to_value(report()).unwrap();
        let keys = |value: &Value| {
            let keys = value.as_object().unwrap().keys().cloned();
            keys.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            keys(&json),
            "arrivals connections cut_short deadline_ns errors good good_per_second good_share kinds late \
             latency_buckets_ns latency_error latency_ns loop model nodes provenance rate_due requests \
             retried schema seconds seed sender succeeded succeeded_per_second timeline unsent version \
             warm_up_seconds warnings window_seconds"
        );
        assert_eq!(
            keys(&json["provenance"]),
            "command machine paceline started"
        );
        assert_eq!(keys(&json["provenance"]["machine"]), "arch cores os");
        assert_eq!(keys(&json["latency_ns"]), "max mean p50 p90 p99 p999");
        assert_eq!(
            keys(&json["sender"]),
            "cpu_seconds lateness_ns limited waited"
        );
        assert_eq!(
            keys(&json["timeline"][0]),
            "expired failed good late lost p50_ns p99_ns refused second sent unsent wrong"
        );
        assert_eq!(json["schema"], 1);
        assert_eq!(json["seed"], 7);
        let kinds = json!({ "refused": 1, "failed": 0, "expired": 0, "lost": 0, "wrong": 0 });
        assert_eq!(json["kinds"], kinds);
        assert_eq!(json["errors"], json!({ "<OVERLOADED>": 1 }));
        assert_eq!(json["latency_buckets_ns"].as_array().unwrap().len(), 9);
        assert_eq!(json["latency_buckets_ns"][8], json!([80_000_000, 1]));
    }

    #[test]
    fn whose_figures_these_are_is_said() {
        let calm = report();
        assert!(!calm.sender.limited);
        assert_eq!(calm.warnings.len(), 2, "{:?}", calm.warnings);
        assert!(calm.warnings[0].starts_with("1 of 10 requests waited"));
        assert!(calm.warnings[1].starts_with("9 answers are too few"));
        let mut slow = measured();
        (0..10).for_each(|_| slow.total.lateness.record(5_000_000));
        let load = load(Arrivals::Closed);
        let slow = Report::new(Provenance::of_process(), subject(), &load, slow);
        assert!(slow.sender.limited);
        assert!(slow.warnings[0].contains("these figures are the client's"));
        assert_eq!(
            (slow.arrivals, slow.rate_due, slow.seed),
            ("closed", None, None)
        );
    }
}
