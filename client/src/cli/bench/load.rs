//! Making load: connections that ask as fast as they are answered, or at moments that are due.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::latency::Latencies;
use super::wire::{Exchange, Line};
use crate::cli::terminal::Talk;

/// What load to make.
pub(super) struct Load {
    pub(super) exchange: Exchange,
    pub(super) pace: Pace,
    pub(super) connections: u32,
    pub(super) duration: Duration,
    /// Whether a request is sent once more where that may help.
    pub(super) retry: bool,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// The next when the last was answered.
    Closed,
    /// So many a second, at equal distances.
    Open(u32),
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Measured {
    /// Of requests that succeeded; in an open loop, from the moment that was due.
    pub(super) latencies: Latencies,
    /// How many did not, by code.
    pub(super) errors: BTreeMap<String, u64>,
    /// How many were sent once more, by the code of the first attempt.
    pub(super) retried: BTreeMap<String, u64>,
    pub(super) unsent: u64,
    /// From the first request to the last answer.
    pub(super) elapsed: Duration,
}

/// What one connection has seen.
struct Seen {
    latencies: Latencies,
    errors: BTreeMap<String, u64>,
    retried: BTreeMap<String, u64>,
    /// When the last answer came, from the beginning.
    ended: Duration,
}

/// What all connections share.
struct Shared<'a> {
    load: &'a Load,
    begun: Instant,
    /// The next request of an open loop.
    next: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// A connection could not be served by a thread: all end.
    cancelled: AtomicBool,
}

/// Between two lines of progress that are written over, and that stay.
const TELL_EVERY: Duration = Duration::from_secs(1);
const SAY_EVERY: Duration = Duration::from_secs(10);
/// After a failure: a node that refuses at once is not asked in a tight loop.
const PAUSE: Duration = Duration::from_millis(10);
/// How long after the end requests are still sent that were due before it.
const CATCH_UP: Duration = Duration::from_secs(10);

impl Load {
    /// Makes the load and measures it. Blocks.
    ///
    /// # Errors
    /// A thread does not start.
    pub(super) fn run(&self, talk: &Talk) -> io::Result<Measured> {
        let shared = Shared {
            load: self,
            begun: Instant::now(),
            next: AtomicU64::new(0),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            cancelled: AtomicBool::new(false),
        };
        let mut total = Measured {
            latencies: Latencies::new(),
            errors: BTreeMap::new(),
            retried: BTreeMap::new(),
            unsent: 0,
            elapsed: Duration::ZERO,
        };
        thread::scope(|scope| {
            let mut running = Vec::new();
            for number in 0..self.connections {
                let shared = &shared;
                let thread = thread::Builder::new().stack_size(STACK_BYTES);
                let spawned =
                    thread.spawn_scoped(scope, move || shared.connection(number as usize));
                match spawned {
                    Ok(thread) => running.push(thread),
                    Err(error) => {
                        shared.cancelled.store(true, Ordering::Relaxed);
                        return Err(error);
                    }
                }
            }
            shared.tell_until(talk, || {
                running.iter().all(thread::ScopedJoinHandle::is_finished)
            });
            for thread in running {
                let seen = thread.join().expect("a connection returns its errors");
                total.elapsed = total.elapsed.max(seen.ended);
                total.latencies.add(&seen.latencies);
                add(&mut total.errors, seen.errors);
                add(&mut total.retried, seen.retried);
            }
            Ok(())
        })?;
        if let Pace::Open(rate) = self.pace {
            let sent = shared.next.load(Ordering::Relaxed);
            total.unsent = due_before(rate, self.duration).saturating_sub(sent);
        }
        Ok(total)
    }
}

impl Shared<'_> {
    fn connection(&self, number: usize) -> Seen {
        let mut line = Line::new(&self.load.exchange, number);
        let mut seen = Seen {
            latencies: Latencies::new(),
            errors: BTreeMap::new(),
            retried: BTreeMap::new(),
            ended: Duration::ZERO,
        };
        while let Some(due) = self.next_due() {
            let mut answer = line.ask();
            if let Err(miss) = &answer
                && self.load.retry
                && miss.may_repeat
            {
                count(&mut seen.retried, &miss.code);
                answer = line.ask_elsewhere();
            }
            let now = Instant::now();
            seen.ended = now - self.begun;
            match answer {
                Ok(()) => {
                    let nanos = (now - due).as_nanos();
                    seen.latencies
                        .record(u64::try_from(nanos).unwrap_or(u64::MAX));
                    self.succeeded.fetch_add(1, Ordering::Relaxed);
                }
                Err(miss) => {
                    count(&mut seen.errors, &miss.code);
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(PAUSE);
                }
            }
        }
        seen
    }

    /// Waits for the moment of the next request; `None` when there is no other.
    fn next_due(&self) -> Option<Instant> {
        if self.cancelled.load(Ordering::Relaxed) {
            return None;
        }
        let Load { pace, duration, .. } = *self.load;
        let now = Instant::now();
        match pace {
            Pace::Closed => (now - self.begun < duration).then_some(now),
            Pace::Open(rate) => {
                if now - self.begun > duration + CATCH_UP {
                    return None;
                }
                // Taken only if it is within the time, so that the rest can be counted.
                let last = due_before(rate, duration);
                let taken =
                    self.next
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |number| {
                            (number < last).then_some(number + 1)
                        });
                let number = taken.ok()?;
                let due = self.begun + offset(rate, number);
                thread::sleep(due.saturating_duration_since(Instant::now()));
                Some(due)
            }
        }
    }

    /// Shows progress until `done`.
    fn tell_until(&self, talk: &Talk, done: impl Fn() -> bool) {
        let (mut told, mut said) = (Instant::now(), Instant::now());
        let mut before = 0;
        while !done() {
            thread::sleep(Duration::from_millis(20));
            let now = Instant::now();
            if now - told < TELL_EVERY {
                continue;
            }
            let succeeded = self.succeeded.load(Ordering::Relaxed);
            let failed = self.failed.load(Ordering::Relaxed);
            let rate = (succeeded - before) as f64 / (now - told).as_secs_f64();
            let left = self
                .load
                .duration
                .saturating_sub(now - self.begun)
                .as_secs();
            let line = format!("{rate:.0} answers/s, {failed} failed, {left} s left");
            if talk.is_live() {
                talk.update(&line);
            } else if now - said >= SAY_EVERY {
                talk.say(&line);
                said = now;
            }
            (told, before) = (now, succeeded);
        }
    }
}

