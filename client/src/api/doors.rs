//! Several nodes of one cluster, asked in turn: when the first does not answer, the next does.

use std::cell::Cell;
use std::time::Duration;

use super::http::Door;
use super::retry::Deadline;
use super::{ApiError, ClusterAddress, NodeAddress};

/// The doors of one or more nodes. The one that answered last is asked first.
#[derive(Debug)]
pub(crate) struct Doors {
    /// At least one.
    doors: Vec<Door>,
    first: Cell<usize>,
}

/// What may be asked of another node after one has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// Only what never left: a request that may have arrived would be done twice.
    Unsent,
    /// Everything: asking twice is asking once.
    Any,
}

impl Doors {
    /// Doors of nodes in the order in which they are tried.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn new(cluster: &ClusterAddress) -> Self {
        assert!(!cluster.nodes.is_empty(), "somebody has to be asked");
        let (api_key, authority) = (cluster.api_key.as_deref(), cluster.authority.as_ref());
        let door = |address: &NodeAddress| Door::new(address.clone(), api_key, authority);
        Self {
            doors: cluster.nodes.iter().map(door).collect(),
            first: Cell::new(0),
        }
    }

    /// The door that is asked first.
    pub(crate) fn first(&self) -> &Door {
        &self.doors[self.first.get()]
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.doors.len()).unwrap_or(u32::MAX)
    }

    /// Asks one node after the other until one answers. What may be asked again gets an equal
    /// share of what is left of `limit` at each: a node that hangs must not use up the time of
    /// those that would answer.
    ///
    /// # Errors
    /// The first node's failure if none answered, else what the one that answered said.
    pub(crate) fn ask<T>(
        &self,
        limit: Duration,
        again: Again,
        mut ask: impl FnMut(&Door, Duration) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let deadline = Deadline::after(limit);
        let (first, count) = (self.first.get(), self.doors.len());
        let mut failure = None;
        for turn in 0..count {
            let at = (first + turn) % count;
            let left = u32::try_from(count - turn).unwrap_or(u32::MAX);
            let share = match again {
                // It will not be asked elsewhere once it was sent.
                Again::Unsent => deadline.remaining(),
                Again::Any => deadline.remaining() / left,
            };
            match ask(&self.doors[at], share) {
                Err(error) if asks_on(&error, again) => {
                    failure.get_or_insert(error);
                }
                ended => {
                    self.first.set(at);
                    return ended;
                }
            }
        }
        Err(failure.expect("each of at least one door has failed"))
    }

    /// The next attempt begins at another node.
    pub(crate) fn turn(&self) {
        self.first.set((self.first.get() + 1) % self.doors.len());
    }
}

fn asks_on(error: &ApiError, again: Again) -> bool {
    match error {
        ApiError::Unreachable { .. } => true,
        ApiError::NoAnswer { .. } => again == Again::Any,
        ApiError::Refused { .. } | ApiError::Malformed { .. } => false,
    }
}
