//! What a node's HTTP doors offer an operator, as blocking calls with deadlines and typed ends.
//!
//! Reads are asked once. Writes carry an op-id and are repeated with the same one until they
//! are settled or their time is over, so a repeat after a lost answer changes nothing twice.

mod address;
mod doors;
mod error;
mod events;
mod http;
mod inference;
mod membership;
mod models;
mod retry;
#[cfg(test)]
pub(crate) mod scripted;
mod tenants;
#[cfg(test)]
mod tests;
mod upload;

use std::fmt;
use std::time::Duration;

use paceline_protocol::operator::{
    BlobQuery, BlobsMissing, Committed, ModelView, NodeView, Status,
};
use paceline_protocol::{Digest, Epoch, ModelName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::Method;

pub use address::{AddressError, DEFAULT_PORT, NodeAddress};
pub use error::ApiError;
pub use events::{InferenceEnd, InferencePart};
pub(crate) use inference::inference_path;
pub use inference::{Belonging, InferenceAnswer, ModelMetadata, OutputTensor, TensorMetadata};
pub use models::TrafficMove;
pub use upload::{UploadError, UploadSource};

use doors::{Again, Doors};
use http::{Answer, Call, Payload};
use models::model_path;
pub(crate) use retry::Deadline;
use retry::{Conflict, until_settled};
use upload::Exactly;

/// A file that moves slower than this has stalled, in bytes a second: a tenth of a slow office
/// line. An upload may take its size at this rate on top of the client's timeout.
const UPLOAD_BYTES_PER_SECOND_MIN: u64 = 100 << 10;

/// Speaks to a cluster for operators, to one node at a time: when that one does not answer, the
/// next of its addresses is tried. Not to be shared by threads; make one for each.
pub struct OperatorClient {
    cluster: ClusterAddress,
    doors: Doors,
    timeout: Duration,
    expected_revision: Option<Epoch>,
    notice: Box<dyn Fn(&ApiError)>,
}

/// Where a cluster is reached, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterAddress {
    /// HTTP doors of its nodes, in the order in which they are tried; at least one.
    pub nodes: Vec<NodeAddress>,
    /// Who the caller is, where keys are needed.
    pub api_key: Option<String>,
}

/// What a read has to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Freshness {
    /// What the node that is asked has applied.
    #[default]
    Local,
    /// Everything that was acknowledged before the question; needs a quorum.
    Consistent,
}

impl OperatorClient {
    /// A client of the cluster at `cluster`, or of the one node at an address. `timeout` bounds
    /// each call, repeats included.
    ///
    /// # Panics
    /// If the cluster has no address.
    pub fn new(cluster: impl Into<ClusterAddress>, timeout: Duration) -> Self {
        let cluster = cluster.into();
        Self {
            doors: Doors::new(&cluster.nodes, cluster.api_key.as_deref()),
            cluster,
            timeout,
            expected_revision: None,
            notice: Box::new(|_| {}),
        }
    }

    /// Calls `notice` with each failure that is followed by another attempt.
    pub fn with_notice(mut self, notice: impl Fn(&ApiError) + 'static) -> Self {
        self.notice = Box::new(notice);
        self
    }

    /// Writes of models change nothing unless the model has this revision, as
    /// [`ModelView::revision`] tells it; they end with `CONFLICT` then.
    pub fn expecting(mut self, revision: Option<Epoch>) -> Self {
        self.expected_revision = revision;
        self
    }

    /// The same cluster with another timeout and without notices.
    pub fn within(&self, timeout: Duration) -> Self {
        Self::new(self.cluster.clone(), timeout)
    }

    /// Who is asked first.
    pub fn address(&self) -> &NodeAddress {
        self.doors.first().address()
    }

    /// What the node says about itself.
    ///
    /// # Errors
    /// [`ApiError`]; each node is asked once.
    pub fn status(&self, freshness: Freshness) -> Result<Status, ApiError> {
        self.read(&freshness.path("/v2/paceline/status"))
    }

    /// The cluster's nodes, sorted by id.
    ///
    /// # Errors
    /// [`ApiError`]; each node is asked once.
    pub fn nodes(&self, freshness: Freshness) -> Result<Vec<NodeView>, ApiError> {
        self.read(&freshness.path("/v2/paceline/nodes"))
    }

