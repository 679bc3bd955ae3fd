//! What became of a trace's lines.

use std::fmt;

use serde::Serialize;

use crate::limits::SKIPPED_LINES_KEPT;

/// What became of a trace's lines: `lines = taken + skipped + left_out`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TraceSummary {
    /// Lines looked at; the header and empty lines do not count.
    pub lines: u64,
    /// Requests that will be sent.
    pub taken: u64,
    /// Lines that could not be read.
    pub skipped: u64,
    /// Requests outside of `from_ms` to `to_ms`.
    pub left_out: u64,
    /// Requests whose time was before that of the request above; they are sent with that one.
    pub out_of_order: u64,
    /// From the first request to the last one looked at, in milliseconds of the trace's time,
    /// rounded down.
    pub span_ms: u64,
    /// Whether the whole trace was looked at. Reading stops behind `to_ms` and at
    /// `requests_max`.
    pub whole: bool,
    /// The first eight lines that were skipped, and why.
    pub first_skipped: Vec<SkippedLine>,
}

/// A line that was skipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SkippedLine {
    /// Its number in the file, from 1.
    pub line: u64,
    /// What is wrong with it, and what is allowed.
    pub reason: String,
}

impl TraceSummary {
    /// Counts a line that could not be read.
    pub(super) fn skip(&mut self, line: u64, reason: String) {
        self.skipped += 1;
        if self.first_skipped.len() < SKIPPED_LINES_KEPT {
            self.first_skipped.push(SkippedLine { line, reason });
        }
    }
}

impl fmt::Display for SkippedLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl fmt::Display for TraceSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} lines taken, {} skipped, {} outside of the part, {} out of order; {} ms",
            self.taken, self.lines, self.skipped, self.left_out, self.out_of_order, self.span_ms
        )?;
        self.first_skipped
            .iter()
            .try_for_each(|line| write!(f, "\n  {line}"))
    }
}
