//! A record of what the node's machines were told last, for `paceline sim replay`.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use paceline_core::record;
use paceline_protocol::{ErrorCode, Failure};

use super::{Parts, Refused};
use crate::publish::blocking;

/// Copies all tapes and encodes them off the I/O threads: tens of milliseconds for 8 MiB.
pub(super) async fn record(State(parts): Parts) -> Result<Response, Refused> {
    if !parts.records.is_on() {
        let message = "this node records nothing: debug.record_bytes is 0";
        return Err(Failure::new(ErrorCode::NotFound, message).into());
    }
    let (records, node) = (parts.records.clone(), parts.node);
    let encoded = blocking(parts.artifacts.threads(), move || {
        let written = record::write(node, env!("CARGO_PKG_VERSION"), &records.read());
        written.map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))
    });
    let bytes = encoded.await?;
    Ok(([(header::CONTENT_TYPE, OCTETS)], bytes).into_response())
}

const OCTETS: &str = "application/octet-stream";
