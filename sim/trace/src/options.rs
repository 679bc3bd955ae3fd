//! Which trace is replayed, how it is read, and which part of it.

use serde::{Deserialize, Serialize};

use crate::limits::{TRACE_LINES_MAX, TRACE_SPAN_MS_MAX};
use crate::setting::{InvalidSetting, within};

/// Which trace is replayed, how it is read, and which part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceOptions {
    /// Where it lies; whoever reads it opens it.
    pub path: String,
    /// How its lines look.
    pub format: TraceFormat,
    /// What its columns are called; for the formats `csv` and `jsonl`, and only for these.
    #[serde(default)]
    pub columns: Option<Columns>,
    /// What its times are; for the formats `csv` and `jsonl`, and only for these.
    #[serde(default)]
    pub time_unit: Option<TimeUnit>,
    /// How fast it is replayed, in thousandths of how fast it was: 10 to 1,000,000.
    #[serde(default = "as_it_was")]
    pub speed_permille: u32,
    /// Requests before this are left out, in milliseconds of the trace's time from its first
    /// request; this time is the workload's start.
    #[serde(default)]
    pub from_ms: u64,
    /// Requests from this on are left out, in the same time.
    #[serde(default)]
    pub to_ms: Option<u64>,
    /// No more than so many requests are taken, from 1.
    #[serde(default)]
    pub requests_max: Option<u64>,
}

/// How the lines of a trace look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TraceFormat {
    /// Values between commas, as RFC 4180 has it but without line breaks inside of quotes; the
    /// first line names the columns.
    Csv,
    /// A JSON object a line.
    Jsonl,
    /// Azure's traces of language models of 2023 (github.com/Azure/AzurePublicDataset): CSV with
    /// TIMESTAMP, ContextTokens and GeneratedTokens.
    #[serde(rename = "azure-llm-2023")]
    AzureLlm2023,
    /// Mooncake's traces (github.com/kvcache-ai/Mooncake, FAST'25): JSON lines with timestamp in
    /// milliseconds, input_length, output_length, and hash_ids, which are not read.
    Mooncake,
}

/// What the columns of a trace are called. Sizes that no column gives are drawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// When a request was sent.
    pub time: String,
    /// Its rows.
    #[serde(default)]
    pub rows: Option<String>,
    /// Tokens that went in.
    #[serde(default)]
    pub tokens: Option<String>,
    /// Tokens that came out.
    #[serde(default)]
    pub tokens_out: Option<String>,
    /// Bytes that went in.
    #[serde(default)]
    pub bytes: Option<String>,
    /// The name of the tenant.
    #[serde(default)]
    pub tenant: Option<String>,
}

/// What the times of a trace are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeUnit {
    /// Numbers of seconds; these and the next may have a fraction and an exponent, and may count
    /// from any moment.
    #[serde(rename = "s")]
    Seconds,
    /// Numbers of milliseconds.
    #[serde(rename = "ms")]
    Millis,
    /// Numbers of microseconds.
    #[serde(rename = "us")]
    Micros,
    /// Numbers of nanoseconds.
    #[serde(rename = "ns")]
    Nanos,
    /// Dates with times of day as in RFC 3339, such as `2023-11-16 18:17:03.9799600` or
    /// `2023-11-16T19:17:03.98+01:00`; without an offset they are UTC.
    #[serde(rename = "datetime")]
    DateTime,
}

impl TraceOptions {
    /// All of a trace of a format that knows its columns, as fast as it was.
    pub fn new(path: &str, format: TraceFormat) -> Self {
        Self {
            path: path.to_owned(),
            format,
            columns: None,
            time_unit: None,
            speed_permille: as_it_was(),
            from_ms: 0,
            to_ms: None,
            requests_max: None,
        }
    }

    /// Whether every setting is allowed; `key` is the path of their keys.
    ///
    /// # Errors
    /// [`InvalidSetting`] names the first that is not.
    pub fn check(&self, key: &str) -> Result<(), InvalidSetting> {
        let named = |name: &str| format!("{key}.{name}");
        if self.path.is_empty() {
            return Err(InvalidSetting::new(&named("path"), "empty", "a path"));
        }
        let maps = matches!(self.format, TraceFormat::Csv | TraceFormat::Jsonl);
        let given = |given: bool| if given { "given" } else { "not given" };
        for (name, has) in [
            ("columns", self.columns.is_some()),
            ("time_unit", self.time_unit.is_some()),
        ] {
            if has != maps {
                let allowed = format!("{}, for this format", given(maps));
                return Err(InvalidSetting::new(&named(name), given(has), allowed));
            }
        }
        if let Some(columns) = &self.columns {
            let empty = |(_, column): &(&str, Option<&str>)| *column == Some("");
            if let Some((role, _)) = ROLES.into_iter().zip(columns.names()).find(empty) {
                let role = named(&format!("columns.{role}"));
                return Err(InvalidSetting::new(&role, "empty", "a column's name"));
            }
        }
        let speed = u64::from(self.speed_permille);
        within(&named("speed_permille"), speed, (10, 1_000_000))?;
        let span = TRACE_SPAN_MS_MAX;
        within(&named("from_ms"), self.from_ms, (0, span - 1))?;
        let to_ms = self.to_ms.unwrap_or(span);
        within(&named("to_ms"), to_ms, (self.from_ms + 1, span))?;
        let requests_max = self.requests_max.unwrap_or(TRACE_LINES_MAX);
        within(&named("requests_max"), requests_max, (1, TRACE_LINES_MAX))
    }

