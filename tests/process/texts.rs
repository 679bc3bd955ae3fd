//! Texts as OpenAI's clients and TEI's send them, answered by small encoders whose vectors the
//! `transformers` library has computed (scripts/goldens/encoder.py).

use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::http::Answer;
use crate::node::{Node, directory, example};
use crate::tensors::from_bytes;

/// What floats of two implementations differ by.
const TOLERANCE: f32 = 2e-5;

fn folder(model: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("models/testdata/encoder").join(model)
}

/// Texts and what is known of them.
fn rows(model: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder(model).join("expected.json"));
    let expected: Value = serde_json::from_str(&text.expect("it is there")).expect("it is JSON");
    expected["rows"].as_array().expect("rows").clone()
}

fn floats(values: &Value) -> Vec<f32> {
    let values = values.as_array().expect("numbers").iter();
    values
        .map(|value| value.as_f64().expect("a number") as f32)
        .collect()
}

#[track_caller]
fn assert_near(found: &[f32], wanted: &[f32]) {
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(wanted) {
        assert!(
            (found - wanted).abs() < TOLERANCE,
            "{found} is not {wanted}"
        );
    }
}

/// A model's folder with a `model.toml` of one's own.
fn copied(model: &str, under: &Path, toml: &str) -> PathBuf {
    let copy = under.join("model");
    copy_folder(&folder(model), &copy);
    std::fs::write(copy.join("model.toml"), toml).expect("it is written");
    copy
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("it is new");
    for entry in std::fs::read_dir(from).expect("it is there") {
        let from = entry.expect("it is read").path();
        let to = to.join(from.file_name().expect("an entry has a name"));
        match from.is_dir() {
            true => copy_folder(&from, &to),
            false => drop(std::fs::copy(&from, &to).expect("it is copied")),
        }
    }
}

fn push(node: &Node, model: &str) {
    let folder = folder(model);
    let folder = folder.to_str().expect("a path in UTF-8");
    node.cli_json(&["model", "push", model, folder, "--deploy"]);
}

#[test]
fn texts_get_the_vectors_and_ranks_that_are_known() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    for model in ["bert", "bert-pairs"] {
        push(&node, model);
    }
    let known = rows("bert");
    let texts: Vec<&Value> = known.iter().map(|row| &row["text"]).collect();
    let ask = |path: &str, body: &Value| node.post(path, body.to_string());

    let body = json!({"model": "bert", "input": texts, "truncate": true});
    let answer = ask("/v1/embeddings", &body).ok();
    let tokens: usize = known
        .iter()
        .map(|row| row["ids"].as_array().map_or(0, Vec::len))
        .sum();
    assert_eq!(answer["usage"]["total_tokens"], json!(tokens));
    assert_eq!(answer["model"], "bert");
    for (row, found) in known
        .iter()
        .zip(answer["data"].as_array().expect("vectors"))
    {
        assert_near(&floats(&found["embedding"]), &floats(&row["outputs"]));
    }
    let body = json!({"model": "bert", "input": texts[0], "encoding_format": "base64"});
    let answer = ask("/openai/v1/embeddings", &body).ok();
    let bytes = answer["data"][0]["embedding"].as_str().expect("base64");
    let bytes = BASE64.decode(bytes.as_bytes()).expect("base64");
    assert_near(&from_bytes(&bytes), &floats(&known[0]["outputs"]));

    // The only model that gives an embedding.
    let vectors = ask("/embed", &json!({"inputs": texts, "truncate": true})).ok();
    for (row, found) in known.iter().zip(vectors.as_array().expect("vectors")) {
        assert_near(&floats(found), &floats(&row["outputs"]));
    }

    let pairs = rows("bert-pairs");
    let body = json!({"query": pairs[0]["query"], "texts": [pairs[1]["text"], pairs[0]["text"]]});
    let ranks = ask("/rerank", &body).ok();
    let ranks = ranks.as_array().expect("ranks");
    let found = ranks.iter().find(|rank| rank["index"] == 1).expect("both");
    assert_near(
        &floats(&json!([found["score"]])),
        &floats(&pairs[0]["outputs"]),
    );
    let scores = floats(&json!([ranks[0]["score"], ranks[1]["score"]]));
    assert!(scores[0] >= scores[1], "{scores:?}");
    node.kill9();
}

