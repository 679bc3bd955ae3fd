//! Policy of how many requests a node takes on, so that none of them waits long in a queue.
//!
//! A queue that is empty now and then is a burst, and takes care of itself; one that is not is a
//! *standing* queue, which makes everybody wait and nobody faster. What tells them apart is the
//! shortest wait within some time: while the queue stands, not even the luckiest request gets by it
//! (Nichols and Jacobson, "Controlling queue delay", 2012). While that is over half of the target, as
//! many requests may be in flight as end within the target and what they take besides waiting
//! (Little's law, with the pace of ends as measured): then the last of them waits for the target.
//! It falls by half at the most in a window, since a pause is no pace. Otherwise it rises, by a
//! sixteenth of itself in each window, and twofold where hardly anybody waits; and where nothing is
//! in flight any more there is no queue, and no limit.
//!
//! It is measured over whatever the node lets in. Where one of several models is overloaded,
//! the others' requests are lucky ones, and nothing is limited here: that model's own queue refuses
//! what would be late.

use std::time::Duration;

use paceline_protocol::limits::REQUEST_BUDGET_DEFAULT_MS;
use serde::{Deserialize, Serialize};

use super::Times;
use crate::time::Instant;

/// The limit, and what it is learnt from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct DelayLimit {
    /// The wait that is to be kept, in nanoseconds; 0 limits nothing.
    target_nanos: u64,
    permits: u32,
    limit: u32,
    /// Learnt time between two ends while the queue stands, in nanoseconds; 0 while it does not.
    interval_nanos: u64,
    window: Option<Window>,
}

/// What was seen since the limit was looked at.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Window {
    since: Instant,
    /// When the last one has ended, or the window began.
    heard: Instant,
    ends: u32,
    least_waited_nanos: u64,
    rest_nanos: u64,
}

impl DelayLimit {
    pub(super) fn new(target: Duration, permits: u32) -> Self {
        Self {
            target_nanos: u64::try_from(target.as_nanos()).unwrap_or(u64::MAX),
            permits,
            limit: permits,
            interval_nanos: 0,
            window: None,
        }
    }

    /// Requests that may be in flight.
    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    /// A request arrives. Where nothing has ended for long, what was learnt is of another time, and
    /// whoever is in may hang: twice as many are let in.
    pub(super) fn arrived(&mut self, now: Instant) {
        if self.limit >= self.permits {
            return;
        }
        let window = self.window.get_or_insert(Window::begin(now));
        if now.nanos_since(window.heard) >= PATIENCE_NANOS {
            *window = Window::begin(now);
            self.limit = self.limit.saturating_mul(2).min(self.permits);
        }
    }

    /// A request was answered after these times.
    pub(super) fn ended(&mut self, now: Instant, times: Times) {
        if self.target_nanos == 0 {
            return;
        }
        let window = self.window.get_or_insert(Window::begin(now));
        (window.ends, window.heard) = (window.ends + 1, now);
        window.least_waited_nanos = window.least_waited_nanos.min(times.waited_nanos);
        window.rest_nanos = window.rest_nanos.saturating_add(times.rest_nanos);
        let nanos = now.nanos_since(window.since);
        let lasts = (self.target_nanos / 4).max(WINDOW_NANOS_MIN);
        if nanos < lasts || window.ends < ENDS_MIN {
            return;
        }
        let window = std::mem::replace(window, Window::begin(now));
        let least = window.least_waited_nanos;
        self.limit = if least > self.target_nanos / 2 {
            self.standing(&window, nanos).max(self.limit / 2)
        } else {
            self.interval_nanos = 0;
            match least < self.target_nanos / 8 {
                true => self.limit.saturating_mul(2),
                false => self.limit.saturating_add(self.limit / RISE + 1),
            }
        }
        .min(self.permits);
    }

    /// Nothing is in flight: what was learnt of a queue is over.
    pub(super) fn emptied(&mut self) {
        (self.limit, self.interval_nanos, self.window) = (self.permits, 0, None);
    }

    /// The limit while the queue stands, after a window of so many nanoseconds.
    fn standing(&mut self, window: &Window, nanos: u64) -> u32 {
        let ends = u64::from(window.ends);
        let interval = nanos / ends;
        // Ends come in batches, so a window may have had one too few or too many of them.
        self.interval_nanos = match self.interval_nanos {
            0 => interval,
            known => known / 2 + interval / 2,
        };
        let takes = self.target_nanos.saturating_add(window.rest_nanos / ends);
        let limit = takes / self.interval_nanos.max(1);
        limit.clamp(u64::from(LIMIT_MIN), u64::from(self.permits.max(LIMIT_MIN))) as u32
    }
}

impl Window {
    fn begin(now: Instant) -> Self {
        Self {
            since: now,
            heard: now,
            ends: 0,
            least_waited_nanos: u64::MAX,
            rest_nanos: 0,
        }
    }
}