    /// The columns and what the times are, by the format's own knowledge or as given. Those that
    /// are not given where they have to be are refused by [`TraceOptions::check`].
    pub(super) fn mapping(&self) -> Option<(Columns, TimeUnit)> {
        let known = |time: &str, tokens: &str, tokens_out: &str| Columns {
            time: time.to_owned(),
            rows: None,
            tokens: Some(tokens.to_owned()),
            tokens_out: Some(tokens_out.to_owned()),
            bytes: None,
            tenant: None,
        };
        match self.format {
            TraceFormat::Csv | TraceFormat::Jsonl => self.columns.clone().zip(self.time_unit),
            TraceFormat::AzureLlm2023 => Some((
                known("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
                TimeUnit::DateTime,
            )),
            TraceFormat::Mooncake => Some((
                known("timestamp", "input_length", "output_length"),
                TimeUnit::Millis,
            )),
        }
    }

    /// Whether its lines are values between commas.
    pub(super) fn is_csv(&self) -> bool {
        matches!(self.format, TraceFormat::Csv | TraceFormat::AzureLlm2023)
    }
}

/// What a column says, in the order of [`Columns::names`].
pub(super) const ROLES: [&str; 6] = ["time", "rows", "tokens", "tokens_out", "bytes", "tenant"];

impl Columns {
    /// The columns in the order of [`ROLES`].
    pub(super) fn names(&self) -> [Option<&str>; 6] {
        [
            Some(&self.time),
            self.rows.as_deref(),
            self.tokens.as_deref(),
            self.tokens_out.as_deref(),
            self.bytes.as_deref(),
            self.tenant.as_deref(),
        ]
    }
}

fn as_it_was() -> u32 {
    1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_by_their_names_and_written_back() {
        let json = r#"{"path": "a.csv", "format": "csv", "time_unit": "us",
            "columns": {"time": "t", "tenant": "who"}, "speed_permille": 2000, "to_ms": 5}"#;
        let options: TraceOptions = serde_json::from_str(json).unwrap();
        assert_eq!(options.check("arrivals"), Ok(()));
        assert_eq!(options.time_unit, Some(TimeUnit::Micros));
        let again = serde_json::to_value(&options).unwrap();
        assert_eq!(
            serde_json::from_value::<TraceOptions>(again).unwrap(),
            options
        );
        let azure = r#"{"path": "a.csv", "format": "azure-llm-2023"}"#;
        let azure: TraceOptions = serde_json::from_str(azure).unwrap();
        assert_eq!(azure, TraceOptions::new("a.csv", TraceFormat::AzureLlm2023));
        let unknown = r#"{"path": "a.csv", "format": "mooncake", "speed": 2}"#;
        assert!(serde_json::from_str::<TraceOptions>(unknown).is_err());
    }

    #[test]
    fn what_is_not_allowed_is_named() {
        let message = |change: fn(&mut TraceOptions)| {
            let mut options = TraceOptions::new("a.jsonl", TraceFormat::Mooncake);
            change(&mut options);
            options.check("arrivals").unwrap_err().to_string()
        };
        assert_eq!(
            message(|options| options.path.clear()),
            "arrivals.path is empty; allowed: a path"
        );
        assert_eq!(
            message(|options| options.time_unit = Some(TimeUnit::Nanos)),
            "arrivals.time_unit is given; allowed: not given, for this format"
        );
        assert_eq!(
            message(|options| options.format = TraceFormat::Csv),
            "arrivals.columns is not given; allowed: given, for this format"
        );
        assert_eq!(
            message(|options| options.speed_permille = 0),
            "arrivals.speed_permille is 0; allowed: 10 to 1000000"
        );
        assert_eq!(
            message(|options| (options.from_ms, options.to_ms) = (7, Some(7))),
            "arrivals.to_ms is 7; allowed: 8 to 31622400000"
        );
        assert_eq!(
            message(|options| options.requests_max = Some(0)),
            "arrivals.requests_max is 0; allowed: 1 to 4194304"
        );
        assert_eq!(
            message(|options| options.from_ms = u64::MAX),
            "arrivals.from_ms is 18446744073709551615; allowed: 0 to 31622399999"
        );
    }
}
