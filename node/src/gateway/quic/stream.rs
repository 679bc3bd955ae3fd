//! One stream: requests in, answers out, each as soon as it is there.
//!
//! The task of a stream owns the tasks of its requests: when the stream is reset, stopped or
//! lost, they are dropped, and with them whatever had not started to run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use paceline_protocol::client::LANE_BYTES_MAX;
use paceline_protocol::frame::{ClientInfer, Execution, Frame, FrameError, Message};
use paceline_protocol::limits::TENSOR_ALIGN_BYTES;
use paceline_protocol::{ErrorCode, Failure, Tensor};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::timeout;

use super::door::{ClientFailure, ClientRequest, Door};
use super::frames::{FrameReader, Reading, Received, Unreadable};
use super::parts;
use crate::tenants::Caller;

/// What the streams of a connection have in common.
pub(super) struct Shared {
    pub(super) door: Arc<dyn Door>,
    pub(super) connection: Connection,
    /// Who is at the other end.
    pub(super) caller: Caller,
    /// Requests in flight.
    pub(super) permits: Arc<Semaphore>,
    /// Whether a request was let in whose answer was not sent: then nobody may take what has no
    /// answer for not executed.
    pub(super) is_owed: AtomicBool,
    pub(super) reading: Reading,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// As streams do.
    Done,
    /// With something that no client of ours says: the connection is not worth keeping.
    Malformed,
}

/// Requests that run, by the number that cancels them.
#[derive(Default)]
struct Running {
    tasks: JoinSet<()>,
    numbers: BTreeMap<u64, AbortHandle>,
    ids: BTreeMap<Id, u64>,
}

/// A request on its way to the door.
struct Request {
    shared: Arc<Shared>,
    number: u64,
    request: ClientRequest,
    /// Whether a large answer has to keep off the stream, since others share it.
    is_shared: bool,
    answers: mpsc::Sender<Reply>,
    held: ((Owed, OwnedSemaphorePermit), Option<OwnedSemaphorePermit>),
}

/// What waits to be written, and its request's place among those in flight until then.
struct Reply {
    parts: Vec<Bytes>,
    held: Option<(Owed, OwnedSemaphorePermit)>,
}

/// A request that was let in. Unless it is paid, its end says that an answer was not sent.
pub(super) struct Owed {
    shared: Arc<Shared>,
    pub(super) is_paid: bool,
}

/// Serves a stream to its end.
pub(super) async fn serve(shared: Arc<Shared>, send: SendStream, receive: RecvStream) -> Ended {
    let mut reader = FrameReader::new(receive, shared.reading.body_bytes_max);
    let first = tokio::select! {
        biased;
        first = reader.next(&shared.reading) => first,
        Ok(Some(_code)) = send.stopped() => return Ended::Done,
    };
    let first = match first {
        Ok(Some(first)) if is_in_parts(&first.frame) => {
            return parts::serve(shared, (send, reader), first).await;
        }
        other => other,
    };
    let (answers, queue) = mpsc::channel(ANSWERS_WAITING_MAX);
    let stopped = send.stopped();
    let writing = write(send, queue, shared.reading.stall_limit);
    let reading = read(shared.clone(), (reader, first), answers);
    let (mut writing, mut reading) = (std::pin::pin!(writing), std::pin::pin!(reading));
    tokio::select! {
        biased;
        ended = &mut reading => {
            // What is still to be said is said, unless nobody would understand it.
            if ended == Ended::Done {
                writing.await;
            }
            ended
        }
        Ok(Some(_code)) = stopped => Ended::Done,
        // It ends first only if the client is gone, or takes nothing.
        () = &mut writing => Ended::Done,
    }
}

