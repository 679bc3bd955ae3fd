//! Whether this node is in contact with a quorum, for whoever marks answers or refuses work.
//!
//! Hot path: while there is contact a look costs one atomic load; consensus is asked only when
//! what it said last has run out. [`paceline_core::contact`] decides.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use paceline_core::Instant;
use paceline_core::contact::{self, Awake, Contact, Options};
use paceline_protocol::{Epoch, ErrorCode, Failure};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::registry;

/// Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    registry: registry::Handle,
    clock: Clock,
    options: Options,
    /// What requests are routed by; it follows the registry.
    routed: watch::Receiver<Epoch>,
    /// When requests were routed by all that was applied, in nanoseconds of the clock.
    routed_at: Arc<AtomicU64>,
    awake: Arc<Mutex<Awake>>,
    /// Until when no look is needed, in nanoseconds of the clock.
    fresh_until: Arc<AtomicU64>,
}

impl Handle {
    /// Over what consensus knows and what requests are `routed` by; `clock` has started with the
    /// node.
    pub fn new(
        (registry, routed): (registry::Handle, watch::Receiver<Epoch>),
        clock: Clock,
        options: Options,
    ) -> Self {
        Self {
            registry,
            clock,
            options,
            routed,
            routed_at: Arc::default(),
            awake: Arc::new(Mutex::new(Awake::new(clock.now()))),
            fresh_until: Arc::default(),
        }
    }

    /// The node runs: its detector says so each time it listens.
    pub(crate) fn tick(&self, now: Instant) {
        self.awake().tick(now, PACE);
    }

    fn awake(&self) -> MutexGuard<'_, Awake> {
        self.awake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How this node stands to the quorum now.
    pub fn now(&self) -> Contact {
        let now = self.clock.now();
        let up_for = now.since(Instant::ZERO);
        let heard = self.registry.quorum_age();
        // What was heard is worth nothing to a request that is routed by less.
        let applied = self.registry.current().epoch();
        if *self.routed.borrow() >= applied {
            self.routed_at.store(now.as_nanos(), Ordering::Relaxed);
        }
        let routed_at = Instant::ZERO.plus_nanos(self.routed_at.load(Ordering::Relaxed));
        let missed = self.awake().missed(now, PACE).unwrap_or_default();
        let heard = heard.map(|age| age.max(now.since(routed_at)).max(missed));
        contact::contact(heard, up_for, self.options)
    }

    /// What answers are marked with: for how many seconds there has been no contact, if there is
    /// none.
    pub fn stale_seconds(&self) -> Option<u64> {
        self.look()?.age().map(|age| age.as_secs())
    }

    /// Whether this node serves; what is read from its routes after this is marked with what it
    /// returns, however long the answer takes.
    ///
    /// # Errors
    /// `STALE` if it has been alone for too long.
    pub fn check(&self) -> Result<Option<u64>, Failure> {
        match self.look() {
            Some(Contact::Expired { age }) => {
                let seconds = age.as_secs();
                let message = format!(
                    "this node has been without contact to a quorum for {seconds} s, longer than \
                     node.stale_max_ms allows"
                );
                Err(Failure::new(ErrorCode::Stale, message))
            }
            Some(Contact::Stale { age }) => Ok(Some(age.as_secs())),
            Some(Contact::Fresh { .. }) | None => Ok(None),
        }
    }

    /// `None` while it is known to be fresh.
    fn look(&self) -> Option<Contact> {
        let now = self.clock.now();
        if now.as_nanos() < self.fresh_until.load(Ordering::Relaxed) {
            return None;
        }
        let contact = self.now();
        if let Contact::Fresh { lasts } = contact {
            self.fresh_until
                .store((now + lasts).as_nanos(), Ordering::Relaxed);
        }
        Some(contact)
    }
}

/// How often the node says that it runs.
pub(crate) const PACE: u64 = crate::detector::LISTEN_EVERY.as_nanos() as u64;
