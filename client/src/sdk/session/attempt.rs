//! One attempt of one request at one node. Dropping it before its end cancels it there.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use paceline_protocol::client::LANE_BYTES_MAX;
use paceline_protocol::frame::{Frame, FrameError};
use paceline_protocol::limits::BODY_BYTES_MAX;
use quinn::{Connection, SendStream, VarInt};
use tokio::sync::{OwnedSemaphorePermit, TryAcquireError, oneshot};
use tokio::task::AbortHandle;

use super::Session;
use crate::sdk::frames::FrameReader;

/// An attempt that is under way.
pub(crate) struct Attempt {
    pub(crate) session: Arc<Session>,
    number: u64,
    answer: oneshot::Receiver<Frame>,
    permit: Option<OwnedSemaphorePermit>,
    way: Way,
}

enum Way {
    Lane,
    Own(AbortHandle),
}

/// How an attempt ended.
pub(crate) enum Outcome {
    /// The node has said how.
    Told(Frame),
    /// The node has stopped and answered all that it took: this was not among it.
    NotTaken,
    /// The connection was lost before.
    Lost,
}

/// Why an attempt was not made: nothing was sent.
#[derive(Debug)]
pub(crate) enum NotStarted {
    /// As many are in flight as the node allows.
    Full,
    /// The connection is gone.
    Lost,
    /// The request is larger than the node takes.
    TooLarge {
        /// How large, in bytes.
        bytes: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The request cannot be written as a frame.
    Malformed(FrameError),
}

/// A stream that is abandoned unless it is read to its end.
pub(super) struct Own {
    pub(super) send: SendStream,
    pub(super) reader: FrameReader,
}

impl Session {
    /// Sends a request whose frame is made for its number.
    pub(crate) fn start(
        self: &Arc<Self>,
        frame: impl FnOnce(u64) -> Frame,
    ) -> Result<Attempt, NotStarted> {
        let permit = match self.permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(TryAcquireError::NoPermits) => return Err(NotStarted::Full),
            Err(TryAcquireError::Closed) => return Err(NotStarted::Lost),
        };
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let parts = self.written(frame(number))?;
        let (told, answer) = oneshot::channel();
        let body: usize = parts.iter().skip(1).map(Bytes::len).sum();
        let way = if body <= LANE_BYTES_MAX {
            self.waiting().insert(number, told);
            let lane = &self.lanes[(number % self.lanes.len() as u64) as usize];
            if !lane.send(parts) {
                self.waiting().remove(&number);
                return Err(NotStarted::Lost);
            }
            Way::Lane
        } else {
            let connection = self.connection.clone();
            let task = tokio::spawn(async move {
                if let Some(frame) = on_own_stream(connection, parts).await {
                    drop(told.send(frame));
                }
            });
            Way::Own(task.abort_handle())
        };
        self.started.notify_one();
        Ok(Attempt {
            session: self.clone(),
            number,
            answer,
            permit: Some(permit),
            way,
        })
    }

    /// A request as bytes, if the node takes it.
    pub(super) fn written(&self, frame: Frame) -> Result<Vec<Bytes>, NotStarted> {
        let bytes: u64 = frame.tensors.iter().map(|t| t.data().len() as u64).sum();
        let limit = self.welcome.body_bytes_max;
        if bytes > limit {
            return Err(NotStarted::TooLarge { bytes, limit });
        }
        frame.encode().map_err(NotStarted::Malformed)
    }
}

impl Attempt {
    /// Waits for the end.
    pub(crate) async fn end(&mut self) -> Outcome {
        let told = (&mut self.answer).await;
        // From here on there is nothing to cancel.
        self.permit = None;
        match told {
            Ok(frame) => Outcome::Told(frame),
            Err(_) if self.session.has_answered_all() => Outcome::NotTaken,
            Err(_) => Outcome::Lost,
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else {
            return;
        };
        match &self.way {
            Way::Own(task) => task.abort(),
            Way::Lane => {
                let is_open = self.session.waiting().remove(&self.number).is_some();
                if is_open {
                    let lanes = &self.session.lanes;
                    let lane = &lanes[(self.number % lanes.len() as u64) as usize];
                    lane.cancel(self.number, permit);
                }
            }
        }
    }
}

/// Sends a request on a stream of its own and waits for its answer there.
async fn on_own_stream(connection: Connection, mut parts: Vec<Bytes>) -> Option<Frame> {
    let (send, receive) = connection.open_bi().await.ok()?;
    let reader = FrameReader::new(receive, BODY_BYTES_MAX);
    let mut own = Own { send, reader };
    // A node that has heard enough stops reading and answers all the same.
    if own.send.write_all_chunks(&mut parts).await.is_ok() {
        own.send.finish().ok()?;
    }
    own.reader.next().await.ok()?
}

impl Drop for Own {
    fn drop(&mut self) {
        // Refused on a stream that has ended, where there is nothing to abandon.
        drop(self.send.reset(ABANDONED));
        self.reader.stop(ABANDONED);
    }
}

const ABANDONED: VarInt = VarInt::from_u32(1);
