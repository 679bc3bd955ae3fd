//! The production engine of a CPU: every family, on whichever thread calls.

use std::sync::Arc;

use paceline_protocol::registry::DeviceKind;

use crate::account::Account;
use crate::crew::Crew;
use crate::engine::{DeviceSpec, Engine, LoadError, LoadedModel};
use crate::family::{Path, load};
use crate::offload::Host;
use crate::source::ModelSource;

/// Loads versions into main memory, and keeps account of what they occupy.
///
/// A batch is computed by the thread that calls [`LoadedModel::run`]. One of an encoder's that may be
/// divided ([`Batch::among`](crate::Batch::among)), and is worth it, is computed by threads of the
/// engine's own, one such batch at a time, and the caller waits. Cloning shares the account and these
/// threads.
#[derive(Clone, Debug)]
pub struct CpuEngine {
    device: DeviceSpec,
    path: Path,
    account: Account,
}

impl CpuEngine {
    /// An engine for `threads` batches at a time, with all of the machine's memory; where the
    /// system does not tell how much that is, with 4 GiB.
    ///
    /// # Panics
    /// If `threads` is 0.
    pub fn new(threads: usize) -> Self {
        assert!(threads > 0, "a device runs at least one batch at a time");
        let memory_bytes = physical_memory_bytes().unwrap_or(4 << 30);
        let device = DeviceSpec {
            kind: DeviceKind::Cpu,
            threads,
            memory_bytes,
        };
        Self {
            device,
            path: Path::Kernels {
                kernels: None,
                crew: Crew::new(threads, || {}),
            },
            account: Account::default(),
        }
    }

    /// The same engine with threads of its own, if it starts any, doing this first.
    #[must_use]
    pub fn with_threads_that(mut self, begin: fn()) -> Self {
        if let Path::Kernels { crew, .. } = &mut self.path {
            *crew = Crew::new(self.device.threads, begin);
        }
        self
    }

    /// The same engine with models computed by candle's own operations, those that a GPU runs:
    /// slower, and what the kernels are held to. candle splits large products over threads of its own unless
    /// `RAYON_NUM_THREADS` is 1.
    #[must_use]
    pub fn with_reference(mut self) -> Self {
        self.path = Path::Offload(Arc::new(Host::REFERENCE));
        self
    }

    /// The same engine with models computed by an offload.
    #[cfg(test)]
    pub(crate) fn with_offload(mut self, offload: Host) -> Self {
        self.path = Path::Offload(Arc::new(offload));
        self
    }

    /// The same engine with encoders computed by these kernels.
    #[cfg(test)]
    pub(crate) fn with_kernels(self, kernels: crate::kernel::Kernels) -> Self {
        let crew = Crew::new(1, || {});
        self.with_crew(Some(kernels), crew)
    }

    /// The same engine with batches divided by this crew.
    #[cfg(test)]
    pub(crate) fn with_crew(mut self, kernels: Option<crate::kernel::Kernels>, crew: Crew) -> Self {
        self.path = Path::Kernels { kernels, crew };
        self
    }

    /// The same engine with this much memory for weights and activations.
    #[must_use]
    pub fn with_memory(mut self, bytes: u64) -> Self {
        self.device.memory_bytes = bytes;
        self
    }

    /// What loaded versions occupy now, with every thread running a full batch of each.
    pub fn taken_bytes(&self) -> u64 {
        self.account.taken_bytes()
    }
}

impl Engine for CpuEngine {
    fn device(&self) -> DeviceSpec {
        self.device
    }

    fn load(&self, source: &ModelSource) -> Result<Arc<dyn LoadedModel>, LoadError> {
        load(source, &self.path, &self.account, self.device)
    }
}

/// The line `MemTotal: N kB` of Linux's `/proc/meminfo`.
fn physical_memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::Family;
    use crate::folder::tests::{IDENTITY, example, only_toml};

    #[test]
    fn memory_is_taken_while_a_version_is_loaded() {
        let digits = example("digits");
        let engine = CpuEngine::new(2);
        let model = engine.load(&digits).unwrap();
        assert_eq!(model.description().family, Family::Mlp);
        let needed = model.bytes().total_bytes(2);
        assert!(model.bytes().weights_bytes > 0 && model.bytes().activations_bytes > 0);
        assert_eq!(engine.taken_bytes(), needed);
        drop(model);
        assert_eq!(engine.taken_bytes(), 0);

        let engine = CpuEngine::new(2).with_memory(needed + 1);
        let first = engine.clone().load(&digits).unwrap();
        let second = engine.load(&digits).err().unwrap();
        assert!(
            matches!(second, LoadError::Memory { needed: n, left: 1, device } if n + 1 == device),
            "{second}"
        );
        assert!(
            engine.load(&only_toml(IDENTITY)).is_ok(),
            "an identity needs none"
        );
        drop(first);
        assert!(engine.load(&digits).is_ok());
    }

    #[test]
    fn the_device_says_what_it_is() {
        let device = CpuEngine::new(3).device();
        assert_eq!((device.kind, device.threads), (DeviceKind::Cpu, 3));
        assert!(device.memory_bytes >= 64 << 20, "{}", device.memory_bytes);
    }
}
