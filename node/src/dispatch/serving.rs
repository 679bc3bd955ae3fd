//! The serving side: streams that peers open, the requests on them, and their answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use paceline_protocol::frame::{Execution, Frame, LoadReport, Message};
use paceline_protocol::{ErrorCode, Failure, NodeId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use super::PERMITS;
use super::reading::{Frames, ReadError};
use super::writing::Writer;
use crate::transport::{Boxed, Incoming, Plane, SendHalf, Stream, Transport};

/// What answers requests of peers.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request with `Answer`, `Failed` or `Gone`; the number is seen to. Dropping
    /// the future cancels it.
    fn serve(&self, peer: NodeId, request: Frame) -> Boxed<'_, Frame>;
}

/// What a peer may hold here.
struct Guest {
    streams: Arc<Semaphore>,
    permits: Arc<Semaphore>,
    /// KiB of large bodies.
    memory: Arc<Semaphore>,
}

/// The requests of a stream that are being served.
#[derive(Clone, Default)]
struct Running {
    callers: Arc<Mutex<BTreeMap<u64, oneshot::Sender<()>>>>,
}

/// Held by a stream's task: once that has ended, or was aborted, nobody wants the answers.
struct CancelsAll(Running);

/// An answer that waits to be written, with what its request holds until then.
struct Reply {
    frame: Frame,
    _held: Held,
}

type Held = (Option<OwnedSemaphorePermit>, Option<OwnedSemaphorePermit>);

/// Sees to it that a request ends with one answer, also if its handler panics.
struct Ending {
    number: u64,
    running: Running,
    /// The answer's place, and what the request holds; gone once it was answered.
    open: Option<(mpsc::OwnedPermit<Reply>, Held)>,
}

/// Serves until the transport is closed; bodies are at most `body_bytes_max`. Dropping the
/// future cancels what is being served.
pub async fn serve(
    transport: Arc<dyn Transport>,
    handler: Arc<dyn Handler>,
    body_bytes_max: usize,
) {
    let mut guests: BTreeMap<NodeId, Arc<Guest>> = BTreeMap::new();
    let mut streams = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            biased;
            Some(_) = streams.join_next() => {
                guests.retain(|_, guest| Arc::strong_count(guest) > 1);
                continue;
            }
            incoming = transport.accept(Plane::Infer) => incoming,
        };
        let Some(Incoming { peer, stream }) = incoming else {
            return;
        };
        let guest = guests
            .entry(peer)
            .or_insert_with(|| Guest::new(body_bytes_max));
        let Ok(place) = guest.streams.clone().try_acquire_owned() else {
            tracing::debug!(%peer, "too many streams of requests at a time");
            continue;
        };
        let (guest, handler) = (guest.clone(), handler.clone());
        streams.spawn(async move {
            let _place = place;
            let Stream { send, receive } = stream;
            let running = CancelsAll(Running::default());
            let (replies, written) = mpsc::channel(REQUESTS_MAX);
            let requests = Requests {
                peer,
                guest,
                handler,
                replies,
                running: running.0.clone(),
            };
            let frames = Frames::new(receive, body_bytes_max);
            let served = tokio::try_join!(requests.read(frames), write(send, written));
            if let Err(error) = served {
                tracing::debug!(%peer, %error, "a stream of requests was lost");
            }
        });
    }
}

/// The reading half of a stream.
struct Requests {
    peer: NodeId,
    guest: Arc<Guest>,
    handler: Arc<dyn Handler>,
    replies: mpsc::Sender<Reply>,
    running: Running,
}

impl Requests {
    async fn read(self, mut frames: Frames) -> Result<(), ReadError> {
        while let Some((frame, memory)) = frames.next(Some(&self.guest.memory)).await? {
            match frame.message {
                // A client's is sent on by a node that is behind what the client has seen.
                Message::Infer(_) | Message::Read { .. } | Message::ClientInfer(_) => {
                    self.begin(frame, memory).await?;
                }
                // What has ended meanwhile needs no cancelling.
                Message::Cancel => drop(self.running.end(frame.number)),
                // Answers go the other way.
                Message::Answer { .. }
                | Message::Failed { .. }
                | Message::Gone { .. }
                | Message::ClientAnswer { .. }
                | Message::ClientPart { .. }
                | Message::ClientEnd { .. } => {
                    return Err(ReadError::Unexpected);
                }
            }
        }
        Ok(())
    }

