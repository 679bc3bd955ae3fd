//! The engine of an NVIDIA GPU.
//!
//! ```text
//!   a lane ── run ──► Gpu ── one channel ──► the owner: context, three streams
//!     ▲                │                       │  copy in ──event──► compute ──event──► copy out
//!     └── waits for the last event ◄───────────┘  of the next batch, while this one computes
//! ```
//!
//! One thread owns the context and issues all that the device does; it waits for none of it, so
//! it stages a batch while the one before computes. The lane that brought a batch waits for the
//! event behind its copy out.
//!
//! What is computed is said by the families in candle's operations, and tests hold those to known
//! answers on the CPU; here is only where, when and from which memory. Without the feature `cuda`
//! nothing of this is compiled but what [`probe_cuda`] answers then.

#[cfg(feature = "cuda")]
mod engine;
#[cfg(any(test, feature = "cuda"))]
mod fault;
#[cfg(feature = "cuda")]
mod flight;
#[cfg(feature = "cuda")]
mod inject;
#[cfg(feature = "cuda")]
mod libraries;
#[cfg(feature = "cuda")]
mod owner;
#[cfg(feature = "cuda")]
mod pinned;
mod probe;
#[cfg(any(test, feature = "cuda"))]
mod times;

#[cfg(feature = "cuda")]
pub use engine::CudaEngine;
pub use probe::{CudaOptions, HAS_CUDA, ProbeError, probe_cuda};
#[cfg(any(test, feature = "cuda"))]
pub use times::StageTimes;
