//! A stream that belongs to one request, whose answer comes in parts.
//!
//! What the client does not read fills its window of the stream, and then nothing more is written,
//! taken or started: QUIC's flow control is the back-pressure. A client that cancels, resets or
//! stops the stream, or takes nothing for too long, drops the request.

use std::sync::Arc;

use bytes::Bytes;
use paceline_protocol::frame::{ClientInfer, Execution, Frame, Message};
use paceline_protocol::{ErrorCode, Failure};
use quinn::SendStream;
use tokio::time::timeout;

use super::door::{ClientFailure, ClientRequest, part_message};
use super::frames::{FrameReader, Received, Unreadable};
use super::stream::{Ended, Owed, Shared, UNWANTED, encoded, turned_away};
use crate::gateway::infer::{Disconnected, Moved, Taker, TensorPart};
use crate::transport::Boxed;

/// What is written to the client.
struct Outlet {
    send: SendStream,
    number: u64,
    /// The part that is being taken.
    chunks: Vec<Bytes>,
    /// Chunks of it that were taken.
    taken: usize,
}

/// Serves the stream that began with this request to its end.
pub(super) async fn serve(
    shared: Arc<Shared>,
    (send, reader): (SendStream, FrameReader),
    received: Received,
) -> Ended {
    let Received { frame, held } = received;
    let Frame {
        number,
        message: Message::ClientInfer(head),
        tensors,
    } = frame
    else {
        return Ended::Malformed;
    };
    if head.inputs.len() != tensors.len() {
        return Ended::Malformed;
    }
    let mut outlet = Outlet {
        send,
        number,
        chunks: Vec::new(),
        taken: 0,
    };
    let let_in = shared.door.check(shared.caller).and_then(|()| {
        let permit = shared.permits.clone().try_acquire_owned();
        permit.map_err(|why| turned_away(&why))
    });
    let permit = match let_in {
        Ok(permit) => permit,
        Err(failure) => {
            let execution = Execution::NotExecuted;
            outlet
                .end(Err(ClientFailure { failure, execution }), &shared)
                .await;
            return Ended::Done;
        }
    };
    let mut owed = Owed::new(&shared);
    let request = ClientRequest {
        head: ClientInfer {
            tenant: shared.caller.tenant,
            ..head
        },
        inputs: tensors,
    };
    let stopped = outlet.send.stopped();
    let ended = tokio::select! {
        biased;
        ended = shared.door.stream(request, &mut outlet) => ended,
        ended = abandoned(&shared, reader, number) => {
            outlet.abandon();
            return ended;
        }
        Ok(Some(_code)) = stopped => return Ended::Done,
    };
    owed.is_paid = outlet.end(ended, &shared).await;
    drop((owed, permit, held));
    Ended::Done
}

/// Waits until the client wants nothing more, or says something that no client of ours says.
async fn abandoned(shared: &Shared, mut reader: FrameReader, number: u64) -> Ended {
    loop {
        match reader.next(&shared.reading).await {
            Ok(Some(Received { frame, .. })) => {
                let is_cancel = matches!(frame.message, Message::Cancel);
                if is_cancel && frame.number == number {
                    return Ended::Done;
                }
                if !is_cancel {
                    return Ended::Malformed;
                }
            }
            // It has said all that it has to say, and waits.
            Ok(None) => std::future::pending().await,
            Err(Unreadable::Broken) => return Ended::Done,
            Err(_) => return Ended::Malformed,
        }
    }
}

impl Taker<TensorPart> for Outlet {
    fn begin(&mut self, part: TensorPart) -> Result<(), Failure> {
        let (message, tensors) = part_message(part);
        let frame = Frame {
            number: self.number,
            message,
            tensors,
        };
        let chunks = frame.encode();
        self.chunks =
            chunks.map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))?;
        self.taken = 0;
        Ok(())
    }

    fn moved(&mut self) -> Boxed<'_, Result<Moved, Disconnected>> {
        Box::pin(self.write_some())
    }
}

impl Outlet {
    /// Writes as much as there is room for.
    async fn write_some(&mut self) -> Result<Moved, Disconnected> {
        let rest = &mut self.chunks[self.taken..];
        if rest.is_empty() {
            return Ok(Moved::All);
        }
        let written = self.send.write_chunks(rest).await;
        self.taken += written.map_err(|_gone| Disconnected)?.chunks;
        let is_all = self.taken == self.chunks.len();
        Ok(if is_all { Moved::All } else { Moved::Some })
    }

    /// Writes the rest of the part that was begun, and how the stream ended; says whether the
    /// connection has taken it.
    async fn end(&mut self, ended: Result<u64, ClientFailure>, shared: &Shared) -> bool {
        let message = match ended {
            Ok(rows) => Message::ClientEnd { rows },
            // Who takes nothing is told nothing.
            Err(told) if told.failure.code == ErrorCode::Cancelled => {
                self.abandon();
                return false;
            }
            Err(told) => told.into_message(),
        };
        self.chunks
            .extend(encoded(self.number, message, Vec::new()));
        let said = async {
            while self.write_some().await? == Moved::Some {}
            Ok::<(), Disconnected>(())
        };
        if let Ok(Ok(())) = timeout(shared.reading.stall_limit, said).await {
            return self.send.finish().is_ok();
        }
        self.abandon();
        false
    }

    /// Refused on a stream that has ended, where there is nothing to abandon.
    fn abandon(&mut self) {
        let _ = self.send.reset(UNWANTED);
    }
}
