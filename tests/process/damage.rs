//! Disks that changed their content while nobody looked: found, named, and never served.

use std::fs;
use std::path::{Path, PathBuf};

use crate::http::Request;
use crate::node::{Node, directory, example, paceline, serve};
use crate::tensors::{HeldOut, digits};

/// The file below `directory` whose name ends so.
fn file(directory: &Path, ending: &str) -> PathBuf {
    let entries = fs::read_dir(directory).expect("the directory is there");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    let mut found: Vec<PathBuf> = paths
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    found.sort();
    found
        .pop()
        .unwrap_or_else(|| panic!("no {ending} in {directory:?}"))
}

fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).expect("the file is there");
    bytes[offset] ^= 0x20;
    fs::write(path, bytes).expect("the file is writable");
}

/// The stored file with the same content as an example's.
fn stored(data: &Path, model: &str, name: &str) -> PathBuf {
    let wanted = fs::read(example(model).join(name)).expect("the example is there");
    let entries = fs::read_dir(data.join("blobs")).expect("there are blobs");
    let mut paths = entries.map(|entry| entry.expect("it can be read").path());
    let same = |path: &PathBuf| fs::read(path).is_ok_and(|bytes| bytes == wanted);
    paths.find(same).expect("the file was stored")
}

#[test]
fn a_model_whose_file_is_damaged_is_named_and_mended_by_a_new_push() {
    let data = directory();
    let node = Node::demo(data.path());
    node.kill9();
    flip(&stored(data.path(), "digits", "model.safetensors"), 5_000);
    let missing = stored(data.path(), "machine-failure", "model.safetensors");
    fs::remove_file(missing).expect("it was there");
    let node = Node::start(data.path(), &[]);
    for (model, word) in [("digits", "damaged"), ("machine-failure", "not")] {
        let path = format!("/v2/paceline/models/{model}");
        let shown = node.wait_for(&path, |model| model["replicas"][0]["state"] == "failed");
        let reason = shown["replicas"][0]["reason"].as_str().expect("a reason");
        assert!(reason.contains(word), "{reason}");
    }
    let row = digits(&HeldOut::of("digits").values[..1]).request();
    assert_eq!(node.ask(&row).failure().0, "MODEL_NOT_READY");
    let identity = r#"{"inputs":[{"name":"INPUT0","shape":[1,1],"datatype":"FP32","data":[4]}]}"#;
    node.wait_for("/v2/models/identity/ready", |_| true);
    let answer = node.ask(&Request::post("/v2/models/identity/infer", identity));
    assert_eq!(answer.status, 200, "the others serve: {answer:?}");
    let folder = example("digits");
    let folder = folder.to_str().expect("the path is text");
    let pushed = node.cli(&["model", "push", "digits", folder, "--deploy"]);
    assert!(pushed.status.success(), "{pushed:?}");
    assert_eq!(node.ask(&row).status, 200);
}

#[test]
fn a_log_that_is_damaged_within_refuses_to_start_and_a_torn_tail_is_cut() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    let folder = example("identity");
    let folder = folder.to_str().expect("the path is text");
    node.cli_json(&["model", "push", "mine", folder]);
    node.kill9();
    let segment = file(&data.path().join("raft"), ".log");
    let whole = fs::read(&segment).expect("the segment is there");
    let written = whole.iter().rposition(|byte| *byte != 0).expect("entries");
    let mut torn = whole.clone();
    let tail = (written + 8).next_multiple_of(8);
    torn[tail..tail + 40].fill(0xa5);
    fs::write(&segment, &torn).expect("the segment is writable");
    let node = Node::start(data.path(), &[]);
    let model = node.get("/v2/paceline/models/mine").ok();
    assert_eq!(
        model["versions"][0]["version"], 1,
        "nothing is lost: {model}"
    );
    node.kill9();
    fs::write(&segment, &whole).expect("the segment is writable");
    flip(&segment, 200);
    let refused = paceline(&serve(data.path(), &[]));
    let (code, reason) = refused.failed();
    let named = segment.file_name().and_then(|name| name.to_str());
    assert_eq!(code, 1);
    for word in [named.expect("a name"), "offset"] {
        assert!(reason.contains(word), "{word:?} is missing: {reason}");
    }
    let after = fs::read(&segment).expect("the segment is there");
    assert_eq!(after.len(), whole.len(), "a refused start changes nothing");
}
