//! Requests at the times of a Poisson process whose rate changes, from one thread.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use paceline_core::Random;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A request and what became of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// When it was due, in seconds from the first.
    pub(crate) at_s: f64,
    /// From then to its end, in microseconds; to be refused, from when it was sent.
    pub(crate) took_us: f64,
    pub(crate) end: End,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Answered,
    /// With 429.
    Refused,
    /// It was let in, and told later that it would not be answered in time.
    Late,
}

/// Connections that wait for a request.
type Idle = Rc<RefCell<Vec<TcpStream>>>;

/// Who sends, and how much.
pub(crate) struct Sender {
    /// The least and the most that an answer may take, in microseconds.
    pub(crate) budgets_us: (u64, u64),
    pub(crate) seed: u64,
    /// An API key, if it shows one.
    pub(crate) key: Option<String>,
    /// Requests a second, by the second.
    pub(crate) rate: Rc<dyn Fn(f64) -> u64>,
}

/// Has all send until `end_s`; what became of the requests of each.
pub(crate) fn offer(
    door: SocketAddr,
    senders: Vec<Sender>,
    end_s: f64,
) -> anyhow::Result<Vec<Vec<Sample>>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let idle = Idle::default();
        let send = |sender| tokio::task::spawn_local(send(door, idle.clone(), sender, end_s));
        let sending: Vec<_> = senders.into_iter().map(send).collect();
        let mut samples = Vec::new();
        for sender in sending {
            samples.push(sender.await??);
        }
        Ok(samples)
    })
}

async fn send(
    door: SocketAddr,
    idle: Idle,
    sender: Sender,
    end_s: f64,
) -> anyhow::Result<Vec<Sample>> {
    let (least_us, most_us) = sender.budgets_us;
    let key = Rc::new(sender.key);
    let mut chance = Random::stream(sender.seed, "offer");
    let (began, mut at_s, mut sent) = (Instant::now(), 0.0, Vec::new());
    loop {
        // Inverse transform of the exponential distribution; 0 itself has no logarithm.
        at_s -= (1.0 - chance.unit()).ln() / (sender.rate)(at_s) as f64;
        if at_s >= end_s {
            break;
        }
        let due = began + Duration::from_secs_f64(at_s);
        tokio::time::sleep_until(due.into()).await;
        let budget_us = least_us + chance.below(most_us - least_us);
        let request = ask(door, (idle.clone(), key.clone()), (at_s, due), budget_us);
        sent.push(tokio::task::spawn_local(request));
    }
    let mut samples = Vec::with_capacity(sent.len());
    for request in sent {
        samples.push(request.await??);
    }
    Ok(samples)
}

async fn ask(
    door: SocketAddr,
    (idle, key): (Idle, Rc<Option<String>>),
    (at_s, due): (f64, Instant),
    budget_us: u64,
) -> anyhow::Result<Sample> {
    let body = format!(
        r#"{{"parameters":{{"timeout":{budget_us}}},"inputs":[{{"name":"INPUT0","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}}]}}"#
    );
    let key = key.as_deref().map_or_else(String::new, |key| {
        format!("authorization: Bearer {key}\r\n")
    });
    let request = format!(
        "POST /v2/models/table/infer HTTP/1.1\r\nhost: localhost\r\n{key}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let (stream, sent, status) = loop {
        let kept = idle.borrow_mut().pop();
        let is_kept = kept.is_some();
        let mut stream = match kept {
            Some(stream) => stream,
            None => TcpStream::connect(door).await?,
        };
        stream.set_nodelay(true)?;
        let sent = Instant::now();
        let status = match stream.write_all(request.as_bytes()).await {
            Ok(()) => answer(&mut stream).await,
            Err(error) => Err(error.into()),
        };
        // One that was idle for long is closed, and the request goes over another.
        match status {
            Err(_) if is_kept => {}
            status => break (stream, sent, status?),
        }
    };
    let (from, end) = match status {
        200 if due.elapsed() <= Duration::from_micros(budget_us) => (due, End::Answered),
        429 => (sent, End::Refused),
        200 | 504 => (due, End::Late),
        other => anyhow::bail!("a request was answered with {other}"),
    };
    idle.borrow_mut().push(stream);
    Ok(Sample {
        at_s,
        took_us: from.elapsed().as_secs_f64() * 1e6,
        end,
    })
}

/// Reads an answer to its end; its status.
async fn answer(stream: &mut TcpStream) -> anyhow::Result<u16> {
    let mut bytes = Vec::with_capacity(1_024);
    loop {
        ensure!(
            stream.read_buf(&mut bytes).await? > 0,
            "a node closed a connection"
        );
        let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let text = std::str::from_utf8(&bytes[..head])?.to_ascii_lowercase();
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length
            .context("an answer without a length")?
            .trim()
            .parse()?;
        if bytes.len() >= head + 4 + length {
            let status = text
                .split(' ')
                .nth(1)
                .context("an answer without a status")?;
            return Ok(status.parse()?);
        }
    }
}
