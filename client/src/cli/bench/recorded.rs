//! A recorded trace as arrivals: in which format it is, and which of the bodies each request has.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use paceline_protocol::limits::ROWS_MAX;
use paceline_trace::{Columns, TimeUnit, Trace, TraceFormat, TraceOptions};
use serde_json::{Map, Value};

use super::arrivals::{Arrivals, Due};

/// A trace that can be replayed.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) arrivals: Arrivals,
    /// Rows of each body, rising; none where the trace has none.
    pub(super) rows: Vec<u32>,
    /// When the last request is due, in nanoseconds.
    pub(super) last_nanos: u64,
    /// What became of its lines.
    pub(super) told: String,
}

/// A column of times by its name.
const TIMES: [(&str, TimeUnit); 5] = [
    ("time", TimeUnit::DateTime),
    ("time_s", TimeUnit::Seconds),
    ("time_ms", TimeUnit::Millis),
    ("time_us", TimeUnit::Micros),
    ("time_ns", TimeUnit::Nanos),
];
const ROWS: &str = "rows";
/// Bytes of a first line that are looked at.
const FIRST_LINE_BYTES_MAX: u64 = 65_536;

impl Recorded {
    /// Reads a file, so many thousandths as fast as it was.
    ///
    /// # Errors
    /// It cannot be read, or is no trace; the text says what is allowed.
    pub(super) fn read(file: &Path, speed_permille: u32) -> Result<Self, String> {
        let named = |what: String| format!("the trace {}: {what}", file.display());
        let first = first_line(file).map_err(|error| named(error.to_string()))?;
        let mut options = options(&first).ok_or_else(|| {
            named(format!(
                "its first line names no column of times; allowed: CSV with a header or JSON lines with one \
                 of {} (date and time), and {ROWS} if it likes, or Azure's or Mooncake's traces of language models",
                TIMES.map(|(name, _)| name).join(", ")
            ))
        })?;
        options.speed_permille = speed_permille;
        let input = File::open(file).map_err(|error| named(error.to_string()))?;
        let trace = Trace::read(BufReader::new(input), &options);
        let trace = trace.map_err(|error| named(error.to_string()))?;
        Self::of(&trace).map_err(named)
    }

    fn of(trace: &Trace) -> Result<Self, String> {
        let all = || (0..).map_while(|index| trace.row(index));
        let sizes: BTreeSet<u32> = all().filter_map(|row| row.rows).collect();
        let rows: Vec<u32> = sizes.into_iter().collect();
        if let Some(most) = rows.last().filter(|most| u64::from(**most) > ROWS_MAX) {
            return Err(format!(
                "a request has {most} rows; allowed: up to {ROWS_MAX}"
            ));
        }
        let due: Arc<[Due]> = all()
            .map(|row| Due {
                at_nanos: row.at_nanos,
                body: row
                    .rows
                    .map_or(0, |size| rows.partition_point(|less| *less < size)),
            })
            .collect();
        Ok(Self {
            last_nanos: due.last().map_or(0, |last| last.at_nanos),
            arrivals: Arrivals::Recorded(due),
            rows,
            told: trace.summary().to_string(),
        })
    }

    /// The same moments with one body for all.
    pub(super) fn with_one_body(mut self) -> Self {
        if let Arrivals::Recorded(due) = &self.arrivals {
            let same = due.iter().map(|due| Due { body: 0, ..*due });
            self.arrivals = Arrivals::Recorded(same.collect());
        }
        self.rows.clear();
        self
    }
}

fn first_line(file: &Path) -> io::Result<String> {
    let mut line = Vec::new();
    let input = File::open(file)?.take(FIRST_LINE_BYTES_MAX);
    BufReader::new(input).read_until(b'\n', &mut line)?;
    let text = String::from_utf8_lossy(&line);
    Ok(text.trim_start_matches('\u{feff}').trim().to_owned())
}

