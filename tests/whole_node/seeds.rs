//! What is run: forty seeds (`WHOLE_NODE_SEEDS` is another number), and the same one twice.

use crate::runs::{Ran, all};

#[test]
fn all_seeds_keep_what_was_promised() {
    let seeds = std::env::var("WHOLE_NODE_SEEDS").map_or(SEEDS, |seeds| {
        seeds.parse().expect("WHOLE_NODE_SEEDS is a number")
    });
    all(0..seeds, |seed| Ran::new(seed, &[]).assert_good());
}

/// Same seed, same bytes, in fresh processes and with faults and elections in them; another
/// seed is another run.
#[test]
fn a_seed_is_a_run() {
    all(100..103, |seed| {
        let (one, other) = (Ran::new(seed, &[]), Ran::new(seed, &[("TZ", "Asia/Tokyo")]));
        let elections = one
            .trace
            .lines()
            .filter(|line| line.contains("Candidate"))
            .count();
        assert!(elections > 0, "seed {seed} had no election");
        let differ = one
            .trace
            .lines()
            .zip(other.trace.lines())
            .find(|(a, b)| a != b);
        assert_eq!(differ, None, "seed {seed} is not one run");
        assert_eq!(one.trace, other.trace, "seed {seed} is not one run");
        let another = Ran::new(seed + 1_000, &[]);
        assert_ne!(one.trace, another.trace);
    });
}

const SEEDS: u64 = 40;
