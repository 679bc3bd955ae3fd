//! `paceline debug record`: what it writes, says and refuses.

use paceline_protocol::NodeId;
use paceline_protocol::record::{RecordHeader, RecordedMachine, seal};

use super::*;

/// A record with two machines that were stepped and one that was not.
fn sealed() -> Vec<u8> {
    let machine = |machine: &str, steps, span_nanos| RecordedMachine {
        machine: machine.to_owned(),
        instance: String::new(),
        steps,
        unkept: 0,
        span_nanos,
    };
    let header = RecordHeader {
        release: "0.1.0".to_owned(),
        node: NodeId(7),
        machines: vec![
            machine("router", 40, Some((1_000_000_000, 3_000_000_000))),
            machine("device", 60, Some((1_500_000_000, 3_500_000_000))),
            machine("restart", 0, None),
        ],
    };
    seal(&header, &[7; 100]).unwrap()
}

fn node_that_sends(bytes: Vec<u8>) -> Scripted {
    Scripted::serve(move |asked| match asked.line().as_str() {
        "GET /v2/paceline/debug/record" => Reply::Answer(200, vec![], bytes.clone()),
        other => panic!("{other} was not expected"),
    })
}

#[test]
fn a_record_is_written_whole_and_told_on_stderr() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("n.record");
    fs::write(&path, "an older one").unwrap();
    let text = path.to_str().unwrap();
    let done = run(&node_that_sends(sealed()), &["debug", "record", "-o", text]);
    assert_eq!((done.code, done.out.as_str()), (0, ""), "{done:?}");
    assert!(
        done.err
            .starts_with("node 7: 100 steps of 2 machines in 2.5 s, "),
        "{done:?}"
    );
    assert!(done.err.contains(&format!("sim replay {text}")), "{done:?}");
    assert_eq!(fs::read(&path).unwrap(), sealed());
    let files = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, 1, "nothing is left beside it");
}

#[test]
fn what_is_no_record_or_has_no_place_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("n.record");
    let text = path.to_str().unwrap();
    let mut cut = sealed();
    cut.truncate(50);
    let done = run(&node_that_sends(cut), &["debug", "record", "-o", text]);
    assert_eq!(done.code, 1);
    assert!(done.err.contains("truncated: 50 of"), "{done:?}");
    assert!(!path.exists());
    let nowhere = folder.path().join("no").join("where");
    let nowhere = nowhere.to_str().unwrap();
    let done = run(
        &node_that_sends(sealed()),
        &["debug", "record", "-o", nowhere],
    );
    assert_eq!(done.code, 1);
    assert!(done.err.contains("cannot be written"), "{done:?}");
}
