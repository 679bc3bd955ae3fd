//! `paceline infer`: one request, one answer, whole or in parts.

mod answer;
mod request;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use clap::Args;
use paceline_protocol::Criticality;
use paceline_protocol::limits::{BODY_BYTES_MAX, REQUEST_BUDGET_DEFAULT_MS, REQUEST_BUDGET_MAX_MS};
use paceline_protocol::traffic::Unit;

use crate::api::{Belonging, InferencePart, ModelMetadata, OperatorClient};

use super::connection::{Connection, Format, Output};
use super::failure::Failure;
use super::target::ModelTarget;
use super::terminal::{Talk, Terminal};
pub(super) use request::{Body, Encoding};
use request::{Question, Rows};

/// Arguments of `paceline infer`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Several --row or --text make one batch. A request for a model with several inputs is written as
JSON: the body of the Open Inference Protocol.

Examples:
  paceline infer machine-failure --row 1,0,0,298.1,308.6,1551,42.8,0
  paceline infer identity --row 1,2,3 --row 4,5,6
  paceline infer digits@2 --row \"$(head -1 pixels.csv)\" --output label
  paceline infer sentiment --text 'I like it'
  paceline infer identity --row 1,2,3 --criticality sheddable
  paceline infer identity --row 1,2,3 --unit user-7 --sequence order-12
  paceline infer digits --json many-rows.json --stream
  echo '{\"inputs\":[…]}' | paceline infer identity --json - -o json")]
pub struct InferArgs {
    /// The model, and perhaps its version
    #[arg(value_name = "NAME[@V]")]
    target: ModelTarget,
    #[command(flatten)]
    input: Input,
    /// Ask for this output only; may be repeated
    #[arg(long, value_name = "NAME", conflicts_with = "json")]
    output: Vec<String>,
    /// Print the answer in parts, each as soon as it is there: ranges of rows, in order. JSON has one
    /// part a line; --timeout is that of each part
    #[arg(long)]
    stream: bool,
    #[command(flatten)]
    importance: Importance,
    /// What the request belongs to that always gets the same version: a user, a session
    #[arg(long, value_name = "TEXT")]
    unit: Option<Unit>,
    /// The sequence that it belongs to: its requests go to one replica, and none runs twice
    #[arg(long, value_name = "TEXT")]
    sequence: Option<Unit>,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    format: Output,
}

/// How much requests matter.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Importance {
    /// Who is served first and refused last: critical-plus, critical, sheddable-plus, sheddable;
    /// critical unless given
    #[arg(long, value_name = "CLASS", conflicts_with = "json")]
    criticality: Option<Criticality>,
}

/// What a request holds.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Input {
    /// One row of values for a model with one input; may be repeated
    #[arg(long, value_name = "V,V,…", allow_hyphen_values = true)]
    row: Vec<String>,
    /// One text for a model with one BYTES input; may be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    text: Vec<String>,
    /// Body of a request, from a file or from stdin
    #[arg(long, value_name = "FILE|-")]
    json: Option<String>,
}

/// How much longer the client waits than the node's budget, so that the node's own word on a
/// deadline arrives.
const GRACE: Duration = Duration::from_secs(2);

impl InferArgs {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let budget = self.connection.timeout();
        let default = Duration::from_millis(REQUEST_BUDGET_DEFAULT_MS);
        let patience = budget.unwrap_or(default).saturating_add(GRACE);
        let client = self.connection.client_within(terminal, patience)?;
        let body = self.input.body(
            &self.target,
            &self.output,
            (budget, self.importance),
            (&client, terminal),
        )?;
        if self.stream {
            return self.print_parts(&client, &body, terminal);
        }
        let ModelTarget { name, version } = &self.target;
        let belonging = self.belonging();
        let answer = client.infer_of(name, version.as_ref(), (&body, &belonging))?;
        let origin = [&answer.version, &answer.epoch, &answer.stale_seconds];
        tell(&terminal.talk(), origin);
        match self.format.format {
            Format::Json => terminal.print_bytes(&answer.body),
            Format::Table => {
                let table = answer::table(&answer.outputs, 0).map_err(Failure::Failed)?;
                terminal.print(&table)
            }
        }
    }

    fn belonging(&self) -> Belonging {
        Belonging {
            unit: self.unit.clone(),
            sequence: self.sequence.clone(),
        }
    }

    /// Prints each part as it comes, with its talk at the end.
    fn print_parts(
        &self,
        client: &OperatorClient,
        body: &[u8],
        terminal: &mut Terminal,
    ) -> Result<(), Failure> {
        let ModelTarget { name, version } = &self.target;
        let limit = Duration::from_millis(REQUEST_BUDGET_MAX_MS) + GRACE;
        let print = |part: InferencePart| {
            match self.format.format {
                Format::Json => terminal.print_bytes(&part.json)?,
                Format::Table => {
                    let table = answer::table(&part.outputs, part.first_row);
                    terminal.print(&table.map_err(Failure::Failed)?)?;
                }
            }
            Ok(terminal.flush()?)
        };
        let end = client.infer_in_parts::<Failure>(
            (name, version.as_ref()),
            (body, &self.belonging()),
            limit,
            print,
        )?;
        let origin = [&end.version, &end.epoch, &end.stale_seconds];
        tell(&terminal.talk(), origin);
        Ok(())
    }
}

