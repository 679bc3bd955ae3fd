//! Commands, outcomes and targets as text.

use std::fmt;

use super::{Change, Command, Outcome, ReplicaTarget};

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
