//! Threads that share a batch while others have nothing to do.
//!
//! A batch is computed by whoever brought it. Where other cores are idle meanwhile, whoever waits for
//! it waits for one core; so a batch says among how many threads it may be divided. Those of an
//! engine take one batch at a time: one that waits for the end of a stage has nothing else to take up.
//! Between stages they stay awake, since a stage may take less than waking.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, TryLockError};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// The threads of an engine. They are started when a batch is first divided. Cloning shares them.
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
    /// Held by the batch that they compute.
    busy: Mutex<()>,
}

/// Who computes a batch: a thread alone, or some of a crew, of which this is one.
#[derive(Clone, Copy)]
pub(crate) struct Team {
    parts: usize,
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
            busy: Mutex::new(()),
        }))
    }

    /// Runs what may be divided among `threads_max`, and whose stages have so many multiply-adds.
    ///
    /// Cost: nothing for one part; otherwise two changes of threads, and the start of the threads the
    /// first time.
    pub(crate) fn share<R: Send>(
        &self,
        (threads_max, work): (usize, usize),
        run: impl FnOnce(Team) -> R + Send,
    ) -> R {
        let parts = threads_max.min(self.0.threads).min(work / self.0.worth);
        if parts < 2 {
            return run(Team::ALONE);
        }
        let _busy = match self.0.busy.try_lock() {
            Ok(busy) => busy,
            // Nothing is left half done behind it.
            Err(TryLockError::Poisoned(busy)) => busy.into_inner(),
            Err(TryLockError::WouldBlock) => return run(Team::ALONE),
        };
        match self.0.pool.get_or_init(|| self.start()) {
            Some(pool) => pool.install(|| run(Team { parts })),
            None => run(Team::ALONE),
        }
    }

    fn start(&self) -> Option<ThreadPool> {
        let begin = self.0.begin;
        let pool = ThreadPoolBuilder::new()
            .num_threads(self.0.threads)
            .thread_name(|number| format!("crew-{number}"))
            .start_handler(move |_| begin());
        pool.build().ok()
    }
}

impl Team {
    const ALONE: Self = Self { parts: 1 };

    /// Into how many parts a stage is divided.
    pub(crate) fn parts(self) -> usize {
        self.parts
    }

    /// Acts on each part, on all at the same time. Cost: an allocation for each but the last.
    pub(crate) fn at_once<T: Send>(
        self,
        parts: impl Iterator<Item = T> + Send,
        act: impl Fn(T) + Sync,
    ) {
        if self.parts == 1 {
            return parts.for_each(act);
        }
        rayon::scope(|scope| {
            let act = &act;
            let mut parts = parts.peekable();
            while let Some(part) = parts.next() {
                match parts.peek() {
                    Some(_) => scope.spawn(move |_| act(part)),
                    None => act(part),
                }
            }
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
            let got = crew.share((threads_max, work), Team::parts);
            assert_eq!(got, parts, "{threads_max} {work}");
        }
        assert_eq!(Crew::eager(1, || {}).share((4, 100), Team::parts), 1);
    }

    #[test]
    fn parts_run_at_once_and_another_batch_alone_meanwhile() {
        let crew = Crew::eager(3, || {});
        let all = Barrier::new(3);
        crew.share((3, 100), |team| {
            team.at_once(0..3, |part| {
                all.wait();
                if part == 0 {
                    let here = thread::current().id();
                    let other = crew.share((3, 100), |team| (team.parts(), thread::current().id()));
                    assert_eq!(other, (1, here));
                }
            });
        });
        assert_eq!(crew.share((3, 100), Team::parts), 3, "it has ended");
    }

    #[test]
    fn a_panic_of_a_part_is_the_batchs() {
        let crew = Crew::eager(2, || {});
        for wrong in 0..2 {
            let batch = || {
                let stage = |team: Team| team.at_once(0..2, |part| assert_ne!(part, wrong, "told"));
                crew.share((2, 100), stage);
            };
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(batch));
            assert!(panicked.is_err());
        }
        assert_eq!(crew.share((2, 100), Team::parts), 2);
    }
}
