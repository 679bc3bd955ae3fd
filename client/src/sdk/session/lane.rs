//! A long-lived stream that small requests and their answers share.

use std::sync::Arc;

use bytes::Bytes;
use paceline_protocol::client::LANE_BYTES_MAX;
use paceline_protocol::frame::{Frame, Message};
use quinn::{RecvStream, SendStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::Session;
use crate::sdk::frames::FrameReader;

/// The way onto a lane.
pub(super) struct Lane {
    queue: mpsc::Sender<Outgoing>,
}

/// A frame on its way out.
pub(super) struct Outgoing {
    parts: Vec<Bytes>,
    /// What a cancelled request held. It is given back when the cancellation is written, so that
    /// a queue never holds more than two frames for each permit.
    held: Option<OwnedSemaphorePermit>,
}

impl Lane {
    pub(super) fn new(permits: usize) -> (Self, mpsc::Receiver<Outgoing>) {
        let (queue, outgoing) = mpsc::channel(permits * 2);
        (Self { queue }, outgoing)
    }

    /// Sends a request; `false` if the lane is gone.
    pub(super) fn send(&self, parts: Vec<Bytes>) -> bool {
        let outgoing = Outgoing { parts, held: None };
        self.queue.try_send(outgoing).is_ok()
    }

    /// Says that nobody waits for an answer any more.
    pub(super) fn cancel(&self, number: u64, held: OwnedSemaphorePermit) {
        let frame = Frame {
            number,
            message: Message::Cancel,
            tensors: Vec::new(),
        };
        if let Ok(parts) = frame.encode() {
            let held = Some(held);
            // A lane that is gone has cancelled everything.
            drop(self.queue.try_send(Outgoing { parts, held }));
        }
    }
}

/// Runs a lane until its stream is gone.
pub(super) async fn run(session: Arc<Session>, queue: mpsc::Receiver<Outgoing>) {
    let Ok((send, receive)) = session.connection.open_bi().await else {
        return;
    };
    tokio::select! {
        () = write(send, queue) => {}
        () = read(&session, receive) => {}
    }
}

async fn write(mut send: SendStream, mut queue: mpsc::Receiver<Outgoing>) {
    let mut batch = Vec::with_capacity(FRAMES_A_WRITE);
    let mut chunks = Vec::with_capacity(FRAMES_A_WRITE * 4);
    while queue.recv_many(&mut batch, FRAMES_A_WRITE).await > 0 {
        let mut held = Vec::new();
        for outgoing in batch.drain(..) {
            chunks.extend(outgoing.parts);
            held.extend(outgoing.held);
        }
        if send.write_all_chunks(&mut chunks).await.is_err() {
            return;
        }
        chunks.clear();
    }
}

async fn read(session: &Session, receive: RecvStream) {
    let mut reader = FrameReader::new(receive, LANE_BYTES_MAX);
    while let Ok(Some(frame)) = reader.next().await {
        session.arrived(frame);
    }
}

/// Frames that are written together when several wait.
const FRAMES_A_WRITE: usize = 64;
