//! Tokens, nodes that leave, contexts and load: whole commands against a real HTTP server.

use super::*;

fn nodes(state: &str) -> Value {
    let node = |id: u64, name: &str, state: &str| {
        json!({
            "id": id, "name": name, "state": state, "role": "voter", "zone": "default",
            "pid": null, "epoch": null,
            "addresses": {
                "http": null, "grpc": null, "metrics": null, "sdk": null, "peer": null,
            },
        })
    };
    json!([node(1, "n0", "up"), node(7, "n1", state)])
}

#[test]
fn a_token_is_alone_on_stdout() {
    let server = Scripted::serve(|asked| match asked.method.as_str() {
        "POST" => Reply::json(
            200,
            &json!({ "token": "pcl1.secret", "id": "4f1c", "expires_ms": 5 }),
        ),
        "GET" => Reply::json(
            200,
            &json!([{ "id": "4f1c", "expires_ms": 0, "uses_left": 2 }]),
        ),
        _ => Reply::json(200, &committed()),
    });
    let created = run(&server, &["token", "create", "--ttl", "90m", "--uses", "2"]);
    assert_eq!((created.code, created.out.as_str()), (0, "pcl1.secret\n"));
    let told = "token 4f1c for 2 nodes within 1h 30m; it is shown this once\n";
    assert_eq!(created.err, told);
    let wanted = json!({ "ttl_ms": 5_400_000, "uses": 2 });
    assert_eq!(server.asked()[0].json(), wanted);
    let exact = run(&server, &["token", "create", "-o", "json"]);
    assert_eq!(exact.json()["id"], "4f1c");

    let listed = run(&server, &["token", "list"]);
    assert_eq!(
        listed.out,
        "ID    EXPIRES IN  USES LEFT\n4f1c          0s          2\n"
    );
    let revoked = run(&server, &["token", "revoke", "4f1c"]);
    assert_eq!(
        revoked.out,
        "revoked 4f1c: committed at 12, applied on 1 of 1\n"
    );
    let asked = server.lines();
    let last = asked.last().unwrap();
    assert!(
        last.starts_with("DELETE /v2/paceline/tokens/4f1c?op="),
        "{last}"
    );
}

#[test]
fn a_drain_is_awaited_until_the_node_is_empty() {
    let mut looks = 0;
    let server = Scripted::serve(move |asked| {
        if asked.method == "POST" {
            return Reply::json(200, &committed());
        }
        looks += 1;
        match looks {
            1 | 2 => Reply::json(200, &nodes("up")),
            3 => Reply::error(503, "SHUTTING_DOWN", "for a moment"),
            4 => Reply::json(200, &nodes("draining")),
            _ => Reply::json(200, &nodes("drained")),
        }
    });
    let drained = run(&server, &["drain", "n1", "--deadline", "20s"]);
    assert_eq!(drained.code, 0, "{}", drained.err);
    let wanted = "n1 (id 7) is drained: committed at 12, applied on 1 of 1\n";
    assert_eq!(drained.out, wanted);
    for progress in ["n1 (id 7): up\n", "for a moment\n", "n1 (id 7): draining\n"] {
        assert!(drained.err.contains(progress), "{}", drained.err);
    }
    let asked = server.asked();
    assert_eq!(asked[1].line(), "POST /v2/paceline/nodes/7/drain");
    assert_eq!(asked[1].json()["deadline_ms"], 20_000);
}

