//! What a node decides: pure machines and policies, stepped with the time as an argument.
//!
//! ```text
//!   gateway ─▶ admission ─▶ router ─▶ device ─▶ batcher        the life of a request
//!                                       │
//!              failover, budget      restart                   what fails is tried or started again
//!                                    quarantine, watchdog      what engines die of, and hang in
//!              stream                                          parts of an answer, as their client takes them
//!   drain                                                      leaving without losing a request
//!
//!   guesses, renewal, authority                                who gets in, and stays in
//!   patience                                                   how long clients may stand still
//!   contact, ahead                                             how stale a node may be, and
//!                                                              who knows more
//!
//!   registry.apply(command) ─▶ placement ─▶ next change         what the cluster wants
//!                          └─▶ copies                          what each node keeps of it
//!   canary, shadow                                              which version is good enough
//!
//!   up                                                          processes of a local cluster
//!   record                                                      what a machine was told, kept
//! ```
//!
//! A *machine* owns state and answers inputs with effects; a *policy* is a pure function from
//! a snapshot to a choice. The first line of each file says which it is. The same machines run
//! in production (`paceline-node` steps them) and in the simulator (`paceline-sim` does).
//!
//! Read [`Machine`] first, then [`device::Device`].
//!
//! Deliberately absent: clocks, sockets, threads, files, tensors and hashed containers. What
//! is decided here depends on nothing but state, input, time and seed.

#![warn(clippy::wildcard_enum_match_arm)]

pub mod admission;
pub mod ahead;
pub mod authority;
pub mod batcher;
pub mod budget;
pub mod canary;
pub mod contact;
pub mod copies;
pub mod cost;
mod deadline_queue;
pub mod detector;
pub mod device;
pub mod drain;
pub mod failover;
pub mod fair;
pub mod guesses;
mod machine;
mod measure;
pub mod membership;
pub mod patience;
pub mod placement;
pub mod planted;
pub mod quarantine;
pub mod quota;
mod random;
pub mod record;
pub mod registry;
pub mod renewal;
mod request;
pub mod restart;
pub mod router;
pub mod shadow;
pub mod stream;
mod time;
pub mod up;
pub mod watchdog;

pub use machine::Machine;
pub use random::Random;
pub use request::{BucketId, RequestMeta, Slot};
pub use time::Instant;
