//! `paceline bench`: how fast a model answers, and what it does when it cannot.
//!
//! Plain and honest: latencies of an open loop are counted from the moment at which a request
//! should have been sent, so a server that stalls cannot hide the requests that it held up;
//! failures are counted by code and never among the latencies.

mod latency;
mod load;
mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use paceline_protocol::ModelName;
use paceline_protocol::limits::REQUEST_BUDGET_DEFAULT_MS;
use serde::Serialize;

use crate::api::inference_path;

use super::connection::{Connection, Output};
use super::failure::Failure;
use super::infer::{Importance, Input};
use super::table::fields;
use super::target::ModelTarget;
use super::terminal::Terminal;
use super::units::{self, parse_duration};
use latency::Latencies;
use load::{Load, Measured, Pace};
use wire::Exchange;

/// Arguments of `paceline bench`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Without --rate each connection sends the next request when the last is answered (closed loop).
With --rate requests are due at fixed moments whether or not earlier ones are answered, and
latency counts from the moment that was due (open loop). Failures are counted by code and are
not among the latencies. With a context, connections are spread over its nodes; one that is lost,
or that its node closes, is opened again at the next node. The request that was under way there
is a failure, unless --retry sends it again, which is what a client does that wants its answer.

Examples:
  paceline bench machine-failure --row 1,0,0,302.3,311.5,1282,60.7,216
  paceline bench identity --row 1,2,3 --concurrency 64 --duration 30s
  paceline bench identity --row 1,2,3 --rate 2000 -o json | jq .latency_ns.p99
  paceline bench digits --json body.json --context paceline-cluster/context.toml --retry")]
pub struct BenchArgs {
    /// The model, and perhaps its version
    #[arg(value_name = "NAME[@V]")]
    target: ModelTarget,
    #[command(flatten)]
    input: Input,
    /// Requests a second that are due
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=RATE_MAX))]
    rate: Option<u32>,
    /// Connections, each with one request at a time; 16, with --rate 64
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    concurrency: Option<u32>,
    /// For how long
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_length)]
    duration: Duration,
    /// Send a request once more, to the next node, when its connection is lost or the node answers
    /// 503; off unless given
    #[arg(long)]
    retry: bool,
    #[command(flatten)]
    importance: Importance,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// More than one machine sends with a thread a connection.
const CONNECTIONS_MAX: i64 = 1_024;
const RATE_MAX: i64 = 1_000_000;
/// Every second is measured again; longer runs are somebody's soak test.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3_600);
/// How much longer is waited than the node's budget, so that its own word arrives.
const GRACE: Duration = Duration::from_secs(2);

/// What was measured, as JSON has it.
#[derive(Debug, Serialize)]
struct Report {
    model: ModelName,
    version: Option<String>,
    /// `closed` or `open`.
    r#loop: &'static str,
    connections: u32,
    /// Requests a second that were due; null in a closed loop.
    rate_due: Option<u32>,
    seconds: f64,
    /// Requests that ended, however.
    requests: u64,
    succeeded: u64,
    /// How many ended otherwise, by code.
    errors: BTreeMap<String, u64>,
    /// With --retry, how many were sent once more, by the code of the first attempt; however
    /// they ended then, they are counted above once.
    retried: BTreeMap<String, u64>,
    /// Due within the time, and not sent for want of a free connection.
    unsent: u64,
    succeeded_per_second: f64,
    /// Of requests that succeeded; null if none did.
    latency_ns: Option<Quantiles>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Quantiles {
    mean: u64,
    p50: u64,
    p90: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

impl BenchArgs {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let default = Duration::from_millis(REQUEST_BUDGET_DEFAULT_MS);
        let patience = self.connection.timeout_or(default).saturating_add(GRACE);
        let client = self.connection.client_within(terminal, patience)?;
        let budget = self.connection.timeout();
        let body = self.input.body(
            &self.target,
            &[],
            (budget, self.importance),
            (&client, terminal),
        )?;
        let ModelTarget { name, version } = &self.target;
        // What does not work once is not worth measuring, and says better why.
        let first = client.infer(name, version.as_ref(), &body)?;
        let cluster = self.connection.cluster()?;
        if let Some(node) = cluster.nodes.iter().find(|node| node.is_secure()) {
            let message = format!("{node}: bench measures without TLS, on http:// only");
            return Err(Failure::Usage(message));
        }
        let path = format!("{}/infer", inference_path(name, version.as_ref()));
        let connections = self.concurrency.unwrap_or(match self.rate {
            None => 16,
            Some(_) => 64,
        });
        let load = Load {
            exchange: Exchange {
                nodes: cluster.nodes,
                api_key: cluster.api_key,
                path,
                body,
                limit: patience,
            },
            pace: self.rate.map_or(Pace::Closed, Pace::Open),
            connections,
            duration: self.duration,
            retry: self.retry,
        };
        let measured = load
            .run(&terminal.talk())
            .map_err(|error| Failure::Failed(format!("a thread does not start: {error}")))?;
        let report = Report::new(&self, connections, measured, first.version);
        terminal.show(self.output.format, &report, text)?;
        if report.succeeded == 0 {
            return Err(Failure::Failed("no request succeeded".to_owned()));
        }
        Ok(())
    }
}

impl Report {
    fn new(
        args: &BenchArgs,
        connections: u32,
        measured: Measured,
        version: Option<String>,
    ) -> Self {
        let seconds = measured.elapsed.as_secs_f64();
        let succeeded = measured.latencies.count();
        let failed: u64 = measured.errors.values().sum();
        Self {
            model: args.target.name.clone(),
            version,
            r#loop: if args.rate.is_some() {
                "open"
            } else {
                "closed"
            },
            connections,
            rate_due: args.rate,
            seconds,
            requests: succeeded + failed,
            succeeded,
            errors: measured.errors,
            retried: measured.retried,
            unsent: measured.unsent,
            succeeded_per_second: succeeded as f64 / seconds.max(1e-9),
            latency_ns: Quantiles::of(&measured.latencies),
        }
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
}

fn text(report: &Report) -> String {
    let load = match report.rate_due {
        None => format!("closed loop, {} connections", report.connections),
        Some(rate) => format!(
            "open loop, {rate} requests/s due, {} connections",
            report.connections
        ),
    };
    let mut pairs = vec![
        ("load", load),
        (
            "requests",
            format!("{} in {:.1} s", report.requests, report.seconds),
        ),
        (
            "succeeded",
            format!("{}, {:.1}/s", report.succeeded, report.succeeded_per_second),
        ),
    ];
    for (code, count) in &report.errors {
        pairs.push(("failed", format!("{count} {code}")));
    }
    for (code, count) in &report.retried {
        pairs.push(("sent again", format!("{count} {code}")));
    }
    if report.unsent > 0 {
        let unsent = format!("{}: every connection was busy", report.unsent);
        pairs.push(("not sent", unsent));
    }
    if let Some(latency) = report.latency_ns {
        for (name, nanos) in [
            ("p50", latency.p50),
            ("p90", latency.p90),
            ("p99", latency.p99),
            ("p99.9", latency.p999),
            ("max", latency.max),
        ] {
            pairs.push((name, units::nanoseconds(nanos)));
        }
    }
    fields(&pairs)
}

fn parse_length(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        duration if duration <= DURATION_MAX => Ok(duration),
        _ => Err("at most 24h".to_owned()),
    }
}
