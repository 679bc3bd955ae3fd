//! Logs: structured, on stderr, written by a thread of their own so that a blocked terminal or
//! pipe never blocks the node. What does not fit its buffer is dropped and counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How logs look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// `text` for people, `json` for collectors: one object a line.
    pub format: Format,
    /// Which events are logged: a level, or `target=level` pairs with commas. Default
    /// `info,openraft=warn,ractor=warn`.
    pub filter: String,
}

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            format: Format::Text,
            filter: "info,openraft=warn,ractor=warn".to_owned(),
        }
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is not one.
    #[error(
        "log.filter = \"{filter}\" is not a filter: {cause}; allowed: a level (error, warn, info, debug, trace) or target=level pairs"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong.
        cause: String,
    },
    /// The writing thread could not be started.
    #[error("the log thread does not start: {0}")]
    Thread(#[from] io::Error),
}

impl Options {
    /// Checks the filter.
    ///
    /// # Errors
    /// [`LoggingError::Filter`] names it.
    pub fn check(&self) -> Result<(), LoggingError> {
        self.parsed().map(drop)
    }

    fn parsed(&self) -> Result<EnvFilter, LoggingError> {
        EnvFilter::builder()
            .parse(&self.filter)
            .map_err(|cause| LoggingError::Filter {
                filter: self.filter.clone(),
                cause: cause.to_string(),
            })
    }
}

/// Installs the process's subscriber. Called once, by the binary only.
///
/// # Errors
/// A filter that cannot be read, or no thread to write with.
pub fn install(options: &Options) -> Result<(), LoggingError> {
    let filter = options.parsed()?;
    let writer = Writer::start()?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    // A second installation is a test's business; the first one stays.
    let _ = match options.format {
        Format::Text => builder.with_ansi(false).with_target(false).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// Hands lines to the thread that writes them. Cheap to clone.
#[derive(Clone)]
struct Writer {
    lines: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

/// One line being put together.
struct Line {
    writer: Writer,
    bytes: Vec<u8>,
}

impl Writer {
    fn start() -> io::Result<Self> {
        let (lines, inbox) = sync_channel(LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = dropped.clone();
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || write_lines(&inbox, &counter, &mut io::stderr()))?;
        Ok(Self { lines, dropped })
    }
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Line;
    fn make_writer(&'a self) -> Line {
        Line {
            writer: self.clone(),
            bytes: Vec::with_capacity(256),
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let line = std::mem::take(&mut self.bytes);
        if let Err(TrySendError::Full(_)) = self.writer.lines.try_send(line) {
            self.writer.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write_lines(inbox: &Receiver<Vec<u8>>, dropped: &AtomicU64, out: &mut impl Write) {
    while let Ok(line) = inbox.recv() {
        // Nobody can be told that the log cannot be written.
        let _ = out.write_all(&line);
        match dropped.swap(0, Ordering::Relaxed) {
            0 => {}
            lost => drop(writeln!(
                out,
                "{lost} log lines were dropped: the log is too slow"
            )),
        }
    }
}

/// Lines that may wait: a few hundred kilobytes, and a second of a very busy node.
const LINES_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named_with_what_is_allowed() {
        let options = Options {
            filter: "paceline=loud".into(),
            ..Options::default()
        };
        let error = options.check().unwrap_err().to_string();
        assert!(
            error.contains("paceline=loud") && error.contains("warn"),
            "{error}"
        );
        assert!(Options::default().check().is_ok());
    }

    #[test]
    fn a_blocked_log_drops_lines_and_says_so_later() {
        let (lines, inbox) = sync_channel(1);
        let writer = Writer {
            lines,
            dropped: Arc::default(),
        };
        for text in ["a\n", "b\n", "c\n"] {
            writer.make_writer().write_all(text.as_bytes()).unwrap();
        }
        let dropped = writer.dropped.clone();
        drop(writer);
        let mut out = Vec::new();
        write_lines(&inbox, &dropped, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "a\n2 log lines were dropped: the log is too slow\n");
    }
}
