//! Policy of contact to a quorum: how stale what a node knows may be, and whether it still serves.
//!
//! Without contact a node serves its last epoch and says for how long it has been alone; once
//! that is longer than [`Options::stale_max`] it stops serving.

use std::time::Duration;

use crate::detector::standstill;
use crate::time::Instant;

/// What counts as contact, and how long a node serves without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// A quorum that was not heard for so long is not there. Default 2 s: several elections.
    pub silence_max: Duration,
    /// How long a node serves without contact. Default: for ever, since an old answer is worth
    /// more than none; set it where acting on a version that was rolled back does harm.
    pub stale_max: Option<Duration>,
}

/// How a node stands to the cluster's quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    /// It is in contact.
    Fresh {
        /// For how long it counts as that if it hears no more.
        lasts: Duration,
    },
    /// It serves what it knows, and marks its answers.
    Stale {
        /// Since when it was not in contact.
        age: Duration,
    },
    /// It has been without contact for too long to serve.
    Expired {
        /// Since when it was not in contact.
        age: Duration,
    },
}

impl Default for Options {
    fn default() -> Self {
        Self {
            silence_max: Duration::from_secs(2),
            stale_max: None,
        }
    }
}

/// Whether this node itself was there to hear: what arrives first after a standstill was said
/// before it, and is no contact now.
#[derive(Clone, Copy, Debug)]
pub struct Awake {
    ticked_at: Instant,
    /// Since when it may have missed everything, and until when what it hears may be old.
    missed: Option<(Instant, Instant)>,
}

impl Awake {
    /// A node that runs since `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            ticked_at: now,
            missed: None,
        }
    }

    /// It runs, and says so every `pace` nanoseconds.
    pub fn tick(&mut self, now: Instant, pace: u64) {
        if standstill(now.nanos_since(self.ticked_at), pace).is_some() {
            self.missed = Some((self.ticked_at, now.plus_nanos(4 * pace)));
        }
        self.ticked_at = now;
    }

    /// For how long it may have missed everything; `None` if it was there all the time.
    pub fn missed(&self, now: Instant, pace: u64) -> Option<Duration> {
        let since = match self.missed {
            Some((since, until)) if now < until => since,
            _ => {
                standstill(now.nanos_since(self.ticked_at), pace)?;
                self.ticked_at
            }
        };
        Some(now.since(since))
    }
}

/// How a node stands that has heard of a quorum so long ago. One that never has, and started
/// `up_for` ago, knows what its disk says, which may be older still.
pub fn contact(heard: Option<Duration>, up_for: Duration, options: Options) -> Contact {
    let silence_max = options.silence_max;
    if let Some(age) = heard
        && age < silence_max
    {
        let lasts = silence_max - age;
        return Contact::Fresh { lasts };
    }
    let age = heard.unwrap_or(up_for);
    match options.stale_max {
        Some(most) if age > most => Contact::Expired { age },
        _ => Contact::Stale { age },
    }
}

impl Contact {
    /// Whether there is a quorum, as far as this node knows.
    pub fn is_fresh(self) -> bool {
        matches!(self, Self::Fresh { .. })
    }

    /// For how long there has been no contact, unless there is.
    pub fn age(self) -> Option<Duration> {
        match self {
            Self::Fresh { .. } => None,
            Self::Stale { age } | Self::Expired { age } => Some(age),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stood_still_has_missed_all_until_what_it_hears_is_new() {
        const MS: u64 = 1_000_000;
        let at = |ms: u64| Instant::ZERO.plus_nanos(ms * MS);
        let mut awake = Awake::new(at(0));
        awake.tick(at(50), 50 * MS);
        assert_eq!(awake.missed(at(240), 50 * MS), None, "it is late at times");
        let missed = awake.missed(at(3_050), 50 * MS);
        assert_eq!(
            missed,
            Some(Duration::from_secs(3)),
            "before it ticks again"
        );
        awake.tick(at(3_060), 50 * MS);
        let missed = awake.missed(at(3_259), 50 * MS);
        assert_eq!(missed, Some(Duration::from_millis(3_209)));
        awake.tick(at(3_110), 50 * MS);
        awake.tick(at(3_260), 50 * MS);
        assert_eq!(awake.missed(at(3_260), 50 * MS), None);
    }

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn silence_makes_a_node_stale_and_then_ends_its_service() {
        let options = Options {
            stale_max: Some(seconds(60)),
            ..Options::default()
        };
        let heard = |age| contact(Some(age), seconds(500), options);
        let lasts = Duration::from_millis(500);
        assert_eq!(
            heard(Duration::from_millis(1_500)),
            Contact::Fresh { lasts }
        );
        assert_eq!(heard(seconds(2)), Contact::Stale { age: seconds(2) });
        assert_eq!(heard(seconds(60)), Contact::Stale { age: seconds(60) });
        assert_eq!(heard(seconds(61)), Contact::Expired { age: seconds(61) });
        assert!(heard(seconds(1)).is_fresh() && heard(seconds(1)).age().is_none());
        assert_eq!(heard(seconds(61)).age(), Some(seconds(61)));
    }

    #[test]
    fn a_node_that_starts_alone_is_stale_from_its_start_and_serves_for_ever_unless_told() {
        let never = |up_for| contact(None, up_for, Options::default());
        assert_eq!(
            never(Duration::ZERO),
            Contact::Stale {
                age: Duration::ZERO
            }
        );
        let age = seconds(1_000_000);
        assert_eq!(never(age), Contact::Stale { age });
    }
}
