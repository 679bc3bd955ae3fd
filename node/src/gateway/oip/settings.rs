//! Triton's trace and log settings as they are here: fixed, so that they can be read and not set.

use bytes::Bytes;
use tracing::level_filters::LevelFilter;

use super::json::write::{count, document, flag, key, list, string, string_member};

/// Body of `GET /v2[/models/MODEL]/trace/setting`: nothing is traced into files.
pub fn trace() -> Bytes {
    document(|out| {
        key(out, "trace_level");
        list(out, ["OFF"], string);
        string_member(out, "trace_rate", "1000");
        string_member(out, "trace_count", "-1");
        string_member(out, "log_frequency", "0");
        string_member(out, "trace_file", "");
    })
}

/// Body of `GET /v2/logging`: what the node's filter lets through, to standard error.
pub fn logging(level: LevelFilter) -> Bytes {
    let verbose = match level {
        LevelFilter::TRACE => 2,
        LevelFilter::DEBUG => 1,
        _ => 0,
    };
    document(|out| {
        string_member(out, "log_file", "");
        flag(out, "log_info", level >= LevelFilter::INFO);
        flag(out, "log_warning", level >= LevelFilter::WARN);
        flag(out, "log_error", level >= LevelFilter::ERROR);
        count(out, "log_verbose_level", verbose);
        string_member(out, "log_format", "ISO8601");
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
