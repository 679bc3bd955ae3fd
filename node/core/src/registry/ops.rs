//! The outcomes of the last op-ids, so that a repeated command gets its first answer.

use std::collections::{BTreeMap, VecDeque};

use paceline_protocol::OpId;
use paceline_protocol::limits::OP_IDS_REMEMBERED;
use paceline_protocol::registry::Outcome;
use serde::{Deserialize, Serialize};

/// A bounded memory: the oldest op-id is forgotten first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RememberedOps {
    order: VecDeque<OpId>,
    outcomes: BTreeMap<OpId, Outcome>,
}

impl RememberedOps {
    pub(super) fn outcome(&self, op: OpId) -> Option<&Outcome> {
        self.outcomes.get(&op)
    }

    pub(super) fn remember(&mut self, op: OpId, outcome: Outcome) {
        if self.order.len() >= OP_IDS_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.outcomes.remove(&oldest);
        }
        self.order.push_back(op);
        self.outcomes.insert(op, outcome);
    }
}
