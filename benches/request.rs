//! One request through a whole node over loopback HTTP, beside a bare hyper server that does
//! the same parsing and nothing else.
//!
//! Both servers are processes of their own, with as many I/O workers, and answer the same
//! bytes to the same request with the model `identity`. Windows of load alternate between
//! them, so that what disturbs one disturbs the other; figures are medians over windows with
//! the smallest and the largest, and ratios are taken repetition by repetition.
//!
//! `cargo bench --bench request -- --table` prints Markdown, `--only json-16/64` one cell. A
//! client that is busy all the time (column "client busy" near 1) measures itself: then trust
//! CPU time, not requests per second.

#[path = "request/answer.rs"]
mod answer;
#[path = "request/bare.rs"]
mod bare;
#[path = "request/body.rs"]
mod body;
mod echo;
#[path = "request/load.rs"]
mod load;
mod provenance;
#[path = "request/report.rs"]
mod report;
#[path = "request/server.rs"]
mod server;
mod spread;

use std::time::Duration;

use anyhow::ensure;
use clap::Parser;

use body::Kind;
use load::{Load, ask_once};
use report::{Cell, Sample, Table};
use server::Server;

/// Measures one request through a whole node, beside a bare server.
#[derive(Debug, Parser)]
struct Arguments {
    /// Few and short windows: shows that everything works, and no more.
    #[arg(long)]
    quick: bool,
    /// Print the tables as Markdown as well.
    #[arg(long)]
    table: bool,
    /// Windows for each server, kind and number of connections.
    #[arg(long, value_name = "N", default_value_t = 5)]
    windows: usize,
    /// Length of a window, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    window_ms: u64,
    /// Measure only cells whose name, like json-16/64, contains this; may be repeated.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Be the bare server.
    #[arg(long, hide = true)]
    echo: bool,
    /// Given by `cargo bench`, and not by `cargo test`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let mut arguments = Arguments::parse();
    if arguments.echo {
        return echo::serve();
    }
    if arguments.quick {
        (arguments.windows, arguments.window_ms) = (3, 200);
    }
    if !arguments.bench {
        (arguments.windows, arguments.window_ms) = (1, 20);
    }
    ensure!(arguments.windows > 0, "--windows 0 measures nothing");
    provenance::print("request: identity through a node, beside a bare server");
    let kinds = body::kinds();
    let servers = [
        Server::serving(&["--demo"], &[], &kinds[0].bytes)?,
        Server::echo()?,
    ];
    let mut cells = Vec::new();
    for kind in &kinds {
        for connections in CONNECTIONS {
            let name = format!("{}/{connections}", kind.name);
            let only = &arguments.only;
            if only.is_empty() || only.iter().any(|part| name.contains(part)) {
                cells.push(measure(&arguments, kind, connections, &servers)?);
            }
        }
    }
    ensure!(!cells.is_empty(), "--only leaves nothing to measure");
    println!(
        "{} windows of {} ms for each: median (least–most)\n",
        arguments.windows, arguments.window_ms
    );
    let tables = [Table::figures(&cells), Table::comparison(&cells)];
    tables.iter().for_each(Table::print);
    if arguments.table {
        tables.iter().for_each(Table::print_markdown);
    }
    Ok(())
}

fn measure(
    arguments: &Arguments,
    kind: &Kind,
    connections: usize,
    servers: &[Server; 2],
) -> anyhow::Result<Cell> {
    eprintln!("{}, {connections} connections", kind.name);
    let [body, same] = [
        ask_once(servers[0].address, &kind.bytes)?,
        ask_once(servers[1].address, &kind.bytes)?,
    ];
    ensure!(
        body == same,
        "the servers' answers differ: nothing to compare"
    );
    let open = |server: &Server| Load::open((server.address, connections), &kind.bytes, &body);
    let mut loads = [open(&servers[0])?, open(&servers[1])?];
    let time = Duration::from_millis(arguments.window_ms);
    for load in &mut loads {
        load.run(time / 4)?;
    }
    let mut samples = [Vec::new(), Vec::new()];
    for round in 0..arguments.windows {
        // The one that goes first changes.
        for turn in 0..2 {
            let index = (round + turn) % 2;
            let sample = window(&mut loads[index], &servers[index], time)?;
            samples[index].push(sample);
        }
    }
    let [node, echo] = samples;
    Ok(Cell {
        kind: kind.name,
        connections,
        node,
        echo,
    })
}

fn window(load: &mut Load, server: &Server, time: Duration) -> anyhow::Result<Sample> {
    let before = server.cpu()?;
    let window = load.run(time)?;
    Ok(Sample::new(&window, server.cpu()? - before))
}

const CONNECTIONS: [usize; 3] = [1, 16, 64];
