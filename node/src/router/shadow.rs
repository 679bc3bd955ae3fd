//! Shadows as requests are copied for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use paceline_core::registry::Shadow;
use paceline_core::shadow::Offer;
use paceline_protocol::{ModelName, VersionNumber, traffic};

use super::VersionRoute;
use crate::telemetry::metrics::{Metrics, ShadowMetrics};

/// A shadow at one epoch.
pub struct ShadowRoute {
    /// What it is, once it has a replica here or elsewhere.
    pub version: Option<Arc<VersionRoute>>,
    /// What draws requests.
    pub salt: String,
    /// Where its copies are counted.
    pub metrics: ShadowMetrics,
    shadow: Shadow,
}

impl ShadowRoute {
    /// What follows from the registry.
    pub(super) fn next(
        before: Option<&Self>,
        (model, shadow): (&ModelName, Shadow),
        versions: &BTreeMap<VersionNumber, Arc<VersionRoute>>,
        metrics: &Metrics,
    ) -> Self {
        let number = shadow.plan.version;
        let known = before.filter(|known| known.shadow.since == shadow.since);
        Self {
            version: versions.get(&number).cloned(),
            salt: traffic::salt(model, shadow.since),
            metrics: known.map_or_else(
                || metrics.shadow(model.as_str(), number),
                |known| known.metrics.clone(),
            ),
            shadow,
        }
    }

    /// What a request is decided by.
    pub fn offer(&self) -> Offer {
        Offer {
            weight: self.shadow.plan.weight,
            is_ready: self.version.as_ref().is_some_and(|of| of.ready > 0),
        }
    }
}