/// Reads requests and runs them, until there are no more and all have ended.
async fn read(
    shared: Arc<Shared>,
    (reader, first): (FrameReader, Next),
    answers: mpsc::Sender<Reply>,
) -> Ended {
    let mut running = Running::default();
    let mut next = std::pin::pin!(next(shared.clone(), reader, Some(first)));
    loop {
        tokio::select! {
            Some(ended) = running.tasks.join_next_with_id() => running.ended(ended),
            (reader, received) = &mut next => match received {
                Ok(None) => break,
                Ok(Some(received)) => {
                    if !take(&shared, &mut running, received, &answers).await {
                        return Ended::Malformed;
                    }
                    next.set(self::next(shared.clone(), reader, None));
                }
                Err(Unreadable::Broken) => return Ended::Done,
                Err(Unreadable::Frame(FrameError::BodyTooLarge { limit, .. })) => {
                    let message = format!("the body is larger than the {limit} bytes allowed");
                    let failure = Failure::new(ErrorCode::TooLarge, message);
                    drop(answers.send(failed(WHOLE_STREAM, failure)).await);
                    return Ended::Done;
                }
                Err(error) => {
                    tracing::debug!(%error, "a client's stream makes no sense");
                    return Ended::Malformed;
                }
            },
        }
    }
    while running.tasks.join_next().await.is_some() {}
    Ended::Done
}

/// What is read of a stream.
type Next = Result<Option<Received>, Unreadable>;

async fn next(
    shared: Arc<Shared>,
    mut reader: FrameReader,
    known: Option<Next>,
) -> (FrameReader, Next) {
    let received = match known {
        Some(received) => received,
        None => reader.next(&shared.reading).await,
    };
    (reader, received)
}

fn is_in_parts(frame: &Frame) -> bool {
    matches!(&frame.message, Message::ClientInfer(head) if head.in_parts)
}

/// `false` if this is nothing that a client says.
async fn take(
    shared: &Arc<Shared>,
    running: &mut Running,
    received: Received,
    answers: &mpsc::Sender<Reply>,
) -> bool {
    let Frame {
        number,
        message,
        tensors,
    } = received.frame;
    let head = match message {
        Message::ClientInfer(ClientInfer { in_parts: true, .. }) => {
            let message = "a request whose answer comes in parts has a QUIC stream of its own";
            let refused = failed(number, Failure::new(ErrorCode::Unsupported, message));
            return answers.send(refused).await.is_ok();
        }
        Message::ClientInfer(head) => ClientInfer {
            tenant: shared.caller.tenant,
            ..head
        },
        Message::Cancel => {
            running.cancel(number);
            return true;
        }
        _ => return false,
    };
    if head.inputs.len() != tensors.len() || running.numbers.contains_key(&number) {
        return false;
    }
    if let Err(revoked) = shared.door.check(shared.caller) {
        return answers.send(failed(number, revoked)).await.is_ok();
    }
    let permit = match shared.permits.clone().try_acquire_owned() {
        Ok(permit) => permit,
        Err(full_or_closed) => {
            let failure = turned_away(&full_or_closed);
            return answers.send(failed(number, failure)).await.is_ok();
        }
    };
    let bytes = tensors
        .iter()
        .map(|tensor| tensor.data().len().next_multiple_of(TENSOR_ALIGN_BYTES));
    let body_bytes: usize = bytes.sum();
    running.start(Request {
        shared: shared.clone(),
        number,
        request: ClientRequest {
            head,
            inputs: tensors,
        },
        is_shared: body_bytes <= LANE_BYTES_MAX,
        answers: answers.clone(),
        held: ((Owed::new(shared), permit), received.held),
    });
    true
}

impl Running {
    fn start(&mut self, request: Request) {
        let number = request.number;
        let task = self.tasks.spawn(request.run());
        self.ids.insert(task.id(), number);
        self.numbers.insert(number, task);
    }

    fn cancel(&mut self, number: u64) {
        if let Some(task) = self.numbers.get(&number) {
            task.abort();
        }
    }

    fn ended(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => error.id(),
        };
        if let Some(number) = self.ids.remove(&id) {
            self.numbers.remove(&number);
        }
    }
}

