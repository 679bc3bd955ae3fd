//! What clients of OpenAI and of text-embeddings-inference ask about texts.

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use paceline_protocol::{ErrorCode, Failure};

use super::respond::{answered, failed, with_body};
use crate::gateway::Doors;
use crate::gateway::body::{AnswerBody, read_inference};
use crate::gateway::infer::Content;
use crate::gateway::sender::Sender;
use crate::gateway::text::{self, Asked, Texts};
use crate::router::Routes;
use crate::telemetry::metrics::Protocol;

/// Answers a request about texts.
///
/// # Errors
/// Exactly one [`Failure`], by the request's deadline.
pub(super) async fn answer(
    doors: &Doors,
    asked: Asked,
    (parts, body): (&Parts, Incoming),
) -> Result<Response<AnswerBody>, Failure> {
    let headers = &parts.headers;
    let refused = |failure: &Failure| doors.metrics.refused(Protocol::Http, failure.code);
    let sender = Sender::of(doors, headers).inspect_err(refused)?;
    let texts = match asked {
        Asked::Info => Texts::none(asked, named(parts.uri.query())),
        _ => {
            let read = read_inference(doors, headers, body).await;
            let (_, body) = read.inspect_err(refused)?;
            Texts::read(asked, &body).inspect_err(refused)?
        }
    };
    let routes = doors.serving.router.routes();
    let model = model(&routes, asked, texts.model()).inspect_err(refused)?;
    let request = sender.asks(&model, None, Content::Texts(&texts));
    doors.serving.infer(request).await.map(answered)
}

/// The same failure in the words of the protocol that was spoken.
pub(super) fn failed_at(asked: Asked, failure: &Failure) -> Response<AnswerBody> {
    let body: Bytes = text::render_failure(asked, failure);
    let mut response = with_body(failed(failure), body);
    let status = StatusCode::from_u16(text::status(asked, failure));
    *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

/// The model that a request names. TEI's clients name none, since a server of theirs has one: it is
/// the one that gives what is asked for.
fn model(routes: &Routes, asked: Asked, named: Option<&str>) -> Result<String, Failure> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let output = asked.output();
    let (fitting, fits): (Vec<&str>, _) = match asked {
        Asked::Tokenize | Asked::Info => {
            let reading = routes.with_signature(text::reads_texts);
            (reading.collect(), "read texts".to_owned())
        }
        _ => {
            let giving = routes.with_signature(|signature| text::gives(signature, output));
            (giving.collect(), format!("give '{output}'"))
        }
    };
    let message = match (&fitting[..], asked) {
        (_, Asked::Embeddings) => "the request has no 'model'".to_owned(),
        ([only], _) => return Ok((*only).to_owned()),
        ([], _) => format!("there are no models that {fits}"),
        (several, _) => format!(
            "the request has no 'model', and several {fits}: {}",
            several.join(", ")
        ),
    };
    let code = match fitting.is_empty() && asked != Asked::Embeddings {
        true => ErrorCode::ModelNotFound,
        false => ErrorCode::ParameterInvalid,
    };
    Err(Failure::new(code, message))
}

/// The model that a query names.
fn named(query: Option<&str>) -> Option<String> {
    let mut members = query?.split('&');
    let model = members.find_map(|member| member.strip_prefix("model="))?;
    Some(model.to_owned())
}
