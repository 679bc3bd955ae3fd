//! Who may send requests, what each may take, and how their keys are recognised.

use paceline_protocol::limits::{TENANT_KEYS_MAX, TENANTS_MAX};
use paceline_protocol::registry::{Change, Refusal, Reply};
use paceline_protocol::tenant::{KeyId, KeyRecord, TenantLimits};
use paceline_protocol::{Epoch, ModelName, TenantId, TenantName};
use serde::{Deserialize, Serialize};

use super::{Arc, BTreeMap, Registry};

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// What requests name it by.
    pub id: TenantId,
    /// What it may take.
    pub limits: TenantLimits,
    /// Its keys, the oldest first.
    pub keys: Vec<KeyRecord>,
}

impl Registry {
    /// Tenants by name. That of requests without a key is among them if something was said of it.
    pub fn tenants(&self) -> &BTreeMap<TenantName, Arc<Tenant>> {
        &self.tenants
    }

    /// Whether a tenant may change a model: its owner may, and the tenant of requests without a key,
    /// which administers the cluster. One that does not exist may be made by anybody.
    pub fn may_change(&self, tenant: TenantId, model: &ModelName) -> bool {
        let owner = self.models.get(model).map(|model| &model.owner);
        tenant == TenantId::DEFAULT
            || owner.is_none_or(|owner| self.tenants.get(owner).is_some_and(|o| o.id == tenant))
    }

    pub(super) fn change_tenants(
        &mut self,
        epoch: Epoch,
        change: &Change,
    ) -> Result<Reply, Refusal> {
        match change {
            Change::SetTenant { tenant, limits } => self.set_tenant(epoch, tenant, *limits),
            Change::DeleteTenant { tenant } => self.delete_tenant(tenant),
            Change::AddKey { tenant, key } => self.add_key(epoch, tenant, key),
            Change::RevokeKey { key } => self.revoke_key(*key),
            Change::RegisterNode(_)
            | Change::PublishVersion { .. }
            | Change::Deploy { .. }
            | Change::Activate { .. }
            | Change::Assign { .. }
            | Change::Unassign { .. }
            | Change::DeleteModel { .. }
            | Change::CreateToken(_)
            | Change::RevokeToken { .. }
            | Change::AdmitNode { .. }
            | Change::MarkDown { .. }
            | Change::MarkUp { .. }
            | Change::Drain { .. }
            | Change::Drained { .. }
            | Change::Undrain { .. }
            | Change::RemoveNode { .. }
            | Change::BeginCanary { .. }
            | Change::AdvanceCanary { .. }
            | Change::PromoteCanary { .. }
            | Change::AbortCanary { .. }
            | Change::Rollback { .. }
            | Change::SetLabel { .. }
            | Change::SetShadow { .. }
            | Change::EndShadow { .. }
            | Change::Undeploy { .. } => unreachable!("not a change of tenants"),
        }
    }

    fn set_tenant(
        &mut self,
        epoch: Epoch,
        name: &TenantName,
        limits: TenantLimits,
    ) -> Result<Reply, Refusal> {
        if !limits.are_allowed() {
            return Err(Refusal::TenantLimits);
        }
        Arc::make_mut(self.declared(epoch, name)?).limits = limits;
        Ok(Reply::Done)
    }

    fn delete_tenant(&mut self, name: &TenantName) -> Result<Reply, Refusal> {
        if name.as_str() == TenantName::DEFAULT {
            return Err(Refusal::TenantDefault);
        }
        let mut owned = self.models.iter().filter(|(_, model)| model.owner == *name);
        if let Some((model, _)) = owned.next() {
            return Err(Refusal::TenantOwns {
                tenant: name.clone(),
                models: 1 + owned.count() as u32,
                model: model.clone(),
            });
        }
        let removed = self.tenants.remove(name);
        removed.map(|_| Reply::Done).ok_or_else(|| unknown(name))
    }

    fn add_key(
        &mut self,
        epoch: Epoch,
        name: &TenantName,
        key: &KeyRecord,
    ) -> Result<Reply, Refusal> {
        let mut keys = self.tenants.values().flat_map(|tenant| &tenant.keys);
        if keys.any(|known| known.id == key.id) {
            return Err(Refusal::KeyExists);
        }
        let is_default = name.as_str() == TenantName::DEFAULT;
        if !is_default && !self.tenants.contains_key(name) {
            return Err(unknown(name));
        }
        let tenant = Arc::make_mut(self.declared(epoch, name)?);
        if tenant.keys.len() >= TENANT_KEYS_MAX {
            return Err(Refusal::KeysMany {
                tenant: name.clone(),
            });
        }
        tenant.keys.push(key.clone());
        Ok(Reply::Done)
    }

    fn revoke_key(&mut self, key: KeyId) -> Result<Reply, Refusal> {
        let has_it = |tenant: &&mut Arc<Tenant>| tenant.keys.iter().any(|known| known.id == key);
        let owner = self.tenants.values_mut().find(has_it);
        let owner = owner.ok_or(Refusal::KeyUnknown { key })?;
        Arc::make_mut(owner).keys.retain(|known| known.id != key);
        Ok(Reply::Done)
    }

    /// A tenant, which is made if there is none of this name.
    fn declared(&mut self, epoch: Epoch, name: &TenantName) -> Result<&mut Arc<Tenant>, Refusal> {
        let is_new = !self.tenants.contains_key(name);
        if is_new && self.tenants.len() >= TENANTS_MAX {
            return Err(Refusal::Limit {
                what: "tenants".into(),
                limit: TENANTS_MAX as u64,
            });
        }
        let id = match name.as_str() {
            TenantName::DEFAULT => TenantId::DEFAULT,
            _ => TenantId(epoch.0),
        };
        let tenant = self.tenants.entry(name.clone()).or_insert_with(|| {
            Arc::new(Tenant {
                id,
                limits: TenantLimits::default(),
                keys: Vec::new(),
            })
        });
        Ok(tenant)
    }
}

fn unknown(name: &TenantName) -> Refusal {
    Refusal::TenantUnknown {
        tenant: name.clone(),
    }
}
