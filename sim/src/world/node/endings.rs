//! How requests end: their clients are told, and the node lets go of them or sends them again.

use paceline_core::router::{self, Report};
use paceline_core::{Machine, Slot, admission};

use super::{Node, PLANTED_AT};
use crate::fact::{End, Fact};
use crate::fault::Fault;
use crate::world::outside::Outside;
use crate::world::slots::Place;

impl Node {
    /// The replica went away and nothing was executed: another one is asked, a few times, of
    /// the version that serves now.
    pub(super) fn send_again(&mut self, outside: &mut Outside, slot: Slot) {
        let Some(in_flight) = self.slots.request(slot) else {
            outside.record(&Fact::Stray { node: self.index });
            return;
        };
        let (place, rows) = (in_flight.place.take(), in_flight.meta.rows);
        let again = !in_flight.ended && in_flight.attempts <= SENT_AGAIN_MAX;
        in_flight.version = self.serving.unwrap_or(in_flight.version);
        self.tell_router(outside, place, (rows, None));
        if again {
            outside.record(&Fact::SentAgain);
            self.route(outside, slot);
        } else {
            self.leave(outside, slot, (End::Gone, None));
        }
    }

    /// Tells the client how its request ended, unless it knows.
    pub(super) fn end(&mut self, outside: &mut Outside, slot: Slot, end: End) {
        if let Some(in_flight) = self.slots.request(slot).filter(|request| !request.ended) {
            in_flight.ended = true;
            let request = in_flight.request;
            outside.record(&Fact::Ended { request, end });
        }
    }

    /// Lets go of a request, and tells its client, unless it knows.
    pub(super) fn leave(
        &mut self,
        outside: &mut Outside,
        slot: Slot,
        (end, report): (End, Option<Report>),
    ) {
        self.end(outside, slot, end);
        let Some(in_flight) = self.slots.remove(slot) else {
            outside.record(&Fact::Stray { node: self.index });
            return;
        };
        if let Some(lane) = in_flight.lane {
            let seat = &mut self.lanes[usize::from(lane.0)];
            seat.requests.retain(|other| *other != slot);
        }
        self.joined.retain(|other| *other != slot);
        let (request, node) = (in_flight.request, self.index);
        outside.record(&Fact::Left { request, node });
        self.tell_router(outside, in_flight.place, (in_flight.meta.rows, report));
        self.finishes += 1;
        if self.fault != Some(Fault::LostPermit) || self.finishes != PLANTED_AT {
            let finish = admission::Input::Finish;
            self.admission
                .step(outside.now, finish, &mut self.admission_effects);
        }
    }

    fn tell_router(
        &mut self,
        outside: &Outside,
        place: Option<Place>,
        (rows, report): (u32, Option<Report>),
    ) {
        let Some(Place { route, replica, .. }) = place else {
            return;
        };
        let done = router::Input::Done {
            route,
            replica,
            rows,
            report,
        };
        self.router
            .step(outside.now, done, &mut self.router_effects);
    }

    /// What the answer of a request that ran says of its replica.
    pub(super) fn load_report(&mut self, slot: Slot) -> Option<Report> {
        let place = self.slots.request(slot)?.place?;
        let queue = self.device.batcher(place.batcher)?;
        let rows_max = self.replicas.get(&place.replica)?.rows_max;
        Some(Report {
            queued_rows: queue.queued_rows() as u32,
            row_nanos: queue.cost().row_nanos(rows_max),
            round_trip_nanos: 0,
        })
    }
}

/// How often a request whose replica went away unexecuted is sent elsewhere.
const SENT_AGAIN_MAX: u8 = 3;
