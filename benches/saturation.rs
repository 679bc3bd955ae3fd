//! A model that computes, saturated through a whole node, beside the same engine called in a loop
//! with nothing but full batches.
//!
//! The node is a process of its own with HTTP in front and one lane; clients keep 128 requests of one row
//! under way. The loop runs in this process, on one thread, with batches of as many rows as the node
//! makes. They take turns, so that what disturbs one disturbs the other, and ratios are taken turn by
//! turn. The bar is 95 %: what a batch leaves empty, and what lies between two batches, is what is
//! missing to 1. The node's door, its clients and the lane share the machine's cores, which the
//! loop has alone.
//!
//! `--sizes` shows instead what batches of so many rows take: whether any size is better than its
//! neighbours.

#[path = "request/answer.rs"]
mod answer;
#[path = "request/http1.rs"]
mod http1;
#[path = "request/load.rs"]
mod load;
#[path = "saturation/model.rs"]
mod model;
mod provenance;
#[path = "request/server.rs"]
mod server;
mod spread;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use paceline_models::{Batch, CpuEngine, Engine, LoadedModel, ModelSource};
use paceline_protocol::Tensor;

use http1::Http1;
use load::Load;
use server::Server;
use spread::Spread;

/// Saturates a node with a model that computes, beside the engine alone.
#[derive(Debug, Parser)]
struct Arguments {
    /// Few and short turns: shows that everything works, and no more.
    #[arg(long)]
    quick: bool,
    /// Turns.
    #[arg(long, value_name = "N", default_value_t = 9)]
    turns: usize,
    /// Length of a turn of each, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 3_000)]
    turn_ms: u64,
    /// Print what batches of each size take, and nothing else.
    #[arg(long)]
    sizes: bool,
    /// Given by `cargo bench`, and not by `cargo test`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The engine in a loop.
struct Direct {
    model: Arc<dyn LoadedModel>,
    rows: Vec<Vec<Tensor>>,
}

fn main() -> anyhow::Result<()> {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        (arguments.turns, arguments.turn_ms) = (3, 500);
    }
    if !arguments.bench {
        (arguments.turns, arguments.turn_ms) = (1, 50);
    }
    ensure!(arguments.turns > 0, "--turns 0 measures nothing");
    provenance::print("saturation: a model that computes, through a node and alone");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    model::write(folder.path())?;
    let direct = Direct::load(folder.path())?;
    if arguments.sizes {
        return direct.show_sizes();
    }
    let server = serve(folder.path())?;
    let request = model::request();
    let body = http1::ask_once(server.http, &request)?;
    let mut load = Load::<Http1>::open((server.http, CONNECTIONS), &request, &body)?;
    let turn = Duration::from_millis(arguments.turn_ms);
    load.run(turn / 2)?;
    direct.run(turn / 2)?;
    let mut turns = Vec::new();
    for _ in 0..arguments.turns {
        let before = server.cpu()?;
        let window = load.run(turn)?;
        let cpu = (server.cpu()? - before).as_secs_f64();
        turns.push(Turn {
            through: window.requests as f64 / window.seconds,
            cores: cpu / window.seconds,
            p99_ms: window.latency_us.quantile(0.99) / 1e3,
            busy: window.busy,
            alone: direct.run(turn)?,
        });
    }
    println!(
        "{} turns of {turn:?} each: median (least to most)\n",
        turns.len()
    );
    show("rows a second through the node", &turns, 0, |turn| {
        turn.through
    });
    show("rows a second, full batches in a loop", &turns, 0, |turn| {
        turn.alone
    });
    show("ratio, turn by turn", &turns, 3, |turn| {
        turn.through / turn.alone
    });
    show("p99 of the requests, ms", &turns, 1, |turn| turn.p99_ms);
    show("cores that the node took", &turns, 2, |turn| turn.cores);
    show("share of time that clients were busy", &turns, 2, |turn| {
        turn.busy
    });
    Ok(())
}

/// What was measured in a turn.
struct Turn {
    through: f64,
    alone: f64,
    p99_ms: f64,
    cores: f64,
    busy: f64,
}

fn show(what: &str, turns: &[Turn], digits: usize, figure: fn(&Turn) -> f64) {
    let spread = Spread::of(turns.iter().map(figure));
    let [least, most] = [0.0, 1.0].map(|share| spread.quantile(share));
    let median = spread.median();
    println!("{what:<40} {median:.digits$} ({least:.digits$} to {most:.digits$})");
}

/// A node with one lane that serves the model in the folder.
fn serve(folder: &Path) -> anyhow::Result<Server> {
    let lanes = [("PACELINE__DEVICE__THREADS", "1")];
    let live = b"GET /v2/health/live HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";
    let server = Server::serving(&[], &lanes, live)?;
    let pushed = Command::new(env!("CARGO_BIN_EXE_paceline"))
        .args(["model", "push", model::NAME])
        .arg(folder)
        .args(["--deploy", "--addr", &server.http.to_string()])
        .output()?;
    ensure!(
        pushed.status.success(),
        "the model is not taken: {}",
        String::from_utf8_lossy(&pushed.stderr)
    );
    Ok(server)
}

impl Direct {
    fn load(folder: &Path) -> anyhow::Result<Self> {
        let model = CpuEngine::new(1).load(&ModelSource::from_dir(folder)?)?;
        let row: Vec<f32> = model::row()
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("there are four")))
            .collect();
        let rows = (0..model::ROWS_MAX).map(|_| vec![Tensor::from_f32(model::FEATURES, &row)]);
        Ok(Self {
            model,
            rows: rows.collect(),
        })
    }

    /// The middle one of some batches of each size, whose order changes.
    fn show_sizes(&self) -> anyhow::Result<()> {
        let mut micros = vec![Vec::new(); self.rows.len()];
        for _ in 0..SIZE_ROUNDS {
            for (rows, micros) in (1..).zip(&mut micros) {
                let requests: Vec<&[Tensor]> =
                    self.rows[..rows].iter().map(Vec::as_slice).collect();
                let started = Instant::now();
                self.model.run(&Batch::new(&requests))?;
                micros.push(started.elapsed().as_secs_f64() * 1e6);
            }
        }
        println!("{:>6}{:>14}{:>14}", "rows", "batch, µs", "row, µs");
        for (rows, micros) in (1..).zip(micros) {
            let median = Spread::of(micros).median();
            println!(
                "{rows:>6}{median:>14.0}{:>14.1}",
                median / f64::from(rows as u32)
            );
        }
        Ok(())
    }

    /// Rows a second, for so long.
    fn run(&self, time: Duration) -> anyhow::Result<f64> {
        let requests: Vec<&[Tensor]> = self.rows.iter().map(Vec::as_slice).collect();
        let (started, mut batches) = (Instant::now(), 0);
        while started.elapsed() < time {
            let answers = self.model.run(&Batch::new(&requests))?;
            answers.first().context("a batch has answers")?;
            batches += 1;
        }
        let rows = batches * model::ROWS_MAX;
        Ok(rows as f64 / started.elapsed().as_secs_f64())
    }
}

/// Batches of each size.
const SIZE_ROUNDS: usize = 31;
/// Enough for a batch that runs, one that waits, and those whose answers are on their way.
const CONNECTIONS: usize = 128;
