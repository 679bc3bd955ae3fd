//! Artifacts between nodes in memory: fetched in parallel, from liars and from the dying.

mod cluster;

use paceline_protocol::limits::ARTIFACT_CHUNK_BYTES;
use paceline_protocol::{Digest, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, Instant};

use self::cluster::{Cluster, Peer, lie};
use super::wire::{Answer, DIALECT, HAS_MAX, Request};
use super::{FetchError, Replicate};
use crate::transport::Plane;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[tokio::test(start_paused = true)]
async fn chunks_come_from_two_peers_in_parallel() {
    let cluster = Cluster::new(&[A, B, C]);
    let artifact = cluster.node(A).fill(16);
    assert_eq!(cluster.node(B).fill(16), artifact);
    let peer = cluster.node(C);
    peer.fetcher()
        .fetch(artifact, &[A, B, C], soon())
        .await
        .unwrap();
    assert!(peer.store().source(artifact).is_ok());
    // A question who has it, to one of them what it is, and sixteen chunks.
    let (from_a, from_b) = (peer.asked(A), peer.asked(B));
    assert_eq!(from_a + from_b, 2 + 1 + 16);
    assert!(
        from_a.min(from_b) >= 6,
        "{from_a} from one, {from_b} from the other"
    );
    // 64 MiB went through, never more than four chunks of it at a time.
    assert_eq!(peer.peak(), 4);
    // What is here needs nobody.
    peer.fetcher().fetch(artifact, &[], soon()).await.unwrap();
    assert_eq!(peer.asked(A) + peer.asked(B), from_a + from_b);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_dies_midway_is_replaced() {
    let cluster = Cluster::new(&[A, B, C]);
    let artifact = cluster.node(A).fill(8);
    cluster.node(B).fill(8);
    let peer = cluster.node(C);
    peer.crash_after(A, 4);
    peer.fetcher()
        .fetch(artifact, &[A, B], soon())
        .await
        .unwrap();
    assert!(peer.store().source(artifact).is_ok());
    assert!(peer.asked(A) >= 4, "it was asked before it died");
    assert!(peer.asked(B) > 4, "the other one gave what it owed");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_lies_is_found_out_and_replaced() {
    let cluster = Cluster::new(&[A, C]);
    let artifact = cluster.node(A).fill(4);
    let liar = lie(&cluster, B, cluster.node(A).store());
    let peer = cluster.node(C);
    peer.fetcher()
        .fetch(artifact, &[A, B], soon())
        .await
        .unwrap();
    assert!(peer.store().source(artifact).is_ok());
    assert!(liar.told() >= 1, "no lie was told");

    let alone = Cluster::new(&[C]);
    lie(&alone, B, cluster.node(A).store());
    let refused = alone.node(C).fetcher().fetch(artifact, &[B], soon()).await;
    match refused {
        Err(FetchError::Nowhere { reason, .. }) => assert!(reason.contains("a chunk"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_where_it_stopped() {
    let cluster = Cluster::new(&[A, C]);
    let artifact = cluster.node(A).fill(12);
    let file = cluster.node(A).file(artifact);
    let peer = cluster.node(C);
    peer.crash_after(A, 9);
    let broken = peer.fetcher().fetch(artifact, &[A], soon()).await;
    assert!(
        matches!(broken, Err(FetchError::Nowhere { .. })),
        "{broken:?}"
    );

    let left = peer.store().wanted(&file).unwrap().len();
    assert!((3..12).contains(&left), "{left} of 12 chunks are left");
    cluster.restart(A, None);
    let peer = cluster.restart(C, None);
    peer.fetcher().fetch(artifact, &[A], soon()).await.unwrap();
    assert_eq!(peer.asked(A), 2 + left, "only what was missing is fetched");
    assert!(peer.store().source(artifact).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_loss_of_power_costs_only_what_was_not_synced() {
    let cluster = Cluster::new(&[A, C]);
    let artifact = cluster.node(A).fill(12);
    let file = cluster.node(A).file(artifact);
    let peer = cluster.node(C);
    peer.crash_after(A, 11);
    assert!(peer.fetcher().fetch(artifact, &[A], soon()).await.is_err());
    cluster.restart(A, None);
    let peer = cluster.restart(C, Some(7));
    let left = peer.store().wanted(&file).unwrap().len();
    assert!((1..=8).contains(&left), "{left} of 12 chunks are left");
    peer.fetcher().fetch(artifact, &[A], soon()).await.unwrap();
    assert_eq!(peer.asked(A), 2 + left);
    assert!(peer.store().source(artifact).is_ok());
}

#[tokio::test(start_paused = true)]
async fn damage_on_disk_is_fetched_again() {
    let cluster = Cluster::new(&[A, C]);
    let artifact = cluster.node(A).fill(2);
    let file = cluster.node(A).file(artifact);
    let peer = cluster.node(C);
    assert_eq!(peer.fill(2), artifact);
    peer.disk()
        .flip_bit(&file.sha256.to_string(), ARTIFACT_CHUNK_BYTES + 5, 3);
    peer.fetcher().fetch(artifact, &[A], soon()).await.unwrap();
    assert_eq!(
        peer.asked(A),
        1 + 2,
        "both chunks of the damaged file, and no manifest"
    );
    assert!(peer.store().source(artifact).is_ok());
}

#[tokio::test(start_paused = true)]
async fn one_fetch_an_artifact_at_a_time() {
    let cluster = Cluster::new(&[A, C]);
    let artifact = cluster.node(A).fill(3);
    let peer = cluster.node(C);
    let (one, two) = (peer.fetcher(), peer.fetcher());
    let (one, two) = tokio::join!(
        one.fetch(artifact, &[A], soon()),
        two.fetch(artifact, &[A], soon())
    );
    assert_eq!((one, two), (Ok(()), Ok(())));
    assert_eq!(peer.asked(A), 2 + 3);
    let nobody = peer.fetcher().fetch(Digest([9; 32]), &[A], soon()).await;
    assert!(
        matches!(nobody, Err(FetchError::Nowhere { .. })),
        "{nobody:?}"
    );
    let late = peer
        .fetcher()
        .fetch(Digest([9; 32]), &[A], Instant::now())
        .await;
    assert!(matches!(late, Err(FetchError::Late { .. })), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn a_copy_counts_once_it_survives_a_loss_of_power() {
    for seed in 0..8 {
        let cluster = Cluster::new(&[A, B]);
        let artifact = cluster.node(A).fill(1);
        let replicate = Replicate::new(cluster.node(A).transport());
        assert_eq!(replicate.copies(artifact, &[A, B], 2, soon()).await, 2);
        let kept = cluster.restart(B, Some(seed));
        assert!(kept.store().source(artifact).is_ok(), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_keeper_that_cannot_sync_does_not_count_and_is_replaced() {
    // File, name of the partial file, rename, manifest: whichever fails, it is no copy.
    for sync in 1..=4 {
        for (asked, counted) in [(&[B][..], 1), (&[B, C], 2)] {
            let cluster = Cluster::new(&[A, B, C]);
            let artifact = cluster.node(A).fill(1);
            let replicate = Replicate::new(cluster.node(A).transport());
            cluster.node(B).disk().fail_sync(sync);
            let copies = replicate.copies(artifact, asked, 2, soon()).await;
            assert_eq!(copies, counted, "sync {sync}, {asked:?}");
            let replaced = cluster.node(C).store().source(artifact).is_ok();
            assert_eq!(replaced, counted == 2, "sync {sync}, {asked:?}");
        }
    }
    let alone = Cluster::new(&[A]);
    let artifact = alone.node(A).fill(1);
    let replicate = Replicate::new(alone.node(A).transport());
    assert_eq!(replicate.copies(artifact, &[A], 1, soon()).await, 1);
}

#[tokio::test(start_paused = true)]
async fn hostile_questions_are_refused() {
    let cluster = Cluster::new(&[A, C]);
    let artifact = cluster.node(A).fill(1);
    let file = cluster.node(A).file(artifact).sha256;
    let peer = cluster.node(C);
    let many = vec![artifact; HAS_MAX + 1];
    let too_many = question(peer, Request::Has { artifacts: many }).await;
    assert!(
        matches!(too_many, Some(Answer::Failed { .. })),
        "{too_many:?}"
    );
    for (file, index) in [(file, u32::MAX), (artifact, 0)] {
        let answer = question(peer, Request::Chunk { file, index }).await;
        assert_eq!(answer, Some(Answer::Missing));
    }
    let mut stream = peer.transport().open(A, Plane::Blob, LIMIT).await.unwrap();
    stream.send.write_all(&[0xff; 64]).await.unwrap();
    assert!(stream.receive.read_u8().await.is_err(), "closed unanswered");

    let mut idle = Vec::new();
    for _ in 0..32 {
        let mut stream = peer.transport().open(A, Plane::Blob, LIMIT).await.unwrap();
        stream.send.write_all(&[1]).await.unwrap();
        idle.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    let has = || Request::Has {
        artifacts: vec![artifact],
    };
    assert_eq!(question(peer, has()).await, None, "no place is left");
    // Those who ask nothing are thrown out.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let held = vec![true];
    assert_eq!(question(peer, has()).await, Some(Answer::Has { held }));
}

async fn question(peer: &Peer, request: Request) -> Option<Answer> {
    let mut stream = peer.transport().open(A, Plane::Blob, LIMIT).await.unwrap();
    // The other side may have closed already.
    let _ = DIALECT.send(&mut *stream.send, &request).await;
    DIALECT.receive(&mut *stream.receive).await.ok()
}

const LIMIT: Duration = Duration::from_secs(1);
