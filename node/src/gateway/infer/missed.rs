//! How a request ends without an answer, and what its caller is told.

use paceline_core::admission::Refusal;
use paceline_core::batcher::DropReason;
use paceline_protocol::{ErrorCode, Failure, NodeId, Tensor};

/// How an attempt ended without an answer.
pub(super) enum Missed {
    /// It was certainly not executed; its inputs come back.
    Unexecuted(Failure, Vec<Tensor>),
    /// That is how it ended.
    Ended(Failure),
    /// The node fell silent, and it may have been executed there.
    Silent(NodeId, Failure, Vec<Tensor>),
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
        DropReason::Gone => Failure::new(
            ErrorCode::VersionGone,
            "the version was taken away while the request waited; nothing was executed",
        ),
    }
}
