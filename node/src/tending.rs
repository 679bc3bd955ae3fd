//! Loops that a node cannot be without and that are no actors: they accept connections and
//! streams. One that panics is started again, as its [`RestartBudget`] allows; one that is given
//! up leaves the node degraded, as a lost actor does.

use std::time::Duration;

use paceline_core::Machine;
use paceline_core::restart::{Effect, Input, Restart, RestartBudget};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::supervisor::Health;

/// Runs the loop that `start` begins until it ends by itself, and again when it panics. `seed`
/// decides the jitter. Dropping the future ends the loop.
pub(crate) async fn tend<F>(
    name: &'static str,
    (health, seed): (Health, u64),
    start: impl Fn() -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let clock = Clock::start();
    let mut restart = Restart::new(RestartBudget::default(), seed);
    loop {
        let mut running = JoinSet::new();
        running.spawn(start());
        match running.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                tracing::error!(name, "a loop of the node panicked");
            }
            _ => return,
        }
        let mut effects = Vec::new();
        restart.step(clock.now(), Input::Failed, &mut effects);
        while let Some(effect) = effects.pop() {
            match effect {
                Effect::Restart => {}
                Effect::Wait { until } => {
                    tokio::time::sleep_until(clock.deadline(until) + TICK).await;
                    restart.wake(clock.now(), &mut effects);
                }
                Effect::GiveUp { failures } => {
                    health.degrade(format!("{name}: it panicked {failures} times"));
                    return;
                }
            }
        }
    }
}

/// Timers have milliseconds.
const TICK: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Panics the first `times` times, and ends then.
    async fn run(times: u32) -> (u32, Vec<String>) {
        let (health, begun) = (Health::default(), Arc::new(AtomicU32::new(0)));
        let start = || {
            let number = begun.fetch_add(1, Ordering::Relaxed);
            async move { assert!(number >= times, "as it was told to") }
        };
        tend("the door", (health.clone(), 1), start).await;
        (begun.load(Ordering::Relaxed), health.degraded())
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_panics_is_started_again_and_given_up_after_five_times() {
        assert_eq!(run(0).await, (1, Vec::new()));
        assert_eq!(run(3).await, (4, Vec::new()));
        let (begun, degraded) = run(u32::MAX).await;
        assert_eq!(begun, 5);
        assert_eq!(degraded, ["the door: it panicked 5 times"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_ends_with_who_tends_it() {
        let held = Arc::new(());
        let start = || {
            let held = held.clone();
            async move {
                std::future::pending::<()>().await;
                drop(held);
            }
        };
        let tending = tend("the door", (Health::default(), 1), start);
        let _ = tokio::time::timeout(Duration::from_secs(1), tending).await;
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
