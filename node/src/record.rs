//! What the node's machines were told last, and what they said: kept, for whoever wants to know
//! why it did something.
//!
//! A machine's tape lies beside it, under the lock or with the actor that steps it, so that what
//! is on it stands in the order in which it happened ([`paceline_core::record`]). Here is who has
//! one, and how much memory each may take: all of them together what `debug.record_bytes` says.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use paceline_core::record::{Kept, Recordable, Recorded, Recording};
use paceline_core::{Instant, Machine};

/// Who has a tape. Cheap to clone.
#[derive(Clone, Default)]
pub struct Records {
    bytes: usize,
    sources: Arc<Mutex<Vec<Source>>>,
}

/// What a machine gets of the memory. The three that a request meets are stepped some thousand
/// times as often as the others; a request takes about 270, 230 and 110 bytes of their tapes, so
/// that all three reach about as far back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// The device: three eighths.
    Device,
    /// The router: a quarter and a bit.
    Router,
    /// Admission: a seventh.
    Admission,
    /// Canaries, on the leader: a sixty-fourth.
    Canaries,
    /// One of those that watch peers or the node itself: they share an eighth.
    Watcher,
    /// One of those that start failed parts again, which are hardly ever stepped: a sixteenth for
    /// all of them.
    Restart,
}

/// A machine that an actor steps, and whose tape can be read beside it. The lock is free unless
/// somebody reads.
pub(crate) struct Stepped<M: Recordable>(Arc<Mutex<Recorded<M>>>);

struct Source {
    share: Share,
    instance: String,
    holder: Weak<dyn Any + Send + Sync>,
    read: Box<dyn Fn() -> Option<Recording> + Send>,
}

impl Records {
    /// Tapes of so many bytes together; none if that is 0.
    pub fn new(bytes: usize) -> Self {
        Self {
            bytes,
            sources: Arc::default(),
        }
    }

    /// Whether anything is kept.
    pub fn is_on(&self) -> bool {
        self.bytes > 0
    }

    /// A copy of all tapes. Each is whole; between two of them time may have passed. Holds each
    /// machine for as long as copying its tape takes: a millisecond for some MiB.
    pub fn read(&self) -> Vec<Kept> {
        let sources = self.sources();
        let kept = sources.iter().filter_map(|source| {
            Some(Kept {
                instance: source.instance.clone(),
                recording: (source.read)()?,
            })
        });
        kept.collect()
    }

    /// Bytes that a machine's tape may take.
    pub(crate) fn bytes(&self, share: Share) -> usize {
        self.bytes / PARTS * share.parts()
    }

    /// Notes that `holder` has a machine, until it is dropped; `read` copies its tape.
    pub(crate) fn keep<T: Send + Sync + 'static>(
        &self,
        (share, instance): (Share, &str),
        holder: &Arc<T>,
        read: fn(&T) -> Option<Recording>,
    ) {
        let weak = Arc::downgrade(holder);
        let mut sources = self.sources();
        sources.retain(Source::is_alive);
        sources.push(Source {
            share,
            instance: instance.to_owned(),
            holder: weak.clone(),
            read: Box::new(move || read(&*weak.upgrade()?)),
        });
    }

    /// A machine of an actor, and which of its kind it is. Has no tape if too many others have.
    pub(crate) fn stepped<M>(&self, (share, instance): (Share, &str), machine: M) -> Stepped<M>
    where
        M: Recordable + Send + 'static,
        Recorded<M>: Send,
    {
        let is_other = |source: &&Source| source.share == share && source.is_alive();
        let has_place = self.sources().iter().filter(is_other).count() < share.machines_max();
        let bytes = if has_place { self.bytes(share) } else { 0 };
        let recorded = Arc::new(Mutex::new(Recorded::new(machine, bytes)));
        if bytes > 0 {
            self.keep((share, instance), &recorded, |recorded| {
                let recorded = recorded.lock().unwrap_or_else(PoisonError::into_inner);
                recorded.recording()
            });
        }
        Stepped(recorded)
    }

    fn sources(&self) -> MutexGuard<'_, Vec<Source>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Of [`PARTS`], for each machine.
    fn parts(self) -> usize {
        match self {
            Self::Device => 1_536,
            Self::Router => 1_152,
            Self::Admission => 576,
            Self::Canaries => 64,
            Self::Watcher => 8,
            Self::Restart => 1,
        }
    }

    /// Machines that have a tape at a time: a detector for each of the peers that a cluster may
    /// have, and a restart for each of what a node runs, within reason.
    fn machines_max(self) -> usize {
        match self {
            Self::Device | Self::Router | Self::Admission | Self::Canaries => 1,
            Self::Watcher => 64,
            Self::Restart => 256,
        }
    }
}

impl Source {
    fn is_alive(&self) -> bool {
        self.holder.strong_count() > 0
    }
}

impl<M: Recordable> Stepped<M> {
    /// Reads off the machine.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&M) -> T) -> T {
        look(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Recorded<M>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Recordable> Machine for Stepped<M> {
    type Input = M::Input;
    type Effect = M::Effect;

    fn step(&mut self, now: Instant, input: M::Input, out: &mut Vec<M::Effect>) {
        self.lock().step(now, input, out);
    }

    fn wake(&mut self, now: Instant, out: &mut Vec<M::Effect>) {
        self.lock().wake(now, out);
    }

    fn next_wakeup(&self) -> Option<Instant> {
        self.lock().next_wakeup()
    }
}

/// What the memory is shared out in.
const PARTS: usize = 4_096;

#[cfg(test)]
mod tests {
    use paceline_core::detector::{Detector, Input, Options};

    use super::*;

    fn detector(records: &Records, instance: &str) -> Stepped<Detector> {
        let machine = Detector::new(Options::default(), Instant::ZERO);
        records.stepped((Share::Watcher, instance), machine)
    }

    #[test]
    fn machines_are_read_while_they_live() {
        let records = Records::new(1 << 20);
        let mut one = detector(&records, "of node 1");
        let two = detector(&records, "of node 2");
        one.step(Instant::from_nanos(5), Input::Heard, &mut Vec::new());
        let instances = |kept: Vec<Kept>| -> Vec<String> {
            kept.into_iter().map(|kept| kept.instance).collect()
        };
        assert_eq!(instances(records.read()), ["of node 1", "of node 2"]);
        drop(two);
        assert_eq!(instances(records.read()), ["of node 1"]);
        let played = records.read()[0].recording.replay();
        assert_eq!((played.steps, played.divergence), (1, None));
    }

    #[test]
    fn all_shares_are_the_whole() {
        let shares = [
            Share::Device,
            Share::Router,
            Share::Admission,
            Share::Canaries,
            Share::Watcher,
            Share::Restart,
        ];
        let parts = shares.map(|share| share.parts() * share.machines_max());
        assert_eq!(parts.iter().sum::<usize>(), PARTS);
        assert_eq!(Records::new(8 << 20).bytes(Share::Device), 3_145_728);
    }

    #[test]
    fn nothing_is_kept_of_too_many_machines_or_if_it_is_off() {
        let records = Records::new(1 << 20);
        let machines: Vec<_> = (0..100).map(|_| detector(&records, "")).collect();
        assert_eq!(records.read().len(), 64);
        drop(machines);
        let machine = detector(&records, "later");
        assert_eq!(records.read().len(), 1, "places are free again");
        drop(machine);
        let off = Records::new(0);
        let _machine = detector(&off, "");
        assert!(off.read().is_empty() && !off.is_on());
    }
}
