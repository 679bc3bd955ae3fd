//! Known bugs, to be planted again: tests must find each of them, or they prove nothing.
//!
//! Without the feature `planted` none of them is compiled in. With it one at a time is chosen by
//! `PACELINE_PLANTED`, for the whole process.

/// A bug that others have had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// `vote-not-synced`: a vote is promised before it is durable. A loss of power makes a node
    /// forget it, and vote again in the same term.
    VoteNotSynced,
    /// `drain-race`: a request that comes when a replica has just left is refused instead of
    /// being sent elsewhere.
    DrainRace,
    /// `stale-read`: a leader that heard from a quorum a while ago answers reads without asking
    /// it. After a pause it does not know yet that another one leads.
    StaleRead,
}

impl Bug {
    /// Whether it shall be there.
    #[cfg(not(feature = "planted"))]
    pub(crate) const fn is_planted(self) -> bool {
        false
    }

    /// Whether it shall be there.
    #[cfg(feature = "planted")]
    pub(crate) fn is_planted(self) -> bool {
        static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
        let chosen = CHOSEN.get_or_init(|| std::env::var("PACELINE_PLANTED").ok());
        chosen.as_deref() == Some(self.name())
    }

    #[cfg(feature = "planted")]
    const fn name(self) -> &'static str {
        match self {
            Self::VoteNotSynced => "vote-not-synced",
            Self::DrainRace => "drain-race",
            Self::StaleRead => "stale-read",
        }
    }
}
