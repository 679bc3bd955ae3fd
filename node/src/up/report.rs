//! What the supervisor says: data on stdout, one line for each event on stderr.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use paceline_core::up::Ending;

use super::process::{LOG, ended_how, ending, last_words};

/// Where it is said. Nobody who listens is no reason to end a cluster, so nothing fails.
pub(crate) struct Report {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
}

impl Report {
    /// This process's streams.
    pub(crate) fn of_process() -> Self {
        Self::new(Box::new(io::stdout()), Box::new(io::stderr()))
    }

    /// Any streams.
    pub(crate) fn new(out: Box<dyn Write + Send>, err: Box<dyn Write + Send>) -> Self {
        Self { out, err }
    }

    /// Something to use.
    pub(crate) fn print(&mut self, text: &str) {
        say(&mut self.out, text);
    }

    /// An event.
    pub(crate) fn tell(&mut self, line: &str) {
        // What a node wrote must not steer the terminal.
        let harmless = |c: char| if c.is_control() { ' ' } else { c };
        let line: String = line.chars().map(harmless).collect();
        say(&mut self.err, &line);
    }

    /// A node's process has ended, and nobody asked it to.
    pub(crate) fn ended(&mut self, (name, data): (String, PathBuf), status: ExitStatus) {
        let words = match ending(status) {
            Ending::Failed => last_words(&data),
            Ending::NotStarted | Ending::Done | Ending::Killed | Ending::Removed => None,
        };
        let words = words.map_or_else(String::new, |words| format!(": {words}"));
        let (how, log) = (ended_how(status), data.join(LOG));
        let log = log.display();
        self.tell(&format!("{name} {how}{words} (log: {log})"));
    }

    /// A dead node is left so.
    pub(crate) fn left(&mut self, name: &str, failures: u32) {
        let line = match failures {
            0 | 1 => format!("{name} is not started again"),
            _ => format!("{name} is not started again: it failed {failures} times in a row"),
        };
        self.tell(&line);
    }

    /// A node does not belong to the cluster any more.
    pub(crate) fn removed(&mut self, name: &str, data: &Path) {
        let data = data.display();
        let line = format!(
            "{name} was removed from the cluster and is left out; without {data} a new node joins"
        );
        self.tell(&line);
    }
}

fn say(stream: &mut dyn Write, text: &str) {
    let _unheard = writeln!(stream, "{text}").and_then(|()| stream.flush());
}
