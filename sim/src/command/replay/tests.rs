//! Records on the command line: the same, altered, and damaged.

use paceline_core::admission::{Admission, Input, Options};
use paceline_core::detector::{self, Detector};
use paceline_core::record::{Kept, Recorded, write};
use paceline_core::{Instant, Machine as _};
use paceline_protocol::{Criticality, NodeId, TenantId};

use super::*;

/// A record of three machines: of ten steps, of one, and of none.
fn kept() -> [Kept; 3] {
    let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
    let mut admission = Recorded::new(
        Admission::new(Options {
            permits: 3,
            ..Options::default()
        }),
        65_536,
    );
    for turn in 0..10 {
        let deadline = at(5);
        admission.step(
            at(turn),
            Input::Arrive {
                deadline,
                criticality: Criticality::default(),
                tenant: TenantId::DEFAULT,
                in_parts: false,
            },
            &mut Vec::new(),
        );
    }
    let options = detector::Options::default();
    let mut detector = Recorded::new(Detector::new(options, at(0)), 65_536);
    detector.wake(at(1_500), &mut Vec::new());
    let idle = Recorded::new(Detector::new(options, at(0)), 65_536);
    let recorded = [
        admission.recording(),
        detector.recording(),
        idle.recording(),
    ];
    let mut instances = ["", "of node 7", "of a node with a long name"].into_iter();
    recorded.map(|recording| Kept {
        instance: instances.next().unwrap_or_default().to_owned(),
        recording: recording.expect("it is recorded"),
    })
}

/// Exit code, stdout and stderr of the command on a file of these bytes.
fn replay(bytes: &[u8], output: OutputFormat) -> (ExitCode, String, String) {
    replay_with(bytes, output, false)
}

fn replay_with(bytes: &[u8], output: OutputFormat, steps: bool) -> (ExitCode, String, String) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let arguments = ReplayArgs {
        file: file.path().to_owned(),
        steps,
        output,
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = arguments.run(&mut out, &mut err).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (code, text(out), text(err))
}

#[test]
fn a_record_is_replayed_to_the_same_effects() {
    let file = write(NodeId(3), RELEASE, &kept()).unwrap();
    let (code, table, talk) = replay(&file, OutputFormat::Table);
    assert_eq!((code, talk.as_str()), (ExitCode::SUCCESS, ""));
    let wanted = "\
node     3
release  0.1.0
MACHINE                STEPS   EFFECTS   MISSING        FROM          TO  SAME
admission                 10        10         0    0.000000    0.009000  yes
detector of node 7         1         2         0    1.500000    1.500000  yes
1 more were not stepped
";
    assert_eq!(table.replace(RELEASE, "0.1.0"), wanted);
    let (_, json, _) = replay(&file, OutputFormat::Json);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["is_same"], true);
    assert_eq!(json["machines"][1]["effects"], 2);
    assert_eq!(json["machines"][0]["to_nanos"], 9_000_000);
}

#[test]
fn every_step_is_shown_in_the_order_of_time_if_that_is_wished() {
    let file = write(NodeId(3), RELEASE, &kept()).unwrap();
    let (_, table, _) = replay_with(&file, OutputFormat::Table, true);
    let lines: Vec<&str> = table.lines().collect();
    let first = "      0.000000  admission: Arrive { deadline: Instant(5000000), criticality: Critical, tenant: TenantId(0), in_parts: false } → Admit";
    assert_eq!(lines[0], first);
    assert_eq!(
        lines[10],
        "      1.500000  detector of node 7: wake → Suspect, Lost"
    );
    assert_eq!(lines[11], "node     3");
    let (_, json, _) = replay_with(&file, OutputFormat::Json, true);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["steps"][10]["said"], "Suspect, Lost");
}

/// The bytes of a record whose admission hears of another deadline at its third step.
fn with_an_altered_input() -> Vec<u8> {
    let body = paceline_protocol::wire::encode(&kept().as_slice()).unwrap();
    let deadline = paceline_protocol::wire::encode(&Instant::from_nanos(5_000_000)).unwrap();
    let is_deadline = |at: &usize| body[*at..].starts_with(&deadline);
    let third = (0..body.len()).filter(is_deadline).nth(2).unwrap();
    let mut altered = body.clone();
    let zero = paceline_protocol::wire::encode(&Instant::ZERO).unwrap();
    altered.splice(third..third + deadline.len(), zero);
    let file = write(NodeId(3), RELEASE, &kept()).unwrap();
    let (header, _) = paceline_protocol::record::open(&file).unwrap();
    paceline_protocol::record::seal(&header, &altered).unwrap()
}

#[test]
fn an_altered_input_is_shown_with_what_was_said_and_is_said() {
    let file = with_an_altered_input();
    let (code, table, _) = replay(&file, OutputFormat::Table);
    assert_eq!(code, ExitCode::FAILURE);
    let wanted = "
admission, step 3, at 0.002000:
  told      Arrive { deadline: Instant(0), criticality: Critical, tenant: TenantId(0), in_parts: false }
  recorded  Admit
  replayed  Refuse(Expired)
";
    assert!(table.ends_with(wanted), "{table}");
    assert!(table.contains("NO, at step 3"), "{table}");
    let (code, json, _) = replay(&file, OutputFormat::Json);
    assert_eq!(code, ExitCode::FAILURE);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["is_same"], false);
    assert_eq!(json["machines"][0]["divergence"]["recorded"], "Admit");
    assert_eq!(json["machines"][1]["divergence"], serde_json::Value::Null);
}

#[test]
fn what_is_no_whole_record_is_refused_by_name() {
    let file = write(NodeId(3), RELEASE, &kept()).unwrap();
    let refused = |bytes: &[u8], wanted: &str| {
        let (code, out, talk) = replay(bytes, OutputFormat::Table);
        assert_eq!((code, out.as_str()), (ExitCode::FAILURE, ""));
        assert!(talk.contains(wanted), "{talk}");
    };
    let half = file.len() / 2;
    let truncated = format!("truncated: {half} of {} bytes are there", file.len());
    refused(&file[..half], &truncated);
    refused(
        b"PK\x03\x04 something else altogether",
        "no record of a node",
    );
    let mut damaged = file.clone();
    damaged[half] ^= 1;
    refused(&damaged, "damaged");
    let other = write(NodeId(3), "0.0.9", &kept()).unwrap();
    let (code, _, talk) = replay(&other, OutputFormat::Table);
    assert_eq!(code, ExitCode::SUCCESS);
    assert!(talk.contains("release 0.0.9 made the record"), "{talk}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let arguments = ReplayArgs {
        file: "no/such.record".into(),
        steps: false,
        output: OutputFormat::Table,
    };
    let mut err = Vec::new();
    let code = arguments.run(&mut Vec::new(), &mut err).unwrap();
    let talk = String::from_utf8(err).unwrap();
    assert_eq!(code, ExitCode::FAILURE);
    assert!(talk.contains("'no/such.record' cannot be opened"), "{talk}");
}
