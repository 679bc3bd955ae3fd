//! The SDK: inference over QUIC, with a client that knows the whole cluster.

mod answer;
pub mod blocking;
mod context;
mod dialling;
mod error;
mod frames;
mod inference;
mod known;
mod options;
mod parts;
mod pool;
mod sending;
mod session;
mod silence;
mod trust;

use std::path::Path;
use std::sync::Arc;

use paceline_protocol::client::{CLIENT_SCHEMA, Hello};
use paceline_protocol::{Epoch, NodeId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::answer::Answer;
pub use self::context::ContextError;
use self::dialling::Dialler;
pub use self::error::{ConnectError, InferError};
pub use self::inference::Inference;
pub use self::options::ClientOptions;
pub use self::parts::{Part, Parts};
use self::pool::Pool;
pub use self::trust::{Trust, TrustError};

/// A client of one cluster. Cheap to clone; the clones share connections, limits and the highest
/// epoch seen. When the last one is dropped, the connections are closed.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Arc<Pool>,
    permits: Arc<Semaphore>,
}

impl Client {
    /// Connects with a cluster by the SDK addresses (`host:port`, HTTP port + 3) of some of its
    /// nodes. One that is reached is enough: it names the others.
    ///
    /// Must be called within a tokio runtime, which then also drives the connections.
    ///
    /// # Errors
    /// No node lets the client in within [`ClientOptions::connect_timeout`].
    pub async fn connect<S: Into<String>>(
        seeds: impl IntoIterator<Item = S>,
        options: ClientOptions,
    ) -> Result<Self, ConnectError> {
        let seeds: Vec<String> = seeds.into_iter().map(Into::into).collect();
        if seeds.is_empty() {
            return Err(ConnectError::NoSeeds);
        }
        let hello = Hello {
            schema: CLIENT_SCHEMA,
            api_key: options.api_key.clone(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let dialler = Dialler::new(options.trust.client_config()?, &hello)?;
        let permits = options.in_flight_max.min(Semaphore::MAX_PERMITS);
        let pool = Pool::new(options, dialler, seeds);
        let client = Self {
            inner: Arc::new(Inner {
                pool: pool.clone(),
                permits: Arc::new(Semaphore::new(permits)),
            }),
        };
        tokio::spawn(pool::keep(pool.clone()));
        let first = pool.first().await;
        first.map_err(|reason| ConnectError::Unreachable { reason })?;
        Ok(client)
    }

    /// Connects as a context file says, the one that `paceline up` writes; without a path, the
    /// one that `PACELINE_CONTEXT` names.
    ///
    /// # Errors
    /// The file cannot be used, or no node lets the client in.
    pub async fn from_context(path: Option<&Path>) -> Result<Self, ConnectError> {
        let (seeds, options) = context::load(path)?;
        Self::connect(seeds, options).await
    }

    /// Starts a request to a model.
    pub fn infer(&self, model: impl Into<String>) -> Inference {
        Inference::new(self.clone(), model.into())
    }

    /// The highest epoch that a node has told so far; it never falls. It goes along with every
    /// request: a node that has not applied it yet waits for it, 50 ms at most, and answers from
    /// what it has applied then.
    pub fn epoch(&self) -> Epoch {
        self.pool().epoch()
    }

    /// The nodes that the client is connected with now.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.pool().nodes()
    }

    fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    fn permit(&self) -> Option<OwnedSemaphorePermit> {
        self.inner.permits.clone().try_acquire_owned().ok()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.pool.close();
    }
}
