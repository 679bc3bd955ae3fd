//! A version's way through the binary, and what a killed node still knows.

use std::time::Duration;

use crate::node::{Node, directory, example, paceline, serve};
use crate::tensors::version_of;

const ROW: &str =
    r#"{"inputs":[{"name":"INPUT0","shape":[1,2],"datatype":"FP32","data":[1.5,-2]}]}"#;
const INFER: &str = "/v2/models/mine/infer";

#[test]
fn what_was_pushed_and_deployed_survives_a_kill() {
    let data = directory();
    let node = Node::demo(data.path());
    let folder = example("identity");
    let folder = folder.to_str().expect("the path is text");
    let first = node.cli_json(&["model", "push", "mine", folder]);
    let again = node.cli_json(&["model", "push", "mine", folder]);
    assert_eq!(
        first["version"], again["version"],
        "the same artifact is the same version"
    );
    let deployed = node.cli(&["model", "deploy", "mine"]);
    assert!(deployed.status.success(), "{deployed:?}");
    let models = |node: &Node| node.get("/v2/paceline/models").ok();
    let (before, answer) = (models(&node), node.post(INFER, ROW));
    assert_eq!((answer.status, version_of(&answer)), (200, 1));
    node.kill9();
    let node = Node::start(data.path(), &[]);
    node.wait_for("/v2/paceline/models/mine", |model| model["ready"] == true);
    let after = models(&node);
    for (before, after) in before
        .as_array()
        .into_iter()
        .flatten()
        .zip(after.as_array().into_iter().flatten())
    {
        for key in ["name", "owner", "serving", "deployed", "versions"] {
            assert_eq!(before[key], after[key], "{key}");
        }
    }
    assert_eq!(node.post(INFER, ROW).text(), answer.text(), "byte for byte");
    let deleted = node.cli(&["model", "delete", "mine", "--yes"]);
    assert!(deleted.status.success(), "{deleted:?}");
    assert_eq!(node.post(INFER, ROW).failure().0, "MODEL_NOT_FOUND");
}

#[test]
fn a_signal_stops_a_node_cleanly_and_frees_its_directory() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    let second = paceline(&serve(data.path(), &[]));
    let (code, reason) = second.failed();
    assert!(code == 1 && reason.contains("in use"), "{reason}");
    node.signal("TERM");
    let finished = node.finish(Duration::from_secs(10));
    assert!(finished.status.success(), "{finished:?}");
    Node::start(data.path(), &[]).kill9();
}

#[test]
fn a_bad_configuration_stops_before_anything_is_served() {
    let data = directory();
    let unknown = paceline(&serve(data.path(), &["--set", "http.lisen=1"]));
    let (code, reason) = unknown.failed();
    assert!(
        code == 1 && reason.contains("lisen") && reason.contains("listen"),
        "{reason}"
    );
    assert!(!data.path().join("addresses.json").exists());
}
