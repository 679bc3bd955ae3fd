//! Which version of a model gets copies of its requests.
//!
//! A shadow has replicas as any version has that is deployed, and answers nobody. It is never what
//! all traffic goes to, nor what is tried as a canary: one that comes to serve is none any more.

use paceline_protocol::limits::SHADOWS_MAX;
use paceline_protocol::registry::{Refusal, Reply, ShadowPlan};
use paceline_protocol::{Epoch, ModelName, VersionNumber};
use serde::{Deserialize, Serialize};

use super::{Model, Registry};

/// A version that gets copies of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadow {
    /// The entry that began it; it salts the choice of what is copied.
    pub since: Epoch,
    /// Which version, and how much.
    pub plan: ShadowPlan,
}

impl Model {
    /// What is to be done to a version cannot be done to a shadow.
    pub(super) fn check_no_shadow(
        &self,
        name: &ModelName,
        version: VersionNumber,
    ) -> Result<(), Refusal> {
        match self.shadow {
            Some(shadow) if shadow.plan.version == version => Err(Refusal::IsShadow {
                model: name.clone(),
                version,
            }),
            Some(_) | None => Ok(()),
        }
    }
}

impl Registry {
    /// A version gets copies from now on. One that does already keeps its salt: with a larger
    /// share what was copied still is.
    pub(super) fn set_shadow(
        &mut self,
        epoch: Epoch,
        name: &ModelName,
        plan: ShadowPlan,
    ) -> Result<Reply, Refusal> {
        plan.check()?;
        self.check_replicas(plan.replicas)?;
        let others = self.models.iter();
        let others = others.filter(|(other, model)| *other != name && model.shadow.is_some());
        let others = others.count();
        let model = self.model_mut(name)?;
        let version = plan.version;
        model.check_version(name, version)?;
        let deployed = model.deployment.map(|deployment| deployment.version);
        if model.serving.is_none() {
            return Err(Refusal::NoStableVersion {
                model: name.clone(),
            });
        }
        if model.serving == Some(version) || deployed == Some(version) {
            return Err(Refusal::ServesAlready {
                model: name.clone(),
                version,
            });
        }
        let canary = model.canary.as_ref().map(|canary| canary.plan.version);
        if canary == Some(version) {
            return Err(Refusal::IsCanary {
                model: name.clone(),
                version,
            });
        }
        if others >= SHADOWS_MAX {
            return Err(Refusal::Limit {
                what: "shadows".into(),
                limit: SHADOWS_MAX as u64,
            });
        }
        let known = model.shadow.filter(|known| known.plan.version == version);
        let since = known.map_or(epoch, |known| known.since);
        model.shadow = Some(Shadow { since, plan });
        self.assignments_changed_at = epoch;
        Ok(Reply::Done)
    }

    pub(super) fn end_shadow(&mut self, epoch: Epoch, name: &ModelName) -> Result<Reply, Refusal> {
        let model = self.model_mut(name)?;
        model.shadow.take().ok_or_else(|| Refusal::NoShadow {
            model: name.clone(),
        })?;
        self.assignments_changed_at = epoch;
        Ok(Reply::Done)
    }
}
