//! Tenants on the operator API.

use serde::{Deserialize, Serialize};

use crate::id::{OpId, TenantName};

/// One entry of `GET /v2/paceline/tenants`, sorted by name, and what is shown of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantView {
    /// Name.
    pub name: TenantName,
    /// Its share of a device beside others'.
    pub weight: u32,
    /// Requests a second over all nodes, if they are limited.
    pub requests_per_s: Option<u32>,
    /// Requests at a time over all nodes, if they are limited.
    pub concurrency: Option<u32>,
    /// Ids of its keys, the oldest first.
    pub keys: Vec<String>,
    /// Models that it owns.
    pub models: usize,
    /// Requests of it that are in at the node that answers.
    pub in_flight: u32,
}

/// `PUT /v2/paceline/tenants/NAME`: a tenant is made, or has other limits from now on. Answered
/// with [`Committed`](super::Committed). What is absent stays as it was, or as it is for a new one:
/// a weight of 1, and no limits.
///
/// `DELETE /v2/paceline/tenants/NAME?op=OP` forgets a tenant and its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantRequest {
    /// Its share of a device beside others', 1 to [`crate::limits::TENANT_WEIGHT_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Requests a second over all nodes, 1 to [`crate::limits::TENANT_LIMIT_MAX`], or `"none"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_s: Option<LimitSetting>,
    /// Requests at a time over all nodes, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<LimitSetting>,
    /// Names the intention.
    pub op: OpId,
}

/// A limit, or that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LimitSetting {
    /// So many.
    At(u32),
    /// As many as there is room for.
    Off(Unlimited),
}

/// Reads `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unlimited {
    /// `none`
    None,
}

/// Answer to `POST /v2/paceline/tenants/NAME/keys`: the only time that the key is shown.
///
/// It has no op-id: a repeat makes another key, and the first, which nobody has seen, can be
/// revoked. `DELETE /v2/paceline/keys/ID?op=OP` revokes a key, and is answered with
/// [`Committed`](super::Committed).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCreated {
    /// What callers show: `Authorization: Bearer pk_…`.
    pub key: String,
    /// What names it without being secret.
    pub id: String,
}

impl LimitSetting {
    /// As the registry has it.
    pub fn limit(self) -> Option<u32> {
        match self {
            Self::At(limit) => Some(limit),
            Self::Off(Unlimited::None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_or_none() {
        let read = |text: &str| serde_json::from_str::<LimitSetting>(text);
        assert_eq!(read("7").unwrap().limit(), Some(7));
        assert_eq!(read("\"none\"").unwrap().limit(), None);
        for wrong in ["-1", "null", "\"off\"", "1.5"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