/// What clients of TEI ask beside vectors, of any node of three, of which one has the replica.
#[test]
fn any_node_cuts_classifies_and_describes_what_one_replica_reads() {
    let cluster = Cluster::of_three();
    for model in ["bert", "bert-classes"] {
        let folder = folder(model);
        let folder = folder.to_str().expect("a path in UTF-8");
        let node = cluster.node(0);
        node.cli_json(&["model", "push", model, folder]);
        let version = format!("{model}@1");
        node.cli_json(&["model", "deploy", &version, "--replicas", "1"]);
    }
    let heads = ["riders ", "front "].map(|word| word.repeat(40));
    let both = heads.concat();
    let [known, classes] = ["bert", "bert-classes"].map(rows);
    for node in &cluster.nodes {
        let node = node.as_ref().expect("it lives");
        node.wait_for("/v2/models/bert-classes/ready", |_| true);
        node.wait_for("/v2/models/bert/ready", |_| true);
        let ask = |path: &str, body: &Value| node.post(path, body.to_string());
        let cut = |text: &str, direction: &str| {
            let body = json!({"inputs": text, "truncate": true, "truncation_direction": direction});
            ask("/embed", &body).ok()
        };
        assert_eq!(cut(&both, "Right"), cut(&heads[0], "Right"));
        assert_eq!(cut(&both, "Left"), cut(&heads[1], "Left"));
        assert_ne!(cut(&both, "Left"), cut(&both, "Right"));
        let long = ask("/embed", &json!({"inputs": ["a", both]}));
        let told = long.json();
        assert_eq!(
            (long.status, &told["error_type"]),
            (422, &json!("Validation"))
        );
        let message = told["error"].as_str().expect("a message");
        assert!(
            message.contains("1 of 2 texts") && message.contains("24 tokens"),
            "{message}"
        );
        let long = ask("/v1/embeddings", &json!({"model": "bert", "input": both}));
        let kind = &long.json()["error"]["type"];
        assert_eq!((long.status, kind), (400, &json!("invalid_request_error")));

        let texts = [&known[0]["text"], &known[1]["text"]];
        let lists = ask("/tokenize", &json!({"model": "bert", "inputs": texts})).ok();
        for (row, list) in known.iter().zip(lists.as_array().expect("lists")) {
            let list = list.as_array().expect("tokens");
            let ids: Vec<&Value> = list.iter().map(|token| &token["id"]).collect();
            assert_eq!(json!(ids), row["ids"]);
            assert_eq!(list[0]["special"], true);
            let text = row["text"].as_str().expect("a text").as_bytes();
            for token in list.iter().filter(|token| token["special"] == false) {
                let [from, to] = ["start", "stop"].map(|place| token[place].as_u64());
                let part = &text[from.expect("a place") as usize..to.expect("a place") as usize];
                assert_eq!(token["text"], String::from_utf8_lossy(part).into_owned());
            }
        }
        let body = json!({"model": "bert", "inputs": texts[0], "add_special_tokens": false});
        let plain = ask("/tokenize", &body).ok();
        assert_eq!(plain[0].as_array().map(Vec::len), Some(7), "of nine");

        what_is_told_of_classes(node, &classes);
    }
}

