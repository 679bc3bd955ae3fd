//! Making load: connections that ask as fast as they are answered, or when requests are due.

mod told;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};
use std::{fs, io};

use super::arrivals::{Arrivals, Schedule, nanos};
use super::interval::Interval;
use super::timeline::{Second, Timeline};
use super::wire::{Exchange, Line};
use crate::cli::terminal::Talk;
use told::Told;

/// What load to make.
pub(super) struct Load {
    pub(super) exchange: Exchange,
    pub(super) arrivals: Arrivals,
    pub(super) connections: u32,
    /// Load before anything is counted.
    pub(super) warm_up: Duration,
    /// For how long requests are due, or sent, that count.
    pub(super) duration: Duration,
    /// How long after it was due an answer is good, and a request worth sending.
    pub(super) deadline: Duration,
    /// Whether a request is sent once more where that may help.
    pub(super) retry: bool,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) total: Interval,
    pub(super) seconds: Vec<Second>,
    /// How long requests were due that count.
    pub(super) window: Duration,
    /// From the end of the warm-up to the last answer.
    pub(super) elapsed: Duration,
    /// Whether it was told to stop before its end.
    pub(super) cut_short: bool,
    /// Processor time of this process, where the system tells it.
    pub(super) cpu: Option<Duration>,
}

/// What all connections share.
struct Shared<'a> {
    load: &'a Load,
    begun: Instant,
    /// What is due next; none in a closed loop.
    schedule: Option<Mutex<Schedule>>,
    /// What each connection has seen since it was last looked at.
    seats: Vec<Mutex<Interval>>,
    stopped: AtomicBool,
}

/// A request that is to be sent now.
struct Turn {
    due: Instant,
    body: usize,
    /// Whether the connection was there before the request.
    in_time: bool,
    counts: bool,
}

/// Before an open loop begins, its threads start: a thousand of them take some 30 ms.
const LEAD: Duration = Duration::from_millis(50);
/// How often it is looked whether all is done.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// After a failure in a closed loop: a node that refuses at once is not asked in a tight loop.
const PAUSE: Duration = Duration::from_millis(10);

impl Load {
    /// Makes the load and measures it, until the end or until `stop` is set. Blocks.
    ///
    /// # Errors
    /// A thread does not start.
    pub(super) fn run(&self, talk: &Talk, tells: bool, stop: &AtomicBool) -> io::Result<Measured> {
        let end = self.warm_up + self.duration;
        let is_open = self.arrivals != Arrivals::Closed;
        let cpu_before = cpu_of_process();
        let shared = Shared {
            load: self,
            // What is due first finds its thread there.
            begun: Instant::now() + if is_open { LEAD } else { Duration::ZERO },
            schedule: is_open.then(|| Mutex::new(self.arrivals.schedule(end))),
            seats: (0..self.connections)
                .map(|_| Mutex::new(Interval::new()))
                .collect(),
            stopped: AtomicBool::new(false),
        };
        let mut timeline = Timeline::default();
        let mut told = Told::new(talk, tells);
        let (mut last_answer, mut cut_at) = (Duration::ZERO, None);
        thread::scope(|scope| {
            let running = shared.start(scope)?;
            cut_at = shared.watch(&running, stop, (&mut timeline, &mut told));
            for thread in running {
                let ended = thread.join().expect("a connection returns its errors");
                last_answer = last_answer.max(ended);
            }
            io::Result::Ok(())
        })?;
        let window = cut_at.map_or(self.duration, |at| at.saturating_sub(self.warm_up));
        shared.count_unsent(cut_at);
        shared.sweep(&mut timeline);
        timeline.end();
        let cpu = cpu_before.zip(cpu_of_process());
        Ok(Measured {
            total: timeline.total,
            seconds: timeline.seconds,
            window: window.min(self.duration),
            elapsed: last_answer.saturating_sub(self.warm_up),
            cut_short: cut_at.is_some(),
            cpu: cpu.map(|(before, after)| after.saturating_sub(before)),
        })
    }
}

