//! How a node says what it is, and when it has caught up.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use paceline_core::registry::NodeState;
use paceline_protocol::registry::{Change, DeviceRecord, NodeAddresses, NodeRecord};
use paceline_protocol::{Failure, NodeId};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::{Addresses, Ports, StartError};
use crate::config::Config;
use crate::gateway::Readiness;
use crate::observed::Observed;
use crate::registry::{self, fresh_op};

/// What the registry shall know of this node.
pub(super) fn record(
    node: NodeId,
    config: &Config,
    ports: &Ports,
    addresses: Addresses,
) -> NodeRecord {
    let spec = ports.engine.device();
    let told = |address| told(address, config.node.advertise).to_string();
    let text = |address: Option<SocketAddr>| address.map_or_else(String::new, told);
    NodeRecord {
        id: node,
        name: config.node.name.clone(),
        zone: config.node.zone.clone(),
        addresses: NodeAddresses {
            http: told(addresses.http),
            grpc: text(addresses.grpc),
            metrics: told(addresses.metrics),
            sdk: text(addresses.sdk),
            peer: text(addresses.peer),
        },
        devices: vec![DeviceRecord {
            kind: spec.kind,
            lanes: u16::try_from(spec.threads).unwrap_or(u16::MAX),
            memory_bytes: spec.memory_bytes,
        }],
    }
}

/// Where others are told to come: a door that only this machine reaches is told as it is.
fn told(listen: SocketAddr, advertise: Option<IpAddr>) -> SocketAddr {
    match advertise {
        Some(advertise) if !listen.ip().is_loopback() => SocketAddr::new(advertise, listen.port()),
        _ => listen,
    }
}

/// Sees to it that the registry knows this node as it is. A node that is known already, perhaps
/// with other addresses, does not wait for a leader: it serves what its disk says meanwhile.
///
/// # Errors
/// A new node was refused, or found no leader for long.
pub(super) async fn register(
    registry: &registry::Handle,
    record: NodeRecord,
    stopping: watch::Receiver<bool>,
) -> Result<(), StartError> {
    let known = registry.current().nodes().get(&record.id).cloned();
    if known.as_deref() == Some(&record) {
        return Ok(());
    }
    if known.is_some() {
        let registry = registry.clone();
        let registering = async move {
            while let Err(failure) = write(&registry, &record).await {
                if !failure.code.is_retryable() {
                    // Again would be the same, and each refusal is an entry of the log.
                    tracing::error!(%failure, "the registry keeps what it knew of this node");
                    return;
                }
                tracing::debug!(%failure, "the node could not register itself yet");
                sleep(RETRY_AFTER).await;
            }
        };
        tokio::spawn(unless_stopped(stopping, registering));
        return Ok(());
    }
    let deadline = Instant::now() + REGISTER_LIMIT;
    loop {
        match write(registry, &record).await {
            Ok(()) => return Ok(()),
            Err(failure) if !failure.code.is_retryable() || Instant::now() > deadline => {
                return Err(StartError::Register(failure));
            }
            Err(_) => sleep(RETRY_AFTER).await,
        }
    }
}

/// Makes the node ready once it holds all that was committed when it started, and the others have
/// told it which replicas they have ready. Waits for that a while, and leaves it to a task then.
pub(super) async fn catch_up(
    (registry, observed, me): (registry::Handle, Observed, NodeId),
    readiness: &Readiness,
    stopping: watch::Receiver<bool>,
) {
    let readiness = readiness.clone();
    let catching_up = async move {
        while !registry.catch_up().await {
            sleep(RETRY_AFTER).await;
        }
        let hearing = async {
            let is_unheard = |(node, state): (NodeId, NodeState)| {
                node != me && state == NodeState::Up && !observed.nodes().contains_key(&node)
            };
            while registry.current().seats().any(is_unheard) {
                sleep(HEARD_POLL).await;
            }
        };
        // Who is up and says nothing is not waited for.
        let _ = timeout(HEARD_MAX, hearing).await;
        readiness.set(true);
    };
    let mut catching_up = tokio::spawn(unless_stopped(stopping, catching_up));
    if timeout(READY_LIMIT, &mut catching_up).await.is_err() {
        tracing::warn!("no quorum answers; what is served is what this node's disk says");
    }
}

/// Drops `task` when the node stops.
async fn unless_stopped(mut stopping: watch::Receiver<bool>, task: impl Future<Output = ()>) {
    tokio::select! {
        () = task => {}
        // Its sender is gone: so is the node.
        _stopped = stopping.wait_for(|stopping| *stopping) => {}
    }
}

async fn write(registry: &registry::Handle, record: &NodeRecord) -> Result<(), Failure> {
    let change = Change::RegisterNode(record.clone());
    registry.write(fresh_op()?, change).await.map(drop)
}

const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How long a new node looks for a leader.
const REGISTER_LIMIT: Duration = Duration::from_secs(30);
/// How long a node that starts waits for what others have to say; they say it every second.
const HEARD_MAX: Duration = Duration::from_secs(2);
const HEARD_POLL: Duration = Duration::from_millis(10);
/// How long a start waits for a quorum before it goes on without.
const READY_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_told_an_address_that_they_reach() {
        let told = |listen: &str, advertise: Option<&str>| {
            let advertise = advertise.map(|advertise| advertise.parse().unwrap());
            told(listen.parse().unwrap(), advertise).to_string()
        };
        assert_eq!(told("0.0.0.0:8004", Some("10.0.0.5")), "10.0.0.5:8004");
        // Behind an address translation the machine has another address than it is reached by.
        assert_eq!(told("172.17.0.2:8004", Some("10.0.0.5")), "10.0.0.5:8004");
        assert_eq!(told("127.0.0.1:8000", Some("10.0.0.5")), "127.0.0.1:8000");
        assert_eq!(told("10.0.0.7:8004", None), "10.0.0.7:8004");
        assert_eq!(told("[::]:8004", Some("fd00::5")), "[fd00::5]:8004");
    }
}