    async fn begin(
        &self,
        frame: Frame,
        memory: Option<OwnedSemaphorePermit>,
    ) -> Result<(), ReadError> {
        // A peer that does not read its answers is not asked for more requests.
        let place = self.replies.clone().reserve_owned().await;
        let Ok(place) = place else {
            return Ok(());
        };
        let number = frame.number;
        let Ok(permit) = self.guest.permits.clone().try_acquire_owned() else {
            let failure = Failure::new(ErrorCode::Overloaded, "the node serves too many requests");
            place.send(Reply {
                frame: failed(number, failure, Execution::NotExecuted),
                _held: (None, None),
            });
            return Ok(());
        };
        let Some(cancelled) = self.running.begin(number) else {
            return Err(ReadError::Unexpected);
        };
        let ending = Ending {
            number,
            running: self.running.clone(),
            open: Some((place, (Some(permit), memory))),
        };
        let (handler, peer) = (self.handler.clone(), self.peer);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                answer = handler.serve(peer, frame) => ending.answered(answer),
                // Nothing is ever said: the caller's half is dropped.
                _ = cancelled => {}
            }
        });
        Ok(())
    }
}

/// Writes answers as they come, together where several wait; ends when no request is open and
/// none can come.
async fn write(
    send: Box<dyn SendHalf>,
    mut replies: mpsc::Receiver<Reply>,
) -> Result<(), ReadError> {
    let mut writer = Writer::new(send);
    let mut batch = Vec::new();
    while replies.recv_many(&mut batch, BATCH).await > 0 {
        for reply in &batch {
            match reply.frame.encode() {
                Ok(parts) => writer.write(&parts).await?,
                Err(error) => {
                    tracing::error!(%error, "an answer cannot be encoded");
                    let failure = Failure::new(ErrorCode::Internal, "the answer is not a frame");
                    let failed = failed(reply.frame.number, failure, Execution::Executed);
                    writer.write(&failed.encode()?).await?;
                }
            }
        }
        writer.flush().await?;
        batch.clear();
    }
    writer.send.finish();
    Ok(())
}

impl Guest {
    fn new(body_bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            permits: Arc::new(Semaphore::new(PERMITS)),
            memory: Arc::new(Semaphore::new(BODIES * (body_bytes_max / 1024 + 1))),
        })
    }
}

impl Running {
    /// `None` if a request of this number is open.
    fn begin(&self, number: u64) -> Option<oneshot::Receiver<()>> {
        let mut callers = self.locked();
        if callers.contains_key(&number) {
            return None;
        }
        let (caller, cancelled) = oneshot::channel();
        callers.insert(number, caller);
        Some(cancelled)
    }

    /// Takes a request out; `None` if it was cancelled before.
    fn end(&self, number: u64) -> Option<oneshot::Sender<()>> {
        self.locked().remove(&number)
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<u64, oneshot::Sender<()>>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CancelsAll {
    fn drop(&mut self) {
        self.0.locked().clear();
    }
}

impl Ending {
    fn answered(mut self, frame: Frame) {
        self.end(frame);
    }

    fn end(&mut self, frame: Frame) {
        let Some((place, held)) = self.open.take() else {
            return;
        };
        // Who has cancelled is not answered.
        if self.running.end(self.number).is_some() {
            let number = self.number;
            place.send(Reply {
                frame: Frame { number, ..frame },
                _held: held,
            });
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let failure = Failure::new(ErrorCode::Internal, "the request ended without an answer");
        self.end(failed(self.number, failure, Execution::Unknown));
    }
}

fn failed(number: u64, failure: Failure, execution: Execution) -> Frame {
    Frame {
        number,
        message: Message::Failed {
            failure,
            execution,
            load: LoadReport::default(),
        },
        tensors: Vec::new(),
    }
}

/// Requests of one stream that are served, refused, or wait for their answer to be written.
const REQUESTS_MAX: usize = 2 * PERMITS;
/// Streams of a peer at a time: one for each of its requests, if all are large, and its lanes.
const STREAMS_MAX: usize = 2 * PERMITS;
/// Of a peer's large bodies, as many of the largest kind may be in memory.
const BODIES: usize = 4;
/// Answers that one turn of the writer takes.
const BATCH: usize = 64;
