//! What a node does: it performs what `paceline-core` decides.
//!
//! ```text
//!            HTTP                                    operators
//!             │                                          │
//!   gateway ──┼── infer ──▶ admission ─▶ router ─▶ device ──▶ engine      a request
//!             │                            ▲          ▲
//!             └── operator ─▶ publish      │ ready    │ attach
//!                     │                    │          │
//!                  registry ─▶ reconciler  └── worker ─▶ replica          a version
//!                     │
//!                   raft ─▶ storage                                       what was agreed
//! ```
//!
//! Read [`Node::start`] first, then [`gateway::Serving`]. Policy is deliberately absent: an
//! `if` about what to do belongs in `paceline-core`, which the simulator runs too.
//!
//! A node is a value: it is started from a [`Config`] and its [`Ports`], several live in one
//! process, and it touches nothing of the process itself. The subscriber for logs and the
//! panic hook are the binary's.

mod admission;
pub mod artifacts;
mod budget;
mod canary;
pub mod clock;
pub mod command;
pub mod config;
mod contact;
mod demo;
mod detector;
mod device;
pub mod directory;
pub mod dispatch;
mod drain;
pub mod engine;
pub mod gateway;
pub mod identity;
pub mod join;
mod keeper;
mod membership;
pub mod mesh;
mod monitor;
mod node;
pub mod observed;
pub mod observer;
mod peers;
mod planted;
mod publish;
pub mod raft;
mod reconciler;
mod record;
mod registrar;
mod registry;
pub mod renewal;
mod replica;
mod router;
pub mod storage;
mod supervisor;
pub mod telemetry;
mod tenants;
mod tending;
pub mod threads;
pub mod tls;
pub mod transport;
mod up;
mod worker;

pub use config::{Config, ConfigError, Sources};
pub use demo::{DemoError, install_demo};
pub use node::{Addresses, Network, Node, NodeHandle, Ports, StartError};
pub use tenants::Caller;
