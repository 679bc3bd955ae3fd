//! Writes of models: what is published, deployed, tried, taken back and deleted.

use paceline_protocol::operator::{
    CanaryRequest, Committed, DeployRequest, PublishAnswer, PublishRequest, ShadowRequest,
    TrafficRequest,
};
use paceline_protocol::{ModelName, OpId};

use super::retry::Conflict;
use super::{ApiError, OperatorClient};

impl OperatorClient {
    /// Publishes an artifact whose files have been uploaded.
    ///
    /// # Errors
    /// [`ApiError`]; repeated with the request's op-id until settled.
    pub fn publish(
        &self,
        name: &ModelName,
        request: &PublishRequest,
    ) -> Result<PublishAnswer, ApiError> {
        self.write(&format!("{}/versions", model_path(name)), request)
    }

    /// Deploys a version. Returns when it is committed, not when it serves.
    ///
    /// # Errors
    /// [`ApiError`]; repeated with the request's op-id until settled.
    pub fn deploy(&self, name: &ModelName, request: &DeployRequest) -> Result<Committed, ApiError> {
        self.write(&self.model_write(name, "deploy"), request)
    }

    /// Tries a version beside the one that serves.
    ///
    /// # Errors
    /// [`ApiError`]; repeated with the op-id until settled, but not after an objection (409).
    pub fn begin_canary(
        &self,
        name: &ModelName,
        request: &CanaryRequest,
    ) -> Result<Committed, ApiError> {
        self.write_unless(&self.model_write(name, "canary"), request, Conflict::Stands)
    }

    /// Promotes or aborts a canary, or goes back to the version that served before.
    ///
    /// # Errors
    /// [`ApiError`]; repeated with the op-id until settled, but not after an objection (409).
    pub fn move_traffic(
        &self,
        name: &ModelName,
        to: TrafficMove,
        request: &TrafficRequest,
    ) -> Result<Committed, ApiError> {
        self.write_unless(
            &self.model_write(name, to.name()),
            request,
            Conflict::Stands,
        )
    }

    /// Lets a version get copies of a share of the requests, whose answers nobody waits for.
    ///
    /// # Errors
    /// [`ApiError`]; repeated with the op-id until settled, but not after an objection (409).
    pub fn set_shadow(
        &self,
        name: &ModelName,
        request: &ShadowRequest,
    ) -> Result<Committed, ApiError> {
        self.write_unless(&self.model_write(name, "shadow"), request, Conflict::Stands)
    }

    /// Ends the shadow of a model.
    ///
    /// # Errors
    /// [`ApiError`]; repeated with the op-id until settled, but not after an objection (409).
    pub fn end_shadow(&self, name: &ModelName, op: OpId) -> Result<Committed, ApiError> {
        self.remove(
            &self.removal(&format!("{}/shadow", model_path(name)), op),
            Conflict::Stands,
        )
    }

    /// Deletes a model with all its versions.
    ///
    /// # Errors
    /// [`ApiError`]; repeated with the op-id until settled.
    pub fn delete(&self, name: &ModelName, op: OpId) -> Result<Committed, ApiError> {
        self.remove(&self.removal(&model_path(name), op), self.conflict())
    }

    /// How what is under a path is removed.
    fn removal(&self, path: &str, op: OpId) -> String {
        match self.expected_revision {
            None => format!("{path}?op={op}"),
            Some(revision) => format!("{path}?op={op}&expected_revision={revision}"),
        }
    }

    /// Where a model is changed.
    fn model_write(&self, name: &ModelName, what: &str) -> String {
        let path = format!("{}/{what}", model_path(name));
        match self.expected_revision {
            None => path,
            Some(revision) => format!("{path}?expected_revision={revision}"),
        }
    }

    /// What a conflict says: that the model is another one than expected stays so.
    pub(super) fn conflict(&self) -> Conflict {
        match self.expected_revision {
            None => Conflict::Passes,
            Some(_) => Conflict::Stands,
        }
    }
}

/// Where traffic is moved to by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficMove {
    /// To the canary.
    Promote,
    /// Away from the canary.
    Abort,
    /// To the version that served before.
    Rollback,
}

impl TrafficMove {
    /// As paths and commands call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Abort => "abort",
            Self::Rollback => "rollback",
        }
    }
}

/// A model's name needs no escaping: its alphabet is a subset of what a path may hold.
pub(super) fn model_path(name: &ModelName) -> String {
    format!("/v2/paceline/models/{name}")
}
