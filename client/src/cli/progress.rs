//! Progress of moving bytes: one line that is written over, or a line for each file.

use std::time::{Duration, Instant};

use super::terminal::Talk;
use super::units;

/// Between two updates of the line: fast enough to look alive, slow enough to read.
const UPDATE_EVERY: Duration = Duration::from_millis(100);

/// What there is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Totals {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
}

/// What has been done of a number of files.
pub(crate) struct Progress {
    talk: Talk,
    verb: &'static str,
    /// Whether each file is worth a line that stays.
    tells_files: bool,
    files: usize,
    bytes: u64,
    files_done: usize,
    /// Bytes of files that are done.
    bytes_done: u64,
    begun: Instant,
    file_begun: Instant,
    updated: Option<Instant>,
}

impl Progress {
    /// Reading is fast, and the upload will name the files: no line stays.
    pub(crate) fn reading(talk: Talk, totals: Totals) -> Self {
        Self::new(talk, ("reading", false), totals)
    }

    /// Uploading so much.
    pub(crate) fn uploading(talk: Talk, totals: Totals) -> Self {
        Self::new(talk, ("uploading", true), totals)
    }

    fn new(talk: Talk, (verb, tells_files): (&'static str, bool), totals: Totals) -> Self {
        let now = Instant::now();
        Self {
            talk,
            verb,
            tells_files,
            files: totals.files,
            bytes: totals.bytes,
            files_done: 0,
            bytes_done: 0,
            begun: now,
            file_begun: now,
            updated: None,
        }
    }

    /// So many bytes of the current file are done.
    pub(crate) fn at(&mut self, bytes: u64) {
        let now = Instant::now();
        let is_due = self.updated.is_none_or(|last| now - last >= UPDATE_EVERY);
        if !self.talk.is_live() || !is_due {
            return;
        }
        self.updated = Some(now);
        let done = self.bytes_done + bytes;
        self.talk.update(&format!(
            "{} {}/{}: {} of {}, {}",
            self.verb,
            self.files_done + 1,
            units::counted(self.files, "file"),
            units::bytes(done),
            units::bytes(self.bytes),
            rate(done, now - self.begun)
        ));
    }

    /// The current file is done.
    pub(crate) fn file_done(&mut self, path: &str, bytes: u64) {
        self.files_done += 1;
        self.bytes_done += bytes;
        let now = Instant::now();
        if self.tells_files && !self.talk.is_live() {
            let (number, size) = (self.files_done, units::bytes(bytes));
            let rate = rate(bytes, now - self.file_begun);
            self.talk.say(&format!(
                "{} {number}/{}: {path}, {size}, {rate}",
                self.verb, self.files
            ));
        }
        self.file_begun = now;
    }
}

/// Decimal megabytes a second, the unit that disks and networks are sold in.
fn rate(bytes: u64, elapsed: Duration) -> String {
    // A loopback transfer can end within the clock's resolution.
    let seconds = elapsed.as_secs_f64().max(1e-6);
    format!("{:.1} MB/s", bytes as f64 / 1e6 / seconds)
}
