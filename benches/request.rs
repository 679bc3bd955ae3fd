//! One request through a whole node over loopback, HTTP and gRPC, beside a bare server that does
//! the same parsing and nothing else.
//!
//! Both servers are processes of their own, with as many I/O workers, and answer the same request
//! with the model `identity`; over HTTP with the same bytes. Windows of load alternate between
//! them, so that what disturbs one disturbs the other; figures are medians over windows with
//! the smallest and the largest, and ratios are taken repetition by repetition.
//!
//! `cargo bench --bench request -- --table` prints Markdown, `--only json-16/64` one cell,
//! `--triton 8000,8001,4242` measures a Triton that runs on these ports as this process besides. A
//! client that is busy all the time (column "client busy" near 1) measures itself: then trust
//! CPU time, not requests per second.

#[path = "request/answer.rs"]
mod answer;
#[path = "request/bare.rs"]
mod bare;
#[path = "request/body.rs"]
mod body;
mod echo;
#[path = "request/http1.rs"]
mod http1;
#[path = "request/http2.rs"]
mod http2;
#[path = "request/load.rs"]
mod load;
#[path = "request/messages.rs"]
mod messages;
mod provenance;
#[path = "request/report.rs"]
mod report;
#[path = "request/server.rs"]
mod server;
mod spread;

use std::time::Duration;

use anyhow::{bail, ensure};
use clap::Parser;

use body::{Kind, Sent};
use http1::Http1;
use http2::Http2;
use load::{Ask, Load};
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
    /// Measure a Triton besides: its ports of HTTP and gRPC, and its process's id.
    #[arg(long, value_name = "HTTP,GRPC,PROCESS")]
    triton: Option<String>,
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
    let Sent::Http(ready) = &kinds[0].sent else {
        bail!("the first kind goes over HTTP");
    };
    let mut servers = vec![
        ("node", Server::serving(&["--demo"], &[], ready)?),
        ("echo", Server::echo()?),
    ];
    if let Some(told) = &arguments.triton {
        servers.push(("triton", Server::running(told)?));
    }
    let mut cells = Vec::new();
    for kind in &kinds {
        for connections in CONNECTIONS {
            let name = format!("{}/{connections}", kind.name);
            let only = &arguments.only;
            if only.is_empty() || only.iter().any(|part| name.contains(part)) {
                eprintln!("{name}");
                let place = (kind, connections);
                cells.push(match &kind.sent {
                    Sent::Http(sent) => measure::<Http1>(&arguments, place, sent, &servers)?,
                    Sent::Grpc(call) => measure::<Http2>(&arguments, place, call, &servers)?,
                });
            }
        }
    }
    ensure!(!cells.is_empty(), "--only leaves nothing to measure");
    println!(
        "{} windows of {} ms for each: median (least–most)\n",
        arguments.windows, arguments.window_ms
    );
    let mut tables = vec![Table::figures(&cells), Table::beside_echo(&cells)];
    if arguments.triton.is_some() {
        tables.push(Table::beside_triton(&cells));
    }
    tables.iter().for_each(Table::print);
    if arguments.table {
        tables.iter().for_each(Table::print_markdown);
    }
    Ok(())
}

fn measure<C: Ask>(
    arguments: &Arguments,
    (kind, connections): (&Kind, usize),
    request: &C::Request,
    servers: &[(&'static str, Server)],
) -> anyhow::Result<Cell> {
    let answers = servers.iter().map(|(_, server)| kind.ask(server));
    let answers = answers.collect::<anyhow::Result<Vec<_>>>()?;
    // Messages of gRPC may be written in several ways.
    ensure!(
        answers[0] == answers[1] || matches!(kind.sent, Sent::Grpc(_)),
        "the servers' answers differ: nothing to compare"
    );
    let mut loads = Vec::new();
    for ((_, server), answer) in servers.iter().zip(&answers) {
        let place = (kind.door(server), connections);
        loads.push(Load::<C>::open(place, request, answer)?);
    }
    let time = Duration::from_millis(arguments.window_ms);
    for load in &mut loads {
        load.run(time / 4)?;
    }
    let mut samples: Vec<_> = servers
        .iter()
        .map(|(name, _)| (*name, Vec::new()))
        .collect();
    for round in 0..arguments.windows {
        // The one that goes first changes.
        for turn in 0..servers.len() {
            let index = (round + turn) % servers.len();
            let sample = window(&mut loads[index], &servers[index].1, time)?;
            samples[index].1.push(sample);
        }
    }
    Ok(Cell {
        kind: kind.name,
        is_large: kind.is_large(),
        connections,
        samples,
    })
}

fn window<C: Ask>(load: &mut Load<C>, server: &Server, time: Duration) -> anyhow::Result<Sample> {
    let before = server.cpu()?;
    let window = load.run(time)?;
    Ok(Sample::new(&window, server.cpu()? - before))
}

const CONNECTIONS: [usize; 3] = [1, 16, 64];
