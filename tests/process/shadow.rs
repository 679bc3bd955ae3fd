//! A shadow as people run it, on three real nodes: it answers something else, and only the counters
//! say so. A chapter of the cluster in `leaving.rs`.

use std::time::Duration;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::http::{Connection, Request};
use crate::metrics::{samples, value};
use crate::node::{Finished, directory, example, until};
use crate::tensors::version_of;

/// Requests to each node.
const ASKED: usize = 200;
const MODEL: &str = "/v2/paceline/models/likely";

pub(crate) fn that_disagrees(cluster: &Cluster) {
    for threshold in ["0.4862", "1e-9"] {
        push(cluster, threshold);
    }
    done(cluster, &["model", "deploy", "likely@1"]);
    let refused = cluster
        .node(0)
        .cli(&["shadow", "likely@1", "--traffic", "10%"]);
    assert!(
        !refused.status.success() && refused.stderr.contains("serves already"),
        "{refused:?}"
    );
    let set = done(
        cluster,
        &[
            "shadow",
            "likely@2",
            "--traffic",
            "50%",
            "--replicas",
            "each",
        ],
    );
    assert!(set.stdout.contains("copies of 50%"), "{set:?}");
    for number in 0..3 {
        let has_all = |model: &Value| {
            let replicas = model["replicas"].as_array().into_iter().flatten();
            let ready = replicas.filter(|of| of["version"] == 2 && of["state"] == "ready");
            ready.count() == 3 && model["shadow"]["ready"] == true
        };
        let model = cluster.node(number).wait_for(MODEL, has_all);
        assert_eq!(model["shadow"]["weight"], 5_000);
    }
    asked_of_all(cluster);
    let mut sent = 0;
    for number in 0..3 {
        sent += copied(cluster, number);
    }
    assert!(sent > 0, "no copy was sent");
    let shown = done(cluster, &["model", "show", "likely"]).stdout;
    assert!(
        shown.contains("version 2, copies of 50% of the requests"),
        "{shown}"
    );
    let status = done(cluster, &["status"]).stdout;
    assert!(status.contains("1 with a shadow"), "{status}");

    done(cluster, &["shadow", "likely", "--off"]);
    cluster.node(1).wait_for(MODEL, |model| {
        let replicas = model["replicas"].as_array().into_iter().flatten();
        model["shadow"].is_null() && replicas.clone().all(|of| of["version"] == 1)
    });
    let again = cluster.node(2).cli(&["shadow", "likely", "--off"]);
    assert!(again.stderr.contains("has no shadow"), "{again:?}");
    done(cluster, &["model", "delete", "likely", "--yes"]);
}

/// Every node answers by the version that serves.
fn asked_of_all(cluster: &Cluster) {
    for number in 0..3 {
        let mut connection = Connection::open(cluster.node(number).http);
        for _ in 0..ASKED {
            let answer = connection.ask(&Request::post("/v2/models/likely/infer", INPUT));
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(version_of(&answer), 1);
            assert!(answer.text().contains("\"ok\""), "{}", answer.text());
        }
    }
}

/// Copies that a node has sent: half of the requests, and every one is answered otherwise.
fn copied(cluster: &Cluster, number: usize) -> u64 {
    let node = cluster.node(number);
    let counted = |name: &str, label: (&str, &str)| {
        let name = format!("paceline_shadow_{name}_total");
        let labels = [("model", "likely"), ("version", "2"), label];
        value(&samples(&node.scrape()), &name, &labels) as u64
    };
    let copies = |end| counted("copies", ("end", end));
    until(Duration::from_secs(20), "copies end", || {
        copies("sent") == copies("answered") + copies("failed")
    });
    // Half of 200, with a standard deviation of 7.
    let drawn = copies("sent") + copies("dropped_full");
    assert!((50..=150).contains(&drawn), "{drawn} of {ASKED}");
    assert_eq!(copies("failed"), 0);
    // Another threshold gives another label; each answer has one row.
    let different = counted("rows", ("agreement", "different"));
    assert_eq!(different, copies("answered"));
    assert_eq!(counted("rows", ("agreement", "equal")), 0);
    copies("sent")
}

/// The model that tells failures of machines, which calls a failure what is this likely.
fn push(cluster: &Cluster, threshold: &str) {
    let (folder, from) = (directory(), example("machine-failure"));
    let toml = std::fs::read_to_string(from.join("model.toml")).expect("the example is there");
    let toml = toml.replace("threshold = 0.4862", &format!("threshold = {threshold}"));
    std::fs::write(folder.path().join("model.toml"), toml).expect("the folder is writable");
    let weights = "model.safetensors";
    std::fs::copy(from.join(weights), folder.path().join(weights)).expect("so are the weights");
    let folder = folder.path().to_str().expect("temporary paths are text");
    done(cluster, &["model", "push", "likely", folder]);
}

fn done(cluster: &Cluster, words: &[&str]) -> Finished {
    let finished = cluster.node(0).cli(words);
    assert!(finished.status.success(), "{finished:?}");
    finished
}

/// A machine that is well.
const INPUT: &str = r#"{"inputs":[{"name":"features","shape":[1,8],"datatype":"FP32","data":[1,0,0,300,310,1500,40,10]}]}"#;
