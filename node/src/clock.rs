//! The node's clock: moments since it started, as the machines want them.

use std::time::Duration;

use paceline_core::Instant;

/// A monotonic clock with the node's start as its origin. It is tokio's clock, so that a node
/// under paused time stands still with it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: tokio::time::Instant,
}

impl Clock {
    /// A clock that begins now.
    pub fn start() -> Self {
        Self {
            origin: tokio::time::Instant::now(),
        }
    }

    /// Now.
    pub fn now(&self) -> Instant {
        Instant::ZERO + self.origin.elapsed()
    }

    /// The same moment as tokio's timers want it.
    pub fn deadline(&self, at: Instant) -> tokio::time::Instant {
        self.origin + Duration::from_nanos(at.as_nanos())
    }
}

/// The wall clock: what stamps in the registry say, and when tokens expire.
#[derive(Clone, Copy, Debug, Default)]
pub enum Wall {
    /// The machine's.
    #[default]
    System,
    /// One that goes with tokio's clock, so that runs under paused time stamp the same.
    Invented(Invented),
}

/// A wall clock that was set once.
#[derive(Clone, Copy, Debug)]
pub struct Invented {
    set_at: tokio::time::Instant,
    set_to_ms: u64,
}

impl Wall {
    /// A wall clock that shows `now_ms` now, in milliseconds since 1970.
    pub fn invented(now_ms: u64) -> Self {
        Self::Invented(Invented {
            set_at: tokio::time::Instant::now(),
            set_to_ms: now_ms,
        })
    }

    /// Milliseconds since 1970.
    pub(crate) fn now_ms(self) -> u64 {
        match self {
            Self::System => {
                let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                since.map_or(0, |since| since.as_millis() as u64)
            }
            Self::Invented(wall) => wall.set_to_ms + wall.set_at.elapsed().as_millis() as u64,
        }
    }
}
