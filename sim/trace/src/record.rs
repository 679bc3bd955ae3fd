//! What one line of a trace says.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::csv;
use super::decimal::scaled;
use super::error::TraceError;
use super::options::{Columns, ROLES, TimeUnit};
use crate::limits::TENANT_NAME_BYTES_MAX;

/// A request as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// In nanoseconds from where the trace counts.
    pub(super) nanos: u64,
    /// Rows, tokens in, tokens out, bytes: 0 where there is no such column.
    pub(super) sizes: [u32; 4],
    pub(super) tenant: Option<String>,
}

/// Where a line has its values.
#[derive(Clone, Debug)]
pub(super) enum Layout {
    /// Which value of a line has each role.
    Csv([Option<usize>; 6]),
    /// Which key has each role.
    JsonLines([Option<String>; 6]),
}

impl Layout {
    /// The layout that a header of CSV gives.
    ///
    /// # Errors
    /// A mapped column is missing or stands there twice; the error says which ones there are.
    pub(super) fn of_header(header: &str, columns: &Columns) -> Result<Self, TraceError> {
        let there = csv::split(header).map_err(TraceError::Header)?;
        let there: Vec<&str> = there.iter().map(|name| name.trim()).collect();
        let mut places = [None; 6];
        for ((place, role), name) in places.iter_mut().zip(ROLES).zip(columns.names()) {
            let Some(name) = name else { continue };
            let mut found = there.iter().enumerate().filter(|(_, one)| **one == name);
            let first = found.next().map(|(index, _)| index);
            let times = usize::from(first.is_some()) + found.count();
            if times != 1 {
                return Err(TraceError::Column {
                    role,
                    name: name.to_owned(),
                    times,
                    there: shown_list(there.iter().copied()),
                });
            }
            *place = first;
        }
        Ok(Self::Csv(places))
    }

    /// The layout of JSON lines.
    pub(super) fn of_keys(columns: &Columns) -> Self {
        Self::JsonLines(columns.names().map(|name| name.map(str::to_owned)))
    }

    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong, and what is allowed.
    pub(super) fn read(&self, line: &str, unit: TimeUnit) -> Result<Record, String> {
        match self {
            Self::Csv(places) => {
                let values = csv::split(line)?;
                let value = |role: usize| match places[role] {
                    None => Ok(None),
                    Some(place) => values.get(place).cloned().map(Some).ok_or_else(|| {
                        format!(
                            "the line has {} values; allowed: at least {}, so that it has {}",
                            values.len(),
                            place + 1,
                            ROLES[role]
                        )
                    }),
                };
                record(value, unit)
            }
            Self::JsonLines(keys) => {
                let object: Object<'_> = serde_json::from_str(line)
                    .map_err(|error| format!("{error}; allowed: a JSON object"))?;
                let value = |role: usize| match &keys[role] {
                    None => Ok(None),
                    Some(key) => text(&object, key).map(Some),
                };
                record(value, unit)
            }
        }
    }
}

/// The values of a line by their keys, none of them looked into.
type Object<'a> = BTreeMap<String, &'a RawValue>;

/// A number of an object as it is written, or a string.
fn text(object: &Object<'_>, key: &str) -> Result<String, String> {
    let Some(value) = object.get(key).map(|value| value.get()) else {
        return Err(format!(
            "the object has no {}; it has: {}",
            shown(key),
            shown_list(object.keys().map(String::as_str))
        ));
    };
    let string = || serde_json::from_str(value).ok();
    match value.as_bytes().first() {
        Some(b'-' | b'0'..=b'9') => Some(value.to_owned()),
        Some(b'"') => string(),
        _ => None,
    }
    .ok_or_else(|| {
        format!(
            "{} is neither a number nor a string; allowed: one of these",
            shown(key)
        )
    })
}

/// Makes a record of the values of the roles.
fn record(
    value: impl Fn(usize) -> Result<Option<String>, String>,
    unit: TimeUnit,
) -> Result<Record, String> {
    let refused = |role: usize, text: &str, allowed: &str| {
        format!("{} is {}; allowed: {allowed}", ROLES[role], shown(text))
    };
    let time = value(0)?.unwrap_or_default();
    let nanos = unit.nanos(&time);
    let nanos = nanos.ok_or_else(|| refused(0, &time, unit.allowed()))?;
    let mut sizes = [0; 4];
    for (index, size) in sizes.iter_mut().enumerate() {
        let role = index + 1;
        let Some(text) = value(role)? else { continue };
        let least = u32::from(ROLES[role] == "rows");
        *size = whole(&text).filter(|size| *size >= least).ok_or_else(|| {
            let allowed = format!("a whole number from {least} to {}", u32::MAX);
            refused(role, &text, &allowed)
        })?;
    }
    let tenant = value(5)?.map(|name| name.trim().to_owned());
    if let Some(name) = tenant.as_ref().filter(|name| !is_tenant_name(name)) {
        let allowed = "1 to 128 bytes without control characters";
        return Err(refused(5, name, allowed));
    }
    Ok(Record {
        nanos,
        sizes,
        tenant,
    })
}