/// How a trace is read whose first line is this one.
fn options(first: &str) -> Option<TraceOptions> {
    let object: Option<Map<String, Value>> = serde_json::from_str(first).ok();
    let is_csv = object.is_none();
    let names: Vec<String> = match object {
        Some(object) => object.into_iter().map(|(name, _)| name).collect(),
        None => {
            let names = first.split(',');
            names
                .map(|name| name.trim().trim_matches('"').to_owned())
                .collect()
        }
    };
    let has = |name: &str| names.iter().any(|one| one == name);
    let known = |format| Some(TraceOptions::new("trace", format));
    if is_csv && has("TIMESTAMP") && has("ContextTokens") && has("GeneratedTokens") {
        return known(TraceFormat::AzureLlm2023);
    }
    if !is_csv && has("timestamp") && has("input_length") && has("output_length") {
        return known(TraceFormat::Mooncake);
    }
    let (time, unit) = TIMES.into_iter().find(|(name, _)| has(name))?;
    let format = if is_csv {
        TraceFormat::Csv
    } else {
        TraceFormat::Jsonl
    };
    Some(TraceOptions {
        columns: Some(Columns {
            time: time.to_owned(),
            rows: has(ROWS).then(|| ROWS.to_owned()),
            tokens: None,
            tokens_out: None,
            bytes: None,
            tenant: None,
        }),
        time_unit: Some(unit),
        ..TraceOptions::new("trace", format)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn read(text: &str, speed_permille: u32) -> Result<Recorded, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("trace");
        std::fs::write(&file, text).unwrap();
        Recorded::read(&file, speed_permille)
    }

    fn due(recorded: &Recorded) -> Vec<(u64, usize)> {
        let all = recorded.arrivals.schedule(Duration::from_secs(3_600));
        all.map(|due| (due.at_nanos, due.body)).collect()
    }

    #[test]
    fn every_format_is_known_by_its_first_line() {
        let csv = "\u{feff}time_ms,user,rows\n1000,a,8\n1001.5,b,1\n1003,c,8\n";
        let recorded = read(csv, 1_000).unwrap();
        assert_eq!(recorded.rows, [1, 8]);
        assert_eq!(due(&recorded), [(0, 1), (1_500_000, 0), (3_000_000, 1)]);
        assert_eq!(recorded.last_nanos, 3_000_000);
        assert!(
            recorded.told.starts_with("3 of 3 lines taken"),
            "{}",
            recorded.told
        );
        let json = "{\"time_s\": 5, \"rows\": 2}\n{\"time_s\": 5.5, \"rows\": 2}\n";
        let recorded = read(json, 500).unwrap();
        assert_eq!(due(&recorded), [(0, 0), (1_000_000_000, 0)], "half as fast");
        let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n\
                     2023-11-16 18:17:04.0319600,3180,8";
        assert_eq!(due(&read(azure, 1_000).unwrap()), [(0, 0), (52_000_000, 0)]);
        let mooncake = "{\"timestamp\": 0, \"input_length\": 6, \"output_length\": 2, \"hash_ids\": [1]}\n\
                        {\"timestamp\": 30, \"input_length\": 6, \"output_length\": 2, \"hash_ids\": [1]}\n";
        let mooncake = read(mooncake, 10_000).unwrap();
        assert_eq!((due(&mooncake).len(), mooncake.last_nanos), (2, 3_000_000));
        assert!(mooncake.rows.is_empty());
    }

    #[test]
    fn what_is_no_trace_is_told_what_one_is() {
        let wrong = read("when,rows\n1,2\n", 1_000).unwrap_err();
        assert!(
            wrong.contains("time, time_s, time_ms, time_us, time_ns"),
            "{wrong}"
        );
        let wrong = read("time_s,rows\nsoon,2\n", 1_000).unwrap_err();
        assert!(wrong.contains("not one of 1 lines can be read"), "{wrong}");
        let wrong = read("time_s,rows\n1,70000\n", 1_000).unwrap_err();
        assert!(
            wrong.contains("70000 rows; allowed: up to 65536"),
            "{wrong}"
        );
        assert!(Recorded::read(Path::new("/nowhere"), 1_000).is_err());
        let one = read("time_s,rows\n1,7\n2,9\n", 1_000)
            .unwrap()
            .with_one_body();
        assert_eq!(
            (due(&one), one.rows.len()),
            (vec![(0, 0), (1_000_000_000, 0)], 0)
        );
    }
}
