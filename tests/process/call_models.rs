//! What is told of models over gRPC: the same as over HTTP, and the two commands of the repository,
//! for Triton's clients and for KServe's.

use std::collections::HashMap;

use prost::Message;
use serde_json::Value as Json;

use crate::grpc::{Client, InferRequest, InferResponse, Simple};
use crate::node::{Node, directory};

const SERVICE: &str = "/inference.GRPCInferenceService/";

#[derive(Clone, PartialEq, Message)]
struct ConfigResponse {
    #[prost(message, optional, tag = "1")]
    config: Option<Config>,
}

#[derive(Clone, PartialEq, Message)]
struct Config {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    platform: String,
    #[prost(int32, tag = "4")]
    max_batch_size: i32,
    #[prost(message, repeated, tag = "5")]
    input: Vec<ConfigInput>,
    #[prost(message, optional, tag = "11")]
    dynamic_batching: Option<Nothing>,
    #[prost(string, tag = "17")]
    backend: String,
}

#[derive(Clone, PartialEq, Message)]
struct ConfigInput {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(int64, repeated, tag = "4")]
    dims: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

#[derive(Clone, PartialEq, Message)]
struct StatisticsResponse {
    #[prost(message, repeated, tag = "1")]
    stats: Vec<Statistics>,
}

#[derive(Clone, PartialEq, Message)]
struct Statistics {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
    #[prost(uint64, tag = "3")]
    last_inference: u64,
    #[prost(uint64, tag = "4")]
    inference_count: u64,
    #[prost(uint64, tag = "5")]
    execution_count: u64,
    #[prost(message, optional, tag = "6")]
    inference: Option<Durations>,
}

/// Six of the eight, in their order.
#[derive(Clone, PartialEq, Message)]
struct Durations {
    #[prost(message, optional, tag = "1")]
    success: Option<Duration>,
    #[prost(message, optional, tag = "2")]
    fail: Option<Duration>,
    #[prost(message, optional, tag = "3")]
    queue: Option<Duration>,
    #[prost(message, optional, tag = "7")]
    cache_hit: Option<Duration>,
    #[prost(message, optional, tag = "8")]
    cache_miss: Option<Duration>,
}

#[derive(Clone, PartialEq, Message)]
struct Duration {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(uint64, tag = "2")]
    nanos: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Index {
    #[prost(message, repeated, tag = "1")]
    models: Vec<Indexed>,
}

#[derive(Clone, PartialEq, Message)]
struct Indexed {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
    #[prost(string, tag = "3")]
    state: String,
    #[prost(string, tag = "4")]
    reason: String,
}

/// What KServe's clients read.
#[derive(Clone, PartialEq, Message)]
struct Done {
    #[prost(string, tag = "1")]
    model_name: String,
    #[prost(bool, tag = "2")]
    is_done: bool,
}

/// Settings, each of a kind.
#[derive(Clone, PartialEq, Message)]
struct Settings {
    #[prost(message, repeated, tag = "1")]
    settings: Vec<Setting>,
    #[prost(string, tag = "2")]
    model: String,
}

#[derive(Clone, PartialEq, Message)]
struct Setting {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<SettingValue>,
}

/// A log setting.
#[derive(Clone, PartialEq, Message)]
struct SettingValue {
    #[prost(bool, optional, tag = "1")]
    switch: Option<bool>,
    #[prost(uint32, optional, tag = "2")]
    level: Option<u32>,
    #[prost(string, optional, tag = "3")]
    text: Option<String>,
}

/// The same of traces, which are lists of texts.
#[derive(Clone, PartialEq, Message)]
struct TraceSettings {
    #[prost(map = "string, message", tag = "1")]
    settings: HashMap<String, Texts>,
    #[prost(string, tag = "2")]
    model: String,
}

#[derive(Clone, PartialEq, Message)]
struct Texts {
    #[prost(string, repeated, tag = "1")]
    value: Vec<String>,
}

fn path(method: &str) -> String {
    format!("{SERVICE}{method}")
}

fn named(name: &str, version: &str) -> Vec<u8> {
    let (text, second) = (name.to_owned(), version.to_owned());
    Simple { text, second }.encode_to_vec()
}

