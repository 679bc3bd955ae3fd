//! Whether a GPU can be used, and if not, why, in one line.

use std::sync::Arc;

use crate::engine::Engine;

/// Whether this build can use a GPU, if there is one.
pub const HAS_CUDA: bool = cfg!(feature = "cuda");

/// Which GPU, and how much of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CudaOptions {
    /// Its number, as the driver counts from 0 (`CUDA_VISIBLE_DEVICES` leaves some out).
    pub ordinal: usize,
    /// Memory for weights and activations, in bytes; otherwise what is free at the start.
    pub memory_bytes: Option<u64>,
}

/// Why there is no engine of a GPU. Each message is one line, to be logged before the CPU is taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// This build has no CUDA.
    #[error("this build has no CUDA (built without the feature `cuda`)")]
    NotBuilt,
    /// A library is not installed, or not where the loader looks.
    #[error("{library} cannot be loaded: {reason}")]
    Library {
        /// Its file.
        library: &'static str,
        /// What the loader says.
        reason: String,
    },
    /// The driver is too old.
    #[error("the driver serves CUDA {found}; this build needs {wanted}")]
    Driver {
        /// What it serves.
        found: String,
        /// What is needed.
        wanted: &'static str,
    },
    /// The driver sees no GPU.
    #[error("the driver sees no GPU")]
    NoDevice,
    /// There are fewer GPUs.
    #[error("there is no GPU {ordinal}; the driver sees {count}")]
    Ordinal {
        /// The one that was asked for.
        ordinal: usize,
        /// As many as there are.
        count: usize,
    },
    /// The kernels are for another GPU.
    #[error("this build is for compute capability {built}, the GPU has {found}")]
    Capability {
        /// What `CUDA_COMPUTE_CAP` said when it was built.
        built: u32,
        /// The GPU's.
        found: u32,
    },
    /// It is there and does not work.
    #[error("GPU {ordinal} cannot be used: {message}")]
    Device {
        /// Which.
        ordinal: usize,
        /// What it says.
        message: String,
    },
}

/// The engine of a GPU, if there is one that works: libraries are opened, a context and streams
/// are made, and a small product is computed and compared.
///
/// Cost: half a second and more where there is a GPU, for the context; nothing to speak of where
/// there is none.
///
/// # Errors
/// [`ProbeError`] says in one line what is missing.
#[cfg(feature = "cuda")]
pub fn probe_cuda(options: CudaOptions) -> Result<Arc<dyn Engine>, ProbeError> {
    Ok(Arc::new(super::CudaEngine::probe(options)?))
}

/// The engine of a GPU: none, in this build.
///
/// # Errors
/// [`ProbeError::NotBuilt`].
#[cfg(not(feature = "cuda"))]
pub fn probe_cuda(_: CudaOptions) -> Result<Arc<dyn Engine>, ProbeError> {
    Err(ProbeError::NotBuilt)
}

/// Whether kernels that were built for one compute capability run on a GPU of another, both as
/// `10 · major + minor`. From 9.0 on nvcc is told the architecture's own features (`sm_90a`),
/// which no other GPU has; before, PTX runs on all that came later. Source: CUDA C++ Programming
/// Guide, "Compute capabilities", on architecture-specific features.
#[cfg(any(test, feature = "cuda"))]
pub(super) fn runs_on(built: u32, found: u32) -> bool {
    if built >= 90 {
        found == built
    } else {
        found >= built
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_of_an_architecture_run_where_they_can() {
        for (built, found, runs) in [
            (90, 90, true),
            (90, 100, false),
            (90, 89, false),
            (80, 80, true),
            (80, 90, true),
            (80, 75, false),
        ] {
            assert_eq!(runs_on(built, found), runs, "{built} on {found}");
        }
    }

    #[test]
    fn what_is_missing_is_said_in_one_line() {
        let errors = [
            ProbeError::NotBuilt,
            ProbeError::Library {
                library: "libcuda.so.1",
                reason: "no such file".into(),
            },
            ProbeError::NoDevice,
            ProbeError::Capability {
                built: 90,
                found: 86,
            },
        ];
        for error in errors {
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_says_so() {
        let refused = probe_cuda(CudaOptions::default()).err();
        assert_eq!(refused, Some(ProbeError::NotBuilt));
    }
}
