//! What Paceline's nodes say: to each other, to their disks and to the outside.
//!
//! ```text
//!   ids ── dtype ── shape ── tensor ── signature        what a request is made of
//!                               │
//!                request / answer ── frame ── wire       how it travels between nodes
//!
//!   registry (commands, answers) ── manifest             what the cluster agrees on
//!   token ── join ── subject                             how a node becomes one of them
//!   client                                               how clients are greeted
//!   operator                                             what operators read and write, as JSON
//!   context                                              where a cluster is, as a file
//!   criticality                                          who is served first
//!   traffic ── label                                     which version a request gets
//!   record                                               what a node decided, as a file
//!   error ── limits                                      what can go wrong, and where it stops
//! ```
//!
//! Read [`Tensor`] first, then [`registry::Command`].
//!
//! Deliberately absent: async, clocks, sockets, and every decision. A value in this crate
//! can be built, checked, encoded and decoded; what to do with it is decided elsewhere.

pub mod agreement;
mod buffer;
pub mod client;
pub mod context;
mod criticality;
mod dtype;
pub mod error;
pub mod frame;
mod id;
pub mod join;
mod label;
pub mod limits;
mod manifest;
pub mod operator;
mod reading;
pub mod record;
pub mod registry;
pub mod report;
mod request;
mod shape;
mod signature;
mod spelling;
mod subject;
pub mod tenant;
mod tensor;
mod token;
pub mod traffic;
pub mod wire;

pub use buffer::AlignedBuffer;
pub use criticality::{Criticality, UnknownCriticality};
pub use dtype::{Dtype, UnknownDtype};
pub use error::{ErrorCode, Failure};
pub use id::{
    DeviceId, Digest, DigestError, Epoch, ModelName, NameError, NodeId, OpId, ReplicaId, TenantId,
    TenantName, TokenId, VersionNumber,
};
pub use label::{Label, LabelError, VersionRef, VersionRefError};
pub use manifest::{Manifest, ManifestError, ManifestFile};
pub use reading::{Asks, LongText, Reading};
pub use request::{Answer, InferRequest};
pub use shape::{Dim, Shape, ShapeError, ShapePattern};
pub use signature::{Signature, SignatureError, TensorSpec};
pub use spelling::Misspelt;
pub use subject::{Subject, SubjectError};
pub use tensor::{Tensor, TensorError};
pub use token::{JoinToken, Secret, TokenError};
