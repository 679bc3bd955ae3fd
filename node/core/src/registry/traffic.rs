//! Which version of a model gets which requests: canaries, how they end, and the way back.
//!
//! A canary runs beside the version that serves. Its stage is none until its replicas are ready;
//! then each stage is one entry. To promote it is to deploy it: it keeps its share until all of
//! its replicas are ready, and then the whole traffic moves in one entry, as after any deployment.

use paceline_protocol::limits::{ABORT_REASON_BYTES_MAX, CANARIES_MAX};
use paceline_protocol::registry::{CanaryPlan, Change, Refusal, ReplicaTarget, Reply};
use paceline_protocol::{Epoch, ModelName, VersionNumber};
use serde::{Deserialize, Serialize};

use super::{Deployment, Model, Registry};

/// A version that is tried beside the one that serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// The entry that began it; it names the canary, and salts the choice of who tries it.
    pub since: Epoch,
    /// Which version, and how.
    pub plan: CanaryPlan,
    /// The stage that it is in, from 0; none while its replicas are not ready.
    pub stage: Option<u32>,
}

/// How a model's last canary ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryEnd {
    /// The version.
    pub version: VersionNumber,
    /// The entry that began it.
    pub since: Epoch,
    /// The entry that ended it.
    pub until: Epoch,
    /// The stage that it was in.
    pub stage: Option<u32>,
    /// Why it was aborted; none if it serves since.
    pub aborted: Option<String>,
}

impl Canary {
    /// Its share of the requests now, in units of 1/10,000.
    pub fn weight(&self) -> u16 {
        let stage = self
            .stage
            .and_then(|stage| self.plan.stages.get(stage as usize));
        stage.map_or(0, |stage| stage.weight)
    }
}

impl Model {
    /// Whether the canary has been promoted and waits for the last of its replicas.
    pub fn is_promoting(&self) -> bool {
        let deployed = self.deployment.map(|deployment| deployment.version);
        let canary = self.canary.as_ref();
        canary.is_some_and(|canary| deployed == Some(canary.plan.version))
    }

    /// Versions that must not be forgotten, beside those with replicas: they serve, shall serve,
    /// are tried, get copies, have served before, or have a label.
    pub(super) fn versions_named(&self) -> impl Iterator<Item = VersionNumber> {
        let deployed = self.deployment.map(|deployment| deployment.version);
        let canary = self.canary.as_ref().map(|canary| canary.plan.version);
        let shadow = self.shadow.map(|shadow| shadow.plan.version);
        let named = [self.serving, deployed, canary, shadow, self.previous];
        let named = named.into_iter().flatten();
        named.chain(self.labels.values().copied())
    }

