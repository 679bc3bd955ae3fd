//! Shadows: state, change, exact state.

use paceline_protocol::limits::{SHADOWS_MAX, VERSIONS_KEPT_MAX};
use paceline_protocol::registry::{CanaryGuards, CanaryPlan, CanaryStage, ShadowPlan};

use super::*;

impl Log {
    fn shadow(&mut self, version: u32, weight: u16) -> Result<Reply, Refusal> {
        self.apply(Change::SetShadow {
            model: name("m"),
            plan: ShadowPlan {
                version: VersionNumber(version),
                replicas: ReplicaTarget::Count(1),
                weight,
            },
        })
    }

    fn off(&mut self) -> Result<Reply, Refusal> {
        self.apply(Change::EndShadow { model: name("m") })
    }

    /// The version that gets copies, its share, and since when.
    fn copies(&self) -> Option<(u32, u16, Epoch)> {
        let shadow = self.registry.models()[&name("m")].shadow;
        shadow.map(|shadow| {
            let ShadowPlan {
                version, weight, ..
            } = shadow.plan;
            (version.0, weight, shadow.since)
        })
    }

    fn try_out(&mut self, version: u32) -> Result<Reply, Refusal> {
        let stages = vec![CanaryStage {
            weight: 100,
            hold_ms: 1,
        }];
        self.apply(Change::BeginCanary {
            model: name("m"),
            plan: Box::new(CanaryPlan {
                version: VersionNumber(version),
                replicas: ReplicaTarget::Count(1),
                stages,
                guards: CanaryGuards::default(),
            }),
        })
    }
}

/// Version 1 serves, and versions up to `versions` are known.
fn serving(versions: u8) -> Log {
    let mut log = Log::new();
    log.apply(Change::RegisterNode(node(1, "n0"))).unwrap();
    for digest in 1..=versions {
        log.publish("m", digest).unwrap();
    }
    log.deploy("m", 1).unwrap();
    serve(&mut log, 1);
    log
}

fn serve(log: &mut Log, version: u32) {
    let computed_at = log.registry.epoch();
    log.apply(Change::Activate {
        model: name("m"),
        version: VersionNumber(version),
        computed_at,
    })
    .unwrap();
}

#[test]
fn a_share_that_changes_keeps_what_was_copied_and_another_version_begins_anew() {
    let mut log = serving(3);
    log.shadow(2, 1_000).unwrap();
    let since = log.registry.epoch();
    assert_eq!(log.copies(), Some((2, 1_000, since)));
    assert_eq!(log.registry.assignments_changed_at(), since);
    log.shadow(2, 2_000).unwrap();
    assert_eq!(log.copies(), Some((2, 2_000, since)));
    log.shadow(3, 2_000).unwrap();
    assert_eq!(log.copies(), Some((3, 2_000, log.registry.epoch())));
    log.off().unwrap();
    assert_eq!(log.copies(), None);
    assert_eq!(log.registry.assignments_changed_at(), log.registry.epoch());
    let model = name("m");
    assert_eq!(log.off(), Err(Refusal::NoShadow { model }));
}

#[test]
fn what_serves_is_tried_or_unknown_is_no_shadow_and_the_refusal_says_so() {
    let mut log = serving(3);
    let (model, version) = (name("m"), VersionNumber);
    let refused = log.shadow(1, 1_000).unwrap_err();
    assert_eq!(
        refused,
        Refusal::ServesAlready {
            model: model.clone(),
            version: version(1)
        }
    );
    assert!(matches!(
        log.shadow(9, 1_000),
        Err(Refusal::VersionUnknown { .. })
    ));
    assert_eq!(log.shadow(2, 0), Err(Refusal::ShadowShare { weight: 0 }));
    log.try_out(2).unwrap();
    let canary = Refusal::IsCanary {
        model: model.clone(),
        version: version(2),
    };
    assert_eq!(log.shadow(2, 1_000), Err(canary));
    log.shadow(3, 1_000).unwrap();
    log.apply(Change::AbortCanary {
        model: model.clone(),
        since: None,
        reason: String::new(),
    })
    .unwrap();
    let shadow = Refusal::IsShadow {
        model,
        version: version(3),
    };
    let refused = log.try_out(3).unwrap_err();
    assert_eq!(refused, shadow);
    assert!(refused.to_string().contains("`paceline shadow m --off`"));
    let mut unserved = Log::new();
    unserved.publish("m", 1).unwrap();
    assert!(matches!(
        unserved.shadow(1, 1),
        Err(Refusal::NoStableVersion { .. })
    ));
}

#[test]
fn a_shadow_that_comes_to_serve_is_none_any_more() {
    let mut log = serving(2);
    log.shadow(2, 1_000).unwrap();
    log.deploy("m", 2).unwrap();
    assert!(log.copies().is_some(), "until it serves");
    serve(&mut log, 2);
    assert_eq!(log.copies(), None);
    assert!(log.shadow(1, 1_000).is_ok(), "the other way round");
}

#[test]
fn a_shadow_is_not_forgotten_and_there_are_not_too_many() {
    let mut log = serving(2);
    log.shadow(2, 1_000).unwrap();
    for digest in 3..=VERSIONS_KEPT_MAX as u8 + 2 {
        log.publish("m", digest).unwrap();
    }
    let kept = log.registry.models()[&name("m")].versions.keys();
    let kept: Vec<u32> = kept.map(|version| version.0).take(3).collect();
    assert_eq!(kept, [1, 2, 5], "3 and 4 are neither");

    let mut registry = Registry::default();
    std::mem::swap(&mut registry, &mut log.registry);
    let taken = (0..SHADOWS_MAX).map(|number| name(&format!("s{number}")));
    let taken = taken.map(|other| (other, registry.models[&name("m")].clone()));
    let taken: Vec<_> = taken.collect();
    registry.models.extend(taken);
    log.registry = registry;
    let limit = Refusal::Limit {
        what: "shadows".into(),
        limit: SHADOWS_MAX as u64,
    };
    assert_eq!(log.shadow(2, 2_000), Err(limit));
}