fn count(counts: &mut BTreeMap<String, u64>, code: &str) {
    *counts.entry(code.to_owned()).or_default() += 1;
}

fn add(total: &mut BTreeMap<String, u64>, part: BTreeMap<String, u64>) {
    for (code, count) in part {
        *total.entry(code).or_default() += count;
    }
}

/// When a request is due, from the beginning.
fn offset(rate: u32, number: u64) -> Duration {
    let nanos = u128::from(number) * 1_000_000_000 / u128::from(rate);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// How many requests are due within a time.
fn due_before(rate: u32, duration: Duration) -> u64 {
    let requests = duration.as_nanos() * u128::from(rate) / 1_000_000_000;
    u64::try_from(requests).unwrap_or(u64::MAX)
}

/// A connection's thread calls nothing deep, and there may be a thousand.
const STACK_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Answers each connection's requests; the first `slow` of them after a while.
    fn server(slow: Duration) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    let mut first = true;
                    let mut buffer = [0; 4_096];
                    while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
                        if std::mem::take(&mut first) {
                            thread::sleep(slow);
                        }
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                        if stream.write_all(answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    fn load(address: std::net::SocketAddr, pace: Pace) -> Load {
        Load {
            exchange: Exchange {
                nodes: vec![address.to_string().parse().unwrap()],
                api_key: None,
                path: "/v2/models/m/infer".into(),
                body: b"{}".to_vec(),
                limit: Duration::from_secs(30),
            },
            pace,
            connections: 1,
            duration: Duration::from_millis(500),
            retry: false,
        }
    }

    fn quiet() -> Talk {
        Talk::new(Box::new(io::sink()), false)
    }

    #[test]
    fn a_stall_holds_up_what_was_due_and_the_open_loop_says_so() {
        let stall = Duration::from_millis(300);
        let open = load(server(stall), Pace::Open(200));
        let measured = open.run(&quiet()).unwrap();
        assert_eq!(measured.latencies.count(), 100);
        assert_eq!((measured.errors.len(), measured.unsent), (0, 0));
        // 60 of 100 were due during the stall; half of them at least 150 ms before its end.
        let p75 = measured.latencies.quantile(0.75);
        assert!(
            p75 >= 100_000_000,
            "{p75} ns: requests held up are not counted"
        );

        let closed = load(server(stall), Pace::Closed);
        let measured = closed.run(&quiet()).unwrap();
        assert!(measured.latencies.count() > 10);
        assert!(measured.latencies.max() >= 300_000_000);
    }

    #[test]
    fn failures_are_counted_by_code_and_not_among_the_latencies() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let measured = load(address, Pace::Closed).run(&quiet()).unwrap();
        assert_eq!(measured.latencies.count(), 0);
        assert!(measured.errors["NO_CONNECTION"] >= 2, "{measured:?}");
    }

    /// Takes each connection's first request along when it goes.
    fn leaver() -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut buffer = [0; 4_096];
                let _ = stream.unwrap().read(&mut buffer);
            }
        });
        address
    }

    #[test]
    fn a_lost_request_is_a_failure_or_is_sent_again_at_the_next_node() {
        let nodes = [leaver(), server(Duration::ZERO)];
        let both = |retry: bool| {
            let mut load = load(nodes[0], Pace::Closed);
            load.exchange.nodes = nodes.map(|node| node.to_string().parse().unwrap()).to_vec();
            load.retry = retry;
            let measured = load.run(&quiet()).unwrap();
            assert!(measured.latencies.count() > 10, "{measured:?}");
            measured
        };
        let lost = BTreeMap::from([("CONNECTION_LOST".to_owned(), 1)]);
        let plain = both(false);
        assert_eq!(
            (plain.errors, plain.retried),
            (lost.clone(), BTreeMap::new())
        );
        let retried = both(true);
        assert_eq!((retried.errors, retried.retried), (BTreeMap::new(), lost));
    }

    #[test]
    fn requests_are_due_at_equal_distances() {
        assert_eq!(offset(4, 0), Duration::ZERO);
        assert_eq!(offset(4, 6), Duration::from_millis(1_500));
        assert_eq!(due_before(200, Duration::from_millis(500)), 100);
        assert_eq!(
            offset(1_000_000, u64::MAX).as_secs(),
            u64::MAX / 1_000_000_000
        );
    }
}
