//! Stable error codes: what went wrong, why, what to do, and how each protocol says it.
//!
//! This is the one table from outcome to HTTP status, gRPC code and retryability. Codes are
//! part of the public interface: they are added, never renamed or reused.

mod table;

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A stable code. Variants are only ever appended: the wire numbers them in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// The body is not JSON, or not the JSON that was wanted.
    JsonInvalid,
    /// `Inference-Header-Content-Length` or a `binary_data_size` does not fit the body.
    BinaryInvalid,
    /// A tensor named by the request is not an input of the model.
    InputUnknown,
    /// An input of the model is missing.
    InputMissing,
    /// An input has another datatype than the model takes.
    InputDtype,
    /// An input has a shape that the model does not take.
    InputShape,
    /// An input's values do not add up to its shape, or do not fit its datatype.
    InputValues,
    /// An input holds NaN or an infinity, which the model refuses.
    InputNotFinite,
    /// A requested output does not exist.
    OutputUnknown,
    /// A parameter has a value outside what is allowed.
    ParameterInvalid,
    /// No such model, or the caller may not know of it.
    ModelNotFound,
    /// The model has no such version.
    VersionNotFound,
    /// The model exists and no replica of it is ready.
    ModelNotReady,
    /// The version that the request was pinned to has been taken away.
    VersionGone,
    /// A body or header is over its limit.
    TooLarge,
    /// The node already works on as much as it admits.
    Overloaded,
    /// The queue of the version is full, or the request would be late behind what waits in it.
    QueueFull,
    /// The budget ran out.
    DeadlineExceeded,
    /// The caller went away.
    Cancelled,
    /// The engine failed while it ran the request.
    EngineFailed,
    /// Two nodes fell silent, or their engines died, while they worked on the request; it is not
    /// tried again.
    Poison,
    /// The node stops, or its drain has come to its deadline.
    ShuttingDown,
    /// The registry cannot be written: no quorum, or no leader yet.
    NoQuorum,
    /// The deadline passed after a write was sent: it may still be committed.
    Unknown,
    /// The write was computed from a state that has changed since.
    Conflict,
    /// The name is already taken by something else.
    AlreadyExists,
    /// An artifact's manifest or a file in it is malformed or not a model.
    ArtifactInvalid,
    /// A file that a manifest names is not on this node.
    ArtifactMissing,
    /// Bytes do not match the digest that names them.
    DigestMismatch,
    /// The model could not be loaded or warmed up.
    LoadFailed,
    /// A limit of the registry would be exceeded.
    LimitReached,
    /// No such path.
    NotFound,
    /// The path exists and does not take this method.
    MethodNotAllowed,
    /// The request's Host or Origin is not this node's.
    HostRefused,
    /// The feature is known and not offered.
    Unsupported,
    /// The disk is full or failing.
    StorageFailed,
    /// A fault in Paceline itself.
    Internal,
    /// The token, key or certificate that was shown is not accepted, or no longer.
    Unauthenticated,
    /// No node could be reached, or the one that was asked was lost before it answered.
    Unreachable,
    /// The node knows less of the cluster's state than it must to answer.
    Stale,
    /// The tenant sends more than it may.
    TenantLimited,
    /// The tenant may not do this.
    PermissionDenied,
    /// The body is not the message of gRPC that was wanted.
    MessageInvalid,
    /// Rounding turns a model's answers by more than is allowed.
    TooInexact,
}

/// What is known about a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The stable name: `MODEL_NOT_FOUND`.
    pub name: &'static str,
    /// Status on HTTP doors.
    pub http: u16,
    /// Status on gRPC doors, by number.
    pub grpc: u8,
    /// Whether the same request may succeed if sent again.
    pub retryable: bool,
    /// Why it happens.
    pub cause: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

impl ErrorCode {
    /// Every code, in the order of the wire.
    pub const ALL: [Self; 44] = [
        Self::JsonInvalid,
        Self::BinaryInvalid,
        Self::InputUnknown,
        Self::InputMissing,
        Self::InputDtype,
        Self::InputShape,
        Self::InputValues,
        Self::InputNotFinite,
        Self::OutputUnknown,
        Self::ParameterInvalid,
        Self::ModelNotFound,
        Self::VersionNotFound,
        Self::ModelNotReady,
        Self::VersionGone,
        Self::TooLarge,
        Self::Overloaded,
        Self::QueueFull,
        Self::DeadlineExceeded,
        Self::Cancelled,
        Self::EngineFailed,
        Self::Poison,
        Self::ShuttingDown,
        Self::NoQuorum,
        Self::Unknown,
        Self::Conflict,
        Self::AlreadyExists,
        Self::ArtifactInvalid,
        Self::ArtifactMissing,
        Self::DigestMismatch,
        Self::LoadFailed,
        Self::LimitReached,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::HostRefused,
        Self::Unsupported,
        Self::StorageFailed,
        Self::Internal,
        Self::Unauthenticated,
        Self::Unreachable,
        Self::Stale,
        Self::TenantLimited,
        Self::PermissionDenied,
        Self::MessageInvalid,
        Self::TooInexact,
    ];

    /// What the code means, its statuses, and what to do about it.
    pub const fn explain(self) -> Explanation {
        table::EXPLANATIONS[self as usize]
    }

    /// The stable name.
    pub const fn name(self) -> &'static str {
        self.explain().name
    }

    /// Status on HTTP doors.
    pub const fn http_status(self) -> u16 {
        self.explain().http
    }

    /// Status number on gRPC doors.
    pub const fn grpc_status(self) -> u8 {
        self.explain().grpc
    }

    /// The same by name, which is also TensorFlow's `error_code`.
    pub const fn status_name(self) -> &'static str {
        table::STATUSES[self.explain().grpc as usize]
    }

    /// Whether the same request may succeed if sent again.
    pub const fn is_retryable(self) -> bool {
        self.explain().retryable
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A typed end of a request: a code, and a sentence that names what was wrong and what is
/// allowed. The sentence never holds paths, addresses or another tenant's data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of end it is.
    pub code: ErrorCode,
    /// For people.
    pub message: Cow<'static, str>,
    /// After how many milliseconds a retry makes sense, where that is known.
    pub retry_after_ms: Option<u32>,
}

impl Failure {
    /// A failure with a sentence.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after_ms: None,
        }
    }

    /// The same with advice on when to retry.
    pub fn retry_after_ms(mut self, wait_ms: u32) -> Self {
        self.retry_after_ms = Some(wait_ms);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_is_explained_once_and_named_as_it_is_serialised() {
        let mut names = BTreeSet::new();
        for code in ErrorCode::ALL {
            let explanation = code.explain();
            assert!(names.insert(explanation.name), "{} twice", explanation.name);
            assert_eq!(serde_json::to_value(code).unwrap(), explanation.name);
            assert!((400..600).contains(&explanation.http));
            assert!((1..=16).contains(&explanation.grpc));
            assert!(!explanation.cause.is_empty() && !explanation.remedy.is_empty());
        }
    }

    #[test]
    fn the_order_of_the_wire_is_the_order_of_the_list() {
        for (position, code) in ErrorCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, position);
        }
    }

    #[test]
    fn caller_faults_are_never_retryable() {
        for code in ErrorCode::ALL {
            let explanation = code.explain();
            if explanation.http == 413 || explanation.name.starts_with("INPUT_") {
                assert!(!explanation.retryable, "{code}");
            }
        }
    }
}
