//! Repeating a write until it is settled: the same request, the same op-id, until the deadline.

use std::thread;
use std::time::{Duration, Instant};

use super::ApiError;

/// First pause; an election takes 200 to 300 ms, so one or two repeats find the new leader.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause: a person watches.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The moment until which a call may last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// That long from now.
    pub(crate) fn after(duration: Duration) -> Self {
        let now = Instant::now();
        // A duration that the clock cannot hold means "as long as it takes": a year is that.
        let year = Duration::from_secs(365 * 24 * 3600);
        Self(now + duration.min(year))
    }

    /// What is left; zero once it has passed.
    pub(crate) fn remaining(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// What a refusal as a conflict means to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conflict {
    /// Something else was first; the same write may go through now.
    Passes,
    /// A policy objects, and will do so until the cluster is another: say so at once.
    Stands,
}

/// Makes attempts until one succeeds, is refused for good, or the deadline leaves no time for
/// another. `notice` hears of each failure that is followed by another attempt.
///
/// # Errors
/// The last failure; or, if an attempt's end is not known and no later one settled it, that
/// attempt's failure, since the write may have been done.
pub(crate) fn until_settled<T>(
    deadline: Deadline,
    notice: &dyn Fn(&ApiError),
    conflict: Conflict,
    mut attempt: impl FnMut(Duration) -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    let mut pause = PAUSE_FIRST;
    let mut open: Option<ApiError> = None;
    let mut answered = false;
    loop {
        let failure = match attempt(deadline.remaining()) {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        // A node that answered a moment ago and is gone now is restarting, not misspelt.
        let restarting = answered && matches!(failure, ApiError::Unreachable { .. });
        let objection = matches!(failure, ApiError::Refused { status: 409, .. });
        let stands = objection && conflict == Conflict::Stands;
        if stands || !failure.is_worth_repeating() && !restarting {
            return Err(failure);
        }
        answered = true;
        let advised = match &failure {
            ApiError::Refused { retry_after, .. } => *retry_after,
            _ => None,
        };
        let wait = advised.unwrap_or(pause).max(pause);
        let leaves_open = failure.leaves_open();
        if wait >= deadline.remaining() {
            return Err(open.unwrap_or(failure));
        }
        notice(&failure);
        if leaves_open {
            open = Some(failure);
        }
        thread::sleep(wait);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn refused(status: u16, code: &str) -> ApiError {
        ApiError::Refused {
            status,
            code: code.into(),
            message: code.into(),
            retry_after: None,
        }
    }

    #[test]
    fn what_was_left_open_is_not_hidden_by_what_came_later() {
        let deadline = Deadline::after(Duration::from_millis(250));
        let mut attempts = 0;
        let ended: Result<(), _> = until_settled(deadline, &|_| {}, Conflict::Passes, |_| {
            attempts += 1;
            match attempts {
                1 => Err(refused(504, "UNKNOWN")),
                _ => Err(refused(503, "NO_QUORUM")),
            }
        });
        assert_eq!(attempts, 2, "one repeat fits before the deadline");
        assert!(ended.unwrap_err().leaves_open());
    }

    #[test]
    fn a_refusal_for_good_ends_it_at_once() {
        let noticed = Cell::new(0);
        let mut attempts = 0;
        let deadline = Deadline::after(Duration::from_secs(60));
        let ended: Result<(), _> = until_settled(
            deadline,
            &|_| noticed.set(noticed.get() + 1),
            Conflict::Passes,
            |_| {
                attempts += 1;
                match attempts {
                    1 => Err(refused(503, "NO_QUORUM")),
                    _ => Err(refused(404, "MODEL_NOT_FOUND")),
                }
            },
        );
        assert_eq!((attempts, noticed.get()), (2, 1));
        assert_eq!(ended, Err(refused(404, "MODEL_NOT_FOUND")));
    }

    #[test]
    fn an_objection_stands_where_it_is_one() {
        for (conflict, wanted) in [(Conflict::Passes, 2), (Conflict::Stands, 1)] {
            let mut attempts = 0;
            let deadline = Deadline::after(Duration::from_secs(60));
            let ended = until_settled(deadline, &|_| {}, conflict, |_| {
                attempts += 1;
                match attempts {
                    1 => Err(refused(409, "CONFLICT")),
                    _ => Ok(()),
                }
            });
            assert_eq!((attempts, ended.is_ok()), (wanted, wanted == 2));
        }
    }

    #[test]
    fn advice_longer_than_the_deadline_ends_it_at_once() {
        let deadline = Deadline::after(Duration::from_secs(5));
        let mut attempts = 0;
        let ended: Result<(), _> = until_settled(deadline, &|_| {}, Conflict::Passes, |_| {
            attempts += 1;
            Err(ApiError::Refused {
                status: 503,
                code: String::new(),
                message: "later".into(),
                retry_after: Some(Duration::from_secs(3600)),
            })
        });
        assert_eq!(attempts, 1);
        assert!(ended.is_err());
    }
}
