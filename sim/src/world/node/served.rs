//! Dispatches that replicas here have taken: from this node's router, and from others.
//!
//! The twin of `node/src/gateway/infer/remote.rs` and of the device's handle.

use paceline_core::batcher::{Batcher, DropReason};
use paceline_core::device::{self, BatcherId, LaneId};
use paceline_core::router::Report;
use paceline_core::{Instant, RequestMeta, Slot, failover};
use paceline_protocol::VersionNumber;

use super::entries::PLANTED_AT;
use super::{Node, Replica};
use crate::fact::{Fact, Queue, RequestNumber};
use crate::message::{Dispatch, Flight, Landing, Message};
use crate::planted::Planted;
use crate::world::outside::Outside;

/// A dispatch that was taken.
#[derive(Clone, Copy)]
pub(super) struct Served {
    pub(super) flight: Flight,
    pub(super) request: RequestNumber,
    pub(super) meta: RequestMeta,
    /// When.
    pub(super) arrived: Instant,
    pub(super) tokens: u64,
    /// What the request is pinned to.
    pub(super) version: (u16, VersionNumber),
    pub(super) batcher: BatcherId,
    /// The batch that it is part of.
    pub(super) lane: Option<LaneId>,
    /// Whether nobody wants it any more: it runs to its end all the same.
    pub(super) is_abandoned: bool,
}

impl Node {
    /// A dispatch arrives: it is taken, or refused unexecuted.
    pub(super) fn take(&mut self, outside: &mut Outside, dispatch: Dispatch) {
        let replica = self.replicas.get(&dispatch.replica);
        let batcher = replica.and_then(Replica::batcher);
        let Some(batcher) = batcher.filter(|_| !self.is_closed) else {
            let gone = Landing::Gone(self.epoch());
            self.reply(outside, dispatch.flight, gone);
            return;
        };
        let node = self.index();
        outside.record(&Fact::Taken { node });
        let mut version = dispatch.version;
        if outside.planted == Some(Planted::MixedBatch) && dispatch.request.0 == PLANTED_AT as u32 {
            version.1 = VersionNumber(version.1.0 + 1);
        }
        let mut meta = None;
        let slot = self.served.insert(|slot| {
            let of = RequestMeta {
                slot,
                deadline: dispatch.deadline,
                bucket: dispatch.bucket,
                bytes: dispatch.bytes,
                rows: dispatch.rows,
                tokens: u32::try_from(dispatch.tokens).unwrap_or(u32::MAX),
                criticality: dispatch.criticality,
                tenant: dispatch.tenant,
                is_alone: dispatch.is_alone,
            };
            meta = Some(of);
            Served {
                flight: dispatch.flight,
                request: dispatch.request,
                meta: of,
                arrived: outside.now,
                tokens: dispatch.tokens,
                version,
                batcher,
                lane: None,
                is_abandoned: false,
            }
        });
        let Some(request) = meta else { return };
        let input = device::Input::Arrive {
            batcher,
            request,
            in_place: true,
        };
        self.step_device(outside, input, None);
        // One that was refused says nothing of the limit: it may have shrunk meanwhile.
        let is_taken = self.served.get(slot).is_some();
        if let Some(queue) = self.device.batcher(batcher).filter(|_| is_taken) {
            outside.record(&Fact::Queued(Queue {
                rows: queue.queued_rows(),
                requests: queue.queued_requests(),
                rows_max: queue.queue_rows_max(),
            }));
        }
    }

    /// The request of a dispatch is not wanted any more.
    pub(super) fn cancel_served(&mut self, outside: &mut Outside, flight: Flight) {
        let found = self.served.find(|served| served.flight == flight);
        for slot in found {
            let Some(served) = self.served.get(slot) else {
                continue;
            };
            served.is_abandoned = true;
            let batcher = served.batcher;
            self.step_device(outside, device::Input::Cancel { batcher, slot }, None);
        }
    }

    /// A dispatch leaves a queue or a batch without having run.
    pub(super) fn dropped(&mut self, outside: &mut Outside, slot: Slot, why: DropReason) {
        let end = match why {
            DropReason::Expired | DropReason::Late => failover::End::Refused,
            // Whoever has cancelled listens no more.
            DropReason::Cancelled => failover::End::Late,
            DropReason::QueueFull { retry_after: _ } => failover::End::Overloaded,
            DropReason::Gone => failover::End::Gone,
        };
        let landing = match (end, why) {
            (failover::End::Gone, _) => Landing::Gone(self.epoch()),
            (_, DropReason::Expired) => Landing::Missed(failover::End::Late),
            (end, _) => Landing::Missed(end),
        };
        self.end_served(outside, slot, landing);
    }

    /// A dispatch has ended: it leaves, and its router is told.
    pub(super) fn end_served(&mut self, outside: &mut Outside, slot: Slot, landing: Landing) {
        self.is_settled = false;
        let Some(served) = self.served.remove(slot) else {
            let node = self.index();
            outside.record(&Fact::Stray { node });
            return;
        };
        if let Some(lane) = served.lane {
            let lane = &mut self.lanes[usize::from(lane.0)];
            lane.served.retain(|other| *other != slot);
        }
        self.joined.retain(|other| *other != slot);
        if !served.is_abandoned {
            self.reply(outside, served.flight, landing);
        }
    }

    fn reply(&mut self, outside: &mut Outside, flight: Flight, landing: Landing) {
        if flight.from == self.process {
            self.landed(outside, flight, landing);
        } else {
            let message = Message::Landed(flight, landing);
            outside.send(self.index(), flight.from, ANSWER_BYTES, message);
        }
    }

    /// What an answer says of its replica.
    pub(super) fn load_report(&self, batcher: BatcherId) -> Report {
        let queue = self.device.batcher(batcher);
        Report {
            queued_rows: queue.map_or(0, |queue| queue.queued_rows() as u32),
            row_nanos: queue.map_or(0, Batcher::row_nanos),
            rest_nanos: queue.map_or(0, |queue| {
                queue.one_row_nanos().saturating_sub(queue.row_nanos())
            }),
        }
    }
}

/// An answer on the wire.
const ANSWER_BYTES: u64 = 256;
