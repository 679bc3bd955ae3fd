//! How the world talks to Paceline: operators and their scripts, through the command line.
//!
//! ```text
//!   cli   a command, its arguments, tables and exit codes
//!    │
//!   api   what a node's HTTP doors offer, as blocking, typed calls with deadlines
//!    │
//!   paceline_protocol::operator     the JSON that both sides read and write
//! ```
//!
//! Read [`api::OperatorClient`] first, then [`cli::Command`]. Both stand behind the feature
//! `cli`; without it the crate is empty and brings neither an HTTP client nor an argument parser.
//!
//! Deliberately absent: decisions. A command asks a node, waits for what it was told to wait
//! for, and prints; placement, retries of inference and versions are the cluster's business.

#[cfg(feature = "cli")]
pub mod api;
#[cfg(feature = "cli")]
pub mod cli;
