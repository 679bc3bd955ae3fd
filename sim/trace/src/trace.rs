//! Recorded requests, to be sent again as they came.

use std::collections::BTreeMap;
use std::io::BufRead;

use crate::error::TraceError;
use crate::limits::{TENANTS_MAX, TRACE_LINES_MAX, TRACE_SPAN_MS_MAX};
use crate::lines::Lines;
use crate::options::{ROLES, TraceOptions};
use crate::record::{Layout, Record};
use crate::summary::TraceSummary;

/// A part of a trace, read and ready to be replayed.
///
/// It is read as a whole before anything is sent, so that a damaged trace is known of before a
/// run begins. Memory: 32 bytes a request, of at most 4,194,304.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    entries: Vec<Entry>,
    /// Which of the roles have a column.
    has: [bool; ROLES.len()],
    tenants: Vec<String>,
    summary: TraceSummary,
}

/// A request, kept small: what has no column is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    at_nanos: u64,
    sizes: [u32; 4],
    tenant: u32,
}

/// A recorded request; what is not recorded is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Nanoseconds from the start of the part, at the speed of the replay.
    pub at_nanos: u64,
    /// Its rows, at least 1.
    pub rows: Option<u32>,
    /// Tokens that went in.
    pub tokens: Option<u32>,
    /// Tokens that came out.
    pub tokens_out: Option<u32>,
    /// Bytes that went in.
    pub bytes: Option<u32>,
    /// An index into [`Trace::tenants`].
    pub tenant: Option<u32>,
}

impl Trace {
    /// Reads a trace line by line: UTF-8, with or without a byte order mark, lines ending in LF
    /// or CRLF.
    ///
    /// A line that cannot be read, or whose time is more than 366 days after the first, is
    /// skipped and counted. A request whose time is before that of the one above is taken to have
    /// come with that one, and counted: one wrong time far ahead shows as many out of order.
    ///
    /// # Errors
    /// [`TraceError`]: the options are not allowed, a mapped column is missing, not one line can
    /// be read, the part that is asked for is empty, there are more than 4,194,304 lines, or the
    /// reader fails.
    pub fn read(input: impl BufRead, options: &TraceOptions) -> Result<Self, TraceError> {
        options.check("trace").map_err(TraceError::Options)?;
        let (columns, unit) = options.mapping().ok_or(TraceError::Empty)?;
        let mut reading = Reading::new(options, columns.names().map(|name| name.is_some()));
        let mut layout = (!options.is_csv()).then(|| Layout::of_keys(&columns));
        let mut lines = Lines::new(input);
        loop {
            let number = lines.number();
            let line = lines.next().map_err(|error| TraceError::Read {
                lines: number,
                reason: error.to_string(),
            })?;
            let Some(line) = line else {
                reading.trace.summary.whole = true;
                return reading.end();
            };
            if line.as_ref().is_ok_and(|line| line.trim().is_empty()) {
                continue;
            }
            let Some(layout) = &layout else {
                let header = line.map_err(TraceError::Header)?;
                layout = Some(Layout::of_header(header, &columns)?);
                continue;
            };
            if reading.trace.summary.lines == TRACE_LINES_MAX {
                return Err(TraceError::TooManyLines);
            }
            let record = line.and_then(|line| layout.read(line, unit));
            if reading.line(number + 1, record) {
                return reading.end();
            }
        }
    }

    /// What became of its lines.
    pub fn summary(&self) -> &TraceSummary {
        &self.summary
    }

    /// The names of its tenants, in the order in which they come first; none without a column.
    pub fn tenants(&self) -> &[String] {
        &self.tenants
    }

    /// The request with this index, if there are so many.
    pub fn row(&self, index: usize) -> Option<Row> {
        let entry = self.entries.get(index)?;
        let [_, rows, tokens, tokens_out, bytes, tenant] = self.has;
        Some(Row {
            at_nanos: entry.at_nanos,
            rows: rows.then_some(entry.sizes[0]),
            tokens: tokens.then_some(entry.sizes[1]),
            tokens_out: tokens_out.then_some(entry.sizes[2]),
            bytes: bytes.then_some(entry.sizes[3]),
            tenant: tenant.then_some(entry.tenant),
        })
    }
}

