//! Commands, outcomes and targets as text.

use std::fmt;

use super::{Change, Command, Outcome, ReplicaTarget};
use crate::id::ModelName;

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} op {}", self.change.name(), self.op)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            Ok(reply) => write!(f, "{reply:?} at {}", self.epoch),
            Err(refusal) => write!(f, "refused at {}: {refusal}", self.epoch),
        }
    }
}

impl Change {
    /// The model of which people see a change by this, if there is one: where its replicas are is
    /// none.
    pub fn model(&self) -> Option<&ModelName> {
        match self {
            Self::PublishVersion { model, .. }
            | Self::Deploy { model, .. }
            | Self::Activate { model, .. }
            | Self::DeleteModel { model }
            | Self::BeginCanary { model, .. }
            | Self::AdvanceCanary { model, .. }
            | Self::PromoteCanary { model, .. }
            | Self::AbortCanary { model, .. }
            | Self::Rollback { model }
            | Self::SetLabel { model, .. }
            | Self::SetShadow { model, .. }
            | Self::EndShadow { model }
            | Self::Undeploy { model } => Some(model),
            Self::RegisterNode(_)
            | Self::Assign { .. }
            | Self::Unassign { .. }
            | Self::CreateToken(_)
            | Self::RevokeToken { .. }
            | Self::AdmitNode { .. }
            | Self::MarkDown { .. }
            | Self::MarkUp { .. }
            | Self::Drain { .. }
            | Self::Drained { .. }
            | Self::Undrain { .. }
            | Self::RemoveNode { .. }
            | Self::SetTenant { .. }
            | Self::DeleteTenant { .. }
            | Self::AddKey { .. }
            | Self::RevokeKey { .. } => None,
        }
    }

    /// The variant's name, for logs and spans.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RegisterNode(_) => "register-node",
            Self::PublishVersion { .. } => "publish-version",
            Self::Deploy { .. } => "deploy",
            Self::Activate { .. } => "activate",
            Self::Assign { .. } => "assign",
            Self::Unassign { .. } => "unassign",
            Self::DeleteModel { .. } => "delete-model",
            Self::CreateToken(_) => "create-token",
            Self::RevokeToken { .. } => "revoke-token",
            Self::AdmitNode { .. } => "admit-node",
            Self::MarkDown { .. } => "mark-down",
            Self::MarkUp { .. } => "mark-up",
            Self::Drain { .. } => "drain",
            Self::Drained { .. } => "drained",
            Self::Undrain { .. } => "undrain",
            Self::RemoveNode { .. } => "remove-node",
            Self::SetTenant { .. } => "set-tenant",
            Self::DeleteTenant { .. } => "delete-tenant",
            Self::AddKey { .. } => "add-key",
            Self::RevokeKey { .. } => "revoke-key",
            Self::BeginCanary { .. } => "begin-canary",
            Self::AdvanceCanary { .. } => "advance-canary",
            Self::PromoteCanary { .. } => "promote-canary",
            Self::AbortCanary { .. } => "abort-canary",
            Self::Rollback { .. } => "rollback",
            Self::SetLabel { .. } => "set-label",
            Self::SetShadow { .. } => "set-shadow",
            Self::EndShadow { .. } => "end-shadow",
            Self::Undeploy { .. } => "undeploy",
        }
    }
}

impl fmt::Display for ReplicaTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Each => f.write_str("each"),
        }
    }
}
