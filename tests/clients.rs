//! Clients as their users hold them, against the doors of nodes over real sockets on loopback.

#![expect(
    clippy::unwrap_used,
    reason = "clippy takes only the tests themselves for tests, not what helps them"
)]

#[path = "clients/door.rs"]
mod door;
#[path = "clients/epochs.rs"]
mod epochs;
#[path = "clients/failover.rs"]
mod failover;
#[path = "clients/hostile.rs"]
mod hostile;
#[path = "clients/proxy.rs"]
mod proxy;
#[path = "clients/requests.rs"]
mod requests;
#[path = "clients/trust.rs"]
mod trust;
