//! What the supervisor says: data on stdout, one line for each event on stderr.

use std::io::{self, Write};

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
}

fn say(stream: &mut dyn Write, text: &str) {
    let _unheard = writeln!(stream, "{text}").and_then(|()| stream.flush());
}
