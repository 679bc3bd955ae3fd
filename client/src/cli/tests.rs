//! Whole commands, from arguments to exit code, against a real HTTP server.

mod debug;
mod membership;
mod precision;

use std::cell::RefCell;
use std::fs;
use std::io::{self, BufRead, Cursor, Write};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use paceline_protocol::operator::{BlobQuery, PublishRequest};
use serde_json::{Value, json};

use super::*;
use crate::api::scripted::{Asked, Reply, Scripted};
use terminal::Talk;

/// The command as the binary has it: beside others.
#[derive(Debug, Parser)]
#[command(name = "paceline")]
struct Arguments {
    #[command(subcommand)]
    command: Top,
}

#[derive(Debug, clap::Subcommand)]
enum Top {
    #[command(flatten)]
    Client(Command),
}

/// A stream whose text can be read afterwards.
#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).unwrap()
    }
}

/// What a command left behind.
#[derive(Debug)]
struct Run {
    code: u8,
    out: String,
    err: String,
}

impl Run {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

fn run_with(arguments: &[&str], answers: impl BufRead + 'static, is_live: bool) -> Run {
    let words = ["paceline"].iter().chain(arguments);
    let Top::Client(command) = Arguments::try_parse_from(words).unwrap().command;
    let (out, err) = (Shared::default(), Shared::default());
    let talk = Talk::new(Box::new(err.clone()), is_live);
    let mut terminal = Terminal::new(Box::new(out.clone()), talk, Box::new(answers));
    let code = command.finish(&mut terminal);
    Run {
        code,
        out: out.text(),
        err: err.text(),
    }
}

/// Runs against `server`, with nobody at the terminal.
fn run(server: &Scripted, arguments: &[&str]) -> Run {
    let address = server.address().to_string();
    let arguments = [arguments, &["--addr", &address]].concat();
    run_with(&arguments, io::empty(), false)
}

fn usage(arguments: &[&str]) -> String {
    let words = ["paceline"].iter().chain(arguments);
    let refused = Arguments::try_parse_from(words).unwrap_err();
    assert_eq!(refused.exit_code(), 2, "{arguments:?}");
    refused.to_string()
}

fn record() -> Value {
    json!({
        "digest": "ab".repeat(32), "family": "mlp",
        "signature": {
            "inputs": [{ "name": "pixels", "dtype": "FP32", "shape": [-1, 4] }],
            "outputs": [{ "name": "label", "dtype": "BYTES", "shape": [-1, 1] }],
        },
        "rows_max": 256, "finite_inputs": true, "artifact_bytes": 29808,
        "memory_bytes": 122_880, "one_row_ns": 12_100, "full_batch_ns": 400_000, "golden": [15_360],
    })
}

fn model(serving: Option<u32>, replicas: &[(u32, &str)]) -> Value {
    let mut version = record();
    version["version"] = json!(2);
    version["published_ms"] = json!(0);
    let replica = |(version, state): &(u32, &str)| {
        json!({
            "id": 7, "version": version, "node": 1, "device": 0, "state": state,
            "reason": (*state == "failed").then_some("weights are\nmissing"),
        })
    };
    json!({
        "name": "digits", "owner": "default", "serving": serving, "revision": 40,
        "deployed": { "version": 2, "replicas": { "count": 1 } },
        "ready": serving.is_some(), "versions": [version],
        "replicas": replicas.iter().map(replica).collect::<Vec<_>>(), "epoch": 13,
    })
}

fn committed() -> Value {
    json!({ "epoch": 12, "applied_on": 1, "nodes": 1 })
}

fn digits_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("model.toml", "t"), ("weights", "w"), ("copy", "w")] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// A node that lacks every blob until it is uploaded.
fn publishing_node(known: Arc<Mutex<Vec<String>>>) -> impl FnMut(&Asked) -> Reply + Send {
    move |asked| match asked.line().as_str() {
        "POST /v2/paceline/blobs/missing" => {
            let query: BlobQuery = serde_json::from_slice(&asked.body).unwrap();
            let known = known.lock().unwrap();
            let mut digests: Vec<String> = query.digests.iter().map(|d| d.to_string()).collect();
            digests.retain(|digest| !known.contains(digest));
            Reply::json(200, &json!({ "missing": digests }))
        }
        "POST /v2/paceline/models/digits/versions" => {
            let answer = json!({
                "model": "digits", "version": 2, "created": true, "record": record(), "epoch": 11,
            });
            Reply::json(200, &answer)
        }
        "POST /v2/paceline/models/digits/deploy" | "GET /v2/paceline/applied/13" => {
            Reply::json(200, &committed())
        }
        "GET /v2/paceline/models/digits" => Reply::json(200, &model(Some(2), &[(2, "ready")])),
        line => {
            let digest = line.strip_prefix("PUT /v2/paceline/blobs/").unwrap();
            known.lock().unwrap().push(digest.to_owned());
            Reply::Answer(201, vec![], vec![])
        }
    }
}

