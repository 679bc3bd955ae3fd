//! A request on a stream of its own, whose answer is read frame by frame. Dropping it before its
//! end cancels it at the node.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use paceline_protocol::frame::Frame;
use paceline_protocol::limits::BODY_BYTES_MAX;
use quinn::ReadError;
use tokio::sync::{OwnedSemaphorePermit, TryAcquireError};

use super::Session;
use super::attempt::{NotStarted, Own};
use crate::sdk::frames::{FrameReader, StreamError};

/// A request whose answer comes in parts.
pub(crate) struct Streamed {
    pub(crate) session: Arc<Session>,
    own: Own,
    _permit: OwnedSemaphorePermit,
}

/// What is heard of it.
pub(crate) enum Heard {
    /// The node has said something.
    Told(Frame),
    /// The node has given it up, since nothing of it was read.
    GivenUp,
    /// The node has stopped and answered all that it took.
    NotTaken,
    /// The connection was lost.
    Lost,
}

impl Session {
    /// Sends a request whose frame is made for its number, on a stream that its answer comes on.
    pub(crate) async fn open(
        self: &Arc<Self>,
        frame: impl FnOnce(u64) -> Frame,
    ) -> Result<Streamed, NotStarted> {
        let permit = match self.permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(TryAcquireError::NoPermits) => return Err(NotStarted::Full),
            Err(TryAcquireError::Closed) => return Err(NotStarted::Lost),
        };
        self.started.notify_one();
        let mut parts = self.written(frame(self.numbers.fetch_add(1, Ordering::Relaxed)))?;
        let opened = self.connection.open_bi().await;
        let (send, receive) = opened.map_err(|_gone| NotStarted::Lost)?;
        let reader = FrameReader::new(receive, BODY_BYTES_MAX);
        let mut own = Own { send, reader };
        // A node that has heard enough stops reading and answers all the same.
        if own.send.write_all_chunks(&mut parts).await.is_ok() {
            own.send.finish().map_err(|_closed| NotStarted::Lost)?;
        }
        Ok(Streamed {
            session: self.clone(),
            own,
            _permit: permit,
        })
    }
}

impl Streamed {
    /// Waits for what comes next. What is not read fills the stream's window, and then the node
    /// waits, too.
    pub(crate) async fn next(&mut self) -> Heard {
        match self.own.reader.next().await {
            Ok(Some(frame)) => Heard::Told(frame),
            Err(StreamError::Broken(ReadError::Reset(_))) => Heard::GivenUp,
            Ok(None) | Err(_) if self.session.has_answered_all() => Heard::NotTaken,
            Ok(None) | Err(_) => Heard::Lost,
        }
    }
}
