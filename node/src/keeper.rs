//! Fetches the artifacts that this node shall keep and does not have, a few at a time.
//!
//! Owns the knowledge of what is here. Supervised by the node. Hears its own timer; speaks to the
//! fetcher. [`paceline_core::copies`] decides. When it dies, its successor looks again at what is
//! here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use paceline_core::copies::{artifacts, lacking, sources};
use paceline_protocol::{Digest, NodeId};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::Instant;

use crate::artifacts::{FetchError, Fetcher};
use crate::registry;

/// What the keeper hears.
#[derive(Debug)]
pub(crate) enum Message {
    /// Time has passed: look again.
    Look,
    /// What was looked for is here, or could not be fetched.
    Ended(Digest, Result<(), FetchError>),
}

impl ractor::Message for Message {}

/// What the keeper needs to start.
#[derive(Clone)]
pub(crate) struct Arguments {
    /// This node.
    pub node: NodeId,
    /// What there is, and who is there to keep it.
    pub registry: registry::Handle,
    /// What is here, and the way to what is not.
    pub fetcher: Fetcher,
}

/// The actor.
pub(crate) struct Keeper;

/// Its state.
pub(crate) struct State {
    arguments: Arguments,
    /// What is here, or could not be fetched, and when it is looked at again.
    settled: BTreeMap<Digest, Instant>,
    fetching: BTreeSet<Digest>,
}

impl Actor for Keeper {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        arguments: Arguments,
    ) -> Result<State, ActorProcessingErr> {
        // Not at each change: what is to run here is fetched for that, and copies can wait.
        myself.send_interval(LOOK_EVERY, || Message::Look);
        Ok(State {
            arguments,
            settled: BTreeMap::new(),
            fetching: BTreeSet::new(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        if let Message::Ended(artifact, result) = message {
            state.ended(artifact, result);
        }
        state.look(&myself);
        Ok(())
    }
}

impl State {
    fn look(&mut self, myself: &ActorRef<Message>) {
        let registry = self.arguments.registry.current();
        let now = Instant::now();
        while self.fetching.len() < FETCHES_MAX {
            let is_settled = |artifact: &Digest| {
                let settled = self.settled.get(artifact);
                self.fetching.contains(artifact) || settled.is_some_and(|until| now < *until)
            };
            let Some(artifact) = lacking(&registry, self.arguments.node, is_settled) else {
                self.forget(&artifacts(&registry).collect());
                return;
            };
            self.fetching.insert(artifact);
            let peers = sources(&registry, artifact);
            let (fetcher, myself) = (self.arguments.fetcher.clone(), myself.clone());
            tokio::spawn(async move {
                let ended = fetcher.ensure(artifact, &peers, now + FETCH_LIMIT).await;
                // A keeper that died meanwhile has a successor, which looks for itself.
                let _ = myself.cast(Message::Ended(artifact, ended));
            });
        }
    }

    fn ended(&mut self, artifact: Digest, result: Result<(), FetchError>) {
        self.fetching.remove(&artifact);
        let pause = match result {
            Ok(()) => RECHECK_AFTER,
            Err(error) => {
                tracing::warn!(%artifact, %error, "an artifact that this node shall keep is not here");
                RETRY_AFTER
            }
        };
        self.settled.insert(artifact, Instant::now() + pause);
    }

    /// What no version is made of any more needs not be remembered.
    fn forget(&mut self, known: &BTreeSet<Digest>) {
        self.settled.retain(|artifact, _| known.contains(artifact));
    }
}

/// How long a copy may be missing before it is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The largest artifacts over a slow line; what was fetched of it then is kept.
const FETCH_LIMIT: Duration = Duration::from_secs(600);
/// One slow source holds up no other repair.
const FETCHES_MAX: usize = 4;
/// A disk may lose what it had.
const RECHECK_AFTER: Duration = Duration::from_secs(600);
/// Who could have given it may be on its way back.
const RETRY_AFTER: Duration = Duration::from_secs(10);