#[test]
fn the_arguments_are_consistent_and_every_command_shows_examples() {
    let mut command = Arguments::command();
    command.clone().debug_assert();
    let mut waiting: Vec<clap::Command> =
        command.get_subcommands_mut().map(|c| c.clone()).collect();
    let mut leaves = 0;
    while let Some(mut command) = waiting.pop() {
        let below: Vec<clap::Command> = command.get_subcommands().cloned().collect();
        if below.is_empty() {
            leaves += 1;
            let help = command.render_long_help().to_string();
            assert!(help.contains("Examples:\n  "), "{help}");
            // Its data is a file, and its `-o` says where.
            let is_file = command.get_name() == "record";
            assert!(is_file || help.contains("--format"), "{help}");
        }
        waiting.extend(below);
    }
    assert_eq!(leaves, 28);
}

#[test]
fn wrong_use_is_told_before_any_node_is_asked() {
    assert!(usage(&["infer", "digits"]).contains("--row"));
    assert!(usage(&["infer", "digits", "--row", "1", "--text", "a"]).contains("cannot be used"));
    assert!(usage(&["model", "show", "Digits"]).contains("[a-z0-9]"));
    assert!(usage(&["model", "deploy", "digits@2x"]).contains("'2x' is neither a version"));
    assert!(usage(&["model", "deploy", "digits", "--replicas", "0"]).contains("'each'"));
    assert!(usage(&["status", "--addr", "ftp://a"]).contains("only http://"));
    assert!(usage(&["status", "--timeout", "soon"]).contains("500ms"));
    assert!(usage(&["drain"]).contains("NODE"));
    assert!(usage(&["drain", "n1", "--self"]).contains("cannot be used"));
    assert!(usage(&["token", "create", "--ttl", "200h"]).contains("168 hours"));
    assert!(usage(&["token", "create", "--uses", "0"]).contains("1..=64"));
    assert!(usage(&["token", "revoke", "pcl1.x"]).contains("token list"));
    assert!(usage(&["token", "revoke", "../x"]).contains("letters"));
    assert!(usage(&["bench", "digits"]).contains("--row"));
    assert!(usage(&["bench", "digits", "--row", "1", "--rate", "0"]).contains("1..="));
    assert!(usage(&["explain", "NO_SUCH_CODE"]).contains("NO_SUCH_CODE"));
}

#[test]
fn a_push_uploads_only_what_is_missing() {
    let folder = digits_folder();
    let known = Arc::new(Mutex::new(Vec::new()));
    let server = Scripted::serve(publishing_node(known.clone()));
    let path = folder.path().to_str().unwrap();
    let push = ["model", "push", "digits", path];

    let first = run(&server, &push);
    assert_eq!(first.code, 0, "{}", first.err);
    assert!(first.out.contains("version     2 (new)\n"), "{}", first.out);
    assert!(first.out.contains("one row     12.1 µs\n"), "{}", first.out);
    assert!(first.err.contains("3 files, 3 B\n"), "{}", first.err);
    assert!(first.err.contains("uploading 2/2: "), "{}", first.err);
    assert!(first.err.contains("paceline model deploy digits@2"));
    assert_eq!(known.lock().unwrap().len(), 2, "equal files are one blob");

    known.lock().unwrap().pop();
    let second = run(&server, &[&push[..], &["-o", "json"]].concat());
    assert_eq!(second.code, 0, "{}", second.err);
    assert_eq!(second.json()["version"], 2);
    let asked = server.asked();
    let puts = asked.iter().filter(|a| a.method == "PUT").count();
    assert_eq!(
        puts, 3,
        "two the first time, the one that was lost the second"
    );

    fs::write(folder.path().join("weights"), "v").unwrap();
    assert_eq!(run(&server, &push).code, 0);
    let asked = server.asked();
    let last = asked.iter().rfind(|a| a.method == "PUT").unwrap();
    assert_eq!(last.body, b"v");
    let published = asked.iter().filter(|a| a.path.ends_with("/versions"));
    let requests: Vec<PublishRequest> = published
        .map(|a| serde_json::from_slice(&a.body).unwrap())
        .collect();
    assert_eq!(requests[0].manifest, requests[1].manifest);
    assert_ne!(requests[0].op, requests[1].op, "two intentions");
    assert_ne!(requests[1].manifest.digest(), requests[2].manifest.digest());
}

