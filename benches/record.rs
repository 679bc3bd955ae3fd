//! What it costs a request on its way through a node's machines that their steps are kept: each
//! machine with its tape beside the same machine without, and that tapes allocate only when they
//! copy the machine.

mod allocations;
mod alternate;
mod provenance;
mod spread;

use std::hint::black_box;

use allocations::{Counting, allocations_of};
use alternate::{Side, compare, is_measuring};
use paceline_core::admission::{self, Admission};
use paceline_core::batcher;
use paceline_core::cost::CostFit;
use paceline_core::device::{self, BatcherId, Device, LaneId};
use paceline_core::record::Recorded;
use paceline_core::router::{self, Report, RouteId, Router, Target};
use paceline_core::{BucketId, Instant, Machine, RequestMeta, Slot};
use paceline_protocol::{Criticality, NodeId, ReplicaId, TenantId};
use provenance::SEED;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The machines that a request meets on its way.
struct Node {
    now: Instant,
    count: u32,
    admission: Recorded<Admission>,
    admitted: Vec<admission::Effect>,
    router: Recorded<Router>,
    picked: Vec<router::Effect>,
    device: Recorded<Device>,
    ran: Vec<device::Effect>,
}

impl Node {
    /// One that keeps so many bytes, shared as a node shares them.
    fn keeping(bytes: usize) -> Self {
        let mut node = Self {
            now: Instant::ZERO,
            count: 0,
            admission: Recorded::new(Admission::new(admission::Options::default()), bytes / 7),
            admitted: Vec::new(),
            router: Recorded::new(Router::new(NodeId(1), SEED), bytes / 7 * 2),
            picked: Vec::new(),
            device: Recorded::new(Device::new(2), bytes / 5 * 2),
            ran: Vec::new(),
        };
        let targets = (1..=3).map(|replica| Target {
            replica: ReplicaId(replica),
            node: NodeId(replica),
            local: (replica == 1).then_some(BATCHER),
            is_near: true,
            row_nanos: 40_000,
        });
        let targets = router::Input::SetTargets {
            route: ROUTE,
            targets: targets.collect(),
        };
        node.router.step(node.now, targets, &mut node.picked);
        let options = batcher::Options {
            rows_max: 64,
            tokens_max: 0,
            policy: batcher::Policy::default(),
            cost: CostFit::from_warm_up(1_000, 64, 20_000),
        };
        let batcher = BATCHER;
        let attach = device::Input::Attach { batcher, options };
        node.device.step(node.now, attach, &mut node.ran);
        node
    }

    fn admission(&mut self) {
        self.now = self.now.plus_nanos(1_000);
        let deadline = self.now.plus_nanos(10_000_000);
        let arrive = admission::Input::Arrive {
            deadline,
            criticality: Criticality::default(),
            tenant: TenantId::DEFAULT,
            in_parts: false,
        };
        self.admission
            .step(self.now, black_box(arrive), &mut self.admitted);
        assert_eq!(self.admitted.pop(), Some(admission::Effect::Admit));
        let tenant = TenantId::DEFAULT;
        let times = Some(admission::Times {
            waited_nanos: 20_000,
            rest_nanos: 60_000,
        });
        let finish = admission::Input::Finish {
            tenant,
            in_parts: false,
            times,
        };
        self.admission
            .step(self.now, black_box(finish), &mut self.admitted);
    }

    fn router(&mut self) {
        self.now = self.now.plus_nanos(1_000);
        let pick = router::Input::Pick {
            route: ROUTE,
            slot: Slot {
                index: 0,
                generation: 0,
            },
            rows: 1,
            bytes: 64,
            may_probe: true,
            again: None,
            sequence: None,
        };
        self.router
            .step(self.now, black_box(pick), &mut self.picked);
        let Some(router::Effect::Dispatch { replica, .. }) = self.picked.pop() else {
            unreachable!("all replicas are ready");
        };
        let done = router::Input::Done {
            route: ROUTE,
            replica,
            rows: 1,
            heard: router::Heard::Answer(Report {
                queued_rows: 3,
                row_nanos: 40_000,
                rest_nanos: 90_000,
            }),
        };
        self.router
            .step(self.now, black_box(done), &mut self.picked);
    }

    fn device(&mut self) {
        self.now = self.now.plus_nanos(1_000);
        self.count = self.count.wrapping_add(1);
        let request = RequestMeta {
            slot: Slot {
                index: self.count % SLOTS,
                generation: self.count / SLOTS,
            },
            deadline: self.now.plus_nanos(10_000_000),
            bucket: BucketId(7),
            tenant: TenantId::DEFAULT,
            bytes: 64,
            rows: 1,
            tokens: 0,
            criticality: Criticality::default(),
            is_alone: false,
        };
        let arrive = device::Input::Arrive {
            batcher: BATCHER,
            request,
            in_place: true,
        };
        self.ran.clear();
        self.device.step(self.now, black_box(arrive), &mut self.ran);
        assert_eq!(self.ran.len(), 2, "it joins, and runs in place");
        let finished = device::Input::Finished {
            lane: LaneId(0),
            nanos: Some(1_000),
            in_place: true,
        };
        self.device
            .step(self.now, black_box(finished), &mut self.ran);
    }

    fn request(&mut self) {
        self.admission();
        self.router();
        self.device();
    }
}

fn main() {
    provenance::print("record: machines with and without a tape");
    for (name, bytes, bar) in [("without", 0, 0), ("with", BYTES, ALLOCATIONS_BAR)] {
        let mut node = Node::keeping(bytes);
        // Until every segment has had its room.
        (0..200_000).for_each(|_| node.request());
        let count = allocations_of(|| (0..REQUESTS).for_each(|_| node.request()));
        println!("{name} a tape: {count} allocations in {REQUESTS} requests (bar: {bar})");
        assert!(count <= bar, "copies of machines are all that allocates");
    }
    println!();
    if is_measuring() {
        measure("admission: arrive, finish", Node::admission);
        measure("router: pick, done", Node::router);
        measure("device: arrive and finished, in place", Node::device);
        measure("all three, as one request", Node::request);
    }
}

fn measure(what: &str, work: fn(&mut Node)) {
    println!("{what}");
    let [mut with, mut without] = [BYTES, 0].map(Node::keeping);
    let with = Side {
        name: "  with a tape",
        work: |times| (0..times).for_each(|_| work(&mut with)),
    };
    let without = Side {
        name: "  without",
        work: |times| (0..times).for_each(|_| work(&mut without)),
    };
    compare((101, 20_000), with, without);
}

/// What a node keeps unless told otherwise.
const BYTES: usize = 8 << 20;
const REQUESTS: u64 = 100_000;
/// A copy of the machine for each segment, and of what it holds.
const ALLOCATIONS_BAR: u64 = REQUESTS / 100;
const SLOTS: u32 = 4_096;
const BATCHER: BatcherId = BatcherId(0);
const ROUTE: RouteId = RouteId(0);
