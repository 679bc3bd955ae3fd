//! Why a trace cannot be replayed.

use std::fmt;

use super::record::shown;
use super::summary::{SkippedLine, TraceSummary};
use crate::limits::TRACE_LINES_MAX;
use crate::setting::InvalidSetting;

/// Why a trace cannot be replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceError {
    /// The options are not allowed.
    Options(InvalidSetting),
    /// Reading failed after so many lines.
    Read {
        /// Lines read before.
        lines: u64,
        /// What the reader said.
        reason: String,
    },
    /// There is nothing in it, or nothing but a header.
    Empty,
    /// The header cannot be read, and why.
    Header(String),
    /// A mapped column is not there, or more than once.
    Column {
        /// What it is to be read for.
        role: &'static str,
        /// What it is called.
        name: String,
        /// How often it is there.
        times: usize,
        /// The columns that are there.
        there: String,
    },
    /// Not one line can be read.
    EveryLineBad {
        /// How many there are.
        lines: u64,
        /// The first of them, and why.
        first: Vec<SkippedLine>,
    },
    /// More lines than are looked at.
    TooManyLines,
    /// No request lies in the part that is asked for.
    NothingInPart(TraceSummary),
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options(invalid) => invalid.fmt(f),
            Self::Read { lines, reason } => {
                write!(f, "reading failed after {lines} lines: {reason}")
            }
            Self::Empty => f.write_str("the trace has no requests: it is empty, or only a header"),
            Self::Header(what) => write!(f, "the header cannot be read: {what}"),
            Self::Column {
                role,
                name,
                times,
                there,
            } => {
                let found = match times {
                    0 => "no column is".to_owned(),
                    _ => format!("{times} columns are"),
                };
                let name = shown(name);
                write!(
                    f,
                    "{found} called {name}, which {role} is to be read from; there are: {there}"
                )
            }
            Self::EveryLineBad { lines, first } => {
                write!(f, "not one of {lines} lines can be read")?;
                first.iter().try_for_each(|line| write!(f, "\n  {line}"))
            }
            Self::TooManyLines => write!(
                f,
                "the trace has more than {TRACE_LINES_MAX} lines; take a part with to_ms or \
                 requests_max"
            ),
            Self::NothingInPart(summary) => write!(
                f,
                "no request lies in the part that is asked for; {} of {} lines could be read, \
                 and the last lies {} ms after the first",
                summary.lines - summary.skipped,
                summary.lines,
                summary.span_ms
            ),
        }
    }
}

impl std::error::Error for TraceError {}
