//! What clients of KServe's protocol v1, TensorFlow Serving and OpenAI ask about models.

use bytes::Bytes;
use hyper::{Response, StatusCode};
use paceline_protocol::{ErrorCode, Failure};

use super::respond::{JSON, respond};
use crate::gateway::Doors;
use crate::gateway::body::AnswerBody;
use crate::gateway::path::{Target, V1};
use crate::gateway::predict;

/// Answers whatever is no prediction.
pub(super) fn about(doors: &Doors, asked: V1<'_>) -> Result<Response<AnswerBody>, Failure> {
    let ok = |body: Bytes| Ok(respond(StatusCode::OK, JSON, body));
    match asked {
        V1::Models => ok(predict::models(&doors.models.summaries())),
        V1::Model(Target {
            model,
            version: None,
        }) => {
            let summary = doors.models.summary(model)?;
            let status = match summary.is_ready {
                true => StatusCode::OK,
                false => StatusCode::SERVICE_UNAVAILABLE,
            };
            Ok(respond(status, JSON, predict::model(&summary)))
        }
        V1::Model(Target {
            model,
            version: Some(version),
        }) => {
            let state = doors.models.state(model, version)?;
            ok(predict::versions(&[state]))
        }
        V1::Metadata(Target { model, version }) => {
            let routes = doors.serving.router.routes();
            let known = routes.resolve(model, version)?;
            ok(predict::metadata(model, known.version, &known.signature))
        }
        V1::Verb(_, verb) => {
            let message = format!(
                "unsupported: models here answer ':predict', not ':{}'",
                verb.name()
            );
            Err(Failure::new(ErrorCode::Unsupported, message))
        }
    }
}
