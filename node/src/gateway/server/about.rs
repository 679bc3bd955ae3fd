//! What the protocol tells about the server and its models.

use bytes::Bytes;
use hyper::{Response, StatusCode};
use paceline_protocol::{ErrorCode, Failure, VersionNumber};

use super::openapi::described;
use super::respond::{JSON, respond};
use crate::gateway::Doors;
use crate::gateway::body::AnswerBody;
use crate::gateway::oip::{self, ModelMetadata};
use crate::gateway::path::{Route, Target};
use crate::router::{Routes, VersionRoute};

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
            let (versions, chosen) = versions(&routes, model, version)?;
            let metadata = ModelMetadata {
                name: model,
                versions: &versions,
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
            let ready = is_ready(&routes, model, version)?;
            json(ready_status(ready), oip::model_ready(model, ready))
        }
        Route::Infer(_)
        | Route::Text(_)
        | Route::Repository(_)
        | Route::SharedMemory(_)
        | Route::Trace(_)
        | Route::Logging
        | Route::V1(_)
        | Route::Operator
        | Route::Unknown => unreachable!("answered elsewhere"),
    }
}

/// The versions of a model that serve, or the one that is named, and one of them.
pub(in crate::gateway) fn versions<'r>(
    routes: &'r Routes,
    model: &str,
    version: Option<&str>,
) -> Result<(Vec<VersionNumber>, &'r VersionRoute), Failure> {
    let known = routes.model(model)?;
    let chosen = routes.resolve(model, version)?;
    let versions = match version {
        Some(_) => vec![chosen.version],
        None => known.versions.keys().copied().collect(),
    };
    Ok((versions, chosen))
}

/// Whether a request for the model would find a replica that is ready.
pub(in crate::gateway) fn is_ready(
    routes: &Routes,
    model: &str,
    version: Option<&str>,
) -> Result<bool, Failure> {
    routes.model(model)?;
    match routes.resolve(model, version) {
        Ok(version) => Ok(version.ready > 0),
        Err(failure) if failure.code == ErrorCode::ModelNotReady => Ok(false),
        Err(failure) => Err(failure),
    }
}

fn ready_status(ready: bool) -> StatusCode {
    if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}
