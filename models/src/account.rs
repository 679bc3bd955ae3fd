//! The account of a device's memory: what loaded versions take, and give back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use paceline_protocol::Tensor;

use crate::batch::Batch;
use crate::engine::{DeviceSpec, LoadError, LoadedModel, MemoryUse, RunError};
use crate::family::TextReader;
use crate::folder::ModelDescription;

/// Bytes of a device that are taken. Cloning shares the account.
#[derive(Clone, Debug, Default)]
pub struct Account {
    taken_bytes: Arc<AtomicU64>,
}

/// Memory of a device, given back when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    bytes: u64,
    account: Account,
}

impl Account {
    /// What is taken now.
    pub fn taken_bytes(&self) -> u64 {
        self.taken_bytes.load(Ordering::Relaxed)
    }

    /// Takes what a version needs with every thread of the device running it, before any of it
    /// is allocated.
    ///
    /// # Errors
    /// [`LoadError::Memory`] says how much is left.
    pub fn reserve(
        &self,
        device: &DeviceSpec,
        memory: MemoryUse,
    ) -> Result<Reservation, LoadError> {
        let needed = memory.total_bytes(device.threads);
        let device = device.memory_bytes;
        let take = |taken: u64| taken.checked_add(needed).filter(|sum| *sum <= device);
        match self
            .taken_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
        {
            Ok(_) => Ok(Reservation {
                bytes: needed,
                account: self.clone(),
            }),
            Err(taken) => Err(LoadError::Memory {
                needed,
                left: device.saturating_sub(taken),
                device,
            }),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let account = &self.account.taken_bytes;
        account.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A model with the memory that it occupies: the model goes first, then its memory is free.
pub(crate) struct Accounted<M> {
    model: M,
    _reservation: Reservation,
}

impl<M> Accounted<M> {
    pub(crate) fn new(model: M, reservation: Reservation) -> Self {
        Self {
            model,
            _reservation: reservation,
        }
    }
}

impl<M: LoadedModel> LoadedModel for Accounted<M> {
    fn description(&self) -> &ModelDescription {
        self.model.description()
    }

    fn reader(&self) -> Option<&TextReader> {
        self.model.reader()
    }

    fn run(&self, batch: &Batch<'_>) -> Result<Vec<Vec<Tensor>>, RunError> {
        self.model.run(batch)
    }

    fn bytes(&self) -> MemoryUse {
        self.model.bytes()
    }
}
