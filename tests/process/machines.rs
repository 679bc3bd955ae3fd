//! Nodes on different machines: what each is told, and that a directory suffices afterwards.
//!
//! Linux has all of 127.0.0.0/8 on its loopback device, so that two addresses of it stand for
//! two machines. The doors for this machine only stay at 127.0.0.1.

use std::time::Duration;

use serde_json::Value;

use crate::node::{Node, directory, paceline, until};

#[cfg(target_os = "linux")]
#[test]
fn nodes_of_two_machines_meet_and_start_again_without_being_told_anything() {
    let home = directory();
    let (here, there) = (home.path().join("here"), home.path().join("there"));
    // Everywhere, as in a container; the other node listens at its own address alone.
    let everywhere = [
        "--set",
        "sdk.listen=0.0.0.0:0",
        "--set",
        "peer.listen=0.0.0.0:0",
    ];
    let given = ["--advertise", "127.0.0.2", "--name", "a", "--zone", "left"];
    let first = Node::start(&here, &[&given[..], &everywhere].concat());
    let token = first.cli_json(&["token", "create"]);
    let token = token["token"].as_str().expect("a token");
    let seed = told(&first, "a", "sdk");
    assert!(seed.starts_with("127.0.0.2:"), "{seed}");
    let given = [
        "--token",
        token,
        "--advertise",
        "127.0.0.3",
        "--zone",
        "right",
    ];
    let second = Node::join(&there, &seed, &given);
    // It left its name open, and the first node has another.
    for door in ["sdk", "peer"] {
        let at = told(&first, "n0", door);
        assert!(at.starts_with("127.0.0.3:"), "{door} at {at}");
        assert!(told(&second, "a", door).starts_with("127.0.0.2:"));
    }
    assert!(told(&first, "a", "http").starts_with("127.0.0.1:"));
    // Both vote only when there is a third; what one writes the other knows.
    let voters = |node: &Node| node.get("/v2/paceline/status").json()["raft"]["voters"].clone();
    assert_eq!(voters(&second), voters(&first));
    second.kill9();
    let second = Node::again(&there, &["--zone", "attic"]);
    until(Duration::from_secs(30), "another zone takes over", || {
        node_view(&first, "n0").is_some_and(|node| node["zone"] == "attic")
    });
    assert!(told(&first, "n0", "peer").starts_with("127.0.0.3:"));
    drop(second);
    first.kill9();
    let first = Node::again(&here, &[]);
    assert!(told(&first, "a", "peer").starts_with("127.0.0.2:"));
    assert_eq!(node_view(&first, "a").expect("it is there")["zone"], "left");
}

#[test]
fn an_address_that_nobody_else_reaches_is_told_to_nobody() {
    let home = directory();
    let fresh = home.path().join("fresh");
    let refused = |arguments: &[&str], words: &[&str]| {
        let data = fresh.to_str().expect("the path is text");
        let serve = ["serve", "--http-port", "0", "--data-dir", data];
        let finished = paceline(&[&serve[..], arguments].concat());
        let (code, reason) = finished.failed();
        assert_eq!(code, 1, "{reason}");
        for word in words {
            assert!(reason.contains(word), "{word:?} is missing: {reason}");
        }
    };
    let everywhere = ["--set", "peer.listen=0.0.0.0:0"];
    refused(&everywhere, &["peer.listen", "0.0.0.0:0", "--advertise"]);
    let http = ["--insecure", "--set", "http.listen=0.0.0.0:0"];
    refused(&http, &["http.listen", "0.0.0.0:0", "--advertise"]);
    let nowhere = ["--advertise", "0.0.0.0"];
    refused(&nowhere, &["node.advertise", "0.0.0.0", "10.0.0.5"]);
    // An address that is reserved for documentation, and so nobody's.
    let foreign = ["--advertise", "203.0.113.77"];
    refused(
        &foreign,
        &["sdk.listen", "203.0.113.77", "sdk.listen=0.0.0.0:"],
    );
    assert!(!fresh.join("node.toml").exists(), "nothing was founded");
}

/// Where the cluster says that a door of a node is.
fn told(node: &Node, name: &str, door: &str) -> String {
    let known = || node_view(node, name).filter(|node| node["addresses"][door].is_string());
    until(Duration::from_secs(30), "the node is known", || {
        known().is_some()
    });
    let known = known().expect("it was there");
    known["addresses"][door].as_str().expect("text").to_owned()
}

fn node_view(node: &Node, name: &str) -> Option<Value> {
    let nodes = node.cli_json(&["nodes"]);
    let nodes = nodes.as_array().expect("an array");
    nodes.iter().find(|node| node["name"] == name).cloned()
}
