//! The attempts of one part of a request: the rows that one replica takes.
//!
//! [`paceline_core::failover`] decides what follows the end of an attempt; this sends, listens to
//! what was sent, and tells how the part ended. A part that is dropped cancels its attempts and
//! gives back what they were charged to.

use std::pin::pin;
use std::task::Poll;

use paceline_core::Instant;
use paceline_core::batcher::DropReason;
use paceline_core::failover::{Attempt, End, Ending, Failover, Next, Terms};
use paceline_core::router::{Again, Been};
use paceline_protocol::limits::EXECUTIONS_MAX;
use paceline_protocol::{Epoch, ErrorCode, Failure, NodeId, Tensor};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::flight::{Cargo, Flight, Landed, Miss};
use super::missed::{Gone, Missed, Unanswered, dropped};
use super::{Pinned, Serving};
use crate::router::Wanted;

/// Rows on their way to one replica after another.
struct Part<'a> {
    serving: &'a Serving,
    pinned: &'a Pinned,
    terms: Terms,
    failover: Failover,
    been: Been,
    rows: u32,
    bytes: u64,
    /// Empty while a replica of this node has them.
    inputs: Vec<Tensor>,
    /// By place.
    flights: [Option<Sent<'a>>; EXECUTIONS_MAX],
    /// What was heard last, or what came of what ran.
    failure: Option<Failure>,
    /// Whether that is of something that ran, or may have.
    has_run: bool,
    /// Who fell silent last.
    silent: Option<NodeId>,
    /// The newest epoch that was heard of.
    epoch: Epoch,
    /// Tells when routes have changed, once there was no replica to be had.
    changes: Option<watch::Receiver<Epoch>>,
    /// Among those that wait for a replica.
    place: Option<OwnedSemaphorePermit>,
}

struct Sent<'a> {
    attempt: Attempt,
    node: NodeId,
    flight: Flight<'a>,
}

/// What comes next of all that is under way.
enum Heard {
    /// Something of an attempt.
    Of(Attempt, Landed),
    /// A failover has ended: another may begin.
    Turn,
    /// The deadline has passed.
    Late,
}

impl Serving {
    /// Runs a part of a request, and once more elsewhere as [`Failover`] allows. It keeps its
    /// version and epoch.
    pub(super) async fn run_part(
        &self,
        pinned: &Pinned,
        inputs: Vec<Tensor>,
        terms: Terms,
    ) -> Result<Vec<Tensor>, Missed> {
        let (failover, first) = Failover::begin(terms);
        let mut been = Been::default();
        if let Some(lost) = terms.lost {
            been.to(lost);
        }
        let part = Part {
            serving: self,
            pinned,
            terms,
            failover,
            been,
            rows: inputs.first().map_or(0, Tensor::rows) as u32,
            bytes: inputs.iter().map(|tensor| tensor.data().len() as u64).sum(),
            inputs,
            flights: [const { None }; EXECUTIONS_MAX],
            failure: None,
            has_run: false,
            silent: None,
            epoch: pinned.epoch,
            changes: None,
            place: None,
        };
        part.run(first).await
    }
}

