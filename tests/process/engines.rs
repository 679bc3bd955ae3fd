//! Engines in processes of their own: killed, stopped, starved of memory and falsified, and what
//! their node's clients see of that. Processes are found and looked into through Linux's `/proc`.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::http::{Connection, Request};
use crate::metrics::{samples, value};
use crate::node::{Node, Stop, directory, example, until};
use crate::tensors::{HeldOut, assert_close, digits, floats};

const LIMIT: Duration = Duration::from_secs(20);
const ISOLATED: [&str; 2] = ["--set", "device.isolation=process"];

/// Processes that a process has started and that are engines.
fn engines(of: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("Linux has it").flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_one = |id: &u32| {
        let read = |file| fs::read_to_string(format!("/proc/{id}/{file}")).unwrap_or_default();
        // Behind the name, which ends with the last bracket: the state and the parent.
        let stat = read("stat");
        let behind = stat.rsplit_once(") ").map_or("", |(_, behind)| behind);
        let mut fields = behind.split(' ');
        let (state, parent) = (fields.next(), fields.next());
        let is_alive = state.is_some_and(|state| state != "Z");
        is_alive && parent == Some(&of.to_string()) && read("cmdline").contains("\0engine")
    };
    ids.filter(is_one).collect()
}

fn the_engine(node: &Node) -> u32 {
    let engines = engines(node.pid());
    assert_eq!(engines.len(), 1, "one replica, one process");
    engines[0]
}

fn send(signal: &str, process: u32) {
    let mut kill = Command::new("kill");
    let sent = kill.args([&format!("-{signal}"), &process.to_string()]);
    // It may have ended already.
    sent.status().expect("kill is there");
}

fn counter(node: &Node, name: &str) -> f64 {
    value(&samples(&node.scrape()), name, &[])
}

fn deaths(node: &Node) -> f64 {
    counter(node, "paceline_device_engine_deaths_total")
}

/// A node with one model, each replica of which has a process of its own.
fn isolated(data: &Path, model: &Path, settings: &[&str]) -> Node {
    let settings: Vec<&str> = settings.iter().flat_map(|it| ["--set", it]).collect();
    let node = Node::start(data, &[&ISOLATED[..], &settings].concat());
    let name = model.file_name().and_then(|name| name.to_str());
    let name = name.expect("a folder with a name");
    let folder = model.to_str().expect("a path in UTF-8");
    node.cli_json(&["model", "push", name, folder, "--deploy"]);
    node.wait_for(&format!("/v2/models/{name}"), |_| true);
    node
}

