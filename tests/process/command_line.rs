//! The command line: help, exit codes, what goes where, and what a start refuses.

use std::path::Path;

use serde_json::Value;

use crate::node::{Finished, Node, directory, example, paceline, serve};

/// Every command that people type, without the binary's name.
const COMMANDS: [&str; 35] = [
    "up",
    "join",
    "token create",
    "token list",
    "token revoke",
    "tenant list",
    "tenant set",
    "tenant delete",
    "tenant key add",
    "tenant key revoke",
    "drain",
    "undrain",
    "remove",
    "bench",
    "serve",
    "config check",
    "config print",
    "status",
    "nodes",
    "model push",
    "model list",
    "model show",
    "model deploy",
    "model promote",
    "model abort",
    "model rollback",
    "model undeploy",
    "model label",
    "model delete",
    "shadow",
    "infer",
    "explain",
    "sim run",
    "version",
    "sim",
];

fn words(command: &str) -> Vec<&str> {
    command.split(' ').collect()
}

#[test]
fn every_command_explains_itself_with_examples() {
    for command in COMMANDS {
        let mut arguments = words(command);
        arguments.push("--help");
        let help = paceline(&arguments);
        assert!(help.status.success(), "{command}: {help:?}");
        assert!(help.stderr.is_empty(), "help is data: {help:?}");
        if command != "sim" {
            let example = format!("paceline {}", command);
            let examples = help.stdout.split("Examples:").nth(1).unwrap_or_default();
            assert!(examples.contains(&example), "{command}: {}", help.stdout);
        }
    }
}

#[test]
fn exit_codes_say_what_kind_of_end_it_was() {
    let node = Node::shared();
    let code = |finished: &Finished| finished.status.code();
    assert_eq!(code(&node.cli(&["status"])), Some(0));
    let unknown = node.cli(&["model", "show", "nope"]);
    assert_eq!(code(&unknown), Some(1), "{unknown:?}");
    assert!(unknown.stderr.contains("'nope'") && unknown.stdout.is_empty());
    for usage in [&["model", "show", "Not-A-Name"][..], &["status", "--wrong"]] {
        let finished = node.cli(usage);
        assert_eq!(code(&finished), Some(2), "{finished:?}");
    }
    let nobody = paceline(&["status", "--addr", "127.0.0.1:1", "--timeout", "1s"]);
    assert_eq!(code(&nobody), Some(1), "{nobody:?}");
    assert!(nobody.stderr.contains("127.0.0.1:1") && nobody.stderr.contains("--addr"));
}

#[test]
fn json_is_all_that_stdout_holds() {
    let node = Node::shared();
    let row = "1,0,0,302.3,311.5,1282,60.7,216";
    let commands: [&[&str]; 6] = [
        &["status"],
        &["nodes"],
        &["model", "list"],
        &["model", "show", "digits"],
        &["infer", "machine-failure", "--row", row],
        &["explain", "MODEL_NOT_FOUND"],
    ];
    for command in commands {
        let mut arguments = command.to_vec();
        arguments.extend(["-o", "json"]);
        // `explain` asks nobody, so it has no address.
        let finished = match command[0] {
            "explain" => paceline(&arguments),
            _ => node.cli(&arguments),
        };
        assert!(finished.status.success(), "{command:?}: {finished:?}");
        let parsed: Result<Value, _> = serde_json::from_str(&finished.stdout);
        assert!(parsed.is_ok(), "{command:?}: {finished:?}");
    }
    let nodes = node.cli_json(&["nodes"]);
    let first = &nodes[0];
    for key in ["id", "name", "state", "role", "zone", "pid", "epoch"] {
        assert!(!first[key].is_null(), "{key} is missing: {first}");
    }
    assert_eq!(first["addresses"]["http"], node.http.to_string());
}

