//! Policy of batches that do not end: after how long their engine is taken for hung.

use std::time::Duration;

/// What is known of how long an engine's batches take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watchdog {
    ended: u32,
    /// Of all but the first.
    longest: Duration,
}

impl Watchdog {
    /// How long a batch may take, if none is hung before `floor`. A machine that is busy with
    /// other things may slow an engine down tenfold, which is no reason to end it; a batch may have
    /// more rows, or longer ones, than any before; and for the first ones kernels may be compiled.
    pub fn limit(&self, floor: Duration) -> Duration {
        let known = self.longest.saturating_mul(TIMES);
        let early = match self.ended < EARLY {
            true => EARLY_LIMIT,
            false => Duration::ZERO,
        };
        floor.max(known).max(early)
    }

    /// A batch has ended with answers.
    pub fn ended(&mut self, took: Duration) {
        // What the first one compiled and allocated, no other will.
        if self.ended > 0 {
            self.longest = self.longest.max(took);
        }
        self.ended = self.ended.saturating_add(1);
    }
}

/// How many times as long as the longest batch so far one may take.
const TIMES: u32 = 20;
/// Batches of a warm-up.
const EARLY: u32 = 12;
/// How long each of them may take at least.
const EARLY_LIMIT: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: Duration = Duration::from_secs(10);

    fn after(batches: u32, took: Duration) -> Watchdog {
        let mut watchdog = Watchdog::default();
        (0..batches).for_each(|_| watchdog.ended(took));
        watchdog
    }

    #[test]
    fn quick_engines_have_the_floor_and_slow_ones_their_own_measure() {
        let limit = |took| after(EARLY, took).limit(FLOOR);
        assert_eq!(limit(Duration::ZERO), FLOOR);
        assert_eq!(limit(Duration::from_millis(500)), FLOOR);
        assert_eq!(limit(Duration::from_secs(2)), Duration::from_secs(40));
        assert_eq!(limit(Duration::MAX), Duration::MAX);
    }

    #[test]
    fn the_first_batches_have_time_to_compile_and_the_very_first_is_no_measure() {
        let mut watchdog = Watchdog::default();
        assert_eq!(watchdog.limit(FLOOR), EARLY_LIMIT);
        assert_eq!(watchdog.limit(EARLY_LIMIT * 2), EARLY_LIMIT * 2);
        watchdog.ended(Duration::from_secs(60));
        (2..EARLY).for_each(|_| watchdog.ended(Duration::from_millis(1)));
        assert_eq!(watchdog.limit(FLOOR), EARLY_LIMIT);
        watchdog.ended(Duration::from_millis(1));
        assert_eq!(watchdog.limit(FLOOR), FLOOR);
    }
}