#[test]
fn a_push_uploads_again_what_the_node_lost_before_it_published() {
    let folder = digits_folder();
    let known = Arc::new(Mutex::new(Vec::new()));
    let mut node = publishing_node(known.clone());
    let mut lost = false;
    let server = Scripted::serve(move |asked| {
        if asked.path.ends_with("/versions") && !lost {
            lost = true;
            known.lock().unwrap().clear();
            return Reply::error(400, "ARTIFACT_MISSING", "it lacks a file");
        }
        node(asked)
    });
    let run = run(
        &server,
        &["model", "push", "digits", folder.path().to_str().unwrap()],
    );
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(
        run.err.contains("uploading again: it lacks a file"),
        "{}",
        run.err
    );
    let puts = server
        .lines()
        .iter()
        .filter(|l| l.starts_with("PUT"))
        .count();
    assert_eq!(puts, 4);
}

#[test]
fn a_push_can_deploy_at_once() {
    let folder = digits_folder();
    let server = Scripted::serve(publishing_node(Arc::default()));
    let path = folder.path().to_str().unwrap();
    let run = run(
        &server,
        &[
            "model",
            "push",
            "digits",
            path,
            "--deploy",
            "--replicas",
            "each",
            "-o",
            "json",
        ],
    );
    assert_eq!(run.code, 0, "{}", run.err);
    assert_eq!(run.json()["deployment"]["serving"], true);
    let asked = server.asked();
    let deploy = asked.iter().find(|a| a.path.ends_with("/deploy")).unwrap();
    assert_eq!(deploy.json()["version"], 2);
    assert_eq!(deploy.json()["replicas"], "each");
}

