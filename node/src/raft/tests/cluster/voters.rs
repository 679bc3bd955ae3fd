//! Who has a vote and who leads: grown, moved, given to another one.

use super::*;

#[tokio::test(start_paused = true)]
async fn one_node_grows_to_three_and_each_takes_writes() {
    let cluster = Cluster::of_three(1).await;
    let mut last = Epoch(0);
    for number in 0..30 {
        let handle = cluster.handle(1 + number % 3);
        let outcome = write(&handle, 100 + number).await.unwrap();
        assert!(outcome.result.is_ok() && outcome.epoch > last, "{outcome}");
        assert!(handle.state().epoch() >= outcome.epoch, "read your writes");
        last = outcome.epoch;
    }
    cluster.converged(last).await;
    let states: Vec<_> = (1..=3).map(|id| cluster.handle(id).state()).collect();
    assert!(states[0] == states[1] && states[1] == states[2]);
    // A repeat through another node gets the first answer.
    let first = write(&cluster.handle(2), 777).await.unwrap();
    assert_eq!(write(&cluster.handle(3), 777).await.unwrap(), first);
}

#[tokio::test(start_paused = true)]
async fn an_even_number_of_voters_is_refused_and_changes_do_not_overlap() {
    let cluster = Cluster::of_three(2).await;
    let leader = cluster.handle(cluster.leader(&[]).await.0);
    let two = BTreeSet::from([NodeId(1), NodeId(2)]);
    let refused = leader.change_voters(two, soon()).await;
    assert!(matches!(refused, Err(MembershipError::Refused { .. })));
    let follower = (1..=3).find(|id| NodeId(*id) != leader.node()).unwrap();
    let not_leader = cluster
        .handle(follower)
        .add_learner(NodeId(4), soon())
        .await;
    assert_eq!(not_leader, Err(MembershipError::NotLeader));
    let (first, second) = tokio::join!(
        leader.add_learner(NodeId(4), soon()),
        leader.add_learner(NodeId(5), soon())
    );
    assert_eq!((first, second), (Ok(()), Err(MembershipError::UnderWay)));
    let voter = leader.remove_member(NodeId(follower), soon()).await;
    assert!(matches!(voter, Err(MembershipError::Refused { .. })));
    leader.remove_member(NodeId(4), soon()).await.unwrap();
    assert!(leader.metrics().learners.is_empty());
}

#[tokio::test(start_paused = true)]
async fn leadership_moves_when_it_is_asked_to() {
    let cluster = Cluster::of_three(4).await;
    for _ in 0..6 {
        let leader = cluster.leader(&[]).await;
        let to = NodeId(leader.0 % 3 + 1);
        let asked_at = Instant::now();
        let moved = cluster.handle(leader.0).transfer_leader(to, soon()).await;
        moved.unwrap();
        assert!(
            asked_at.elapsed() < Duration::from_secs(1),
            "no election ran out"
        );
        assert_eq!(cluster.leader(&[]).await, to);
        write(&cluster.handle(leader.0), to.0).await.unwrap();
    }
    // From elsewhere: asked of the node that leads, and of one that does not.
    let leader = cluster.leader(&[]).await;
    let [one, other] = [1, 2].map(|next| NodeId((leader.0 - 1 + next) % 3 + 1));
    for from in [leader, leader] {
        let moved = cluster.handle(other.0);
        let moved = moved.move_leadership((from, one), soon()).await;
        moved.unwrap();
        assert_eq!(cluster.leader(&[]).await, one);
    }
    let leader = cluster.handle(cluster.leader(&[]).await.0);
    let to_nobody = leader.transfer_leader(NodeId(7), soon()).await;
    assert!(matches!(to_nobody, Err(MembershipError::Refused { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_learner_has_the_vote_of_who_is_removed_before_that() {
    let mut cluster = Cluster::of_three(6).await;
    let leader = cluster.handle(cluster.leader(&[]).await.0);
    cluster.start(NodeId(4)).await;
    leader.add_learner(NodeId(4), soon()).await.unwrap();
    for id in 1..=4 {
        let mut register = command(id);
        if let Change::RegisterNode(record) = &mut register.change {
            record.id = NodeId(id);
        }
        leader.write(register, soon()).await.unwrap();
    }
    while leader.metrics().matched.get(&NodeId(4)) != Some(&leader.metrics().last_log) {
        sleep(Duration::from_millis(5)).await;
    }
    let leaver = NodeId(leader.node().0 % 3 + 1);
    let asked = cluster.handle(NodeId(leaver.0 % 3 + 1).0);
    let voters = |without: NodeId| (1..=4).map(NodeId).filter(move |node| *node != without);
    // Asked of a node that follows, or leads; a repeat finds it done.
    for handle in [&asked, &leader] {
        handle.relieve(leaver, soon()).await.unwrap();
        assert!(leader.metrics().voters.into_iter().eq(voters(leaver)));
    }
    let mut next = leader.metrics().voters.into_iter();
    let next = next.rfind(|voter| *voter != leader.node()).unwrap();
    asked.relieve(next, soon()).await.unwrap();
    let left = leader.metrics().voters;
    assert!(
        left.into_iter().eq(voters(next)),
        "the other one votes again"
    );
}
