//! Known bugs, to be planted again: the simulator must find each of them, or it proves nothing.
//!
//! Without the feature `planted` none of them is compiled in. With it [`with`] lets one act on the
//! thread that calls it, while it runs something: runs of other threads know nothing of it. Each
//! says what it breaks; `docs/simulator.md` says what finds it.

/// A bug that others have had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// `expired-keeps-permit`: admission takes a permit before it looks at the deadline, and never
    /// gets it back from a request that came too late. In the end it refuses everybody.
    ExpiredKeepsPermit,
    /// `ends-forgotten`: the router counts attempts that ended without an answer as under way for
    /// ever. Replicas that failed once get fewer and fewer requests.
    EndsForgotten,
    /// `hopeless-first`: the batcher takes and runs what has the earliest deadline even if it cannot
    /// be met.
    /// Under overload nothing is finished in time any more, also long after the cause has gone.
    HopelessFirst,
    /// `removal-only-sinks`: what takes the place of a request that leaves the middle of the heap
    /// is not moved towards its head. Deadlines are noticed late.
    RemovalOnlySinks,
    /// `cancelled-runs`: a batch is launched with what was cancelled since it was formed.
    CancelledRuns,
    /// `idle-lane`: a lane whose whole batch was dropped at its launch does not look at the queue
    /// again. What waits there waits for the next request that comes, if one does.
    IdleLane,
    /// `repeat-executes`: a repeated op-id is not recognised, and its command is executed again.
    RepeatExecutes,
    /// `replaced-early`: a replica that was assigned counts as one that can serve, so a node that
    /// leaves loses its replicas before others can take over.
    ReplacedEarly,
    /// `never-back`: each sign of life of a silent peer begins its recovery anew, so it is never
    /// believed to be back.
    NeverBack,
    /// `once-again`: what must not run twice is tried again when its node falls silent.
    OnceAgain,
    /// `told-unexecuted`: what a lost node may have run is told as not executed, so its client
    /// sends it again.
    ToldUnexecuted,
    /// `closed-early`: a node that drains closes as soon as it has no work, with replicas that are
    /// not replaced yet.
    ClosedEarly,
    /// `failover-kept`: a request that ends keeps what its failover was charged to. In the end no
    /// request may fail over.
    FailoverKept,
    /// `failures-forgotten`: what starts failed parts again remembers the last failure only. Its
    /// waits do not grow, and it never gives up.
    FailuresForgotten,
    /// `never-ejected`: the router leaves no replica out, however often it fails. What fails at once
    /// has nothing under way, and seems to be the best of all.
    NeverEjected,
    /// `given-up-stays`: a replica that was given up counts as one that serves, so no other takes
    /// its place.
    GivenUpStays,
}

impl Bug {
    /// Every one.
    pub const ALL: [Self; 16] = [
        Self::ExpiredKeepsPermit,
        Self::EndsForgotten,
        Self::HopelessFirst,
        Self::RemovalOnlySinks,
        Self::CancelledRuns,
        Self::IdleLane,
        Self::RepeatExecutes,
        Self::ReplacedEarly,
        Self::NeverBack,
        Self::OnceAgain,
        Self::ToldUnexecuted,
        Self::ClosedEarly,
        Self::FailoverKept,
        Self::FailuresForgotten,
        Self::NeverEjected,
        Self::GivenUpStays,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::ExpiredKeepsPermit => "expired-keeps-permit",
            Self::EndsForgotten => "ends-forgotten",
            Self::HopelessFirst => "hopeless-first",
            Self::RemovalOnlySinks => "removal-only-sinks",
            Self::CancelledRuns => "cancelled-runs",
            Self::IdleLane => "idle-lane",
            Self::RepeatExecutes => "repeat-executes",
            Self::ReplacedEarly => "replaced-early",
            Self::NeverBack => "never-back",
            Self::OnceAgain => "once-again",
            Self::ToldUnexecuted => "told-unexecuted",
            Self::ClosedEarly => "closed-early",
            Self::FailoverKept => "failover-kept",
            Self::FailuresForgotten => "failures-forgotten",
            Self::NeverEjected => "never-ejected",
            Self::GivenUpStays => "given-up-stays",
        }
    }

    /// Whether it shall be there.
    #[cfg(not(feature = "planted"))]
    pub(crate) const fn is_planted(self) -> bool {
        false
    }

    /// Whether it shall be there.
    #[cfg(feature = "planted")]
    pub(crate) fn is_planted(self) -> bool {
        chosen::CHOSEN.get() == Some(self)
    }
}

#[cfg(feature = "planted")]
pub use self::chosen::with;

#[cfg(feature = "planted")]
mod chosen {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        pub(super) static CHOSEN: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// What was chosen before is chosen again when this ends, also by a panic.
    struct Restored(Option<Bug>);

    impl Drop for Restored {
        fn drop(&mut self) {
            CHOSEN.set(self.0);
        }
    }

    /// Runs something with this bug on this thread, or with none.
    pub fn with<T>(bug: Option<Bug>, run: impl FnOnce() -> T) -> T {
        let _restored = Restored(CHOSEN.replace(bug));
        run()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_bug_acts_on_its_thread_until_its_run_ends_however() {
            let is_there = || Bug::IdleLane.is_planted();
            assert!(!is_there());
            with(Some(Bug::IdleLane), || {
                assert!(is_there());
                assert!(!Bug::NeverBack.is_planted(), "one at a time");
                assert!(!with(None, is_there), "a run within has its own");
                assert!(is_there());
            });
            assert!(!is_there());
            let broken = std::panic::catch_unwind(|| with(Some(Bug::IdleLane), || panic!()));
            assert!(broken.is_err() && !is_there());
        }
    }
}
