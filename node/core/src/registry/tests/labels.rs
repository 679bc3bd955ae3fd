//! Labels: where they point, that they keep a version, and how they are refused.

use paceline_protocol::Label;
use paceline_protocol::limits::{LABELS_MAX, VERSIONS_KEPT_MAX};

use super::*;

impl Log {
    fn label(&mut self, label: &str, version: Option<u32>) -> Result<Reply, Refusal> {
        self.apply(Change::SetLabel {
            model: name("m"),
            label: Label::new(label).unwrap(),
            version: version.map(VersionNumber),
        })
    }

    fn labels(&self) -> Vec<(&str, u32)> {
        let labels = &self.registry.models()[&name("m")].labels;
        let labels = labels.iter();
        labels
            .map(|(label, version)| (label.as_str(), version.0))
            .collect()
    }
}

#[test]
fn a_label_points_to_one_version_and_moves_in_one_entry() {
    let mut log = Log::new();
    for digest in 1..=2 {
        log.publish("m", digest).unwrap();
    }
    log.label("stable", Some(1)).unwrap();
    log.label("next", Some(2)).unwrap();
    assert_eq!(log.labels(), [("next", 2), ("stable", 1)]);
    log.label("stable", Some(2)).unwrap();
    assert_eq!(log.labels(), [("next", 2), ("stable", 2)]);
    let revision = log.registry.models()[&name("m")].revision;
    assert_eq!(
        revision,
        log.registry.epoch(),
        "it is a change of the model"
    );
    log.label("next", None).unwrap();
    assert_eq!(log.labels(), [("stable", 2)]);
    assert_eq!(log.registry.assignments_changed_at(), Epoch(0));
}

#[test]
fn what_does_not_exist_has_no_label_and_too_many_are_refused() {
    let mut log = Log::new();
    let unknown = Refusal::ModelUnknown { model: name("m") };
    assert_eq!(log.label("a", Some(1)), Err(unknown));
    log.publish("m", 1).unwrap();
    let refused = log.label("a", Some(2)).unwrap_err().to_string();
    assert_eq!(refused, "model 'm' has no version 2; its versions: 1");
    let refused = log.label("a", None).unwrap_err().to_string();
    assert_eq!(refused, "model 'm' has no label 'a'; its labels: none");
    for number in 0..LABELS_MAX {
        log.label(&format!("l{number}"), Some(1)).unwrap();
    }
    let refused = log.label("a", Some(1)).unwrap_err().to_string();
    assert!(refused.contains("16 labels of model 'm'"), "{refused}");
    log.label("l3", Some(1)).unwrap();
}

#[test]
fn a_version_with_a_label_is_not_forgotten() {
    let mut log = Log::new();
    log.publish("m", 1).unwrap();
    log.publish("m", 2).unwrap();
    log.label("first", Some(1)).unwrap();
    for digest in 3..=(VERSIONS_KEPT_MAX as u8 + 2) {
        log.publish("m", digest).unwrap();
    }
    let versions = &log.registry.models()[&name("m")].versions;
    assert!(versions.contains_key(&VersionNumber(1)));
    assert!(!versions.contains_key(&VersionNumber(2)), "the oldest goes");
}
