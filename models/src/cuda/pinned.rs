//! Memory of the host that the device reads and writes by itself, in a pool of as many pairs of
//! buffers as batches are under way.
//!
//! Copies from other memory are staged by the driver, and the caller waits for them: nothing
//! would overlap. Buffers grow to the next power of two of what was asked, and stay.
//!
//! A copy that was started reads or writes its buffer until an event of the stream says that it
//! is done. Nothing here knows of that: whoever has a lease keeps it until then, and no copy is
//! under way in a buffer of the pool.
#![allow(unsafe_code)]

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaSlice, CudaStream, DeviceRepr, DriverError, PinnedHostSlice, ValidAsZeroBits,
};

/// Buffers for one batch: what goes in, as numbers or rows of tables, and what comes out.
#[derive(Debug, Default)]
pub(super) struct Staging {
    ids: Buffer<u32>,
    values: Buffer<f32>,
    outcome: Buffer<f32>,
}

#[derive(Debug)]
struct Buffer<T> {
    memory: Option<PinnedHostSlice<T>>,
    kind: Kind,
}

/// Who reads what the other side writes.
#[derive(Clone, Copy, Debug, Default)]
enum Kind {
    /// The host writes and never reads: write-combined memory is faster for the device.
    #[default]
    Written,
    /// The host reads.
    Read,
}

/// Pairs that no batch uses. Whoever wants one waits.
#[derive(Debug)]
pub(super) struct Pool {
    free: Mutex<Vec<Staging>>,
    returned: Condvar,
}

/// Buffers on loan.
#[derive(Debug)]
pub(super) struct Lease {
    staging: Option<Staging>,
    pool: Arc<Pool>,
}

impl Pool {
    pub(super) fn new(pairs: usize) -> Arc<Self> {
        let staging = || Staging {
            outcome: Buffer {
                memory: None,
                kind: Kind::Read,
            },
            ..Staging::default()
        };
        Arc::new(Self {
            free: Mutex::new(std::iter::repeat_with(staging).take(pairs).collect()),
            returned: Condvar::new(),
        })
    }

    /// Waits until a batch has ended, if as many are under way as there are pairs.
    pub(super) fn take(self: &Arc<Self>) -> Lease {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(staging) = free.pop() {
                return Lease {
                    staging: Some(staging),
                    pool: self.clone(),
                };
            }
            let woken = self.returned.wait(free);
            free = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut free = self
            .pool
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        free.extend(self.staging.take());
        self.pool.returned.notify_one();
    }
}

impl Lease {
    fn staging(&mut self) -> &mut Staging {
        self.staging.as_mut().expect("until it is dropped")
    }

    /// Starts the copy of ids to the device, on a stream.
    pub(super) fn ids_in(
        &mut self,
        values: &[u32],
        stream: &Arc<CudaStream>,
    ) -> Result<CudaSlice<u32>, DriverError> {
        self.staging().ids.copy_in(values, stream)
    }

    /// Starts the copy of numbers to the device, on a stream.
    pub(super) fn values_in(
        &mut self,
        values: &[f32],
        stream: &Arc<CudaStream>,
    ) -> Result<CudaSlice<f32>, DriverError> {
        self.staging().values.copy_in(values, stream)
    }

    /// Starts the copy of `length` numbers from the device, from `start` on, on a stream. The
    /// driver copies as much as the destination holds, so that is cut to what is there.
    pub(super) fn outcome_out(
        &mut self,
        from: &CudaSlice<f32>,
        (start, length): (usize, usize),
        stream: &Arc<CudaStream>,
    ) -> Result<(), DriverError> {
        let outcome = &mut self.staging().outcome;
        outcome.grow(length, stream.context())?;
        let memory = outcome.memory.as_mut().expect("it has just grown");
        let memory = &mut memory.as_mut_slice()?[..length];
        stream.memcpy_dtoh(&from.slice(start..start + length), memory)
    }

    /// What came from the device, once the copy is done.
    pub(super) fn outcome(&mut self, length: usize) -> Result<Vec<f32>, DriverError> {
        let memory = self.staging().outcome.memory.as_ref();
        let memory = memory.expect("a copy has been started").as_slice()?;
        Ok(memory[..length].to_vec())
    }
}

impl<T> Default for Buffer<T> {
    fn default() -> Self {
        Self {
            memory: None,
            kind: Kind::default(),
        }
    }
}

impl<T: DeviceRepr + ValidAsZeroBits + Copy + Default> Buffer<T> {
    /// Makes room for `length` numbers; what was there is forgotten.
    fn grow(&mut self, length: usize, context: &Arc<CudaContext>) -> Result<(), DriverError> {
        if self.memory.as_ref().is_some_and(|it| it.len() >= length) {
            return Ok(());
        }
        self.memory = None;
        let length = length.next_power_of_two();
        // SAFETY: nothing reads the memory before it was written: numbers that go in are written
        // by `copy_in`, which transfers a part that it has filled; of what comes out, `outcome`
        // reads what the copy has written, and the whole is filled with zeros below.
        let mut memory = match self.kind {
            Kind::Written => unsafe { context.alloc_pinned::<T>(length)? },
            Kind::Read => unsafe { context.alloc_pinned_with_flags::<T>(length, 0)? },
        };
        memory.as_mut_slice()?.fill(T::default());
        self.memory = Some(memory);
        Ok(())
    }

    fn copy_in(
        &mut self,
        values: &[T],
        stream: &Arc<CudaStream>,
    ) -> Result<CudaSlice<T>, DriverError> {
        self.grow(values.len(), stream.context())?;
        let memory = self.memory.as_mut().expect("it has just grown");
        let memory = &mut memory.as_mut_slice()?[..values.len()];
        memory.copy_from_slice(values);
        // SAFETY: the slice is not read before the copy below, which fills it: it is on the same
        // stream, and others wait for the event that is recorded behind it.
        let mut slice = unsafe { stream.alloc::<T>(values.len())? };
        stream.memcpy_htod(memory, &mut slice)?;
        Ok(slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_wants_buffers_waits_until_a_batch_has_ended() {
        let pool = Pool::new(1);
        let lease = pool.take();
        let (sender, taken) = std::sync::mpsc::sync_channel(1);
        let other = pool.clone();
        let waiter = std::thread::spawn(move || {
            let lease = other.take();
            sender.send(()).unwrap();
            drop(lease);
        });
        let patience = std::time::Duration::from_millis(50);
        assert!(
            taken.recv_timeout(patience).is_err(),
            "one pair, two leases"
        );
        drop(lease);
        taken.recv().unwrap();
        waiter.join().unwrap();
        drop(pool.take());
    }
}
