//! Decides from what has been heard whether a node is well, suspect or lost. A policy: it is
//! looked at regularly while an answer is due, with the time as an argument.

use std::time::{Duration, Instant};

/// How a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Health {
    /// It is heard from.
    Well,
    /// It has been silent for so long that somebody else is asked.
    Suspect,
    /// It is given up, or gone.
    Lost,
}

/// What is known of a node's silence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Silence {
    heard: u64,
    since: Instant,
    looked: Instant,
}

impl Silence {
    /// Nothing has been missed yet.
    pub(crate) fn new(now: Instant, heard: u64) -> Self {
        Self {
            heard,
            since: now,
            looked: now,
        }
    }

    /// How the node is, `heard` being a number that has risen with every packet.
    ///
    /// Where looks are due every `pace`, a much later one says that this process did not run:
    /// what a node has sent meanwhile may still wait to be read, so that time does not count.
    pub(crate) fn look(
        &mut self,
        (now, heard): (Instant, u64),
        pace: Duration,
        (suspect_after, lost_after): (Duration, Duration),
    ) -> Health {
        let paused = now.saturating_duration_since(self.looked);
        self.looked = now;
        if heard != self.heard {
            self.heard = heard;
            self.since = now;
        } else if paused > pace * 2 {
            self.since += paused - pace;
        }
        match now.saturating_duration_since(self.since) {
            silent if silent >= lost_after => Health::Lost,
            silent if silent >= suspect_after => Health::Suspect,
            _ => Health::Well,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Duration = Duration::from_millis(50);
    const LIMITS: (Duration, Duration) = (Duration::from_millis(300), Duration::from_millis(1_500));

    #[test]
    fn silence_makes_suspect_then_lost_and_a_packet_makes_well() {
        let start = Instant::now();
        let mut silence = Silence::new(start, 7);
        let at = |tick: u32| start + PACE * tick;
        for tick in 1..=40 {
            let expected = match tick {
                0..6 => Health::Well,
                6..30 => Health::Suspect,
                _ => Health::Lost,
            };
            assert_eq!(
                silence.look((at(tick), 7), PACE, LIMITS),
                expected,
                "{tick}"
            );
        }
        assert_eq!(silence.look((at(41), 8), PACE, LIMITS), Health::Well);
    }

    #[test]
    fn our_own_pause_is_nobody_elses_silence() {
        let start = Instant::now();
        let mut silence = Silence::new(start, 7);
        let late = start + Duration::from_secs(10);
        assert_eq!(silence.look((late, 7), PACE, LIMITS), Health::Well);
        let mut health = Health::Well;
        for tick in 1..=5 {
            health = silence.look((late + PACE * tick, 7), PACE, LIMITS);
        }
        assert_eq!(health, Health::Suspect, "from then on it counts again");
    }
}