#[test]
fn a_drain_of_oneself_asks_who_that_is() {
    let status = json!({
        "cluster": "c", "node": 7, "name": "n1", "version": "0.1.0", "ready": true, "epoch": 1,
        "raft": {
            "role": "follower", "term": 3, "leader": 1, "last_log": 1, "committed": 1,
            "applied": 1, "voters": [1, 7],
        },
        "survivable_losses": 0, "models": 0, "models_ready": 0, "uptime_seconds": 1,
        "devices": [], "degraded": [],
    });
    let server = Scripted::serve(move |asked| match asked.line().as_str() {
        "GET /v2/paceline/status" => Reply::json(200, &status),
        "GET /v2/paceline/nodes" => Reply::json(200, &nodes("drained")),
        _ => Reply::json(200, &committed()),
    });
    let drained = run(&server, &["drain", "--self", "-o", "json"]);
    assert_eq!(drained.code, 0, "{}", drained.err);
    let json = drained.json();
    assert_eq!(
        (&json["node"], &json["state"]),
        (&json!(7), &json!("drained"))
    );
    assert_eq!(json["epoch"], 12);
    assert_eq!(server.lines()[1], "POST /v2/paceline/nodes/7/drain");
}

#[test]
fn a_drain_that_is_refused_or_late_says_why() {
    let reason = "only 1 of 3 voters would be up and not draining";
    let server = Scripted::serve(move |asked| match asked.method.as_str() {
        "GET" => Reply::json(200, &nodes("up")),
        _ => Reply::error(409, "CONFLICT", reason),
    });
    let refused = run(&server, &["drain", "n1"]);
    assert_eq!(refused.code, 3, "{}", refused.err);
    assert!(
        refused.err.contains(&format!("error: {reason}\n")),
        "{}",
        refused.err
    );
    assert_eq!(server.asked().len(), 2, "a refusal is not repeated");

    let server = Scripted::serve(|asked| match asked.method.as_str() {
        "GET" => Reply::json(200, &nodes("draining")),
        _ => Reply::json(200, &committed()),
    });
    let late = run(&server, &["drain", "n1", "--timeout", "1s"]);
    assert_eq!(late.code, 1);
    assert!(
        late.err.contains("n1 (id 7) is not drained in time"),
        "{}",
        late.err
    );
}

#[test]
fn a_node_comes_back_or_goes_for_ever() {
    let server = Scripted::serve(|asked| match asked.method.as_str() {
        "GET" => Reply::json(200, &nodes("drained")),
        _ => Reply::json(200, &committed()),
    });
    let back = run(&server, &["undrain", "7"]);
    assert_eq!(
        back.out,
        "n1 (id 7) is up: committed at 12, applied on 1 of 1\n"
    );
    assert_eq!(server.lines()[1], "POST /v2/paceline/nodes/7/undrain");

    let alone = run(&server, &["remove", "n1"]);
    assert_eq!(alone.code, 2);
    assert!(alone.err.contains("--yes"), "{}", alone.err);
    let address = server.address().to_string();
    let remove = ["remove", "n1", "--addr", &address];
    let declined = run_with(&remove, Cursor::new("n\n"), true);
    assert_eq!(declined.code, 1);
    let agreed = run_with(&remove, Cursor::new("y\n"), true);
    assert_eq!(
        agreed.out,
        "n1 (id 7) is removed: committed at 12, applied on 1 of 1\n"
    );
    let asked = server.lines();
    let deletes: Vec<&String> = asked.iter().filter(|l| l.starts_with("DELETE")).collect();
    assert_eq!(deletes.len(), 1);
    assert!(deletes[0].starts_with("DELETE /v2/paceline/nodes/7?op="));

    let unknown = run(&server, &["undrain", "n9"]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.err.contains("its nodes: n0, n1"), "{}", unknown.err);
}

#[test]
fn a_removal_left_open_is_repeated_though_the_node_has_gone() {
    let server = Scripted::serve(|asked| match asked.method.as_str() {
        "GET" => Reply::json(200, &json!([])),
        _ => Reply::Hangup,
    });
    let open = run(&server, &["remove", "7", "--yes", "--timeout", "100ms"]);
    assert_eq!(open.code, 1);
    let (_, repeat) = open
        .err
        .split_once("`paceline remove 7 --yes --op-id ")
        .unwrap();
    let server = Scripted::serve(|asked| match asked.method.as_str() {
        "GET" => Reply::json(200, &json!([])),
        _ => Reply::json(200, &committed()),
    });
    let again = run(&server, &["remove", "7", "--yes", "--op-id", &repeat[..32]]);
    assert_eq!(
        again.out,
        "node 7 is removed: committed at 12, applied on 1 of 1\n"
    );
}

