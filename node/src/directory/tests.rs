//! The twin on a network in memory: what is said arrives, and what is lost becomes unknown.

use std::net::SocketAddr;

use paceline_protocol::report::{ReplicaCondition, ReplicaReport};
use paceline_protocol::{Epoch, ReplicaId};

use super::*;
use crate::transport::Transport;
use crate::transport::memory::MemoryNetwork;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

struct Nodes {
    network: MemoryNetwork,
    lives: std::cell::Cell<u64>,
}

impl Nodes {
    fn new() -> Self {
        Self {
            network: MemoryNetwork::new(3),
            lives: std::cell::Cell::new(1),
        }
    }

    fn start(&self, node: NodeId) -> StreamDirectory {
        let transport = self.network.join(node);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        transport.set_peers([A, B, C].map(|peer| (peer, nowhere)).into());
        let life = self.lives.replace(self.lives.get() + 1);
        let directory = StreamDirectory::start(transport, life);
        directory.set_peers([A, B, C].into());
        directory
    }
}

fn report(node: NodeId, epoch: u64) -> NodeReport {
    let replica = ReplicaReport {
        condition: ReplicaCondition::Ready,
        row_nanos: 7,
        memory_bytes: 9,
    };
    NodeReport {
        node,
        epoch: Epoch(epoch),
        ready: true,
        draining: None,
        pid: 4,
        replicas: vec![(ReplicaId(node.0), replica)],
        demands: Vec::new(),
        canaries: Vec::new(),
    }
}

async fn until(
    directory: &StreamDirectory,
    wanted: impl FnMut(&Arc<Reports>) -> bool,
) -> Arc<Reports> {
    let mut reports = directory.reports();
    let reached = tokio::time::timeout(Duration::from_secs(30), reports.wait_for(wanted)).await;
    reached.expect("in time").unwrap().clone()
}

fn epoch_of(reports: &Reports, node: NodeId) -> Option<u64> {
    reports.get(&node).map(|known| known.report.epoch.0)
}

#[tokio::test(start_paused = true)]
async fn everybody_hears_everybody_within_milliseconds() {
    let nodes = Nodes::new();
    let all = [A, B, C].map(|node| (node, nodes.start(node)));
    for (node, directory) in &all {
        directory.publish(report(*node, 5));
    }
    for (node, directory) in &all {
        let heard = until(directory, |reports| reports.len() == 2).await;
        assert!(!heard.contains_key(node), "nobody is its own peer");
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (a, b) = (&all[0].1, &all[1].1);
    let at = Instant::now();
    a.publish(report(A, 6));
    let heard = until(b, |reports| epoch_of(reports, A) == Some(6)).await;
    assert!(
        at.elapsed() < Duration::from_millis(5),
        "{:?}",
        at.elapsed()
    );
    assert_eq!(*heard[&A].report, report(A, 6));
}

#[tokio::test(start_paused = true)]
async fn what_changes_together_is_said_together() {
    let nodes = Nodes::new();
    let (a, b) = (nodes.start(A), nodes.start(B));
    a.publish(report(A, 1));
    until(&b, |reports| epoch_of(reports, A) == Some(1)).await;
    let mut reports = b.reports();
    reports.mark_unchanged();
    let (mut changes, mut epoch) = (0, 1);
    let end = Instant::now() + Duration::from_millis(200);
    while Instant::now() < end {
        epoch += 1;
        a.publish(report(A, epoch));
        tokio::time::sleep(Duration::from_millis(1)).await;
        changes += u32::from(reports.has_changed().unwrap());
        reports.mark_unchanged();
    }
    assert!((15..=21).contains(&changes), "{changes} reports in 200 ms");
    until(&b, |reports| epoch_of(reports, A) == Some(epoch)).await;
}

#[tokio::test(start_paused = true)]
async fn what_does_not_change_is_confirmed_every_second_and_wakes_nobody() {
    let nodes = Nodes::new();
    let (a, b) = (nodes.start(A), nodes.start(B));
    a.publish(report(A, 1));
    let first = until(&b, |reports| reports.contains_key(&A)).await[&A].heard_at;
    let mut reports = b.reports();
    tokio::time::sleep(Duration::from_millis(4_500)).await;
    assert!(!reports.has_changed().unwrap());
    let confirmed = reports.borrow_and_update()[&A].heard_at;
    assert!(
        confirmed - first > Duration::from_secs(3),
        "{:?}",
        confirmed - first
    );
    assert!(confirmed.elapsed() < Duration::from_millis(1_100));
}

#[tokio::test(start_paused = true)]
async fn a_partition_makes_unknown_and_its_end_known_again() {
    let nodes = Nodes::new();
    let (a, b) = (nodes.start(A), nodes.start(B));
    a.publish(report(A, 1));
    b.publish(report(B, 1));
    until(&b, |reports| reports.contains_key(&A)).await;
    nodes.network.partition(&[A], &[B]);
    a.publish(report(A, 2));
    until(&b, |reports| reports.is_empty()).await;
    until(&a, |reports| reports.is_empty()).await;
    nodes.network.heal();
    until(&b, |reports| epoch_of(reports, A) == Some(2)).await;
    until(&a, |reports| epoch_of(reports, B) == Some(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_life_is_heard_though_it_begins_anew() {
    let nodes = Nodes::new();
    let (a, b) = (nodes.start(A), nodes.start(B));
    for epoch in 1..=4 {
        a.publish(report(A, epoch));
        until(&b, |reports| epoch_of(reports, A) == Some(epoch)).await;
    }
    drop(a);
    nodes.network.crash(A);
    let a = nodes.start(A);
    a.publish(report(A, 3));
    until(&b, |reports| epoch_of(reports, A) == Some(3)).await;
    // Removed from the cluster: it is unknown, whatever it says.
    b.set_peers([C].into());
    assert!(b.reports().borrow().is_empty());
    a.publish(report(A, 9));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(b.reports().borrow().is_empty());
}
