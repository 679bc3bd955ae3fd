//! How a call to a node can end other than well.

use std::time::Duration;

use paceline_protocol::ErrorCode;

use super::NodeAddress;

/// Why a call did not give its answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The request never left: nothing listens there, or the name is unknown.
    #[error("cannot reach {address}: {reason}")]
    Unreachable {
        /// Whom it was meant for.
        address: NodeAddress,
        /// What the network said.
        reason: String,
    },
    /// The request was sent and no whole answer came back. A write may still be done.
    #[error("no answer from {address}: {reason}")]
    NoAnswer {
        /// Who was asked.
        address: NodeAddress,
        /// What happened instead.
        reason: String,
    },
    /// The node answered that it will not or cannot.
    #[error("{message}")]
    Refused {
        /// Status of the answer.
        status: u16,
        /// The stable code as it was written; empty if there was none.
        code: String,
        /// What was wrong and what is allowed.
        message: String,
        /// When to ask again, if the node says so.
        retry_after: Option<Duration>,
    },
    /// The answer is not what a node answers.
    #[error("{address} answered {path} with something else than a node does: {reason}")]
    Malformed {
        /// Who answered.
        address: NodeAddress,
        /// What was asked for.
        path: String,
        /// What is wrong with the answer.
        reason: String,
    },
}

impl ApiError {
    /// The stable code, if there is one and this release knows it.
    pub fn code(&self) -> Option<ErrorCode> {
        let Self::Refused { code, .. } = self else {
            return None;
        };
        ErrorCode::ALL
            .into_iter()
            .find(|known| known.name() == code)
    }

    /// Whether the same write, with the same op-id, is worth sending again.
    pub fn is_worth_repeating(&self) -> bool {
        match self {
            // Nothing listens: more often a wrong address than a node about to start.
            Self::Unreachable { .. } | Self::Malformed { .. } => false,
            Self::NoAnswer { .. } => true,
            Self::Refused { status, .. } => match status {
                503 | 504 => true,
                409 => self.code().is_some_and(ErrorCode::is_retryable),
                _ => false,
            },
        }
    }

    /// Whether a write that ended so may have been done nevertheless.
    pub fn leaves_open(&self) -> bool {
        matches!(self, Self::NoAnswer { .. }) || self.code() == Some(ErrorCode::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: &str) -> ApiError {
        ApiError::Refused {
            status,
            code: code.into(),
            message: "m".into(),
            retry_after: None,
        }
    }

    #[test]
    fn only_passing_troubles_are_worth_repeating() {
        for (error, wanted) in [
            (refused(503, "NO_QUORUM"), true),
            (refused(504, "UNKNOWN"), true),
            (refused(503, ""), true),
            (refused(409, "CONFLICT"), true),
            (refused(409, "ALREADY_EXISTS"), false),
            (refused(409, ""), false),
            (refused(429, "OVERLOADED"), false),
            (refused(404, "MODEL_NOT_FOUND"), false),
            (refused(500, "INTERNAL"), false),
        ] {
            assert_eq!(error.is_worth_repeating(), wanted, "{error:?}");
        }
        assert!(refused(504, "UNKNOWN").leaves_open());
        assert!(!refused(503, "NO_QUORUM").leaves_open());
        assert_eq!(refused(400, "A_CODE_OF_LATER").code(), None);
    }
}