impl Input {
    /// The same rows or texts over and over, so many in all.
    fn of_rows(&self, rows: u32) -> Self {
        let over = |given: &[String]| {
            let all = given.iter().cycle().take(rows as usize);
            all.cloned().collect()
        };
        Self {
            row: over(&self.row),
            text: over(&self.text),
            json: self.json.clone(),
        }
    }

    /// The body of a request to `target` for these outputs, or for all if none is named.
    pub(super) fn body(
        &self,
        target: &ModelTarget,
        outputs: &[String],
        (budget, importance): (Option<Duration>, Importance),
        (client, terminal): (&OperatorClient, &mut Terminal),
    ) -> Result<Vec<u8>, Failure> {
        if let Some(source) = &self.json {
            return read_body(source, terminal);
        }
        let metadata = client.metadata(&target.name, target.version.as_ref())?;
        let question = self.question(&metadata, outputs, (budget, importance));
        Ok(written(&question, Encoding::Json)?.bytes)
    }

    /// Bodies of so many rows each, the rows or texts being taken over and over.
    pub(super) fn bodies(
        &self,
        rows: &[u32],
        encoding: Encoding,
        metadata: &ModelMetadata,
        meant: (Option<Duration>, Importance),
    ) -> Result<Vec<Body>, Failure> {
        let body = |rows: &u32| {
            let input = self.of_rows(*rows);
            written(&input.question(metadata, &[], meant), encoding)
        };
        rows.iter().map(body).collect()
    }

    /// How many rows or texts there are; none if a body was given instead.
    pub(super) fn rows(&self) -> Option<u32> {
        let count = self.row.len() + self.text.len();
        u32::try_from(count).ok().filter(|_| self.json.is_none())
    }

    fn question<'a>(
        &'a self,
        metadata: &'a ModelMetadata,
        outputs: &'a [String],
        (budget, importance): (Option<Duration>, Importance),
    ) -> Question<'a> {
        let rows = if self.text.is_empty() {
            Rows::Values(&self.row)
        } else {
            Rows::Texts(&self.text)
        };
        let most = Duration::from_millis(REQUEST_BUDGET_MAX_MS);
        Question {
            metadata,
            rows,
            outputs,
            budget: budget.map(|budget| budget.min(most)),
            criticality: importance.criticality,
        }
    }
}

fn written(question: &Question<'_>, encoding: Encoding) -> Result<Body, Failure> {
    let body = question.body(encoding);
    body.map_err(|error| Failure::Usage(error.to_string()))
}

/// The answer's origin is talk: it does not belong among the data.
fn tell(talk: &Talk, origin: [&Option<String>; 3]) {
    let names = ["version", "epoch", "stale for seconds"];
    let known: Vec<String> = names
        .into_iter()
        .zip(origin)
        .filter_map(|(name, value)| Some(format!("{name} {}", value.as_ref()?)))
        .collect();
    if !known.is_empty() {
        talk.say(&known.join(", "));
    }
}

fn read_body(source: &str, terminal: &mut Terminal) -> Result<Vec<u8>, Failure> {
    let limit = BODY_BYTES_MAX as u64;
    let read = if source == "-" {
        terminal.read_all(limit)
    } else {
        read_file(Path::new(source), limit)
    };
    read.map_err(|e| Failure::Failed(format!("cannot read the request from {source}: {e}")))
}

fn read_file(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let reason = format!("more than {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(bytes)
}
