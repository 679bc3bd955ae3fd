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
//! What JSON says over HTTP, a message says over gRPC: both become a [`ParsedRequest`]. Read [`parse()`] first, then [`render`]. Nothing here waits, reads a clock or knows of a
//! socket: status lines, headers, compression and routing are the doors' work.
//!
//! Sources: the REST and gRPC parts of the Open Inference Protocol (kserve/open-inference-protocol),
//! and Triton's extensions `binary_tensor_data` (with its raw binary request) and `classification`.
//! Of `schedule_policy` a request's `timeout` and `priority` count, of `sequence` its `sequence_id`;
//! parameters of other names are read and checked, and nothing is done with them yet: so neither
//! these extensions nor `parameters` is advertised.
//!
//! Deliberately absent: shared memory regions, which are refused by name, and every
//! conversion between element types: what a client sends is what an engine sees.

mod answer;
mod json;
mod metadata;
mod request;
mod wire;

pub use answer::{
    AnswerView, Envelope, FRAME_BYTES, Rendered, render, render_failure, render_in_stream,
    render_message,
};
pub use metadata::{
    ModelMetadata, PRODUCT, live, model, model_ready, models, platform, ready, server,
};
pub use request::{
    ID_BYTES_MAX, Message, PARAMETERS_MAX, ParameterValue, ParseOptions, ParsedRequest,
    RequestParameters, WantedOutput, arrange, arrange_outputs, parse, sequence,
};

/// Protocol extensions that this codec carries out by itself, as `GET /v2` names them. A door
/// adds those whose paths it serves.
pub const EXTENSIONS: [&str; 2] = ["binary_tensor_data", "classification"];

#[cfg(test)]
mod tests;