impl Shared<'_> {
    /// A thread for each connection; each returns when its last answer came, from the beginning.
    fn start<'scope>(
        &'scope self,
        scope: &'scope thread::Scope<'scope, '_>,
    ) -> io::Result<Vec<ScopedJoinHandle<'scope, Duration>>> {
        let mut running: Vec<ScopedJoinHandle<'scope, Duration>> = Vec::new();
        for number in 0..self.seats.len() {
            let thread = thread::Builder::new().stack_size(STACK_BYTES);
            match thread.spawn_scoped(scope, move || self.connection(number)) {
                Ok(thread) => running.push(thread),
                Err(error) => {
                    self.stop(&running);
                    return Err(error);
                }
            }
        }
        Ok(running)
    }

    /// Ends each second of the timeline until all connections have ended, or are told to: then
    /// says when that was.
    fn watch(
        &self,
        running: &[ScopedJoinHandle<'_, Duration>],
        stop: &AtomicBool,
        (timeline, told): (&mut Timeline, &mut Told<'_>),
    ) -> Option<Duration> {
        let mut cut_at = None;
        let mut second_ends = self.load.warm_up + SECOND;
        while !running.iter().all(ScopedJoinHandle::is_finished) {
            thread::sleep(LOOK_EVERY);
            let now = self.begun.elapsed();
            if cut_at.is_none() && stop.load(Ordering::Relaxed) {
                self.stop(running);
                cut_at = Some(now);
            }
            if now < self.load.warm_up {
                told.warming_up(self.load.warm_up - now);
            }
            while now >= second_ends {
                let end = self.load.warm_up + self.load.duration;
                let second = self.sweep(timeline);
                told.second(second, end.saturating_sub(second_ends));
                second_ends += SECOND;
            }
        }
        cut_at
    }

    fn stop(&self, running: &[ScopedJoinHandle<'_, Duration>]) {
        self.stopped.store(true, Ordering::Relaxed);
        running.iter().for_each(|one| one.thread().unpark());
    }

    /// Takes from all connections what they have seen since the last time, as one second.
    fn sweep<'t>(&self, timeline: &'t mut Timeline) -> &'t Second {
        let mut interval = Interval::new();
        for number in 0..self.seats.len() {
            interval.take(&mut self.seat(number));
        }
        timeline.push(interval)
    }

    fn seat(&self, number: usize) -> MutexGuard<'_, Interval> {
        let seat = self.seats[number].lock();
        seat.expect("nobody panics while counting")
    }

    fn connection(&self, number: usize) -> Duration {
        let mut line = Line::new(&self.load.exchange, number);
        let mut ended = Duration::ZERO;
        while let Some(turn) = self.next_turn() {
            let begun = Instant::now();
            if begun - turn.due > self.load.deadline {
                self.seat(number).unsent += u64::from(turn.counts);
                continue;
            }
            if turn.counts {
                let mut seat = self.seat(number);
                seat.sent += 1;
                match (&self.schedule, turn.in_time) {
                    (None, _) => {}
                    (Some(_), true) => seat.lateness.record(nanos(begun - turn.due)),
                    (Some(_), false) => seat.waited += 1,
                }
            }
            let answered = self.ask(&mut line, turn, number);
            ended = self.begun.elapsed();
            if !answered && self.schedule.is_none() {
                thread::sleep(PAUSE);
            }
        }
        ended
    }

    /// Whether a request was answered, once it was counted.
    fn ask(&self, line: &mut Line<'_>, turn: Turn, number: usize) -> bool {
        let mut answer = line.ask(turn.body);
        let mut retried = None;
        if let Err(miss) = &answer
            && self.load.retry
            && miss.may_repeat
        {
            retried = Some(miss.code.clone());
            answer = line.ask_elsewhere(turn.body);
        }
        let taken = nanos(turn.due.elapsed());
        let is_answered = answer.is_ok();
        if turn.counts {
            let mut seat = self.seat(number);
            if let Some(code) = retried {
                *seat.retried.entry(code).or_default() += 1;
            }
            match answer {
                Ok(()) => seat.answered(taken, nanos(self.load.deadline)),
                Err(miss) => seat.missed(miss),
            }
        }
        is_answered
    }

    /// Waits for the moment of the next request; `None` when there is no other.
    fn next_turn(&self) -> Option<Turn> {
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        let Load {
            warm_up, duration, ..
        } = *self.load;
        let now = Instant::now();
        let Some(schedule) = &self.schedule else {
            let since = now - self.begun;
            return (since < warm_up + duration).then_some(Turn {
                due: now,
                body: 0,
                in_time: true,
                counts: since >= warm_up,
            });
        };
        let next = schedule.lock().expect("nobody panics while drawing").next();
        let next = next?;
        let offset = Duration::from_nanos(next.at_nanos);
        let due = self.begun + offset;
        self.sleep_until(due).then_some(Turn {
            due,
            body: next.body,
            in_time: due >= now,
            counts: offset >= warm_up,
        })
    }

    /// Whether the moment came before the word to stop.
    fn sleep_until(&self, moment: Instant) -> bool {
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            if self.stopped.load(Ordering::Relaxed) {
                return false;
            }
            if left.is_zero() {
                return true;
            }
            thread::park_timeout(left);
        }
    }

    /// Counts what was due when it was cut short and no connection had taken yet.
    fn count_unsent(&self, cut_at: Option<Duration>) {
        let (Some(cut_at), Some(schedule)) = (cut_at, &self.schedule) else {
            return;
        };
        let (from, to) = (nanos(self.load.warm_up), nanos(cut_at));
        let mut schedule = schedule.lock().expect("nobody panics while drawing");
        let due = schedule.by_ref().take_while(|due| due.at_nanos < to);
        let unsent = due.filter(|due| due.at_nanos >= from).count();
        self.seat(0).unsent += unsent as u64;
    }
}