fn what_is_told_of_classes(node: &Node, classes: &[Value]) {
    let ask = |path: &str, body: &Value| node.post(path, body.to_string());
    // The only model with classes.
    let inputs = json!([[classes[0]["text"]], [classes[1]["text"]]]);
    let body = json!({"inputs": inputs, "raw_scores": true});
    let told = ask("/predict", &body).ok();
    for (row, found) in classes.iter().zip(told.as_array().expect("a list each")) {
        let mut wanted = floats(&row["outputs"]);
        wanted.sort_by(|one, other| other.total_cmp(one));
        let found = found.as_array().expect("classes").iter();
        let (scores, labels): (Vec<&Value>, Vec<&Value>) =
            found.map(|one| (&one["score"], &one["label"])).unzip();
        assert_near(&floats(&json!(scores)), &wanted);
        let mut labels: Vec<&str> = labels.iter().filter_map(|label| label.as_str()).collect();
        labels.sort_unstable();
        assert_eq!(labels, ["bread", "road", "wind"]);
    }
    let info = node.get("/info?model=bert-classes").ok();
    assert_eq!(info["model_type"]["classifier"]["id2label"]["1"], "wind");
    assert_eq!(info["model_id"], "bert-classes");
    let info = node.get("/info?model=bert").ok();
    assert_eq!(info["max_input_length"], 24);
    let several = node.get("/info");
    assert_eq!(several.status, 422, "{}", several.text());
}

#[test]
fn a_precision_is_measured_and_written_into_the_version_alone() {
    let data = directory();
    let node = Node::start(&data.path().join("node"), &["--engine", "candle"]);
    let folder = folder("bert");
    let path = folder.to_str().expect("a path in UTF-8");
    let push = ["model", "push", "bert", path];
    let plain = node.cli_json(&push);
    assert_eq!(
        (&plain["version"], &plain["precision"]),
        (&json!(1), &Value::Null)
    );
    let bf16 = [&push[..], &["--precision", "bf16", "--deploy"]].concat();
    let told = node.cli_json(&bf16);
    let report = &told["precision"];
    assert_eq!(
        (&told["version"], &report["texts"]),
        (&json!(2), &json!(40))
    );
    assert!(
        report["cosine_min_ppm"].as_i64().expect("a number") >= 999_000,
        "{report}"
    );
    assert!(report["f32_text_ns"].as_u64().expect("a number") > 0);
    assert!(
        !folder.join("model.toml").exists(),
        "the folder is the user's"
    );
    assert_eq!(node.cli_json(&bf16)["created"], false);

    let texts = data.path().join("texts");
    std::fs::write(&texts, "one\n\ntwo\n").expect("it is written");
    let texts = texts.to_str().expect("a path in UTF-8");
    let own = [&push[..], &["--precision", "f32", "--calibration", texts]].concat();
    let shown = node.cli(&own);
    assert_eq!(shown.status.code(), Some(0), "{}", shown.stderr);
    assert!(shown.stdout.contains("of 2 texts"), "{}", shown.stdout);
    let digits = example("digits");
    let digits = digits.to_str().expect("a path in UTF-8");
    let refused = node.cli(&["model", "push", "digits", digits, "--precision", "bf16"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains("'mlp'"), "{}", refused.stderr);
    let misused = node.cli(&[&push[..], &["--force"]].concat());
    assert_eq!(misused.status.code(), Some(2));

    // Answers of candle's operations, which round as the version says: in eight bits and no more.
    let known = rows("bert");
    let body = json!({"inputs": known[0]["text"]}).to_string();
    let found = floats(&node.post("/embed", body).ok()[0]);
    let wanted = floats(&known[0]["outputs"]);
    let differ = |(found, wanted): (&f32, &f32)| (found - wanted).abs();
    let most = found.iter().zip(&wanted).map(differ).fold(0.0, f32::max);
    assert!((TOLERANCE..4e-3).contains(&most), "{most}");
    node.kill9();
}

/// Callers at a time, and requests of each.
const CALLERS: usize = 8;
const REQUESTS: usize = 12;

/// Asks from several threads at once: of each caller and turn the body, and what is made of the
/// answer.
fn at_once(
    node: &Node,
    path: &str,
    body: &(impl Fn(usize, usize) -> Value + Sync),
    judge: &(impl Fn(usize, usize, &Answer) + Sync),
) {
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            scope.spawn(move || {
                for turn in 0..REQUESTS {
                    let answer = node.post(path, body(caller, turn).to_string());
                    judge(caller, turn, &answer);
                }
            });
        }
    });
}

