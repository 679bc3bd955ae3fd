//! A canary as people run it: begun, looked at and ended from the command line, on three real nodes.
//! A chapter of the cluster in `leaving.rs`.

use paceline_protocol::traffic::{bucket, is_in};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::http::{Connection, Request};
use crate::leaving::INPUT;
use crate::node::Finished;
use crate::tensors::version_of;

/// Users that ask, each of every node.
const USERS: u32 = 400;
const WEIGHT: u16 = 2_000;

/// Versions 1 and 2 of model `m` are known, and version 1 serves on each node.
pub(crate) fn from_first_share_to_rollback(cluster: &Cluster) {
    let begun = done(
        cluster,
        &["deploy", "m@2", "--canary", "20%", "--hold", "1h"],
    );
    assert!(begun.stdout.contains("20% of the requests"), "{begun:?}");
    for number in 0..3 {
        let node = cluster.node(number);
        let model = node.wait_for(MODEL, |model| model["canary"]["stage"] == 0);
        // It waits until requests are routed by that.
        node.get(&format!("/v2/paceline/applied/{}", model["epoch"]))
            .ok();
    }
    let since = cluster.node(0).get(MODEL).ok()["canary"]["since"].clone();
    let salt = format!("m@{since}");
    let wanted = |user: u32| {
        let is_tried = is_in(bucket(&salt, unit(user).as_bytes()), WEIGHT);
        1 + u32::from(is_tried)
    };
    // Every node gives every user the same version, and that is the one of the user's bucket.
    let answered = ask_all(cluster);
    for (user, versions) in &answered {
        assert_eq!(*versions, [wanted(*user); 3], "user {user}");
    }
    let tried = answered
        .iter()
        .filter(|(_, versions)| versions[0] == 2)
        .count();
    // 20 % of 400 are 80, with a standard deviation of 8.
    assert!((40..=120).contains(&tried), "{tried} of {USERS} try it");
    // Every node tells what all have counted.
    for number in 0..3 {
        let is_counted = |model: &Value| {
            let requests = |arm: &str| model["canary"][arm]["requests"].as_u64();
            let all = (requests("canary"), requests("stable"));
            all == (
                Some(3 * tried as u64),
                Some(3 * (u64::from(USERS) - tried as u64)),
            )
        };
        cluster.node(number).wait_for(MODEL, is_counted);
    }
    crate::labels::of_two_versions(cluster);
    let shown = done(cluster, &["show", "m"]).stdout;
    for words in ["version 2, 20% of the requests, stage 1 of 1", "0 failed"] {
        assert!(shown.contains(words), "{words:?} is not in\n{shown}");
    }

    // Nothing else is deployed now, and the refusal says what to do.
    for words in [["deploy", "m@2"], ["rollback", "m"]] {
        let refused = cluster.node(1).cli(&[&["model"][..], &words[..]].concat());
        assert!(!refused.status.success(), "{refused:?}");
    }
    let refused = cluster.node(1).cli(&["model", "rollback", "m"]);
    assert!(
        refused.stderr.contains("`paceline model abort m`"),
        "{refused:?}"
    );
    done(cluster, &["abort", "m", "--reason", "answers look wrong"]);
    for (user, versions) in ask_all(cluster) {
        assert_eq!(versions, [1; 3], "user {user}");
    }
    let shown = done(cluster, &["show", "m"]).stdout;
    assert!(shown.contains("version 2, aborted at"), "{shown}");
    assert!(shown.contains("answers look wrong"), "{shown}");

    crate::labels::of_what_has_no_replica(cluster);

    // Version 2 had served before.
    done(cluster, &["rollback", "m"]);
    for number in 0..3 {
        cluster
            .node(number)
            .wait_for(MODEL, |model| model["serving"] == 2);
    }
}

fn done(cluster: &Cluster, words: &[&str]) -> Finished {
    let finished = cluster.node(0).cli(&[&["model"], words].concat());
    assert!(finished.status.success(), "{finished:?}");
    finished
}

/// The version that each node gives each user.
fn ask_all(cluster: &Cluster) -> Vec<(u32, [u32; 3])> {
    let mut connections = [0, 1, 2].map(|number| Connection::open(cluster.node(number).http));
    let users = (0..USERS).map(|user| {
        let request = Request::post("/v2/models/m/infer", INPUT);
        let request = request.header("paceline-unit", unit(user));
        let versions = connections.each_mut().map(|connection| {
            let answer = connection.ask(&request);
            assert_eq!(answer.status, 200, "{}", answer.text());
            version_of(&answer)
        });
        (user, versions)
    });
    users.collect()
}

fn unit(user: u32) -> String {
    format!("user-{user}")
}

const MODEL: &str = "/v2/paceline/models/m";
