//! `paceline bench`: how fast a model answers, and what it does when it cannot.
//!
//! Plain and honest: latencies of an open loop are counted from the moment at which a request
//! should have been sent, so a server that stalls cannot hide the requests that it held up;
//! failures are counted by code and never among the latencies.

mod arrivals;
mod calibrate;
mod compared;
mod find;
mod interrupt;
mod interval;
mod latency;
mod load;
mod page;
mod prepared;
mod provenance;
mod recorded;
mod report;
mod timeline;
mod wire;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use paceline_protocol::limits::{REQUEST_BUDGET_DEFAULT_MS, REQUEST_BUDGET_MAX_MS, ROWS_MAX};

use crate::api::OperatorClient;

use super::connection::{Connection, Output};
use super::failure::Failure;
use super::infer::{Importance, Input};
use super::target::ModelTarget;
use super::terminal::Terminal;
use super::units::{nanoseconds, parse_duration};
use calibrate::{Calibrating, Calibration};
use compared::Earlier;
use find::{Found, Wanted};
use load::Load;
use prepared::{DURATION_DEFAULT, unwritten};
use provenance::Provenance;
use report::{Report, Subject};
use wire::Miss;

/// Arguments of `paceline bench`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Without --rate each connection sends the next request when the last is answered (closed loop).
With --rate or --trace requests are due at moments that do not depend on answers, and latency counts
from the moment that was due (open loop): no server can hide what it holds up. A request that no
connection is free for waits, and is given up at its deadline.

An answer is good if it is right and comes within --deadline of the moment when its request was
due. Failures are counted by code and are not among the latencies. With a context, connections are
spread over its nodes; one that is lost, or that its node closes, is opened again at the next node.
The request that was under way there is a failure, unless --retry sends it again, which is what a
client does that wants its answer. Ctrl-C ends the load early and reports what there is.

Examples:
  paceline bench machine-failure --row 1,0,0,302.3,311.5,1282,60.7,216
  paceline bench identity --row 1,2,3 --concurrency 64 --duration 30s --warm-up 2s
  paceline bench identity --row 1,2,3 --rate 2000 --arrivals poisson --deadline 50ms
  paceline bench identity --row 1,2,3 --rows 32 --rate 500 --binary
  paceline bench identity --row 1,2,3 --rate 2000 --compare yesterday.json
  paceline bench identity --row 1,2,3 --rate 100 --find-max 50ms --duration 5s
  paceline bench identity --row 1,2,3 --trace requests.csv --speed 10
  paceline bench identity --row 1,2,3 --rate 2000 --report bench.html
  paceline bench identity --row 1,2,3 --rate 2000 -o json | jq .latency_ns.p99
  paceline bench identity --row 1,2,3 --calibrate identity.toml && paceline sim run identity.toml
  paceline bench digits --json body.json --context paceline-cluster/context.toml --retry")]
