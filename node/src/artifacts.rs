//! Artifacts: on this node's disk, and from and for its peers.
//!
//! ```text
//!   Fetcher ──ask──▶ peers          Serving ◀──ask── peers
//!      │ chunks, verified              │ Keep: fetch it yourself
//!   Artifacts (store, partial files) ──┘
//! ```
//!
//! What a node holds is immutable and named by its hash, so there is nothing to agree on: any
//! peer's bytes are as good as any other's once they hash to what the manifest says. Which
//! nodes shall keep an artifact is placement's decision, not made here.

mod ask;
mod fetch;
mod partial;
mod replicate;
mod serve;
mod store;
#[cfg(test)]
mod tests;
mod wire;

pub use fetch::{FetchError, Fetcher};
pub use replicate::Replicate;
pub use serve::serve;
pub use store::{ArtifactError, Artifacts, Upload};
