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

use paceline_protocol::NodeId;
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::directory::Directory;
use crate::node::Secured;
use crate::raft::RaftHandle;
use crate::registry;
use crate::transport::Transport;

/// What the actor hears.
#[derive(Debug)]
pub(crate) enum Message {
    /// The registry has changed, or time has passed: look again.
    Look,
    /// The authority's key was asked for.
    Asked(Option<String>),
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
}

/// The actor.
pub(crate) struct Peers;

/// Its state.
pub(crate) struct State {
    arguments: Arguments,
    told: BTreeMap<NodeId, SocketAddr>,
    is_asking: bool,
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
            is_asking: false,
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
            Message::Asked(key) => state.keep_authority(key),
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
        trust.set_quorum(self.arguments.raft.has_quorum());
        let voters = self.arguments.raft.metrics().voters;
        let is_voter = voters.contains(&self.arguments.node);
        match (is_voter, secured.authority.load().is_some()) {
            (true, false) if !self.is_asking => self.ask_authority(myself, voters),
            (false, true) if !voters.is_empty() => self.forget_authority(),
            _ => {}
        }
    }

    /// Any other voter has the key.
    fn ask_authority(&mut self, myself: &ActorRef<Message>, voters: Vec<NodeId>) {
        self.is_asking = true;
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
            // An actor that died meanwhile has a successor, which asks for itself.
            let _ = myself.cast(Message::Asked(key));
        });
    }

    fn keep_authority(&mut self, key: Option<String>) {
        self.is_asking = false;
        let (Some(key), Some(secured)) = (key, &self.arguments.secured) else {
            return;
        };
        match secured.files.save_authority_key(&key) {
            Ok(authority) => {
                secured.authority.store(Some(Arc::new(authority)));
                tracing::info!("this node is a voter and signs nodes");
            }
            Err(error) => tracing::error!(%error, "the authority's key cannot be kept"),
        }
    }

    fn forget_authority(&self) {
        if let Some(secured) = &self.arguments.secured {
            match secured.files.forget_authority_key() {
                Ok(()) => secured.authority.store(None),
                Err(error) => tracing::error!(%error, "the authority's key cannot be removed"),
            }
        }
    }
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
