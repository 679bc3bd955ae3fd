//! A lane: one lasting stream to a peer that carries many small requests at a time.
//!
//! Whoever asks leaves an encoded request in the lane's queue and waits for its number; the
//! lane's task writes what has gathered, in order, and hands answers out. The queue is bounded
//! by the permits that every request holds until it is answered, or until its `Cancel` has
//! been written.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use paceline_protocol::NodeId;
use paceline_protocol::frame::{Frame, Message};
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, timeout_at};

use super::Lost;
use super::reading::{Frames, ReadError};
use super::writing::Writer;
use crate::transport::Stream;

pub(super) struct Lane {
    peer: NodeId,
    state: Mutex<State>,
    /// Something is to be written, or the lane is over.
    changed: Notify,
    old_at: Instant,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Queued>,
    cancelled: Vec<(u64, OwnedSemaphorePermit)>,
    pending: BTreeMap<u64, Pending>,
    /// Takes nothing new, and ends when all is answered.
    is_old: bool,
    is_broken: bool,
}

struct Queued {
    number: u64,
    parts: Vec<Bytes>,
}

struct Pending {
    answer: oneshot::Sender<Result<Frame, Lost>>,
    is_sent: bool,
}

/// A request on a lane. Dropped before the answer, it is cancelled.
pub(super) struct Asked {
    lane: Arc<Lane>,
    number: u64,
    answer: oneshot::Receiver<Result<Frame, Lost>>,
    permit: Option<OwnedSemaphorePermit>,
}

/// What a lane's writer has to do.
enum Work {
    Write(Vec<Queued>, Vec<(u64, OwnedSemaphorePermit)>),
    Wait,
    End,
}

impl Lane {
    pub(super) fn new(peer: NodeId) -> Arc<Self> {
        Arc::new(Self {
            peer,
            state: Mutex::default(),
            changed: Notify::new(),
            old_at: Instant::now() + AGE_MAX,
        })
    }

    /// Whether the lane takes requests; from a certain age on it does not.
    pub(super) fn is_open(&self) -> bool {
        let mut state = self.locked();
        if !state.is_old && Instant::now() >= self.old_at {
            state.is_old = true;
            self.changed.notify_one();
        }
        !state.is_old && !state.is_broken
    }

