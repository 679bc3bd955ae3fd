//! What a request costs the batcher and the device that owns it, and that in the steady state
//! none of their steps allocates.

mod allocations;
mod provenance;

use std::hint::black_box;

use allocations::{Counting, allocations_of};
use criterion::{Criterion, Throughput};
use paceline_core::batcher::{self, Batcher, Policy};
use paceline_core::cost::CostFit;
use paceline_core::device::{self, BatcherId, Device, LaneId};
use paceline_core::fair::Fair;
use paceline_core::{BucketId, Instant, Machine, RequestMeta, Slot};
use paceline_protocol::{Criticality, TenantId};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Requests as a driver's slab names them: positions are used again, with a new generation.
#[derive(Default)]
struct Requests {
    now: Instant,
    count: u32,
}

impl Requests {
    /// Of a tenant and a bucket.
    fn next(&mut self, (tenant, bucket): (u64, u64)) -> RequestMeta {
        self.now = self.now.plus_nanos(1_000);
        self.count = self.count.wrapping_add(1);
        RequestMeta {
            slot: Slot {
                index: self.count % SLOTS,
                generation: self.count / SLOTS,
            },
            // Deadlines differ, so that the order of the queue costs what it costs.
            deadline: self.now.plus_nanos(BUDGETS_NANOS[self.count as usize % 4]),
            bucket: BucketId(bucket),
            tenant: TenantId(tenant),
            bytes: 64,
            rows: 1,
            tokens: 0,
            criticality: Criticality::default(),
            is_alone: false,
        }
    }
}

/// A batcher, and a turn of requests through it.
struct Queue {
    machine: Batcher,
    fair: Fair,
    requests: Requests,
    out: Vec<batcher::Effect>,
}

impl Queue {
    fn new() -> Self {
        Self {
            machine: Batcher::new(options(CHEAP_NANOS)),
            fair: Fair::default(),
            requests: Requests::default(),
            out: Vec::new(),
        }
    }

    /// So many requests of so many buckets arrive, and run in one batch for each bucket.
    fn turn(&mut self, requests: u32, buckets: u32) {
        self.turn_of((requests, 1), buckets);
    }

    /// The same, of so many tenants.
    fn turn_of(&mut self, (requests, tenants): (u32, u32), buckets: u32) {
        self.arrive((requests, tenants), buckets);
        let mut ran = 0;
        for _ in 0..buckets {
            self.out.clear();
            self.step(batcher::Input::Form);
            let rows = black_box(&self.out).len() as u32;
            let nanos = 1_000 * u64::from(rows);
            self.step(batcher::Input::Ran {
                rows,
                tokens: 0,
                nanos,
            });
            ran += rows;
        }
        assert_eq!(ran, requests, "all that arrived has run");
    }

    fn arrive(&mut self, (requests, tenants): (u32, u32), buckets: u32) {
        for number in 0..requests {
            let of = (number % tenants, number % buckets);
            let request = self.requests.next((of.0.into(), of.1.into()));
            self.step(batcher::Input::Arrive(request));
        }
    }

    /// A request arrives, and its caller goes.
    fn cancelled(&mut self) {
        self.out.clear();
        let request = self.requests.next((0, 0));
        self.step(batcher::Input::Arrive(request));
        self.step(batcher::Input::Cancel(request.slot));
        assert_eq!(black_box(&self.out).len(), 1, "it was dropped");
    }

    fn step(&mut self, input: batcher::Input) {
        let (now, input) = (self.requests.now, black_box(input));
        self.machine.step(now, input, &mut self.fair, &mut self.out);
    }
}

/// A device, and turns of requests through it.
struct Lanes {
    machine: Device,
    requests: Requests,
    out: Vec<device::Effect>,
}

impl Lanes {
    fn new(row_nanos: u64) -> Self {
        let mut lanes = Self {
            machine: Device::new(2),
            requests: Requests::default(),
            out: Vec::new(),
        };
        // Others are attached and idle, as on a node with several models.
        for batcher in 0..4 {
            lanes.step(device::Input::Attach {
                batcher: BatcherId(batcher),
                options: options(row_nanos),
            });
        }
        lanes
    }

    /// A cheap request runs in the task that brings it.
    fn in_place(&mut self) {
        self.out.clear();
        self.arrive(true);
        self.finish(1, true);
    }

    /// The lane's thread is woken and runs what arrived until then.
    fn by_thread(&mut self, requests: u64) {
        self.out.clear();
        for _ in 0..requests {
            self.arrive(false);
        }
        // The first request woke the first lane and the second the other: the first to come
        // takes all, and the other finds nothing.
        self.step(device::Input::Begin { lane: LANE });
        self.step(device::Input::Launch { lane: LANE });
        if requests > 1 {
            self.step(device::Input::Begin { lane: LaneId(1) });
        }
        self.finish(requests, false);
    }

