//! Streams of the transport under the mesh's sessions: opened, accepted, opened again.
//!
//! A session's end is seen by the end of its stream: the library drops what it was given,
//! whatever the reason was, and the peer is unknown from then on.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use paceline_core::Random;
use paceline_protocol::NodeId;
use ractor::ActorRef;
use ractor_cluster::{BoxRead, BoxWrite, ClusterBidiStream, NodeServerMessage};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use super::Shared;
use super::allowance::Allowance;
use crate::transport::{Incoming, Plane, Stream};

/// A stream that tells when it is dropped.
struct Line {
    peer: NodeId,
    stream: Stream,
    alive: oneshot::Sender<()>,
}

struct Listening {
    receive: Box<dyn AsyncRead + Send + Sync + Unpin>,
    allowance: Allowance,
    /// Dropped with it; nothing is ever sent.
    _alive: oneshot::Sender<()>,
}

/// Keeps a session to `peer` until it is aborted or the mesh ends.
pub(super) async fn keep(shared: Arc<Shared>, sessions: ActorRef<NodeServerMessage>, peer: NodeId) {
    let mut random = Random::stream(shared.life, &format!("mesh {peer}"));
    let mut pause = PAUSE_MIN;
    loop {
        let opened = shared.transport.open(peer, Plane::Mesh, OPEN_LIMIT).await;
        if let Ok(stream) = opened {
            let at = Instant::now();
            if run(&shared, &sessions, (peer, stream), false)
                .await
                .is_err()
            {
                return;
            }
            if at.elapsed() > PAUSE_MAX {
                pause = PAUSE_MIN;
            }
        }
        // Half to whole: nodes that lost each other together do not come back together.
        let micros = pause.as_micros() as u64 / 2;
        tokio::time::sleep(Duration::from_micros(micros + random.below(micros))).await;
        pause = PAUSE_MAX.min(pause * 2);
    }
}

/// Takes the sessions that peers open, until the transport is closed.
pub(super) async fn accept(shared: Arc<Shared>, sessions: ActorRef<NodeServerMessage>) {
    let mut sessions_of: BTreeMap<NodeId, Arc<Semaphore>> = BTreeMap::new();
    while let Some(Incoming { peer, stream }) = shared.transport.accept(Plane::Mesh).await {
        // The lower id opens. Who is no peer yet opens again when its first stream is closed.
        if peer >= shared.transport.node() || !shared.is_peer(peer) {
            tracing::debug!(%peer, "a session that is not to be");
            continue;
        }
        sessions_of.retain(|peer, _| shared.is_peer(*peer));
        let places = sessions_of
            .entry(peer)
            .or_insert_with(|| Arc::new(Semaphore::new(SESSIONS_MAX)));
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(%peer, "a peer opens sessions and does not end them");
            continue;
        };
        let (shared, sessions) = (shared.clone(), sessions.clone());
        tokio::spawn(async move {
            let _place = place;
            // Without sessions there is nothing to accept for; the loop's owner sees that.
            let _ = run(&shared, &sessions, (peer, stream), true).await;
        });
    }
}

/// Gives a stream to the sessions and waits for its end; an error if there are none any more.
async fn run(
    shared: &Shared,
    sessions: &ActorRef<NodeServerMessage>,
    (peer, stream): (NodeId, Stream),
    is_server: bool,
) -> Result<(), ()> {
    let (alive, ended) = oneshot::channel();
    let stream = Box::new(Line {
        peer,
        stream,
        alive,
    });
    let opened = NodeServerMessage::ConnectionOpenedExternal { stream, is_server };
    sessions.cast(opened).map_err(drop)?;
    // The other half is dropped, never used.
    let _ = ended.await;
    tracing::debug!(%peer, "a session of the mesh has ended");
    shared.board.forget(peer);
    Ok(())
}

impl ClusterBidiStream for Line {
    fn split(self: Box<Self>) -> (BoxRead, BoxWrite) {
        let listening = Listening {
            receive: self.stream.receive,
            allowance: Allowance::new(),
            _alive: self.alive,
        };
        (Box::new(listening), Box::new(self.stream.send))
    }

    fn peer_label(&self) -> Option<String> {
        Some(format!("n{}", self.peer))
    }
}

impl AsyncRead for Listening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let allowed = ready!(self.allowance.poll(context));
        let room = allowed.min(buffer.remaining());
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
        ready!(Pin::new(&mut *self.receive).poll_read(context, &mut part))?;
        let read = part.filled().len();
        buffer.advance(read);
        self.allowance.spend(read);
        Poll::Ready(Ok(()))
    }
}

/// Sessions of a peer at a time: one, while old ones still end.
const SESSIONS_MAX: usize = 4;
/// For a connection, and everything that it takes.
const OPEN_LIMIT: Duration = Duration::from_secs(2);
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use paceline_protocol::limits::{MESH_BURST_BYTES, MESH_BYTES_PER_SECOND};
    use tokio::io::AsyncReadExt;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn from_a_peer_that_never_ends_no_more_is_read_than_its_allowance() {
        let (_alive, _) = oneshot::channel();
        let mut listening = Listening {
            receive: Box::new(tokio::io::repeat(7)),
            allowance: Allowance::new(),
            _alive,
        };
        let mut read = 0;
        let reading = async {
            let mut bytes = vec![0; 64 << 10];
            loop {
                let count = listening.read(&mut bytes).await.unwrap();
                assert!(count > 0 && bytes[..count].iter().all(|byte| *byte == 7));
                read += count;
            }
        };
        let ended: Result<(), _> = timeout(Duration::from_secs(2), reading).await;
        assert!(ended.is_err());
        let most = (MESH_BURST_BYTES + 2 * MESH_BYTES_PER_SECOND) as usize;
        assert!((most * 9 / 10..=most).contains(&read), "{read} of {most}");
    }
}
