//! Several nodes on the twin of the transport, under paused time: membership, forwarding,
//! deaths, partitions, and what must never be lost or read.

mod voters;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use tokio::time::{sleep, timeout};

use super::*;
use crate::transport::Transport;
use crate::transport::memory::MemoryTransport;

const CLUSTER: u128 = 0xc1;

/// Nodes 1, 2, … of one cluster, each on a disk of its own.
struct Cluster {
    network: MemoryNetwork,
    disks: BTreeMap<NodeId, MemoryDisk>,
    nodes: BTreeMap<NodeId, (RaftHandle, Arc<MemoryTransport>)>,
    threads: Threads,
    options: RaftOptions,
}

impl Cluster {
    fn new(seed: u64) -> Self {
        Self {
            network: MemoryNetwork::new(seed),
            disks: BTreeMap::new(),
            nodes: BTreeMap::new(),
            threads: Threads::Shared,
            options: options(),
        }
    }

    /// Three voters, grown from one.
    async fn of_three(seed: u64) -> Self {
        let mut cluster = Self::new(seed);
        cluster.grow(3).await;
        cluster
    }

    async fn grow(&mut self, count: u64) {
        for id in 1..=count {
            self.start(NodeId(id)).await;
        }
        let founder = self.handle(1);
        // On threads of its own it elects itself when the machine lets it.
        while founder.metrics().role != Role::Leader {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for id in 2..=count {
            founder.add_learner(NodeId(id), soon()).await.unwrap();
        }
        let voters: BTreeSet<NodeId> = (1..=count).map(NodeId).collect();
        founder.change_voters(voters, soon()).await.unwrap();
        assert_eq!(founder.metrics().voters.len(), count as usize);
    }

    async fn start(&mut self, node: NodeId) -> RaftHandle {
        let transport = self.network.join(node);
        transport.set_peers(everybody());
        let disk = self.disks.entry(node).or_default().clone();
        let handle = RaftNode::start(RaftStart {
            owner: Owner {
                cluster: CLUSTER,
                node: node.0,
            },
            founds: node == NodeId::FOUNDER,
            disk: Arc::new(disk),
            options: self.options.clone(),
            syncs: Histogram::new([]),
            transport: transport.clone(),
            threads: self.threads,
            guides: Vec::new(),
            authority_key: Arc::new(|| None),
        })
        .await
        .unwrap();
        self.nodes.insert(node, (handle.clone(), transport));
        handle
    }

    fn handle(&self, node: u64) -> RaftHandle {
        self.nodes[&NodeId(node)].0.clone()
    }

    /// Ends a node as a loss of power would, and keeps what its disk holds then.
    async fn kill(&mut self, node: NodeId) {
        self.network.crash(node);
        let disk = self.disks[&node].crash(node.0);
        let (handle, _) = self.nodes.remove(&node).unwrap();
        self.disks.insert(node, disk);
        // Its tasks end; what they still write goes to the disk that was left behind.
        handle.shutdown().await;
    }

    /// The node that leads, as all living nodes but `except` see it.
    async fn leader(&self, except: &[NodeId]) -> NodeId {
        let agreed = async {
            loop {
                let views = self
                    .nodes
                    .iter()
                    .filter(|(id, _)| !except.contains(id))
                    .map(|(_, (handle, _))| handle.metrics().leader);
                let views: BTreeSet<Option<NodeId>> = views.collect();
                if let (1, Some(Some(leader))) = (views.len(), views.first())
                    && !except.contains(leader)
                    && self.nodes.contains_key(leader)
                {
                    return *leader;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(20), agreed)
            .await
            .expect("somebody leads")
    }

    async fn converged(&self, epoch: Epoch) {
        for (handle, _) in self.nodes.values() {
            let mut states = handle.watch();
            let reached = states.wait_for(|state| state.epoch() >= epoch);
            let reached = timeout(Duration::from_secs(20), reached).await;
            reached.expect("every node catches up").unwrap();
        }
    }
}

fn everybody() -> BTreeMap<NodeId, SocketAddr> {
    (1..=9)
        .map(|id| (NodeId(id), (Ipv4Addr::LOCALHOST, 1).into()))
        .collect()
}

async fn write(handle: &RaftHandle, number: u64) -> Result<Outcome, WriteError> {
    handle.write(command(number), soon()).await
}

#[tokio::test(start_paused = true)]
async fn a_leaders_death_is_a_gap_of_less_than_a_second_and_loses_nothing() {
    for seed in 0..10 {
        let mut cluster = Cluster::of_three(seed).await;
        let leader = cluster.leader(&[]).await;
        let mut acknowledged = Vec::new();
        for number in 0..10 {
            acknowledged.push(write(&cluster.handle(leader.0), number).await.unwrap());
        }
        let died_at = Instant::now();
        cluster.kill(leader).await;
        let survivor = *cluster.nodes.keys().next().unwrap();
        let outcome = write(&cluster.handle(survivor.0), 50).await.unwrap();
        let gap = died_at.elapsed();
        assert!(gap < Duration::from_secs(1), "seed {seed}: {gap:?}");
        cluster.start(leader).await;
        cluster.converged(outcome.epoch).await;
        for (number, first) in acknowledged.into_iter().enumerate() {
            // The repeat finds what was acknowledged before.
            let again = write(&cluster.handle(leader.0), number as u64)
                .await
                .unwrap();
            assert_eq!(again, first, "seed {seed}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_in_the_minority_writes_and_reads_nothing() {
    for seed in 0..5 {
        let cluster = Cluster::of_three(seed).await;
        let old = cluster.leader(&[]).await;
        let others: Vec<NodeId> = cluster
            .nodes
            .keys()
            .copied()
            .filter(|id| *id != old)
            .collect();
        let before = write(&cluster.handle(old.0), 1).await.unwrap();
        let term = cluster.handle(others[0].0).metrics().term;
        cluster.network.partition(&[old], &others);
        let new = cluster.leader(&[old]).await;
        let after = write(&cluster.handle(new.0), 2).await.unwrap();
        assert!(after.epoch > before.epoch);
        let handle = cluster.handle(old.0);
        let asked_at = Instant::now();
        assert_eq!(handle.read_index(soon()).await, Err(ReadError::NoQuorum));
        let refused = write(&handle, 3).await;
        assert!(
            matches!(refused, Err(WriteError::NoQuorum | WriteError::Unknown)),
            "{refused:?}"
        );
        assert!(asked_at.elapsed() < Duration::from_secs(6));
        let asked_at = Instant::now();
        assert_eq!(write(&handle, 4).await, Err(WriteError::NoQuorum));
        assert!(asked_at.elapsed() < Duration::from_secs(2));
        assert!(
            handle
                .quorum_age()
                .is_none_or(|age| age > Duration::from_secs(1))
        );
        // Alone for long: pre-vote keeps its term where it was.
        sleep(Duration::from_secs(30)).await;
        assert!(
            handle.metrics().term <= term + 1,
            "it did not stand for election"
        );
        cluster.network.heal();
        cluster.converged(after.epoch).await;
        assert!(handle.read_index(soon()).await.unwrap() >= after.epoch);
        assert!(handle.quorum_age().unwrap() < Duration::from_secs(1));
        let leader = cluster.leader(&[]).await;
        assert!(cluster.handle(leader.0).metrics().term <= term + 2);
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_far_behind_gets_a_snapshot_and_the_rest() {
    let mut cluster = Cluster::new(3);
    cluster.options.snapshot_every_entries = 20;
    cluster.grow(3).await;
    let leader = cluster.leader(&[]).await;
    let behind = *cluster.nodes.keys().find(|id| **id != leader).unwrap();
    cluster.kill(behind).await;
    let handle = cluster.handle(leader.0);
    let mut last = Epoch(0);
    for number in 0..200 {
        last = write(&handle, number).await.unwrap().epoch;
    }
    sleep(Duration::from_secs(1)).await;
    let purged = handle.metrics().purged;
    assert!(purged > Some(50), "the log was cut: {purged:?}");
    cluster.start(behind).await;
    cluster.converged(last).await;
    assert!(cluster.handle(behind.0).metrics().snapshot > Some(50));
    assert_eq!(cluster.handle(behind.0).state(), handle.state());
}

#[tokio::test(start_paused = true)]
async fn all_at_once_lose_power_and_nothing_that_was_acknowledged() {
    for seed in 0..10 {
        let mut cluster = Cluster::of_three(seed).await;
        let mut acknowledged = Vec::new();
        let mut writing = tokio::task::JoinSet::new();
        for number in 0..40 {
            let handle = cluster.handle(1 + number % 3);
            writing.spawn(async move { (number, write(&handle, number).await) });
        }
        // Cut in the middle of it: some have been answered by now.
        for _ in 0..15 {
            let (number, outcome) = writing.join_next().await.unwrap().unwrap();
            acknowledged.push((number, outcome.unwrap()));
        }
        let all: Vec<NodeId> = cluster.nodes.keys().copied().collect();
        for node in &all {
            cluster.network.crash(*node);
            let disk = cluster.disks[node].crash(seed ^ node.0);
            cluster.disks.insert(*node, disk);
        }
        writing.abort_all();
        for (handle, _) in std::mem::take(&mut cluster.nodes).into_values() {
            handle.shutdown().await;
        }
        for node in all {
            cluster.start(node).await;
        }
        cluster.leader(&[]).await;
        for (number, first) in acknowledged {
            let again = write(&cluster.handle(1), number).await.unwrap();
            assert_eq!(again, first, "seed {seed}: {number} is lost");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_line_slows_writes_and_changes_nothing_else() {
    let cluster = Cluster::of_three(5).await;
    cluster
        .network
        .set_timing(crate::transport::memory::LinkTiming {
            delay_min_us: 500,
            delay_max_us: 8_000,
            loss_permille: 50,
        });
    let mut done = BTreeMap::new();
    for number in 0..200 {
        if let Ok(outcome) = write(&cluster.handle(1 + number % 3), number).await {
            done.insert(number, outcome);
        }
    }
    assert!(done.len() >= 195, "{} of 200 writes", done.len());
    for (number, first) in &done {
        let again = write(&cluster.handle(3 - number % 3), *number).await;
        assert_eq!(
            again.as_ref(),
            Ok(first),
            "{number} was done twice, or lost"
        );
    }
    // The repeats were entries as well: what comes after them has to have arrived everywhere.
    let last = write(&cluster.handle(1), 1_000).await.unwrap();
    cluster.converged(last.epoch).await;
    let states = (1..=3).map(|node| cluster.handle(node).state());
    let states: Vec<_> = states.collect();
    assert!(states.windows(2).all(|pair| pair[0] == pair[1]));
}

/// Two that moved at once do not find each other; the third knows both.
#[tokio::test(start_paused = true)]
async fn who_cannot_reach_its_leader_writes_by_way_of_a_third() {
    for seed in 0..10 {
        let cluster = Cluster::of_three(seed).await;
        let leader = cluster.leader(&[]).await;
        let mut others = (1..=3).map(NodeId).filter(|node| *node != leader);
        let apart = others.next().unwrap();
        cluster.network.partition(&[apart], &[leader]);
        sleep(Duration::from_secs(3)).await;
        for number in 0..10 {
            let started = Instant::now();
            let written = write(&cluster.handle(apart.0), number).await.unwrap();
            // Two seconds to find that out, and two in which it could have been applied here.
            assert!(started.elapsed() < Duration::from_secs(5), "seed {seed}");
            let known = cluster.handle(leader.0).state().epoch();
            assert!(known >= written.epoch, "seed {seed}");
        }
        assert_eq!(cluster.leader(&[apart]).await, leader, "nobody was deposed");
    }
}

/// A peer that opens all the streams it can and says nothing holds up nobody else.
#[tokio::test(start_paused = true)]
async fn a_silent_peer_takes_nothing_from_the_others() {
    let cluster = Cluster::of_three(7).await;
    let silent = cluster.network.join(NodeId(9));
    silent.set_peers(everybody());
    let mut held = Vec::new();
    for _ in 0..2_200 {
        for node in 1..=3 {
            let (plane, limit) = (crate::transport::Plane::Raft, Duration::from_secs(1));
            held.push(silent.open(NodeId(node), plane, limit).await.unwrap());
        }
    }
    let term = cluster.handle(1).metrics().term;
    for number in 0..20 {
        let handle = cluster.handle(1 + number % 3);
        timeout(Duration::from_secs(1), write(&handle, number))
            .await
            .expect("in time")
            .unwrap();
    }
    sleep(Duration::from_secs(5)).await;
    assert_eq!(cluster.handle(1).metrics().term, term, "heartbeats went on");
    drop(held);
}

/// A peer that speaks for somebody else, or speaks nonsense, changes nothing.
#[tokio::test(start_paused = true)]
async fn a_peer_speaks_for_itself_and_sense() {
    use crate::raft::wire::Request;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let cluster = Cluster::of_three(6).await;
    let liar = cluster.network.join(NodeId(9));
    liar.set_peers(everybody());
    let term = cluster.handle(1).metrics().term;
    let vote = crate::raft::type_config::Vote::new(term + 50, 2);
    let ballot = openraft::raft::VoteRequest::<TypeConfig>::new(vote, None);
    let ballot = || crate::raft::wire::Ballot::of(&ballot);
    let forged = [
        Request::Vote(ballot()),
        Request::PreVote(ballot()),
        Request::Append {
            vote: (&vote).into(),
            previous: None,
            entries: Vec::new(),
            committed: None,
        },
        Request::Transfer {
            from: (&vote).into(),
            to: 1,
            last: None,
        },
    ];
    let mut messages = vec![vec![0xff; 4096], vec![1, 0, 0]];
    for request in &forged {
        let mut bytes = Vec::new();
        let dialect = crate::raft::wire::DIALECT;
        dialect.send(&mut bytes, request).await.unwrap();
        messages.push(bytes);
    }
    for sent in messages {
        let mut stream = liar.open(
            NodeId(1),
            crate::transport::Plane::Raft,
            Duration::from_secs(1),
        );
        let mut stream = stream.as_mut().await.unwrap();
        stream.send.write_all(&sent).await.unwrap();
        stream.send.finish();
        let mut answer = Vec::new();
        let read = timeout(
            Duration::from_secs(5),
            stream.receive.read_to_end(&mut answer),
        )
        .await;
        assert!(read.unwrap().is_err() && answer.is_empty(), "{answer:?}");
    }
    write(&cluster.handle(1), 1).await.unwrap();
    assert_eq!(cluster.handle(1).metrics().term, term);
}

/// The same in real time, with raft and log on threads of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_on_threads_of_their_own() {
    let mut cluster = Cluster::new(7);
    cluster.threads = Threads::Own;
    cluster.grow(3).await;
    let leader = cluster.leader(&[]).await;
    let mut last = Epoch(0);
    for number in 0..50 {
        let handle = cluster.handle(1 + number % 3);
        last = write(&handle, number).await.unwrap().epoch;
    }
    cluster.converged(last).await;
    cluster.kill(leader).await;
    let survivor = *cluster.nodes.keys().next().unwrap();
    let outcome = write(&cluster.handle(survivor.0), 500).await.unwrap();
    assert!(outcome.epoch > last);
    let nodes = std::mem::take(&mut cluster.nodes);
    for (handle, _) in nodes.into_values() {
        handle.shutdown().await;
    }
}
