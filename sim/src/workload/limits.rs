//! How large a workload's settings may be, and why.

/// One request each nanosecond: time has no finer step.
pub(super) const RATE_PER_S_MAX: u64 = 1_000_000_000;

/// 31 days: sums of a few such spans in nanoseconds stay below 2⁶³.
pub(super) const DURATION_MS_MAX: u64 = 31 * 24 * 3_600 * 1_000;

/// Entries of a weighted list. Their weights, below 2³² each, add up to less than 2⁴².
pub(super) const WEIGHTED_MAX: usize = 1_000;

/// Requests of a sequence: its mean length is a sum with a term for each length.
pub(super) const SEQUENCE_LENGTH_MAX: u32 = 1_024;

/// A day between two requests of a sequence.
pub(super) const PAUSE_MS_MAX: u32 = 24 * 3_600 * 1_000;

/// Sequences that are under way at a time, each some 100 bytes: 6 MiB.
pub(super) const SEQUENCES_OPEN_MAX: usize = 65_536;
