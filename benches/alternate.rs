//! Compares two pieces of work by running them in turn, so that whatever disturbs one disturbs
//! the other.

use std::time::Instant;

use crate::spread::Spread;

/// What both took, in nanoseconds for one operation, and how they compare.
pub(crate) struct Compared {
    pub(crate) ours: Spread,
    pub(crate) other: Spread,
    /// Ours divided by the other, round by round.
    pub(crate) ratio: Spread,
}

/// One of the two.
pub(crate) struct Side<F> {
    /// What stands in front of its figures.
    pub(crate) name: &'static str,
    /// Performs so many operations.
    pub(crate) work: F,
}

/// Whether figures are wanted: not by `cargo test`, which only sees that everything runs.
pub(crate) fn is_measuring() -> bool {
    let mut is_bench = false;
    let mut is_listing = false;
    for argument in std::env::args() {
        is_bench |= argument == "--bench";
        is_listing |= argument == "--list" || argument == "--test";
    }
    is_bench && !is_listing
}

/// Runs both in turn, `rounds` times `operations` each, and prints what came of it.
pub(crate) fn compare<A: FnMut(u64), B: FnMut(u64)>(
    (rounds, operations): (u64, u64),
    mut ours: Side<A>,
    mut other: Side<B>,
) -> Compared {
    // What is learnt, grown or cached at the beginning belongs to neither.
    (ours.work)(operations);
    (other.work)(operations);
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // The one that goes first changes, in case it finds a warmer or a colder machine.
        if round % 2 == 0 {
            a.push(nanos_each(operations, &mut ours.work));
            b.push(nanos_each(operations, &mut other.work));
        } else {
            b.push(nanos_each(operations, &mut other.work));
            a.push(nanos_each(operations, &mut ours.work));
        }
    }
    let ratio = Spread::of(a.iter().zip(&b).map(|(a, b)| a / b));
    let compared = Compared {
        ours: Spread::of(a),
        other: Spread::of(b),
        ratio,
    };
    compared.print(ours.name, other.name);
    compared
}

impl Compared {
    fn print(&self, ours: &str, other: &str) {
        for (name, spread) in [(ours, &self.ours), (other, &self.other)] {
            let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|share| spread.quantile(share) / 1_000.0);
            println!("{name:<44} p50 {p50:>10.3} µs   p95 {p95:>10.3} µs   p99 {p99:>10.3} µs");
        }
        let (low, high) = (self.ratio.quantile(0.05), self.ratio.quantile(0.95));
        let (median, medians) = (
            self.ratio.median(),
            self.ours.median() / self.other.median(),
        );
        println!(
            "  ratio of medians {medians:.2}; round by round {median:.2} (p5 {low:.2}, p95 {high:.2})\n"
        );
    }
}

fn nanos_each(operations: u64, work: &mut impl FnMut(u64)) -> f64 {
    let started = Instant::now();
    work(operations);
    started.elapsed().as_nanos() as f64 / operations as f64
}
