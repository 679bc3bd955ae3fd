//! Who may do what: a tenant its own, and the tenant `default` everything.

use axum::Extension;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use paceline_protocol::{ErrorCode, Failure, ModelName};

use super::{OperatorParts, Refused};
use crate::tenants::Caller;

/// Lets the tenant on that administers the cluster.
pub(super) async fn administrators(
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Result<Response, Refused> {
    if caller.administers() {
        return Ok(next.run(request).await);
    }
    let message = "only the tenant 'default' may do this; use one of its keys";
    Err(Failure::new(ErrorCode::PermissionDenied, message).into())
}

/// Whether a caller may change a model.
pub(super) fn check_change(
    parts: &OperatorParts,
    caller: Caller,
    model: &ModelName,
) -> Result<(), Failure> {
    if parts.registry.current().may_change(caller.tenant, model) {
        return Ok(());
    }
    let message = format!("model '{model}' belongs to another tenant");
    Err(Failure::new(ErrorCode::PermissionDenied, message))
}
