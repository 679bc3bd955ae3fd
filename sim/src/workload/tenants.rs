//! On whose behalf requests are sent.

use paceline_trace::is_tenant_name;
use serde::{Deserialize, Serialize};

use super::InvalidWorkload;
use super::weights::Weights;

/// A tenant of a mix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// 1 to 128 bytes without control characters; each name once.
    pub name: String,
    /// It sends as many of the requests as its weight's share of all weights.
    pub weight: u32,
}

/// Whether a mix can be drawn from.
pub(super) fn check(tenants: &[Tenant]) -> Result<(), InvalidWorkload> {
    Weights::check("tenants", tenants.iter().map(|tenant| tenant.weight))?;
    for (index, tenant) in tenants.iter().enumerate() {
        let invalid = |allowed: &str| {
            let shown: String = tenant.name.chars().take(40).collect();
            let key = format!("tenants.{index}.name");
            InvalidWorkload::new(&key, format!("{shown:?}"), allowed)
        };
        if !is_tenant_name(&tenant.name) {
            return Err(invalid("1 to 128 bytes without control characters"));
        }
        if tenants[..index]
            .iter()
            .any(|other| other.name == tenant.name)
        {
            return Err(invalid("a name that no other tenant has"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_there_and_differ() {
        let named = |name: &str| Tenant {
            name: name.to_owned(),
            weight: 1,
        };
        assert_eq!(check(&[named("a"), named("b")]), Ok(()));
        let refused = |tenants: &[Tenant]| check(tenants).unwrap_err().to_string();
        assert_eq!(
            refused(&[named("a"), named("")]),
            "tenants.1.name is \"\"; allowed: 1 to 128 bytes without control characters"
        );
        assert_eq!(
            refused(&[named("a"), named("a")]),
            "tenants.1.name is \"a\"; allowed: a name that no other tenant has"
        );
        assert!(check(&[named("a\0")]).is_err());
        assert!(check(&[]).is_err());
    }
}
