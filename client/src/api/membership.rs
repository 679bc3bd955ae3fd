//! Who belongs to the cluster: tokens to join with, nodes that leave for a while or for ever.

use paceline_protocol::operator::{
    Committed, DrainRequest, TokenCreated, TokenRequest, TokenView, UndrainRequest,
};
use paceline_protocol::{NodeId, OpId};

use super::retry::Conflict;
use super::{ApiError, OperatorClient};

impl OperatorClient {
    /// Makes a token.
    ///
    /// # Errors
    /// [`ApiError`]; repeated until settled. A token whose answer was lost expires unused.
    pub fn create_token(&self, request: &TokenRequest) -> Result<TokenCreated, ApiError> {
        self.write("/v2/paceline/tokens", request)
    }

    /// The tokens that can still be used, sorted by id.
    ///
    /// # Errors
    /// [`ApiError`]; each node is asked once.
    pub fn tokens(&self) -> Result<Vec<TokenView>, ApiError> {
        self.read("/v2/paceline/tokens")
    }

    /// Revokes a token. `id` has letters, digits and `-` only.
    ///
    /// # Errors
    /// [`ApiError`]; repeated with the op-id until settled.
    pub fn revoke_token(&self, id: &str, op: OpId) -> Result<Committed, ApiError> {
        self.remove(
            &format!("/v2/paceline/tokens/{id}?op={op}"),
            Conflict::Passes,
        )
    }

    /// Begins a drain. Returns when it is committed, not when the node is empty.
    ///
    /// # Errors
    /// [`ApiError`]; repeated with the request's op-id until settled, but not after an
    /// objection (409).
    pub fn drain(&self, node: NodeId, request: &DrainRequest) -> Result<Committed, ApiError> {
        self.write_unless(
            &format!("{}/drain", node_path(node)),
            request,
            Conflict::Stands,
        )
    }

    /// Ends a drain.
    ///
    /// # Errors
    /// [`ApiError`]; repeated with the request's op-id until settled.
    pub fn undrain(&self, node: NodeId, request: &UndrainRequest) -> Result<Committed, ApiError> {
        self.write_unless(
            &format!("{}/undrain", node_path(node)),
            request,
            Conflict::Stands,
        )
    }

    /// Removes a node for ever.
    ///
    /// # Errors
    /// [`ApiError`]; repeated with the op-id until settled, but not after an objection (409).
    pub fn remove_node(&self, node: NodeId, op: OpId) -> Result<Committed, ApiError> {
        self.remove(&format!("{}?op={op}", node_path(node)), Conflict::Stands)
    }
}

fn node_path(node: NodeId) -> String {
    format!("/v2/paceline/nodes/{node}")
}
