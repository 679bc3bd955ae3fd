//! Policy of one request whose answer is streamed: which of its parts may start, which one is
//! handed to the client, and when the stream ends.
//!
//! ```text
//!   rows:   taken ───────▶│ offered │ answered │ runs │ runs │ waits …
//!                         └──────── the window: parts_max ───┘
//! ```
//!
//! A part is a range of rows that one batch answers. It is *open* from its start until the
//! client's connection has taken it whole, and no more than a window of parts is open: so a client
//! that reads slowly holds up nobody but itself, and holds no more memory than that. Parts are
//! offered in the order of their rows, each as soon as it and all before it are there. Until any
//! part has been answered the request may be pinned to another version; afterwards a version that
//! is gone ends it. Its owner asks [`Stream::next`] until that says to wait or that it has ended.
//! Holds no memory but its window, so a request's task keeps it on its stack.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use crate::time::Instant;

/// What is known of a stream before its first part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Rows of the request.
    pub rows: u64,
    /// Rows of a part; the last one may have fewer. At least 1.
    pub part_rows: u64,
    /// Parts that are open at a time. At least 1.
    pub parts_max: usize,
    /// How long a part may take from its start to its answer.
    pub part_budget: Duration,
    /// How long the client may take nothing of what it is offered.
    pub stall_limit: Duration,
    /// When all of it must have been taken.
    pub until: Instant,
}

/// Names a part: the first has 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part(pub u64);

/// What is next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Run these rows; [`Stream::answered`] or [`Stream::gone`] tells how that ended. Any other
    /// end of a part is the end of the stream.
    Start {
        /// The name of the part.
        part: Part,
        /// Its rows.
        rows: Range<u64>,
        /// When its answer is worthless.
        due: Instant,
    },
    /// Hand this part to the client's connection; [`Stream::moved`] and [`Stream::taken`] tell how
    /// that goes.
    Offer {
        /// The part, which was answered.
        part: Part,
    },
    /// Nothing can be done before something is heard, or this moment has come.
    Wait {
        /// When to ask again.
        until: Instant,
    },
    /// The stream has ended.
    End(Ending),
}

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client's connection has taken every part.
    Complete,
    /// The time of the whole is over.
    Late,
    /// The client has taken nothing for too long.
    Stalled,
    /// The version has no replica left, and nothing of the request ran: it may be pinned anew.
    Gone,
    /// The version has no replica left, and parts of the request were answered by it.
    GoneMidway,
}

/// A stream under way.
#[derive(Clone, Debug)]
pub struct Stream {
    terms: Terms,
    /// Parts that were started.
    started: u64,
    /// Those of them that were not taken yet, in order.
    open: VecDeque<State>,
    /// When something of the oldest part was taken last, or it was offered.
    moved_at: Option<Instant>,
    has_answered: bool,
    is_gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Answered,
    Gone,
}

impl Stream {
    /// A stream of which nothing has been started.
    ///
    /// # Panics
    /// If parts have no rows, or none may be open.
    pub fn begin(terms: Terms) -> Self {
        assert!(
            terms.part_rows > 0 && terms.parts_max > 0,
            "such a stream would never end"
        );
        Self {
            terms,
            started: 0,
            open: VecDeque::with_capacity(terms.parts_max),
            moved_at: None,
            has_answered: false,
            is_gone: false,
        }
    }

    /// What is to be done now.
    pub fn next(&mut self, now: Instant) -> Next {
        if self.started == self.parts() && self.open.is_empty() {
            return Next::End(Ending::Complete);
        }
        if now >= self.terms.until {
            return Next::End(Ending::Late);
        }
        let stalls_at = self.moved_at.map(|at| at + self.terms.stall_limit);
        if stalls_at.is_some_and(|at| now >= at) {
            return Next::End(Ending::Stalled);
        }
        if self.is_gone {
            if self.has_answered {
                return Next::End(Ending::GoneMidway);
            }
            // What runs may still be answered: then it cannot run again elsewhere.
            if !self.open.contains(&State::Running) {
                return Next::End(Ending::Gone);
            }
        } else if self.started < self.parts() && self.open.len() < self.terms.parts_max {
            return self.start(now);
        }
        if self.moved_at.is_none() && self.open.front() == Some(&State::Answered) {
            self.moved_at = Some(now);
            return Next::Offer {
                part: Part(self.oldest()),
            };
        }
        let until = stalls_at.map_or(self.terms.until, |at| at.min(self.terms.until));
        Next::Wait { until }
    }

    /// A part was answered.
    pub fn answered(&mut self, part: Part) {
        self.end(part, State::Answered);
        self.has_answered = true;
    }

    /// A part did not run, since its version has no replica any more.
    pub fn gone(&mut self, part: Part) {
        self.end(part, State::Gone);
        self.is_gone = true;
    }

    /// The client's connection has taken something of the part that it is offered.
    pub fn moved(&mut self, now: Instant) {
        if self.moved_at.is_some() {
            self.moved_at = Some(now);
        }
    }

    /// The client's connection has taken all of the part that it was offered.
    pub fn taken(&mut self) {
        if self.moved_at.take().is_some() {
            self.open.pop_front();
        }
    }

    /// The request's row that a part begins with.
    pub fn first_row(&self, part: Part) -> u64 {
        part.0 * self.terms.part_rows
    }

    /// Whether any part was answered: the request was executed then, at least partly.
    pub fn has_answered(&self) -> bool {
        self.has_answered
    }

    fn parts(&self) -> u64 {
        self.terms.rows.div_ceil(self.terms.part_rows)
    }

    fn oldest(&self) -> u64 {
        self.started - self.open.len() as u64
    }

    fn start(&mut self, now: Instant) -> Next {
        let part = Part(self.started);
        let first = self.first_row(part);
        self.started += 1;
        self.open.push_back(State::Running);
        Next::Start {
            part,
            rows: first..(first + self.terms.part_rows).min(self.terms.rows),
            due: (now + self.terms.part_budget).min(self.terms.until),
        }
    }

    fn end(&mut self, part: Part, state: State) {
        let place = part.0.checked_sub(self.oldest());
        let place = place.and_then(|place| self.open.get_mut(usize::try_from(place).ok()?));
        let place = place.expect("only a part that runs ends");
        assert_eq!(*place, State::Running, "a part ends once");
        *place = state;
    }
}

#[cfg(test)]
mod tests;
