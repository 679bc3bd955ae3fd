//! Canaries, promotion, abortion and rollback: state, change, exact state; and no sequence of
//! changes after which traffic goes to what does not exist.

use paceline_protocol::limits::{ABORT_REASON_BYTES_MAX, CANARIES_MAX};
use paceline_protocol::registry::{CanaryGuards, CanaryPlan, CanaryStage, ShadowPlan};
use proptest::prelude::*;

use super::*;

fn plan(version: u32, weights: &[u16]) -> Box<CanaryPlan> {
    let stage = |weight: &u16| CanaryStage {
        weight: *weight,
        hold_ms: 60_000,
    };
    Box::new(CanaryPlan {
        version: VersionNumber(version),
        replicas: ReplicaTarget::Count(1),
        stages: weights.iter().map(stage).collect(),
        guards: CanaryGuards::default(),
    })
}

impl Log {
    /// Version 1 serves with one replica, and versions up to `versions` are known.
    fn with_stable(versions: u8) -> Self {
        let mut log = Self::new();
        log.apply(Change::RegisterNode(node(1, "n0"))).unwrap();
        for digest in 1..=versions {
            log.publish("m", digest).unwrap();
        }
        log.deploy("m", 1).unwrap();
        log.activate(1).unwrap();
        log
    }

    fn activate(&mut self, version: u32) -> Result<Reply, Refusal> {
        let computed_at = self.registry.epoch();
        self.apply(Change::Activate {
            model: name("m"),
            version: VersionNumber(version),
            computed_at,
        })
    }

    fn begin(&mut self, version: u32) -> Result<Reply, Refusal> {
        self.apply(Change::BeginCanary {
            model: name("m"),
            plan: plan(version, &[100, 1_000, 5_000]),
        })
    }

    fn advance(&mut self, since: Epoch, stage: u32) -> Result<Reply, Refusal> {
        let model = name("m");
        self.apply(Change::AdvanceCanary {
            model,
            since,
            stage,
        })
    }

    fn promote(&mut self, since: Option<Epoch>) -> Result<Reply, Refusal> {
        let model = name("m");
        self.apply(Change::PromoteCanary { model, since })
    }

    fn abort(&mut self, since: Option<Epoch>, reason: &str) -> Result<Reply, Refusal> {
        let (model, reason) = (name("m"), reason.to_owned());
        self.apply(Change::AbortCanary {
            model,
            since,
            reason,
        })
    }

    fn rollback(&mut self) -> Result<Reply, Refusal> {
        self.apply(Change::Rollback { model: name("m") })
    }

    fn model(&self) -> &Model {
        &self.registry.models()[&name("m")]
    }

    fn since(&self) -> Epoch {
        self.model().canary.as_ref().unwrap().since
    }

    /// Version, stage and weight of the canary.
    fn tried(&self) -> Option<(u32, Option<u32>, u16)> {
        let canary = self.model().canary.as_ref()?;
        Some((canary.plan.version.0, canary.stage, canary.weight()))
    }

    fn deployed(&self) -> u32 {
        self.model().deployment.unwrap().version.0
    }
}

const NO_CANARY: fn() -> Refusal = || Refusal::NoCanary { model: name("m") };

