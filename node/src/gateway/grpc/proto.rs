//! Messages and services of `node/proto`, generated when the crate is built.

/// The Open Inference Protocol.
#[allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::all,
    clippy::pedantic,
    clippy::disallowed_types,
    clippy::too_many_lines,
    reason = "it is generated, and messages of inference are read without it"
)]
pub(in crate::gateway) mod inference {
    tonic::include_proto!("inference");
}

/// Health.
#[allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::all,
    clippy::pedantic,
    clippy::disallowed_types,
    clippy::too_many_lines,
    reason = "it is generated"
)]
pub(super) mod health {
    tonic::include_proto!("grpc.health.v1");
}
