//! The same client for code without a runtime: each call blocks its thread until its end.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use paceline_protocol::traffic::Unit;
use paceline_protocol::{Criticality, Epoch, Tensor, VersionRef};
use tokio::runtime::{Builder, Runtime};

use super::{Answer, ClientOptions, ConnectError, InferError, Part};

/// A blocking client of one cluster, with a runtime of one thread of its own. Cheap to clone, to
/// be shared by threads, and not to be used or dropped within a runtime.
#[derive(Clone)]
pub struct Client {
    client: super::Client,
    runtime: Arc<Runtime>,
}

/// A request that is being put together; [`send`](Self::send) sends it.
#[must_use = "a request does nothing until it is sent"]
#[derive(Clone)]
pub struct Inference {
    inference: super::Inference,
    runtime: Arc<Runtime>,
}

impl Client {
    /// As [`Client::connect`](super::Client::connect).
    ///
    /// # Errors
    /// No node lets the client in, or no thread can be started.
    pub fn connect<S: Into<String>>(
        seeds: impl IntoIterator<Item = S>,
        options: ClientOptions,
    ) -> Result<Self, ConnectError> {
        let runtime = runtime()?;
        let client = runtime.block_on(super::Client::connect(seeds, options))?;
        Ok(Self { client, runtime })
    }

    /// As [`Client::from_context`](super::Client::from_context).
    ///
    /// # Errors
    /// The file cannot be used, no node lets the client in, or no thread can be started.
    pub fn from_context(path: Option<&Path>) -> Result<Self, ConnectError> {
        let runtime = runtime()?;
        let client = runtime.block_on(super::Client::from_context(path))?;
        Ok(Self { client, runtime })
    }

    /// Starts a request to a model.
    pub fn infer(&self, model: impl Into<String>) -> Inference {
        Inference {
            inference: self.client.infer(model),
            runtime: self.runtime.clone(),
        }
    }

    /// The highest epoch that a node has told so far.
    pub fn epoch(&self) -> Epoch {
        self.client.epoch()
    }
}

impl Inference {
    /// Adds an input.
    pub fn input(mut self, name: impl Into<String>, tensor: Tensor) -> Self {
        self.inference = self.inference.input(name, tensor);
        self
    }

    /// Asks for this output, and others so named, only.
    pub fn output(mut self, name: impl Into<String>) -> Self {
        self.inference = self.inference.output(name);
        self
    }

    /// Asks for a certain version, by its number or by a label.
    pub fn version(mut self, version: impl Into<VersionRef>) -> Self {
        self.inference = self.inference.version(version);
        self
    }

    /// How long the answer may take.
    pub fn deadline(mut self, budget: Duration) -> Self {
        self.inference = self.inference.deadline(budget);
        self
    }

    /// Whether the request may run twice.
    pub fn idempotent(mut self, is_idempotent: bool) -> Self {
        self.inference = self.inference.idempotent(is_idempotent);
        self
    }

    /// How much the request matters.
    pub fn criticality(mut self, criticality: Criticality) -> Self {
        self.inference = self.inference.criticality(criticality);
        self
    }

    /// What the request belongs to that shall always get the same version.
    pub fn unit(mut self, unit: Unit) -> Self {
        self.inference = self.inference.unit(unit);
        self
    }

    /// See [`Inference::sequence`](crate::sdk::Inference::sequence).
    pub fn sequence(mut self, name: Unit) -> Self {
        self.inference = self.inference.sequence(name);
        self
    }

    /// Sends the request and waits for its end.
    ///
    /// # Errors
    /// Exactly one [`InferError`], at the latest at the deadline.
    ///
    /// # Panics
    /// Within a runtime, whose thread must not be blocked.
    pub fn send(self) -> Result<Answer, InferError> {
        self.runtime.block_on(self.inference.send())
    }

    /// Has the answer come in parts, as [`Inference::stream`](super::Inference::stream) does.
    pub fn stream(self) -> Parts {
        Parts {
            parts: self.inference.stream(),
            runtime: self.runtime,
        }
    }
}

/// The parts of an answer; each one blocks its thread until it is there. Dropping it cancels the
/// rest.
///
/// # Panics
/// Within a runtime, whose thread must not be blocked.
#[must_use = "nothing is sent until the first part is asked for"]
#[derive(Debug)]
pub struct Parts {
    parts: super::Parts,
    runtime: Arc<Runtime>,
}

impl Iterator for Parts {
    type Item = Result<Part, InferError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.runtime.block_on(self.parts.next())
    }
}

fn runtime() -> io::Result<Arc<Runtime>> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).thread_name("paceline-client");
    Ok(Arc::new(builder.enable_all().build()?))
}
