//! A closed loop of requests over connections that stay open: each sends the next request when
//! the last has been answered.
//!
//! It does as little as it can, since it shares the machine with what it measures: requests
//! are rendered beforehand, and of an answer it reads status and length. The cores that a
//! server's I/O workers leave free are its own, one thread and runtime each.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::spread::Spread;

/// A connection that is asked one request at a time.
pub(crate) trait Ask: Sized + Send + 'static {
    /// What is sent, rendered beforehand.
    type Request: Clone + Send + Sync + 'static;

    /// Connects and asks once. The answer's body must be `body`.
    fn open(
        address: SocketAddr,
        request: &Self::Request,
        body: &[u8],
    ) -> impl Future<Output = anyhow::Result<Self>>;

    /// Sends a request and reads its answer, of which it looks at status and length.
    fn ask(&mut self, request: &Self::Request) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Open connections to one server, shared out over threads.
pub(crate) struct Load<C: Ask> {
    threads: Vec<Thread<C>>,
    request: C::Request,
}

/// What one stretch of load measured.
pub(crate) struct Window {
    /// Answers.
    pub(crate) requests: u64,
    /// From the first request to the last answer.
    pub(crate) seconds: f64,
    /// Of each request, in microseconds.
    pub(crate) latency_us: Spread,
    /// CPU time that making the load took, divided by what its threads had: 1 is all.
    pub(crate) busy: f64,
}

struct Thread<C> {
    runtime: Runtime,
    connections: Vec<C>,
}

/// What one thread measured.
struct Measured {
    /// Nanoseconds of every request.
    latencies: Vec<u32>,
    /// What the thread itself took.
    cpu: Duration,
}

impl<C: Ask> Load<C> {
    /// Opens so many connections and sends one request over each. The answers' bodies must be
    /// `body`; of later ones, only status and length are looked at.
    pub(crate) fn open(
        (address, count): (SocketAddr, usize),
        request: &C::Request,
        body: &[u8],
    ) -> anyhow::Result<Self> {
        let mut threads = Vec::new();
        for _ in 0..threads_for(count) {
            threads.push(Thread {
                runtime: tokio::runtime::Builder::new_current_thread()
                    .enable_io()
                    .build()?,
                connections: Vec::new(),
            });
        }
        let parts = threads.len();
        for number in 0..count {
            let thread = &mut threads[number % parts];
            let opened = thread.runtime.block_on(C::open(address, request, body));
            thread.connections.push(opened?);
        }
        Ok(Self {
            threads,
            request: request.clone(),
        })
    }

    /// Keeps every connection busy for so long.
    pub(crate) fn run(&mut self, time: Duration) -> anyhow::Result<Window> {
        let request = &self.request;
        let started = Instant::now();
        let until = started + time;
        let results: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> = self
                .threads
                .iter_mut()
                .map(|thread| scope.spawn(move || thread.run(request, until)))
                .collect();
            let ended = running.into_iter().map(|thread| thread.join());
            ended
                .map(|result| result.expect("a thread returns its errors"))
                .collect()
        });
        let seconds = started.elapsed().as_secs_f64();
        let (mut latencies, mut cpu) = (Vec::new(), Duration::ZERO);
        for result in results {
            let measured = result?;
            latencies.extend(measured.latencies);
            cpu += measured.cpu;
        }
        Ok(Window {
            busy: cpu.as_secs_f64() / seconds / self.threads.len() as f64,
            requests: latencies.len() as u64,
            seconds,
            latency_us: Spread::of(latencies.into_iter().map(|nanos| f64::from(nanos) / 1e3)),
        })
    }
}

impl<C: Ask> Thread<C> {
    fn run(&mut self, request: &C::Request, until: Instant) -> anyhow::Result<Measured> {
        let before = thread_cpu(Path::new(OWN_CPU))?;
        let connections = std::mem::take(&mut self.connections);
        let mut latencies = Vec::new();
        self.runtime.block_on(async {
            let mut loops = JoinSet::new();
            for connection in connections {
                loops.spawn(ask_until(connection, request.clone(), until));
            }
            for ended in loops.join_all().await {
                let (connection, measured) = ended?;
                self.connections.push(connection);
                latencies.extend(measured);
            }
            anyhow::Ok(())
        })?;
        let cpu = thread_cpu(Path::new(OWN_CPU))? - before;
        Ok(Measured { latencies, cpu })
    }
}

/// Asks again and again, and takes the time of each answer.
async fn ask_until<C: Ask>(
    mut connection: C,
    request: C::Request,
    until: Instant,
) -> anyhow::Result<(C, Vec<u32>)> {
    let mut latencies = Vec::with_capacity(LATENCIES_EXPECTED);
    let mut sent = Instant::now();
    while sent < until {
        connection.ask(&request).await?;
        let answered = Instant::now();
        let nanos = answered.duration_since(sent).as_nanos();
        latencies.push(u32::try_from(nanos).unwrap_or(u32::MAX));
        sent = answered;
    }
    Ok((connection, latencies))
}

/// CPU time of a thread, to the nanosecond, from its `schedstat`.
pub(crate) fn thread_cpu(path: &Path) -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{}: CPU time needs Linux's /proc", path.display()))?;
    let first = text.split(' ').next().and_then(|field| field.parse().ok());
    let nanos = first.with_context(|| format!("{} begins with no number", path.display()))?;
    Ok(Duration::from_nanos(nanos))
}

/// Threads for so many connections: the cores that the server's I/O workers leave.
fn threads_for(connections: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores - cores / 2).min(connections).max(1)
}

/// Requests of one connection in a window, so that the list does not grow while it is measured.
const LATENCIES_EXPECTED: usize = 64 << 10;
const OWN_CPU: &str = "/proc/thread-self/schedstat";
