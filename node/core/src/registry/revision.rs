//! What a change presupposes of its model, and that the model is another one afterwards.

use paceline_protocol::Epoch;
use paceline_protocol::registry::{Change, Command, Refusal, Reply};

use super::{Arc, Registry};

impl Registry {
    /// Does what a command says, if the model is as its author has seen it.
    pub(super) fn change(&mut self, epoch: Epoch, command: &Command) -> Result<Reply, Refusal> {
        if let Some(expected) = command.expected_revision {
            self.check_revision(&command.change, expected)?;
        }
        let reply = self.perform(epoch, command)?;
        let is_known = matches!(reply, Reply::Published { created: false, .. });
        if !is_known
            && let Some(name) = command.change.model()
            && let Some(model) = self.models.get_mut(name)
        {
            Arc::make_mut(model).revision = epoch;
        }
        Ok(reply)
    }

    /// Whether a model is as the author of a change has seen it.
    fn check_revision(&self, change: &Change, expected: Epoch) -> Result<(), Refusal> {
        let model = change.model().ok_or(Refusal::NoRevision)?;
        let known = self.models.get(model);
        let found = known.map_or(Epoch::default(), |known| known.revision);
        if found == expected {
            return Ok(());
        }
        Err(Refusal::RevisionDiffers {
            model: model.clone(),
            expected,
            found,
        })
    }
}