#[test]
fn a_canary_takes_its_stages_one_after_another_and_then_serves() {
    let mut log = Log::with_stable(2);
    log.begin(2).unwrap();
    let since = log.registry.epoch();
    assert_eq!(log.registry.assignments_changed_at(), since);
    assert_eq!(log.tried(), Some((2, None, 0)), "until it is ready");
    let stage = |stage| Refusal::CanaryStage {
        model: name("m"),
        stage,
        stages: 3,
    };
    assert_eq!(log.advance(since, 1), Err(stage(1)));
    for (at, weight) in [(0, 100), (1, 1_000), (2, 5_000)] {
        assert_eq!(log.advance(since, at), Ok(Reply::Done));
        assert_eq!(log.tried(), Some((2, Some(at), weight)));
        assert_eq!(log.advance(since, at), Err(stage(at)), "a repeat");
    }
    assert_eq!(log.advance(since, 3), Err(stage(3)));
    assert_eq!(log.model().serving, Some(VersionNumber(1)));

    assert_eq!(log.promote(Some(Epoch(since.0 - 1))), Err(NO_CANARY()));
    log.promote(Some(since)).unwrap();
    assert!(log.model().is_promoting());
    assert_eq!(
        log.tried(),
        Some((2, Some(2), 5_000)),
        "until all are ready"
    );
    assert_eq!(
        (log.deployed(), log.model().serving),
        (2, Some(VersionNumber(1)))
    );
    log.activate(2).unwrap();
    let model = log.model();
    assert_eq!(model.serving, Some(VersionNumber(2)));
    assert_eq!(
        (&model.canary, model.previous),
        (&None, Some(VersionNumber(1)))
    );
    let ended = model.ended.as_ref().unwrap();
    assert_eq!(
        (ended.version, ended.since, ended.stage),
        (VersionNumber(2), since, Some(2))
    );
    assert_eq!((ended.until, &ended.aborted), (log.registry.epoch(), &None));
}

#[test]
fn an_aborted_one_gets_nothing_from_that_entry_on_and_leaves_its_reason() {
    let mut log = Log::with_stable(3);
    log.begin(2).unwrap();
    let since = log.since();
    log.advance(since, 0).unwrap();
    let other = Some(Epoch(since.0 + 1));
    assert_eq!(
        log.abort(other, "decided for another one"),
        Err(NO_CANARY())
    );
    log.abort(Some(since), "12 of 40 failed").unwrap();
    let until = log.registry.epoch();
    assert_eq!((log.tried(), log.deployed()), (None, 1));
    assert_eq!(log.registry.assignments_changed_at(), until);
    let ended = log.model().ended.as_ref().unwrap();
    assert_eq!(ended.aborted.as_deref(), Some("12 of 40 failed"));
    assert_eq!((ended.until, ended.stage), (until, Some(0)));
    for refused in [
        log.abort(None, ""),
        log.promote(None),
        log.advance(since, 1),
    ] {
        assert_eq!(refused, Err(NO_CANARY()));
    }
    // Also while it is being promoted; a reason is cut where a character ends.
    log.begin(3).unwrap();
    log.promote(None).unwrap();
    assert_eq!(log.deployed(), 3);
    log.abort(None, &"ü".repeat(ABORT_REASON_BYTES_MAX))
        .unwrap();
    assert_eq!((log.deployed(), log.tried()), (1, None));
    let reason = log.model().ended.as_ref().unwrap().aborted.clone().unwrap();
    assert_eq!(reason.len(), ABORT_REASON_BYTES_MAX);
}

#[test]
fn a_canary_needs_a_version_that_serves_and_another_one_to_try() {
    let mut log = Log::new();
    log.publish("m", 1).unwrap();
    log.publish("m", 2).unwrap();
    let unstable = Refusal::NoStableVersion { model: name("m") };
    assert_eq!(log.begin(2), Err(unstable.clone()));
    log.deploy("m", 1).unwrap();
    assert_eq!(log.begin(2), Err(unstable.clone()), "it does not serve yet");
    log.activate(1).unwrap();
    log.deploy("m", 2).unwrap();
    assert_eq!(log.begin(2), Err(unstable), "it is about to go");
    log.deploy("m", 1).unwrap();
    let serves = Refusal::ServesAlready {
        model: name("m"),
        version: VersionNumber(1),
    };
    assert_eq!(log.begin(1), Err(serves));
    assert!(matches!(log.begin(9), Err(Refusal::VersionUnknown { .. })));
    let none = Change::BeginCanary {
        model: name("m"),
        plan: plan(2, &[]),
    };
    assert!(matches!(
        log.apply(none),
        Err(Refusal::CanaryInvalid { .. })
    ));
    let mut many = plan(2, &[100]);
    many.replicas = ReplicaTarget::Count(0);
    let many = Change::BeginCanary {
        model: name("m"),
        plan: many,
    };
    assert!(matches!(log.apply(many), Err(Refusal::ReplicaCount { .. })));
    assert_eq!(log.tried(), None);
    log.begin(2).unwrap();
}

