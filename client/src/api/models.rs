//! Writes of models: what is published, deployed, tried, taken back and deleted.

use paceline_protocol::operator::{
    CanaryRequest, Committed, DeployRequest, LabelRequest, PublishAnswer, PublishRequest,
    ShadowRequest, TrafficRequest,
};
use paceline_protocol::{Label, ModelName, OpId};

use super::http::Payload;
use super::retry::Conflict;
use super::{ApiError, Method, OperatorClient};

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
        self.write(&self.model_write(name, "versions"), request)
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

    /// Promotes or aborts a canary, goes back to the version that served before, or has none serve.
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

    /// Calls a version so from now on, and no other one.
    ///
    /// # Errors
    /// [`ApiError`]; repeated with the request's op-id until settled.
    pub fn set_label(
        &self,
        (name, label): (&ModelName, &Label),
        request: &LabelRequest,
    ) -> Result<Committed, ApiError> {
        let path = self.model_write(name, &format!("labels/{label}"));
        let body = serde_json::to_vec(request).expect("the operator API's types have text keys");
        let put = || (Method::PUT, Payload::Json(&body));
        let answer = self.settle(&path, self.conflict(), put)?;
        self.doors.first().json(&path, &answer)
    }

    /// Forgets a label; the version stays.
    ///
    /// # Errors
    /// [`ApiError`]; repeated with the op-id until settled.
    pub fn delete_label(
        &self,
        (name, label): (&ModelName, &Label),
        op: OpId,
    ) -> Result<Committed, ApiError> {
        let path = format!("{}/labels/{label}", model_path(name));
        self.remove(&self.removal(&path, op), self.conflict())
    }

    /// Where something of a model is taken away.
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
    /// Nowhere: no version serves.
    Undeploy,
}

impl TrafficMove {
    /// As paths and commands call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Abort => "abort",
            Self::Rollback => "rollback",
            Self::Undeploy => "undeploy",
        }
    }
}

/// A model's name needs no escaping: its alphabet is a subset of what a path may hold.
pub(super) fn model_path(name: &ModelName) -> String {
    format!("/v2/paceline/models/{name}")
}
