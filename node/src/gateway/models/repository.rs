//! Loading and unloading as Triton's repository has it: the answer comes when it is done.
//!
//! A model is loaded by deploying it, and unloaded by undeploying it, in the whole cluster: the same
//! commands that `paceline model` sends.

use std::time::Duration;

use paceline_core::registry::Model;
use paceline_protocol::limits::REPOSITORY_LOAD_MAX_MS;
use paceline_protocol::registry::{Change, ReplicaTarget};
use paceline_protocol::{Epoch, ErrorCode, Failure, ModelName, VersionNumber};
use tokio::time::{Instant, timeout_at};

use super::Models;
use super::state::State;
use crate::registry::fresh_op;
use crate::tenants::Caller;

/// A version that is deployed, and the entry by which it is, or a later one.
#[derive(Clone, Copy)]
struct Deployed {
    version: VersionNumber,
    epoch: Epoch,
}

/// How far a version that was deployed has come.
enum Progress {
    Serves,
    Loads,
    Failed(String),
    /// Something else was deployed, or nothing.
    Overtaken,
}

/// Refuses what a request to load a model may not carry.
///
/// # Errors
/// `UNSUPPORTED` for Triton's own, `PARAMETER_INVALID` for any other, by name.
pub fn check_load_parameter(name: &str) -> Result<(), Failure> {
    if name == "config" || name.starts_with("file:") {
        let message = format!(
            "load parameter '{name}' is not taken: a version is immutable; publish another one with \
             `paceline model push NAME PATH`, then load it"
        );
        return Err(Failure::new(ErrorCode::Unsupported, message));
    }
    Err(unknown_parameter("load", name, "none is taken"))
}

/// Refuses what a request to unload a model may not carry. No model depends on another one here, so
/// `unload_dependents` holds whatever it says.
///
/// # Errors
/// `PARAMETER_INVALID`, by name.
pub fn check_unload_parameter(name: &str) -> Result<(), Failure> {
    match name {
        "unload_dependents" => Ok(()),
        _ => Err(unknown_parameter("unload", name, "unload_dependents is")),
    }
}

fn unknown_parameter(what: &str, name: &str, allowed: &str) -> Failure {
    let shown: String = name.chars().take(64).collect();
    let message = format!("{shown:?} is no parameter of {what} that is known; {allowed}");
    Failure::new(ErrorCode::ParameterInvalid, message)
}

impl Models {
    /// Has a model serve, and returns when it does: the version that is deployed; otherwise the one
    /// that served last, or the newest. If loading fails the deployment stands, and the cluster
    /// tries on.
    ///
    /// # Errors
    /// `MODEL_NOT_FOUND`, `PERMISSION_DENIED`, `LOAD_FAILED` with the reason, `CONFLICT` if something
    /// else is deployed before it serves, `DEADLINE_EXCEEDED`, and those of a write.
    pub async fn load(&self, caller: Caller, name: &str) -> Result<(), Failure> {
        let deadline = Instant::now() + LOAD_LIMIT;
        let model = self.changed(caller, name).await?;
        let deployed = self.deploy(&model).await?;
        self.until_served(&model, deployed, deadline).await?;
        self.applied(self.registry.current().epoch()).await;
        Ok(())
    }

    /// Has nothing of a model serve any more, and returns when the nodes know it. What runs is
    /// answered; what waits for a batch is told that the version is gone.
    ///
    /// # Errors
    /// `MODEL_NOT_FOUND`, `PERMISSION_DENIED`, `CONFLICT` while a canary is under way, and those of
    /// a write.
    pub async fn unload(&self, caller: Caller, name: &str) -> Result<(), Failure> {
        let model = self.changed(caller, name).await?;
        let change = Change::Undeploy { model };
        let (epoch, _) = self.registry.write(fresh_op()?, change).await?;
        self.applied(epoch).await;
        Ok(())
    }

    /// Deploys a version, unless one is. A model that has changed meanwhile is looked at again: what
    /// somebody else has deployed stays, and is what was asked for.
    async fn deploy(&self, model: &ModelName) -> Result<Deployed, Failure> {
        let mut tries = 0;
        loop {
            tries += 1;
            let registry = self.registry.current();
            let known = registry.models().get(model);
            let known = known.ok_or_else(|| super::unknown(model.as_str()))?;
            if let Some(deployment) = known.deployment {
                return Ok(Deployed {
                    version: deployment.version,
                    epoch: registry.epoch(),
                });
            }
            let version = to_load(known).ok_or_else(|| super::unknown(model.as_str()))?;
            // Two copies survive the loss of one; more than one on one node gives nothing.
            let copies = registry.nodes().len().clamp(1, 2) as u32;
            let change = Change::Deploy {
                model: model.clone(),
                version,
                replicas: ReplicaTarget::Count(copies),
            };
            let (op, revision) = (fresh_op()?, known.revision);
            let written = self.registry.write_expecting(op, change, Some(revision));
            match written.await {
                Ok((epoch, _)) => return Ok(Deployed { version, epoch }),
                // A refusal is an entry, too: what it rests on is known here by now.
                Err(failure)
                    if failure.code == ErrorCode::Conflict
                        && tries < TRIES_MAX
                        && self.revision(model) != Some(revision) => {}
                Err(failure) => return Err(failure),
            }
        }
    }