#[test]
fn while_a_canary_is_tried_nothing_else_is_deployed_than_more_replicas() {
    let mut log = Log::with_stable(3);
    log.begin(2).unwrap();
    let under_way = Refusal::CanaryUnderWay {
        model: name("m"),
        version: VersionNumber(2),
    };
    let says = under_way.to_string();
    assert!(says.contains("`paceline model abort m`"), "{says}");
    assert_eq!(log.begin(3), Err(under_way.clone()));
    assert_eq!(log.deploy("m", 3), Err(under_way.clone()));
    assert_eq!(log.rollback(), Err(under_way));
    log.apply(Change::Deploy {
        model: name("m"),
        version: VersionNumber(1),
        replicas: ReplicaTarget::Each,
    })
    .unwrap();
    log.promote(None).unwrap();
    let deployment = log.model().deployment.unwrap();
    assert_eq!(
        deployment.replicas,
        ReplicaTarget::Each,
        "as the other one had"
    );
}

#[test]
fn a_rollback_goes_to_what_served_before_and_back_again() {
    let mut log = Log::with_stable(2);
    let none = Refusal::NoPrevious { model: name("m") };
    assert_eq!(log.rollback(), Err(none));
    log.deploy("m", 2).unwrap();
    log.rollback().unwrap();
    assert_eq!(
        log.deployed(),
        1,
        "a rollout that is under way is taken back"
    );
    log.deploy("m", 2).unwrap();
    log.activate(2).unwrap();
    log.activate(2).unwrap();
    assert_eq!(
        log.model().previous,
        Some(VersionNumber(1)),
        "a repeat changes nothing"
    );
    for (back, before) in [(1, 2), (2, 1)] {
        log.rollback().unwrap();
        assert_eq!(log.registry.assignments_changed_at(), log.registry.epoch());
        assert_eq!(log.deployed(), back);
        log.activate(back).unwrap();
        assert_eq!(log.model().previous, Some(VersionNumber(before)));
    }
}

#[test]
fn what_is_undeployed_serves_nothing_and_is_remembered_for_who_deploys_again() {
    let mut log = Log::with_stable(3);
    let undeploy = |log: &mut Log| log.apply(Change::Undeploy { model: name("m") });
    log.begin(2).unwrap();
    let under_way = Refusal::CanaryUnderWay {
        model: name("m"),
        version: VersionNumber(2),
    };
    assert_eq!(undeploy(&mut log), Err(under_way));
    log.abort(None, "").unwrap();
    let (plan, model) = (
        ShadowPlan {
            version: VersionNumber(3),
            replicas: ReplicaTarget::Count(1),
            weight: 1,
        },
        name("m"),
    );
    log.apply(Change::SetShadow { model, plan }).unwrap();
    undeploy(&mut log).unwrap();
    let model = log.model();
    assert_eq!(
        (model.deployment, model.serving, model.shadow),
        (None, None, None)
    );
    assert_eq!(model.previous, Some(VersionNumber(1)));
    assert_eq!(log.registry.assignments_changed_at(), log.registry.epoch());
    undeploy(&mut log).unwrap();
    assert_eq!(
        log.model().previous,
        Some(VersionNumber(1)),
        "a repeat keeps it"
    );

    // Another version in its place has it to go back to; the same one has nothing.
    log.deploy("m", 2).unwrap();
    log.activate(2).unwrap();
    assert_eq!(log.model().previous, Some(VersionNumber(1)));
    undeploy(&mut log).unwrap();
    log.deploy("m", 2).unwrap();
    log.activate(2).unwrap();
    assert_eq!(log.model().previous, None);
    let unknown = log.apply(Change::Undeploy { model: name("x") });
    assert_eq!(unknown, Err(Refusal::ModelUnknown { model: name("x") }));
}

