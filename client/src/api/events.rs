//! Answers in parts: server-sent events (WHATWG HTML, section 9.2), as far as a node sends them.

use std::io::{self, BufRead, BufReader, Read};
use std::time::Duration;

use paceline_protocol::limits::BODY_BYTES_MAX;
use paceline_protocol::operator::ErrorBody;
use paceline_protocol::{ErrorCode, ModelName, VersionRef};
use serde::Deserialize;
use ureq::http::{HeaderMap, Method};

use super::doors::Again;
use super::http::{Call, Payload};
use super::inference::inference_path;
use super::{ApiError, Belonging, OperatorClient, OutputTensor};

/// Rows of an answer that comes in parts.
#[derive(Clone, Debug, PartialEq)]
pub struct InferencePart {
    /// The part as it arrived: JSON on one line.
    pub json: Vec<u8>,
    /// The request's row that the first of these answers.
    pub first_row: u64,
    /// Its outputs.
    pub outputs: Vec<OutputTensor>,
}

/// What a whole answer in parts says beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InferenceEnd {
    /// Rows of all parts.
    pub rows: u64,
    /// Which version answered: header `paceline-version`.
    pub version: Option<String>,
    /// At which epoch that was decided: header `paceline-epoch`.
    pub epoch: Option<String>,
    /// For how many seconds the node has had no contact to a quorum: header `paceline-stale`.
    pub stale_seconds: Option<String>,
}

/// One event.
#[derive(Debug, PartialEq, Eq)]
struct Event {
    /// Empty for a part.
    name: String,
    data: Vec<u8>,
}

#[derive(Deserialize)]
struct PartBody {
    parameters: PartParameters,
    outputs: Vec<OutputTensor>,
}

#[derive(Deserialize)]
struct PartParameters {
    first_row: u64,
}

#[derive(Deserialize)]
struct EndBody {
    rows: u64,
}

impl OperatorClient {
    /// Sends the body of an inference request whose answer shall come in parts, all of them within
    /// `limit`, and hands each to `take` as soon as it is there. Sent once, as any inference.
    ///
    /// # Errors
    /// [`ApiError`], or what `take` says; parts before it have been taken.
    pub fn infer_in_parts<E: From<ApiError>>(
        &self,
        (name, version): (&ModelName, Option<&VersionRef>),
        (body, belonging): (&[u8], &Belonging),
        limit: Duration,
        mut take: impl FnMut(InferencePart) -> Result<(), E>,
    ) -> Result<InferenceEnd, E> {
        let path = format!("{}/infer", inference_path(name, version));
        let (headers, reader) = self.doors.ask(limit, Again::Unsent, |door, limit| {
            let call = Call {
                method: Method::POST,
                path: &path,
                body: Payload::Inference(body, belonging),
            };
            door.events(call, limit)
        })?;
        let door = self.doors.first();
        let malformed = |reason: String| E::from(door.malformed(&path, reason));
        let broken = |reason: String| {
            let address = door.address().clone();
            E::from(ApiError::NoAnswer { address, reason })
        };
        let mut reader = BufReader::new(reader);
        loop {
            let event = next(&mut reader).map_err(|error| broken(error.to_string()))?;
            let Some(Event { name, data }) = event else {
                return Err(broken("the answer broke off before its end".to_owned()));
            };
            let unreadable = |error: serde_json::Error| malformed(error.to_string());
            match name.as_str() {
                "" => {
                    let part: PartBody = serde_json::from_slice(&data).map_err(unreadable)?;
                    take(InferencePart {
                        json: data,
                        first_row: part.parameters.first_row,
                        outputs: part.outputs,
                    })?;
                }
                "end" => {
                    let EndBody { rows } = serde_json::from_slice(&data).map_err(unreadable)?;
                    return Ok(ended(rows, &headers));
                }
                "error" => {
                    let told = serde_json::from_slice(&data).map_err(unreadable)?;
                    return Err(failed(told).into());
                }
                // Of a later release.
                _ => {}
            }
        }
    }
}

fn ended(rows: u64, headers: &HeaderMap) -> InferenceEnd {
    let header = |name| Some(headers.get(name)?.to_str().ok()?.to_owned());
    InferenceEnd {
        rows,
        version: header("paceline-version"),
        epoch: header("paceline-epoch"),
        stale_seconds: header("paceline-stale"),
    }
}

/// A failure after the first part: its code has a status, though that was not sent.
fn failed(told: ErrorBody) -> ApiError {
    let mut known = ErrorCode::ALL.into_iter();
    let known = known.find(|code| code.name() == told.code);
    ApiError::Refused {
        status: known.map_or(500, ErrorCode::http_status),
        code: told.code,
        message: told.error,
        retry_after: None,
    }
}

/// The next event; `None` at the end of the body. One that is cut off is none.
fn next(reader: &mut impl BufRead) -> io::Result<Option<Event>> {
    let (mut name, mut data) = (String::new(), Vec::new());
    loop {
        let mut line = Vec::new();
        let limit = BODY_BYTES_MAX as u64;
        reader.by_ref().take(limit).read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            return match line.len() < BODY_BYTES_MAX - 1 {
                true => Ok(None),
                false => Err(io::Error::from(io::ErrorKind::FileTooLarge)),
            };
        }
        if let Some(value) = line.strip_prefix(b"data: ") {
            data = value.to_vec();
        } else if let Some(value) = line.strip_prefix(b"event: ") {
            name = String::from_utf8_lossy(value).into_owned();
        } else if line.is_empty() && !(name.is_empty() && data.is_empty()) {
            return Ok(Some(Event { name, data }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_one_by_one_and_a_cut_one_is_none() {
        let text = b"data: {\"a\":1}\n\n: a comment\n\nevent: end\ndata: {}\n\ndata: cut off\n";
        let mut reader = &text[..];
        let mut read = || next(&mut reader).expect("it can be read");
        let part = read().expect("a part");
        assert_eq!(
            (part.name.as_str(), &part.data[..]),
            ("", &b"{\"a\":1}"[..])
        );
        let end = read().expect("the end");
        assert_eq!((end.name.as_str(), &end.data[..]), ("end", &b"{}"[..]));
        assert_eq!(read(), None);
    }

    #[test]
    fn a_failure_midway_has_the_status_of_its_code() {
        let told = |code: &str| {
            failed(ErrorBody {
                error: "m".to_owned(),
                code: code.to_owned(),
            })
        };
        let status = |error| match error {
            ApiError::Refused { status, .. } => status,
            other => panic!("{other}"),
        };
        assert_eq!(status(told("QUEUE_FULL")), 429);
        assert_eq!(status(told("A_CODE_OF_LATER")), 500);
    }
}
