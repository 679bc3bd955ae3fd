//! Whose batch is next.

use super::{BatcherId, Device};
use crate::time::Instant;

impl Device {
    /// The one order: of the batchers' heads, that of the highest class whose tenant is behind the
    /// others, the earliest of several.
    pub(super) fn next_batcher(&self, now: Instant) -> Option<BatcherId> {
        let batchers = self.batchers.iter().enumerate();
        let heads = batchers.filter_map(|(index, batcher)| {
            let batcher = batcher.as_ref()?;
            let head = batcher.head(&self.fair)?;
            if batcher.held_until(now).is_some() {
                return None;
            }
            let clock = self.fair.clock((head.criticality, head.tenant));
            // Two numbers: to compare and move tuples with padding took a third of a step.
            let order = u128::from(head.criticality as u8) << 64 | u128::from(clock);
            Some(((order, head.deadline), index))
        });
        let (_, index) = heads.min()?;
        Some(BatcherId(index as u32))
    }
}
