//! How large a workload's settings may be, and why.

/// One request each nanosecond: time has no finer step.
pub(super) const RATE_PER_S_MAX: u64 = 1_000_000_000;

/// 31 days: sums of a few such spans in nanoseconds stay below 2⁶³.
pub(super) const DURATION_MS_MAX: u64 = 31 * 24 * 3_600 * 1_000;

/// Entries of a weighted list. Their weights, below 2³² each, add up to less than 2⁴².
pub(super) const WEIGHTED_MAX: usize = 1_000;

/// Tenants, those that only a trace names included: as many as an operator would look at.
pub(super) const TENANTS_MAX: usize = 1_000;

/// Bytes of a tenant's name.
pub(super) const TENANT_NAME_BYTES_MAX: usize = 128;

/// Requests of a sequence: its mean length is a sum with a term for each length.
pub(super) const SEQUENCE_LENGTH_MAX: u32 = 1_024;

/// A day between two requests of a sequence.
pub(super) const PAUSE_MS_MAX: u32 = 24 * 3_600 * 1_000;

/// Sequences that are under way at a time, each some 100 bytes: 6 MiB.
pub(super) const SEQUENCES_OPEN_MAX: usize = 65_536;

/// Bytes of a trace's line: half a million tokens listed by their blocks take some 10,000.
pub(super) const TRACE_LINE_BYTES_MAX: usize = 65_536;

/// Lines of a trace that are looked at; each one taken is kept in 32 bytes: 128 MiB.
pub(super) const TRACE_LINES_MAX: u64 = 4 * 1_024 * 1_024;

/// 366 days from a trace's first request: a hundred times slower it still fits 63 bits.
pub(super) const TRACE_SPAN_MS_MAX: u64 = 366 * 24 * 3_600 * 1_000;

/// Reasons kept of lines that were skipped: enough to see what is wrong with all of them.
pub(super) const SKIPPED_LINES_KEPT: usize = 8;
