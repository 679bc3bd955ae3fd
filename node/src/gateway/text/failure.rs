//! Failures as clients for texts read them.

use bytes::Bytes;
use paceline_protocol::{ErrorCode, Failure};

use super::request::Asked;
use crate::gateway::oip::json::write::{document, key, object, string_member};

/// The status of a failure. TEI tells what is wrong with a request by 422, not by 400.
pub fn status(asked: Asked, failure: &Failure) -> u16 {
    match (asked, failure.code.http_status()) {
        (Asked::Embeddings, status) => status,
        (_, 400) => 422,
        (_, status) => status,
    }
}

/// The body of a failure.
pub fn render_failure(asked: Asked, failure: &Failure) -> Bytes {
    let status = failure.code.http_status();
    match asked {
        Asked::Embeddings => document(|out| {
            key(out, "error");
            object(out, |out| {
                string_member(out, "message", &failure.message);
                string_member(out, "type", openai_type(status));
                key(out, "param");
                out.extend_from_slice(b"null");
                string_member(out, "code", openai_code(failure.code));
            });
        }),
        Asked::Embed | Asked::Rerank | Asked::Predict | Asked::Tokenize | Asked::Info => {
            document(|out| {
                string_member(out, "error", &failure.message);
                string_member(out, "error_type", tei_type(failure.code));
                string_member(out, "code", failure.code.name());
            })
        }
    }
}

fn openai_type(status: u16) -> &'static str {
    match status {
        401 | 403 => "authentication_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

/// The code that OpenAI's clients know, or our own.
fn openai_code(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::ModelNotFound | ErrorCode::VersionNotFound => "model_not_found",
        ErrorCode::Unauthenticated => "invalid_api_key",
        code if code.http_status() == 429 => "rate_limit_exceeded",
        code => code.name(),
    }
}

fn tei_type(code: ErrorCode) -> &'static str {
    match (code, code.http_status()) {
        (ErrorCode::InputMissing, _) => "Empty",
        (_, 429) => "Overloaded",
        (_, 503) => "Unhealthy",
        (_, 500..) => "Backend",
        _ => "Validation",
    }
}
