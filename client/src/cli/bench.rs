//! `paceline bench`: how fast a model answers, and what it does when it cannot.
//!
//! Plain and honest: latencies of an open loop are counted from the moment at which a request
//! should have been sent, so a server that stalls cannot hide the requests that it held up;
//! failures are counted by code and never among the latencies.

mod arrivals;
mod calibrate;
mod interrupt;
mod interval;
mod latency;
mod load;
mod page;
mod provenance;
mod report;
mod timeline;
mod wire;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use paceline_protocol::limits::{REQUEST_BUDGET_DEFAULT_MS, REQUEST_BUDGET_MAX_MS, ROWS_MAX};

use crate::api::{OperatorClient, inference_path};

use super::connection::{Connection, Output};
use super::failure::Failure;
use super::infer::{Importance, Input};
use super::target::ModelTarget;
use super::terminal::Terminal;
use super::units::{nanoseconds, parse_duration};
use arrivals::Arrivals;
use calibrate::{Calibrating, Calibration};
use load::Load;
use provenance::Provenance;
use report::{Report, Subject};
use wire::{Body, Exchange, Question};

/// Arguments of `paceline bench`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Without --rate each connection sends the next request when the last is answered (closed loop).
With --rate requests are due at moments that do not depend on answers, and latency counts from
the moment that was due (open loop): no server can hide what it holds up. A request that no
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
  paceline bench identity --row 1,2,3 --rows 32 --rate 500
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
    /// At which moments they are due: at equal distances, or independently of each other
    #[arg(long, value_enum, default_value = "constant", requires = "rate")]
    arrivals: Process,
    /// What random moments are drawn from: the same seed, the same moments
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Connections, each with one request at a time; 16, with --rate 64
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    concurrency: Option<u32>,
    /// For how long
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_length)]
    duration: Duration,
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
    /// Measure what batches cost by their size instead, from engines' own times, and write a scenario
    /// with it for `paceline sim run` to this file; nobody else may use the engines meanwhile
    #[arg(long, value_name = "FILE.toml", conflicts_with_all = [
        "rate", "rows", "json", "concurrency", "warm_up", "deadline", "retry", "check", "report",
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
        let body = self.body(self.rows, &client, terminal)?;
        let ModelTarget { name, version } = &self.target;
        // What does not work once is not worth measuring, and says better why.
        let first = client.infer(name, version.as_ref(), &body)?;
        if let Some(file) = &self.calibrate {
            return self.run_calibration(file, first.version, (&client, terminal));
        }
        let nodes = self.connection.cluster()?.nodes;
        let subject = Subject {
            model: name.clone(),
            version: first.version,
            nodes: nodes.iter().map(ToString::to_string).collect(),
        };
        let mut exchange = self.exchange(vec![Body::json(body)], patience)?;
        if self.check {
            let first = exchange.expect_the_same();
            first.map_err(|miss| Failure::Failed(format!("no first answer: {}", miss.code)))?;
        }
        let load = self.load(exchange);
        let report = self.measure(subject, &load, terminal)?;
        terminal.show(self.output.format, &report, Report::text)?;
        self.write_page(&report)?;
        if report.succeeded == 0 {
            return Err(Failure::Failed("no request succeeded".to_owned()));
        }
        Ok(())
    }

    fn write_page(&self, report: &Report) -> Result<(), Failure> {
        let Some(file) = &self.report else {
            return Ok(());
        };
        let failed = |error| {
            Failure::Failed(format!(
                "cannot write the report to {}: {error}",
                file.display()
            ))
        };
        fs::write(file, page::page(report)).map_err(failed)
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
            duration: self.duration,
        };
        let sizes = calibrate::sizes(calibration.rows_max()?);
        let body = |rows: &u32| self.body(Some(*rows), client, terminal).map(Body::json);
        let bodies: Vec<Body> = sizes.iter().map(body).collect::<Result<_, _>>()?;
        let (sizes, bodies) = calibrate::fitting(sizes, bodies);
        let default = Duration::from_millis(REQUEST_BUDGET_DEFAULT_MS);
        let patience = self.connection.timeout_or(default).saturating_add(GRACE);
        let exchange = self.exchange(bodies, patience)?;
        let talk = terminal.talk();
        let (asked, told) = ((&sizes[..], &exchange), (file, &talk));
        let calibrated = calibration.run(asked, Provenance::of_process(), told)?;
        terminal.show(self.output.format, &calibrated, Calibrating::text)
    }

    fn exchange(&self, bodies: Vec<Body>, limit: Duration) -> Result<Exchange, Failure> {
        let cluster = self.connection.cluster()?;
        let ModelTarget { name, version } = &self.target;
        Ok(Exchange::new(Question {
            nodes: cluster.nodes,
            api_key: cluster.api_key,
            path: format!("{}/infer", inference_path(name, version.as_ref())),
            bodies,
            limit,
        }))
    }

    fn body(
        &self,
        rows: Option<u32>,
        client: &OperatorClient,
        terminal: &mut Terminal,
    ) -> Result<Vec<u8>, Failure> {
        let input = match rows {
            Some(rows) => &self.input.of_rows(rows),
            None => &self.input,
        };
        let meant = (self.connection.timeout(), self.importance);
        input.body(&self.target, &[], meant, (client, terminal))
    }

    fn load(&self, exchange: Exchange) -> Load {
        let seed = self.seed;
        let arrivals = match (self.rate, self.arrivals) {
            (None, _) => Arrivals::Closed,
            (Some(rate), Process::Constant) => Arrivals::Constant(rate),
            (Some(rate), Process::Poisson) => Arrivals::Poisson { rate, seed },
        };
        let default = Duration::from_millis(REQUEST_BUDGET_DEFAULT_MS);
        Load {
            exchange,
            connections: self.concurrency.unwrap_or(match self.rate {
                None => 16,
                Some(_) => 64,
            }),
            arrivals,
            warm_up: self.warm_up.unwrap_or_default(),
            duration: self.duration,
            deadline: self
                .deadline
                .unwrap_or_else(|| self.connection.timeout_or(default)),
            retry: self.retry,
        }
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
