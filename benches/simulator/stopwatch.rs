//! Time as this process has had it: by the clock, and on a core. They differ on a machine that does
//! other work, where only the second says what the program costs.

use std::time::Instant;

/// Began at a moment.
pub(crate) struct Stopwatch {
    at: Instant,
    on_core_nanos: Option<f64>,
}

/// What has passed since then, in seconds.
#[derive(Clone, Copy)]
pub(crate) struct Passed {
    pub(crate) wall: f64,
    /// What this thread had of a core; all of it where that is not said.
    pub(crate) on_core: f64,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self {
            at: Instant::now(),
            on_core_nanos: on_core_nanos(),
        }
    }

    pub(crate) fn passed(&self) -> Passed {
        let wall = self.at.elapsed().as_secs_f64();
        let nanos = on_core_nanos().zip(self.on_core_nanos);
        let on_core = nanos.map_or(wall, |(now, before)| (now - before) / 1e9);
        Passed { wall, on_core }
    }
}

/// Of this process's first thread, which is the one that simulates.
fn on_core_nanos() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok()
}
