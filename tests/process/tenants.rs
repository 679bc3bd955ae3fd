//! Tenants: keys that are shown over HTTP, limits that hold, and what is whose.

use std::path::Path;
use std::time::Duration;

use paceline_client::blocking::Client;
use paceline_client::{ClientOptions, Tensor, Trust};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::http::{Answer, Connection, Request};
use crate::metrics::{samples, value};
use crate::node::{Node, address, directory, example, until};

/// A request for the identity model, with a key if there is one.
fn request(key: Option<&str>) -> Request {
    let inputs = json!([{"name": "INPUT0", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]);
    let body = json!({ "inputs": inputs }).to_string();
    let request = Request::post("/v2/models/identity/infer", body);
    match key {
        Some(key) => request.header("Authorization", format!("Bearer {key}")),
        None => request,
    }
}

fn code(answer: &Answer) -> String {
    let body: Value = answer.json();
    body["code"].as_str().unwrap_or_default().to_owned()
}

/// A key of a tenant, as the command prints it.
fn add_key(node: &Node, tenant: &str) -> String {
    let made = node.cli(&["tenant", "key", "add", tenant]);
    assert!(made.status.success(), "{made:?}");
    assert!(
        made.stderr.contains("shown this once") && !made.stderr.contains("pk_"),
        "{made:?}"
    );
    made.stdout.trim().to_owned()
}

/// The id of a key, which is no secret.
fn id_of(key: &str) -> &str {
    key.split('_').nth(1).expect("a key has an id")
}

#[test]
fn keys_say_who_somebody_is_until_they_are_revoked() {
    let data = directory();
    let node = Node::demo(data.path());
    let set = node.cli(&["tenant", "set", "blue", "--weight", "3"]);
    assert!(set.stdout.contains("applied on 1 of 1"), "{set:?}");
    let (first, second) = (add_key(&node, "blue"), add_key(&node, "blue"));
    let third = node.cli(&["tenant", "key", "add", "blue"]);
    assert_eq!(third.status.code(), Some(3), "{third:?}");
    assert!(third.stderr.contains("LIMIT_REACHED"), "{third:?}");

    for key in [None, Some(first.as_str()), Some(&second), Some("sk-other")] {
        assert_eq!(node.ask(&request(key)).status, 200, "{key:?}");
    }
    let other = if &first[20..21] == "a" { "b" } else { "a" };
    let mistyped = format!("{}{other}{}", &first[..20], &first[21..]);
    for (wrong, said) in [
        (mistyped.as_str(), "mistyped"),
        ("pk_abc", "reads pk_<id>_<secret>"),
    ] {
        let refused = node.ask(&request(Some(wrong)));
        assert_eq!((refused.status, &*code(&refused)), (401, "UNAUTHENTICATED"));
        assert!(refused.text().contains(said), "{}", refused.text());
        assert!(!refused.text().contains(&first[20..60]));
    }

    // A revoked key is refused on a connection that has shown it before.
    let mut connection = Connection::open(node.http);
    assert_eq!(connection.ask(&request(Some(&first))).status, 200);
    let revoked = node.cli(&["tenant", "key", "revoke", id_of(&first)]);
    assert!(revoked.status.success(), "{revoked:?}");
    let refused = connection.ask(&request(Some(&first)));
    assert_eq!((refused.status, &*code(&refused)), (401, "UNAUTHENTICATED"));
    assert!(refused.text().contains("revoked"), "{}", refused.text());
    assert_eq!(connection.ask(&request(Some(&second))).status, 200);

    each_to_its_own(&node, &second);

    // Where keys are required, nobody is anonymous, and who watches the node needs none.
    let admin = add_key(&node, "default");
    node.kill9();
    let node = Node::again(data.path(), &["--set", "admission.keys_required=true"]);
    assert_eq!(node.ask(&request(None)).status, 401);
    assert_eq!(node.ask(&request(Some("sk-other"))).status, 401);
    assert_eq!(node.ask(&request(Some(&second))).status, 200);
    for path in [
        "/v2",
        "/v2/models",
        "/v2/models/identity",
        "/v2/paceline/nodes",
    ] {
        assert_eq!(node.get(path).status, 401, "{path}");
    }
    for path in ["/v2/health/live", "/v2/health/ready"] {
        assert_eq!(node.get(path).status, 200, "{path}");
    }
    over_the_sdk(&node, data.path(), (&second, &admin));
    assert!(node.scrape().contains("paceline_"));
    assert_eq!(node.cli(&["status"]).status.code(), Some(1));
    let listed = node.cli(&["tenant", "list", "--api-key", &admin]);
    assert!(listed.stdout.contains(id_of(&admin)), "{listed:?}");
    assert!(!listed.stdout.contains(id_of(&second)), "{listed:?}");
    assert!(!listed.stdout.contains(&admin[20..60]), "no secret is kept");
}

/// What a tenant owns is not another's to change, and only `default` administers.
fn each_to_its_own(node: &Node, key: &str) {
    let digits = example("digits");
    let digits = digits.to_str().expect("UTF-8");
    let as_blue = ["--api-key", key];
    let pushed = [&["model", "push", "blues", digits][..], &as_blue].concat();
    assert!(node.cli(&pushed).status.success());
    assert_eq!(
        node.cli_json(&["model", "show", "blues"])["owner"],
        json!("blue")
    );
    let foreign = [&["model", "delete", "identity", "--yes"][..], &as_blue].concat();
    let refused = node.cli(&foreign);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    assert!(refused.stderr.contains("PERMISSION_DENIED"), "{refused:?}");
    for command in [&["token", "create"][..], &["tenant", "list"]] {
        let refused = node.cli(&[command, &as_blue[..]].concat());
        assert_eq!(refused.status.code(), Some(3), "{refused:?}");
        assert!(refused.stderr.contains("'default'"), "{refused:?}");
    }
    let owns = node.cli(&["tenant", "delete", "blue"]);
    assert!(owns.stderr.contains("'blues'"), "{owns:?}");
}

/// The same over QUIC: who shows no key is not let in, and a key that is revoked is refused on the
/// connection that has shown it.
fn over_the_sdk(node: &Node, data: &Path, (key, admin): (&str, &str)) {
    let connect = |key: Option<&str>| {
        let pem = std::fs::read_to_string(data.join("ca.crt")).expect("it is there");
        let options = ClientOptions {
            api_key: key.map(|key| key.parse().expect("it is a key")),
            ..ClientOptions::new(Trust::Authority(pem))
        };
        Client::connect([address(data, "sdk").to_string()], options)
    };
    let refused = connect(None).err().expect("a key is required");
    assert!(refused.to_string().contains("API key"), "{refused}");
    let client = connect(Some(key)).expect("the key is accepted");
    let infer = || {
        let row = Tensor::from_f32(2, &[1.0, 2.0]);
        client.infer("identity").input("INPUT0", row).send()
    };
    infer().expect("blue may infer");
    let revoke = ["tenant", "key", "revoke", id_of(key), "--api-key", admin];
    assert!(node.cli(&revoke).status.success());
    let refused = infer().expect_err("it was revoked").to_string();
    assert!(refused.contains("revoked"), "{refused}");
}

#[test]
fn a_rate_holds_over_all_nodes_and_says_when_to_come_again() {
    let cluster = Cluster::of_three();
    let node = cluster.node(0);
    let set = node.cli(&["tenant", "set", "capped", "--rate", "30"]);
    assert!(set.status.success(), "{set:?}");
    let key = add_key(node, "capped");
    let mut doors: Vec<Connection> = (0..3)
        .map(|number| Connection::open(cluster.node(number).http))
        .collect();
    let (began, mut let_in, mut limited) = (std::time::Instant::now(), 0, 0);
    let time = Duration::from_secs(6);
    while began.elapsed() < time {
        for door in &mut doors {
            let answer = door.ask(&request(Some(&key)));
            match answer.status {
                200 => let_in += 1,
                429 => {
                    assert_eq!(code(&answer), "TENANT_LIMITED");
                    let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
                    assert!((1..=2).contains(&after), "{after} s");
                    limited += 1;
                }
                other => panic!("{other}: {}", answer.text()),
            }
        }
    }
    // The bound that is documented: the rate and its sixteenth, and a second's worth at once.
    let most = 32 * (time.as_secs() + 1 + 1);
    assert!((150..=most).contains(&let_in), "{let_in} of {most}");
    assert_eq!(
        node.ask(&request(None)).status,
        200,
        "others are not limited"
    );
    assert_eq!(counted(&cluster, "admitted"), let_in as f64);
    assert_eq!(counted(&cluster, "limited"), limited as f64);
    assert!(node.cli(&["tenant", "delete", "capped"]).status.success());
    until(Duration::from_secs(10), "the tenant is forgotten", || {
        !node.scrape().contains("capped")
    });
}

/// Requests of `capped` on all nodes, by what became of them at the door.
fn counted(cluster: &Cluster, outcome: &str) -> f64 {
    let of = |number| {
        let samples = samples(&cluster.node(number).scrape());
        let labels = [("tenant", "capped"), ("outcome", outcome)];
        value(&samples, "paceline_tenant_requests_total", &labels)
    };
    (0..3).map(of).sum()
}