impl Request {
    async fn run(self) {
        let ClientInfer { budget_us, .. } = self.request.head;
        let parts = match self.shared.door.infer(self.request).await {
            Ok(answer) => {
                let (message, tensors) = answer.into_message();
                encoded(self.number, message, tensors)
            }
            Err(failure) => encoded(self.number, failure.into_message(), Vec::new()),
        };
        // The memory of a large request is free from here on.
        let ((mut owed, permit), large) = self.held;
        drop(large);
        let body: usize = parts.iter().skip(1).map(Bytes::len).sum();
        if self.is_shared && body > LANE_BYTES_MAX {
            // Nobody waits for it past its budget.
            let limit = Duration::from_micros(budget_us) + self.shared.reading.stall_limit;
            let sent = on_own_stream(&self.shared.connection, parts);
            owed.is_paid = matches!(timeout(limit, sent).await, Ok(Some(())));
            drop(permit);
        } else {
            let held = Some((owed, permit));
            drop(self.answers.send(Reply { parts, held }).await);
        }
    }
}

/// Writes answers out; several that wait go together.
async fn write(mut send: SendStream, mut queue: mpsc::Receiver<Reply>, stall: Duration) {
    let mut batch = Vec::with_capacity(ANSWERS_WAITING_MAX);
    let mut chunks = Vec::with_capacity(ANSWERS_WAITING_MAX * 4);
    while queue.recv_many(&mut batch, ANSWERS_WAITING_MAX).await > 0 {
        chunks.extend(
            batch
                .iter_mut()
                .flat_map(|reply: &mut Reply| reply.parts.drain(..)),
        );
        let mut rest = &mut chunks[..];
        while !rest.is_empty() {
            match timeout(stall, send.write_chunks(rest)).await {
                Ok(Ok(written)) => {
                    rest = &mut rest[written.chunks..];
                }
                // The client is gone, or takes nothing: its requests are no longer wanted.
                Ok(Err(_)) | Err(_) => {
                    drop(send.reset(UNWANTED));
                    return;
                }
            }
        }
        chunks.clear();
        for reply in batch.drain(..) {
            if let Some((mut owed, permit)) = reply.held {
                owed.is_paid = true;
                drop((owed, permit));
            }
        }
    }
    let _ = send.finish();
}

async fn on_own_stream(connection: &Connection, mut parts: Vec<Bytes>) -> Option<()> {
    let mut send = connection.open_uni().await.ok()?;
    send.write_all_chunks(&mut parts).await.ok()?;
    send.finish().ok()
}

impl Owed {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: shared.clone(),
            is_paid: false,
        }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if !self.is_paid {
            self.shared.is_owed.store(true, Ordering::Release);
        }
    }
}

pub(super) fn turned_away(why: &TryAcquireError) -> Failure {
    match why {
        TryAcquireError::NoPermits => {
            let message = "as many requests are in flight on this connection as it may have";
            Failure::new(ErrorCode::Overloaded, message)
        }
        TryAcquireError::Closed => {
            let message = "the node stops and takes no more requests; nothing was executed";
            Failure::new(ErrorCode::ShuttingDown, message)
        }
    }
}

fn failed(number: u64, failure: Failure) -> Reply {
    let execution = Execution::NotExecuted;
    let failed = ClientFailure { failure, execution };
    Reply {
        parts: encoded(number, failed.into_message(), Vec::new()),
        held: None,
    }
}

pub(super) fn encoded(number: u64, message: Message, tensors: Vec<Tensor>) -> Vec<Bytes> {
    let frame = Frame {
        number,
        message,
        tensors,
    };
    frame.encode().unwrap_or_else(|error| {
        let failure = Failure::new(ErrorCode::Internal, error.to_string());
        let execution = Execution::Executed;
        let failed = ClientFailure { failure, execution };
        let frame = Frame {
            number,
            message: failed.into_message(),
            tensors: Vec::new(),
        };
        frame
            .encode()
            .expect("one short sentence is within the limits of a frame")
    })
}

/// Answers of one stream that wait for the socket.
const ANSWERS_WAITING_MAX: usize = 64;
/// The number of a frame that ends a stream as a whole; requests count from 1.
const WHOLE_STREAM: u64 = 0;
pub(super) const UNWANTED: quinn::VarInt = quinn::VarInt::from_u32(1);
