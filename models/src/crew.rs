//! Threads that share a batch while others have nothing to do.
//!
//! A batch is computed by whoever brought it. Where other cores are idle meanwhile, whoever waits for
//! it waits for one core; so a batch says among how many threads it may be divided, and those that
//! are not its caller's are here. They only ever compute a part of a stage, and wait for nothing.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// The threads of an engine beside its callers'. They are started when a batch is first divided.
/// Cloning shares them.
#[derive(Clone)]
pub(crate) struct Crew(Arc<Shared>);

struct Shared {
    threads: usize,
    /// What each thread does first.
    begin: fn(),
    /// Multiply-adds of a stage that are worth a thread.
    worth: usize,
    /// None where the system gives no threads.
    pool: OnceLock<Option<ThreadPool>>,
}

/// Who computes a batch.
#[derive(Clone, Copy)]
pub(crate) struct Team<'a> {
    parts: usize,
    /// None where the caller is alone.
    pool: Option<&'a ThreadPool>,
}

/// A stage begins and ends on all threads together, which takes some microseconds; this much takes
/// forty.
const WORTH: usize = 2_000_000;

impl Crew {
    /// For batches on so many threads, their callers' among them.
    pub(crate) fn new(threads: usize, begin: fn()) -> Self {
        Self::with(threads, begin, WORTH)
    }

    /// Divides everything.
    #[cfg(test)]
    pub(crate) fn eager(threads: usize, begin: fn()) -> Self {
        Self::with(threads, begin, 1)
    }

    fn with(threads: usize, begin: fn(), worth: usize) -> Self {
        Self(Arc::new(Shared {
            threads,
            begin,
            worth,
            pool: OnceLock::new(),
        }))
    }

    /// Who computes a batch that may be divided among `threads_max`, and whose stages have so many
    /// multiply-adds. Cost: nothing, but for the start of the threads the first time.
    pub(crate) fn team(&self, threads_max: usize, work: usize) -> Team<'_> {
        let parts = threads_max.min(self.0.threads).min(work / self.0.worth);
        let pool = match parts {
            0 | 1 => None,
            _ => self.0.pool.get_or_init(|| self.start()).as_ref(),
        };
        Team {
            parts: if pool.is_some() { parts } else { 1 },
            pool,
        }
    }

    fn start(&self) -> Option<ThreadPool> {
        let begin = self.0.begin;
        let pool = ThreadPoolBuilder::new()
            .num_threads(self.0.threads - 1)
            .thread_name(|number| format!("crew-{number}"))
            .start_handler(move |_| begin());
        pool.build().ok()
    }
}

impl Team<'_> {
    /// Into how many parts a stage is divided.
    pub(crate) fn parts(self) -> usize {
        self.parts
    }

    /// Acts on each part, on all at the same time; on the first here. Cost: an allocation for each
    /// further one, and waking a thread that sleeps.
    pub(crate) fn at_once<T: Send>(
        self,
        mut parts: impl Iterator<Item = T> + Send,
        act: impl Fn(T) + Sync,
    ) {
        let Some(first) = parts.next() else {
            return;
        };
        let Some(pool) = self.pool else {
            act(first);
            parts.for_each(act);
            return;
        };
        pool.in_place_scope(|scope| {
            for part in parts {
                let act = &act;
                scope.spawn(move |_| act(part));
            }
            act(first);
        });
    }
}

impl fmt::Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crew")
            .field("threads", &self.0.threads)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn a_batch_gets_what_it_may_have_and_is_worth() {
        let crew = Crew::new(4, || {});
        for (threads_max, work, parts) in [
            (4, 9 * WORTH, 4),
            (4, 2 * WORTH, 2),
            (4, WORTH, 1),
            (4, 0, 1),
            (3, 9 * WORTH, 3),
            (1, 9 * WORTH, 1),
            (9, 9 * WORTH, 4),
        ] {
            let team = crew.team(threads_max, work);
            assert_eq!(team.parts(), parts, "{threads_max} {work}");
        }
        assert_eq!(Crew::eager(1, || {}).team(4, 100).parts(), 1);
    }

    #[test]
    fn parts_run_at_once_and_the_first_here() {
        let crew = Crew::eager(3, || {});
        let (all, here) = (Barrier::new(3), thread::current().id());
        crew.team(3, 100).at_once(0..3, |part| {
            all.wait();
            assert_eq!(part == 0, thread::current().id() == here);
        });
    }

    #[test]
    fn a_panic_of_a_part_is_the_batchs() {
        let crew = Crew::eager(2, || {});
        for wrong in 0..2 {
            let batch = || {
                let team = crew.team(2, 100);
                team.at_once(0..2, |part| assert_ne!(part, wrong, "as told"));
            };
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(batch));
            assert!(panicked.is_err());
        }
    }
}
