//! Triton's trace and log settings as they are here: fixed, so that they can be read and not set.
//! Plain values without a protocol: each door writes them its own way.

use paceline_protocol::{ErrorCode, Failure};
use tracing::level_filters::LevelFilter;

/// The value of a log setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogSetting {
    Switch(bool),
    Level(u32),
    Text(&'static str),
}

/// Nothing is traced into files. The first is a list in the protocols, of this one entry.
pub(super) const TRACE: [(&str, &str); 5] = [
    ("trace_level", "OFF"),
    ("trace_rate", "1000"),
    ("trace_count", "-1"),
    ("log_frequency", "0"),
    ("trace_file", ""),
];

/// What the node's filter lets through, to standard error.
pub(super) fn logging(level: LevelFilter) -> [(&'static str, LogSetting); 6] {
    use LogSetting::{Level, Switch, Text};
    let verbose = match level {
        LevelFilter::TRACE => 2,
        LevelFilter::DEBUG => 1,
        _ => 0,
    };
    [
        ("log_file", Text("")),
        ("log_info", Switch(level >= LevelFilter::INFO)),
        ("log_warning", Switch(level >= LevelFilter::WARN)),
        ("log_error", Switch(level >= LevelFilter::ERROR)),
        ("log_verbose_level", Level(verbose)),
        ("log_format", Text("ISO8601")),
    ]
}

/// What is told to whoever would set up traces.
pub(super) fn no_traces() -> Failure {
    let message = "unsupported: there are no trace files to set up; spans are in the node's log";
    Failure::new(ErrorCode::Unsupported, message)
}

/// What is told to whoever would set the log.
pub(super) fn no_logging() -> Failure {
    let message = "unsupported: logging is set by log.filter in the node's configuration";
    Failure::new(ErrorCode::Unsupported, message)
}
