//! Triton's extensions that read or change more than one request: repository, shared memory,
//! settings.

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Method, Response, StatusCode};
use paceline_protocol::{ErrorCode, Failure};
use tracing::level_filters::LevelFilter;

use super::respond::{JSON, respond};
use crate::gateway::Doors;
use crate::gateway::body::{AnswerBody, read_inference};
use crate::gateway::oip;
use crate::gateway::path::{Repository, SharedMemory};
use crate::gateway::settings::{no_logging, no_traces};
use crate::tenants::Caller;

/// Lists, loads or unloads.
pub(super) async fn repository(
    doors: &Doors,
    asked: Repository<'_>,
    caller: Caller,
    (headers, body): (&HeaderMap, Incoming),
) -> Result<Response<AnswerBody>, Failure> {
    let (_, body) = read_inference(doors, headers, body).await?;
    match asked {
        Repository::Index => {
            let only_ready = oip::wants_ready_only(&body)?;
            Ok(ok(oip::index(&doors.models.index(only_ready))))
        }
        Repository::Load(model) => {
            oip::check_load(&body)?;
            doors.models.load(caller, model).await?;
            Ok(ok(Bytes::new()))
        }
        Repository::Unload(model) => {
            oip::check_unload(&body)?;
            doors.models.unload(caller, model).await?;
            Ok(ok(Bytes::new()))
        }
    }
}

/// There are no regions: so none is listed, and all of them can be unregistered.
pub(super) fn shared_memory(asked: SharedMemory) -> Result<Response<AnswerBody>, Failure> {
    match asked {
        SharedMemory::Status => Ok(ok(Bytes::from_static(b"[]"))),
        SharedMemory::Unregister => Ok(ok(Bytes::new())),
        SharedMemory::Register => {
            let message = "unsupported: shared memory is not taken; send tensors in the body, binary \
                           data for speed";
            Err(Failure::new(ErrorCode::Unsupported, message))
        }
    }
}

pub(super) fn trace(
    doors: &Doors,
    (method, model): (&Method, Option<&str>),
) -> Result<Response<AnswerBody>, Failure> {
    if let Some(model) = model {
        doors.serving.router.routes().model(model)?;
    }
    if *method == Method::POST {
        return Err(no_traces());
    }
    Ok(ok(oip::trace()))
}

pub(super) fn logging(method: &Method) -> Result<Response<AnswerBody>, Failure> {
    if *method == Method::POST {
        return Err(no_logging());
    }
    Ok(ok(oip::logging(LevelFilter::current())))
}

fn ok(body: Bytes) -> Response<AnswerBody> {
    respond(StatusCode::OK, JSON, body)
}
