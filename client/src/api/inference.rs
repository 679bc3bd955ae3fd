//! The Open Inference Protocol's JSON, as far as a command line needs it.

use paceline_protocol::traffic::Unit;
use paceline_protocol::{Dtype, ModelName, ShapePattern, VersionRef};
use serde::Deserialize;
use serde_json::Value;
use ureq::http::{HeaderMap, Method};

use super::doors::Again;
use super::http::{Call, Payload};
use super::{ApiError, OperatorClient};

/// `GET /v2/models/NAME`: what a model takes and gives.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ModelMetadata {
    /// The model.
    pub name: String,
    /// What a request must hold.
    pub inputs: Vec<TensorMetadata>,
    /// What an answer holds.
    pub outputs: Vec<TensorMetadata>,
}

/// One tensor of a model.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TensorMetadata {
    /// Its name.
    pub name: String,
    /// Type of its elements.
    pub datatype: Dtype,
    /// Accepted shapes; `-1` is any size.
    pub shape: ShapePattern,
}

/// An answer to an inference request.
#[derive(Clone, Debug, PartialEq)]
pub struct InferenceAnswer {
    /// The body as it arrived.
    pub body: Vec<u8>,
    /// Its outputs, with JSON data.
    pub outputs: Vec<OutputTensor>,
    /// Which version answered: header `paceline-version`.
    pub version: Option<String>,
    /// At which epoch that was decided: header `paceline-epoch`.
    pub epoch: Option<String>,
    /// For how many seconds the node has had no contact to a quorum: header `paceline-stale`.
    pub stale_seconds: Option<String>,
}

/// One output of an answer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct OutputTensor {
    /// Its name.
    pub name: String,
    /// Type of its elements, as the answer spells it.
    pub datatype: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Its elements, flat or nested, row major.
    #[serde(default)]
    pub data: Vec<Value>,
}

#[derive(Deserialize)]
struct Outputs {
    outputs: Vec<OutputTensor>,
}

/// What a request belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Belonging {
    /// What always gets the same version: a user, a session.
    pub unit: Option<Unit>,
    /// Whose requests go to one replica; its unit, too, if none is named.
    pub sequence: Option<Unit>,
}

impl OperatorClient {
    /// What a model, or one version of it, takes and gives.
    ///
    /// # Errors
    /// [`ApiError`]; each node is asked once.
    pub fn metadata(
        &self,
        name: &ModelName,
        version: Option<&VersionRef>,
    ) -> Result<ModelMetadata, ApiError> {
        self.read(&inference_path(name, version))
    }

    /// Sends the body of an inference request to the first node that is reached. Sent once: the
    /// node that takes it repeats what is worth repeating.
    ///
    /// # Errors
    /// [`ApiError`].
    pub fn infer(
        &self,
        name: &ModelName,
        version: Option<&VersionRef>,
        body: &[u8],
    ) -> Result<InferenceAnswer, ApiError> {
        self.infer_of(name, version, (body, &Belonging::default()))
    }

    /// The same of a request that belongs to something.
    ///
    /// # Errors
    /// [`ApiError`].
    pub fn infer_of(
        &self,
        name: &ModelName,
        version: Option<&VersionRef>,
        (body, belonging): (&[u8], &Belonging),
    ) -> Result<InferenceAnswer, ApiError> {
        let path = format!("{}/infer", inference_path(name, version));
        let answer = self.doors.ask(self.timeout, Again::Unsent, |door, limit| {
            let call = Call {
                method: Method::POST,
                path: &path,
                body: Payload::Inference(body, belonging),
            };
            door.exchange(call, limit)
        })?;
        let Outputs { outputs } = self.doors.first().json(&path, &answer)?;
        let header = |name| text(&answer.headers, name);
        Ok(InferenceAnswer {
            outputs,
            version: header("paceline-version"),
            epoch: header("paceline-epoch"),
            stale_seconds: header("paceline-stale"),
            body: answer.body,
        })
    }
}

pub(crate) fn inference_path(name: &ModelName, version: Option<&VersionRef>) -> String {
    version.map_or_else(
        || format!("/v2/models/{name}"),
        |version| format!("/v2/models/{name}/versions/{version}"),
    )
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}
