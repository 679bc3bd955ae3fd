//! `paceline model list`: every model in one line.

use std::time::Duration;

use clap::Args;
use paceline_protocol::operator::ModelView;

use crate::cli::connection::{Connection, Consistency, Output, or_dash};
use crate::cli::failure::Failure;
use crate::cli::table::{Side, Table};
use crate::cli::terminal::Terminal;

/// Arguments of `paceline model list`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  paceline model list
  paceline model list -o json | jq '.[] | select(.ready | not) | .name'")]
pub struct ListArgs {
    #[command(flatten)]
    consistency: Consistency,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    output: Output,
}

/// A node answers from memory.
const TIMEOUT: Duration = Duration::from_secs(10);

impl ListArgs {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let client = self.connection.client(terminal, TIMEOUT)?;
        let models = client.models(self.consistency.freshness())?;
        terminal.show(self.output.format, &models, |models| table(models))
    }
}

fn table(models: &[ModelView]) -> String {
    let mut table = Table::new([
        ("NAME", Side::Left),
        ("STATE", Side::Left),
        ("SERVING", Side::Right),
        ("DEPLOYED", Side::Right),
        ("WANTED", Side::Right),
        ("READY", Side::Right),
        ("VERSIONS", Side::Right),
        ("FAMILY", Side::Left),
    ]);
    for model in models {
        let ready = model.replicas.iter().filter(|r| r.state == "ready").count();
        table.row([
            model.name.to_string(),
            state(model).to_owned(),
            or_dash(model.serving),
            or_dash(model.deployed.as_ref().map(|d| d.version)),
            or_dash(model.deployed.as_ref().map(|d| d.replicas)),
            format!("{ready}/{}", model.replicas.len()),
            model.versions.len().to_string(),
            or_dash(model.versions.last().map(|v| &v.record.family)),
        ]);
    }
    table.render()
}

/// One word for how a model is.
pub(super) fn state(model: &ModelView) -> &'static str {
    let failed = model.replicas.iter().any(|r| r.state == "failed");
    match &model.deployed {
        None => "not deployed",
        Some(_) if !model.ready && failed => "failed",
        Some(_) if !model.ready => "loading",
        Some(deployed) if model.serving != Some(deployed.version) => "changing",
        Some(_) => "ready",
    }
}
