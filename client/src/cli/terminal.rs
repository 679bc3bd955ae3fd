//! Where a command reads and writes: stdout for data, stderr for talk, stdin for answers.

use std::cell::RefCell;
use std::io::{self, BufRead, BufWriter, IsTerminal, Read, Write};
use std::rc::Rc;

use serde::Serialize;

use super::connection::Format;
use super::failure::Failure;

/// The three streams of a command.
pub(crate) struct Terminal {
    out: Box<dyn Write>,
    talk: Talk,
    answers: Box<dyn BufRead>,
    /// Whether a person can be asked.
    asks: bool,
}

/// Stderr: lines that stay, and one line that is written over.
#[derive(Clone)]
pub(crate) struct Talk {
    sink: Rc<RefCell<Sink>>,
    is_live: bool,
}

struct Sink {
    err: Box<dyn Write>,
    /// Characters of the line that is written over; 0 if there is none.
    live_chars: usize,
}

impl Terminal {
    pub(crate) fn of_process() -> Self {
        let is_live = io::stderr().is_terminal();
        Self {
            out: Box::new(BufWriter::new(io::stdout())),
            talk: Talk::new(Box::new(io::stderr()), is_live),
            answers: Box::new(io::stdin().lock()),
            asks: is_live && io::stdin().is_terminal(),
        }
    }

    /// Any streams; a live talk has a person on the other side.
    #[cfg(test)]
    pub(crate) fn new(out: Box<dyn Write>, talk: Talk, answers: Box<dyn BufRead>) -> Self {
        Self {
            out,
            asks: talk.is_live(),
            talk,
            answers,
        }
    }

    pub(crate) fn talk(&self) -> Talk {
        self.talk.clone()
    }

    /// Writes text to stdout, as it is.
    pub(crate) fn print(&mut self, text: &str) -> Result<(), Failure> {
        Ok(self.out.write_all(text.as_bytes())?)
    }

    /// Writes bytes to stdout and ends the line.
    pub(crate) fn print_bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes)?;
        Ok(self.out.write_all(b"\n")?)
    }

    /// Writes `value` to stdout: as JSON, or as the text that `table` makes of it.
    pub(crate) fn show<T: Serialize>(
        &mut self,
        format: Format,
        value: &T,
        table: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match format {
            Format::Table => self.print(&table(value)),
            Format::Json => {
                serde_json::to_writer_pretty(&mut self.out, value).map_err(io::Error::from)?;
                self.print("\n")
            }
        }
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Everything from stdin, refused past `limit` bytes.
    pub(crate) fn read_all(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        (&mut self.answers)
            .take(limit + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            let reason = format!("more than {limit} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
        }
        Ok(bytes)
    }

    /// Asks a person; `None` if there is nobody to ask.
    pub(crate) fn confirm(&mut self, question: &str) -> Option<bool> {
        if !self.asks {
            return None;
        }
        self.talk.prompt(&format!("{question} [y/N] "));
        let mut answer = String::new();
        // A stream that breaks off has not said yes.
        let read = self.answers.read_line(&mut answer);
        let answer = answer.trim();
        let yes = ["y", "yes"]
            .iter()
            .any(|yes| answer.eq_ignore_ascii_case(yes));
        Some(read.is_ok() && yes)
    }
}

impl Talk {
    pub(crate) fn new(err: Box<dyn Write>, is_live: bool) -> Self {
        let sink = Sink { err, live_chars: 0 };
        Self {
            sink: Rc::new(RefCell::new(sink)),
            is_live,
        }
    }

    /// Whether a line can be written over.
    pub(crate) fn is_live(&self) -> bool {
        self.is_live
    }

    /// A line that stays.
    pub(crate) fn say(&self, line: &str) {
        let sink = &mut *self.sink.borrow_mut();
        sink.wipe();
        sink.write(&format!("{}\n", visible(line)));
    }

    /// A line that the next one writes over; nothing where that cannot be done.
    pub(crate) fn update(&self, line: &str) {
        if !self.is_live {
            return;
        }
        let sink = &mut *self.sink.borrow_mut();
        // One row of a narrow window: a wrapped line could not be written over.
        let line: String = visible(line).chars().take(79).collect();
        let chars = line.chars().count();
        let blanks = sink.live_chars.saturating_sub(chars);
        sink.write(&format!("\r{line}{}", " ".repeat(blanks)));
        sink.live_chars = chars;
    }

    fn prompt(&self, question: &str) {
        let sink = &mut *self.sink.borrow_mut();
        sink.wipe();
        sink.write(&visible(question));
    }
}

impl Sink {
    fn wipe(&mut self) {
        if self.live_chars > 0 {
            let blanks = " ".repeat(self.live_chars);
            self.write(&format!("\r{blanks}\r"));
            self.live_chars = 0;
        }
    }

    /// Talk that nobody can hear is no reason to stop.
    fn write(&mut self, text: &str) {
        let _unheard = self.err.write_all(text.as_bytes());
        let _unheard = self.err.flush();
    }
}

/// The text with its control characters made harmless: what a node or a file name says must not
/// steer the terminal that shows it.
pub(crate) fn visible(text: &str) -> String {
    let harmless = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(harmless).collect()
}
