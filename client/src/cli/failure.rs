//! How a command ends when it does not end well: what is said, and with which exit code.

use std::io;

use crate::api::{ApiError, NodeAddress, UploadError};

use super::artifact::ArtifactError;
use super::context::ContextError;

/// Why a command is not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Called in a way that cannot be meant.
    #[error("{0}")]
    Usage(String),
    /// It did not work.
    #[error("{0}")]
    Failed(String),
    /// The node did not do it, or could not be asked.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A write whose end may be unknown.
    #[error("{error}")]
    Write {
        error: ApiError,
        /// The command that repeats it under the same op-id.
        repeat: String,
    },
    /// A file was not uploaded.
    #[error(transparent)]
    Upload(UploadError),
    /// The folder is no artifact.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The context does not say where the cluster is.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// Stdout cannot be written.
    #[error("cannot write to stdout: {0}")]
    Stdout(io::Error),
    /// Whoever read stdout has gone; they have seen enough.
    #[error("")]
    ReaderGone,
}

impl Failure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::ReaderGone => 0,
            Self::Usage(_) | Self::Context(_) => 2,
            Self::Api(error) | Self::Write { error, .. } => exit_code_of(error),
            Self::Upload(UploadError::Api(error)) => exit_code_of(error),
            Self::Failed(_) | Self::Upload(_) | Self::Artifact(_) | Self::Stdout(_) => 1,
        }
    }

    /// What to say on stderr: the failure, then what to do about it.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match self {
            Self::ReaderGone => return lines,
            _ => lines.push(format!("error: {self}")),
        }
        match self {
            Self::Api(error) | Self::Upload(UploadError::Api(error)) => lines.extend(advice(error)),
            Self::Write { error, repeat } => {
                lines.extend(advice(error));
                if error.leaves_open() {
                    lines.push(format!(
                        "It may be done nevertheless. Settle it with `{repeat}`: it is done at most once."
                    ));
                }
            }
            _ => {}
        }
        lines
    }
}

impl From<io::Error> for Failure {
    /// Only stdout is written with bare I/O; everything else has errors of its own.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::Stdout(error),
        }
    }
}

impl From<UploadError> for Failure {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Api(error) => Self::Api(error),
            other => Self::Upload(other),
        }
    }
}

/// Policy is what the same caller could not change by asking better: not theirs, taken, too much.
fn exit_code_of(error: &ApiError) -> u8 {
    match error {
        ApiError::Refused {
            status: 403 | 409 | 429,
            ..
        } => 3,
        _ => 1,
    }
}

fn advice(error: &ApiError) -> Option<String> {
    match error {
        ApiError::Unreachable { address, .. } => Some(start_or_name(address)),
        ApiError::Malformed { .. } => {
            Some("Is that the HTTP port of a paceline node? Name another with --addr.".into())
        }
        ApiError::Refused { status, code, .. } if error.code().is_some() => Some(format!(
            "{code}, status {status}: `paceline explain {code}` says more."
        )),
        ApiError::Refused { .. } | ApiError::NoAnswer { .. } => None,
    }
}

fn start_or_name(address: &NodeAddress) -> String {
    let named = "name another with --addr HOST:PORT or PACELINE_ADDR.";
    if *address == NodeAddress::default() {
        format!("Start a node with `paceline serve --demo`, or {named}")
    } else {
        format!("Is a node running there? Start one with `paceline serve --demo`, or {named}")
    }
}
