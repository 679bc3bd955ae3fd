//! The account of a device's memory: what is loaded has taken its share, or is not loaded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::engine::{DeviceSpec, LoadError, MemoryUse};

/// What loaded versions have taken of a device's memory. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Account {
    taken_bytes: Arc<AtomicU64>,
}

/// A share of a device's memory, given back when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    bytes: u64,
    account: Account,
}

impl Account {
    /// What is taken now, in bytes.
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
        self.account
            .taken_bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
