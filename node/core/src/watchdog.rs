//! Policy of batches that do not end: after how long their engine is taken for hung.

use std::time::Duration;

/// How long a batch may take, if the longest so far took `longest` and none is hung before
/// `floor`. Of the first there is no measure, and an engine may have kernels to compile for it.
/// A machine that is busy with other things may slow an engine down tenfold, which is no
/// reason to end it; a batch may have more rows, or longer ones, than any before.
pub fn limit(floor: Duration, longest: Option<Duration>) -> Duration {
    floor.max(longest.map_or(FIRST, |longest| longest.saturating_mul(TIMES)))
}

/// How long the first batch of an engine may take at least.
const FIRST: Duration = Duration::from_secs(120);

/// How many times as long as the longest batch so far one may take.
const TIMES: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_engines_have_the_floor_and_slow_ones_their_own_measure() {
        let (floor, ms) = (Duration::from_secs(10), Duration::from_millis);
        assert_eq!(limit(floor, Some(Duration::ZERO)), floor);
        assert_eq!(limit(floor, Some(ms(500))), floor);
        assert_eq!(limit(floor, Some(ms(2_000))), Duration::from_secs(40));
        assert_eq!(limit(floor, Some(Duration::MAX)), Duration::MAX);
    }

    #[test]
    fn the_first_batch_has_time_to_compile() {
        assert_eq!(limit(Duration::from_secs(1), None), FIRST);
        assert_eq!(limit(FIRST * 2, None), FIRST * 2);
    }
}
