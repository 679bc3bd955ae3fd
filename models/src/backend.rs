//! What computes models, as one process tells another.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cpu::CpuEngine;
use crate::cuda::{CudaOptions, ProbeError, probe_cuda};
use crate::engine::Engine;
use crate::family::Workspace;
use crate::offload::{Host, PassLimits};

/// What computes models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backend {
    /// Kernels of our own, on the CPU.
    Kernels,
    /// candle's operations, on the CPU.
    Candle,
    /// candle's operations, on an NVIDIA GPU.
    Cuda {
        /// Its number, as the driver counts from 0.
        ordinal: u16,
    },
}

impl Backend {
    /// Opens an engine with so much memory for weights and activations, in bytes: otherwise with
    /// all of the machine's, or with what is free on the GPU. `threads` are a CPU's batches at a
    /// time; a GPU has two. Threads that a CPU's engine starts do `begin` first.
    ///
    /// Cost: of a GPU as [`probe_cuda`]'s, otherwise nothing.
    ///
    /// # Errors
    /// [`ProbeError`] says in one line why the GPU cannot be used. A CPU always can.
    ///
    /// # Panics
    /// If a CPU gets no thread.
    pub fn open(
        self,
        threads: usize,
        memory_bytes: Option<u64>,
        begin: fn(),
    ) -> Result<Arc<dyn Engine>, ProbeError> {
        let engine = match self {
            Self::Kernels => CpuEngine::new(threads).with_threads_that(begin),
            Self::Candle => CpuEngine::new(threads).with_reference(),
            Self::Cuda { ordinal } => {
                let ordinal = ordinal.into();
                return probe_cuda(CudaOptions {
                    ordinal,
                    memory_bytes,
                });
            }
        };
        let memory = memory_bytes.unwrap_or(engine.device().memory_bytes);
        Ok(Arc::new(engine.with_memory(memory)))
    }

    /// What a process that computes so takes of its device before it has a model, in bytes: on a
    /// GPU a context, kernels that are compiled when they are first called, and workspaces of
    /// libraries. An estimate that has not been measured; on a CPU nothing to speak of.
    pub fn process_bytes(self) -> u64 {
        match self {
            Self::Kernels | Self::Candle => 0,
            Self::Cuda { .. } => 1 << 30,
        }
    }

    /// What a batch's memory follows from.
    pub(crate) fn workspace(self) -> Workspace {
        match self {
            Self::Kernels => Workspace::Kernels,
            Self::Candle => Workspace::Passes(Host::REFERENCE.limits),
            Self::Cuda { .. } => Workspace::Passes(PassLimits::GPU),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::tests::example;
    use crate::front::Front;
    use crate::source::ModelSource;

    /// What a node sets aside before it knows more is what the engine then says.
    #[test]
    fn a_version_takes_what_was_expected_of_it() {
        let bert = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/encoder/bert");
        let bert = ModelSource::from_dir(bert.as_ref()).unwrap();
        for source in [example("digits"), bert] {
            for backend in [Backend::Kernels, Backend::Candle] {
                let engine = backend.open(1, None, || {}).unwrap();
                let loaded = engine.load(&source).unwrap();
                let front = Front::read(&source, backend).unwrap();
                assert_eq!(front.memory(), loaded.bytes(), "{backend:?}");
            }
            let [cpu, gpu] = [Backend::Kernels, Backend::Cuda { ordinal: 0 }]
                .map(|backend| Front::read(&source, backend).unwrap().memory());
            assert!(gpu.activations_bytes > cpu.activations_bytes);
        }
    }

    #[test]
    fn memory_of_a_cpu_is_the_machines_unless_it_is_said() {
        let spec = |bytes| Backend::Kernels.open(3, bytes, || {}).unwrap().device();
        assert_eq!((spec(Some(7)).memory_bytes, spec(None).threads), (7, 3));
        assert!(spec(None).memory_bytes > 1 << 28);
    }
}
