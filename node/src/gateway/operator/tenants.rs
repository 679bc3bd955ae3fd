//! Tenants: what they may take, and their keys.

use axum::Json;
use axum::extract::State;
use paceline_core::registry::{Registry, Tenant};
use paceline_protocol::operator::{Committed, KeyCreated, TenantRequest, TenantView};
use paceline_protocol::registry::Change;
use paceline_protocol::tenant::{ApiKey, KeyId, TenantLimits};
use paceline_protocol::{ErrorCode, Failure, Secret, TenantName};

use super::extract::{InPath, InQuery, Whole};
use super::members::{random, write};
use super::{OpQuery, OperatorParts, Parts, ReadQuery, Refused, json, op_of};

pub(super) async fn tenants(
    State(parts): Parts,
    InQuery(query): InQuery<ReadQuery>,
) -> Result<Json<Vec<TenantView>>, Refused> {
    query.wait(&parts).await?;
    let registry = parts.registry.current();
    let tenants = registry.tenants().iter();
    let views = tenants.map(|(name, tenant)| view(&parts, &registry, (name, tenant)));
    Ok(Json(views.collect()))
}

pub(super) async fn set(
    State(parts): Parts,
    InPath(name): InPath,
    Whole(body): Whole,
) -> Result<Json<Committed>, Refused> {
    let tenant = tenant_name(&name)?;
    let TenantRequest {
        weight,
        requests_per_s,
        concurrency,
        op,
    } = json(&body)?;
    parts.registry.catch_up().await;
    let registry = parts.registry.current();
    let known = registry.tenants().get(&tenant);
    let known = known.map_or_else(TenantLimits::default, |known| known.limits);
    let limits = TenantLimits {
        weight: weight.unwrap_or(known.weight),
        requests_per_s: requests_per_s.map_or(known.requests_per_s, |setting| setting.limit()),
        concurrency: concurrency.map_or(known.concurrency, |setting| setting.limit()),
    };
    write(&parts, op, Change::SetTenant { tenant, limits }).await
}

pub(super) async fn delete(
    State(parts): Parts,
    InPath(name): InPath,
    InQuery(query): InQuery<OpQuery>,
) -> Result<Json<Committed>, Refused> {
    let tenant = tenant_name(&name)?;
    write(&parts, op_of(query)?, Change::DeleteTenant { tenant }).await
}

pub(super) async fn add_key(
    State(parts): Parts,
    InPath(name): InPath,
) -> Result<Json<KeyCreated>, Refused> {
    let tenant = tenant_name(&name)?;
    let key = ApiKey {
        id: KeyId(random()?),
        secret: Secret::new(random()?),
    };
    let record = key.record();
    let op = crate::registry::fresh_op()?;
    let change = Change::AddKey {
        tenant,
        key: record,
    };
    // Whoever gets it may show it to any node at once.
    drop(write(&parts, op, change).await?);
    Ok(Json(KeyCreated {
        id: key.id.to_string(),
        key: key.reveal(),
    }))
}

pub(super) async fn revoke_key(
    State(parts): Parts,
    InPath(id): InPath,
    InQuery(query): InQuery<OpQuery>,
) -> Result<Json<Committed>, Refused> {
    let key: KeyId = id
        .parse()
        .map_err(|error| Failure::new(ErrorCode::ParameterInvalid, format!("key: {error}")))?;
    write(&parts, op_of(query)?, Change::RevokeKey { key }).await
}

fn view(
    parts: &OperatorParts,
    registry: &Registry,
    (name, tenant): (&TenantName, &Tenant),
) -> TenantView {
    let models = registry.models().values();
    TenantView {
        name: name.clone(),
        weight: tenant.limits.weight,
        requests_per_s: tenant.limits.requests_per_s,
        concurrency: tenant.limits.concurrency,
        keys: tenant.keys.iter().map(|key| key.id.to_string()).collect(),
        models: models.filter(|model| model.owner == *name).count(),
        in_flight: parts.admission.in_flight_of(tenant.id),
    }
}

fn tenant_name(name: &str) -> Result<TenantName, Failure> {
    TenantName::new(name)
        .map_err(|error| Failure::new(ErrorCode::ParameterInvalid, format!("tenant name: {error}")))
}
