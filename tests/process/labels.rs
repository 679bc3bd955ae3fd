//! What versions are called, while two of them have replicas on each node and after one has lost
//! them. A chapter of the cluster in `leaving.rs`.

use paceline_client::{Label, Tensor};
use serde_json::json;

use crate::cluster::Cluster;
use crate::http::Request;
use crate::leaving::{INPUT, sdk};
use crate::tensors::version_of;

const MODEL: &str = "/v2/paceline/models/m";

/// Version 1 serves, and version 2 is tried.
pub(crate) fn of_two_versions(cluster: &Cluster) {
    let node = cluster.node(0);
    for (target, label) in [("m@1", "stable"), ("m", "next")] {
        let set = node.cli(&["model", "label", target, label]);
        assert!(set.stdout.contains("3 of 3"), "{set:?}");
    }
    let shown = node.cli_json(&["model", "show", "m"]);
    assert_eq!(shown["labels"], json!({"next": 2, "stable": 1}));
    expect(cluster, [("stable", 1), ("next", 2), ("2", 2)]);
    let over_the_sdk = |label: &str| {
        let input = Tensor::from_f32(1, &[1.0]);
        let label = Label::new(label).expect("it is a label");
        let request = sdk(cluster)
            .infer("m")
            .input("INPUT0", input)
            .version(label);
        request.send().map(|answer| answer.version.0)
    };
    assert_eq!(over_the_sdk("next").expect("it has replicas"), 2);
    let refused = over_the_sdk("last").expect_err("there is none").to_string();
    assert!(refused.contains("its labels: next, stable"), "{refused}");

    // It moves for who has seen the model as it is, and for nobody else.
    let revision = shown["revision"].to_string();
    let seen = ["model", "label", "m@2", "stable", "--expected-revision"];
    let moved = cluster.node(1).cli(&[&seen[..], &[&revision]].concat());
    assert!(moved.status.success(), "{moved:?}");
    expect(cluster, [("stable", 2), ("next", 2), ("1", 1)]);
    let folder = crate::node::example("identity");
    let folder = folder.to_str().expect("it is text");
    for words in [&seen[..4], &["model", "push", "m", folder]] {
        let stale = [words, &["--expected-revision", &revision]].concat();
        let refused = cluster.node(1).cli(&stale);
        assert_eq!(refused.status.code(), Some(3), "{refused:?}");
        assert!(refused.stderr.contains("it has changed"), "{refused:?}");
    }
    let gone = node.cli(&["model", "label", "m", "stable", "--delete"]);
    assert!(gone.status.success(), "{gone:?}");
}

/// The canary was aborted: what it was called leads nowhere, and that is said.
pub(crate) fn of_what_has_no_replica(cluster: &Cluster) {
    let node = cluster.node(0);
    let only = |model: &serde_json::Value| {
        let replicas = model["replicas"].as_array().expect("it has some");
        replicas.iter().all(|replica| replica["version"] == 1)
    };
    let model = node.wait_for(MODEL, only);
    node.get(&format!("/v2/paceline/applied/{}", model["epoch"]))
        .ok();
    let answer = node.ask(&Request::post("/v2/models/m/versions/next/infer", INPUT));
    assert_eq!(answer.status, 503, "{}", answer.text());
    let said = answer.text();
    assert!(said.contains("version 2, which is its 'next'"), "{said}");
}

/// The version that a request gets on each node, by what it names.
fn expect<const N: usize>(cluster: &Cluster, versions: [(&str, u32); N]) {
    for number in 0..3 {
        for (named, version) in versions {
            let path = format!("/v2/models/m/versions/{named}/infer");
            let answer = cluster.node(number).ask(&Request::post(path, INPUT));
            assert_eq!(answer.status, 200, "{named}: {}", answer.text());
            assert_eq!(version_of(&answer), version, "{named}");
            let path = format!("/v1/models/m/labels/{named}:predict");
            let rows = r#"{"instances":[[1]]}"#;
            let answer = cluster.node(number).ask(&Request::post(path, rows));
            assert_eq!(answer.status, 200, "{named}: {}", answer.text());
            let answered_by = answer.header("paceline-version");
            assert_eq!(answered_by, Some(&*version.to_string()), "{named}");
        }
    }
}
