//! The node describes itself: every path, and every error code.

use serde_json::Value;

use crate::http::Request;
use crate::node::{Node, directory, paceline};

/// Each described path is answered with each described method: by names that nothing has, so that
/// nothing changes.
#[test]
fn what_is_described_is_answered() {
    let home = directory();
    let node = Node::demo(home.path());
    let document = node.get("/openapi.json").ok();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().expect("paths");
    let mut connection = node.connect();
    let mut asked = 0;
    for (path, item) in paths {
        for (name, method) in METHODS {
            let filled = path.replace('{', "no-").replace('}', "");
            let body = if method == "GET" { "" } else { "{}" };
            let answer = connection.ask(&Request::new(method, filled, body.into()));
            let is_described = item.get(name).is_some();
            let said = String::from_utf8_lossy(&answer.body);
            let is_unknown = answer.status == 404 && said.contains("nothing answers under");
            assert!(!is_unknown, "{method} {path} is not served: {said}");
            assert_eq!(
                answer.status != 405,
                is_described,
                "{method} {path}: {said}"
            );
            asked += usize::from(is_described);
            if answer.header("connection") == Some("close") {
                connection = node.connect();
            }
        }
    }
    assert!(asked > 90, "{asked}");
    assert_eq!(
        node.get("/v2/models/digits/ready").status,
        200,
        "nothing has changed"
    );
}

const METHODS: [(&str, &str); 4] = [
    ("get", "GET"),
    ("post", "POST"),
    ("put", "PUT"),
    ("delete", "DELETE"),
];

#[test]
fn the_page_the_path_and_the_command_know_the_same_codes() {
    let told = Node::shared().get("/v2/paceline/errors").ok();
    let explained = paceline(&["explain", "-o", "json"]);
    let explained: Value = serde_json::from_str(&explained.stdout).expect("JSON");
    assert_eq!(told, explained);
    let page = include_str!("../../docs/errors.md").lines();
    let page: Vec<&str> = page.filter(|line| line.starts_with("| `")).collect();
    let text = |code: &Value, key: &str| code[key].as_str().expect(key).to_owned();
    let row = |code: &Value| {
        let retry = if code["retryable"] == true {
            "yes"
        } else {
            "no"
        };
        format!(
            "| `{}` | {} | {} {} | {retry} | {} | {} |",
            text(code, "code"),
            code["http"],
            code["grpc"],
            text(code, "status"),
            text(code, "cause"),
            text(code, "remedy")
        )
    };
    let rows: Vec<String> = told.as_array().expect("codes").iter().map(row).collect();
    assert_eq!(
        page,
        rows,
        "docs/errors.md is to have these rows:\n{}",
        rows.join("\n")
    );
}
