//! Where a node's own loops run.

use tokio::task::JoinHandle;

/// Who runs the loops that production gives threads of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threads {
    /// Consensus, its log and each lane of a device have a thread of their own, and what blocks
    /// runs on the runtime's blocking threads: none of them waits for requests or disks.
    #[default]
    Own,
    /// Everything is a task of the runtime that the node was started in, and disks are used
    /// inline: for tests on disks in memory whose runs shall repeat themselves by seed.
    Shared,
}

/// Has this thread give way to all that do not: engines compute for milliseconds on end, and what
/// takes requests in, answers cheap ones and keeps the cluster together should not wait for them.
/// Where nothing else wants the core, it costs nothing.
pub(crate) fn give_way() {
    #[cfg(target_os = "linux")]
    {
        // On Linux a thread has a priority of its own. Without it all goes on, less evenly.
        let this = Some(rustix::thread::gettid());
        let _ = rustix::process::setpriority_process(this, NICE);
    }
}

/// A seventieth of the weight of a thread that is not nice: of 0, 5, 10, 15 and 19 the one with which
/// a model of microseconds beside one that takes all cores keeps its p99 within three times what it
/// is alone (docs/evidence/2026-11-27-encoders.md).
#[cfg(target_os = "linux")]
const NICE: i32 = 19;

impl Threads {
    /// Runs what blocks where it may. It is run to its end, whether somebody waits for it or not.
    pub(crate) fn blocking<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        match self {
            Self::Own => tokio::task::spawn_blocking(work),
            Self::Shared => tokio::spawn(async move { work() }),
        }
    }

    /// The same for work that also waits for others in between.
    pub(crate) fn blocking_task<T: Send + 'static>(
        self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        match self {
            Self::Own => {
                let runtime = tokio::runtime::Handle::current();
                tokio::task::spawn_blocking(move || runtime.block_on(work))
            }
            Self::Shared => tokio::spawn(work),
        }
    }
}
