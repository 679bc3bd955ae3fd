//! Engines in processes of their own: a model that crashes, hangs or fills its memory takes
//! nothing along but the batch that runs.
//!
//! ```text
//!   node ── Engines::load ──► Child ═══ control: a version's files, then nothing; its end ends it
//!              │                ║
//!           Elsewhere ══════════╬══ a stream for each lane: batch there, answers back
//!        (a LoadedModel)        ║
//!              ▲                ╚══ standard error: lines for the log; its end is a death
//!              └── Warden, a thread that reads it and reaps the process
//! ```
//!
//! One process holds one replica, or sees whether there is a GPU, and ends: the processes of two models share nothing, and what a process
//! needs is bounded by what its model needs. The batcher and its rows stay in the node. Rows, files
//! and answers travel over Unix-domain sockets in the form of [`wire`]; a process opens no file and
//! no port, and knows nothing of the cluster.
//!
//! The process is the same program, told to be an [engine](serve). It ends when its end of the
//! control stream says that the node has, so none outlives its node by more than a moment.

mod child;
mod choice;
mod elsewhere;
mod serve;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use paceline_models::{
    Account, Backend, DeviceSpec, Engine, Front, LoadError, LoadedModel, ModelSource,
};
use serde::{Deserialize, Serialize};

use self::child::{Child, Program};
pub(crate) use self::choice::engine_of;
pub use self::choice::{ChoiceError, DeviceChoice};
use self::elsewhere::Elsewhere;
pub(crate) use self::serve::serve;

/// Where engines compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// In the node's own process.
    #[default]
    None,
    /// Each replica in a process of its own.
    Process,
}

/// How engines in processes of their own are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// What they compute on, all together.
    pub device: DeviceSpec,
    /// How each computes there.
    pub backend: Backend,
    /// Memory that one process may take for itself, in bytes, whatever its model needs; 0 sets no
    /// limit.
    pub process_bytes_max: u64,
    /// No batch is taken for hung before it has run for so long.
    pub hung_after: Duration,
}

/// Loads each version into a process of its own.
#[derive(Clone, Debug)]
pub(crate) struct Engines {
    options: Options,
    account: Account,
    program: Program,
}

impl Engines {
    /// Engines that are this very program.
    ///
    /// # Errors
    /// The operating system does not say where it is.
    pub(crate) fn new(options: Options) -> std::io::Result<Self> {
        Ok(Self {
            options,
            account: Account::default(),
            program: Program::this()?,
        })
    }
}

impl Engine for Engines {
    fn device(&self) -> DeviceSpec {
        self.options.device
    }

    fn load(&self, source: &ModelSource) -> Result<Arc<dyn LoadedModel>, LoadError> {
        let Options {
            device, backend, ..
        } = self.options;
        let front = Front::read(source, backend)?;
        let mut memory = front.memory();
        memory.weights_bytes += backend.process_bytes();
        // Memory is taken before anything is allocated.
        let reservation = self.account.reserve(&device, memory)?;
        // One batch more than lanes may be under way: a canary's.
        let streams = device.threads + 1;
        let order = wire::Order::Load(wire::Load {
            backend,
            threads: device.threads as u64,
            process_bytes_max: self.options.process_bytes_max,
            files: source.files().map(|(name, _)| name.to_owned()).collect(),
        });
        let files: Vec<_> = source.files().map(|(_, content)| content.clone()).collect();
        let (child, streams) = Child::start(&self.program, streams).map_err(failed)?;
        let elsewhere =
            Elsewhere::new(front, (memory, reservation), (child, streams), self.options);
        elsewhere.load(&order, &files)?;
        Ok(Arc::new(elsewhere))
    }
}

fn failed(cause: std::io::Error) -> LoadError {
    LoadError::Engine {
        message: format!("its process: {cause}"),
    }
}
