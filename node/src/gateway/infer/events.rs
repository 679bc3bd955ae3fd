//! A request over HTTP whose answer is streamed as events: each part is an answer of its own, in
//! JSON.

use bytes::Bytes;
use paceline_core::Instant;
use paceline_core::failover::Terms;
use paceline_protocol::{Epoch, ErrorCode, Failure, VersionNumber};

use super::stream::{Done, Limits, Outlet, Ran, Streamed, Taker, Tally};
use super::{InferBody, Pinned, Serving};
use crate::admission::Asker;
use crate::gateway::oip::{self, AnswerView, ParameterValue, ParsedRequest};
use crate::telemetry::metrics::{Protocol, Stage};

/// A part of an answer, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPart {
    /// The answer to its rows, in JSON, on one line.
    pub json: Bytes,
    /// The version that ran.
    pub version: VersionNumber,
    /// The epoch that the request was pinned at.
    pub epoch: Epoch,
    /// For how many seconds the node had been without contact to a quorum when it was pinned, if
    /// it had none.
    pub stale_seconds: Option<u64>,
}

impl Serving {
    /// Answers a request in parts, and says how many rows they answer together. Dropping the future
    /// cancels what has not started.
    ///
    /// # Errors
    /// Exactly one [`Failure`]; parts before it may have been taken.
    pub async fn stream_events(
        &self,
        mut request: InferBody<'_>,
        taker: &mut dyn Taker<EventPart>,
    ) -> Result<u64, Failure> {
        let arrived = self.clock.now();
        let refused = |failure: &Failure| self.metrics.refused(Protocol::Http, failure.code);
        if let Some(seen) = request.epoch_seen {
            self.reach_for_stream(seen).await.inspect_err(refused)?;
        }
        let pinned = self.pin(request.target(arrived)).inspect_err(refused)?;
        let mut tally = Tally::begin(self, Protocol::Http, (&pinned, arrived));
        let ended = match self.read(arrived, &mut request, pinned) {
            Ok((pinned, parsed)) => {
                tally.of(&pinned);
                let read = (&request, parsed);
                self.stream_events_read(arrived, pinned, read, taker).await
            }
            Err(failure) => Err(failure),
        };
        tally.end(ended.as_ref().map_err(|failure| failure.code));
        ended.map(|done| done.rows)
    }

    async fn stream_events_read(
        &self,
        arrived: Instant,
        pinned: Pinned,
        (request, mut parsed): (&InferBody<'_>, ParsedRequest),
        taker: &mut dyn Taker<EventPart>,
    ) -> Result<Done, Failure> {
        let target = request.target(arrived);
        refuse_binary(&parsed)?;
        let parsed_at = self.clock.now();
        pinned.spent(Stage::Parse, parsed_at.nanos_since(target.arrived));
        let limits = Limits::begin(target.arrived, parsed.parameters.timeout_us);
        let criticality = parsed.parameters.criticality();
        let tenant = request.caller.tenant;
        let asker = Asker {
            criticality,
            tenant,
            in_parts: true,
        };
        let _permit = self.admit(parsed_at, limits.first_due, asker)?;
        let rows = parsed.rows() as u32;
        let streamed = Streamed {
            inputs: std::mem::take(&mut parsed.inputs),
            terms: Terms {
                deadline: limits.first_due,
                is_idempotent: request.may_run_twice(&parsed),
                is_second: false,
                lost: None,
                criticality,
                tenant,
                sequence: request.in_sequence(rows),
            },
            limits,
            target,
        };
        let write = |ran: Ran<'_>| self.written(request.model, &parsed, ran);
        let outlet = Outlet {
            write: &write,
            taker,
        };
        let ended = self.execute_in_parts(pinned, streamed, outlet).await;
        ended.map_err(|unanswered| unanswered.failure)
    }

    /// A part as the protocol writes an answer, with the number of its first row.
    fn written(
        &self,
        model_name: &str,
        parsed: &ParsedRequest,
        ran: Ran<'_>,
    ) -> Result<EventPart, Failure> {
        let begun_at = self.clock.now();
        let pinned = ran.pinned;
        let first_row = ParameterValue::Unsigned(ran.first_row);
        let rendered = oip::render(&AnswerView {
            model_name,
            version: pinned.version.version,
            id: parsed.id.as_deref(),
            parameters: &[("first_row".to_owned(), first_row)],
            signature: &pinned.version.signature,
            outputs: &ran.outputs,
            wanted: &parsed.outputs,
        })?;
        pinned.spent(Stage::Render, self.clock.now().nanos_since(begun_at));
        Ok(EventPart {
            json: rendered.head,
            version: pinned.version.version,
            epoch: pinned.epoch,
            stale_seconds: pinned.stale_seconds,
        })
    }
}

/// Events are text.
fn refuse_binary(parsed: &ParsedRequest) -> Result<(), Failure> {
    if parsed.outputs.iter().any(|wanted| wanted.binary) {
        let message = "an answer as text/event-stream has no binary outputs: ask without \
                       binary_data, binary_data_output and a raw body, or without this Accept";
        return Err(Failure::new(ErrorCode::ParameterInvalid, message));
    }
    Ok(())
}
