//! What it costs to pick a replica and to tell the router of the end: at 10 replicas and at
//! 10,000, within twice of each other, and without allocating.

mod allocations;
mod alternate;
mod provenance;
mod spread;

use std::collections::VecDeque;
use std::hint::black_box;

use allocations::{Counting, allocations_of};
use alternate::{Side, compare};
use criterion::{BenchmarkId, Criterion};
use paceline_core::device::BatcherId;
use paceline_core::router::{Effect, Heard, Input, Report, RouteId, Router, Target};
use paceline_core::{Instant, Machine, Random, Slot};
use paceline_protocol::{NodeId, ReplicaId};
use provenance::SEED;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A router with requests in flight: each step ends the oldest and picks for a new one.
struct Traffic {
    router: Router,
    now: Instant,
    out: Vec<Effect>,
    in_flight: VecDeque<ReplicaId>,
    random: Random,
}

impl Traffic {
    /// `replicas` over as many nodes, one of them on the router's own.
    fn over(replicas: u64) -> Self {
        let mut router = Router::new(NodeId(1), SEED);
        let targets = (1..=replicas).map(|replica| Target {
            replica: ReplicaId(replica),
            node: NodeId(replica),
            local: (replica == 1).then_some(BatcherId(0)),
            is_near: true,
            row_nanos: 40_000,
        });
        let input = Input::SetTargets {
            route: ROUTE,
            targets: targets.collect(),
        };
        router.step(Instant::ZERO, input, &mut Vec::new());
        let mut traffic = Self {
            router,
            now: Instant::ZERO,
            out: Vec::with_capacity(1),
            in_flight: VecDeque::with_capacity(IN_FLIGHT + 1),
            random: Random::stream(SEED, "reports"),
        };
        for _ in 0..IN_FLIGHT {
            traffic.pick();
        }
        traffic
    }

    fn turns(&mut self, turns: u64) {
        for _ in 0..turns {
            self.done();
            self.pick();
        }
    }

    fn pick(&mut self) {
        self.now = self.now.plus_nanos(1_000);
        let input = Input::Pick {
            route: ROUTE,
            slot: SLOT,
            rows: 1,
            bytes: 64,
            may_probe: true,
            again: None,
            sequence: None,
        };
        self.router.step(self.now, black_box(input), &mut self.out);
        match black_box(self.out.pop()) {
            Some(Effect::Dispatch { replica, .. }) => self.in_flight.push_back(replica),
            other => unreachable!("all replicas are ready, yet {other:?}"),
        }
    }

    fn done(&mut self) {
        self.now = self.now.plus_nanos(1_000);
        let Some(replica) = self.in_flight.pop_front() else {
            return;
        };
        let report = Report {
            queued_rows: self.random.below(64) as u32,
            row_nanos: 40_000 + self.random.below(1_000),
            rest_nanos: 90_000,
        };
        let input = Input::Done {
            route: ROUTE,
            replica,
            rows: 1,
            heard: Heard::Answer(report),
        };
        self.router.step(self.now, black_box(input), &mut self.out);
    }
}

fn main() {
    provenance::print("router: pick and done");
    for replicas in REPLICAS {
        let mut traffic = Traffic::over(replicas);
        traffic.turns(1_000);
        let count = allocations_of(|| traffic.turns(10_000));
        println!("{replicas} replicas: {count} allocations in 20,000 steps");
        assert_eq!(count, 0, "a step allocates in the steady state");
    }
    println!();
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("pick-and-done");
    for replicas in REPLICAS {
        let mut traffic = Traffic::over(replicas);
        group.bench_function(BenchmarkId::from_parameter(replicas), |bencher| {
            bencher.iter(|| traffic.turns(1));
        });
    }
    group.finish();
    criterion.final_summary();
    if alternate::is_measuring() {
        compare_sizes();
    }
}

fn compare_sizes() {
    let [mut few, mut many] = REPLICAS.map(Traffic::over);
    let many = Side {
        name: "10,000 replicas, pick and done",
        work: |turns| many.turns(turns),
    };
    let few = Side {
        name: "10 replicas, pick and done",
        work: |turns| few.turns(turns),
    };
    let compared = compare((101, 10_000), many, few);
    let (ratio, bar) = (compared.ratio.median(), RATIO_BAR);
    let verdict = if ratio <= bar { "holds" } else { "MISSED" };
    println!("bar: 10,000 replicas cost at most {bar}× what 10 do: {ratio:.2}×, {verdict}");
}

const REPLICAS: [u64; 2] = [10, 10_000];
/// What DESIGN promises of the two.
const RATIO_BAR: f64 = 2.0;
/// Requests on their way: a busy node's.
const IN_FLIGHT: usize = 64;
const ROUTE: RouteId = RouteId(0);
const SLOT: Slot = Slot {
    index: 0,
    generation: 0,
};
