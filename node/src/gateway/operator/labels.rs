//! What versions are called.

use axum::extract::State;
use axum::{Extension, Json};
use paceline_protocol::operator::{Committed, LabelRequest};
use paceline_protocol::registry::Change;
use paceline_protocol::{ErrorCode, Failure, Label};

use super::extract::{InPath, InQuery, Whole};
use super::traffic::changed;
use super::{OpQuery, Parts, Refused, SeenQuery, json, op_of, write};
use crate::tenants::Caller;

pub(super) async fn set(
    State(parts): Parts,
    Extension(caller): Extension<Caller>,
    InPath((name, label)): InPath<(String, String)>,
    InQuery(seen): InQuery<SeenQuery>,
    Whole(body): Whole,
) -> Result<Json<Committed>, Refused> {
    let model = changed(&parts, caller, &name)?;
    let LabelRequest { version, op } = json(&body)?;
    let change = Change::SetLabel {
        model,
        label: checked(label)?,
        version: Some(version),
    };
    write(&parts, op, (change, seen)).await
}

pub(super) async fn remove(
    State(parts): Parts,
    Extension(caller): Extension<Caller>,
    InPath((name, label)): InPath<(String, String)>,
    InQuery(seen): InQuery<SeenQuery>,
    InQuery(query): InQuery<OpQuery>,
) -> Result<Json<Committed>, Refused> {
    let model = changed(&parts, caller, &name)?;
    let change = Change::SetLabel {
        model,
        label: checked(label)?,
        version: None,
    };
    write(&parts, op_of(query)?, (change, seen)).await
}

fn checked(label: String) -> Result<Label, Failure> {
    Label::new(label)
        .map_err(|error| Failure::new(ErrorCode::ParameterInvalid, format!("label: {error}")))
}