#[test]
fn what_is_in_the_way_of_a_start_is_named() {
    let home = directory();
    let node = Node::shared();
    let taken = node.http.port().to_string();
    let fresh = home.path().join("fresh");
    let fresh_text = fresh.to_str().expect("the path is text");
    let port = ["serve", "--data-dir", fresh_text, "--http-port", &taken];
    assert_refused(&paceline(&port), &["http.listen", &taken, "another port"]);
    let busy = paceline(&serve(&node.data, &[]));
    assert_refused(&busy, &["in use by another node"]);
    let foreign = home.path().join("foreign");
    std::fs::create_dir(&foreign).expect("the directory is writable");
    std::fs::write(foreign.join("holiday.jpg"), "x").expect("the directory is writable");
    let refused = paceline(&serve(&foreign, &[]));
    assert_refused(&refused, &["holiday.jpg", "neither empty nor a node's"]);
    let exposed = paceline(&serve(&fresh, &["--set", "http.listen=0.0.0.0:0"]));
    assert_refused(&exposed, &["http.listen", "0.0.0.0:0", "--insecure"]);
    let newer = home.path().join("newer");
    std::fs::create_dir(&newer).expect("the directory is writable");
    let identity = r#"{"format":999,"cluster":"00","node":1}"#;
    std::fs::write(newer.join("identity.json"), identity).expect("it is writable");
    assert_refused(&paceline(&serve(&newer, &[])), &["identity.json", "999"]);
}

#[test]
fn configuration_is_checked_by_name_and_printed_as_it_holds() {
    let home = directory();
    let path = home.path().join("node.toml");
    let file = |text: &str| std::fs::write(&path, text).expect("the directory is writable");
    let path_text = path.to_str().expect("the path is text");
    file("[http]\nlisten = \"127.0.0.1:7000\"\n\n[admission]\npermits = 10\n");
    let check = paceline(&["config", "check", "--config", path_text]);
    assert!(check.status.success(), "{check:?}");
    let print = ["config", "print", "-o", "json", "--config", path_text];
    let set = ["--set", "admission.permits=30", "--http-port", "7100"];
    let printed = paceline(&[&print[..], &set].concat());
    let printed: Value = serde_json::from_str(&printed.stdout).expect("JSON");
    assert_eq!(
        printed["admission"]["permits"], 30,
        "a flag is the strongest"
    );
    assert_eq!(printed["http"]["listen"], "127.0.0.1:7100");
    assert_eq!(printed["metrics"]["listen"], "127.0.0.1:7102");
    file("[http]\nlisten_on = 1\n");
    let unknown = paceline(&["config", "check", "--config", path_text]);
    assert_refused(&unknown, &["node.toml", "listen_on", "body_bytes_max"]);
    file("[admission]\npermits = 0\n");
    let zero = paceline(&["serve", "--config", path_text]);
    assert_refused(&zero, &["admission.permits", "0", "1 to"]);
    let absent = home.path().join("absent.toml");
    let absent = absent.to_str().expect("the path is text");
    let missing = paceline(&["config", "check", "--config", absent]);
    assert_refused(&missing, &["absent.toml", "cannot be read"]);
}

#[test]
fn what_is_not_a_model_is_refused_by_what_is_wrong_with_it() {
    let home = directory();
    let node = Node::shared();
    let folder = home.path().join("model");
    std::fs::create_dir(&folder).expect("the directory is writable");
    let push = |words: &[&str]| {
        let path = folder.to_str().expect("the path is text");
        assert_refused(&node.cli(&["model", "push", "wrong", path]), words);
    };
    push(&["has no files"]);
    let source = |name: &str| std::fs::read(example("digits").join(name)).expect("it is there");
    let put = |name: &str, bytes: &[u8]| put(&folder, name, bytes);
    let declaration = String::from_utf8(source("model.toml")).expect("it is text");
    put("model.toml", declaration.as_bytes());
    push(&["model.safetensors"]);
    put("model.safetensors", &source("model.safetensors")[..300]);
    push(&["model.safetensors", "300 bytes", "cut off"]);
    put("model.safetensors", &source("model.safetensors"));
    let family = declaration.replace("\"mlp\"", "\"magic\"");
    put("model.toml", family.as_bytes());
    push(&["magic", "mlp, identity"]);
    let width = declaration.replace("[-1, 64]", "[-1, 63]");
    put("model.toml", width.as_bytes());
    push(&["63", "64"]);
    put("model.toml", b"name = ");
    push(&["model.toml"]);
    assert_eq!(node.get("/v2/paceline/models/wrong").status, 404);
}

fn put(folder: &Path, name: &str, bytes: &[u8]) {
    std::fs::write(folder.join(name), bytes).expect("the directory is writable");
}

fn assert_refused(finished: &Finished, words: &[&str]) {
    let (code, reason) = finished.failed();
    assert_eq!(code, 1, "{reason}");
    for word in words {
        assert!(reason.contains(word), "{word:?} is missing: {reason}");
    }
    assert!(!reason.contains("panicked"), "{reason}");
}
