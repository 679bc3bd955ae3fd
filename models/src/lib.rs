//! What Paceline's nodes compute: engines that load versions of models and run batches on them.
//!
//! ```text
//!   ModelSource ── recognise ── ModelDescription      what a folder holds, by content
//!        │                                            (never executed, never trusted)
//!     Engine::load ──► LoadedModel ◄── warm_up        what it costs, measured
//!    CpuEngine           │   ▲
//!    CudaEngine          │   │
//!    StubEngine       answers│ Batch                  rows of many requests, side by side
//!                        ▼   │
//!                       the node
//! ```
//!
//! Read [`Engine`] first, then [`LoadedModel`].
//!
//! Deliberately absent: queues, deadlines and restarts. Whoever calls [`LoadedModel::run`] lends it the
//! thread that it computes on, says among how many others a batch may be divided, and catches
//! panics.

mod account;
mod backend;
mod batch;
mod canary;
mod cpu;
mod crew;
mod cuda;
mod engine;
mod family;
mod folder;
mod front;
pub mod kernel;
mod offload;
mod precision;
mod source;
mod stub;
mod warm_up;
mod weights;

pub use account::{Account, Reservation};
pub use backend::Backend;
pub use batch::Batch;
pub use canary::{Canary, CanaryError};
pub use cpu::CpuEngine;
#[cfg(feature = "cuda")]
pub use cuda::CudaEngine;
#[cfg(any(test, feature = "cuda"))]
pub use cuda::StageTimes;
pub use cuda::{CudaOptions, HAS_CUDA, ProbeError, probe_cuda};
pub use engine::{
    DeviceSpec, Engine, LoadError, LoadedModel, MemoryUse, Prepared, RunError, TextFacts, Token,
};
pub use family::{EncoderError, Family, MlpError, TextReader};
pub use folder::{ModelDescription, RecogniseError, recognise};
pub use front::Front;
pub use precision::{
    EncoderPrecision, PrecisionError, PrecisionFigures, calibration_texts, compare_precisions,
    declared,
};
pub use source::{ModelSource, SourceError};
pub use stub::{CostCurve, Pace, Script, StubEngine};
pub use warm_up::{WarmUp, warm_up};
pub use weights::WeightsError;
