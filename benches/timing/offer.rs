//! An open load on real nodes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use paceline_core::Random;
use paceline_sim::{Arrivals, Scenario};

use crate::wire::Connection;

/// A request: when it was due, from the beginning on, and how many microseconds it took.
pub(crate) type Sample = (Duration, f64);

/// Offers the scenario's load to real nodes, each request to one of them at random: as many senders as
/// keep one that waits for its answer from delaying the next arrival, each with a part of the rate.
/// Poisson processes add up.
pub(crate) fn offer(
    scenario: &Scenario,
    doors: &[SocketAddr],
    (seed, senders): (u64, u64),
) -> anyhow::Result<Vec<Sample>> {
    let workload = &scenario.clients[0].workload;
    let Arrivals::Poisson { rate_per_s } = workload.arrivals else {
        anyhow::bail!("the scenario's arrivals are no Poisson process");
    };
    let gap_s = senders as f64 / rate_per_s as f64;
    let time = Duration::from_millis(workload.duration_ms);
    let samples: anyhow::Result<Vec<Vec<Sample>>> = std::thread::scope(|scope| {
        let senders = (0..senders).map(|number| {
            let chance = Random::stream(seed, &format!("sender {number}"));
            scope.spawn(move || send(doors, chance, gap_s, time))
        });
        let senders: Vec<_> = senders.collect();
        let sent = senders.into_iter().map(|sender| sender.join());
        sent.map(|sent| sent.expect("a sender returns its errors"))
            .collect()
    });
    Ok(samples?.into_iter().flatten().collect())
}

/// Sends requests at random times until the time is over.
fn send(
    doors: &[SocketAddr],
    mut chance: Random,
    gap_s: f64,
    time: Duration,
) -> anyhow::Result<Vec<Sample>> {
    let opened = doors.iter().map(|door| Connection::open(*door));
    let mut connections: Vec<Connection> = opened.collect::<anyhow::Result<_>>()?;
    let body = r#"{"inputs":[{"name":"INPUT0","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}"#;
    let head = format!(
        "POST /v2/models/table/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let request = [head.as_bytes(), body.as_bytes()].concat();
    let mut used = vec![Instant::now(); doors.len()];
    let (began, mut at_s, mut samples) = (Instant::now(), 0.0, Vec::new());
    loop {
        // Inverse transform of the exponential distribution; 0 itself has no logarithm.
        at_s -= gap_s * (1.0 - chance.unit()).ln();
        let at = Duration::from_secs_f64(at_s);
        if at >= time {
            return Ok(samples);
        }
        std::thread::sleep((began + at).saturating_duration_since(Instant::now()));
        let door = chance.below(connections.len() as u64) as usize;
        // A node closes what has been idle for long.
        if used[door].elapsed() > IDLE_MAX {
            connections[door] = Connection::open(doors[door])?;
        }
        let sent = Instant::now();
        used[door] = sent;
        let answer = connections[door].ask(&request).context("a request")?;
        samples.push((at, sent.elapsed().as_secs_f64() * 1e6));
        ensure!(!answer.is_empty(), "an answer without a body");
    }
}

/// Well below the time after which a node closes a connection.
const IDLE_MAX: Duration = Duration::from_secs(2);