#[test]
fn a_deployment_is_awaited_until_it_serves() {
    let mut looks = 0;
    let server = Scripted::serve(move |asked| {
        if asked.method == "POST" {
            return Reply::json(200, &committed());
        }
        if asked.path == "/v2/paceline/applied/13" {
            let applied = json!({ "epoch": 13, "applied_on": 3, "nodes": 3 });
            return Reply::json(200, &applied);
        }
        looks += 1;
        match looks {
            1 => Reply::json(200, &model(Some(1), &[(1, "ready")])),
            2 => Reply::json(200, &model(Some(1), &[(2, "loading")])),
            3 => Reply::error(503, "SHUTTING_DOWN", "for a moment"),
            _ => Reply::json(200, &model(Some(2), &[(2, "ready")])),
        }
    });
    let run = run(&server, &["model", "deploy", "digits"]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert_eq!(
        run.out,
        "digits@2 serves with 1 replica: committed at 13, applied on 3 of 3\n"
    );
    assert!(
        run.err
            .contains("replica 7 on node 1 loading; traffic has not moved"),
        "{}",
        run.err
    );
    assert!(run.err.contains("for a moment"), "{}", run.err);
    let wanted = "GET /v2/paceline/models/digits";
    assert_eq!(
        server.lines()[0],
        wanted,
        "the newest version is looked up first"
    );
    assert_eq!(server.asked()[1].json()["version"], 2);
}

#[test]
fn a_deployment_that_fails_or_takes_too_long_fails_with_the_reason() {
    let node = |state: &'static str| {
        Scripted::serve(move |asked| match asked.method.as_str() {
            "POST" => Reply::json(200, &committed()),
            _ => Reply::json(200, &model(None, &[(2, state)])),
        })
    };
    let failed = run(&node("failed"), &["model", "deploy", "digits@2"]);
    assert_eq!((failed.code, failed.out.as_str()), (1, ""));
    let wanted = "error: replica 7 on node 1 failed: weights are missing\n";
    assert!(failed.err.ends_with(wanted), "{}", failed.err);

    let late = run(
        &node("loading"),
        &["model", "deploy", "digits@2", "--timeout", "1s"],
    );
    assert_eq!(late.code, 1);
    let wanted = "still awaited: 0 of 1 replica ready; replica 7 on node 1 loading";
    assert!(late.err.contains(wanted), "{}", late.err);

    let server = node("loading");
    let detached = run(
        &server,
        &["model", "deploy", "digits@2", "--detach", "-o", "json"],
    );
    assert_eq!(detached.code, 0);
    assert_eq!(detached.json()["serving"], false);
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn refusals_end_with_the_exit_code_of_their_kind() {
    for (status, code, wanted) in [
        (409, "ALREADY_EXISTS", 3),
        (409, "LIMIT_REACHED", 3),
        (429, "OVERLOADED", 3),
        (403, "HOST_REFUSED", 3),
        (404, "MODEL_NOT_FOUND", 1),
        (400, "LOAD_FAILED", 1),
        (500, "INTERNAL", 1),
    ] {
        let server = Scripted::serve(move |_| Reply::error(status, code, "the reason"));
        let run = run(&server, &["model", "delete", "digits", "--yes"]);
        assert_eq!(run.code, wanted, "{code}");
        assert_eq!(run.out, "");
        let wanted = format!(
            "error: the reason\n{code}, status {status}: `paceline explain {code}` says more.\n"
        );
        assert_eq!(run.err, wanted);
    }
}

#[test]
fn a_write_left_open_says_how_to_repeat_it() {
    let server = Scripted::serve(|_| Reply::Hangup);
    let delete = ["model", "delete", "digits", "-y", "--timeout", "50ms"];
    let open = run(&server, &delete);
    assert_eq!(open.code, 1);
    let (_, op) = open
        .err
        .split_once("`paceline model delete digits --yes --op-id ")
        .unwrap();
    let op = &op[..32];
    assert!(server.lines()[0].ends_with(op), "{}", open.err);

    let server = Scripted::serve(|_| Reply::json(200, &committed()));
    let again = run(&server, &[&delete[..4], &["--op-id", op]].concat());
    assert_eq!(again.code, 0, "{}", again.err);
    let wanted = format!("DELETE /v2/paceline/models/digits?op={op}");
    assert_eq!(server.lines(), [wanted]);
}

#[test]
fn a_delete_asks_a_person_and_nobody_else() {
    let server = Scripted::serve(|_| Reply::json(200, &committed()));
    let address = server.address().to_string();
    let delete = ["model", "delete", "digits", "--addr", &address];
    let alone = run_with(&delete, io::empty(), false);
    assert_eq!(alone.code, 2);
    assert!(alone.err.contains("--yes"), "{}", alone.err);
    for answer in ["n\n", "", "yesterday\n"] {
        let declined = run_with(&delete, Cursor::new(answer), true);
        assert_eq!(declined.code, 1);
        assert!(declined.err.contains("was not deleted"), "{}", declined.err);
    }
    assert_eq!(server.asked().len(), 0);
    let agreed = run_with(&delete, Cursor::new("Y\n"), true);
    assert_eq!(agreed.code, 0);
    assert!(
        agreed.err.contains("Delete model 'digits'"),
        "{}",
        agreed.err
    );
    let wanted = "deleted digits: committed at 12, applied on 1 of 1\n";
    assert_eq!(agreed.out, wanted);
}

#[test]
fn nobody_there_says_what_to_do() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let run = run_with(&["nodes", "--addr", &address], io::empty(), false);
    assert_eq!(run.code, 1);
    let wanted = format!("error: cannot reach {address}: connection refused\n");
    assert!(run.err.starts_with(&wanted), "{}", run.err);
    assert!(run.err.contains("paceline serve --demo"), "{}", run.err);
    assert!(run.err.contains("--addr"), "{}", run.err);
}

