//! How a replica comes to a model that serves: fetched, loaded, warmed up, and held to what its version
//! answered where it was pushed.

use std::time::Duration;

use paceline_core::copies::sources;
use paceline_models::{Canary, Engine};
use paceline_protocol::{Digest, NodeId};

use super::{Arguments, Ready};
use crate::artifacts::Artifacts;

impl Arguments {
    /// Loads what is here; what is missing or damaged is fetched from peers first.
    pub(super) async fn fetch_and_load(&self, canary: Option<Canary>) -> Result<Ready, String> {
        match self.load(canary.clone()).await {
            Err(LoadError::Artifact(reason)) => {
                let peers = self.peers();
                let deadline = tokio::time::Instant::now() + FETCH_LIMIT;
                let fetched = self.fetcher.fetch(self.digest, &peers, deadline).await;
                // Nobody else has it: then what is wrong here is what matters.
                fetched.map_err(|error| format!("{reason}; {error}"))?;
                self.load(canary).await.map_err(LoadError::into_reason)
            }
            loaded => loaded.map_err(LoadError::into_reason),
        }
    }

    async fn load(&self, canary: Option<Canary>) -> Result<Ready, LoadError> {
        let (artifacts, engine, digest) =
            (self.artifacts.clone(), self.engine.clone(), self.digest);
        let threads = artifacts.threads();
        let golden = self.golden.clone();
        let loading =
            threads.blocking(move || load(&artifacts, digest, &*engine, (canary, &golden)));
        loading.await.unwrap_or_else(|error| {
            tracing::error!(%error, "loading a model panicked");
            Err(LoadError::Engine("loading it panicked".to_owned()))
        })
    }

    fn peers(&self) -> Vec<NodeId> {
        sources(&self.registry.current(), self.digest)
    }
}

/// Why a model could not be loaded.
#[derive(Debug)]
enum LoadError {
    /// A file is missing or damaged: another copy helps.
    Artifact(String),
    /// The model itself; another copy does not help.
    Engine(String),
}

impl LoadError {
    fn engine(error: impl std::error::Error) -> Self {
        Self::Engine(error.to_string())
    }

    fn into_reason(self) -> String {
        match self {
            Self::Artifact(reason) | Self::Engine(reason) => reason,
        }
    }
}

/// Reads, verifies, loads, warms up and asks the canary; blocks for as long as that takes.
fn load(
    artifacts: &Artifacts,
    digest: Digest,
    engine: &dyn Engine,
    (canary, golden): (Option<Canary>, &[u16]),
) -> Result<Ready, LoadError> {
    let source = artifacts
        .source(digest)
        .map_err(|error| LoadError::Artifact(error.to_string()))?;
    let model = engine.load(&source).map_err(LoadError::engine)?;
    let warm_up = paceline_models::warm_up(&*model).map_err(LoadError::engine)?;
    let canary = match canary {
        Some(canary) => canary.check(&*model).map(|()| canary),
        None => {
            let taken = Canary::take(&*model);
            taken.and_then(|canary| canary.agrees_with(golden).map(|()| canary))
        }
    };
    Ok(Ready {
        model,
        warm_up,
        canary: canary.map_err(LoadError::engine)?,
    })
}

/// How long an artifact may take to arrive: 10 GiB over a line of 200 Mbit/s.
const FETCH_LIMIT: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use paceline_models::{CpuEngine, ModelSource};

    use super::*;
    use crate::storage::MemoryDisk;

    #[test]
    fn what_answers_otherwise_than_where_it_was_pushed_does_not_serve() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/models/digits");
        let source = ModelSource::from_dir(folder.as_ref()).unwrap();
        let files: Vec<(&str, &[u8])> = (source.files())
            .map(|(name, content)| (name, &content[..]))
            .collect();
        let artifacts = Artifacts::open(Arc::new(MemoryDisk::default())).unwrap();
        let digest = artifacts.store_files(&files).unwrap();
        let engine = CpuEngine::new(1);
        let load = |canary, golden: &[u16]| {
            let ready = super::load(&artifacts, digest, &engine, (canary, golden));
            ready.map_err(LoadError::into_reason)
        };
        let golden = Canary::take(&*engine.load(&source).unwrap()).unwrap();
        let ready = load(None, &golden.golden()).unwrap();
        let reason = load(None, &[0; 10]).err().unwrap();
        assert!(reason.contains("where the version was pushed"), "{reason}");
        // In later lives it is its own answer that counts.
        assert!(load(Some(ready.canary), &[0; 10]).is_ok());
    }
}
