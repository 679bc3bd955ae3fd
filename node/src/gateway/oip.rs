//! The Open Inference Protocol, version 2, as functions over bytes.
//!
//! ```text
//!   body ──▶ parse ──▶ ParsedRequest ── … ──▶ AnswerView ──▶ render ──▶ Rendered
//!              │                                                │
//!         json (one-pass reader)                    json::write (one-pass writer)
//!
//!   message ──▶ Message::read ──▶ Message::parse ── … ──▶ render_message
//!                    │                                         │
//!               wire (fields where they lie)              wire (written)
//! ```
//!
//! What JSON says over HTTP, a message says over gRPC: both become a [`ParsedRequest`]. Read
//! [`parse()`] first, then [`render`]. Nothing here waits, reads a clock or knows of a socket: status lines, headers, compression and routing are the doors' work.
//!
//! Sources: the REST and gRPC parts of the Open Inference Protocol (kserve/open-inference-protocol),
//! and Triton's extensions `binary_tensor_data` (with its raw binary request) and `classification`.
//! Of `sequence` only its `sequence_id` counts: no model keeps a state that `sequence_start` or
//! `sequence_end` could begin or end. Parameters of names without a meaning are read and checked, and
//! reach no model. So neither `sequence` nor `parameters` is advertised.
//!
//! Beside inference there are the bodies of Triton's extensions about models: `model_configuration`,
//! `statistics`, `model_repository`, and settings that can be read.
//!
//! Deliberately absent: shared memory regions, which are refused by name, and every
//! conversion between element types: what a client sends is what an engine sees.

mod answer;
mod configuration;
pub(super) mod json;
mod metadata;
mod repository;
mod request;
mod settings;
mod statistics;
mod wire;

pub use answer::{
    AnswerView, Envelope, FRAME_BYTES, Rendered, render, render_failure, render_in_stream,
    render_message,
};
pub use configuration::{configuration, data_type};
pub use metadata::{
    ModelMetadata, PRODUCT, live, model, model_ready, models, platform, ready, server,
};
pub use repository::{check_load, check_unload, index, wants_ready_only};
pub use request::{
    ID_BYTES_MAX, Message, PARAMETERS_MAX, ParameterValue, ParseOptions, ParsedRequest,
    RequestParameters, WantedOutput, arrange, arrange_outputs, parse, sequence,
};

pub(super) use answer::Elements;
pub(super) use request::{Nested, check_inputs, excerpt, listed};
pub use settings::{logging, trace};
pub use statistics::statistics;

/// Protocol extensions that work, as `GET /v2` names them. `schedule_policy` is a request's
/// `priority` and `timeout`; nothing depends on another model, so `unload_dependents` always holds.
pub const EXTENSIONS: [&str; 7] = [
    "binary_tensor_data",
    "classification",
    "schedule_policy",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "statistics",
];

#[cfg(test)]
mod tests;
