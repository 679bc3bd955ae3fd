//! Who belongs to the cluster: tokens, and nodes that leave for a while or for ever.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use paceline_core::membership::{self, Objection};
use paceline_protocol::limits::{
    DRAIN_DEADLINE_MAX_MS, NODES_MAX, TOKEN_TTL_DEFAULT_MS, TOKEN_TTL_MAX_MS,
};
use paceline_protocol::operator::{
    Committed, DrainRequest, TokenCreated, TokenRequest, TokenView, UndrainRequest,
};
use paceline_protocol::registry::{Change, Outcome, Refusal, TokenRecord};
use paceline_protocol::{ErrorCode, Failure, JoinToken, NodeId, OpId, Secret, TokenId};
use tokio::time::Instant;

use super::extract::{InPath, InQuery, Whole};
use super::{OpQuery, OperatorParts, Parts, Refused, committed, json, op_of};
use crate::membership::view;

pub(super) async fn create_token(
    State(parts): Parts,
    Whole(body): Whole,
) -> Result<Json<TokenCreated>, Refused> {
    let TokenRequest { ttl_ms, uses } = match body.is_empty() {
        true => TokenRequest {
            ttl_ms: None,
            uses: None,
        },
        false => json(&body)?,
    };
    let ttl_ms = ttl_ms.unwrap_or(TOKEN_TTL_DEFAULT_MS);
    let uses = uses.unwrap_or(1);
    check("ttl_ms", ttl_ms, TOKEN_TTL_MAX_MS)?;
    check("uses", u64::from(uses), NODES_MAX as u64)?;
    let pin = parts.pin.ok_or_else(|| {
        Failure::new(
            ErrorCode::Unsupported,
            "this node has no join door to make tokens for",
        )
    })?;
    let token = JoinToken {
        id: TokenId(random()?),
        secret: Secret::new(random()?),
        pin,
    };
    let expires_ms = parts.registry.wall_ms().saturating_add(ttl_ms);
    let record = TokenRecord {
        id: token.id,
        secret_sha256: token.secret.digest(),
        expires_ms,
        uses_left: uses,
    };
    let op = crate::registry::fresh_op()?;
    parts
        .registry
        .write(op, Change::CreateToken(record))
        .await?;
    Ok(Json(TokenCreated {
        token: token.reveal(),
        id: token.id.to_string(),
        expires_ms,
    }))
}

pub(super) async fn tokens(State(parts): Parts) -> Json<Vec<TokenView>> {
    let registry = parts.registry.current();
    let now_ms = parts.registry.wall_ms();
    let usable = registry
        .tokens()
        .values()
        .filter(|token| token.uses_left > 0 && token.expires_ms > now_ms);
    let views = usable.map(|token| TokenView {
        id: token.id.to_string(),
        expires_ms: token.expires_ms,
        uses_left: token.uses_left,
    });
    Json(views.collect())
}

pub(super) async fn revoke_token(
    State(parts): Parts,
    InPath(id): InPath,
    InQuery(query): InQuery<OpQuery>,
) -> Result<Json<Committed>, Refused> {
    let token: TokenId = id
        .parse()
        .map_err(|error| Failure::new(ErrorCode::ParameterInvalid, format!("token: {error}")))?;
    write(&parts, op_of(query)?, Change::RevokeToken { token }).await
}

pub(super) async fn drain(
    State(parts): Parts,
    InPath(node): InPath,
    Whole(body): Whole,
) -> Result<Json<Committed>, Refused> {
    let node = node_id(&node)?;
    let DrainRequest { op, deadline_ms } = json(&body)?;
    check("deadline_ms", deadline_ms, DRAIN_DEADLINE_MAX_MS)?;
    parts.registry.catch_up().await;
    let until = Instant::now() + Duration::from_millis(deadline_ms).min(DECISION_LIMIT);
    for attempt in 0..DRAIN_ATTEMPTS_MAX {
        let op = OpId(op.0.wrapping_add(attempt.wrapping_mul(OP_STRIDE)));
        let registry = parts.registry.current();
        // A repeat gets its first answer, whatever has become of the node since.
        if registry.outcome(op).is_none() {
            objection(&parts, node)?;
            move_leadership(&parts, node, Duration::from_millis(deadline_ms)).await;
        }
        let change = Change::Drain {
            node,
            deadline_ms,
            computed_at: registry.epoch(),
        };
        match parts.registry.write_outcome(op, change).await? {
            Outcome {
                epoch,
                result: Ok(_),
            } => return Ok(Json(committed(&parts, epoch).await)),
            // Something that the decision rests on has changed meanwhile: it is made anew,
            // under an op-id that follows from the first, since a refusal is remembered.
            Outcome {
                result: Err(Refusal::Outdated { .. }),
                ..
            } if Instant::now() > until => break,
            Outcome {
                result: Err(Refusal::Outdated { .. }),
                ..
            } => {}
            Outcome {
                result: Err(refusal),
                ..
            } => return Err(Failure::from(refusal).into()),
        }
    }
    let message = "the cluster changes too fast to tell whether the node may leave";
    Err(Failure::new(ErrorCode::Conflict, message).into())
}

