//! Things by slot: what production's slabs of payloads and callers are.

use paceline_core::Slot;

/// Things that are named by a slot, which is never mistaken for an earlier one.
#[derive(Debug)]
pub(super) struct Slots<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    taken: usize,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    thing: Option<T>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            taken: 0,
        }
    }
}

impl<T> Slots<T> {
    /// Takes a slot for what `make` gives, which learns its slot.
    pub(super) fn insert(&mut self, make: impl FnOnce(Slot) -> T) -> Slot {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry {
                generation: 0,
                thing: None,
            });
            (self.entries.len() - 1) as u32
        });
        let entry = &mut self.entries[index as usize];
        let generation = entry.generation;
        let slot = Slot { index, generation };
        entry.thing = Some(make(slot));
        self.taken += 1;
        slot
    }

    /// What is in a slot; `None` if it has left.
    pub(super) fn get(&mut self, slot: Slot) -> Option<&mut T> {
        let entry = self.entries.get_mut(slot.index as usize)?;
        let is_current = entry.generation == slot.generation;
        entry.thing.as_mut().filter(|_| is_current)
    }

    /// Frees a slot.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<T> {
        self.get(slot)?;
        let entry = &mut self.entries[slot.index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(slot.index);
        self.taken -= 1;
        entry.thing.take()
    }

    /// How many are taken.
    pub(super) fn len(&self) -> usize {
        self.taken
    }

    /// Those whose things are so, in the order of their numbers.
    pub(super) fn find(&self, is_so: impl Fn(&T) -> bool) -> Vec<Slot> {
        let entries = self.entries.iter().enumerate();
        let found = entries.filter(|(_, entry)| entry.thing.as_ref().is_some_and(&is_so));
        let slots = found.map(|(index, entry)| Slot {
            index: index as u32,
            generation: entry.generation,
        });
        slots.collect()
    }
}
