//! The one actor of a node that actors of other nodes can speak to.
//!
//! Owns nothing; writes what peers say on the board. Supervised by the hub. Hears from the
//! hubs of other nodes; speaks to nobody. When it dies, peers see it leave the group, this
//! node becomes unknown to them, and its hub ends too.

use std::sync::Arc;

use paceline_protocol::report::Told;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use ractor_cluster::RactorClusterMessage;

use super::Shared;

/// What a port hears. Its variants' names are the wire format: they are never changed.
#[derive(RactorClusterMessage)]
pub(super) enum Message {
    /// Whose port is it? Answered with the node's id.
    #[rpc]
    Who(RpcReplyPort<u64>),
    /// A [`Told`] of another node, encoded. Answered with 1 when it has been read, so that the
    /// next one may follow, and with 0 if it is about a report that is not here: a session that
    /// ended late may have taken it along.
    #[rpc]
    Say(Vec<u8>, RpcReplyPort<u64>),
}

/// The actor.
pub(super) struct Port;

impl Actor for Port {
    type Msg = Message;
    type State = Arc<Shared>;
    type Arguments = Arc<Shared>;

    async fn pre_start(
        &self,
        _myself: ActorRef<Message>,
        shared: Arc<Shared>,
    ) -> Result<Arc<Shared>, ActorProcessingErr> {
        Ok(shared)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Message>,
        message: Message,
        shared: &mut Arc<Shared>,
    ) -> Result<(), ActorProcessingErr> {
        // Whoever asked may be gone.
        let _ = match message {
            Message::Who(reply) => reply.send(shared.transport.node().0),
            Message::Say(bytes, reply) => {
                let is_known = shared.hear(&bytes);
                reply.send(u64::from(is_known))
            }
        };
        Ok(())
    }
}

impl Shared {
    /// Whether what it is about is known.
    fn hear(&self, bytes: &[u8]) -> bool {
        match Told::decode(bytes) {
            Ok(told) if self.is_peer(told.node()) => self.board.hear(&told),
            Ok(told) => {
                tracing::debug!(node = %told.node(), "a word of a node that is no peer");
                false
            }
            Err(error) => {
                tracing::warn!(%error, "a peer's word is not understood");
                true
            }
        }
    }
}
