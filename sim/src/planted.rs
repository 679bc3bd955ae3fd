//! Bugs that can be planted in the driver, each of which an invariant must find.

/// A bug of the driver, at a fixed point of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Planted {
    /// The end of a batch is never reported (found by I1: its requests get no status).
    LostBatch,
    /// Timers fire a millisecond late (found by I2: statuses come after deadlines).
    LateTimer,
    /// A request is noted under another version than it was routed to (found by I5).
    MixedBatch,
    /// A permit is not given back (found by I9: admission counts more than there is).
    LostPermit,
    /// Followers are told in the order of a hashed set (found by comparing two processes: no
    /// invariant sees it).
    HashOrder,
}

impl Planted {
    /// Every bug that an invariant finds.
    pub const ALL: [Self; 4] = [
        Self::LostBatch,
        Self::LateTimer,
        Self::MixedBatch,
        Self::LostPermit,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::LostBatch => "lost-batch",
            Self::LateTimer => "late-timer",
            Self::MixedBatch => "mixed-batch",
            Self::LostPermit => "lost-permit",
            Self::HashOrder => "hash-order",
        }
    }
}
