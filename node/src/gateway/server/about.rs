//! What the protocol tells about the server and its models.

use bytes::Bytes;
use hyper::{Response, StatusCode};
use paceline_protocol::{ErrorCode, Failure, VersionNumber};

use super::respond::{JSON, respond};
use crate::gateway::Doors;
use crate::gateway::body::AnswerBody;
use crate::gateway::oip::{self, ModelMetadata};
use crate::gateway::path::Route;
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
        Route::Models => json(StatusCode::OK, oip::models(routes.names())),
        Route::Model { model, version } => {
            let (versions, chosen) = versions(&routes, model, version)?;
            let metadata = ModelMetadata {
                name: model,
                versions: &versions,
                family: &chosen.family,
                signature: &chosen.signature,
            };
            json(StatusCode::OK, oip::model(&metadata))
        }
        Route::ModelReady { model, version } => {
            let ready = is_ready(&routes, model, version)?;
            json(ready_status(ready), oip::model_ready(model, ready))
        }
        Route::Infer { .. } | Route::Operator | Route::Unknown => {
            unreachable!("answered before")
        }
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