fn statistics(client: &Client, name: &str, version: &str) -> StatisticsResponse {
    let asked = named(name, version);
    client.call(&path("ModelStatistics"), &[], &asked).ok()
}

#[test]
fn a_configuration_is_that_of_http() {
    let node = Node::shared();
    let client = Client::open(node.grpc);
    let http: Json = node.get("/v2/models/digits/config").ok();
    let said = client.call(&path("ModelConfig"), &[], &named("digits", ""));
    let config = said.ok::<ConfigResponse>().config.expect("a configuration");
    assert_eq!(http["name"], config.name);
    assert_eq!(http["platform"], config.platform);
    assert_eq!(http["backend"], config.backend);
    assert_eq!(http["max_batch_size"], config.max_batch_size);
    assert!(config.max_batch_size > 1 && config.dynamic_batching.is_some());
    assert_eq!(config.input[0].name, "pixels");
    assert_eq!(config.input[0].data_type, 11, "TYPE_FP32");
    assert_eq!(config.input[0].dims, [64]);
    let unknown = client.call(&path("ModelConfig"), &[], &named("nobody", ""));
    assert_eq!(unknown.ended(), (5, "MODEL_NOT_FOUND"));
}

#[test]
fn statistics_count_what_was_asked() {
    let home = directory();
    let node = Node::demo(home.path());
    let client = Client::open(node.grpc);
    let of_identity = |client: &Client| statistics(client, "identity", "1").stats[0].clone();
    let before = of_identity(&client);
    for _ in 0..7 {
        let request = InferRequest::of("identity", "INPUT0", &[vec![1.0], vec![2.0]]);
        let _: InferResponse = client.infer(&request).ok();
    }
    let wrong = InferRequest::of("identity", "INPUT1", &[vec![1.0]]);
    assert_eq!(client.infer(&wrong).ended(), (3, "INPUT_UNKNOWN"));
    let after = of_identity(&client);
    assert_eq!(
        (after.name.as_str(), after.version.as_str()),
        ("identity", "1")
    );
    assert_eq!(after.inference_count - before.inference_count, 14);
    assert_eq!(after.execution_count - before.execution_count, 7);
    assert!(after.last_inference > 1_700_000_000_000);
    let count = |of: &Option<Duration>| of.as_ref().expect("it is there").count;
    let (was, is) = (before.inference.unwrap(), after.inference.unwrap());
    assert_eq!(count(&is.success) - count(&was.success), 7);
    assert_eq!(count(&is.fail) - count(&was.fail), 1);
    // A load generator of Triton's waits for this one.
    assert_eq!(count(&is.queue) - count(&was.queue), 7);
    assert_eq!(count(&is.cache_hit) + count(&is.cache_miss), 0);
    assert!(statistics(&client, "", "").stats.len() >= 3, "all models");
    let unknown = client.call(&path("ModelStatistics"), &[], &named("nobody", ""));
    assert_eq!(unknown.ended(), (5, "MODEL_NOT_FOUND"));
}

#[test]
fn settings_are_those_of_http() {
    let node = Node::shared();
    let client = Client::open(node.grpc);
    let http: Json = node.get("/v2/logging").ok();
    let log: Settings = client.call(&path("LogSettings"), &[], &[]).ok();
    assert_eq!(
        log.settings.len(),
        http.as_object().map_or(0, |all| all.len())
    );
    for Setting { name, value } in log.settings {
        let SettingValue {
            switch,
            level,
            text,
        } = value.expect("each has a value");
        let value = (switch.map(Json::from)).or(level.map(Json::from));
        assert_eq!(
            http[&name],
            value.or(text.map(Json::from)).expect("of a kind")
        );
    }
    for (model, at) in [
        ("", "/v2/trace/setting"),
        ("digits", "/v2/models/digits/trace/setting"),
    ] {
        let asked = TraceSettings {
            model: model.to_owned(),
            ..TraceSettings::default()
        };
        let asked = asked.encode_to_vec();
        let trace: TraceSettings = client.call(&path("TraceSetting"), &[], &asked).ok();
        let http: Json = node.get(at).ok();
        assert_eq!(
            trace.settings.len(),
            http.as_object().map_or(0, |all| all.len())
        );
        for (name, Texts { value }) in trace.settings {
            let is_list = http[&name].is_array();
            let value = if is_list {
                Json::from(value)
            } else {
                Json::from(value.concat())
            };
            assert_eq!(http[&name], value, "{name}");
        }
    }
}