#[test]
fn canaries_under_way_are_limited() {
    let mut log = Log::new();
    for number in 0..=CANARIES_MAX {
        let model = format!("m{number}");
        for digest in [1, 2] {
            log.publish(&model, digest).unwrap();
        }
        log.deploy(&model, 1).unwrap();
        let computed_at = log.registry.epoch();
        let (model, version) = (name(&model), VersionNumber(1));
        log.apply(Change::Activate {
            model: model.clone(),
            version,
            computed_at,
        })
        .unwrap();
        let plan = plan(2, &[100]);
        let begun = log.apply(Change::BeginCanary { model, plan });
        assert_eq!(begun.is_ok(), number < CANARIES_MAX, "{number}: {begun:?}");
    }
}

#[test]
fn what_served_before_and_what_is_tried_are_not_forgotten() {
    let mut log = Log::with_stable(1);
    for digest in 2..=4 {
        log.publish("m", digest).unwrap();
    }
    log.deploy("m", 3).unwrap();
    log.activate(3).unwrap();
    log.begin(2).unwrap();
    for digest in 5..=VERSIONS_KEPT_MAX as u8 + 4 {
        log.publish("m", digest).unwrap();
    }
    let kept: Vec<u32> = log.model().versions.keys().map(|v| v.0).take(4).collect();
    assert_eq!(kept, [1, 2, 3, 8], "4 to 7 are neither");
}

/// One of the changes that any node, operator or delayed leader might write, about two models.
fn changes() -> impl Strategy<Value = Change> {
    let model = || prop_oneof![3 => Just("m"), 1 => Just("n")].prop_map(name);
    let version = || (1..5_u32).prop_map(VersionNumber);
    let epoch = || (0..40_u64).prop_map(Epoch);
    let since = || proptest::option::of(epoch());
    let weights = proptest::collection::vec(0..10_001_u16, 0..4);
    // Decided now, or so long ago that it is refused.
    let at = || prop_oneof![3 => Just(Epoch(u64::MAX)), 1 => epoch()];
    prop_oneof![
        (model(), 1..9_u8).prop_map(|(model, digest)| Change::PublishVersion {
            model,
            owner: TenantName::default(),
            version: Box::new(record(digest)),
        }),
        (model(), version()).prop_map(|(model, version)| Change::Deploy {
            model,
            version,
            replicas: ReplicaTarget::Count(1),
        }),
        (model(), version(), at()).prop_map(|(model, version, computed_at)| Change::Activate {
            model,
            version,
            computed_at,
        }),
        (model(), 1..5_u32, weights).prop_map(|(model, version, mut weights)| {
            weights.sort_unstable();
            let plan = plan(version, &weights);
            Change::BeginCanary { model, plan }
        }),
        (model(), epoch(), 0..4_u32).prop_map(|(model, since, stage)| Change::AdvanceCanary {
            model,
            since,
            stage,
        }),
        (model(), since()).prop_map(|(model, since)| Change::PromoteCanary { model, since }),
        (model(), since()).prop_map(|(model, since)| Change::AbortCanary {
            model,
            since,
            reason: "r".into(),
        }),
        model().prop_map(|model| Change::Rollback { model }),
        (model(), version(), 0..10_002_u16).prop_map(|(model, version, weight)| {
            let replicas = ReplicaTarget::Count(1);
            let plan = ShadowPlan {
                version,
                replicas,
                weight,
            };
            Change::SetShadow { model, plan }
        }),
        model().prop_map(|model| Change::EndShadow { model }),
        model().prop_map(|model| Change::Undeploy { model }),
        Just(Change::DeleteModel { model: name("n") }),
    ]
}