/// User and system time of this process so far (proc(5), fields 14 and 15, in hundredths of a
/// second on every Linux); none elsewhere.
fn cpu_of_process() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in brackets, which may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let ticks = ticks()? + ticks()?;
    Some(Duration::from_millis(ticks * 10))
}

const SECOND: Duration = Duration::from_secs(1);
/// A connection's thread calls nothing deep, and there may be a thousand.
const STACK_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener};

    use crate::cli::bench::interval::Kind;
    use crate::cli::bench::wire::Question;
    use crate::cli::infer::Body;

    /// Answers each connection's requests; the first `slow` of them after a while.
    fn server(slow: Duration) -> SocketAddr {
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

    fn question(nodes: &[SocketAddr]) -> Question {
        let nodes = nodes.iter().map(|node| node.to_string().parse().unwrap());
        Question {
            nodes: nodes.collect(),
            api_key: None,
            path: "/v2/models/m/infer".into(),
            bodies: vec![Body {
                bytes: b"{}".to_vec(),
                json_bytes: None,
            }],
            limit: Duration::from_secs(30),
        }
    }

    fn load(address: SocketAddr, arrivals: Arrivals) -> Load {
        Load {
            exchange: Exchange::new(question(&[address])),
            arrivals,
            connections: 1,
            warm_up: Duration::ZERO,
            duration: Duration::from_millis(500),
            deadline: Duration::from_secs(10),
            retry: false,
        }
    }

    fn run(load: &Load) -> Measured {
        let talk = Talk::new(Box::new(io::sink()), false);
        load.run(&talk, false, &AtomicBool::new(false)).unwrap()
    }

    /// More than half of the requests are due while the server stands still, and none is left out.
    #[test]
    fn a_stall_is_in_the_tail_of_an_open_loop() {
        let mut open = load(
            server(Duration::from_millis(1_200)),
            Arrivals::Constant(200),
        );
        open.duration = Duration::from_secs(2);
        let measured = run(&open);
        let total = &measured.total;
        assert_eq!((total.sent, total.latencies.count()), (400, 400));
        assert_eq!((total.missing(), total.unsent), (0, 0));
        let quantile_ms = |q| total.latencies.quantile(q) / 1_000_000;
        assert!(quantile_ms(0.99) >= 1_150, "{} ms", quantile_ms(0.99));
        assert!(quantile_ms(0.75) >= 650, "{} ms", quantile_ms(0.75));
        assert!(total.waited >= 200, "{} waited", total.waited);
        assert_eq!(measured.seconds[0].good, 0, "nothing was answered in it");
        let ended: u64 = measured.seconds.iter().map(|second| second.good).sum();
        assert_eq!(ended, 400);
    }

    /// With the deadline in the middle of the stall, what was held up for longer is late, or was
    /// given up, and is not good.
    #[test]
    fn what_cannot_be_sent_before_its_deadline_is_given_up_and_counted() {
        let mut open = load(server(Duration::from_millis(500)), Arrivals::Constant(100));
        open.duration = Duration::from_secs(1);
        open.deadline = Duration::from_millis(200);
        let total = run(&open).total;
        assert_eq!(total.sent + total.unsent, 100);
        assert_eq!(total.late, 1, "the one that was held up");
        assert!((20..=40).contains(&total.unsent), "{} unsent", total.unsent);
        assert_eq!(total.good(), 99 - total.unsent);
    }

    #[test]
    fn a_closed_loop_asks_when_it_is_answered() {
        let closed = load(server(Duration::from_millis(300)), Arrivals::Closed);
        let total = run(&closed).total;
        assert!(total.latencies.count() > 10);
        assert!(total.latencies.max() >= 300_000_000);
        assert_eq!(
            (total.waited, total.unsent, total.lateness.count()),
            (0, 0, 0)
        );
    }

    #[test]
    fn a_warm_up_makes_load_and_is_not_counted() {
        let stall = Duration::from_millis(300);
        let mut open = load(server(stall), Arrivals::Constant(100));
        open.warm_up = Duration::from_millis(500);
        let measured = run(&open);
        assert_eq!(measured.total.sent, 50);
        assert!(measured.total.latencies.max() < 250_000_000, "{measured:?}");
        assert!(
            measured.elapsed <= Duration::from_millis(900),
            "{measured:?}"
        );
    }

    #[test]
    fn a_word_to_stop_ends_it_early_and_what_was_due_is_accounted_for() {
        let mut open = load(server(Duration::from_millis(200)), Arrivals::Constant(100));
        open.duration = Duration::from_secs(60);
        let stop = AtomicBool::new(false);
        let talk = Talk::new(Box::new(io::sink()), false);
        let measured = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(100));
                stop.store(true, Ordering::Relaxed);
            });
            open.run(&talk, false, &stop).unwrap()
        });
        assert!(measured.cut_short);
        assert!(measured.window < Duration::from_secs(5), "{measured:?}");
        assert_eq!((measured.total.sent, measured.total.good()), (1, 1));
        let held_up = (measured.window.as_millis() / 10) as u64;
        assert!(measured.total.unsent.abs_diff(held_up) <= 1, "{measured:?}");
    }

    #[test]
    fn failures_are_counted_by_code_and_not_among_the_latencies() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let total = run(&load(address, Arrivals::Closed)).total;
        assert_eq!(total.latencies.count(), 0);
        let refused = (Kind::Lost, "NO_CONNECTION".to_owned());
        assert!(total.misses[&refused] >= 2, "{total:?}");
    }

    #[test]
    fn an_answer_with_other_outputs_is_wrong() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let mut buffer = [0; 4_096];
                let mut asked = 0;
                while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
                    // The first connection is for what is expected; then each third differs.
                    asked += 1;
                    let value = u32::from(number > 0 && asked % 3 == 0);
                    let body = format!("{{\"id\":{asked},\"outputs\":[{value}]}}");
                    let length = body.len();
                    let answer =
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
                    if stream.write_all(answer.as_bytes()).is_err() {
                        break;
                    }
                }
            }
        });
        let mut open = load(address, Arrivals::Constant(60));
        open.exchange.expect_the_same().unwrap();
        let total = run(&open).total;
        assert_eq!((total.good(), total.of(Kind::Wrong)), (20, 10));
    }

    /// Takes each connection's first request along when it goes.
    fn leaver() -> SocketAddr {
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
            let mut load = load(nodes[0], Arrivals::Closed);
            load.exchange = Exchange::new(question(&nodes));
            load.retry = retry;
            let total = run(&load).total;
            assert!(total.good() > 10, "{total:?}");
            total
        };
        let code = "CONNECTION_LOST".to_owned();
        let plain = both(false);
        let lost = BTreeMap::from([((Kind::Lost, code.clone()), 1)]);
        assert_eq!((plain.misses, plain.retried.len()), (lost, 0));
        let retried = both(true);
        assert_eq!(
            (retried.misses.len(), retried.retried),
            (0, BTreeMap::from([(code, 1)]))
        );
    }
}
