//! Trace and log settings as JSON.

use bytes::Bytes;
use tracing::level_filters::LevelFilter;

use super::json::write::{count, document, flag, key, list, string, string_member};
use crate::gateway::settings::{self, LogSetting, TRACE};

/// Body of `GET /v2[/models/MODEL]/trace/setting`.
pub fn trace() -> Bytes {
    document(|out| {
        let [(level, value), others @ ..] = TRACE;
        key(out, level);
        list(out, [value], string);
        for (name, value) in others {
            string_member(out, name, value);
        }
    })
}

/// Body of `GET /v2/logging`.
pub fn logging(level: LevelFilter) -> Bytes {
    document(|out| {
        for (name, value) in settings::logging(level) {
            match value {
                LogSetting::Switch(is_on) => flag(out, name, is_on),
                LogSetting::Level(level) => count(out, name, level.into()),
                LogSetting::Text(text) => string_member(out, name, text),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_those_of_the_filter() {
        let said = |level| String::from_utf8(logging(level).to_vec()).unwrap();
        assert_eq!(
            said(LevelFilter::WARN),
            r#"{"log_file":"","log_info":false,"log_warning":true,"log_error":true,"log_verbose_level":0,"log_format":"ISO8601"}"#
        );
        assert!(said(LevelFilter::TRACE).contains(r#""log_info":true"#));
        assert!(said(LevelFilter::DEBUG).contains(r#""log_verbose_level":1"#));
        assert!(said(LevelFilter::OFF).contains(r#""log_error":false"#));
        let trace = String::from_utf8(trace().to_vec()).unwrap();
        assert!(trace.starts_with(r#"{"trace_level":["OFF"],"trace_rate":"1000""#));
    }
}