pub struct BenchArgs {
    /// The model, and perhaps its version
    #[arg(value_name = "NAME[@V]")]
    target: ModelTarget,
    #[command(flatten)]
    input: Input,
    /// Rows in each request: those of --row or --text over and over
    #[arg(long, value_name = "N", conflicts_with = "json", value_parser = clap::value_parser!(u32).range(1..=ROWS_MAX as i64))]
    rows: Option<u32>,
    /// Requests a second that are due
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=RATE_MAX))]
    rate: Option<u32>,
    /// Send at the moments of a recorded trace, with as many rows as it says: CSV or JSON lines with a
    /// column time, time_s, time_ms, time_us or time_ns and perhaps rows, Azure's or Mooncake's
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rate", "arrivals"])]
    trace: Option<PathBuf>,
    /// How many times as fast as it was a trace is sent, 0.01 to 1000
    #[arg(long, value_name = "X", default_value = "1", requires = "trace", value_parser = parse_speed)]
    speed: Permille,
    /// At which moments they are due: at equal distances, or independently of each other
    #[arg(long, value_enum, default_value = "constant", requires = "rate")]
    arrivals: Process,
    /// What random moments are drawn from: the same seed, the same moments
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Send tensors as bytes, and ask for bytes, rather than JSON
    #[arg(long, conflicts_with = "json")]
    binary: bool,
    /// Find the highest rate, beginning at --rate, of which 99 of 100 requests are answered right and
    /// within this time; each is tried for --duration, 10 s unless given
    #[arg(long, value_name = "P99", requires = "rate", value_parser = parse_deadline,
        conflicts_with_all = ["trace", "calibrate", "report"])]
    find_max: Option<Duration>,
    /// Connections, each with one request at a time; 16, in an open loop 64
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    concurrency: Option<u32>,
    /// For how long; 10 s, or to the end of a trace, unless given
    #[arg(long, value_name = "DURATION", value_parser = parse_length)]
    duration: Option<Duration>,
    /// Load before that which is not counted; none unless given
    #[arg(long, value_name = "DURATION", value_parser = parse_length)]
    warm_up: Option<Duration>,
    /// How long after it was due an answer is good; --timeout, or 10 s, unless given. Only
    /// --timeout is told to the node
    #[arg(long, value_name = "DURATION", value_parser = parse_deadline)]
    deadline: Option<Duration>,
    /// Send a request once more, to the next node, when its connection is lost or the node answers
    /// 503; off unless given
    #[arg(long)]
    retry: bool,
    /// Count answers as wrong whose outputs differ from the first one's
    #[arg(long)]
    check: bool,
    /// Write a report with figures and drawings to this file, in HTML that needs nothing else
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Compare with a report that -o json has written
    #[arg(long, value_name = "FILE.json", conflicts_with_all = ["calibrate", "find_max"])]
    compare: Option<PathBuf>,
    /// Measure what batches cost by their size instead, from engines' own times, and write a scenario
    /// with it for `paceline sim run` to this file; nobody else may use the engines meanwhile
    #[arg(long, value_name = "FILE.toml", conflicts_with_all = [
        "rate", "trace", "rows", "json", "concurrency", "warm_up", "deadline", "retry", "check", "report",
        "binary",
    ])]
    calibrate: Option<PathBuf>,
    /// Tell each second how it goes, also where stderr is no terminal
    #[arg(long)]
    progress: bool,
    #[command(flatten)]
    importance: Importance,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// How moments are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Process {
    Constant,
    Poisson,
}

/// Thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Permille(u32);

/// More than one machine sends with a thread a connection.
const CONNECTIONS_MAX: i64 = 1_024;
const RATE_MAX: i64 = 1_000_000;
/// Every second is measured again; longer runs are somebody's soak test.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3_600);
/// How much longer is waited than the node's budget, so that its own word arrives.
const GRACE: Duration = Duration::from_secs(2);

