//! Which device a node computes on.

use std::sync::Arc;
use std::time::Duration;

use paceline_models::{Backend, DeviceSpec, Engine, HAS_CUDA, ProbeError};
use serde::{Deserialize, Serialize};

use super::child::{Child, Program};
use super::{Engines, Isolation, Options, wire};
use crate::config::{DeviceOptions, EngineKind};
use crate::threads::give_way;

/// What a node computes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceChoice {
    /// A GPU, if this build can use it and it works, otherwise the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU, and nothing else.
    Cuda,
}

/// Why a node has no engine.
#[derive(Debug, thiserror::Error)]
pub enum ChoiceError {
    /// The GPU that was asked for cannot be used.
    #[error("device.kind = \"cuda\": {0}; \"auto\" and \"cpu\" compute on the CPU")]
    Gpu(String),
    /// Engines are this program, whose file is not found.
    #[error("this program's own file, which engines are started from: {0}")]
    Program(std::io::Error),
}

/// A GPU that was found to work.
struct Gpu {
    name: String,
    device: DeviceSpec,
}

/// The engine that a configuration asks for. Tells the log what models run on, and why, where a GPU
/// could have been expected.
///
/// Cost: seconds where there is a GPU, which is opened in a process that then ends: whatever its
/// driver does, the node has no part in it.
///
/// # Errors
/// The GPU was asked for by name, and cannot be used.
pub(crate) fn engine_of(options: &DeviceOptions) -> Result<Arc<dyn Engine>, ChoiceError> {
    let backend = Backend::Cuda {
        ordinal: options.gpu,
    };
    let gpu = match options.kind {
        DeviceChoice::Cpu => None,
        DeviceChoice::Auto if !HAS_CUDA => None,
        DeviceChoice::Auto => match probe(backend) {
            Ok(gpu) => Some(gpu),
            Err(reason) => {
                tracing::warn!(reason, "models run on the CPU: the GPU cannot be used");
                None
            }
        },
        DeviceChoice::Cuda => Some(probe(backend).map_err(ChoiceError::Gpu)?),
    };
    match gpu {
        None => on_cpu(options),
        Some(Gpu { name, mut device }) => {
            if options.memory_bytes != 0 {
                device.memory_bytes = device.memory_bytes.min(options.memory_bytes);
            }
            let memory_bytes = device.memory_bytes;
            tracing::info!(name, memory_bytes, "models run on a GPU");
            in_processes(options, device, backend)
        }
    }
}

fn on_cpu(options: &DeviceOptions) -> Result<Arc<dyn Engine>, ChoiceError> {
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads.into(),
    };
    let backend = match options.engine {
        EngineKind::Kernels => Backend::Kernels,
        EngineKind::Candle => Backend::Candle,
    };
    let open = |memory_bytes| {
        let opened = backend.open(threads, memory_bytes, give_way);
        opened.expect("a CPU is always there")
    };
    let engine = match options.memory_bytes {
        0 => open(Some(open(None).device().memory_bytes / 2)),
        bytes => open(Some(bytes)),
    };
    match options.isolation {
        Isolation::None => Ok(engine),
        Isolation::Process => in_processes(options, engine.device(), backend),
    }
}

fn in_processes(
    options: &DeviceOptions,
    device: DeviceSpec,
    backend: Backend,
) -> Result<Arc<dyn Engine>, ChoiceError> {
    let options = Options {
        device,
        backend,
        process_bytes_max: options.process_bytes_max,
        hung_after: Duration::from_millis(options.hung_after_ms),
    };
    let engines = Engines::new(options).map_err(ChoiceError::Program)?;
    Ok(Arc::new(engines))
}

/// Opens the GPU in a process that then ends.
fn probe(backend: Backend) -> Result<Gpu, String> {
    if !HAS_CUDA {
        return Err(ProbeError::NotBuilt.to_string());
    }
    let failed = |error: std::io::Error| format!("the process that probes it: {error}");
    let program = Program::this().map_err(failed)?;
    let (child, _) = Child::start(&program, 0).map_err(failed)?;
    let mut control = child.control();
    let probed = (control.set_read_timeout(Some(PROBE_LIMIT)))
        .and_then(|()| wire::send(&mut control, &wire::Order::Probe(backend), &[]))
        .and_then(|()| wire::receive(&mut control, 0));
    match probed {
        Ok((wire::Probed::Works { name, device }, _)) => Ok(Gpu { name, device }),
        Ok((wire::Probed::Fails(reason), _)) => Err(reason),
        Err(error) if wire::is_late(&error) => {
            Err(format!("its driver had not answered after {PROBE_LIMIT:?}"))
        }
        Err(_) => Err(child.how_it_ended()),
    }
}

/// For a GPU to be opened: half a second where all is well, ten where the driver must first be
/// started.
const PROBE_LIMIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn options(kind: DeviceChoice) -> DeviceOptions {
        DeviceOptions {
            kind,
            threads: 3,
            memory_bytes: 1 << 20,
            ..DeviceOptions::default()
        }
    }

    /// With CUDA, `auto` would start this program as an engine, which tests are not.
    #[test]
    fn without_cuda_auto_is_the_cpu_as_it_was_asked_for() {
        let auto = (!HAS_CUDA).then_some(DeviceChoice::Auto);
        for kind in [DeviceChoice::Cpu].into_iter().chain(auto) {
            let device = engine_of(&options(kind)).unwrap().device();
            assert_eq!((device.threads, device.memory_bytes), (3, 1 << 20));
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_gpu_by_name_is_refused_where_none_can_be_used() {
        let refused = engine_of(&options(DeviceChoice::Cuda)).err().unwrap();
        let told = refused.to_string();
        assert!(
            told.contains("device.kind") && told.contains("built without"),
            "{told}"
        );
    }
}
