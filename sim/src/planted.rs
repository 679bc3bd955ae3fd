//! Bugs that can be planted, each of which an invariant must find: in the simulator's own driver,
//! and, with the feature `planted`, in what is decided (`node/core/src/planted.rs`).

use clap::ValueEnum;
use clap::builder::PossibleValue;
#[cfg(feature = "planted")]
use paceline_core::planted::{self, Bug};

/// A bug, at a fixed point of a run or on all of its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// The end of a batch is never reported (found by I1: its requests get no status).
    LostBatch,
    /// Timers fire a millisecond late (found by I2: statuses come after deadlines).
    LateTimer,
    /// A request is noted under another version than it was routed to (found by I5).
    MixedBatch,
    /// A permit is not given back (found by I9: admission counts more than there is).
    LostPermit,
    /// A node that is behind what a client has seen answers it all the same (found by I11, where
    /// nodes are cut off or stand still).
    StaleAnswer,
    /// Followers are told in the order of a hashed set (found by comparing two processes: no
    /// invariant sees it).
    HashOrder,
    /// A bug of what is decided.
    #[cfg(feature = "planted")]
    Core(Bug),
}

impl Planted {
    /// Every bug of the driver that an invariant finds.
    pub const ALL: [Self; 5] = [
        Self::LostBatch,
        Self::LateTimer,
        Self::MixedBatch,
        Self::LostPermit,
        Self::StaleAnswer,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::LostBatch => "lost-batch",
            Self::LateTimer => "late-timer",
            Self::MixedBatch => "mixed-batch",
            Self::LostPermit => "lost-permit",
            Self::StaleAnswer => "stale-answer",
            Self::HashOrder => "hash-order",
            #[cfg(feature = "planted")]
            Self::Core(bug) => bug.name(),
        }
    }
}

impl ValueEnum for Planted {
    fn value_variants<'a>() -> &'a [Self] {
        &CHOICES
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

/// Runs something with what is planted below the driver.
#[cfg(feature = "planted")]
pub(crate) fn with<T>(planted: Option<Planted>, run: impl FnOnce() -> T) -> T {
    let bug = planted.and_then(|planted| match planted {
        Planted::Core(bug) => Some(bug),
        Planted::LostBatch
        | Planted::LateTimer
        | Planted::MixedBatch
        | Planted::LostPermit
        | Planted::StaleAnswer
        | Planted::HashOrder => None,
    });
    planted::with(bug, run)
}

/// Runs something; nothing can be planted below the driver.
#[cfg(not(feature = "planted"))]
pub(crate) fn with<T>(_planted: Option<Planted>, run: impl FnOnce() -> T) -> T {
    run()
}

#[cfg(feature = "planted")]
const BELOW: usize = Bug::ALL.len();
#[cfg(not(feature = "planted"))]
const BELOW: usize = 0;

/// Bugs of the driver: those that invariants find, and the order that none does.
const DRIVERS: usize = Planted::ALL.len() + 1;

/// What can be chosen on the command line.
const CHOICES: [Planted; DRIVERS + BELOW] = {
    let mut choices = [Planted::HashOrder; DRIVERS + BELOW];
    let mut next = 0;
    while next < Planted::ALL.len() {
        choices[next] = Planted::ALL[next];
        next += 1;
    }
    #[cfg(feature = "planted")]
    {
        let mut bug = 0;
        while bug < BELOW {
            choices[DRIVERS + bug] = Planted::Core(Bug::ALL[bug]);
            bug += 1;
        }
    }
    choices
};
