//! Policy of patience: how long a client's connection may stand still, and what it stands still at.
//!
//! It is looked at from time to time and sees counts, so what a connection does costs it no clock;
//! a connection is closed late by the time between two looks at most.

use std::time::Duration;

use crate::time::Instant;

/// For how long a connection may stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Before its first request, and inside a request's header.
    pub header: Duration,
    /// Between requests.
    pub idle: Duration,
    /// While its peer takes nothing of what is sent.
    pub stall: Duration,
}

/// What is seen of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Requests that have begun, since it began itself.
    pub begun: u64,
    /// Requests whose answer has not ended.
    pub open: u64,
    /// Writes that went through, since it began.
    pub taken: u64,
    /// Whether a write waits for the peer.
    pub is_blocked: bool,
    /// Whether some of a request's header has come.
    pub is_reading: bool,
    /// Whether its protocol says more than requests: then what comes between them is no header.
    pub is_framed: bool,
}

/// What shall become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Stays,
    /// It has had nothing to do for long: it is asked to leave.
    Idle,
    /// It ends now.
    Ends(Reason),
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its header did not come.
    Header,
    /// Its peer takes nothing.
    Stall,
}

/// How long a connection has been what it is.
#[derive(Clone, Debug)]
pub struct Patience {
    options: Options,
    state: State,
    since: Instant,
}

/// What a connection is at. Two looks that find the same saw no progress in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Idle { begun: u64 },
    Header { begun: u64 },
    Stalled { taken: u64 },
    Busy,
}

impl Options {
    /// How often to look: four times in the shortest of the limits.
    pub fn every(&self) -> Duration {
        self.header.min(self.idle).min(self.stall) / 4
    }
}

impl Patience {
    /// A connection that begins now.
    pub fn new(options: Options, now: Instant) -> Self {
        Self {
            options,
            state: State::New,
            since: now,
        }
    }

    /// Looks at it.
    pub fn look(&mut self, now: Instant, seen: Seen) -> Verdict {
        let state = State::of(seen);
        if state != self.state {
            self.state = state;
            self.since = now;
        }
        let (limit, verdict) = match state {
            State::New | State::Header { .. } => {
                (self.options.header, Verdict::Ends(Reason::Header))
            }
            State::Idle { .. } => (self.options.idle, Verdict::Idle),
            State::Stalled { .. } => (self.options.stall, Verdict::Ends(Reason::Stall)),
            // A request has a deadline of its own, and so has its body.
            State::Busy => return Verdict::Stays,
        };
        if now.since(self.since) < limit {
            return Verdict::Stays;
        }
        verdict
    }
}

impl State {
    fn of(seen: Seen) -> Self {
        let Seen {
            begun,
            open,
            taken,
            is_blocked,
            is_reading,
            is_framed,
        } = seen;
        if is_blocked {
            Self::Stalled { taken }
        } else if open > 0 {
            Self::Busy
        } else if is_reading && !is_framed {
            Self::Header { begun }
        } else if begun == 0 && !is_framed {
            Self::New
        } else {
            Self::Idle { begun }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: Options = Options {
        header: Duration::from_secs(10),
        idle: Duration::from_secs(90),
        stall: Duration::from_secs(8),
    };

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    /// Looks every two seconds at what `seen` says, and tells when the first verdict but
    /// [`Verdict::Stays`] fell.
    fn first(until: u64, seen: impl Fn(u64) -> Seen) -> Option<(u64, Verdict)> {
        assert_eq!(OPTIONS.every(), Duration::from_secs(2));
        let mut patience = Patience::new(OPTIONS, at(0));
        let looks = (2..=until).step_by(2);
        let mut verdicts = looks.map(|now| (now, patience.look(at(now), seen(now))));
        verdicts.find(|(_, verdict)| *verdict != Verdict::Stays)
    }

    #[test]
    fn who_says_nothing_or_half_a_header_ends_and_who_pauses_is_asked_to_leave() {
        let header = Verdict::Ends(Reason::Header);
        assert_eq!(first(200, |_| Seen::default()), Some((10, header)));
        let reading = |begun| Seen {
            begun,
            is_reading: true,
            ..Seen::default()
        };
        assert_eq!(first(200, |_| reading(0)), Some((12, header)));
        assert_eq!(first(200, |_| reading(7)), Some((12, header)));
        let idle = Seen {
            begun: 7,
            ..Seen::default()
        };
        assert_eq!(first(200, |_| idle), Some((92, Verdict::Idle)));
    }

    #[test]
    fn pings_between_requests_are_no_header() {
        for begun in [0, 7] {
            let pinged = Seen {
                begun,
                is_reading: true,
                is_framed: true,
                ..Seen::default()
            };
            assert_eq!(first(200, |_| pinged), Some((92, Verdict::Idle)), "{begun}");
        }
    }

    #[test]
    fn requests_and_what_is_taken_count_as_life() {
        let busy = |now| Seen {
            begun: 1,
            open: 1,
            taken: now,
            ..Seen::default()
        };
        assert_eq!(first(10_000, busy), None, "a request has its own deadline");
        // A request every 80 seconds, and one whose header takes eight.
        let often = |now| Seen {
            begun: 1 + now / 80,
            is_reading: now % 80 >= 72,
            ..Seen::default()
        };
        assert_eq!(first(10_000, often), None);
        let slow = |now| Seen {
            begun: 1,
            open: 1,
            taken: now / 6,
            is_blocked: true,
            ..Seen::default()
        };
        assert_eq!(first(10_000, slow), None, "a slow reader is a reader");
        let stalled = |now: u64| Seen {
            taken: now.min(20),
            ..slow(0)
        };
        let stall = Verdict::Ends(Reason::Stall);
        assert_eq!(first(10_000, stalled), Some((28, stall)));
    }
}
