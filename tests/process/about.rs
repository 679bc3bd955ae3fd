//! What the protocol tells about the server and its models, and HTTP's own rules.

use serde_json::json;

use crate::http::Request;
use crate::node::Node;

#[test]
fn server_and_models_describe_themselves() {
    let node = Node::shared();
    let server = node.get("/v2").ok();
    assert_eq!(server["name"], "paceline");
    assert_eq!(server["version"], env!("CARGO_PKG_VERSION"));
    let extensions = server["extensions"].as_array().unwrap();
    assert!(
        extensions.contains(&json!("binary_tensor_data")),
        "{server}"
    );
    let models = json!({"models": ["digits", "identity", "machine-failure"]});
    assert_eq!(node.get("/v2/models").ok(), models);
    let digits = json!({
        "name": "digits",
        "versions": ["1"],
        "platform": "paceline_mlp",
        "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
            {"name": "label", "datatype": "BYTES", "shape": [-1, 1]},
        ],
    });
    assert_eq!(node.get("/v2/models/digits").ok(), digits);
    assert_eq!(node.get("/v2/models/digits/versions/1").ok(), digits);
    let identity = node.get("/v2/models/identity").ok();
    assert_eq!(identity["inputs"][0]["shape"], json!([-1, -1]));
}

#[test]
fn health_is_told_as_the_protocol_has_it() {
    let node = Node::shared();
    assert_eq!(node.get("/v2/health/live").ok(), json!({"live": true}));
    assert_eq!(node.get("/v2/health/ready").ok(), json!({"ready": true}));
    for path in [
        "/v2/models/digits/ready",
        "/v2/models/digits/versions/1/ready",
    ] {
        assert_eq!(
            node.get(path).ok(),
            json!({"name": "digits", "ready": true})
        );
    }
    for path in [
        "/v2/models/nope/ready",
        "/v2/models/digits/versions/7/ready",
    ] {
        assert_eq!(node.get(path).status, 404, "{path}");
    }
}

#[test]
fn head_has_the_headers_of_get_and_no_body() {
    let mut connection = Node::shared().connect();
    let paths = [
        "/v2",
        "/v2/health/live",
        "/v2/models/digits",
        "/v2/paceline/status",
    ];
    for path in paths {
        let head = connection.ask(&Request::new("HEAD", path, Vec::new()));
        let answer = connection.ask(&Request::get(path));
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        let length = head.header("content-length").unwrap();
        if path != "/v2/paceline/status" {
            assert_eq!(length, answer.body.len().to_string(), "{path}");
        }
        assert_eq!(head.header("content-type"), Some("application/json"));
    }
}

#[test]
fn a_client_that_waits_for_continue_is_told_to_go_on() {
    let mut connection = Node::shared().connect();
    let body = r#"{"inputs":[{"name":"INPUT0","shape":[1,1],"datatype":"FP32","data":[4]}]}"#;
    let request = Request::post("/v2/models/identity/infer", body).header("Expect", "100-continue");
    let bytes = request.bytes();
    let (head, body) = bytes.split_at(bytes.len() - body.len());
    connection.write(head).unwrap();
    connection.write(body).unwrap();
    let answer = connection.read("POST").unwrap().ok();
    assert_eq!(answer["outputs"][0]["data"], json!([4.0]));
}