#[test]
fn a_context_says_whom_to_ask_and_an_address_wins_over_it() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = free.local_addr().unwrap();
    drop(free);
    let server = Scripted::serve(|_| Reply::json(200, &json!([])));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("context.toml");
    let node = |name: &str, http: String| format!("[[nodes]]\nname = '{name}'\nhttp = '{http}'\n");
    let text = node("n0", nobody.to_string()) + &node("n1", server.address().to_string());
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let second = run_with(
        &["nodes", "--consistent", "--context", path],
        io::empty(),
        false,
    );
    assert_eq!(second.code, 0, "{}", second.err);
    assert_eq!(server.lines(), ["GET /v2/paceline/nodes?consistent=true"]);
    let address = nobody.to_string();
    let named = ["nodes", "--context", path, "--addr", &address];
    assert_eq!(run_with(&named, io::empty(), false).code, 1);
    let absent = run_with(&["nodes", "--context", "no-such-file"], io::empty(), false);
    assert_eq!(absent.code, 2);
    assert!(absent.err.contains("no-such-file"), "{}", absent.err);
}

#[test]
fn a_load_is_measured_and_a_broken_model_is_told_before() {
    let server = inference_node();
    let rows = ["bench", "digits", "--row", "1,2,3,4", "--duration", "300ms"];
    let measured = run(
        &server,
        &[&rows[..], &["--concurrency", "2", "-o", "json"]].concat(),
    );
    assert_eq!(measured.code, 0, "{}", measured.err);
    let json = measured.json();
    assert_eq!(
        (&json["loop"], &json["version"]),
        (&json!("closed"), &json!("2"))
    );
    assert!(json["succeeded"].as_u64().unwrap() >= 2, "{json}");
    assert!(json["latency_ns"]["p50"].as_u64().unwrap() > 0, "{json}");
    assert_eq!(json["errors"], json!({}));
    let asked = server.asked();
    assert_eq!(asked.last().unwrap().line(), "POST /v2/models/digits/infer");
    assert_eq!(
        asked.last().unwrap().json()["inputs"][0]["shape"],
        json!([1, 4])
    );

    let open = run(&server, &[&rows[..], &["--rate", "20"]].concat());
    assert_eq!(open.code, 0, "{}", open.err);
    assert!(
        open.out.contains("open loop, constant, 20 requests/s due"),
        "{}",
        open.out
    );
    assert!(open.out.contains("requests   6 in "), "{}", open.out);

    let broken = Scripted::serve(|_| Reply::error(404, "MODEL_NOT_FOUND", "no such model"));
    let refused = run(&broken, &rows);
    assert_eq!((refused.code, refused.out.as_str()), (1, ""));
    assert_eq!(broken.asked().len(), 1, "no load was made");
}

/// A server that takes 20 ms for each request, one at a time, carries 50 a second.
#[test]
fn the_highest_rate_that_holds_is_found() {
    let server = inference_node_taking(Duration::from_millis(20));
    let words = "bench digits --row 1,2,3,4 --rate 100 --find-max 150ms --duration 600ms -o json";
    let found = run(&server, &words.split(' ').collect::<Vec<_>>());
    assert_eq!(found.code, 0, "{}", found.err);
    let json = found.json();
    let rate = json["rate_max"].as_u64().expect("some rate holds");
    assert!((3..=70).contains(&rate), "{json}");
    assert_eq!(json["steps"][0]["rate"], 100);
    assert_eq!(json["steps"][0]["holds"], false);
    assert!(
        found.err.contains("100/s does not hold: p99 "),
        "{}",
        found.err
    );
    assert_eq!(
        (&json["p99_max_ns"], &json["version"]),
        (&json!(150_000_000), &json!("2"))
    );
}