/// What holds of a model whatever has happened to it.
fn check(model: &Model) {
    let is_known = |version: Option<VersionNumber>| {
        version.is_none_or(|version| model.versions.contains_key(&version))
    };
    assert!(is_known(model.serving) && is_known(model.previous));
    assert!(is_known(
        model.deployment.map(|deployment| deployment.version)
    ));
    if let Some(shadow) = model.shadow {
        let version = Some(shadow.plan.version);
        assert!(is_known(version) && version != model.serving);
        let canary = model.canary.as_ref();
        assert_ne!(version, canary.map(|canary| canary.plan.version));
        assert_eq!(shadow.plan.check(), Ok(()));
    }
    let Some(canary) = &model.canary else {
        return;
    };
    let serving = model.serving.expect("a canary is tried beside what serves");
    assert!(is_known(Some(canary.plan.version)));
    assert_ne!(serving, canary.plan.version, "it has all or its share");
    assert_eq!(canary.plan.check(), Ok(()));
    let weight = canary.weight();
    assert_eq!(weight == 0, canary.stage.is_none());
    assert!(weight <= paceline_protocol::traffic::WEIGHT_ALL);
}

proptest! {
    #[test]
    fn no_sequence_of_changes_sends_traffic_to_what_does_not_exist(
        changes in proptest::collection::vec(changes(), 1..60),
    ) {
        let mut log = Log::new();
        for digest in 1..=4 {
            log.publish("m", digest).unwrap();
        }
        log.deploy("m", 1).unwrap();
        log.activate(1).unwrap();
        for mut change in changes {
            if let Change::Activate { computed_at, .. } = &mut change {
                *computed_at = (*computed_at).min(log.registry.epoch());
            }
            let before = log.registry.models().clone();
            let applied = log.apply(change);
            for model in log.registry.models().values() {
                check(model);
            }
            if applied.is_err() {
                prop_assert_eq!(log.registry.models(), &before, "a refusal changes nothing");
            }
        }
        let bytes = paceline_protocol::wire::encode(&log.registry).unwrap();
        let back: Registry = paceline_protocol::wire::decode(&bytes, 1 << 20).unwrap();
        prop_assert_eq!(back, log.registry);
    }
}

#[test]
fn who_has_not_seen_the_last_change_of_a_model_changes_nothing() {
    let mut log = Log::with_stable(2);
    let revision = |log: &Log| log.registry.models()[&name("m")].revision;
    let deploy = |version| Change::Deploy {
        model: name("m"),
        version: VersionNumber(version),
        replicas: ReplicaTarget::Count(1),
    };
    let seen = revision(&log);
    assert_eq!(seen, log.registry.epoch(), "version 1 serves since");
    assert_eq!(log.expecting(seen.0, deploy(2)), Ok(Reply::Done));
    let (found, before) = (revision(&log), log.registry.clone());
    assert_eq!(found, log.registry.epoch());
    let differs = Refusal::RevisionDiffers {
        model: name("m"),
        expected: seen,
        found,
    };
    assert_eq!(log.expecting(seen.0, deploy(1)), Err(differs));
    assert_eq!(log.registry.models(), before.models(), "nothing");
    let node = log.expecting(3, Change::RegisterNode(node(4, "n4")));
    assert_eq!(node, Err(Refusal::NoRevision));
    let publish = |model: &str| Change::PublishVersion {
        model: name(model),
        owner: TenantName::default(),
        version: Box::new(record(2)),
    };
    assert!(log.expecting(0, publish("new")).is_ok(), "there was none");
    assert!(log.expecting(0, publish("new")).is_err(), "now there is");
    // What is known already changes nothing, and where replicas are is not seen.
    log.publish("m", 2).unwrap();
    let computed_at = log.registry.epoch();
    log.assign("m", 2, computed_at).unwrap();
    assert_eq!(revision(&log), found);
}