impl BenchArgs {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let default = Duration::from_millis(REQUEST_BUDGET_DEFAULT_MS);
        let patience = self.connection.timeout_or(default).saturating_add(GRACE);
        let client = self.connection.client_within(terminal, patience)?;
        let meant = (self.connection.timeout(), self.importance);
        let ModelTarget { name, version } = &self.target;
        let (mut plain, mut answered_by) = (None, None);
        if !self.binary {
            let asked = (&client, &mut *terminal);
            let body = self.input.body(&self.target, &[], meant, asked)?;
            // What does not work once is not worth measuring, and says better why.
            answered_by = client.infer(name, version.as_ref(), &body)?.version;
            plain = Some(body);
        }
        if let Some(file) = &self.calibrate {
            return self.run_calibration(file, answered_by, (&client, terminal));
        }
        let page = self.open_page()?;
        let earlier = self.compare.as_deref().map(Earlier::read).transpose();
        let earlier = earlier.map_err(Failure::Usage)?;
        let recorded = self.recorded(&terminal.talk())?;
        let sizes = recorded.as_ref().map_or(&[][..], |recorded| &recorded.rows);
        let bodies = self.bodies(sizes, plain, &client)?;
        let mut exchange = self.exchange(bodies, patience)?;
        if self.check || self.binary {
            let first = exchange.expect_the_same();
            let failed = |miss: Miss| Failure::Failed(format!("no first answer: {}", miss.code));
            answered_by = first.map_err(failed)?.or(answered_by);
        }
        let nodes = self.connection.cluster()?.nodes;
        let subject = Subject {
            model: name.clone(),
            version: answered_by,
            nodes: nodes.iter().map(ToString::to_string).collect(),
        };
        if !self.check {
            exchange.expect_anything();
        }
        let load = self.load(exchange, recorded)?;
        if let Some(p99) = self.find_max {
            return self.run_search(load, &subject, p99, terminal);
        }
        let mut report = self.measure(subject, &load, terminal)?;
        report.compared = earlier.map(|earlier| earlier.compare(&report));
        terminal.show(self.output.format, &report, Report::text)?;
        if let Some((mut file, path)) = page {
            let written = file.write_all(page::page(&report).as_bytes());
            written.map_err(|error| unwritten(path, &error))?;
        }
        if report.succeeded == 0 {
            return Err(Failure::Failed("no request succeeded".to_owned()));
        }
        Ok(())
    }

    fn run_calibration(
        &self,
        file: &Path,
        version: Option<String>,
        (client, terminal): (&OperatorClient, &mut Terminal),
    ) -> Result<(), Failure> {
        let calibration = Calibration {
            client,
            model: client.model(&self.target.name)?,
            version: version.unwrap_or_default(),
            duration: self.duration.unwrap_or(DURATION_DEFAULT),
        };
        let sizes = calibrate::sizes(calibration.rows_max()?);
        let bodies = self.sized(&sizes, client)?;
        let (sizes, bodies) = calibrate::fitting(sizes, bodies);
        let default = Duration::from_millis(REQUEST_BUDGET_DEFAULT_MS);
        let patience = self.connection.timeout_or(default).saturating_add(GRACE);
        let exchange = self.exchange(bodies, patience)?;
        let talk = terminal.talk();
        let (asked, told) = ((&sizes[..], &exchange), (file, &talk));
        let calibrated = calibration.run(asked, Provenance::of_process(), told)?;
        terminal.show(self.output.format, &calibrated, Calibrating::text)
    }

    fn run_search(
        &self,
        load: Load,
        subject: &Subject,
        p99: Duration,
        terminal: &mut Terminal,
    ) -> Result<(), Failure> {
        let talk = terminal.talk();
        let failed = |error| Failure::Failed(format!("a thread does not start: {error}"));
        let stop = interrupt::watch().map_err(failed)?;
        let start = self.rate.unwrap_or(1);
        let found = find::find(load, subject, Wanted { start, p99 }, (&talk, &stop))?;
        terminal.show(self.output.format, &found, Found::text)
    }

    fn measure(
        &self,
        subject: Subject,
        load: &Load,
        terminal: &Terminal,
    ) -> Result<Report, Failure> {
        let talk = terminal.talk();
        let failed = |error| Failure::Failed(format!("a thread does not start: {error}"));
        let stop = interrupt::watch().map_err(failed)?;
        let provenance = Provenance::of_process();
        let measured = load.run(&talk, self.progress, &stop).map_err(failed)?;
        let report = Report::new(provenance, subject, load, measured);
        if report.cut_short {
            let after = nanoseconds(arrivals::nanos(load.duration));
            let window = report.window_seconds;
            talk.say(&format!("cut short after {window:.1} s of {after}"));
        }
        let warnings = report.warnings.iter();
        warnings.for_each(|warning| talk.say(&format!("warning: {warning}")));
        Ok(report)
    }
}

fn parse_speed(text: &str) -> Result<Permille, String> {
    let speed = text.parse::<f64>().ok();
    let speed = speed.filter(|speed| (0.01..=1_000.0).contains(speed));
    let permille = speed.map(|speed| Permille((speed * 1_000.0).round() as u32));
    permille.ok_or_else(|| format!("'{text}' is not a number from 0.01 to 1000"))
}

fn parse_length(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        duration if duration <= DURATION_MAX => Ok(duration),
        _ => Err("at most 24h".to_owned()),
    }
}

fn parse_deadline(text: &str) -> Result<Duration, String> {
    let most = Duration::from_millis(REQUEST_BUDGET_MAX_MS);
    match parse_duration(text)? {
        deadline if deadline <= most => Ok(deadline),
        _ => Err(format!("at most {}s", most.as_secs())),
    }
}