    /// Nothing but the number of replicas may be deployed anew while a canary is under way.
    pub(super) fn check_no_canary(
        &self,
        name: &ModelName,
        wanted: Option<VersionNumber>,
    ) -> Result<(), Refusal> {
        let deployed = self.deployment.map(|deployment| deployment.version);
        match &self.canary {
            Some(canary) if wanted.is_none() || wanted != deployed => {
                Err(Refusal::CanaryUnderWay {
                    model: name.clone(),
                    version: canary.plan.version,
                })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Traffic moves.
    pub(super) fn serve(&mut self, version: VersionNumber, epoch: Epoch) {
        if self.serving != Some(version) {
            // What served before nothing did is still what served before.
            let before = self.serving.replace(version).or(self.previous);
            self.previous = before.filter(|before| *before != version);
        }
        let canary = self.canary.as_ref();
        if canary.is_some_and(|canary| canary.plan.version == version) {
            self.end_canary(epoch, None);
        }
        // What answers everybody is nobody's shadow.
        self.shadow = self.shadow.filter(|shadow| shadow.plan.version != version);
    }

    /// No traffic goes anywhere.
    pub(super) fn rest(&mut self) {
        self.previous = self.serving.take().or(self.previous);
        self.deployment = None;
        self.shadow = None;
    }

    fn end_canary(&mut self, until: Epoch, aborted: Option<String>) {
        if let Some(canary) = self.canary.take() {
            self.ended = Some(CanaryEnd {
                version: canary.plan.version,
                since: canary.since,
                until,
                stage: canary.stage,
                aborted,
            });
        }
    }

    /// The canary that a command means: as the leader knows it, or whichever there is.
    fn canary(&mut self, name: &ModelName, since: Option<Epoch>) -> Result<&mut Canary, Refusal> {
        let canary = self.canary.as_mut();
        canary
            .filter(|canary| since.is_none_or(|since| canary.since == since))
            .ok_or_else(|| Refusal::NoCanary {
                model: name.clone(),
            })
    }
}

impl Registry {
    pub(super) fn change_traffic(
        &mut self,
        epoch: Epoch,
        change: &Change,
    ) -> Result<Reply, Refusal> {
        match change {
            Change::BeginCanary { model, plan } => self.begin_canary(epoch, model, plan)?,
            Change::AdvanceCanary {
                model,
                since,
                stage,
            } => self.advance_canary(model, (*since, *stage))?,
            Change::PromoteCanary { model, since } => self.promote_canary(epoch, model, *since)?,
            Change::AbortCanary {
                model,
                since,
                reason,
            } => self.abort_canary(epoch, (model, *since), reason)?,
            Change::Rollback { model } => self.rollback(epoch, model)?,
            Change::SetLabel {
                model,
                label,
                version,
            } => self.set_label(model, label, *version)?,
            Change::RegisterNode(_)
            | Change::PublishVersion { .. }
            | Change::Deploy { .. }
            | Change::Activate { .. }
            | Change::Assign { .. }
            | Change::Unassign { .. }
            | Change::DeleteModel { .. }
            | Change::CreateToken(_)
            | Change::RevokeToken { .. }
            | Change::AdmitNode { .. }
            | Change::MarkDown { .. }
            | Change::MarkUp { .. }
            | Change::Drain { .. }
            | Change::Drained { .. }
            | Change::Undrain { .. }
            | Change::RemoveNode { .. }
            | Change::SetTenant { .. }
            | Change::DeleteTenant { .. }
            | Change::AddKey { .. }
            | Change::RevokeKey { .. }
            | Change::SetShadow { .. }
            | Change::EndShadow { .. }
            | Change::Undeploy { .. } => unreachable!("no change of a canary"),
        }
        Ok(Reply::Done)
    }

    fn begin_canary(
        &mut self,
        epoch: Epoch,
        name: &ModelName,
        plan: &CanaryPlan,
    ) -> Result<(), Refusal> {
        plan.check()?;
        self.check_replicas(plan.replicas)?;
        let under_way = self.models.values().filter(|model| model.canary.is_some());
        let under_way = under_way.count();
        let model = self.model_mut(name)?;
        model.check_version(name, plan.version)?;
        model.check_no_canary(name, None)?;
        model.check_no_shadow(name, plan.version)?;
        let deployed = model.deployment.map(|deployment| deployment.version);
        if model.serving.is_none() || model.serving != deployed {
            return Err(Refusal::NoStableVersion {
                model: name.clone(),
            });
        }
        if deployed == Some(plan.version) {
            return Err(Refusal::ServesAlready {
                model: name.clone(),
                version: plan.version,
            });
        }
        if under_way >= CANARIES_MAX {
            return Err(Refusal::Limit {
                what: "canaries under way".into(),
                limit: CANARIES_MAX as u64,
            });
        }
        model.canary = Some(Canary {
            since: epoch,
            plan: plan.clone(),
            stage: None,
        });
        self.assignments_changed_at = epoch;
        Ok(())
    }

    fn advance_canary(
        &mut self,
        name: &ModelName,
        (since, stage): (Epoch, u32),
    ) -> Result<(), Refusal> {
        let canary = self.model_mut(name)?.canary(name, Some(since))?;
        let next = canary.stage.map_or(0, |stage| stage + 1);
        let stages = canary.plan.stages.len() as u32;
        if stage != next || stage >= stages {
            return Err(Refusal::CanaryStage {
                model: name.clone(),
                stage,
                stages,
            });
        }
        canary.stage = Some(stage);
        Ok(())
    }

    fn promote_canary(
        &mut self,
        epoch: Epoch,
        name: &ModelName,
        since: Option<Epoch>,
    ) -> Result<(), Refusal> {
        let model = self.model_mut(name)?;
        let canary = model.canary(name, since)?;
        let (version, replicas) = (canary.plan.version, canary.plan.replicas);
        // It gets as many replicas as the version has that it takes the place of.
        let replicas = model.deployment.map_or(replicas, |known| known.replicas);
        model.deployment = Some(Deployment { version, replicas });
        self.assignments_changed_at = epoch;
        Ok(())
    }

    fn abort_canary(
        &mut self,
        epoch: Epoch,
        (name, since): (&ModelName, Option<Epoch>),
        reason: &str,
    ) -> Result<(), Refusal> {
        let model = self.model_mut(name)?;
        model.canary(name, since)?;
        if model.is_promoting()
            && let (Some(deployment), Some(serving)) = (&mut model.deployment, model.serving)
        {
            deployment.version = serving;
        }
        let reason = &reason[..reason.floor_char_boundary(ABORT_REASON_BYTES_MAX)];
        model.end_canary(epoch, Some(reason.to_owned()));
        self.assignments_changed_at = epoch;
        Ok(())
    }

    fn rollback(&mut self, epoch: Epoch, name: &ModelName) -> Result<(), Refusal> {
        let model = self.model_mut(name)?;
        model.check_no_canary(name, None)?;
        let deployed = model.deployment.map(|deployment| deployment.version);
        let before = match model.serving {
            Some(serving) if deployed != Some(serving) => Some(serving),
            Some(_) | None => model.previous,
        };
        let (Some(version), Some(deployment)) = (before, &mut model.deployment) else {
            return Err(Refusal::NoPrevious {
                model: name.clone(),
            });
        };
        deployment.version = version;
        self.assignments_changed_at = epoch;
        Ok(())
    }

    pub(super) fn check_replicas(&self, replicas: ReplicaTarget) -> Result<(), Refusal> {
        let limit = self.nodes_max.0 as u32;
        match replicas {
            ReplicaTarget::Count(replicas) if replicas == 0 || replicas > limit => {
                Err(Refusal::ReplicaCount { replicas, limit })
            }
            ReplicaTarget::Count(_) | ReplicaTarget::Each => Ok(()),
        }
    }
}
