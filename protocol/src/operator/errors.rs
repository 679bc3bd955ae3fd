//! Error codes on the operator API.

use serde::{Deserialize, Serialize};

use crate::error::ErrorCode;

/// One entry of `GET /v2/paceline/errors`, in the order of the wire: a code as each protocol says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    /// The stable name.
    pub code: String,
    /// Status on HTTP doors.
    pub http: u16,
    /// Status on gRPC doors, by number.
    pub grpc: u8,
    /// The same by name, which is also TensorFlow's `error_code`.
    pub status: String,
    /// Whether the same request may succeed if sent again.
    pub retryable: bool,
    /// Why it happens.
    pub cause: String,
    /// What to do.
    pub remedy: String,
}

impl ErrorView {
    /// All codes that this release knows.
    pub fn all() -> Vec<Self> {
        ErrorCode::ALL.into_iter().map(Self::from).collect()
    }
}

impl From<ErrorCode> for ErrorView {
    fn from(code: ErrorCode) -> Self {
        let explanation = code.explain();
        Self {
            code: explanation.name.to_owned(),
            http: explanation.http,
            grpc: explanation.grpc,
            status: code.status_name().to_owned(),
            retryable: explanation.retryable,
            cause: explanation.cause.to_owned(),
            remedy: explanation.remedy.to_owned(),
        }
    }
}
