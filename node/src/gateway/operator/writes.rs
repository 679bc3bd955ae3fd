//! What all writes have in common: what they are named by and presuppose, and how they are answered.

use std::time::Duration;

use axum::Json;
use paceline_protocol::operator::Committed;
use paceline_protocol::registry::Change;
use paceline_protocol::{Epoch, ErrorCode, Failure, OpId};
use serde::Deserialize;
use tokio::time::Instant;

use super::{OperatorParts, Refused};
use crate::registry;

/// Writes a change of a model.
pub(super) async fn write(
    parts: &OperatorParts,
    op: OpId,
    (change, seen): (Change, SeenQuery),
) -> Result<Json<Committed>, Refused> {
    let written = parts.registry.write_expecting(op, change, seen.revision());
    let (epoch, _) = written.await?;
    Ok(Json(committed(parts, epoch).await))
}

/// What the author of a write has seen of the model that it changes.
#[derive(Deserialize)]
pub(super) struct SeenQuery {
    expected_revision: Option<u64>,
}

impl SeenQuery {
    pub(super) fn revision(&self) -> Option<Epoch> {
        self.expected_revision.map(Epoch)
    }
}

/// The query of a write that has no body.
#[derive(Deserialize)]
pub(super) struct OpQuery {
    op: Option<String>,
}

pub(super) fn op_of(query: OpQuery) -> Result<OpId, Failure> {
    match query.op {
        None => registry::fresh_op(),
        Some(text) => text
            .parse()
            .map_err(|error| Failure::new(ErrorCode::ParameterInvalid, format!("op: {error}"))),
    }
}

/// On how many ready nodes an epoch is applied; waits a moment for them. This node is one of
/// them as long as it answers.
pub(super) async fn committed(parts: &OperatorParts, epoch: Epoch) -> Committed {
    let deadline = Instant::now() + APPLIED_LIMIT;
    let here = parts.router.wait_for(epoch, APPLIED_LIMIT).await;
    let (applied, peers) = parts.observed.wait_applied(epoch, deadline).await;
    Committed {
        epoch,
        applied_on: u32::from(here) + applied,
        nodes: 1 + peers,
    }
}

/// How long a write waits for the ready nodes to apply it.
const APPLIED_LIMIT: Duration = Duration::from_secs(2);
