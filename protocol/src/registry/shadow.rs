//! A shadow as operators wish for it: which version gets copies of which share of a model's requests.

use serde::{Deserialize, Serialize};

use super::{Refusal, ReplicaTarget};
use crate::id::VersionNumber;
use crate::traffic::WEIGHT_ALL;

/// A version that shall be sent copies of requests. Its answers are compared, and given to nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowPlan {
    /// The version.
    pub version: VersionNumber,
    /// Its replicas, beside those of the version that serves.
    pub replicas: ReplicaTarget,
    /// The share of the requests that are copied, in units of 1/10,000: 1 to 10,000.
    pub weight: u16,
}

impl ShadowPlan {
    /// Whether the share is within what is allowed. Replicas and version depend on the cluster, and
    /// are not looked at.
    ///
    /// # Errors
    /// [`Refusal::ShadowShare`], which says what would be.
    pub fn check(&self) -> Result<(), Refusal> {
        let weight = self.weight;
        match weight {
            1..=WEIGHT_ALL => Ok(()),
            _ => Err(Refusal::ShadowShare { weight }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_more_than_nothing_and_at_most_all() {
        let plan = |weight| ShadowPlan {
            version: VersionNumber(2),
            replicas: ReplicaTarget::Count(1),
            weight,
        };
        for weight in [1, 1_000, WEIGHT_ALL] {
            assert_eq!(plan(weight).check(), Ok(()));
        }
        for weight in [0, WEIGHT_ALL + 1] {
            let refused = plan(weight).check().unwrap_err();
            assert_eq!(refused, Refusal::ShadowShare { weight });
            assert!(refused.to_string().ends_with("allowed are 1 to 10000"));
        }
    }
}
