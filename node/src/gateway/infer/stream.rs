//! A request whose answer is streamed: its parts run, and are handed to its client's connection, as
//! [`paceline_core::stream`] says.
//!
//! Hot path: all of it runs in the request's own task. When that is dropped, what has not started
//! is cancelled, here and on other nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use paceline_core::Instant;
use paceline_core::batcher::DropReason;
use paceline_core::failover::Terms;
use paceline_core::stream::{self, Ending, Next, Part, Stream};
use paceline_protocol::frame::Execution;
use paceline_protocol::limits::{
    REQUEST_BUDGET_MAX_MS, REROUTES_MAX, STREAM_PART_BUDGET_DEFAULT_MS, STREAM_PARTS_MAX,
    STREAM_STALL_MS,
};
use paceline_protocol::{Epoch, ErrorCode, Failure, Tensor};

use super::missed::{Gone, Missed, Unanswered, dropped, gone};
use super::{Pinned, Serving, Target};
use crate::router::Arm;
use crate::telemetry::metrics::{Protocol, StageNanos, Took, VersionMetrics};
use crate::transport::Boxed;

/// Takes the parts of one answer: the connection of a client.
pub trait Taker<P>: Send {
    /// Begins with the next part. Called when all of the one before was taken.
    ///
    /// # Errors
    /// The part cannot be sent.
    fn begin(&mut self, part: P) -> Result<(), Failure>;

    /// Waits until the connection has taken more of the part. Dropped before its end, it has done
    /// nothing, and may be asked again.
    ///
    /// # Errors
    /// The client has gone.
    fn moved(&mut self) -> Boxed<'_, Result<Moved, Disconnected>>;
}

/// How far a part has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// Some of it was taken.
    Some,
    /// All of it was.
    All,
}

/// The client of a stream has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client has gone")]
pub struct Disconnected;

/// A part that ran.
pub(super) struct Ran<'a> {
    pub(super) pinned: &'a Pinned,
    pub(super) first_row: u64,
    /// In the order of the signature.
    pub(super) outputs: Vec<Tensor>,
}

/// Where parts go, and how they are written for that.
pub(super) struct Outlet<'a, P> {
    pub(super) write: &'a (dyn Fn(Ran<'_>) -> Result<P, Failure> + Sync),
    pub(super) taker: &'a mut dyn Taker<P>,
}

/// A request that has been let in.
pub(super) struct Streamed<'a> {
    pub(super) inputs: Vec<Tensor>,
    pub(super) terms: Terms,
    pub(super) limits: Limits,
    pub(super) target: Target<'a>,
}

/// A streamed answer that was taken whole.
pub(super) struct Done {
    pub(super) rows: u64,
    /// When its first part was there: what follows goes at the client's pace.
    first_at: Instant,
    stages: StageNanos,
}

/// How long a stream and its parts may take.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// When the first part is due.
    pub(super) first_due: Instant,
    part_budget: Duration,
    until: Instant,
}

impl Limits {
    /// Those of a request that arrived then, whose client gives each part so long.
    pub(super) fn begin(arrived: Instant, timeout_us: Option<u64>) -> Self {
        let longest = Duration::from_millis(REQUEST_BUDGET_MAX_MS);
        let part_budget = match timeout_us {
            None | Some(0) => Duration::from_millis(STREAM_PART_BUDGET_DEFAULT_MS),
            Some(micros) => Duration::from_micros(micros).min(longest),
        };
        Self {
            first_due: arrived + part_budget,
            part_budget,
            until: arrived + longest,
        }
    }
}

impl Serving {
    /// Runs the request part by part. It is pinned anew as any other, as long as none of its parts
    /// was answered.
    pub(super) async fn execute_in_parts<P: Send>(
        &self,
        mut pinned: Pinned,
        streamed: Streamed<'_>,
        mut outlet: Outlet<'_, P>,
    ) -> Result<Done, Unanswered> {
        for _ in 0..=REROUTES_MAX {
            let ran = self.run_in_parts(&pinned, &streamed, &mut outlet).await;
            let heard = match ran {
                Ok(first_at) => {
                    return Ok(Done {
                        rows: streamed.rows(),
                        first_at,
                        stages: pinned.times.nanos(),
                    });
                }
                Err(Missed::Ended(unanswered)) => return Err(unanswered),
                Err(Missed::Gone(left)) => left.epoch,
            };
            match self.pin_anew(&pinned, heard, streamed.target).await {
                Some(newest) => pinned = newest,
                None => break,
            }
        }
        Err(gone().into())
    }