/// Sends held-out digits, each client its own, while `during` runs; all must be answered, and as
/// recorded. Returns how many were.
fn under_load(node: &Node, clients: usize, during: impl FnOnce()) -> u64 {
    let held_out = HeldOut::of("digits");
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        for client in 0..clients {
            let (held_out, stop, answered) = (&held_out, &stop, &answered);
            scope.spawn(move || {
                let mut connection = Connection::open(node.http);
                for row in (client..held_out.values.len()).step_by(clients).cycle() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let rows = digits(std::slice::from_ref(&held_out.values[row]));
                    let answer = connection.ask(&rows.request());
                    let said = answer.ok();
                    let recorded = std::slice::from_ref(&held_out.recorded[row]);
                    assert_close(&floats(&said, 0), recorded, 1e-5);
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        during();
    });
    answered.into_inner()
}

#[test]
fn a_killed_or_stopped_engine_costs_no_request() {
    let data = directory();
    let node = isolated(
        data.path(),
        &example("digits"),
        &["device.hung_after_ms=400"],
    );
    let mut last = the_engine(&node);
    let answered = under_load(&node, 8, || {
        for (round, signal) in ["KILL", "STOP", "KILL"].into_iter().enumerate() {
            send(signal, last);
            until(LIMIT, "the death is noticed", || {
                deaths(&node) == (round + 1) as f64
            });
            until(LIMIT, "there is another", || {
                engines(node.pid()).iter().any(|engine| *engine != last)
            });
            last = the_engine(&node);
            // A warm-up has more time than what follows it.
            thread::sleep(Duration::from_millis(300));
            node.wait_for("/v2/models/digits/ready", |_| true);
        }
    });
    assert!(answered > 100, "{answered}");
    // Its death is noticed although nothing runs, and it does not outlive its node.
    send("KILL", last);
    until(LIMIT, "the death is noticed", || deaths(&node) == 4.0);
    until(LIMIT, "there is another", || {
        !engines(node.pid()).is_empty()
    });
    let last = the_engine(&node);
    node.kill9();
    until(LIMIT, "it ends with its node", || {
        !Path::new(&format!("/proc/{last}")).exists()
    });
}

/// An engine that may take 64 MiB cannot read a row of 62 MB, and can read all others.
#[test]
fn a_row_that_kills_engines_is_found_and_refused_and_others_are_served() {
    let data = directory();
    let model = example("identity");
    let node = isolated(data.path(), &model, &["device.process_bytes_max=67108864"]);
    let body = |values: Vec<u8>| {
        let head = json!({
            "inputs": [{
                "name": "INPUT0",
                "datatype": "FP32",
                "shape": [1, values.len() / 4],
                "parameters": {"binary_data_size": values.len()}
            }]
        });
        let head = head.to_string();
        let request = Request::post(
            "/v2/models/identity/infer",
            [head.as_bytes(), &values].concat(),
        );
        request.header("Inference-Header-Content-Length", head.len())
    };
    let killer = body(vec![0; 62_000_000]);
    let innocent = |number: u8| body(vec![number; 64]);
    let began = Instant::now();
    thread::scope(|scope| {
        let poison = scope.spawn(|| node.ask(&killer));
        let mut others = 0u8;
        while !poison.is_finished() || others < 20 {
            let answer = node.ask(&innocent(others % 100));
            assert_eq!(answer.status, 200, "{}", answer.text());
            others = others.saturating_add(1);
        }
        let answer = poison.join().expect("it was answered");
        assert_eq!(answer.json()["code"], "POISON", "{}", answer.text());
    });
    assert_eq!(deaths(&node), 2.0, "with others, and alone");
    let again = node.ask(&killer);
    assert_eq!(again.json()["code"], "POISON");
    assert_eq!(deaths(&node), 2.0, "it was not tried again");
    assert_eq!(node.ask(&innocent(1)).status, 200);
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
}

/// The bias of the last layer, as its bytes lie in the file and in memory.
fn last_bias() -> Vec<u8> {
    let file = fs::read(example("digits").join("model.safetensors")).expect("it is there");
    let (length, rest) = file.split_first_chunk::<8>().expect("a header");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header: serde_json::Value = serde_json::from_slice(header).expect("JSON");
    let tensors = header.as_object().expect("tensors").iter();
    let mut biases = tensors.filter(|(_, tensor)| tensor["shape"] == json!([10]));
    let (_, bias) = biases.next_back().expect("ten classes");
    let offset = |at: usize| bias["data_offsets"][at].as_u64().expect("an offset") as usize;
    data[offset(0)..offset(1)].to_vec()
}

/// Adds noise to the model's numbers in the memory of a process; says in how many places.
fn falsify(process: u32, known: &[u8]) -> usize {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).expect("it lives");
    let options = fs::OpenOptions::new().read(true).write(true).clone();
    let memory = options
        .open(format!("/proc/{process}/mem"))
        .expect("it is ours");
    let mut places = 0;
    for line in maps.lines().filter(|line| line.contains(" rw-p ")) {
        let (range, _) = line.split_once(' ').expect("a range");
        let (start, end) = range.split_once('-').expect("two ends");
        let number = |text| u64::from_str_radix(text, 16).expect("an address");
        let (start, end) = (number(start), number(end));
        let mut content = vec![0; (end - start) as usize];
        if memory.read_exact_at(&mut content, start).is_err() {
            continue;
        }
        for at in (0..content.len().saturating_sub(known.len())).step_by(4) {
            if content[at..].starts_with(known) {
                let false_bias: Vec<u8> = (0..known.len() / 4)
                    .flat_map(|class| (class as f32 * 3.0).to_le_bytes())
                    .collect();
                let written = memory.write_all_at(&false_bias, start + at as u64);
                written.expect("it can be written to");
                places += 1;
            }
        }
    }
    places
}

#[test]
fn an_engine_that_answers_wrongly_is_noticed_and_replaced() {
    let data = directory();
    let model = example("digits");
    let node = isolated(data.path(), &model, &["device.canary_interval_ms=200"]);
    assert!(
        falsify(the_engine(&node), &last_bias()) > 0,
        "nothing was falsified"
    );
    until(LIMIT, "the canary is answered wrongly", || {
        counter(&node, "paceline_device_canary_failures_total") >= 1.0
    });
    node.wait_for("/v2/models/digits", |_| true);
    let held_out = HeldOut::of("digits");
    let rows = digits(&held_out.values[..8]);
    until(LIMIT, "the replica is back", || {
        node.ask(&rows.request()).status == 200
    });
    let said = node.ask(&rows.request()).ok();
    assert_close(&floats(&said, 0), &held_out.recorded[..8], 1e-5);
    assert_eq!(deaths(&node), 0.0, "it did not die: it lied");
}
