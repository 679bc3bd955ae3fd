//! How the world talks to Paceline: programs through the SDK, operators through the command line.
//!
//! ```text
//!   your program                        an operator
//!        │                                   │
//!   Client ── Inference ── Answer       cli   a command, its arguments, tables and exit codes
//!        │    over QUIC, to the              │
//!        │    nodes that are well       api   a node's HTTP doors as blocking, typed calls
//!        │                                   │
//!   paceline_protocol::{client, frame}  paceline_protocol::operator
//! ```
//!
//! Read [`Client`] first, then [`Inference`]:
//!
//! ```no_run
//! use std::time::Duration;
//! use paceline_client::{Client, Tensor};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::from_context(None).await?;
//! let answer = client
//!     .infer("digits")
//!     .input("pixels", Tensor::from_f32(64, &[0.0; 64]))
//!     .deadline(Duration::from_millis(50))
//!     .send()
//!     .await?;
//! println!("{:?} by version {}", answer.output("label"), answer.version);
//! # Ok(())
//! # }
//! ```
//!
//! [`Inference::stream`] is the same for an answer that comes in parts ([`Parts`], a `Stream`).
//!
//! The client stays connected with two nodes and knows the addresses of all. A request goes to
//! the one with less in flight. If that node falls silent for 300 ms, or is lost, a request that
//! may run twice is sent once more, to another node; what a node has answered is final, since
//! nodes themselves try elsewhere. [`InferError`] says whether it makes sense to send again.
//! [`blocking`] is the same without a runtime.
//!
//! The operator's side, [`api`] and [`cli`], stands behind the feature `cli`.
//!
//! Deliberately absent: decisions about models. Which version and replica answers, and how often
//! that is tried, is the cluster's business; and there is no way to connect without checking who
//! answers.

#[cfg(feature = "cli")]
pub mod api;
#[cfg(feature = "cli")]
pub mod cli;
mod sdk;

pub use paceline_protocol::frame::Execution;
pub use paceline_protocol::tenant::{ApiKey, ApiKeyError};
pub use paceline_protocol::{
    Criticality, Dtype, Epoch, ErrorCode, Label, NodeId, Shape, Tensor, VersionNumber, VersionRef,
    traffic::Unit,
};

pub use sdk::{
    Answer, Client, ClientOptions, ConnectError, ContextError, InferError, Inference, Part, Parts,
    Trust, TrustError, blocking,
};