#[test]
fn long_and_short_texts_at_once_get_the_answers_that_they_get_alone() {
    let data = directory();
    let node = Node::start(data.path(), &[]);
    push(&node, "bert");
    let long = "the quick brown fox jumps over the lazy dog ".repeat(60);
    let texts: Vec<String> = (0..CALLERS)
        .map(|length| long[..(4 << length).min(long.len())].to_owned())
        .collect();
    let alone: Vec<Value> = texts
        .iter()
        .map(|text| {
            node.post(
                "/embed",
                json!({"inputs": text, "truncate": true}).to_string(),
            )
            .ok()
        })
        .collect();
    let of = |caller: usize, turn: usize| (caller + turn) % CALLERS;
    let body = |caller, turn| json!({"inputs": texts[of(caller, turn)], "truncate": true});
    at_once(&node, "/embed", &body, &|caller, turn, answer| {
        assert_eq!(answer.ok(), alone[of(caller, turn)]);
    });
    node.kill9();
}

#[test]
fn a_token_that_no_vocabulary_has_is_refused_alone() {
    let data = directory();
    let folder = copied(
        "bert",
        data.path(),
        "name = \"ids\"\nfamily = \"encoder\"\n[encoder]\ninput = \"tokens\"\n",
    );
    let node = Node::start(&data.path().join("node"), &[]);
    let path = folder.to_str().expect("a path in UTF-8");
    node.cli_json(&["model", "push", "ids", path, "--deploy"]);
    let known = rows("bert");
    let ids: Vec<&Value> = known.iter().map(|row| &row["ids"]).collect();
    let is_hostile = |caller: usize, turn: usize| (caller + turn).is_multiple_of(4);
    let body = |caller, turn| match is_hostile(caller, turn) {
        true => json!({"inputs": [ids[0], [1, 1 << 30]]}),
        false => json!({"inputs": ids}),
    };
    at_once(&node, "/embed", &body, &|caller, turn, answer| {
        if is_hostile(caller, turn) {
            let told = answer.json();
            assert_eq!(
                (answer.status, &told["code"]),
                (422, &json!("INPUT_VALUES"))
            );
            let message = told["error"].as_str().expect("a message");
            assert!(message.contains("row 1: the token id"), "{message}");
            return;
        }
        let vectors = answer.ok();
        for (row, found) in known.iter().zip(vectors.as_array().expect("vectors")) {
            assert_near(&floats(found), &floats(&row["outputs"]));
        }
    });
    node.kill9();
}

#[test]
fn refusals_have_the_form_of_their_protocol() {
    let node = Node::shared();
    let ask = |path: &str, body: &Value| node.post(path, body.to_string());
    let answer = ask("/v1/embeddings", &json!({"model": "nobody", "input": "a"}));
    assert_eq!(answer.status, 404);
    assert_eq!(answer.json()["error"]["code"], "model_not_found");
    let answer = ask("/v1/embeddings", &json!({"model": "digits", "input": "a"}));
    let message = answer.json()["error"]["message"]
        .as_str()
        .map(str::to_owned);
    assert!(message.is_some_and(|told| told.contains("gives 'embedding'")));
    let answer = ask("/v1/embeddings", &json!({"input": "a"}));
    assert_eq!(answer.status, 400);
    let answer = ask("/embed", &json!({"inputs": "a"}));
    assert_eq!(
        (answer.status, &answer.json()["error_type"]),
        (404, &json!("Validation"))
    );
    let answer = ask("/rerank", &json!({"texts": ["a"]}));
    assert_eq!(
        (answer.status, &answer.json()["error_type"]),
        (422, &json!("Empty"))
    );
    let answer = node.get("/embed");
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("allow"), Some("POST"));
}
