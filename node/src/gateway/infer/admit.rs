//! The door: who is let in, counted with their tenant.

use paceline_core::Instant;
use paceline_core::admission::Refusal;
use paceline_protocol::{Failure, TenantId};

use super::Serving;
use super::missed::refused;
use crate::admission::{Asker, Permit};
use crate::telemetry::metrics::AtTheDoor;

impl Serving {
    /// Lets a request in. Where nobody shows a key, nothing is counted here.
    pub(super) fn admit(
        &self,
        now: Instant,
        deadline: Instant,
        asker: Asker,
    ) -> Result<Permit, Failure> {
        let (tenant, admitted) = (asker.tenant, self.admission.admit(now, deadline, asker));
        if tenant != TenantId::DEFAULT
            && let Some(name) = self.tenants.known(tenant)
        {
            let outcome = match &admitted {
                Ok(_) => AtTheDoor::Admitted,
                Err(Refusal::Limited { .. }) => AtTheDoor::Limited,
                Err(Refusal::Overloaded { .. }) => AtTheDoor::Overloaded,
                Err(Refusal::Expired) => AtTheDoor::Expired,
            };
            self.metrics.came(&name, outcome);
        }
        admitted.map_err(refused)
    }
}