    fn arrive(&mut self, in_place: bool) {
        let request = self.requests.next((0, 0));
        self.step(device::Input::Arrive {
            batcher: BatcherId(0),
            request,
            in_place,
        });
    }

    fn finish(&mut self, requests: u64, in_place: bool) {
        match black_box(self.out.last()) {
            Some(device::Effect::Run { rows, .. }) => assert_eq!(u64::from(*rows), requests),
            other => unreachable!("the batch should run last, not {other:?}"),
        }
        self.step(device::Input::Finished {
            lane: LANE,
            nanos: Some(requests * 1_000),
            in_place,
        });
    }

    fn step(&mut self, input: device::Input) {
        self.machine
            .step(self.requests.now, black_box(input), &mut self.out);
    }
}

fn options(row_nanos: u64) -> batcher::Options {
    batcher::Options {
        rows_max: ROWS_MAX,
        tokens_max: 0,
        policy: Policy::default(),
        cost: CostFit::from_warm_up(row_nanos, ROWS_MAX, row_nanos * u64::from(ROWS_MAX)),
    }
}

fn main() {
    provenance::print("batcher: steps of batcher and device");
    let mut queue = Queue::new();
    holds("batcher: arrive, form, ran", || queue.turn(1, 1));
    holds("batcher: a batch of 64", || queue.turn(64, 1));
    holds("batcher: two buckets of 32", || queue.turn(64, 2));
    holds("batcher: 64 of 8 tenants", || queue.turn_of((64, 8), 1));
    holds("batcher: arrive, cancel", || queue.cancelled());
    let (mut cheap, mut dear) = (Lanes::new(CHEAP_NANOS), Lanes::new(DEAR_NANOS));
    holds("device: in place", || cheap.in_place());
    holds("device: by its thread", || dear.by_thread(1));
    holds("device: 32 by its thread", || dear.by_thread(32));
    println!();

    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("batcher");
    group.bench_function("arrive-form-ran", |bencher| {
        bencher.iter(|| queue.turn(1, 1));
    });
    group.bench_function("arrive-cancel", |bencher| {
        bencher.iter(|| queue.cancelled());
    });
    group.throughput(Throughput::Elements(64));
    group.bench_function("batch-of-64", |bencher| bencher.iter(|| queue.turn(64, 1)));
    group.bench_function("two-buckets-of-32", |bencher| {
        bencher.iter(|| queue.turn(64, 2));
    });
    group.bench_function("batch-of-64-of-8-tenants", |bencher| {
        bencher.iter(|| queue.turn_of((64, 8), 1));
    });
    group.finish();
    let mut group = criterion.benchmark_group("device");
    group.bench_function("in-place", |bencher| bencher.iter(|| cheap.in_place()));
    group.bench_function("by-its-thread", |bencher| {
        bencher.iter(|| dear.by_thread(1))
    });
    group.throughput(Throughput::Elements(32));
    group.bench_function("32-by-its-thread", |bencher| {
        bencher.iter(|| dear.by_thread(32));
    });
    group.finish();
    beside_a_long_queue(&mut criterion);
    criterion.final_summary();
}

/// The logarithm in the order of the queue: 64 arrivals, and a batch of the 64 earliest, with
/// thousands waiting.
fn beside_a_long_queue(criterion: &mut Criterion) {
    let mut queue = Queue::new();
    queue.arrive((LONG_QUEUE, 1), 1);
    let mut group = criterion.benchmark_group("batcher");
    group.throughput(Throughput::Elements(64));
    group.bench_function("batch-of-64-of-8192-waiting", |bencher| {
        bencher.iter(|| queue.turn(64, 1));
    });
    group.finish();
}

/// Asserts that turns of `work` allocate nothing once everything has grown to the load.
fn holds(name: &str, mut work: impl FnMut()) {
    for _ in 0..WARM_UP_TURNS {
        work();
    }
    let count = allocations_of(|| (0..TURNS).for_each(|_| work()));
    println!("{name:<30} {count} allocations in {TURNS} turns");
    assert_eq!(count, 0, "{name}: a step allocates in the steady state");
}

const TURNS: u32 = 10_000;
/// As many turns as it takes to use every slot, and then some.
const WARM_UP_TURNS: u32 = 2 * SLOTS;
/// Positions of the driver's slab: more than any case has waiting.
const SLOTS: u32 = 16_384;
const LONG_QUEUE: u32 = 8_192;
const ROWS_MAX: u32 = 64;
/// Budgets of the requests, in nanoseconds: apart enough to change the order in which they
/// arrived, and near enough that none waits until its slot is wanted again.
const BUDGETS_NANOS: [u64; 4] = [1_002_000_000, 1_000_500_000, 1_001_000_000, 1_000_000_000];
/// Full batches of this stay below what is run in place.
const CHEAP_NANOS: u64 = 200;
const DEAR_NANOS: u64 = 5_000_000;
const LANE: LaneId = LaneId(0);
