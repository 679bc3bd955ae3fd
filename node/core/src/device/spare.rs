//! Which threads of a CPU a batch may be computed by.

/// The threads of a device's lanes, and how many of them batches have. Whoever comes while all are idle
/// may have all of them; whoever comes while others compute has its own lane's, and what is idle
/// besides. What was handed out is not taken back before its batch ends.
///
/// Cost: an addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spare {
    all: u16,
    taken: u32,
}

impl Spare {
    /// One for each lane, all idle.
    pub fn new(lanes: u16) -> Self {
        Self {
            all: lanes,
            taken: 0,
        }
    }

    /// Those for a batch that begins: one at least.
    pub fn take(&mut self) -> u16 {
        let idle = u32::from(self.all).saturating_sub(self.taken);
        let taken = idle.max(1);
        self.taken += taken;
        taken as u16
    }

    /// Its batch has ended.
    pub fn give_back(&mut self, taken: u16) {
        self.taken -= u32::from(taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_what_is_idle_and_one_at_least() {
        let mut spare = Spare::new(4);
        assert_eq!(spare.take(), 4);
        assert_eq!([spare.take(), spare.take()], [1, 1]);
        spare.give_back(4);
        assert_eq!(spare.take(), 2);
        spare.give_back(1);
        spare.give_back(2);
        assert_eq!(spare.take(), 3);
        spare.give_back(1);
        spare.give_back(3);
        assert_eq!(spare, Spare::new(4));
    }
}
