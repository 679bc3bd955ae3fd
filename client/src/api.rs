//! What a node's HTTP doors offer an operator, as blocking calls with deadlines and typed ends.
//!
//! Reads are asked once. Writes carry an op-id and are repeated with the same one until they
//! are settled or their time is over, so a repeat after a lost answer changes nothing twice.

mod address;
mod error;
mod http;
mod inference;
mod retry;
#[cfg(test)]
pub(crate) mod scripted;
#[cfg(test)]
mod tests;
mod upload;

use std::fmt;
use std::time::Duration;

use paceline_protocol::operator::{
    BlobQuery, BlobsMissing, Committed, DeployRequest, ModelView, NodeView, PublishAnswer,
    PublishRequest, Status,
};
use paceline_protocol::{Digest, ModelName, OpId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::Method;

pub use address::{AddressError, DEFAULT_PORT, NodeAddress};
pub use error::ApiError;
pub use inference::{InferenceAnswer, ModelMetadata, OutputTensor, TensorMetadata};
pub use upload::{UploadError, UploadSource};

use http::{Answer, Call, Door, Payload};
pub(crate) use retry::Deadline;
use retry::until_settled;
use upload::Exactly;

/// A file that moves slower than this has stalled, in bytes a second: a tenth of a slow office
/// line. An upload may take its size at this rate on top of the client's timeout.
const UPLOAD_BYTES_PER_SECOND_MIN: u64 = 100 << 10;

/// Speaks to one node for operators. Not to be shared by threads; make one for each.
pub struct OperatorClient {
    door: Door,
    timeout: Duration,
    notice: Box<dyn Fn(&ApiError)>,
}

impl OperatorClient {
    /// A client of the node at `address`. `timeout` bounds each call, repeats included.
    pub fn new(address: NodeAddress, timeout: Duration) -> Self {
        Self {
            door: Door::new(address),
            timeout,
            notice: Box::new(|_| {}),
        }
    }

    /// Calls `notice` with each failure that is followed by another attempt.
    pub fn with_notice(mut self, notice: impl Fn(&ApiError) + 'static) -> Self {
        self.notice = Box::new(notice);
        self
    }

    /// Who is asked.
    pub fn address(&self) -> &NodeAddress {
        self.door.address()
    }

    /// What the node says about itself.
    ///
    /// # Errors
    /// [`ApiError`]; asked once.
    pub fn status(&self) -> Result<Status, ApiError> {
        self.read("/v2/paceline/status")
    }

    /// The cluster's nodes, sorted by id.
    ///
    /// # Errors
    /// [`ApiError`]; asked once.
    pub fn nodes(&self) -> Result<Vec<NodeView>, ApiError> {
        self.read("/v2/paceline/nodes")
    }

    /// Every model.
    ///
    /// # Errors
    /// [`ApiError`]; asked once.
    pub fn models(&self) -> Result<Vec<ModelView>, ApiError> {
        self.read("/v2/paceline/models")
    }

    /// One model.
    ///
    /// # Errors
    /// [`ApiError`], `MODEL_NOT_FOUND` among them; asked once.
    pub fn model(&self, name: &ModelName) -> Result<ModelView, ApiError> {
        self.read(&model_path(name))
    }

    /// Which of these files the node lacks.
    ///
    /// # Errors
    /// [`ApiError`]; repeated until settled, since it changes nothing.
    pub fn missing(&self, query: &BlobQuery) -> Result<BlobsMissing, ApiError> {
        self.write("/v2/paceline/blobs/missing", query)
    }

    /// Uploads a file under its SHA-256. `on_bytes` hears how many bytes of it have been sent;
    /// the number falls back to 0 when an attempt is repeated.
    ///
    /// Lasts at most the client's timeout and the file's size at 100 KiB a second.
    ///
    /// # Errors
    /// [`UploadError`]; repeated until settled, since a file is named by what it holds.
    pub fn upload(
        &self,
        sha256: Digest,
        source: UploadSource<'_>,
        on_bytes: &mut dyn FnMut(u64),
    ) -> Result<(), UploadError> {
        let path = format!("/v2/paceline/blobs/{sha256}");
        let slowest = Duration::from_secs(source.bytes / UPLOAD_BYTES_PER_SECOND_MIN);
        let deadline = Deadline::after(self.timeout.saturating_add(slowest));
        let settled = until_settled(deadline, &*self.notice, |limit| {
            let mut file = match Exactly::open(source, on_bytes) {
                Ok(file) => file,
                Err(error) => return Ok(Err(error)),
            };
            let call = Call {
                method: Method::PUT,
                path: &path,
                body: Payload::Bytes {
                    reader: &mut file,
                    length: source.bytes,
                },
            };
            let answer = self.door.exchange(call, limit);
            match (answer, file.failure()) {
                // The file's own trouble explains the broken exchange; a repeat would meet it again.
                (Err(_), Some(error)) => Ok(Err(error)),
                (Err(error), None) => Err(error),
                (Ok(_), _) => Ok(Ok(())),
            }
        });
        settled?
    }

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
        self.write(&format!("{}/deploy", model_path(name)), request)
    }

    /// Deletes a model with all its versions.
    ///
    /// # Errors
    /// [`ApiError`]; repeated with the op-id until settled.
    pub fn delete(&self, name: &ModelName, op: OpId) -> Result<Committed, ApiError> {
        let path = format!("{}?op={op}", model_path(name));
        let answer = self.settle(&path, || (Method::DELETE, Payload::None))?;
        self.door.json(&path, &answer)
    }

    /// Asks once.
    fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let call = Call {
            method: Method::GET,
            path,
            body: Payload::None,
        };
        let answer = self.door.exchange(call, self.timeout)?;
        self.door.json(path, &answer)
    }

    /// Posts JSON until it is settled.
    fn write<T: DeserializeOwned>(
        &self,
        path: &str,
        request: &impl Serialize,
    ) -> Result<T, ApiError> {
        let body = serde_json::to_vec(request).expect("the operator API's types have text keys");
        let answer = self.settle(path, || (Method::POST, Payload::Json(&body)))?;
        self.door.json(path, &answer)
    }

    fn settle<'b>(
        &self,
        path: &'b str,
        request: impl Fn() -> (Method, Payload<'b>),
    ) -> Result<Answer, ApiError> {
        until_settled(Deadline::after(self.timeout), &*self.notice, |limit| {
            let (method, body) = request();
            self.door.exchange(Call { method, path, body }, limit)
        })
    }
}

impl fmt::Debug for OperatorClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorClient")
            .field("address", self.address())
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// A model's name needs no escaping: its alphabet is a subset of what a path may hold.
fn model_path(name: &ModelName) -> String {
    format!("/v2/paceline/models/{name}")
}