/// Longer than scheduling on a busy machine takes, and short beside what people wait.
const WINDOW_NANOS_MIN: u64 = 100_000_000;
/// As long as clients wait unless they say otherwise.
const PATIENCE_NANOS: u64 = REQUEST_BUDGET_DEFAULT_MS * 1_000_000;
/// From fewer ends nothing is learnt.
const ENDS_MIN: u32 = 8;
/// The limit rises by this part of itself.
const RISE: u32 = 16;
/// A node takes on as much always: a full batch of most models.
const LIMIT_MIN: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn waited(waited_nanos: u64) -> Times {
        Times {
            waited_nanos,
            rest_nanos: 0,
        }
    }

    /// A node that finishes `rate` requests a second of those that are in, in order of arrival, and
    /// is asked for twice as many.
    struct Full {
        limit: DelayLimit,
        now: Instant,
        /// When those that are in have come.
        queue: std::collections::VecDeque<Instant>,
    }

    impl Full {
        fn new(target_ms: u64) -> Self {
            Self {
                limit: DelayLimit::new(Duration::from_millis(target_ms), 4_096),
                now: Instant::ZERO,
                queue: std::collections::VecDeque::new(),
            }
        }

        /// Runs so long; returns the longest wait in its last second, in milliseconds.
        fn run(&mut self, seconds: u64, rate: u64) -> u64 {
            let mut longest = 0;
            for end in 0..seconds * rate {
                for _ in 0..2 {
                    self.now = self.now.plus_nanos(500 * MS / rate);
                    if self.queue.len() < self.limit.limit() as usize {
                        self.queue.push_back(self.now);
                    }
                }
                let came = self.queue.pop_front().expect("it is full");
                let nanos = self.now.nanos_since(came);
                self.limit.ended(self.now, waited(nanos));
                if end >= (seconds - 1) * rate {
                    longest = longest.max(nanos / MS);
                }
            }
            longest
        }
    }

    #[test]
    fn a_standing_queue_is_shortened_to_what_the_target_allows() {
        for (rate, target) in [(100, 500), (1_000, 500), (1_000, 2_000), (3_000, 200)] {
            let waits = Full::new(target).run(60, rate);
            let most = target * 5 / 4;
            assert!(
                (target / 2..=most).contains(&waits),
                "{rate} a second: {waits} ms of {target}"
            );
        }
    }

    #[test]
    fn the_limit_follows_when_the_node_is_faster_again() {
        let mut full = Full::new(500);
        full.run(30, 200);
        let slow = full.limit.limit();
        assert!((60..=130).contains(&slow), "{slow}");
        full.run(30, 2_000);
        let fast = full.limit.limit();
        assert!((600..=1_300).contains(&fast), "{fast}");
    }

    #[test]
    fn where_nothing_ends_the_limit_is_forgotten() {
        let mut full = Full::new(500);
        full.run(30, 100);
        let low = full.limit.limit();
        assert!(low < 100, "{low}");
        let at = |seconds: u64| full.now.plus_nanos(seconds * 1_000 * MS);
        let [soon, late, later] = [at(9), at(11), at(200)];
        full.limit.arrived(soon);
        assert_eq!(full.limit.limit(), low);
        full.limit.arrived(late);
        assert_eq!(full.limit.limit(), 2 * low);
        full.limit.arrived(later);
        assert_eq!(full.limit.limit(), 4 * low);
    }

    #[test]
    fn a_pause_lowers_the_limit_by_half_at_most_and_it_comes_back_at_once() {
        let mut limit = DelayLimit::new(Duration::from_millis(500), 4_096);
        let mut now = Instant::ZERO;
        let mut ends = |limit: &mut DelayLimit, pause_ms, nanos| {
            now = now.plus_nanos(pause_ms * MS);
            for _ in 0..ENDS_MIN {
                now = now.plus_nanos(20 * MS);
                limit.ended(now, waited(nanos));
            }
            limit.limit()
        };
        assert_eq!(ends(&mut limit, 0, 0), 4_096);
        assert_eq!(ends(&mut limit, 10_000, 9_000 * MS), 2_048, "a pause");
        assert_eq!(ends(&mut limit, 0, 0), 4_096, "nobody waits");
        assert_eq!(ends(&mut limit, 10_000, 9_000 * MS), 2_048);
        limit.emptied();
        assert_eq!(limit.limit(), 4_096);
    }

    /// A batch of the model takes longer than anybody should wait: the device has enough to do all
    /// the same.
    #[test]
    fn what_requests_take_besides_waiting_is_no_delay() {
        let mut limit = DelayLimit::new(Duration::from_millis(500), 4_096);
        for turn in 0..10_000 {
            let times = Times {
                waited_nanos: 900 * MS,
                rest_nanos: 3_000 * MS,
            };
            limit.ended(Instant::from_nanos(turn * 10 * MS), times);
        }
        assert_eq!(limit.limit(), 350, "as many as end within 3.5 s");
    }

    #[test]
    fn one_lucky_request_in_each_window_says_that_no_queue_stands() {
        let mut limit = DelayLimit::new(Duration::from_millis(100), 64);
        for turn in 0..10_000 {
            let nanos = if turn % 10 == 0 { 0 } else { 900 * MS };
            limit.ended(Instant::from_nanos(turn * 10 * MS), waited(nanos));
            assert_eq!(limit.limit(), 64);
        }
    }

    #[test]
    fn a_few_are_let_in_however_slow_and_all_if_there_is_no_target() {
        let mut full = Full::new(1);
        full.run(120, 10);
        assert!((LIMIT_MIN..LIMIT_MIN + 4).contains(&full.limit.limit()));
        let mut none = Full::new(0);
        none.run(10, 1_000);
        assert_eq!(none.limit.limit(), 4_096);
        let mut few = DelayLimit::new(Duration::from_millis(1), 4);
        for turn in 0..1_000 {
            few.ended(Instant::from_nanos(turn * 10 * MS), waited(900 * MS));
        }
        assert_eq!(few.limit(), 4, "never more than there are permits");
    }
}
