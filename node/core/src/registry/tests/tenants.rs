//! Tenants and their keys.

use paceline_protocol::TenantId;
use paceline_protocol::limits::TENANTS_MAX;
use paceline_protocol::tenant::{KeyId, KeyRecord, TenantLimits};

use super::*;

impl Log {
    fn done(&mut self, change: Change) {
        assert_eq!(self.apply(change), Ok(Reply::Done));
    }

    fn refused(&mut self, change: Change) -> Refusal {
        self.apply(change).unwrap_err()
    }
}

fn tenant(name: &str) -> TenantName {
    TenantName::new(name).unwrap()
}

fn set(name: &str, weight: u32) -> Change {
    Change::SetTenant {
        tenant: tenant(name),
        limits: TenantLimits {
            weight,
            ..TenantLimits::default()
        },
    }
}

fn add_key(name: &str, id: u8) -> Change {
    let key = KeyRecord {
        id: KeyId([id; 8]),
        secret_sha256: Digest([id; 32]),
    };
    let tenant = tenant(name);
    Change::AddKey { tenant, key }
}

fn revoke(id: u8) -> Change {
    let key = KeyId([id; 8]);
    Change::RevokeKey { key }
}

#[test]
fn a_tenant_keeps_its_id_whatever_its_limits() {
    let mut log = Log::new();
    log.done(set("blue", 1));
    let id = log.registry.tenants()[&tenant("blue")].id;
    assert_eq!(id, TenantId(log.registry.epoch().0));
    log.done(set("blue", 7));
    let blue = &log.registry.tenants()[&tenant("blue")];
    assert_eq!((blue.id, blue.limits.weight), (id, 7));
    let refused = log.refused(set("blue", 101));
    assert_eq!(refused, Refusal::TenantLimits);
    log.done(Change::DeleteTenant {
        tenant: tenant("blue"),
    });
    log.done(set("blue", 1));
    let again = log.registry.tenants()[&tenant("blue")].id;
    assert_ne!(again, id, "what an old tenant had is not the new one's");
}

#[test]
fn a_tenant_has_two_keys_at_a_time_and_each_key_one_tenant() {
    let mut log = Log::new();
    let refused = log.refused(add_key("blue", 1));
    let unknown = Refusal::TenantUnknown {
        tenant: tenant("blue"),
    };
    assert_eq!(refused, unknown);
    log.done(set("blue", 1));
    log.done(set("red", 1));
    log.done(add_key("blue", 1));
    assert_eq!(log.refused(add_key("red", 1)), Refusal::KeyExists);
    log.done(add_key("blue", 2));
    let many = Refusal::KeysMany {
        tenant: tenant("blue"),
    };
    assert_eq!(log.refused(add_key("blue", 3)), many);
    log.done(revoke(1));
    log.done(add_key("blue", 3));
    let keys = &log.registry.tenants()[&tenant("blue")].keys;
    let ids: Vec<KeyId> = keys.iter().map(|key| key.id).collect();
    assert_eq!(ids, [KeyId([2; 8]), KeyId([3; 8])]);
    let key = KeyId([1; 8]);
    assert_eq!(log.refused(revoke(1)), Refusal::KeyUnknown { key });
}

#[test]
fn who_shows_no_key_has_limits_too_and_is_always_there() {
    let mut log = Log::new();
    log.done(add_key("default", 1));
    log.done(set("default", 3));
    let default = &log.registry.tenants()[&TenantName::default()];
    assert_eq!((default.id, default.keys.len()), (TenantId::DEFAULT, 1));
    let delete = Change::DeleteTenant {
        tenant: TenantName::default(),
    };
    assert_eq!(log.refused(delete), Refusal::TenantDefault);
}

#[test]
fn who_owns_models_is_not_deleted() {
    let mut log = Log::new();
    log.done(set("blue", 1));
    let publish = Change::PublishVersion {
        model: name("m"),
        owner: tenant("blue"),
        version: Box::new(record(1)),
    };
    log.apply(publish).unwrap();
    let delete = Change::DeleteTenant {
        tenant: tenant("blue"),
    };
    let owns = Refusal::TenantOwns {
        tenant: tenant("blue"),
        models: 1,
        model: name("m"),
    };
    assert_eq!(log.refused(delete.clone()), owns);
    let may = |tenant| log.registry.may_change(tenant, &name("m"));
    let blue = log.registry.tenants()[&tenant("blue")].id;
    assert!(may(blue) && may(TenantId::DEFAULT) && !may(TenantId(99)));
    assert!(log.registry.may_change(TenantId(99), &name("new")));
    log.done(Change::DeleteModel { model: name("m") });
    log.done(delete.clone());
    assert!(matches!(log.refused(delete), Refusal::TenantUnknown { .. }));
}

#[test]
fn there_are_only_so_many_tenants() {
    let mut log = Log::new();
    for number in 0..TENANTS_MAX {
        log.done(set(&format!("t{number}"), 1));
    }
    let limit = Refusal::Limit {
        what: "tenants".into(),
        limit: TENANTS_MAX as u64,
    };
    assert_eq!(log.refused(set("one-more", 1)), limit);
    log.done(set("t5", 2));
}