/// A trace that is being read.
struct Reading {
    trace: Trace,
    tenants: BTreeMap<String, u32>,
    /// The times of the first request and of the last one, the latter never going back.
    times: Option<(u64, u64)>,
    from_nanos: u64,
    to_nanos: u64,
    requests_max: u64,
    speed_permille: u64,
}

impl Reading {
    fn new(options: &TraceOptions, has: [bool; ROLES.len()]) -> Self {
        Self {
            trace: Trace {
                entries: Vec::new(),
                has,
                tenants: Vec::new(),
                summary: TraceSummary::default(),
            },
            tenants: BTreeMap::new(),
            times: None,
            from_nanos: options.from_ms * NANOS_PER_MS,
            to_nanos: options.to_ms.map_or(u64::MAX, |to_ms| to_ms * NANOS_PER_MS),
            requests_max: options.requests_max.unwrap_or(TRACE_LINES_MAX),
            speed_permille: u64::from(options.speed_permille),
        }
    }

    /// Takes a line in, and says whether what comes after it need not be looked at.
    fn line(&mut self, number: u64, record: Result<Record, String>) -> bool {
        self.trace.summary.lines += 1;
        match record.and_then(|record| self.take(record)) {
            Ok(after) => after || self.trace.summary.taken == self.requests_max,
            Err(reason) => {
                self.trace.summary.skip(number, reason);
                false
            }
        }
    }

    /// Takes a request, and says whether it lies behind the part that is asked for.
    fn take(&mut self, record: Record) -> Result<bool, String> {
        let (first, last) = self.times.unwrap_or((record.nanos, record.nanos));
        let nanos = record.nanos.max(last);
        let offset = nanos - first;
        if offset > TRACE_SPAN_MS_MAX * NANOS_PER_MS {
            let days = offset / NANOS_PER_MS / DAY_MS;
            let allowed = TRACE_SPAN_MS_MAX / DAY_MS;
            return Err(format!(
                "time is {days} days after the first request; allowed: up to {allowed}"
            ));
        }
        let inside = (self.from_nanos..self.to_nanos).contains(&offset);
        let tenant = match record.tenant {
            Some(name) if inside => self.tenant(name)?,
            _ => 0,
        };
        let summary = &mut self.trace.summary;
        summary.out_of_order += u64::from(record.nanos < last);
        summary.span_ms = offset / NANOS_PER_MS;
        self.times = Some((first, nanos));
        if !inside {
            summary.left_out += 1;
            return Ok(offset >= self.to_nanos);
        }
        summary.taken += 1;
        // At most 366 days a hundred times slower: below 2⁶³.
        let slowed = u128::from(offset - self.from_nanos) * 1_000 / u128::from(self.speed_permille);
        self.trace.entries.push(Entry {
            at_nanos: u64::try_from(slowed).unwrap_or(u64::MAX),
            sizes: record.sizes,
            tenant,
        });
        Ok(false)
    }

    fn tenant(&mut self, name: String) -> Result<u32, String> {
        if let Some(index) = self.tenants.get(&name) {
            return Ok(*index);
        }
        let index = self.trace.tenants.len();
        if index >= TENANTS_MAX {
            return Err(format!(
                "tenant is one more than {TENANTS_MAX}; allowed: one of those above"
            ));
        }
        self.trace.tenants.push(name.clone());
        self.tenants.insert(name, index as u32);
        Ok(index as u32)
    }

    fn end(self) -> Result<Trace, TraceError> {
        let summary = &self.trace.summary;
        if summary.lines == 0 {
            return Err(TraceError::Empty);
        }
        if summary.lines == summary.skipped {
            return Err(TraceError::EveryLineBad {
                lines: summary.lines,
                first: summary.first_skipped.clone(),
            });
        }
        if summary.taken == 0 {
            return Err(TraceError::NothingInPart(self.trace.summary));
        }
        Ok(self.trace)
    }
}

const NANOS_PER_MS: u64 = 1_000_000;
const DAY_MS: u64 = 24 * 3_600 * 1_000;

#[cfg(test)]
mod tests;