/// Whether a tenant may be called so: 1 to 128 bytes without control characters.
pub fn is_tenant_name(name: &str) -> bool {
    (1..=TENANT_NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

fn whole(text: &str) -> Option<u32> {
    let scaled = scaled(text, 0).filter(|scaled| scaled.exact)?;
    u32::try_from(scaled.whole).ok()
}

/// A text of a trace in quotes, without control characters, and cut where it gets long.
pub(super) fn shown(text: &str) -> String {
    let mut start: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    format!("{start:?}")
}

/// The first of some names.
fn shown_list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.take(SHOWN_NAMES_MAX).map(shown).collect();
    names.join(", ")
}

/// Enough of a text to recognise it.
const SHOWN_CHARS_MAX: usize = 40;

/// As many columns as a reader would look through.
const SHOWN_NAMES_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{TraceFormat, TraceOptions};

    fn what(layout: &Layout, unit: TimeUnit, line: &str) -> String {
        layout.read(line, unit).unwrap_err()
    }

    #[test]
    fn a_line_of_json_says_what_is_wrong_with_it() {
        let options = TraceOptions::new("", TraceFormat::Mooncake);
        let (columns, unit) = options.mapping().unwrap();
        let layout = Layout::of_keys(&columns);
        let line =
            r#"{"timestamp": 1.5, "input_length": "7", "output_length": 2.0, "hash_ids": []}"#;
        let record = layout.read(line, unit).unwrap();
        assert_eq!((record.nanos, record.sizes), (1_500_000, [0, 7, 2, 0]));
        for (line, start) in [
            ("[]", "invalid type: sequence, expected a map"),
            ("{", "EOF while parsing"),
            ("{} {}", "trailing characters"),
            (
                r#"{"a": 1, "b": 2}"#,
                r#"the object has no "timestamp"; it has: "a", "b""#,
            ),
            (
                r#"{"timestamp": null}"#,
                r#""timestamp" is neither a number nor a string"#,
            ),
            (
                r#"{"timestamp": -1}"#,
                r#"time is "-1"; allowed: milliseconds from 0"#,
            ),
            (
                r#"{"timestamp": 1, "input_length": 4294967296}"#,
                r#"tokens is "4294967296"; allowed: a whole number from 0 to 4294967295"#,
            ),
            (
                r#"{"timestamp": 1, "input_length": 1, "output_length": 1.5}"#,
                r#"tokens_out is "1.5"; allowed: a whole number"#,
            ),
        ] {
            let what = what(&layout, unit, line);
            assert!(what.starts_with(start), "{what}");
        }
        let deep = format!("{{\"timestamp\": 1, \"hash_ids\": {}", "[".repeat(60_000));
        assert!(layout.read(&deep, unit).is_err());
        let long = r#"{"timestamp": 1700158623.979960123, "t\u0069me": "1700158623979960.123"}"#;
        let object = serde_json::from_str(long).unwrap();
        assert_eq!(text(&object, "timestamp").unwrap(), "1700158623.979960123");
        assert_eq!(text(&object, "time").unwrap(), "1700158623979960.123");
    }

    #[test]
    fn a_header_without_a_column_says_which_there_are() {
        let columns = Columns {
            time: "t".to_owned(),
            rows: Some("n".to_owned()),
            tokens: None,
            tokens_out: None,
            bytes: None,
            tenant: Some("who".to_owned()),
        };
        let message = |header| {
            let error = Layout::of_header(header, &columns).unwrap_err();
            error.to_string()
        };
        assert_eq!(
            message("t, who ,rows"),
            r#"no column is called "n", which rows is to be read from; there are: "t", "who", "rows""#
        );
        assert_eq!(
            message("t,who,n,n"),
            r#"2 columns are called "n", which rows is to be read from; there are: "t", "who", "n", "n""#
        );
        assert!(
            message("t,\"who").starts_with("the header cannot be read: value 2 has no closing")
        );
        let layout = Layout::of_header("who,\"n\",t", &columns).unwrap();
        let record = layout.read("\"a, b\",3,17,more", TimeUnit::Nanos).unwrap();
        assert_eq!((record.nanos, record.sizes), (17, [3, 0, 0, 0]));
        assert_eq!(record.tenant.as_deref(), Some("a, b"));
        for (line, start) in [
            (
                "a,3",
                "the line has 2 values; allowed: at least 3, so that it has time",
            ),
            (
                "a,0,17",
                r#"rows is "0"; allowed: a whole number from 1 to"#,
            ),
            (" ,1,17", r#"tenant is ""; allowed: 1 to 128 bytes"#),
        ] {
            let what = what(&layout, TimeUnit::Nanos, line);
            assert!(what.starts_with(start), "{what}");
        }
    }
}
