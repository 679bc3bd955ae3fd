//! Carries what is observed between this node's board and the directory.
//!
//! Owns nothing. Supervised by the node. Hears that the board, the registry, the node's own
//! facts or a peer's report has changed; speaks to the directory and the board. When it dies,
//! its successor says and reads everything again.

use std::sync::Arc;

use paceline_protocol::report::NodeReport;
use paceline_protocol::{Epoch, NodeId};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use crate::directory::Directory;
use crate::observed::Observed;
use crate::registry;
use crate::supervisor::notify;
use crate::tenants::Demands;

/// What the observer hears.
#[derive(Debug)]
pub enum Message {
    /// Something of this node has changed.
    Own,
    /// A peer has said something, or is gone, or replicas have moved.
    Peers,
}

impl ractor::Message for Message {}

/// What a node knows of itself beside its replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnFacts {
    /// Whether it answers requests.
    pub ready: bool,
    /// The entry that told it to drain, once it has applied it.
    pub draining: Option<Epoch>,
}

/// What the observer needs to start.
#[derive(Clone)]
pub struct Arguments {
    /// This node.
    pub node: NodeId,
    /// Its process.
    pub pid: u32,
    /// What it knows of itself.
    pub facts: watch::Receiver<OwnFacts>,
    /// The epoch that its requests are routed by.
    pub applied: watch::Receiver<Epoch>,
    /// What tenants with limits ask of it.
    pub demands: watch::Receiver<Demands>,
    /// What was agreed.
    pub registry: registry::Handle,
    /// What is seen.
    pub observed: Observed,
    /// What peers say.
    pub directory: Arc<dyn Directory>,
}

/// The actor.
pub struct Observer;

impl Actor for Observer {
    type Msg = Message;
    type State = Arguments;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        arguments: Arguments,
    ) -> Result<Arguments, ActorProcessingErr> {
        arguments.observed.tell(&myself, || Message::Own);
        arguments.registry.tell(&myself, || Message::Peers);
        notify(arguments.applied.clone(), myself.clone(), || Message::Own);
        let canaries = arguments.observed.own_canaries();
        notify(canaries, myself.clone(), || Message::Own);
        notify(arguments.facts.clone(), myself.clone(), || Message::Own);
        notify(arguments.demands.clone(), myself.clone(), || Message::Own);
        notify(arguments.directory.reports(), myself.clone(), || {
            Message::Peers
        });
        myself.cast(Message::Own)?;
        myself.cast(Message::Peers)?;
        Ok(arguments)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Message>,
        message: Message,
        state: &mut Arguments,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Own => state.publish(),
            Message::Peers => state.read(),
        }
        Ok(())
    }
}

impl Arguments {
    fn publish(&self) {
        let OwnFacts { ready, draining } = *self.facts.borrow();
        // The directory says nothing twice.
        self.directory.publish(NodeReport {
            node: self.node,
            epoch: *self.applied.borrow(),
            ready,
            draining,
            pid: self.pid,
            replicas: self.observed.own(),
            demands: self.demands.borrow().clone(),
            canaries: self.observed.own_canaries().borrow().to_vec(),
        });
    }

    fn read(&self) {
        let reports = self.directory.reports().borrow().clone();
        let registry = self.registry.current();
        self.observed.hear(&reports, |replica| {
            let assignment = registry.replicas().get(&replica)?;
            Some(assignment.node)
        });
    }
}