    fn revision(&self, model: &ModelName) -> Option<Epoch> {
        let registry = self.registry.current();
        registry.models().get(model).map(|model| model.revision)
    }

    async fn until_served(
        &self,
        model: &ModelName,
        deployed: Deployed,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let version = deployed.version;
        // Told anew whenever the registry or what is observed has changed.
        let mut routed = self.router.epochs();
        loop {
            routed.mark_unchanged();
            match self.progress(model, deployed) {
                Progress::Serves => return Ok(()),
                Progress::Loads => {}
                Progress::Failed(reason) => {
                    let message = format!(
                        "failed to load '{model}', version {version}: {reason}; the cluster tries on"
                    );
                    return Err(Failure::new(ErrorCode::LoadFailed, message));
                }
                Progress::Overtaken => {
                    let message = format!("something else was deployed of '{model}' meanwhile");
                    return Err(Failure::new(ErrorCode::Conflict, message));
                }
            }
            // Its sender lives as long as the router's handle.
            if timeout_at(deadline, routed.changed()).await.is_err() {
                let message = format!(
                    "'{model}', version {version}, is not ready after {} s; the cluster tries on",
                    LOAD_LIMIT.as_secs()
                );
                return Err(Failure::new(ErrorCode::DeadlineExceeded, message));
            }
        }
    }

    fn progress(&self, name: &ModelName, deployed: Deployed) -> Progress {
        let Deployed { version, epoch } = deployed;
        self.view(|view| {
            // Its own entry is committed, and this node has not come to it.
            if view.registry.epoch() < epoch {
                return Progress::Loads;
            }
            let model = view.registry.models().get(name);
            let deployment = model.and_then(|model| model.deployment);
            let is_deployed = deployment.is_some_and(|deployment| deployment.version == version);
            let Some(model) = model.filter(|_| is_deployed) else {
                return Progress::Overtaken;
            };
            let route = view.routes.model(name.as_str()).ok();
            let serving = route.and_then(|route| route.serving.as_ref());
            if serving.is_some_and(|serving| serving.version == version && serving.ready > 0) {
                return Progress::Serves;
            }
            let has_replicas = view.registry.replicas_of(name, version).next().is_some();
            let seen = view.state((name, model), version);
            match seen.state {
                State::Unavailable if has_replicas => Progress::Failed(seen.reason),
                _ => Progress::Loads,
            }
        })
    }

    /// Waits until an epoch is applied on the ready nodes, but not for long: it is committed.
    async fn applied(&self, epoch: Epoch) {
        let deadline = Instant::now() + APPLIED_LIMIT;
        self.router.wait_for(epoch, APPLIED_LIMIT).await;
        self.observed.wait_applied(epoch, deadline).await;
    }
}

/// The version that a model without a deployment is loaded with.
fn to_load(model: &Model) -> Option<VersionNumber> {
    let newest = || model.versions.keys().next_back().copied();
    model.previous.or_else(newest)
}

/// How often a model that changes meanwhile is looked at: each time somebody else has written to it.
const TRIES_MAX: u32 = 4;
const LOAD_LIMIT: Duration = Duration::from_millis(REPOSITORY_LOAD_MAX_MS);
/// How long a command waits for the ready nodes to apply it, as other writes do.
const APPLIED_LIMIT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_that_would_change_a_version_are_refused_and_name_the_way() {
        for name in ["config", "file:1/model.onnx"] {
            let refused = check_load_parameter(name).unwrap_err();
            assert_eq!(refused.code, ErrorCode::Unsupported);
            let said = refused.to_string();
            assert!(said.contains(name) && said.contains("model push"), "{said}");
        }
        let unknown = check_load_parameter("colour").unwrap_err();
        assert_eq!(unknown.code, ErrorCode::ParameterInvalid);
        assert!(check_unload_parameter("unload_dependents").is_ok());
        assert!(check_unload_parameter("config").is_err());
    }
}
