//! What clients did and saw, and what is wrong with it. Cheap to clone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::linearizability::{Moment, Operation, What, check};
use crate::trace::Trace;

#[derive(Clone)]
pub(crate) struct History {
    trace: Trace,
    book: Arc<Mutex<Book>>,
}

#[derive(Default)]
struct Book {
    now: Moment,
    registers: BTreeMap<String, Vec<Operation>>,
    violations: Vec<String>,
    counts: BTreeMap<String, u64>,
}

impl History {
    pub(crate) fn new(trace: Trace) -> Self {
        let book = Arc::default();
        Self { trace, book }
    }

    /// The next moment: something begins or ends.
    pub(crate) fn moment(&self) -> Moment {
        let mut book = self.locked();
        book.now += 1;
        book.now
    }

    /// An operation that began at `began` has ended, or its end is not known.
    pub(crate) fn ended(&self, register: &str, began: Moment, what: What, is_known: bool) {
        let mut book = self.locked();
        book.now += 1;
        let ended = is_known.then_some(book.now);
        let operation = Operation { what, began, ended };
        let register = book.registers.entry(register.to_owned()).or_default();
        register.push(operation);
    }

    /// Something happened that must not.
    pub(crate) fn violation(&self, what: String) {
        self.trace.note(format_args!("VIOLATION {what}"));
        self.locked().violations.push(what);
    }

    /// Counts work, so that a run that did nothing is not taken for a good one.
    pub(crate) fn count(&self, what: &str) {
        *self.locked().counts.entry(what.to_owned()).or_default() += 1;
    }

    pub(crate) fn counted(&self, what: &str) -> u64 {
        self.locked().counts.get(what).copied().unwrap_or(0)
    }

    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.locked().counts.clone()
    }

    /// All that is wrong, with what the registers' histories say.
    pub(crate) fn verdict(&self) -> Vec<String> {
        let book = self.locked();
        let mut violations = book.violations.clone();
        for (register, operations) in &book.registers {
            if let Err(why) = check(operations) {
                violations.push(format!("register {register} is not linearizable: {why}"));
            }
        }
        violations
    }

    fn locked(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
