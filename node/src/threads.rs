//! Where a node's own loops run.

/// Who runs the loops that production gives threads of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threads {
    /// Consensus and its log have a thread each, so that neither waits for requests or disks.
    #[default]
    Own,
    /// Everything is a task of the runtime that the node was started in, and disks are used
    /// inline: for tests on disks in memory whose runs shall repeat themselves by seed.
    Shared,
}
