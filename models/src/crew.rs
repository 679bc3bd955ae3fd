//! Threads that share a batch while others have nothing to do.
//!
//! A processor runs as many batches at a time as it has threads; each is computed by whoever brought
//! it. While fewer are under way, the other cores are idle, and whoever waits for a batch waits for
//! one core: then its tokens are divided among as many threads as there are idle cores. Under
//! load nothing is divided, since that only makes products smaller.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// The threads of an engine. They are started when a batch is first divided. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Crew(Arc<Shared>);

struct Shared {
    threads: usize,
    /// What each thread does first.
    begin: fn(),
    /// Multiply-adds of a stage below which a part is not worth handing over.
    worth: usize,
    /// Batches under way.
    running: AtomicUsize,
    /// None where the system gives no threads.
    pool: OnceLock<Option<ThreadPool>>,
}

/// A batch under way.
struct Running<'a>(&'a AtomicUsize);

/// Fewest tokens of a part: the rows of a tile. A smaller one reads as many weights for less.
pub(crate) const TOKENS_LEAST: usize = 8;

/// A stage begins and ends on all threads together, which takes some microseconds; this much takes
/// fifty.
const WORTH: usize = 2_000_000;

impl Crew {
    /// As many threads as batches may be under way at a time.
    pub(crate) fn new(threads: usize, begin: fn()) -> Self {
        Self::with(threads, begin, WORTH)
    }

    /// Divides whatever has tokens enough.
    #[cfg(test)]
    pub(crate) fn eager(threads: usize) -> Self {
        Self::eager_that(threads, || {})
    }

    /// The same, with threads that do this first.
    #[cfg(test)]
    pub(crate) fn eager_that(threads: usize, begin: fn()) -> Self {
        Self::with(threads, begin, 0)
    }

    fn with(threads: usize, begin: fn(), worth: usize) -> Self {
        Self(Arc::new(Shared {
            threads,
            begin,
            worth,
            running: AtomicUsize::new(0),
            pool: OnceLock::new(),
        }))
    }

    /// Runs a batch whose passes have so many tokens, and so many multiply-adds for each of them in
    /// a stage. `run` is told into how many parts it may divide them with [`at_once`].
    ///
    /// Cost: nothing for one part; otherwise two changes of threads, and the start of the threads
    /// the first time.
    pub(crate) fn share<R: Send>(
        &self,
        (tokens, work): (usize, usize),
        run: impl FnOnce(usize) -> R + Send,
    ) -> R {
        let running = self.0.running.fetch_add(1, Ordering::Relaxed) + 1;
        let _running = Running(&self.0.running);
        let least = self.0.worth.div_ceil(work.max(1)).max(TOKENS_LEAST);
        let parts = (self.0.threads / running).min(tokens / least);
        match self.pool(parts) {
            Some(pool) => pool.install(|| run(parts)),
            None => run(1),
        }
    }

    /// The threads, if there is something to divide and the system gives them.
    fn pool(&self, parts: usize) -> Option<&ThreadPool> {
        let start = || {
            let begin = self.0.begin;
            ThreadPoolBuilder::new()
                .num_threads(self.0.threads)
                .thread_name(|number| format!("crew-{number}"))
                .start_handler(move |_| begin())
                .build()
                .ok()
        };
        match parts {
            0 | 1 => None,
            _ => self.0.pool.get_or_init(start).as_ref(),
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crew")
            .field("threads", &self.0.threads)
            .finish_non_exhaustive()
    }
}

/// Acts on each part, on all at the same time; on a single one here. Must be called inside of
/// [`Crew::share`] where there are several.
pub(crate) fn at_once<T: Send>(
    parts: impl ExactSizeIterator<Item = T> + Send,
    act: impl Fn(T) + Sync,
) {
    match parts.len() {
        0 | 1 => parts.for_each(act),
        _ => rayon::scope(|scope| {
            for part in parts {
                let act = &act;
                scope.spawn(move |_| act(part));
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn a_batch_gets_what_others_leave_idle() {
        let crew = Crew::eager(4);
        let alone = crew.share((64, 1), |parts| parts);
        assert_eq!(alone, 4);
        assert_eq!(crew.share((31, 1), |parts| parts), 3, "rows of a tile");
        assert_eq!(crew.share((7, 1), |parts| parts), 1);
        let inside = Barrier::new(3);
        let parts: Vec<usize> = thread::scope(|scope| {
            let batch = || {
                crew.share((64, 1), |parts| {
                    inside.wait();
                    parts
                })
            };
            let batches: Vec<_> = (0..3).map(|_| scope.spawn(batch)).collect();
            batches.into_iter().map(|it| it.join().unwrap()).collect()
        });
        let mut sorted = parts.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [1, 2, 4], "in the order in which they came");
        assert_eq!(crew.share((64, 1), |parts| parts), 4, "all have ended");
    }

    #[test]
    fn little_work_is_not_divided() {
        let crew = Crew::new(4, || {});
        assert_eq!(crew.share((16, 10_000), |parts| parts), 1);
        assert_eq!(crew.share((16, WORTH), |parts| parts), 2);
    }

    #[test]
    fn a_panic_in_a_part_is_the_batchs_and_leaves_no_batch_behind() {
        let crew = Crew::eager(2);
        let batch = || {
            crew.share((64, 1), |parts| {
                at_once([1, 2].into_iter(), |part| {
                    assert_ne!(part, parts, "as told")
                });
            })
        };
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(batch));
        assert!(panicked.is_err());
        assert_eq!(crew.share((64, 1), |parts| parts), 2);
    }
}
