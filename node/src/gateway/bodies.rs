//! What bodies of requests may take of a node: memory while they are held, and threads while they
//! are decompressed. What many clients send at once is bounded by it, however many there are.

mod spares;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use paceline_protocol::{ErrorCode, Failure};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

pub(super) use self::spares::Buffer;
use self::spares::Spares;
use crate::threads::Threads;

/// Places of bodies. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bodies {
    kib: Arc<Semaphore>,
    compressing: Arc<Semaphore>,
    spares: Spares,
    threads: Threads,
}

/// Memory that a body has taken; it is given back when the last of the body's slices is dropped.
pub(super) struct Place {
    kib: Arc<Semaphore>,
    spares: Spares,
    taken: Option<OwnedSemaphorePermit>,
}

/// A body and its place.
struct Held<B> {
    bytes: B,
    _place: Place,
}

impl Bodies {
    /// Bodies of a node that hold at most so many bytes together. `threads` is where work on large
    /// ones is done.
    pub fn new(bytes_max: u64, threads: Threads) -> Self {
        let kib = usize::try_from(bytes_max.div_ceil(1_024)).unwrap_or(usize::MAX);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            kib: Arc::new(Semaphore::new(kib.min(Semaphore::MAX_PERMITS))),
            compressing: Arc::new(Semaphore::new(cores.div_ceil(2))),
            spares: Spares::default(),
            threads,
        }
    }

    /// A place that holds nothing yet.
    pub(super) fn place(&self) -> Place {
        Place {
            kib: self.kib.clone(),
            spares: self.spares.clone(),
            taken: None,
        }
    }

    /// Does work on a large body that must be done, where it holds up no connection: on half of
    /// the cores at most.
    ///
    /// # Errors
    /// Too much such work waits.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let Ok(Ok(permit)) = timeout(WORK_PATIENCE, self.compressing.clone().acquire_owned()).await
        else {
            let message = "too many large compressed bodies wait for their turn";
            return Err(Failure::new(ErrorCode::Overloaded, message).retry_after_ms(RETRY_MS));
        };
        crate::publish::blocking(self.threads, move || {
            let done = work();
            drop(permit);
            done
        })
        .await
    }

    /// Does such work if there is a thread for it at once; nothing otherwise.
    pub(super) async fn work_now<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let permit = self.compressing.clone().try_acquire_owned().ok()?;
        let done = crate::publish::blocking(self.threads, move || {
            let done = work();
            drop(permit);
            Ok(done)
        });
        done.await.ok()
    }
}

impl Place {
    /// Takes room for `bytes` in all.
    ///
    /// # Errors
    /// Other bodies have it.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Failure> {
        let has = self.taken.as_ref().map_or(0, |taken| taken.num_permits());
        let lacks = bytes.div_ceil(1_024).saturating_sub(has);
        if lacks == 0 {
            return Ok(());
        }
        let more = u32::try_from(lacks)
            .ok()
            .and_then(|lacks| self.kib.clone().try_acquire_many_owned(lacks).ok());
        let Some(more) = more else {
            let message = "other requests' bodies fill the memory that is for them";
            return Err(Failure::new(ErrorCode::Overloaded, message).retry_after_ms(RETRY_MS));
        };
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        Ok(())
    }

    /// An empty buffer with room for `bytes`, which are taken with [`Place::grow`].
    pub(super) fn buffer(&self, bytes: usize) -> Buffer {
        self.spares.buffer(bytes)
    }

    /// Whether nothing was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.taken.is_none()
    }

    /// The body that this is the place of.
    pub(super) fn hold(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Held {
            bytes,
            _place: self,
        })
    }
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Held<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// For how long a body waits for a thread: a fifth of a request's usual budget.
const WORK_PATIENCE: Duration = Duration::from_secs(2);
/// When room is likely: bodies are held for as long as their requests take.
const RETRY_MS: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_its_memory_until_its_last_slice_is_gone() {
        let bodies = Bodies::new(8 << 10, Threads::Own);
        let mut first = bodies.place();
        first.grow(3 << 10).unwrap();
        first.grow((5 << 10) - 1).unwrap();
        let mut second = bodies.place();
        second.grow(3 << 10).unwrap();
        let failure = second.grow((3 << 10) + 1).unwrap_err();
        assert_eq!(failure.code, ErrorCode::Overloaded);
        let body = first.hold(vec![1; 10]);
        let slice = body.slice(2..4);
        drop(body);
        assert!(second.grow(4 << 10).is_err());
        drop(slice);
        second.grow(8 << 10).unwrap();
    }
}