    /// Every model.
    ///
    /// # Errors
    /// [`ApiError`]; each node is asked once.
    pub fn models(&self, freshness: Freshness) -> Result<Vec<ModelView>, ApiError> {
        self.read(&freshness.path("/v2/paceline/models"))
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
        let settled = self.until_settled(deadline, Conflict::Passes, |door, limit| {
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
            let answer = door.exchange(call, limit);
            match (answer, file.failure()) {
                // The file's own trouble explains the broken exchange; a repeat would meet it again.
                (Err(_), Some(error)) => Ok(Err(error)),
                (Err(error), None) => Err(error),
                (Ok(_), _) => Ok(Ok(())),
            }
        });
        settled?
    }

    /// On how many ready nodes an epoch is applied; the node waits two seconds for them.
    ///
    /// # Errors
    /// [`ApiError`]; each node is asked once.
    pub fn applied(&self, epoch: Epoch) -> Result<Committed, ApiError> {
        self.read(&format!("/v2/paceline/applied/{epoch}"))
    }

    /// What the machines of the node were told last, as the bytes of a file.
    ///
    /// # Errors
    /// [`ApiError`], `NOT_FOUND` if the node records nothing; each node is asked once.
    pub fn record(&self) -> Result<Vec<u8>, ApiError> {
        Ok(self.fetch("/v2/paceline/debug/record")?.body)
    }

    /// What a node tells Prometheus; its door for that is another one than those for all else.
    ///
    /// # Errors
    /// [`ApiError`]; each node is asked once.
    pub fn metrics(&self) -> Result<String, ApiError> {
        let answer = self.fetch("/metrics")?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let answer = self.fetch(path)?;
        self.doors.first().json(path, &answer)
    }

    /// Asks each node once, until one answers.
    fn fetch(&self, path: &str) -> Result<Answer, ApiError> {
        self.doors.ask(self.timeout, Again::Any, |door, limit| {
            let call = Call {
                method: Method::GET,
                path,
                body: Payload::None,
            };
            door.exchange(call, limit)
        })
    }

    /// Deletes what a path names, until it is settled.
    fn remove<T: DeserializeOwned>(&self, path: &str, conflict: Conflict) -> Result<T, ApiError> {
        let answer = self.settle(path, conflict, || (Method::DELETE, Payload::None))?;
        self.doors.first().json(path, &answer)
    }

    /// Posts JSON until it is settled.
    fn write<T: DeserializeOwned>(
        &self,
        path: &str,
        request: &impl Serialize,
    ) -> Result<T, ApiError> {
        self.write_unless(path, request, self.conflict())
    }

    /// The same, where a conflict may be an objection.
    fn write_unless<T: DeserializeOwned>(
        &self,
        path: &str,
        request: &impl Serialize,
        conflict: Conflict,
    ) -> Result<T, ApiError> {
        let body = serde_json::to_vec(request).expect("the operator API's types have text keys");
        let answer = self.settle(path, conflict, || (Method::POST, Payload::Json(&body)))?;
        self.doors.first().json(path, &answer)
    }

    fn settle<'b>(
        &self,
        path: &'b str,
        conflict: Conflict,
        request: impl Fn() -> (Method, Payload<'b>),
    ) -> Result<Answer, ApiError> {
        let deadline = Deadline::after(self.timeout);
        self.until_settled(deadline, conflict, |door, limit| {
            let (method, body) = request();
            door.exchange(Call { method, path, body }, limit)
        })
    }

    /// Makes attempts, and after each that was not settled begins at the next node: with an
    /// op-id, the write is done at most once wherever it arrives.
    fn until_settled<T>(
        &self,
        deadline: Deadline,
        conflict: Conflict,
        mut attempt: impl FnMut(&http::Door, Duration) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        until_settled(deadline, &*self.notice, conflict, |limit| {
            // A node that hangs leaves time for the others.
            let share = limit / self.doors.count();
            let ended = self.doors.ask(share, Again::Unsent, &mut attempt);
            if ended.is_err() {
                self.doors.turn();
            }
            ended
        })
    }
}

impl Freshness {
    fn path(self, path: &str) -> String {
        match self {
            Self::Local => path.to_owned(),
            Self::Consistent => format!("{path}?consistent=true"),
        }
    }
}

impl From<NodeAddress> for ClusterAddress {
    fn from(node: NodeAddress) -> Self {
        Self {
            nodes: vec![node],
            api_key: None,
        }
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
