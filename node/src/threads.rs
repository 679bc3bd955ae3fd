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