fn inference_node() -> Scripted {
    inference_node_taking(Duration::ZERO)
}

/// One request at a time, each in this time.
fn inference_node_taking(time: Duration) -> Scripted {
    Scripted::serve(move |asked| {
        if asked.method == "GET" {
            let metadata = json!({
                "name": "digits", "versions": ["2"], "platform": "paceline_mlp",
                "inputs": [{ "name": "pixels", "datatype": "FP32", "shape": [-1, 4] }],
                "outputs": [{ "name": "label", "datatype": "BYTES", "shape": [-1, 1] }],
            });
            return Reply::json(200, &metadata);
        }
        thread::sleep(time);
        let headers = vec![
            ("paceline-version", "2".to_owned()),
            ("paceline-epoch", "812".to_owned()),
        ];
        let label =
            json!({ "name": "label", "datatype": "BYTES", "shape": [2, 1], "data": ["4", "9"] });
        let body = json!({ "model_name": "digits", "outputs": [label] });
        Reply::Answer(200, headers, body.to_string().into_bytes())
    })
}

#[test]
fn an_inference_of_rows_prints_a_line_for_each() {
    let server = inference_node();
    let rows = ["infer", "digits@2", "--row", "-1,2,3,4", "--row", "5,6,7,8"];
    let table = run(&server, &rows);
    assert_eq!(table.code, 0, "{}", table.err);
    assert_eq!(table.out, "ROW  label\n  0  4\n  1  9\n");
    assert_eq!(table.err, "version 2, epoch 812\n");
    let wanted = [
        "GET /v2/models/digits/versions/2",
        "POST /v2/models/digits/versions/2/infer",
    ];
    assert_eq!(server.lines(), wanted);
    assert_eq!(
        server.asked()[1].json()["inputs"][0]["shape"],
        json!([2, 4])
    );

    let exact = run(&server, &[&rows[..], &["-o", "json"]].concat());
    assert_eq!(exact.json()["outputs"][0]["data"], json!(["4", "9"]));

    let short = run(&server, &["infer", "digits", "--row", "1,2"]);
    assert_eq!(short.code, 2);
    let wanted = "error: row 1 has 2 values, but input 'pixels' has shape [-1,4]: 4 a row\n";
    assert_eq!(short.err, wanted);
}

#[test]
fn an_inference_of_json_sends_it_as_it_is() {
    let server = inference_node();
    let body = r#"{"inputs": [], "odd":  1}"#;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("request.json");
    fs::write(&path, body).unwrap();
    let address = server.address().to_string();
    for (source, answers) in [("-", body), (path.to_str().unwrap(), "")] {
        let infer = ["infer", "digits", "--json", source, "--addr", &address];
        let run = run_with(&infer, Cursor::new(answers), false);
        assert_eq!(run.code, 0, "{}", run.err);
        let asked = server.asked();
        let last = asked.last().unwrap();
        assert_eq!(last.line(), "POST /v2/models/digits/infer");
        assert_eq!(last.body, body.as_bytes());
    }
    let absent = run(&server, &["infer", "digits", "--json", "no-such-file"]);
    assert_eq!(absent.code, 1);
    assert!(absent.err.contains("no-such-file"), "{}", absent.err);
}

