//! A tenant within its share beside one at ten times its own: one real node (a process, HTTP in
//! front, keys that say who is who) whose engine sleeps what the scenario says.
//!
//! The quiet tenant sends the same all the time. The noisy one takes turns: what is left, then ten
//! times as much. The bar: what the noisy one does moves the quiet one's 99th percentile by less than
//! 10 %, and every request of the quiet one is answered.

#[path = "request/answer.rs"]
mod answer;
#[path = "timing/node.rs"]
mod node;
#[path = "overload/offer.rs"]
mod offer;
mod provenance;
mod spread;
#[path = "timing/wire.rs"]
mod wire;

use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use paceline_protocol::operator::{Committed, KeyCreated};
use paceline_sim::{Arrivals, Scenario};
use serde_json::json;

use node::{NodeArguments, Process};
use offer::{End, Sample, Sender};
use provenance::SEED;
use spread::Spread;

/// Has one tenant disturb another.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seconds instead of minutes: shows that everything works, and no more.
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    node: NodeArguments,
    /// Given by `cargo bench`, and not by `cargo test`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let scenario = Scenario::read(include_str!("tenants/scenario.toml"), "scenario.toml")?;
    if arguments.node.run(&scenario)? {
        return Ok(());
    }
    let is_quick = arguments.quick || !arguments.bench;
    let (turn_s, turns) = if is_quick { (2.0, 2) } else { (12.0, 10) };
    provenance::print("tenants: one at ten times its share beside another, on a real node");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let nodes = Process::cluster(folder.path(), &scenario)?;
    let door = nodes.first().context("no node")?.http;
    let (quiet, noisy) = (key(door, "quiet")?, key(door, "noisy")?);
    let rate_of = |clients: usize| match scenario.clients[clients].workload.arrivals {
        Arrivals::Poisson { rate_per_s } => Ok(rate_per_s),
        _ => bail!("the scenario's arrivals are not Poisson"),
    };
    let (own, rest) = (rate_of(0)?, rate_of(1)?);
    let is_loud = move |at_s: f64| (at_s / turn_s) as u64 % 2 == 1;
    let budgets_us = (
        scenario.clients[0].budget_min_us,
        scenario.clients[0].budget_max_us,
    );
    let sender = |key, seed, rate: Rc<dyn Fn(f64) -> u64>| Sender {
        budgets_us,
        seed,
        key: Some(key),
        rate,
    };
    let senders = vec![
        sender(quiet, SEED, Rc::new(move |_| own)),
        sender(
            noisy,
            SEED + 1,
            Rc::new(move |at_s| if is_loud(at_s) { 10 * rest } else { rest }),
        ),
    ];
    let samples = offer::offer(door, senders, turn_s * f64::from(turns))?;
    let [quiet, noisy] = &samples[..] else {
        bail!("two senders have two answers");
    };
    // The first second of each turn shows what was before.
    let in_turn = |loud: bool| {
        move |sample: &&Sample| is_loud(sample.at_s) == loud && sample.at_s % turn_s >= 1.0
    };
    let mut p99 = Vec::new();
    for loud in [false, true] {
        let told = |samples: &[Sample], end| {
            let of = samples.iter().filter(in_turn(loud));
            of.filter(move |sample| sample.end == end).count()
        };
        let answered = quiet.iter().filter(in_turn(loud));
        let answered = answered.filter(|sample| sample.end == End::Answered);
        let spread = Spread::of(answered.map(|sample| sample.took_us));
        let (median_ms, p99_ms) = (spread.median() / 1e3, spread.quantile(0.99) / 1e3);
        let offered = noisy.iter().filter(in_turn(loud)).count();
        println!(
            "noisy offers {:>5} requests, {:>5} answered; quiet: {} of {} answered, p50 {median_ms:.0} ms, \
             p99 {p99_ms:.0} ms",
            offered,
            told(noisy, End::Answered),
            told(quiet, End::Answered),
            quiet.iter().filter(in_turn(loud)).count(),
        );
        p99.push(p99_ms);
    }
    println!("ratio of p99: {:.3}", p99[1] / p99[0]);
    Ok(())
}

/// Makes a tenant, and a key of it.
fn key(door: SocketAddr, tenant: &str) -> anyhow::Result<String> {
    let path = format!("http://{door}/v2/paceline/tenants/{tenant}");
    let op: u128 = tenant
        .bytes()
        .fold(7, |op, byte| op << 8 | u128::from(byte));
    let op = format!("{op:032x}");
    let body = json!({ "weight": 1, "op": op }).to_string();
    let set = ureq::put(&path).send(&body)?.into_body().read_to_string()?;
    let set: Committed = serde_json::from_str(&set)?;
    ensure!(set.applied_on == set.nodes, "the tenant is not known yet");
    let made = ureq::post(format!("{path}/keys")).send_empty()?;
    let made = made.into_body().read_to_string()?;
    Ok(serde_json::from_str::<KeyCreated>(&made)?.key)
}
