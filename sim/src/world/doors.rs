//! The nodes as clients see them: which of them can be asked.

use paceline_core::{Instant, Random};

use crate::agenda::Process;

/// A node as clients see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Door {
    pub(super) process: Process,
    /// Since when it is silent, if it is.
    pub(super) silent_since: Option<Instant>,
}

/// Those that run and take new clients: nearly always nearly all.
#[derive(Default)]
pub(super) struct ReadyDoors {
    /// By node.
    ready: Vec<Process>,
}

impl ReadyDoors {
    /// A process takes clients, or does so no more.
    pub(super) fn set(&mut self, process: Process, is_ready: bool) {
        match (self.ready.binary_search(&process), is_ready) {
            (Err(position), true) => self.ready.insert(position, process),
            (Ok(position), false) => drop(self.ready.remove(position)),
            (Ok(_), true) | (Err(_), false) => {}
        }
    }

    /// One of them but `avoided`, each as likely; costs the same however many there are.
    pub(super) fn pick(&self, random: &mut Random, avoided: Option<Process>) -> Option<Process> {
        let avoided = avoided.and_then(|process| self.ready.binary_search(&process).ok());
        let others = self.ready.len() - usize::from(avoided.is_some());
        if others == 0 {
            return None;
        }
        let drawn = random.below(others as u64) as usize;
        let is_past = avoided.is_some_and(|avoided| drawn >= avoided);
        Some(self.ready[drawn + usize::from(is_past)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agenda::NodeIndex;

    fn process(node: u16) -> Process {
        Process {
            node: NodeIndex(node),
            life: 0,
        }
    }

    #[test]
    fn every_door_but_the_avoided_one_is_picked_and_none_that_closed() {
        let (mut doors, mut random) = (ReadyDoors::default(), Random::from_seed(1));
        assert_eq!(doors.pick(&mut random, None), None);
        for node in [3, 0, 2, 1, 2] {
            doors.set(process(node), true);
        }
        doors.set(process(0), false);
        let mut picked = |avoided| {
            let picks = (0..100).filter_map(|_| doors.pick(&mut random, avoided));
            let nodes = picks.map(|process| process.node.0);
            nodes.collect::<std::collections::BTreeSet<u16>>()
        };
        assert_eq!(picked(None), [1, 2, 3].into());
        assert_eq!(picked(Some(process(2))), [1, 3].into());
        assert_eq!(picked(Some(process(9))), [1, 2, 3].into());
        let (mut one, avoided) = (ReadyDoors::default(), Some(process(1)));
        one.set(process(1), true);
        assert_eq!(one.pick(&mut Random::from_seed(1), avoided), None);
    }
}