impl Part<'_> {
    async fn run(mut self, first: Next) -> Result<Vec<Tensor>, Missed> {
        let mut next = first;
        loop {
            let heard = match next {
                Next::Send {
                    attempt,
                    is_alone,
                    why,
                } => {
                    if let Err(end) = self.send_anywhere(attempt, is_alone) {
                        next = self.ended(attempt, end);
                        continue;
                    }
                    self.serving.metrics.attempted(why);
                    match self.at_once(attempt) {
                        Some(landed) => Heard::Of(attempt, landed),
                        None => self.hear(false).await,
                    }
                }
                Next::Wait { attempt, until } => {
                    self.wait(until).await;
                    next = self.failover.resume(self.serving.clock.now(), attempt);
                    continue;
                }
                Next::Listen => self.hear(false).await,
                Next::Queue => self.hear(true).await,
                Next::End(ending) => return Err(self.missed(ending)),
            };
            next = match heard {
                Heard::Of(_, Landed::Ran(outputs)) => return Ok(outputs),
                Heard::Of(attempt, Landed::Missed(miss)) => self.landed(attempt, miss),
                Heard::Turn => {
                    let (now, budget) = (self.serving.clock.now(), &self.serving.budget);
                    budget.decide(|budget| self.failover.again(now, budget))
                }
                Heard::Late => Next::End(Ending::Late),
            };
        }
    }

    /// Sends it to a replica, or says what it means that there is none to be had.
    fn send_anywhere(&mut self, attempt: Attempt, is_alone: bool) -> Result<(), End> {
        if self.send(attempt, is_alone) {
            return Ok(());
        }
        let router = &self.serving.router;
        // Listened for first, and looked at once more: no change is missed.
        self.changes.get_or_insert_with(|| router.epochs());
        if self.send(attempt, is_alone) {
            return Ok(());
        }
        let routes = router.routes();
        let version = self.pinned.stays(&routes).ok_or(End::Nowhere)?;
        let now = self.serving.clock.now();
        let since = version.bare_since.unwrap_or(now);
        if self.place.is_none() {
            self.place = router.waiting_place();
        }
        match self.place {
            Some(_) => Err(End::NotYet { since }),
            // As many wait as may: the others are told at once.
            None => Err(End::NotYet {
                since: Instant::ZERO,
            }),
        }
    }

    /// Waits until routes have changed, or for a moment: a node that could not be reached may be
    /// reached then, and nothing of that is in the routes. It may go where it was before.
    async fn wait(&mut self, until: Instant) {
        let moment = self.serving.clock.now().plus_nanos(LOOK_AGAIN_NANOS);
        let until = self.serving.clock.deadline(until.min(moment));
        if let Some(changes) = &mut self.changes {
            // Its sender lives as long as the router's handle.
            drop(tokio::time::timeout_at(until, changes.changed()).await);
        }
        self.been = Been::default();
    }

    /// `false` if no replica can be picked.
    fn send(&mut self, attempt: Attempt, is_alone: bool) -> bool {
        let serving = self.serving;
        let wanted = Wanted {
            rows: self.rows,
            bytes: self.bytes,
            may_repeat: self.terms.is_idempotent,
            sequence: self.terms.sequence,
            again: Again {
                been: self.been,
                is_alone,
            },
        };
        let picked = if self.been.is_empty() && self.changes.is_none() {
            serving.router.pick(&self.pinned.version, wanted)
        } else {
            // The newest routes know best where the version's replicas are now.
            let routes = serving.router.routes();
            let version = routes.same(&self.pinned.version);
            version.and_then(|version| serving.router.pick(version, wanted))
        };
        let Some(picked) = picked else {
            return false;
        };
        let node = picked.node;
        self.been.to(node);
        let cargo = Cargo {
            inputs: &mut self.inputs,
            rows: self.rows,
            bytes: self.bytes,
            deadline: self.terms.deadline,
            criticality: self.terms.criticality,
            tenant: self.terms.tenant,
            attempt: 1 + u8::from(is_alone),
        };
        let flight = Flight::begin(serving, self.pinned, picked, cargo);
        self.flights[attempt.place()] = Some(Sent {
            attempt,
            node,
            flight,
        });
        true
    }

    fn at_once(&mut self, attempt: Attempt) -> Option<Landed> {
        let sent = self.flights[attempt.place()].as_mut()?;
        sent.flight.at_once()
    }

    /// Waits for whatever comes first of all that is under way.
    async fn hear(&mut self, is_queueing: bool) -> Heard {
        let serving = self.serving;
        let deadline = serving.clock.deadline(self.terms.deadline);
        let mut late = pin!(tokio::time::sleep_until(deadline));
        let mut turn = pin!(serving.budget.freed());
        std::future::poll_fn(|context| {
            for sent in self.flights.iter_mut().flatten() {
                if let Poll::Ready(landed) = sent.flight.poll(context) {
                    return Poll::Ready(Heard::Of(sent.attempt, landed));
                }
            }
            if is_queueing && turn.as_mut().poll(context).is_ready() {
                return Poll::Ready(Heard::Turn);
            }
            late.as_mut().poll(context).map(|()| Heard::Late)
        })
        .await
    }

    /// An attempt has ended without an answer, or its node is suspect.
    fn landed(&mut self, attempt: Attempt, miss: Miss) -> Next {
        let place = &mut self.flights[attempt.place()];
        if matches!(miss.end, End::Suspect | End::Lost) {
            self.silent = place.as_ref().map(|sent| sent.node);
        }
        if miss.end != End::Suspect {
            *place = None;
        }
        if !miss.inputs.is_empty() {
            self.inputs = miss.inputs;
        }
        self.epoch = self.epoch.max(miss.epoch.unwrap_or_default());
        // A failure of what ran says more than that nothing else could run it.
        let has_run = matches!(miss.end, End::Passing | End::Died | End::Failed | End::Left);
        if has_run || !self.has_run {
            self.failure = Some(miss.failure);
        }
        self.has_run |= has_run;
        self.ended(attempt, miss.end)
    }

    fn ended(&mut self, attempt: Attempt, end: End) -> Next {
        let (now, budget) = (self.serving.clock.now(), &self.serving.budget);
        budget.decide(|budget| self.failover.ended(now, attempt, end, budget))
    }

    /// What is told of a part that has no answer.
    fn missed(&mut self, ending: Ending) -> Missed {
        let failure = match ending {
            Ending::Gone => {
                return Missed::Gone(Gone {
                    epoch: self.epoch,
                    inputs: std::mem::take(&mut self.inputs),
                });
            }
            Ending::AsItIs => self.failure.take().unwrap_or_else(|| {
                let version = &self.pinned.version;
                let message = format!(
                    "model '{}' version {} has no ready replica",
                    version.model, version.version
                );
                Failure::new(ErrorCode::ModelNotReady, message)
            }),
            Ending::Unknown => {
                let node = self.silent.map(|node| format!("node {node}"));
                let node = node.as_deref().unwrap_or("a node");
                let message = format!("{node} fell silent while it worked on the request");
                Failure::new(ErrorCode::Unreachable, message)
            }
            Ending::Poison => {
                let message = "two nodes fell silent, or their engines died, while they worked on the request";
                Failure::new(ErrorCode::Poison, message)
            }
            Ending::Late => dropped(DropReason::Expired),
        };
        Missed::Ended(Unanswered {
            failure,
            execution: self.failover.execution(),
        })
    }
}

/// As long as a peer that was not reached is left alone before it is dialled again.
const LOOK_AGAIN_NANOS: u64 = 400_000_000;

impl Drop for Part<'_> {
    fn drop(&mut self) {
        if self.failover.is_charged() {
            let budget = &self.serving.budget;
            budget.decide(|budget| self.failover.close(budget));
        }
    }
}