    async fn run_in_parts<P: Send>(
        &self,
        pinned: &Pinned,
        streamed: &Streamed<'_>,
        outlet: &mut Outlet<'_, P>,
    ) -> Result<Instant, Missed> {
        let mut stream = Stream::begin(streamed.plan(pinned));
        let mut running = FuturesUnordered::new();
        let mut answers: BTreeMap<Part, Vec<Tensor>> = BTreeMap::new();
        let mut is_offering = false;
        let (mut heard, mut first_at) = (pinned.epoch, None);
        loop {
            match stream.next(self.clock.now()) {
                Next::Start { part, rows, due } => {
                    let inputs = &streamed.inputs;
                    let cut = inputs.iter().map(|tensor| tensor.slice_rows(rows.clone()));
                    let inputs: Vec<Tensor> = cut.collect();
                    let terms = Terms {
                        deadline: due,
                        ..streamed.terms
                    };
                    running.push(async move { (part, self.run_part(pinned, inputs, terms).await) });
                }
                Next::Offer { part } => {
                    first_at.get_or_insert(self.clock.now());
                    let ran = Ran {
                        pinned,
                        first_row: stream.first_row(part),
                        outputs: answers.remove(&part).unwrap_or_default(),
                    };
                    let begun = (outlet.write)(ran).and_then(|part| outlet.taker.begin(part));
                    begun.map_err(executed)?;
                    is_offering = true;
                }
                Next::Wait { until } => tokio::select! {
                    biased;
                    moved = outlet.taker.moved(), if is_offering => match moved {
                        Ok(Moved::Some) => stream.moved(self.clock.now()),
                        Ok(Moved::All) => {
                            is_offering = false;
                            stream.taken();
                        }
                        Err(Disconnected) => return Err(cancelled(&stream, DISCONNECTED)),
                    },
                    Some((part, ran)) = running.next() => match ran {
                        Ok(outputs) => {
                            answers.insert(part, outputs);
                            stream.answered(part);
                        }
                        Err(Missed::Ended(unanswered)) => {
                            let is_alone = part == Part(0) && running.is_empty() && answers.is_empty();
                            let unanswered = match is_alone && !stream.has_answered() {
                                // Nothing else was begun: it says all there is to say.
                                true => unanswered,
                                false => unanswered.among(stream.has_answered()),
                            };
                            return Err(unanswered.into());
                        }
                        Err(Missed::Gone(left)) => {
                            heard = heard.max(left.epoch);
                            stream.gone(part);
                        }
                    },
                    () = tokio::time::sleep_until(self.clock.deadline(until)) => {}
                },
                Next::End(Ending::Complete) => return Ok(first_at.unwrap_or(self.clock.now())),
                Next::End(ending) => return Err(ended(ending, &stream, heard)),
            }
        }
    }
}

impl Streamed<'_> {
    fn rows(&self) -> u64 {
        self.inputs.first().map_or(0, Tensor::rows)
    }

    /// A part is what one batch of the version answers.
    fn plan(&self, pinned: &Pinned) -> stream::Terms {
        stream::Terms {
            rows: self.rows(),
            part_rows: u64::from(pinned.version.rows_max).max(1),
            parts_max: STREAM_PARTS_MAX,
            part_budget: self.limits.part_budget,
            stall_limit: Duration::from_millis(STREAM_STALL_MS),
            until: self.limits.until,
        }
    }
}

/// What is told of a stream that ended before its time.
fn ended(ending: Ending, stream: &Stream, heard: Epoch) -> Missed {
    match ending {
        Ending::Late | Ending::Complete => {
            let late = Unanswered::from(dropped(DropReason::Expired));
            late.among(stream.has_answered()).into()
        }
        Ending::Stalled => cancelled(stream, STALLED),
        Ending::Gone => Missed::Gone(Gone {
            epoch: heard,
            inputs: Vec::new(),
        }),
        Ending::GoneMidway => executed(Failure::new(ErrorCode::VersionGone, GONE_MIDWAY)),
    }
}

fn executed(failure: Failure) -> Missed {
    let execution = Execution::Executed;
    Missed::Ended(Unanswered { failure, execution })
}

fn cancelled(stream: &Stream, message: &'static str) -> Missed {
    let unanswered = Unanswered::from(Failure::new(ErrorCode::Cancelled, message));
    unanswered.among(stream.has_answered()).into()
}

/// Counts a streamed request once, however it ends: also if its client goes and its task is
/// dropped.
pub(super) struct Tally<'a> {
    serving: &'a Serving,
    protocol: Protocol,
    arrived: Instant,
    metrics: VersionMetrics,
    arm: Option<Arm>,
    is_counted: bool,
}

impl<'a> Tally<'a> {
    pub(super) fn begin(
        serving: &'a Serving,
        protocol: Protocol,
        (pinned, arrived): (&Pinned, Instant),
    ) -> Self {
        Self {
            serving,
            protocol,
            arrived,
            metrics: pinned.version.metrics.clone(),
            arm: pinned.arm.clone(),
            is_counted: false,
        }
    }

    /// It was pinned anew before it was let in.
    pub(super) fn of(&mut self, pinned: &Pinned) {
        (self.metrics, self.arm) = pinned.counted();
    }

    /// The request has ended. Its version is judged by how soon its first part was there.
    pub(super) fn end(mut self, ended: Result<&Done, ErrorCode>) {
        self.is_counted = true;
        let nanos = self.serving.clock.now().nanos_since(self.arrived);
        match ended {
            Ok(done) => {
                let first_nanos = done.first_at.nanos_since(self.arrived);
                let rows = done.rows as u32;
                let stages = done.stages;
                self.metrics
                    .succeeded(self.protocol, rows, Took { nanos, stages });
                self.arm.iter().for_each(|arm| arm.answered(first_nanos));
            }
            Err(code) => {
                self.metrics.failed(self.protocol, code, nanos);
                // When it came to its end was up to its client, too.
                if code != ErrorCode::DeadlineExceeded {
                    self.arm.iter().for_each(|arm| arm.failed(code, nanos));
                }
            }
        }
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        if !self.is_counted {
            let nanos = self.serving.clock.now().nanos_since(self.arrived);
            self.metrics
                .failed(self.protocol, ErrorCode::Cancelled, nanos);
        }
    }
}

const DISCONNECTED: &str = "the client has gone before it had taken its answer";
const STALLED: &str =
    "the client has taken nothing of its answer for 10 s; rows that had not started are cancelled";
const GONE_MIDWAY: &str =
    "the version was taken away after a part of the request was answered by it";
