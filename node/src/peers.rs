//! Keeps what the transport must know of peers in step with what was agreed on: where they are,
//! who is not believed any more, whether there is a quorum; and fetches the authority's key
//! when this node becomes a voter.
//!
//! Owns nothing that lasts. Supervised by the node. Hears that the registry has changed, and
//! its own timer; speaks to the transport and to the identity. When it dies, connections stay
//! as they are until its successor looks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use paceline_core::authority::{self, Step, View};
use paceline_protocol::NodeId;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::timeout;

use crate::directory::Directory;
use crate::identity::authority::Authority;
use crate::identity::files::{Files, FilesError};
use crate::node::Secured;
use crate::raft::RaftHandle;
use crate::transport::Transport;
use crate::{contact, registry};

/// What the actor hears.
pub(crate) enum Message {
    /// The registry has changed, or time has passed: look again.
    Look,
    /// The authority's key was asked for and, if somebody gave it, kept.
    Asked(Option<Arc<Authority>>),
    /// The authority's key was to be removed from the disk; whether it was.
    Forgotten(bool),
}

impl ractor::Message for Message {}

/// What the actor needs to start.
#[derive(Clone)]
pub(crate) struct Arguments {
    /// This node.
    pub node: NodeId,
    /// Who the nodes are.
    pub registry: registry::Handle,
    /// Consensus.
    pub raft: RaftHandle,
    /// What is told.
    pub transport: Arc<dyn Transport>,
    /// And what is told who they are.
    pub directory: Arc<dyn Directory>,
    /// Who this node is, where connections are secured.
    pub secured: Option<Secured>,
    /// Peers that are known before the registry is.
    pub first_peers: BTreeMap<NodeId, SocketAddr>,
    /// Whether there is a quorum.
    pub contact: contact::Handle,
}

/// The actor.
pub(crate) struct Peers;

/// Its state.
pub(crate) struct State {
    arguments: Arguments,
    told: BTreeMap<NodeId, SocketAddr>,
    /// What is under way with the authority's key ends with a message.
    is_busy: bool,
}

impl Actor for Peers {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        arguments: Arguments,
    ) -> Result<State, ActorProcessingErr> {
        arguments.registry.tell(&myself, || Message::Look);
        myself.send_interval(LOOK_EVERY, || Message::Look);
        let mut state = State {
            arguments,
            told: BTreeMap::new(),
            is_busy: false,
        };
        state.look(&myself);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Look => state.look(&myself),
            Message::Asked(authority) => state.asked(authority),
            Message::Forgotten(is_gone) => state.forgotten(is_gone),
        }
        Ok(())
    }
}

impl State {
    fn look(&mut self, myself: &ActorRef<Message>) {
        let registry = self.arguments.registry.current();
        let peers = self.arguments.peers();
        if peers != self.told {
            self.arguments.transport.set_peers(peers.clone());
            let named = peers.keys().copied().collect();
            self.arguments.directory.set_peers(named);
            self.told = peers;
        }
        let Some(secured) = &self.arguments.secured else {
            return;
        };
        let trust = secured.credentials.trust();
        trust.set_burnt(registry.burnt());
        trust.set_quorum(self.arguments.contact.now().is_fresh());
        let voters = self.arguments.raft.metrics().voters;
        let is_voter = voters.contains(&self.arguments.node);
        let step = authority::next(View {
            is_voter: Some(is_voter).filter(|_| !voters.is_empty()),
            has_key: secured.authority.load().is_some(),
            is_asking: self.is_busy,
        });
        match step {
            Some(Step::Ask) => self.ask_authority(myself, secured.files.clone(), voters),
            Some(Step::Forget) => self.forget_authority(myself, secured.files.clone()),
            None => {}
        }
    }

    /// Any other voter has the key.
    fn ask_authority(&mut self, myself: &ActorRef<Message>, files: Files, voters: Vec<NodeId>) {
        self.is_busy = true;
        let (raft, node, myself) = (
            self.arguments.raft.clone(),
            self.arguments.node,
            myself.clone(),
        );
        tokio::spawn(async move {
            let mut key = None;
            for voter in voters.into_iter().filter(|voter| *voter != node) {
                if key.is_none() {
                    key = raft.authority_key(voter, ASK_LIMIT).await;
                }
            }
            let kept = match key {
                Some(key) => on_disk(move || files.save_authority_key(&key)).await,
                None => None,
            };
            // An actor that died meanwhile has a successor, which asks for itself.
            let _ = myself.cast(Message::Asked(kept.map(Arc::new)));
        });
    }

    fn asked(&mut self, authority: Option<Arc<Authority>>) {
        self.is_busy = false;
        if let (Some(authority), Some(secured)) = (authority, &self.arguments.secured) {
            secured.authority.store(Some(authority));
            tracing::info!("this node is a voter and signs nodes");
        }
    }

    fn forget_authority(&mut self, myself: &ActorRef<Message>, files: Files) {
        self.is_busy = true;
        let myself = myself.clone();
        tokio::spawn(async move {
            let removed = on_disk(move || files.forget_authority_key()).await;
            let _ = myself.cast(Message::Forgotten(removed.is_some()));
        });
    }

    fn forgotten(&mut self, is_gone: bool) {
        self.is_busy = false;
        if let (true, Some(secured)) = (is_gone, &self.arguments.secured) {
            secured.authority.store(None);
        }
    }
}

/// Works on the authority's file where that may block. What fails, or takes too long, is tried
/// again when the actor looks the next time.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FilesError> + Send + 'static,
) -> Option<T> {
    match timeout(DISK_LIMIT, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(Ok(done))) => return Some(done),
        Ok(Ok(Err(error))) => tracing::error!(%error, "the authority's key on disk"),
        Ok(Err(error)) => tracing::error!(%error, "the authority's key on disk"),
        Err(_late) => tracing::error!("the authority's key on disk: the disk does not answer"),
    }
    None
}

impl Arguments {
    /// Everybody else's peer port: as the registry knows it, or as this node was told first.
    fn peers(&self) -> BTreeMap<NodeId, SocketAddr> {
        let registry = self.registry.current();
        let mut peers = self.first_peers.clone();
        peers.retain(|node, _| !registry.is_burnt(*node));
        let registered = registry.nodes().iter().filter_map(|(node, record)| {
            let address = record.addresses.peer.parse().ok()?;
            Some((*node, address))
        });
        peers.extend(registered);
        // In memory a node is reached by its id, and its address means nothing.
        if self.secured.is_none() {
            let seats = registry.nodes().keys().map(|node| (*node, NOWHERE));
            peers.extend(seats);
        }
        peers.remove(&self.node);
        peers
    }
}

const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);
const LOOK_EVERY: Duration = Duration::from_millis(500);
const ASK_LIMIT: Duration = Duration::from_secs(2);
/// For a file of a few hundred bytes, synced, on a disk that is busy with everything else.
const DISK_LIMIT: Duration = Duration::from_secs(30);
