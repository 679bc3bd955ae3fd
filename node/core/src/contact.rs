//! Policy of contact to a quorum: how stale what a node knows may be, and whether it still serves.
//!
//! Without contact a node serves its last epoch and says for how long it has been alone; once
//! that is longer than [`Options::stale_max`] it stops serving.

use std::time::Duration;

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
