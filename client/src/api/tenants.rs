//! Tenants and their keys.

use paceline_protocol::operator::{Committed, KeyCreated, TenantRequest, TenantView};
use paceline_protocol::tenant::KeyId;
use paceline_protocol::{OpId, TenantName};

use super::doors::Again;
use super::http::{Call, Payload};
use super::retry::Conflict;
use super::{ApiError, Freshness, Method, OperatorClient};

impl OperatorClient {
    /// Every tenant of which something was set, sorted by name.
    ///
    /// # Errors
    /// [`ApiError`]; each node is asked once.
    pub fn tenants(&self, freshness: Freshness) -> Result<Vec<TenantView>, ApiError> {
        self.read(&freshness.path("/v2/paceline/tenants"))
    }

    /// Makes a tenant, or changes what it may take.
    ///
    /// # Errors
    /// [`ApiError`]; repeated with the request's op-id until settled.
    pub fn set_tenant(
        &self,
        tenant: &TenantName,
        request: &TenantRequest,
    ) -> Result<Committed, ApiError> {
        let path = tenant_path(tenant);
        let body = serde_json::to_vec(request).expect("the operator API's types have text keys");
        let put = || (Method::PUT, Payload::Json(&body));
        let answer = self.settle(&path, Conflict::Passes, put)?;
        self.doors.first().json(&path, &answer)
    }

    /// Forgets a tenant and its keys.
    ///
    /// # Errors
    /// [`ApiError`]; repeated with the op-id until settled, but not after an objection (409).
    pub fn delete_tenant(&self, tenant: &TenantName, op: OpId) -> Result<Committed, ApiError> {
        let path = format!("{}?op={op}", tenant_path(tenant));
        self.remove(&path, Conflict::Stands)
    }

    /// Makes a key.
    ///
    /// # Errors
    /// [`ApiError`]. Asked once: whether a key whose answer was lost was made is seen with
    /// [`OperatorClient::tenants`].
    pub fn add_key(&self, tenant: &TenantName) -> Result<KeyCreated, ApiError> {
        let path = format!("{}/keys", tenant_path(tenant));
        let answer = self.doors.ask(self.timeout, Again::Unsent, |door, limit| {
            let call = Call {
                method: Method::POST,
                path: &path,
                body: Payload::None,
            };
            door.exchange(call, limit)
        })?;
        self.doors.first().json(&path, &answer)
    }

    /// Revokes a key.
    ///
    /// # Errors
    /// [`ApiError`]; repeated with the op-id until settled.
    pub fn revoke_key(&self, key: KeyId, op: OpId) -> Result<Committed, ApiError> {
        let path = format!("/v2/paceline/keys/{key}?op={op}");
        self.remove(&path, Conflict::Passes)
    }
}

/// A name needs no escaping: its alphabet is a subset of what a path may hold.
fn tenant_path(tenant: &TenantName) -> String {
    format!("/v2/paceline/tenants/{tenant}")
}
