//! What versions have done here, in the words of Triton's statistics.
//!
//! Requests are those that came to this node's doors, wherever they ran; batches are those that
//! this node's devices ran, wherever their rows came from. On one node both are the same work.

use paceline_protocol::{Failure, VersionNumber};

use super::Models;
use crate::router::VersionRoute;
use crate::telemetry::metrics::Stage;
use crate::telemetry::statistics::Total;

/// What a version has done here since it was first addressed or loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelStatistics {
    /// The model.
    pub name: String,
    /// The version.
    pub version: VersionNumber,
    /// When the last batch ended, in milliseconds since 1970; 0 if there was none.
    pub last_inference_ms: u64,
    /// Rows of batches.
    pub inference_count: u64,
    /// Batches.
    pub execution_count: u64,
    /// Requests that were answered, from their last byte to their answer.
    pub success: Total,
    /// Requests that ended otherwise.
    pub fail: Total,
    /// Waiting at devices. Here and below it counts requests that were answered, since clients want
    /// the same count of all four, and has the time of all their parts.
    pub queue: Total,
    /// Reading and checking requests.
    pub compute_input: Total,
    /// Engines; of what ran on another node, all but waiting there.
    pub compute_infer: Total,
    /// Writing answers.
    pub compute_output: Total,
    /// Batches by their size.
    pub batches: Vec<BatchStatistics>,
    /// What its replicas here account of the CPU's memory, in bytes.
    pub memory_bytes: u64,
}

/// Batches of one size. Gathering rows and scattering outputs are the engine's: they have no time
/// of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchStatistics {
    /// Rows.
    pub batch_size: u32,
    /// The engine.
    pub compute_infer: Total,
}

impl Models {
    /// Statistics of all versions, of those of a model, or of one.
    ///
    /// # Errors
    /// `MODEL_NOT_FOUND`, `VERSION_NOT_FOUND` or `MODEL_NOT_READY`, by name.
    pub fn statistics(
        &self,
        model: Option<&str>,
        version: Option<&str>,
    ) -> Result<Vec<ModelStatistics>, Failure> {
        let routes = self.router.routes();
        let Some(model) = model else {
            let all = routes.versions();
            return Ok(all.map(|version| self.of_version(version)).collect());
        };
        if version.is_some() {
            let version = routes.resolve(model, version)?;
            return Ok(vec![self.of_version(version)]);
        }
        let versions = routes.model(model)?.versions.values();
        Ok(versions.map(|version| self.of_version(version)).collect())
    }

    fn of_version(&self, version: &VersionRoute) -> ModelStatistics {
        let statistics = version.metrics.statistics();
        let batches = statistics.batches();
        let last_at = batches.last_at;
        let last_ms = last_at.map(|at| self.clock.now().nanos_since(at) / 1_000_000);
        // Read once: a request that is answered meanwhile is in all of them or in none.
        let success = statistics.succeeded();
        let of = |stage| Total {
            count: success.count,
            nanos: statistics.stage_nanos(stage),
        };
        ModelStatistics {
            name: version.model.to_string(),
            version: version.version,
            last_inference_ms: last_ms.map_or(0, |ago| self.registry.wall_ms().saturating_sub(ago)),
            inference_count: batches.rows,
            execution_count: batches.count,
            success,
            fail: statistics.failed(),
            queue: of(Stage::Queue),
            compute_input: of(Stage::Parse),
            compute_infer: of(Stage::Run),
            compute_output: of(Stage::Render),
            batches: batches
                .by_rows
                .into_iter()
                .map(BatchStatistics::of)
                .collect(),
            memory_bytes: self.memory_bytes(version),
        }
    }

    fn memory_bytes(&self, version: &VersionRoute) -> u64 {
        let (registry, observed) = (self.registry.current(), self.observed.current());
        let replicas = registry.replicas_of(&version.model, version.version);
        let here = replicas.filter(|(_, of)| of.node == self.router.node());
        let known = here.filter_map(|(replica, _)| observed.get(&replica));
        known.map(|replica| replica.memory_bytes).sum()
    }
}

impl BatchStatistics {
    fn of((batch_size, compute_infer): (u32, Total)) -> Self {
        Self {
            batch_size,
            compute_infer,
        }
    }
}
