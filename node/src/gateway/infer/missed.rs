//! How a request ends without an answer, and what its caller is told.

use paceline_core::admission::{LimitedBy, Refusal};
use paceline_core::batcher::DropReason;
use paceline_protocol::frame::Execution;
use paceline_protocol::{Epoch, ErrorCode, Failure, Tensor};

/// The one end of a request that was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// Why.
    pub failure: Failure,
    /// Whether any of it ran.
    pub execution: Execution,
}

/// How a part of a request ended that has no answer.
pub(super) enum Missed {
    /// That is how it ended.
    Ended(Unanswered),
    /// Nothing of it ran, and no replica of its version is left to run it.
    Gone(Gone),
}

/// What a part leaves whose version has no replica any more.
pub(super) struct Gone {
    /// The newest epoch that was heard of.
    pub(super) epoch: Epoch,
    /// What it wanted to send.
    pub(super) inputs: Vec<Tensor>,
}

impl From<Failure> for Unanswered {
    /// A request that failed before it was sent to any replica.
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            execution: Execution::NotExecuted,
        }
    }
}

impl From<Unanswered> for Missed {
    fn from(unanswered: Unanswered) -> Self {
        Self::Ended(unanswered)
    }
}

/// What the caller of a request is told that was not let in.
pub(super) fn refused(refusal: Refusal) -> Failure {
    match refusal {
        Refusal::Expired => dropped(DropReason::Expired),
        Refusal::Overloaded { retry_after } => {
            let message = "the node works on as many requests as it admits";
            Failure::new(ErrorCode::Overloaded, message)
                .retry_after_ms(retry_after.as_millis() as u32)
        }
        Refusal::Limited { by, retry_after } => {
            let message = match by {
                LimitedBy::Rate => "the tenant sends more requests a second than it may",
                LimitedBy::Concurrency => "the tenant has as many requests at a time as it may",
                LimitedBy::Others => "the tenant has so many requests here that others need room",
            };
            // Rounded up: a retry before that would be refused.
            let wait_ms = retry_after.as_nanos().div_ceil(1_000_000) as u32;
            Failure::new(ErrorCode::TenantLimited, message).retry_after_ms(wait_ms)
        }
    }
}

/// The one translation from how a request left its queue to what its caller is told.
pub(super) fn dropped(why: DropReason) -> Failure {
    match why {
        DropReason::Expired => Failure::new(
            ErrorCode::DeadlineExceeded,
            "the request's budget ran out before its answer was there",
        ),
        DropReason::Late => Failure::new(
            ErrorCode::DeadlineExceeded,
            "the request could not be answered within its budget behind what was waiting",
        ),
        DropReason::Cancelled => Failure::new(ErrorCode::Cancelled, "the request was cancelled"),
        DropReason::QueueFull { retry_after } => {
            let wait_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
            Failure::new(
                ErrorCode::QueueFull,
                "the queue holds all that can be finished in time",
            )
            .retry_after_ms(wait_ms)
        }
        DropReason::Gone => gone(),
    }
}

/// What the caller of a request is told whose version is gone.
pub(super) fn gone() -> Failure {
    let message = "the version was taken away while the request waited; nothing was executed";
    Failure::new(ErrorCode::VersionGone, message)
}
