//! The models that the binary brings along, so that it can show what it does from one file.

use std::time::Duration;

use paceline_protocol::{Failure, ModelName};

use crate::node::NodeHandle;

/// Why the demo models do not answer.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A model could not be published or deployed.
    #[error("the demo model '{model}' could not be installed: {failure}")]
    Install {
        /// Which.
        model: &'static str,
        /// Why.
        failure: Failure,
    },
    /// A model did not become ready.
    #[error(
        "the demo model '{model}' was not ready within {seconds} s; see `paceline model show {model}`"
    )]
    NotReady {
        /// Which.
        model: &'static str,
        /// How long was waited.
        seconds: u64,
    },
}

/// Publishes and deploys the demo models, and returns their names when all answer. Models that
/// are deployed already are left as they are.
///
/// # Errors
/// The first model that cannot be installed or does not become ready.
pub async fn install_demo(node: &NodeHandle) -> Result<Vec<&'static str>, DemoError> {
    for (model, files) in MODELS {
        let install = node.install(&name(model), files).await;
        install.map_err(|failure| DemoError::Install { model, failure })?;
    }
    for (model, _) in MODELS {
        if !node.wait_ready(&name(model), READY_LIMIT).await {
            return Err(DemoError::NotReady {
                model,
                seconds: READY_LIMIT.as_secs(),
            });
        }
    }
    Ok(MODELS.iter().map(|(model, _)| *model).collect())
}

type Files = &'static [(&'static str, &'static [u8])];

/// Model folders, as they lie in `examples/models/`.
const MODELS: [(&str, Files); 3] = [
    (
        "digits",
        &[
            (
                "model.safetensors",
                include_bytes!("../../examples/models/digits/model.safetensors"),
            ),
            (
                "model.toml",
                include_bytes!("../../examples/models/digits/model.toml"),
            ),
        ],
    ),
    (
        "identity",
        &[(
            "model.toml",
            include_bytes!("../../examples/models/identity/model.toml"),
        )],
    ),
    (
        "machine-failure",
        &[
            (
                "model.safetensors",
                include_bytes!("../../examples/models/machine-failure/model.safetensors"),
            ),
            (
                "model.toml",
                include_bytes!("../../examples/models/machine-failure/model.toml"),
            ),
        ],
    ),
];

fn name(model: &str) -> ModelName {
    ModelName::new(model).expect("the demo's names are good names")
}

/// How long the demo models may take: they are small, but the machine may be busy.
const READY_LIMIT: Duration = Duration::from_secs(60);
