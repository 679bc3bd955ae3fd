//! `paceline debug`: what a node decided, and upon what.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use paceline_protocol::record::{self, RecordHeader};

use super::connection::Connection;
use super::failure::Failure;
use super::terminal::Terminal;
use super::units;

/// What can be looked into.
#[derive(Debug, Subcommand)]
#[non_exhaustive]
pub enum DebugCommand {
    /// Write what a node's machines were told last, to be replayed elsewhere
    Record(RecordArgs),
}

/// Arguments of `paceline debug record`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The file holds the last inputs and decisions of the node that is asked: who was let in, which
replica each request went to, which batch it ran in, which peers were heard, and a drain. Times,
sizes and ids are in it; no tensors, no keys and no names of models. How far back it goes is a
matter of memory: debug.record_bytes of the node. `paceline sim replay FILE` decides all of it
again with the same release and says whether it comes out the same; send the file with a report of
a bug.

Examples:
  paceline debug record
  paceline debug record --addr :8010 -o n1.record
  paceline debug record -o n0.record && paceline sim replay n0.record")]
pub struct RecordArgs {
    /// Where it is written, over what is there; node-ID.record if nothing is said
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

/// Some MiB over a slow line.
const TIMEOUT: Duration = Duration::from_secs(60);

impl DebugCommand {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        match self {
            Self::Record(args) => args.run(terminal),
        }
    }
}

impl RecordArgs {
    fn run(self, terminal: &mut Terminal) -> Result<(), Failure> {
        let client = self.connection.client(terminal, TIMEOUT)?;
        let bytes = client.record()?;
        // What cannot be replayed is not worth a file.
        let (header, _) = record::open(&bytes).map_err(|error| {
            let address = client.address();
            Failure::Failed(format!("{address} sent something else: {error}"))
        })?;
        let path = self
            .output
            .unwrap_or_else(|| format!("node-{}.record", header.node).into());
        write_whole(&path, &bytes).map_err(|error| {
            let path = path.display();
            Failure::Failed(format!("'{path}' cannot be written: {error}"))
        })?;
        terminal.talk().say(&said(&header, bytes.len(), &path));
        Ok(())
    }
}

/// Either the whole file is there afterwards, or what was there before.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.part", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = std::fs::File::create(&beside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    });
    if written.is_err() {
        // It may never have been made.
        let _ = std::fs::remove_file(&beside);
    }
    written
}

fn said(header: &RecordHeader, bytes: usize, path: &Path) -> String {
    let machines = header.machines.iter().filter(|machine| machine.steps > 0);
    let steps: u64 = machines.clone().map(|machine| machine.steps).sum();
    let spans = machines.clone().filter_map(|machine| machine.span_nanos);
    let first = spans.clone().map(|(first, _)| first).min().unwrap_or(0);
    let last = spans.map(|(_, last)| last).max().unwrap_or(0);
    format!(
        "node {}: {steps} steps of {} in {}, {}; `paceline sim replay {}` replays them",
        header.node,
        units::counted(machines.count(), "machine"),
        units::nanoseconds(last.saturating_sub(first)),
        units::bytes(bytes as u64),
        path.display(),
    )
}
