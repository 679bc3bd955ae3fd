//! What the actors need that watch the cluster: peers, members, and what they keep and do.

use super::{Assembly, Shared};
use crate::{canary, detector, drain, keeper, membership, observer, peers, tenants};

impl Assembly<'_> {
    pub(super) fn peers(&self, shared: &Shared) -> peers::Arguments {
        peers::Arguments {
            node: self.identity.node,
            registry: self.registry.clone(),
            raft: self.raft.clone(),
            transport: self.links.transport.clone(),
            directory: self.links.directory.clone(),
            secured: self.links.secured.clone(),
            first_peers: self.links.first_peers.clone(),
            contact: shared.contact.clone(),
        }
    }

    pub(super) fn observer(&self, shared: &Shared) -> observer::Arguments {
        observer::Arguments {
            node: self.identity.node,
            pid: self.ports.pid,
            facts: shared.readiness.facts(),
            applied: shared.router.epochs(),
            demands: shared.tenants.demands(),
            registry: self.registry.clone(),
            observed: shared.observed.clone(),
            directory: self.links.directory.clone(),
        }
    }

    pub(super) fn tenants(&self, shared: &Shared) -> tenants::Arguments {
        tenants::Arguments {
            handle: shared.tenants.clone(),
            registry: self.registry.clone(),
            observed: shared.observed.clone(),
            admission: shared.admission.clone(),
            device: shared.device.clone(),
            metrics: shared.metrics.clone(),
        }
    }

    pub(super) fn detector(&self, shared: &Shared) -> detector::Arguments {
        detector::Arguments {
            node: self.identity.node,
            clock: self.clock,
            registry: self.registry.clone(),
            transport: self.links.transport.clone(),
            suspects: shared.suspects.clone(),
            contact: shared.contact.clone(),
            records: shared.records.clone(),
        }
    }

    pub(super) fn drain(&self, shared: &Shared) -> drain::Arguments {
        drain::Arguments {
            node: self.identity.node,
            clock: self.clock,
            registry: self.registry.clone(),
            readiness: shared.readiness.clone(),
            device: shared.device.clone(),
            records: shared.records.clone(),
        }
    }

    pub(super) fn keeper(&self, shared: &Shared) -> keeper::Arguments {
        keeper::Arguments {
            node: self.identity.node,
            registry: self.registry.clone(),
            fetcher: shared.fetcher.clone(),
        }
    }

    pub(super) fn canary(&self, shared: &Shared) -> canary::Arguments {
        canary::Arguments {
            node: self.identity.node,
            clock: self.clock,
            registry: self.registry.clone(),
            router: shared.router.clone(),
            observed: shared.observed.clone(),
            records: shared.records.clone(),
        }
    }

    pub(super) fn membership(&self) -> membership::Arguments {
        membership::Arguments {
            registry: self.registry.clone(),
            raft: self.raft.clone(),
        }
    }
}
