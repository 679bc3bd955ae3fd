//! How large traces may be, and why.

/// Tenants, those that only a trace names included: as many as an operator would look at.
pub const TENANTS_MAX: usize = 1_000;

/// Bytes of a tenant's name.
pub(crate) const TENANT_NAME_BYTES_MAX: usize = 128;

/// Bytes of a trace's line: half a million tokens listed by their blocks take some 10,000.
pub(crate) const TRACE_LINE_BYTES_MAX: usize = 65_536;

/// Lines of a trace that are looked at; each one taken is kept in 32 bytes: 128 MiB.
pub(crate) const TRACE_LINES_MAX: u64 = 4 * 1_024 * 1_024;

/// 366 days from a trace's first request: a hundred times slower it still fits 63 bits.
pub(crate) const TRACE_SPAN_MS_MAX: u64 = 366 * 24 * 3_600 * 1_000;

/// Reasons kept of lines that were skipped: enough to see what is wrong with all of them.
pub(crate) const SKIPPED_LINES_KEPT: usize = 8;
