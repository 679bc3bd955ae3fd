//! Who sends a request for an inference, and what its headers say of it, over every protocol.

use hyper::header::HeaderMap;
use paceline_protocol::traffic::Unit;
use paceline_protocol::{Epoch, Failure};

use super::Doors;
use super::body::{epoch_seen, sequence, unit};
use super::infer::{Content, InferBody};
use super::server::caller;
use crate::tenants::Caller;

/// What headers say.
pub(super) struct Sender {
    pub(super) caller: Caller,
    /// The highest epoch that the client has seen.
    pub(super) epoch_seen: Option<Epoch>,
    /// What the request belongs to that shall always get the same version.
    pub(super) unit: Option<Unit>,
    pub(super) sequence: Option<Unit>,
}

impl Sender {
    /// Reads them.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, or `PARAMETER_INVALID` by the header's name.
    pub(super) fn of(doors: &Doors, headers: &HeaderMap) -> Result<Self, Failure> {
        Ok(Self {
            caller: caller(doors, headers)?,
            epoch_seen: epoch_seen(headers)?,
            unit: unit(headers)?,
            sequence: sequence(headers)?,
        })
    }

    /// Its request to a model, or to the version that is named.
    pub(super) fn asks<'a>(
        self,
        model: &'a str,
        version: Option<&'a str>,
        content: Content<'a>,
    ) -> InferBody<'a> {
        InferBody {
            model,
            version,
            content,
            epoch_seen: self.epoch_seen,
            caller: self.caller,
            unit: self.unit,
            sequence: self.sequence,
        }
    }
}
