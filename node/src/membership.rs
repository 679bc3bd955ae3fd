//! Changes who has a vote, one committed step after another.
//!
//! Owns nothing but the knowledge that a step is under way. Supervised by the node. Hears that
//! the registry has changed, and its own timer; speaks to consensus. It acts on the leader
//! only, and [`paceline_core::membership`] decides. When it dies, its successor looks at the
//! same state and goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use paceline_core::membership::{self, Step, View};
use paceline_core::registry::Registry;
use paceline_protocol::NodeId;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::Instant;

use crate::raft::{MembershipError, RaftHandle, RaftMetrics, Role};
use crate::registry;

/// What the actor hears.
#[derive(Debug)]
pub(crate) enum Message {
    /// The registry has changed, or time has passed: look again.
    Look,
    /// The step that was under way has ended.
    Stepped(Result<(), MembershipError>),
}

impl ractor::Message for Message {}

/// What the actor needs to start.
#[derive(Clone)]
pub(crate) struct Arguments {
    /// Who was admitted.
    pub registry: registry::Handle,
    /// Consensus.
    pub raft: RaftHandle,
}

/// The actor.
pub(crate) struct Membership;

/// Its state.
pub(crate) struct State {
    arguments: Arguments,
    is_stepping: bool,
}

impl Actor for Membership {
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
        Ok(State {
            arguments,
            is_stepping: false,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Look => state.look(&myself),
            Message::Stepped(result) => {
                state.is_stepping = false;
                match result {
                    Ok(()) => state.look(&myself),
                    // The next look decides anew, from what is then the case.
                    Err(error) => tracing::debug!(%error, "a membership step was not made"),
                }
            }
        }
        Ok(())
    }
}

impl State {
    fn look(&mut self, myself: &ActorRef<Message>) {
        let metrics = self.arguments.raft.metrics();
        if self.is_stepping || metrics.role != Role::Leader {
            return;
        }
        let registry = self.arguments.registry.current();
        let view = view(&registry, &metrics);
        if let Some(step) = membership::next(&view) {
            self.start(myself, step);
        }
    }

    fn start(&mut self, myself: &ActorRef<Message>, step: Step) {
        self.is_stepping = true;
        tracing::info!(?step, "membership changes");
        let (raft, myself) = (self.arguments.raft.clone(), myself.clone());
        tokio::spawn(async move {
            let deadline = Instant::now() + STEP_LIMIT;
            let result = match step {
                Step::AddLearner(node) => raft.add_learner(node, deadline).await,
                Step::SetVoters(voters) => raft.change_voters(voters, deadline).await,
                Step::RemoveMember(node) => raft.remove_member(node, deadline).await,
            };
            // An actor that died meanwhile has a successor, which looks for itself.
            let _ = myself.cast(Message::Stepped(result));
        });
    }
}

/// What is known of the members, as core wants it.
pub(crate) fn view<'a>(registry: &'a Registry, metrics: &RaftMetrics) -> View<'a> {
    let last = metrics.last_log.unwrap_or(0);
    let lag = |(node, matched): (&NodeId, &Option<u64>)| {
        matched.map(|matched| (*node, last.saturating_sub(matched)))
    };
    View {
        registry,
        leader: metrics.leader.unwrap_or(metrics.node),
        voters: metrics.voters.iter().copied().collect(),
        learners: metrics.learners.iter().copied().collect(),
        lags: metrics
            .matched
            .iter()
            .filter_map(lag)
            .collect::<BTreeMap<_, _>>(),
    }
}

/// A learner that catches up makes no change of the registry, so it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// One step: a snapshot over a slow line is not waited for here.
const STEP_LIMIT: Duration = Duration::from_secs(10);
