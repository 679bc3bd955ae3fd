//! Questions to a node over HTTP, as any client asks them. They block: not for an event loop.

use std::net::SocketAddr;
use std::time::Duration;

use paceline_protocol::operator::ErrorBody;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Asks nodes.
#[derive(Clone)]
pub(crate) struct Asker {
    agent: ureq::Agent,
}

/// Why there is no answer, in a sentence.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The node refuses.
    #[error("{message} (status {status})")]
    Refused { status: u16, message: String },
    /// It does not answer, or something else answers.
    #[error("{0}")]
    Away(String),
}

impl Asker {
    /// Waits at most `limit` for each answer.
    pub(crate) fn new(limit: Duration) -> Self {
        let config = ureq::Agent::config_builder()
            // A proxy of the environment would not know loopback.
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_idle_connections(0)
            .timeout_global(Some(limit));
        Self {
            agent: config.build().new_agent(),
        }
    }

    /// Reads what is under a path.
    pub(crate) fn read<T: DeserializeOwned>(
        &self,
        node: SocketAddr,
        path: &str,
    ) -> Result<T, AskError> {
        read(self.agent.get(format!("http://{node}{path}")).call())
    }

    /// Posts JSON to a path.
    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        node: SocketAddr,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, AskError> {
        let body = serde_json::to_vec(body).map_err(|error| AskError::Away(error.to_string()))?;
        let request = self.agent.post(format!("http://{node}{path}"));
        read(request.content_type("application/json").send(&body[..]))
    }
}

fn read<T: DeserializeOwned>(
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<T, AskError> {
    let away = |error: ureq::Error| AskError::Away(error.to_string());
    let mut answer = answer.map_err(away)?;
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX);
    let body = body.read_to_vec().map_err(away)?;
    if status == 200 {
        return serde_json::from_slice(&body).map_err(|error| AskError::Away(error.to_string()));
    }
    let message = serde_json::from_slice::<ErrorBody>(&body)
        .map_or_else(|_| "the node gives no reason".to_owned(), |body| body.error);
    Err(AskError::Refused { status, message })
}

/// The list of 10,000 models with their signatures fits.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