#[test]
fn settings_are_not_set() {
    let client = Client::open(Node::shared().grpc);
    let rate = (
        "trace_rate".to_owned(),
        Texts {
            value: vec!["1".to_owned()],
        },
    );
    let trace = TraceSettings {
        settings: HashMap::from([rate]),
        ..TraceSettings::default()
    };
    let refused = client.call(&path("TraceSetting"), &[], &trace.encode_to_vec());
    assert_eq!(refused.ended(), (12, "UNSUPPORTED"));
    assert!(
        refused.sentence().contains("trace"),
        "{}",
        refused.sentence()
    );
    let nobody = TraceSettings {
        model: "nobody".to_owned(),
        ..TraceSettings::default()
    };
    let unknown = client.call(&path("TraceSetting"), &[], &nobody.encode_to_vec());
    assert_eq!(unknown.ended(), (5, "MODEL_NOT_FOUND"));
    let verbose = Setting {
        name: "log_verbose_level".to_owned(),
        value: Some(SettingValue {
            level: Some(2),
            ..SettingValue::default()
        }),
    };
    let log = Settings {
        settings: vec![verbose],
        ..Settings::default()
    };
    let refused = client.call(&path("LogSettings"), &[], &log.encode_to_vec());
    assert_eq!(refused.ended(), (12, "UNSUPPORTED"));
    assert!(
        refused.sentence().contains("log.filter"),
        "{}",
        refused.sentence()
    );
}

#[test]
fn models_are_unloaded_and_loaded_by_either_kind_of_client() {
    let home = directory();
    let node = Node::demo(home.path());
    let client = Client::open(node.grpc);
    let state = |client: &Client, ready: u64| {
        // `ready` is the second field of the request.
        let only_ready = [0x10, ready as u8];
        let index: Index = client.call(&path("RepositoryIndex"), &[], &only_ready).ok();
        let digits = index
            .models
            .into_iter()
            .find(|model| model.name == "digits");
        digits.map(|digits| digits.state)
    };
    assert_eq!(state(&client, 1).as_deref(), Some("READY"));
    // Triton's clients name a repository first, if any; KServe's have no such thing.
    let (triton, kserve) = (named("", "digits"), named("digits", ""));
    for asked in [&triton, &kserve] {
        let done: Done = client.call(&path("RepositoryModelUnload"), &[], asked).ok();
        assert_eq!((done.model_name.as_str(), done.is_done), ("digits", true));
        assert_eq!(state(&client, 1), None);
        assert_ne!(state(&client, 0).as_deref(), Some("READY"));
        let pixels = vec![vec![0.0; 64]];
        let request = InferRequest::of("digits", "pixels", &pixels);
        assert_eq!(client.infer(&request).ended().0, 14, "UNAVAILABLE");
        let done: Done = client.call(&path("RepositoryModelLoad"), &[], asked).ok();
        assert_eq!((done.model_name.as_str(), done.is_done), ("digits", true));
        let _: InferResponse = client.infer(&request).ok();
        assert_eq!(state(&client, 1).as_deref(), Some("READY"));
    }
    let unknown = client.call(&path("RepositoryModelLoad"), &[], &named("", "nobody"));
    assert_eq!(unknown.ended(), (5, "MODEL_NOT_FOUND"));
    // A parameter named `config` with a text.
    let mut config = triton.clone();
    config.extend(b"\x1a\x0d\x0a\x06config\x12\x03\x1a\x01x");
    let refused = client.call(&path("RepositoryModelLoad"), &[], &config);
    assert_eq!(refused.ended(), (12, "UNSUPPORTED"));
    assert!(
        refused.sentence().contains("config"),
        "{}",
        refused.sentence()
    );
}
