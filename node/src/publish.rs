//! From stored files to a version: read, loaded, measured, never executed as code, committed.

mod precision;

use std::sync::Arc;
use std::time::Duration;

use paceline_core::copies::keepers;
use paceline_models::{Canary, Engine};
use paceline_protocol::limits::ARTIFACT_COPIES;
use paceline_protocol::operator::{PrecisionChoice, PrecisionReport};
use paceline_protocol::registry::{Change, Reply, VersionRecord};
use paceline_protocol::{
    Digest, Epoch, ErrorCode, Failure, Manifest, ModelName, OpId, TenantName, VersionNumber,
};
use tokio::sync::Semaphore;

use self::precision::choose;
use crate::artifacts::{Artifacts, Replicate};
use crate::registry;
use crate::threads::Threads;

/// Makes versions of artifacts. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    artifacts: Artifacts,
    engine: Arc<dyn Engine>,
    registry: registry::Handle,
    replicate: Replicate,
    /// One measurement at a time: two would disturb each other, and the traffic.
    measuring: Arc<Semaphore>,
}

/// A version that is known to the registry.
#[derive(Clone, Debug)]
pub struct Published {
    /// Its number.
    pub version: VersionNumber,
    /// Whether it is new.
    pub created: bool,
    /// What was read and measured.
    pub record: VersionRecord,
    /// The epoch that it is known from.
    pub epoch: Epoch,
}

impl Publisher {
    /// A publisher over a node's parts.
    pub fn new(
        artifacts: Artifacts,
        engine: Arc<dyn Engine>,
        registry: registry::Handle,
        replicate: Replicate,
    ) -> Self {
        Self {
            artifacts,
            engine,
            registry,
            replicate,
            measuring: Arc::new(Semaphore::new(1)),
        }
    }

    /// Publishes the artifact of `manifest`, whose files have been uploaded, for its owner, if the
    /// model has the expected revision; with a precision that is chosen written into it, and what
    /// precisions gave.
    ///
    /// # Errors
    /// The manifest or a file is malformed or missing, the model cannot be loaded or warmed
    /// up, or the registry refuses; nothing is committed then.
    pub async fn publish(
        &self,
        (model, owner): (ModelName, TenantName),
        (manifest, choice): (Manifest, Option<PrecisionChoice>),
        (op, expected): (OpId, Option<Epoch>),
    ) -> Result<(Published, Option<PrecisionReport>), Failure> {
        let artifacts = self.artifacts.clone();
        let threads = artifacts.threads();
        let bytes = manifest.bytes();
        let (stored, report) = match choice {
            None => {
                let storing = blocking(threads, move || Ok(artifacts.store(&manifest)?));
                ((storing.await?, bytes), None)
            }
            Some(choice) => {
                let permit = self.measuring.clone().acquire_owned().await;
                let engine = self.engine.clone();
                let choosing = blocking(threads, move || {
                    choose(&artifacts, &*engine, &manifest, &choice)
                });
                let (stored, report) = choosing.await?;
                drop(permit);
                (stored, Some(report))
            }
        };
        let published = self.publish_stored((model, owner), stored, (op, expected));
        Ok((published.await?, report))
    }

    /// Publishes an artifact that is stored whole.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub async fn publish_stored(
        &self,
        (model, owner): (ModelName, TenantName),
        (digest, artifact_bytes): (Digest, u64),
        (op, expected): (OpId, Option<Epoch>),
    ) -> Result<Published, Failure> {
        let permit = self.measuring.clone().acquire_owned().await;
        let (artifacts, engine) = (self.artifacts.clone(), self.engine.clone());
        let measuring = blocking(artifacts.threads(), move || {
            measure(&artifacts, &*engine, (digest, artifact_bytes))
        });
        let record = measuring.await?;
        drop(permit);
        self.copy(digest).await?;
        let version = Box::new(record.clone());
        let change = Change::PublishVersion {
            model,
            owner,
            version,
        };
        let written = self.registry.write_expecting(op, change, expected);
        match written.await? {
            (epoch, Reply::Published { version, created }) => Ok(Published {
                version,
                created,
                record,
                epoch,
            }),
            (_, Reply::Done | Reply::Assigned(_) | Reply::Admitted(_)) => Err(Failure::new(
                ErrorCode::Conflict,
                "this op-id was used for another kind of write before; choose a fresh one",
            )),
        }
    }
}

impl Publisher {
    /// What is acknowledged survives the loss of a node: it lies on two of them before.
    async fn copy(&self, digest: Digest) -> Result<(), Failure> {
        let keepers = keepers(&self.registry.current(), digest);
        let wanted = keepers.len().clamp(1, ARTIFACT_COPIES);
        let deadline = tokio::time::Instant::now() + COPY_LIMIT;
        let copies = self
            .replicate
            .copies(digest, &keepers, wanted, deadline)
            .await;
        if copies >= wanted {
            return Ok(());
        }
        Err(Failure::new(
            ErrorCode::StorageFailed,
            format!(
                "the artifact is on {copies} nodes and must be on {wanted}; nothing was published, push it again"
            ),
        ))
    }
}

/// Loads and warms up; the copy is dropped again. Blocks.
fn measure(
    artifacts: &Artifacts,
    engine: &dyn Engine,
    (digest, artifact_bytes): (Digest, u64),
) -> Result<VersionRecord, Failure> {
    let source = artifacts.source(digest)?;
    let model = engine.load(&source).map_err(|error| {
        let code = match error {
            paceline_models::LoadError::Recognise(_) => ErrorCode::ArtifactInvalid,
            paceline_models::LoadError::Memory { .. }
            | paceline_models::LoadError::Engine { .. } => ErrorCode::LoadFailed,
        };
        Failure::new(code, error.to_string())
    })?;
    let failed =
        |error: &dyn std::fmt::Display| Failure::new(ErrorCode::LoadFailed, error.to_string());
    let warm_up = paceline_models::warm_up(&*model).map_err(|error| failed(&error))?;
    let canary = Canary::take(&*model).map_err(|error| failed(&error))?;
    let description = model.description();
    Ok(VersionRecord {
        digest,
        family: description.family.name().to_owned(),
        signature: description.signature.clone(),
        rows_max: description.rows_max,
        finite_inputs: description.finite_inputs,
        artifact_bytes,
        memory_bytes: model.bytes().total_bytes(engine.device().threads),
        one_row_ns: warm_up.one_row_ns,
        full_batch_ns: warm_up.full_batch_ns,
        golden: canary.golden(),
    })
}

/// Runs what blocks where it may.
///
/// # Errors
/// What `work` says, or `INTERNAL` if it panics.
pub(crate) async fn blocking<T: Send + 'static>(
    threads: Threads,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    threads.blocking(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "work on a blocking thread panicked");
        Err(Failure::new(
            ErrorCode::Internal,
            "a part of the node failed; its log has more",
        ))
    })
}

/// How long the second copy may take: the largest artifacts over a slow line need a push again,
/// which goes on where this one ended.
const COPY_LIMIT: Duration = Duration::from_secs(300);
