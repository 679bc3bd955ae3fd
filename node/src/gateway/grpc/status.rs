//! Ends of calls as gRPC says them: the one border where failures become statuses.

use std::fmt::Write;

use hyper::Response;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use paceline_protocol::{ErrorCode, Failure};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::body::CallBody;
use crate::gateway::server::TakenBack;

/// The trailers of a call that was answered.
pub(super) fn ok() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

/// The answer to a call that failed before its first message: headers alone.
pub(super) fn failed(failure: &Failure) -> Response<CallBody> {
    let mut response = Response::new(CallBody::Empty);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
    headers.insert(ACCEPT_ENCODING, ENCODINGS);
    headers.extend(ended(failure));
    if failure.code == ErrorCode::Cancelled {
        response.extensions_mut().insert(TakenBack);
    }
    response
}

/// The trailers of a stream that failed.
pub(super) fn ended(failure: &Failure) -> HeaderMap {
    let mut trailers = besides(failure);
    let status = u16::from(failure.code.grpc_status());
    trailers.insert(GRPC_STATUS, HeaderValue::from(status));
    let message = percent_encoded(&shortened(&failure.message));
    if let Ok(message) = HeaderValue::try_from(message) {
        trailers.insert(GRPC_MESSAGE, message);
    }
    trailers
}

/// What the caller of a request is told whose budget was spent on its way in.
pub(super) fn expired() -> Failure {
    let message = "the request's budget ran out before its message had arrived";
    Failure::new(ErrorCode::DeadlineExceeded, message)
}

/// The same for the router.
pub(super) fn status(failure: &Failure) -> Status {
    let code = Code::from_i32(failure.code.grpc_status().into());
    let metadata = MetadataMap::from_headers(besides(failure));
    Status::with_metadata(code, shortened(&failure.message), metadata)
}

/// Whether these headers end a call that failed without a word.
pub(super) fn is_bare(headers: &HeaderMap) -> bool {
    let failed = headers.get(GRPC_STATUS).is_some_and(|status| status != "0");
    failed && !headers.contains_key(GRPC_MESSAGE)
}

/// What a failure says besides status and sentence.
fn besides(failure: &Failure) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(CODE, HeaderValue::from_static(failure.code.name()));
    if let Some(wait_ms) = failure.retry_after_ms {
        // As over HTTP: whole seconds, rounded up, so that no retry comes too early.
        let seconds = wait_ms.div_ceil(1_000).max(1);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    headers
}

/// Clients refuse headers of more than some 8 KiB, and a sentence may name many inputs.
fn shortened(message: &str) -> String {
    let end = message.floor_char_boundary(MESSAGE_BYTES_MAX);
    match message.get(..end) {
        Some(cut) if cut.len() < message.len() => format!("{cut}…"),
        _ => message.to_owned(),
    }
}

/// As a header may hold it (gRPC, doc/PROTOCOL-HTTP2.md, "Percent-Encoded").
fn percent_encoded(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => write!(encoded, "%{byte:02X}").expect("text grows"),
        }
    }
    encoded
}

pub(super) const CONTENT_TYPE: HeaderValue = HeaderValue::from_static(super::CONTENT_TYPE);
/// Says how messages to this node may be compressed.
pub(super) const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
pub(super) const ENCODINGS: HeaderValue = HeaderValue::from_static("identity,gzip,deflate");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// The stable name of the code.
const CODE: HeaderName = HeaderName::from_static("paceline-code");
/// A third of what clients take, since each byte may need three.
const MESSAGE_BYTES_MAX: usize = 2 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_status_and_name() {
        for code in ErrorCode::ALL {
            let failure = Failure::new(code, "50 % of \u{e4}\n").retry_after_ms(1_001);
            let response = failed(&failure);
            let headers = response.headers();
            assert_eq!(headers["grpc-status"], code.grpc_status().to_string());
            assert_eq!(headers["grpc-message"], "50 %25 of %C3%A4%0A");
            assert_eq!(headers["paceline-code"], code.name());
            assert_eq!(headers["retry-after"], "2");
            let status = status(&failure);
            assert_eq!(status.code() as i32, i32::from(code.grpc_status()));
            assert_eq!(status.metadata().get("paceline-code").unwrap(), code.name());
        }
    }

    #[test]
    fn a_sentence_stays_short_enough_for_a_header() {
        let long = "\u{e4}".repeat(4_000);
        let response = failed(&Failure::new(ErrorCode::Internal, long));
        let bytes = response.headers()["grpc-message"].len();
        assert!((6_000..7_000).contains(&bytes), "{bytes}");
    }
}