#[test]
fn what_is_read_is_printed_as_tables_and_as_json() {
    let status = json!({
        "cluster": "c".repeat(32), "node": 1, "name": "n0", "version": "0.1.0", "ready": true,
        "epoch": 812,
        "raft": {
            "role": "leader", "term": 3, "leader": 1, "last_log": 812, "committed": 812,
            "applied": 812, "voters": [1, 2, 3],
        },
        "survivable_losses": 0, "quorum": false, "stale_seconds": 75,
        "warnings": ["two nodes: no loss is survivable"], "models": 3, "models_ready": 2, "shadows": 0, "uptime_seconds": 200,
        "devices": [{
            "kind": "cpu", "lanes": 2, "running": 1, "queued_rows": 5,
            "memory_used_bytes": 1_048_576, "memory_bytes": 1_073_741_824u64,
        }],
        "degraded": ["device 0 is lost"],
    });
    let nodes = json!([{
        "id": 1, "name": "n0", "state": "up", "role": "leader", "zone": "a", "pid": 42,
        "addresses": {
            "http": "127.0.0.1:8000", "grpc": null, "metrics": null, "sdk": null, "peer": null,
        },
        "epoch": 812,
    }]);
    let models = json!([model(Some(2), &[(2, "ready"), (2, "failed")])]);
    let (served, listed) = (status.clone(), (nodes.clone(), models.clone()));
    let server = Scripted::serve(move |asked| match asked.path.as_str() {
        "/v2/paceline/status" => Reply::json(200, &served),
        "/v2/paceline/nodes" => Reply::json(200, &listed.0),
        "/v2/paceline/models" => Reply::json(200, &listed.1),
        _ => Reply::json(200, &listed.1[0]),
    });
    let text = run(&server, &["status"]).out;
    for wanted in [
        "state     ready\n",
        "uptime    3m 20s\n",
        "quorum    no, for 1m 15s: writes are not possible, answers may be stale\n",
        "losses    no loss of a node is survivable\n",
        "warning   two nodes: no loss is survivable\n",
        "raft      leader, term 3, leader is node 1, voters 1 2 3\n",
        "degraded  device 0 is lost\n",
        "     0  cpu       2        1            5      1.0 MiB  1.0 GiB\n",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is not in\n{text}");
    }
    assert_eq!(run(&server, &["status", "-o", "json"]).json(), status);

    let text = run(&server, &["nodes"]).out;
    let wanted = " 1  n0    up     leader  a       812   42  127.0.0.1:8000  -        -    -\n";
    assert!(text.ends_with(wanted), "{text}");
    assert_eq!(run(&server, &["nodes", "-o", "json"]).json(), nodes);

    let text = run(&server, &["model", "list"]).out;
    let wanted = "digits  ready        2         2       1    1/2         1  mlp\n";
    assert!(text.ends_with(wanted), "{text}");
    assert_eq!(
        run(&server, &["model", "list", "-o", "json"]).json(),
        models
    );

    let text = run(&server, &["model", "show", "digits"]).out;
    for wanted in [
        "input     pixels FP32 [-1,4]\n",
        "deployed  version 2, replicas 1\n",
        "12.1 µs",
        "failed  weights are missing\n",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is not in\n{text}");
    }
    let show = ["model", "show", "digits", "-o", "json"];
    assert_eq!(run(&server, &show).json(), models[0]);
}

#[test]
fn codes_are_explained_without_a_node() {
    let one = run_with(&["explain", "queue-full", "-o", "json"], io::empty(), false);
    assert_eq!(one.json()["http"], 429);
    assert_eq!(one.json()["status"], "RESOURCE_EXHAUSTED");
    let text = run_with(&["explain", "MODEL_NOT_READY"], io::empty(), false).out;
    assert!(text.contains("gRPC    14 UNAVAILABLE\n"), "{text}");
    let all = run_with(&["explain"], io::empty(), false).out;
    assert_eq!(
        all.lines().count(),
        paceline_protocol::ErrorCode::ALL.len() + 1
    );
}

/// A pipe whose reader has gone.
struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_command_in_silence() {
    for format in ["table", "json"] {
        let words = ["paceline", "explain", "-o", format];
        let Top::Client(command) = Arguments::try_parse_from(words).unwrap().command;
        let err = Shared::default();
        let talk = Talk::new(Box::new(err.clone()), false);
        let mut terminal = Terminal::new(Box::new(Gone), talk, Box::new(io::empty()));
        assert_eq!(command.finish(&mut terminal), 0);
        assert_eq!(err.text(), "");
    }
}

#[test]
fn a_line_that_is_written_over_leaves_nothing_behind() {
    let err = Shared::default();
    let talk = Talk::new(Box::new(err.clone()), true);
    talk.update("a long line");
    talk.update("short");
    talk.say("done");
    assert_eq!(err.text(), "\ra long line\rshort      \r     \rdone\n");
}
