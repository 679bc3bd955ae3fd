//! Sequences on three real nodes: whichever node they come to, and however they say what they are,
//! each has one replica. A chapter of the cluster in `leaving.rs`.

use std::collections::BTreeSet;

use paceline_client::blocking::Client;
use paceline_client::{Tensor, Unit};
use serde_json::json;

use crate::cluster::Cluster;
use crate::http::{Connection, Request};
use crate::leaving::INPUT;
use crate::metrics::{samples, value};

const SEQUENCES: u32 = 12;
/// How often each sequence asks each door.
const ASKED: usize = 4;

/// A version of model `m` serves on each node.
pub(crate) fn stay_on_one_replica(cluster: &Cluster, client: &Client) {
    let mut doors = [0, 1, 2].map(|number| Connection::open(cluster.node(number).http));
    let mut homes = BTreeSet::new();
    for number in 0..SEQUENCES {
        let name = (1_000 + number).to_string();
        let before = batches(cluster);
        for _ in 0..ASKED {
            let by_header = Request::post("/v2/models/m/infer", INPUT);
            let by_header = by_header.header("paceline-sequence", &name);
            let by_number = with_parameters(json!({
                "sequence_id": 1_000 + number,
                "sequence_start": false,
                "sequence_end": false,
            }));
            let by_text = with_parameters(json!({ "sequence_id": name }));
            for (door, request) in doors.iter_mut().zip([by_header, by_number, by_text]) {
                let answer = door.ask(&request);
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
            let input = Tensor::from_f32(1, &[1.0]);
            let sequence = Unit::new(name.as_str()).expect("digits are a name");
            let asked = client.infer("m").input("INPUT0", input);
            asked.sequence(sequence).send().expect("it is answered");
        }
        let words = ["infer", "m", "--row", "1", "--sequence", &name];
        let asked = cluster.node(2).cli(&words);
        assert!(asked.status.success(), "{asked:?}");
        let after = batches(cluster);
        let ran = [0, 1, 2].map(|node| after[node] - before[node]);
        let at: Vec<usize> = (0..3).filter(|node| ran[*node] > 0).collect();
        assert_eq!(at.len(), 1, "sequence {name} ran at {ran:?}");
        assert_eq!(ran[at[0]], 4 * ASKED as u64 + 1);
        homes.insert(at[0]);
    }
    assert!(homes.len() > 1, "all of them at {homes:?}");

    let refused = doors[0].ask(&with_parameters(json!({ "sequence_id": "a\nb" })));
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("sequence_id"), "{}", refused.text());
}

/// Batches that each node has run.
fn batches(cluster: &Cluster) -> [u64; 3] {
    [0, 1, 2].map(|number| {
        let samples = samples(&cluster.node(number).scrape());
        value(&samples, "paceline_device_batches_total", &[]) as u64
    })
}

fn with_parameters(parameters: serde_json::Value) -> Request {
    let mut body: serde_json::Value = serde_json::from_str(INPUT).expect("it is JSON");
    body["parameters"] = parameters;
    Request::post("/v2/models/m/infer", body.to_string())
}
