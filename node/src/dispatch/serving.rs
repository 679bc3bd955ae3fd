//! The answering side: what peers ask this node's workers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use paceline_protocol::frame::{Execution, Frame, FrameDecoder, LoadReport, Message};
use paceline_protocol::{ErrorCode, Failure, NodeId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::lane::{READ_BYTES, write_frames};
use super::{KIND_LANE, KIND_OWN, PERMITS};
use crate::transport::{Boxed, Incoming, Plane, SendHalf, Stream, Transport};

/// What answers requests of peers.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request; the answer's number is set by the caller. Dropping the future
    /// cancels it.
    fn serve(&self, peer: NodeId, frame: Frame) -> Boxed<'_, Frame>;
}

/// What the streams of one peer share.
#[derive(Clone)]
struct Doorway {
    peer: NodeId,
    handler: Arc<dyn Handler>,
    permits: Arc<Semaphore>,
    body_bytes_max: usize,
}

/// Answers peers until the transport is closed.
pub async fn serve(
    transport: Arc<dyn Transport>,
    handler: Arc<dyn Handler>,
    body_bytes_max: usize,
) {
    let mut permits: BTreeMap<NodeId, Arc<Semaphore>> = BTreeMap::new();
    while let Some(Incoming { peer, stream }) = transport.accept(Plane::Infer).await {
        let permits = permits
            .entry(peer)
            .or_insert_with(|| Arc::new(Semaphore::new(PERMITS)));
        let doorway = Doorway {
            peer,
            handler: handler.clone(),
            permits: permits.clone(),
            body_bytes_max,
        };
        tokio::spawn(doorway.take(stream));
    }
}

impl Doorway {
    async fn take(self, mut stream: Stream) {
        match timeout(FIRST_BYTE_LIMIT, stream.receive.read_u8()).await {
            Ok(Ok(KIND_LANE)) => self.lane(stream).await,
            Ok(Ok(KIND_OWN)) => self.own(stream).await,
            // A stream that says nothing, or nonsense, is dropped: its peer is told by that.
            Ok(_) | Err(_) => {}
        }
    }

    /// Many requests on one stream, each answered when it is done.
    async fn lane(self, stream: Stream) {
        let Stream { send, mut receive } = stream;
        let (outbox, queue) = mpsc::channel(PERMITS);
        let writer = tokio::spawn(write_frames(send, queue, &[]));
        let running: Arc<Mutex<BTreeMap<u64, AbortHandle>>> = Arc::default();
        let mut decoder = FrameDecoder::new(self.body_bytes_max);
        let mut buffer = vec![0; READ_BYTES];
        'reading: while let Ok(read @ 1..) = receive.read(&mut buffer).await {
            let mut rest = &buffer[..read];
            loop {
                match decoder.feed(&mut rest) {
                    Ok(Some(frame)) => self.start(frame, &outbox, &running),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(peer = %self.peer, %error, "a lane carries no frames");
                        break 'reading;
                    }
                }
            }
        }
        // Nobody waits for these answers any more.
        let running = std::mem::take(&mut *lock(&running));
        running.values().for_each(AbortHandle::abort);
        drop(outbox);
        writer.abort();
    }

    fn start(
        &self,
        frame: Frame,
        outbox: &mpsc::Sender<Vec<Bytes>>,
        running: &Arc<Mutex<BTreeMap<u64, AbortHandle>>>,
    ) {
        let number = frame.number;
        if frame.message == Message::Cancel {
            if let Some(request) = lock(running).remove(&number) {
                request.abort();
            }
            return;
        }
        let (doorway, outbox, ended) = (self.clone(), outbox.clone(), running.clone());
        // Held until the handle stands in the map: the task cannot have been taken out before.
        let mut running = lock(running);
        let task = tokio::spawn(async move {
            let answer = doorway.answer(frame).await;
            lock(&ended).remove(&number);
            if let Some(parts) = encoded(answer) {
                // A lane that is gone has nobody who waits.
                let _ = outbox.send(parts).await;
            }
        });
        running.insert(number, task.abort_handle());
    }

    /// One request on a stream of its own.
    async fn own(self, stream: Stream) {
        let Stream {
            mut send,
            mut receive,
        } = stream;
        let read = timeout(REQUEST_LIMIT, read_one(&mut *receive, self.body_bytes_max));
        let Ok(Some(frame)) = read.await else {
            return;
        };
        let gone = async {
            // The asker keeps its half open, so whatever ends it is a cancellation.
            let _ = receive.read_u8().await;
        };
        let answer = tokio::select! {
            biased;
            answer = self.answer(frame) => answer,
            () = gone => return,
        };
        if let Some(parts) = encoded(answer)
            && write_all(&mut *send, &parts).await
        {
            send.finish();
        }
    }

    async fn answer(&self, frame: Frame) -> Frame {
        let number = frame.number;
        let answer = match self.permits.try_acquire() {
            Ok(_permit) => self.handler.serve(self.peer, frame).await,
            Err(_) => refused(Failure::new(
                ErrorCode::Overloaded,
                "the node works on as many requests of this peer as it takes",
            )),
        };
        Frame { number, ..answer }
    }
}

/// An answer that says why nothing was executed.
fn refused(failure: Failure) -> Frame {
    Frame {
        number: 0,
        message: Message::Failed {
            failure,
            execution: Execution::NotExecuted,
            load: LoadReport::default(),
        },
        tensors: Vec::new(),
    }
}

fn encoded(answer: Frame) -> Option<Vec<Bytes>> {
    let number = answer.number;
    answer
        .encode()
        .or_else(|error| {
            let message = format!("the answer cannot be sent: {error}");
            let failure = Failure::new(ErrorCode::EngineFailed, message);
            Frame {
                number,
                ..refused(failure)
            }
            .encode()
        })
        .ok()
}

async fn read_one(
    receive: &mut (dyn AsyncRead + Send + Sync + Unpin),
    body_bytes_max: usize,
) -> Option<Frame> {
    let mut decoder = FrameDecoder::new(body_bytes_max);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = receive
            .read(&mut buffer)
            .await
            .ok()
            .filter(|read| *read > 0)?;
        let mut rest = &buffer[..read];
        if let Some(frame) = decoder.feed(&mut rest).ok()? {
            // A stream of its own holds one request and nothing else.
            return rest.is_empty().then_some(frame);
        }
    }
}

async fn write_all(send: &mut dyn SendHalf, parts: &[Bytes]) -> bool {
    for part in parts {
        if send.write_all(part).await.is_err() {
            return false;
        }
    }
    true
}

fn lock(
    running: &Mutex<BTreeMap<u64, AbortHandle>>,
) -> std::sync::MutexGuard<'_, BTreeMap<u64, AbortHandle>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A peer that opens a stream has something to say.
const FIRST_BYTE_LIMIT: Duration = Duration::from_secs(2);
/// The largest request over a slow line.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