    /// Leaves a request. The permit comes back if the lane takes none any more.
    pub(super) fn ask(
        self: &Arc<Self>,
        number: u64,
        parts: Vec<Bytes>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Asked, (Vec<Bytes>, OwnedSemaphorePermit)> {
        let mut state = self.locked();
        if state.is_old || state.is_broken {
            return Err((parts, permit));
        }
        let (sender, answer) = oneshot::channel();
        let pending = Pending {
            answer: sender,
            is_sent: false,
        };
        state.pending.insert(number, pending);
        state.queue.push_back(Queued { number, parts });
        drop(state);
        self.changed.notify_one();
        Ok(Asked {
            lane: self.clone(),
            number,
            answer,
            permit: Some(permit),
        })
    }

    /// Drives the stream until it is lost, or the lane is old and all is answered. The task
    /// that runs it is the only one that touches the stream.
    pub(super) async fn run(self: Arc<Self>, stream: Stream, body_bytes_max: usize) {
        let mut frames = Frames::new(stream.receive, body_bytes_max);
        let mut writer = Writer::new(stream.send);
        let ended = tokio::select! {
            biased;
            ended = self.read(&mut frames) => ended,
            ended = self.write(&mut writer) => ended,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a lane was lost");
        }
        self.fail();
    }

    /// Ends everything that waits.
    pub(super) fn fail(&self) {
        let mut state = self.locked();
        state.is_broken = true;
        state.queue.clear();
        state.cancelled.clear();
        for pending in std::mem::take(&mut state.pending).into_values() {
            let lost = if pending.is_sent {
                Lost::Silent { peer: self.peer }
            } else {
                Lost::not_sent(self.peer, LOST)
            };
            // Who waited may have gone this moment.
            let _ = pending.answer.send(Err(lost));
        }
        self.changed.notify_one();
    }

    async fn read(&self, frames: &mut Frames) -> Result<(), ReadError> {
        while let Some((frame, _)) = frames.next(None).await? {
            if !is_answer(&frame.message) {
                return Err(ReadError::Unexpected);
            }
            let mut state = self.locked();
            // An answer that nobody waits for belongs to a request that was cancelled.
            if let Some(pending) = state.pending.remove(&frame.number) {
                let _ = pending.answer.send(Ok(frame));
            }
            if state.is_old && state.pending.is_empty() {
                self.changed.notify_one();
            }
        }
        Ok(())
    }

    async fn write(&self, writer: &mut Writer) -> Result<(), ReadError> {
        loop {
            match self.work() {
                Work::Write(queued, cancelled) => {
                    for Queued { parts, .. } in &queued {
                        writer.write(parts).await?;
                    }
                    for (number, _permit) in &cancelled {
                        let cancel = Frame {
                            number: *number,
                            message: Message::Cancel,
                            tensors: Vec::new(),
                        };
                        writer.write(&cancel.encode()?).await?;
                    }
                    writer.flush().await?;
                }
                Work::Wait => self.changed.notified().await,
                Work::End => {
                    writer.send.finish();
                    return Ok(());
                }
            }
        }
    }

    fn work(&self) -> Work {
        let mut state = self.locked();
        if state.is_broken {
            return Work::End;
        }
        let cancelled = std::mem::take(&mut state.cancelled);
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES
            && let Some(queued) = state.queue.pop_front()
        {
            bytes += queued.parts.iter().map(Bytes::len).sum::<usize>();
            if let Some(pending) = state.pending.get_mut(&queued.number) {
                pending.is_sent = true;
            }
            batch.push(queued);
        }
        if !batch.is_empty() || !cancelled.is_empty() {
            Work::Write(batch, cancelled)
        } else if state.is_old && state.pending.is_empty() {
            Work::End
        } else {
            Work::Wait
        }
    }

    /// Withdraws a request; whether it may have been sent.
    fn cancel(&self, number: u64, permit: Option<OwnedSemaphorePermit>) -> bool {
        let mut state = self.locked();
        let is_sent = match state.pending.remove(&number) {
            Some(pending) => pending.is_sent,
            None => return true,
        };
        if !is_sent {
            state.queue.retain(|queued| queued.number != number);
        } else if let Some(permit) = permit {
            state.cancelled.push((number, permit));
        }
        self.changed.notify_one();
        is_sent
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    /// The answer, or what is known at the deadline.
    pub(super) async fn answer(mut self, deadline: Instant) -> Result<Frame, Lost> {
        let peer = self.lane.peer;
        match timeout_at(deadline, &mut self.answer).await {
            Ok(answered) => {
                self.permit = None;
                answered.unwrap_or(Err(Lost::Silent { peer }))
            }
            Err(_late) if self.lane.cancel(self.number, self.permit.take()) => {
                Err(Lost::Late { peer })
            }
            Err(_late) => Err(Lost::not_sent(peer, LATE)),
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // The permit is gone once there is nothing to cancel.
        if let Some(permit) = self.permit.take() {
            self.lane.cancel(self.number, Some(permit));
        }
    }
}

/// Whether a message is one that a serving node says.
pub(super) fn is_answer(message: &Message) -> bool {
    match message {
        Message::Answer { .. }
        | Message::Failed { .. }
        | Message::Gone { .. }
        | Message::ClientAnswer { .. } => true,
        // An answer in parts is never sent on.
        Message::Infer(_)
        | Message::Read { .. }
        | Message::Cancel
        | Message::ClientInfer(_)
        | Message::ClientPart { .. }
        | Message::ClientEnd { .. } => false,
    }
}

/// Why something was not sent.
pub(super) const LOST: &str = "the stream was lost";
pub(super) const LATE: &str = "the deadline has passed";
/// Bytes that one turn of the writer takes from the queue: what is not taken can still be
/// withdrawn as certainly not executed.
const BATCH_BYTES: usize = 256 << 10;
/// A lane is replaced well before its connection, which lasts for hours, would be: no request
/// on it then ends because a connection has grown old.
const AGE_MAX: Duration = Duration::from_secs(60);
