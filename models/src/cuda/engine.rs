//! Loading versions onto a GPU, and the lanes' end of what its owner does.

use std::fmt;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor as Array;
use paceline_protocol::registry::DeviceKind;

use super::flight::Lost;
use super::owner::{Found, Message, Owner};
use super::pinned::Pool;
use super::probe::{CudaOptions, ProbeError};
use super::times::StageTimes;
use crate::account::Account;
use crate::engine::{DeviceSpec, Engine, LoadError, LoadedModel, RunError};
use crate::family::{Path, load};
use crate::offload::{Offload, PassLimits, Work};
use crate::source::ModelSource;

/// Loads versions into a GPU's memory and computes them there.
///
/// Two batches are under way at most: one computes, of the other the input is copied. A row's
/// answer may differ in its last bits with what shares its batch, since the libraries of the GPU
/// choose by shape how they add. Cloning shares the device.
#[derive(Clone, Debug)]
pub struct CudaEngine {
    device: DeviceSpec,
    gpu: Arc<Gpu>,
    account: Account,
}

/// A GPU as lanes see it. When the last of its engines and models is gone, its owner ends.
struct Gpu {
    name: String,
    owner: SyncSender<Message>,
    pool: Arc<Pool>,
    lost: Lost,
    times: Mutex<StageTimes>,
}

/// Batches under way: one that computes and one that is staged.
const BATCHES: usize = 2;

/// Memory that is left to the driver: kernels that are compiled when they are first called, and
/// the workspace of cuBLAS.
const RESERVE_BYTES: u64 = 512 << 20;

impl CudaEngine {
    /// Opens a GPU on a thread of its own.
    ///
    /// # Errors
    /// [`ProbeError`] says in one line what is missing.
    pub fn probe(options: CudaOptions) -> Result<Self, ProbeError> {
        let lost = Lost::default();
        let (owner, messages) = sync_channel(BATCHES);
        let (ready, found) = sync_channel(1);
        let own = lost.clone();
        let open = move || match Owner::open(options, own) {
            Err(error) => drop(ready.send(Err(error))),
            Ok((owner, found)) => {
                drop(ready.send(Ok(found)));
                owner.serve(&messages);
            }
        };
        let refused = |message: String| ProbeError::Device {
            ordinal: options.ordinal,
            message,
        };
        std::thread::Builder::new()
            .name(format!("cuda-{}", options.ordinal))
            .spawn(open)
            .map_err(|error| refused(error.to_string()))?;
        let found = found
            .recv()
            .map_err(|_| refused("its thread has ended".into()))?;
        let Found { name, free_bytes } = found?;
        let free = free_bytes.saturating_sub(RESERVE_BYTES);
        Ok(Self {
            device: DeviceSpec {
                kind: DeviceKind::Cuda,
                threads: BATCHES,
                memory_bytes: options.memory_bytes.map_or(free, |bytes| bytes.min(free)),
            },
            gpu: Arc::new(Gpu {
                name,
                owner,
                pool: Pool::new(BATCHES),
                lost,
                times: Mutex::default(),
            }),
            account: Account::default(),
        })
    }

    /// What loaded versions occupy now, with two full batches of each.
    pub fn taken_bytes(&self) -> u64 {
        self.account.taken_bytes()
    }

    /// What the device has free, in bytes, whoever uses the rest. Waits until it has nothing to
    /// do, when it gives back what was freed.
    ///
    /// # Errors
    /// The device's.
    pub fn free_bytes(&self) -> Result<u64, RunError> {
        let (reply, answer) = sync_channel(1);
        self.gpu.ask(Message::Free { reply })?;
        answer.recv().unwrap_or_else(|_| Err(self.gpu.gone()))
    }

    /// How long batches took since the start.
    pub fn stage_times(&self) -> StageTimes {
        *self
            .gpu
            .times
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Breaks the device for this process, as a kernel with a fault would: what `scripts/gpu`
    /// does in a process of its own, to see what follows.
    pub fn inject_fault(&self) -> RunError {
        let (reply, answer) = sync_channel(1);
        match self.gpu.ask(Message::Fault { reply }) {
            Err(error) => error,
            Ok(()) => answer.recv().unwrap_or_else(|_| self.gpu.gone()),
        }
    }
}

impl Engine for CudaEngine {
    fn device(&self) -> DeviceSpec {
        self.device
    }

    fn name(&self) -> &str {
        &self.gpu.name
    }

    fn load(&self, source: &ModelSource) -> Result<Arc<dyn LoadedModel>, LoadError> {
        let gpu: Arc<dyn Offload> = self.gpu.clone();
        load(source, &Path::Offload(gpu), &self.account, self.device)
    }
}

impl Offload for Gpu {
    fn upload(&self, array: Array) -> Result<Array, RunError> {
        let (reply, answer) = sync_channel(1);
        self.ask(Message::Upload { array, reply })?;
        answer.recv().unwrap_or_else(|_| Err(self.gone()))
    }

    fn run(&self, work: Work) -> Result<Vec<f32>, RunError> {
        let lease = self.pool.take();
        let (reply, answer) = sync_channel(1);
        self.ask(Message::Run { work, lease, reply })?;
        let flight = answer.recv().unwrap_or_else(|_| Err(self.gone()))?;
        let (outcome, times) = flight.land(&self.lost)?;
        self.times
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(times);
        Ok(outcome)
    }

    fn pass_limits(&self) -> PassLimits {
        PassLimits::GPU
    }
}

impl Gpu {
    fn ask(&self, message: Message) -> Result<(), RunError> {
        self.owner.send(message).map_err(|_| self.gone())
    }

    /// Its owner has ended: only a new process gets the device back.
    fn gone(&self) -> RunError {
        let message = self.lost.get_or_init(|| "its thread has ended".into());
        RunError::DeviceLost {
            message: message.clone(),
        }
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpu")
            .field("name", &self.name)
            .field("lost", &self.lost.get())
            .finish_non_exhaustive()
    }
}
