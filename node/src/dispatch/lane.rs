//! A lane as the asking side has it: one writer, one reader, and those who wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use paceline_protocol::NodeId;
use paceline_protocol::frame::{Frame, FrameDecoder, Message};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use super::{KIND_LANE, Lost, PERMITS};
use crate::transport::{SendHalf, Stream};

/// An open lane. Cheap to clone.
#[derive(Clone)]
pub(super) struct Lane {
    peer: NodeId,
    outbox: mpsc::Sender<Vec<Bytes>>,
    waiting: Arc<Waiting>,
}

/// Who waits for which answer; `None` once no answer can come any more.
struct Waiting {
    answers: Mutex<Option<BTreeMap<u64, oneshot::Sender<Frame>>>>,
}

/// Cancels a request whose caller goes away before its answer is there.
struct Asking<'a> {
    lane: &'a Lane,
    number: u64,
    is_done: bool,
}

impl Lane {
    /// Opens a lane on a stream to `peer`.
    pub(super) fn start(peer: NodeId, stream: Stream, body_bytes_max: usize) -> Self {
        let (outbox, queue) = mpsc::channel(PERMITS);
        let waiting = Arc::new(Waiting {
            answers: Mutex::new(Some(BTreeMap::new())),
        });
        let Stream { send, receive } = stream;
        let writing = waiting.clone();
        tokio::spawn(async move {
            write_frames(send, queue, &[KIND_LANE]).await;
            writing.give_up();
        });
        let reading = waiting.clone();
        tokio::spawn(async move {
            read_answers(receive, &reading, body_bytes_max).await;
            reading.give_up();
        });
        Self {
            peer,
            outbox,
            waiting,
        }
    }

    /// Whether answers can still come on it.
    pub(super) fn works(&self) -> bool {
        self.waiting.locked().is_some() && !self.outbox.is_closed()
    }

    /// Sends a request that was encoded under `number`, and waits for its answer.
    pub(super) async fn ask(&self, number: u64, parts: Vec<Bytes>) -> Result<Frame, Lost> {
        let peer = self.peer;
        let not_sent = |reason: &str| Lost::NotSent {
            peer,
            reason: reason.to_owned(),
        };
        let (answered, answer) = oneshot::channel();
        match self.waiting.locked().as_mut() {
            Some(answers) => drop(answers.insert(number, answered)),
            None => return Err(not_sent("its lane is closed")),
        }
        let mut asking = Asking {
            lane: self,
            number,
            is_done: false,
        };
        if self.outbox.send(parts).await.is_err() {
            asking.is_done = true;
            self.waiting.forget(number);
            return Err(not_sent("its lane is closed"));
        }
        let answer = answer.await;
        asking.is_done = true;
        answer.map_err(|_| Lost::Silent {
            peer,
            reason: "its connection is gone".to_owned(),
        })
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        self.lane.waiting.forget(self.number);
        let cancel = Frame {
            number: self.number,
            message: Message::Cancel,
            tensors: Vec::new(),
        };
        // A full lane lets the request run: it is wasted work, and no harm.
        if let Ok(parts) = cancel.encode() {
            let _ = self.lane.outbox.try_send(parts);
        }
    }
}

impl Waiting {
    fn locked(&self) -> MutexGuard<'_, Option<BTreeMap<u64, oneshot::Sender<Frame>>>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, number: u64) {
        if let Some(answers) = self.locked().as_mut() {
            answers.remove(&number);
        }
    }

    /// Everybody who waits is told that nothing comes.
    fn give_up(&self) {
        self.locked().take();
    }
}

/// Writes what is queued, everything that waits in one write, until the queue or the stream
/// ends.
pub(super) async fn write_frames(
    mut send: Box<dyn SendHalf>,
    mut queue: mpsc::Receiver<Vec<Bytes>>,
    first: &[u8],
) {
    let mut bytes = first.to_vec();
    let mut frames = Vec::new();
    loop {
        if !bytes.is_empty() && send.write_all(&bytes).await.is_err() {
            return;
        }
        bytes.clear();
        if queue.recv_many(&mut frames, FRAMES_AT_ONCE).await == 0 {
            send.finish();
            return;
        }
        for part in frames.drain(..).flatten() {
            bytes.extend_from_slice(&part);
        }
    }
}

async fn read_answers(
    mut receive: Box<dyn AsyncRead + Send + Sync + Unpin>,
    waiting: &Waiting,
    body_bytes_max: usize,
) {
    let mut decoder = FrameDecoder::new(body_bytes_max);
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(read @ 1..) = receive.read(&mut buffer).await {
        let mut rest = &buffer[..read];
        loop {
            match decoder.feed(&mut rest) {
                Ok(Some(frame)) => {
                    let mut answers = waiting.locked();
                    let waits = answers.as_mut().and_then(|a| a.remove(&frame.number));
                    drop(answers);
                    // Whoever cancelled does not wait any more.
                    let _ = waits.map(|waits| waits.send(frame));
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "a lane carries no frames; it is closed");
                    return;
                }
            }
        }
    }
}

/// Frames that share a write: a megabyte at most.
const FRAMES_AT_ONCE: usize = 64;
pub(super) const READ_BYTES: usize = 64 << 10;