pub(super) async fn undrain(
    State(parts): Parts,
    InPath(node): InPath,
    Whole(body): Whole,
) -> Result<Json<Committed>, Refused> {
    let node = node_id(&node)?;
    let UndrainRequest { op } = json(&body)?;
    write(&parts, op, Change::Undrain { node }).await
}

pub(super) async fn remove(
    State(parts): Parts,
    InPath(node): InPath,
    InQuery(query): InQuery<OpQuery>,
) -> Result<Json<Committed>, Refused> {
    let node = node_id(&node)?;
    let op = op_of(query)?;
    parts.registry.catch_up().await;
    let registry = parts.registry.current();
    // A repeat finds the node gone, and gets its first answer from the registry.
    if !registry.is_burnt(node) {
        let view = view(&registry, &parts.registry.raft());
        membership::may_remove(&view, node).map_err(refusal)?;
        move_leadership(&parts, node, LEADERSHIP_LIMIT).await;
        relieve(&parts, node).await;
    }
    write(&parts, op, Change::RemoveNode { node }).await
}

/// A node that leaves does not lead: writes would stop for an election when it is stopped. A
/// drain does not fail over it, since they would only do that.
async fn move_leadership(parts: &OperatorParts, node: NodeId, limit: Duration) {
    let (registry, metrics) = (parts.registry.current(), parts.registry.raft());
    if metrics.leader != Some(node) {
        return;
    }
    let Some(to) = membership::successor(&view(&registry, &metrics), node) else {
        return;
    };
    let deadline = Instant::now() + limit.min(LEADERSHIP_LIMIT);
    if let Err(error) = parts.registry.move_leadership((node, to), deadline).await {
        tracing::warn!(%node, %error, "a node that leaves still leads");
    }
}

/// A voter that is removed has lost its vote before, so that no moment is left in which one loss
/// is too many. Its removal does not fail over it: it may have been dead for long.
async fn relieve(parts: &OperatorParts, node: NodeId) {
    let deadline = Instant::now() + RELIEF_LIMIT;
    if let Err(error) = parts.registry.relieve(node, deadline).await {
        tracing::warn!(%node, %error, "a voter is removed before another one has its vote");
    }
}

fn objection(parts: &OperatorParts, node: NodeId) -> Result<(), Failure> {
    let registry = parts.registry.current();
    let view = view(&registry, &parts.registry.raft());
    membership::may_drain(&view, &parts.observed.states(), node).map_err(refusal)
}

fn refusal(objection: Objection) -> Failure {
    let code = match &objection {
        Objection::Unknown { .. } => ErrorCode::NotFound,
        Objection::Quorum { .. } | Objection::LastReplica { .. } => ErrorCode::Conflict,
    };
    Failure::new(code, objection.to_string())
}

pub(super) async fn write(
    parts: &Arc<OperatorParts>,
    op: OpId,
    change: Change,
) -> Result<Json<Committed>, Refused> {
    let (epoch, _) = parts.registry.write(op, change).await?;
    Ok(Json(committed(parts, epoch).await))
}

fn node_id(text: &str) -> Result<NodeId, Failure> {
    text.parse().map(NodeId).map_err(|_| {
        let text: String = text.chars().take(32).collect();
        let message = format!("node {text:?} is not an id; `paceline nodes` lists them");
        Failure::new(ErrorCode::ParameterInvalid, message)
    })
}

fn check(key: &str, value: u64, most: u64) -> Result<(), Failure> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    let message = format!("{key} = {value} is not allowed: 1 to {most}");
    Err(Failure::new(ErrorCode::ParameterInvalid, message))
}

/// 2^128 divided by the golden ratio: what follows from one op-id is far from all others, also
/// from those of clients that count.
const OP_STRIDE: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
/// How long leadership may take to move: several elections.
const LEADERSHIP_LIMIT: Duration = Duration::from_secs(2);
/// How long a learner may take to get the vote of who is removed.
const RELIEF_LIMIT: Duration = Duration::from_secs(5);
/// How often a drain is decided anew because the cluster has changed meanwhile, and for how long.
/// Each deployment is such a change: where one follows another faster than a write over a slow line
/// takes, only one decision in several comes in time.
const DRAIN_ATTEMPTS_MAX: u128 = 512;
const DECISION_LIMIT: Duration = Duration::from_secs(20);

pub(super) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        let message = format!("the system gives no entropy: {error}");
        Failure::new(ErrorCode::Internal, message)
    })?;
    Ok(bytes)
}
