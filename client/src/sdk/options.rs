//! How a client behaves, with the defaults.

use std::time::Duration;

use paceline_protocol::limits::REQUEST_BUDGET_DEFAULT_MS;
use paceline_protocol::tenant::ApiKey;

use super::trust::Trust;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// What nodes are checked against. There is no way to check nothing.
    pub trust: Trust,
    /// Who the client is; without a key it is the tenant `default`, where that is allowed.
    pub api_key: Option<ApiKey>,
    /// Budget of a request that names none. Default: 10 s.
    pub budget: Duration,
    /// Requests in flight at a time, over all nodes; more are refused here with `OVERLOADED`.
    /// Default: 1,024, what a node lets in from one connection.
    pub in_flight_max: usize,
    /// Nodes that the client stays connected with, 1 to 64. Default: 2, so that one can be lost
    /// without waiting for a handshake.
    pub connections: usize,
    /// How long [`Client::connect`](super::Client::connect) waits for the first node. Default: 5 s.
    pub connect_timeout: Duration,
    /// Silence of a node, while an answer is due, after which another one is asked. Default:
    /// 300 ms. Larger where the network pauses for longer.
    pub suspect_after: Duration,
    /// Silence after which a connection is given up. Default: 1.5 s.
    pub lost_after: Duration,
}

impl ClientOptions {
    /// The defaults.
    pub fn new(trust: Trust) -> Self {
        Self {
            trust,
            api_key: None,
            budget: Duration::from_millis(REQUEST_BUDGET_DEFAULT_MS),
            in_flight_max: 1_024,
            connections: 2,
            connect_timeout: Duration::from_secs(5),
            suspect_after: Duration::from_millis(300),
            lost_after: Duration::from_millis(1_500),
        }
    }
}
