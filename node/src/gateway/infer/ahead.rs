//! Requests of clients that have seen more than this node: an answer's epoch never falls for a
//! client, so this node catches up, or lets one answer that is not behind.

use std::time::Duration;

use paceline_core::Instant;
use paceline_core::ahead::{self, Peer};
use paceline_core::batcher::DropReason;
use paceline_protocol::frame::{ClientInfer, Execution, Frame, Message};
use paceline_protocol::{Epoch, ErrorCode, Failure, NodeId, Reading, Tensor};

use super::missed::dropped;
use super::{Answered, InferBody, Pinned, Served, Serving, budget_nanos, view};
use crate::dispatch::Lost;
use crate::gateway::oip::AnswerView;
use crate::gateway::quic::{ClientAnswer, ClientFailure, ClientRequest};
use crate::telemetry::metrics::StageNanos;

impl Serving {
    /// Waits a moment until this node knows what the caller has seen elsewhere; says whether it
    /// does.
    pub(in crate::gateway) async fn catch_up(&self, seen: Epoch) -> bool {
        self.router.routes().epoch >= seen || self.router.wait_for(seen, CATCH_UP_MAX).await
    }

    /// The same, for what was sent on already.
    async fn reach(&self, seen: Epoch) -> Result<(), Failure> {
        match self.catch_up(seen).await {
            true => Ok(()),
            false => Err(self.behind(seen)),
        }
    }

    /// Has a peer answer that is not behind. A request that may run twice is sent once more
    /// when the first peer falls silent, as the second attempt that it is.
    pub(in crate::gateway) async fn send_ahead(
        &self,
        request: ClientRequest,
        deadline: Instant,
    ) -> Result<ClientAnswer, ClientFailure> {
        let ClientRequest { mut head, inputs } = request;
        let mut asked = Vec::new();
        let mut lost = None;
        while asked.len() < ASKED_MAX
            && let Some(node) = self.ahead(head.epoch_seen, &asked)
        {
            asked.push(node);
            let left_us = deadline.nanos_since(self.clock.now()) / 1_000;
            if left_us == 0 {
                let failure = dropped(DropReason::Expired);
                let execution = Execution::NotExecuted;
                return Err(after(lost, ClientFailure { failure, execution }));
            }
            head.budget_us = left_us;
            let frame = Frame {
                number: 0,
                message: Message::ClientInfer(head.clone()),
                tensors: inputs.clone(),
            };
            match self.ask_ahead(node, frame, deadline).await {
                // A node that stops has not taken it.
                Ok(Frame {
                    message: Message::Gone { .. },
                    ..
                })
                | Err(Lost::NotSent { .. }) => {}
                Ok(frame) => return ClientAnswer::told(frame).map_err(|told| after(lost, told)),
                Err(silent @ Lost::Silent { .. }) if head.idempotent && lost.is_none() => {
                    head.attempt = 2;
                    head.lost = Some(node);
                    lost = Some(ended(&silent));
                }
                Err(other) => return Err(after(lost, ended(&other))),
            }
        }
        Err(lost.unwrap_or_else(|| ClientFailure {
            failure: self.behind(head.epoch_seen),
            execution: Execution::NotExecuted,
        }))
    }

    /// Has a peer answer a request over HTTP or gRPC that was pinned to what this node knows: its body is
    /// read, and the answer written, by the signature that is known here.
    pub(super) async fn infer_ahead(
        &self,
        (arrived, seen): (Instant, Epoch),
        pinned: Pinned,
        request: InferBody<'_>,
    ) -> Result<(Served, Answered), Failure> {
        let version = &pinned.version;
        if request.content.reading() != Reading::default() {
            // What is sent on has names and tensors, and cannot say how they are read.
            return Err(self.behind(seen));
        }
        let mut parsed = request
            .parsed(version)
            .map_err(|failure| match failure.code {
                ErrorCode::JsonInvalid
                | ErrorCode::BinaryInvalid
                | ErrorCode::MessageInvalid
                | ErrorCode::TooLarge
                | ErrorCode::Overloaded => failure,
                // What does not fit here may fit what this node has not heard of.
                _ => self.behind(seen),
            })?;
        let rows = parsed.rows() as u32;
        let deadline = arrived.plus_nanos(budget_nanos(parsed.parameters.timeout_us));
        let inputs = version
            .signature
            .inputs
            .iter()
            .map(|spec| spec.name.clone());
        let head = ClientInfer {
            model: version.model.clone(),
            // A label is read where it is known what it is of by now.
            version: request.version.and_then(|named| named.parse().ok()),
            budget_us: 0,
            attempt: 1,
            epoch_seen: seen,
            idempotent: request.may_run_twice(&parsed),
            inputs: inputs.collect(),
            outputs: Vec::new(),
            lost: None,
            criticality: parsed.parameters.criticality(),
            tenant: request.caller.tenant,
            unit: request.unit.clone(),
            sequence: request.sequence_of(&parsed),
            in_parts: false,
        };
        let inputs = std::mem::take(&mut parsed.inputs);
        let request_ahead = ClientRequest { head, inputs };
        let answer = self.send_ahead(request_ahead, deadline).await;
        let answer = answer.map_err(|failed| failed.failure)?;
        let told = answer.outputs.iter();
        let told = told.map(|(name, tensor)| (name.as_str(), tensor.dtype()));
        let known = version.signature.outputs.iter();
        if !told.eq(known.map(|spec| (spec.name.as_str(), spec.dtype))) {
            let message = "a peer has answered by a version that this node has not heard of and \
                           whose outputs it cannot write; the request was executed";
            return Err(Failure::new(ErrorCode::Internal, message));
        }
        let (_, outputs): (Vec<String>, Vec<Tensor>) = answer.outputs.into_iter().unzip();
        let view = AnswerView {
            version: answer.version,
            ..view(&request, &pinned, &parsed, &outputs)
        };
        let answered = Answered {
            rendered: request.content.render(&view, answer.epoch)?,
            version: answer.version,
            epoch: answer.epoch,
            stale_seconds: answer.stale_seconds.map(u64::from),
        };
        let stages = StageNanos::default();
        Ok((Served { rows, stages }, answered))
    }

