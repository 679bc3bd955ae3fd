//! What operators' requests bring along; what cannot be read is refused as JSON, like every
//! other failure.

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use bytes::Bytes;
use paceline_protocol::limits::MANIFEST_BYTES_MAX;
use paceline_protocol::{ErrorCode, Failure};
use serde::de::DeserializeOwned;

use super::Refused;

/// A body, read whole within the API's limit.
pub(super) struct Whole(pub(super) Bytes);

/// The parts of the path that are not fixed, decoded: one, or a tuple.
pub(super) struct InPath<T = String>(pub(super) T);

/// The query.
pub(super) struct InQuery<T>(pub(super) T);

impl<S: Send + Sync> FromRequest<S> for Whole {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let read = Bytes::from_request(request, state).await;
        read.map(Self).map_err(|rejection| {
            Refused(if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                let message = format!("a body has at most {MANIFEST_BYTES_MAX} bytes here");
                Failure::new(ErrorCode::TooLarge, message)
            } else {
                let message = "the connection broke before the body was whole";
                Failure::new(ErrorCode::Cancelled, message)
            })
        })
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for InPath<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let read = Path::<T>::from_request_parts(parts, state).await;
        read.map(|Path(read)| Self(read))
            .map_err(|rejection| invalid("path", &rejection.body_text()))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for InQuery<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let read = Query::<T>::from_request_parts(parts, state).await;
        read.map(|Query(query)| Self(query))
            .map_err(|rejection| invalid("query", &rejection.body_text()))
    }
}

fn invalid(place: &str, why: &str) -> Refused {
    let message = format!("{place}: {why}");
    Refused(Failure::new(ErrorCode::ParameterInvalid, message))
}
