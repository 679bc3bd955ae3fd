//! Sees ports of other nodes come and go, and tells each what this node knows of itself.
//!
//! Owns this node's port and a task for each port of another node. Supervised by nobody: the
//! mesh ends with it, and peers see that. Hears from ractor's process groups and from its
//! tasks; speaks to other nodes' ports, through them. When it dies, its tasks end.

use std::sync::Arc;
use std::time::Duration;

use paceline_protocol::NodeId;
use ractor::pg::{self, GroupChangeMessage};
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::task::AbortHandle;

use super::Shared;
use super::port::{self, Port};
use crate::directory::Publication;

/// What the hub hears.
#[derive(Debug)]
pub(super) enum Message {
    /// A port has said whose it is.
    Known(ActorId, NodeId),
}

impl ractor::Message for Message {}

/// The actor.
pub(super) struct Hub;

/// Its state.
pub(super) struct State {
    shared: Arc<Shared>,
    group: String,
    others: Vec<Other>,
}

/// A port of another node.
struct Other {
    id: ActorId,
    node: Option<NodeId>,
    telling: AbortHandle,
}

impl Actor for Hub {
    type Msg = Message;
    type State = State;
    type Arguments = (Arc<Shared>, String);

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        (shared, group): (Arc<Shared>, String),
    ) -> Result<State, ActorProcessingErr> {
        let port = Actor::spawn_linked(None, Port, shared.clone(), myself.get_cell());
        let (port, _) = port.await?;
        pg::monitor_scope(SCOPE.to_owned(), myself.get_cell());
        pg::join_scoped(SCOPE.to_owned(), group.clone(), vec![port.get_cell()]);
        Ok(State {
            shared,
            group,
            others: Vec::new(),
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Known(id, node) => {
                if let Some(other) = state.others.iter_mut().find(|other| other.id == id) {
                    other.node = Some(node);
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Message>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ProcessGroupChanged(GroupChangeMessage::Join(_, group, cells)) => {
                if group == state.group {
                    cells
                        .into_iter()
                        .for_each(|cell| state.joined(&myself, cell));
                }
            }
            SupervisionEvent::ProcessGroupChanged(GroupChangeMessage::Leave(_, _, cells)) => {
                cells.iter().for_each(|cell| state.left(cell.get_id()));
            }
            SupervisionEvent::ActorFailed(_, error) => return Err(error),
            SupervisionEvent::ActorTerminated(..) => return Err("the port has stopped".into()),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::PidLifecycleEvent(_) => {}
        }
        Ok(())
    }
}

impl State {
    fn joined(&mut self, myself: &ActorRef<Message>, cell: ActorCell) {
        let id = cell.get_id();
        if id.is_local() || self.others.iter().any(|other| other.id == id) {
            return;
        }
        if self.others.len() == OTHERS_MAX {
            tracing::warn!("there are more ports in the mesh than there can be nodes");
            return;
        }
        let way = Way {
            hub: myself.clone(),
            port: cell.into(),
        };
        let telling = tokio::spawn(way.tell(self.shared.publisher.subscribe()));
        self.others.push(Other {
            id,
            node: None,
            telling: telling.abort_handle(),
        });
    }

    fn left(&mut self, id: ActorId) {
        if let Some(position) = self.others.iter().position(|other| other.id == id) {
            let other = self.others.swap_remove(position);
            if let Some(node) = other.node {
                self.shared.board.forget(node);
            }
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.telling.abort();
    }
}

/// The way to a port of another node.
struct Way {
    hub: ActorRef<Message>,
    port: ActorRef<port::Message>,
}

impl Way {
    /// Tells the port everything, one message at a time, until it leaves.
    async fn tell(self, publication: Publication) {
        while let Err(error) = self.ask_whose().await {
            tracing::debug!(%error, "a port does not say whose it is");
            tokio::time::sleep(PAUSE).await;
        }
        loop {
            let mut publication = publication.anew();
            let reason = loop {
                let Some(told) = publication.next().await else {
                    return;
                };
                let bytes = match told.encode() {
                    Ok(bytes) => bytes,
                    Err(error) => {
                        tracing::error!(%error, "this node's own report cannot be said");
                        continue;
                    }
                };
                match ractor::call_t!(self.port, port::Message::Say, ANSWER_MS, bytes) {
                    Ok(0) => break "it does not know what that was about".to_owned(),
                    Ok(_) => {}
                    Err(error) => break error.to_string(),
                }
            };
            tracing::debug!(reason, "a port is told everything again");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn ask_whose(&self) -> Result<(), ractor::RactorErr<port::Message>> {
        let node = ractor::call_t!(self.port, port::Message::Who, ANSWER_MS)?;
        // If the hub is gone, this task is soon too.
        let _ = self
            .hub
            .cast(Message::Known(self.port.get_id(), NodeId(node)));
        Ok(())
    }
}

/// Of our own, so that nothing else of the process is taken for a port.
const SCOPE: &str = "paceline-mesh";
/// How long a port may take to answer.
const ANSWER_MS: u64 = 2_000;
/// After a port that did not.
const PAUSE: Duration = Duration::from_millis(200);
/// Twice the nodes of a cluster: a restarted node's old port may linger.
const OTHERS_MAX: usize = 2 * paceline_protocol::limits::NODES_MAX;