    /// Answers what a peer has sent on because it was behind; it is not sent on again.
    pub(super) async fn answer_ahead(&self, head: ClientInfer, inputs: Vec<Tensor>) -> Frame {
        let answered = match self.reach(head.epoch_seen).await {
            Ok(()) => self.answer_client(ClientRequest { head, inputs }).await,
            Err(failure) => Err(ClientFailure {
                failure,
                execution: Execution::NotExecuted,
            }),
        };
        let (message, tensors) = match answered {
            Ok(answer) => answer.into_message(),
            Err(failure) => (failure.into_message(), Vec::new()),
        };
        Frame {
            number: 0,
            message,
            tensors,
        }
    }

    async fn ask_ahead(&self, node: NodeId, frame: Frame, until: Instant) -> Result<Frame, Lost> {
        tokio::select! {
            biased;
            answer = self.peers.ask(node, frame, self.clock.deadline(until)) => answer,
            () = self.suspects.wait_for(node) => Err(Lost::Silent { peer: node }),
        }
    }

    fn ahead(&self, seen: Epoch, asked: &[NodeId]) -> Option<NodeId> {
        let (peers, suspects) = (self.observed.nodes(), self.suspects.current());
        let peers = peers.iter().map(|(node, facts)| Peer {
            node: *node,
            epoch: facts.epoch,
            takes_requests: facts.ready && !suspects.contains_key(node) && !asked.contains(node),
        });
        ahead::ahead(seen, peers)
    }

    /// Whether this node answers a request in parts: such a request is not sent on to a node that
    /// knows more.
    ///
    /// # Errors
    /// This node stays behind what the client has seen.
    pub(in crate::gateway) async fn reach_for_stream(&self, seen: Epoch) -> Result<(), Failure> {
        if self.catch_up(seen).await {
            return Ok(());
        }
        let here = self.router.routes().epoch;
        let message = format!(
            "the client has seen epoch {seen}, this node knows {here}, and a request whose answer is \
             streamed is not sent on: ask another node; nothing was executed"
        );
        Err(Failure::new(ErrorCode::Stale, message))
    }

    pub(super) fn behind(&self, seen: Epoch) -> Failure {
        let here = self.router.routes().epoch;
        let message = format!(
            "the client has seen epoch {seen}, this node knows {here} and reaches no node that \
             is not behind; nothing was executed"
        );
        Failure::new(ErrorCode::Stale, message)
    }
}

/// The end of a request that a peer has taken along before, if one has: it may have run there.
fn after(lost: Option<ClientFailure>, ended: ClientFailure) -> ClientFailure {
    match (lost, ended.execution) {
        (Some(_), Execution::NotExecuted) => ClientFailure {
            execution: Execution::Unknown,
            ..ended
        },
        _ => ended,
    }
}

fn ended(lost: &Lost) -> ClientFailure {
    let (code, execution) = match lost {
        Lost::NotSent { .. } => (ErrorCode::Stale, Execution::NotExecuted),
        Lost::Full { .. } => (ErrorCode::Overloaded, Execution::NotExecuted),
        Lost::Silent { .. } => (ErrorCode::Unreachable, Execution::Unknown),
        Lost::Late { .. } => (ErrorCode::DeadlineExceeded, Execution::Unknown),
    };
    ClientFailure {
        failure: Failure::new(code, lost.to_string()),
        execution,
    }
}

/// A follower is behind by a round trip, or else by an election.
const CATCH_UP_MAX: Duration = Duration::from_millis(50);
/// Peers that are asked at most: one, and one more if it falls silent.
const ASKED_MAX: usize = 2;
