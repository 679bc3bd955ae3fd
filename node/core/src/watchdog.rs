//! Policy of batches that do not end: after how long their engine is taken for hung.

use std::time::Duration;

/// How long a batch may take, if the longest so far took `longest` and none is hung before
/// `floor`. A machine that is busy with other things may slow an engine down tenfold, which is no
/// reason to end it; a batch may have more rows, or longer ones, than any before.
pub fn limit(floor: Duration, longest: Duration) -> Duration {
    floor.max(longest.saturating_mul(TIMES))
}

/// How many times as long as the longest batch so far one may take.
const TIMES: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_engines_have_the_floor_and_slow_ones_their_own_measure() {
        let (floor, ms) = (Duration::from_secs(10), Duration::from_millis);
        assert_eq!(limit(floor, Duration::ZERO), floor);
        assert_eq!(limit(floor, ms(500)), floor);
        assert_eq!(limit(floor, ms(2_000)), Duration::from_secs(40));
        assert_eq!(limit(floor, Duration::MAX), Duration::MAX);
    }
}
