//! What the protocol tells about the server and its models.

use bytes::Bytes;
use hyper::{Response, StatusCode};
use paceline_protocol::{ErrorCode, Failure};

use super::openapi::described;
use super::respond::{JSON, respond};
use crate::gateway::Doors;
use crate::gateway::body::AnswerBody;
use crate::gateway::oip::{self, ModelMetadata};
use crate::gateway::path::{Route, Target};

/// Answers whatever is no request to a model.
pub(super) fn about(doors: &Doors, route: Route<'_>) -> Result<Response<AnswerBody>, Failure> {
    let routes = doors.serving.router.routes();
    let json = |status: StatusCode, body: Bytes| Ok(respond(status, JSON, body));
    match route {
        Route::Live => json(StatusCode::OK, oip::live(true)),
        Route::Ready => {
            let ready = doors.readiness.is_ready();
            json(ready_status(ready), oip::ready(ready))
        }
        Route::Server => json(
            StatusCode::OK,
            oip::server(env!("CARGO_PKG_VERSION"), &oip::EXTENSIONS),
        ),
        Route::Described => json(StatusCode::OK, described()),
        Route::Models => json(StatusCode::OK, oip::models(routes.names())),
        Route::Model(Target { model, version }) => {
            let known = routes.model(model)?;
            let chosen = routes.resolve(model, version)?;
            let serving: Vec<_> = known.versions.keys().copied().collect();
            let versions = match version {
                Some(_) => std::slice::from_ref(&chosen.version),
                None => &serving,
            };
            let metadata = ModelMetadata {
                name: model,
                versions,
                family: &chosen.family,
                signature: &chosen.signature,
            };
            json(StatusCode::OK, oip::model(&metadata))
        }
        Route::Configuration(Target { model, version }) => {
            let configuration = doors.models.configuration(model, version)?;
            json(StatusCode::OK, oip::configuration(&configuration))
        }
        Route::Statistics(target) => {
            let model = target.map(|target| target.model);
            let version = target.and_then(|target| target.version);
            let statistics = doors.models.statistics(model, version)?;
            json(StatusCode::OK, oip::statistics(&statistics))
        }
        Route::ModelReady(Target { model, version }) => {
            routes.model(model)?;
            let ready = match routes.resolve(model, version) {
                Ok(version) => version.ready > 0,
                Err(failure) if failure.code == ErrorCode::ModelNotReady => false,
                Err(failure) => return Err(failure),
            };
            json(ready_status(ready), oip::model_ready(model, ready))
        }
        Route::Infer(_)
        | Route::Repository(_)
        | Route::SharedMemory(_)
        | Route::Trace(_)
        | Route::Logging
        | Route::V1(_)
        | Route::Operator
        | Route::Unknown => unreachable!("answered elsewhere"),
    }
}

fn ready_status(ready: bool) -> StatusCode {
    if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}
