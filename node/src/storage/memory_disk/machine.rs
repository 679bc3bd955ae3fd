//! What is behind the in-memory disk: files and names, cached and durable, and its faults.

use std::collections::BTreeMap;
use std::io;

#[derive(Default)]
pub(super) struct Machine {
    pub(super) boot: u64,
    pub(super) taken: bool,
    pub(super) names: BTreeMap<String, u64>,
    pub(super) durable_names: BTreeMap<String, u64>,
    pub(super) name_changes: Vec<NameChange>,
    pub(super) files: BTreeMap<u64, FileState>,
    pub(super) faults: Faults,
    pub(super) syncs: u64,
}

#[derive(Default)]
pub(super) struct Faults {
    pub(super) bytes_max: Option<usize>,
    pub(super) fail_sync: Option<u64>,
    pub(super) fail_write: Option<u64>,
    pub(super) cut_power: Option<u64>,
    pub(super) lose_syncs: bool,
}

pub(super) enum NameChange {
    Created { name: String, id: u64 },
    Renamed { from: String, to: String },
    Removed { name: String },
}

#[derive(Default)]
pub(super) struct FileState {
    pub(super) cached: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) pending: Vec<Pending>,
}

pub(super) enum Pending {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

impl Machine {
    pub(super) fn file(&mut self, id: u64) -> &mut FileState {
        self.files.entry(id).or_default()
    }

    pub(super) fn create(&mut self, name: &str) -> u64 {
        let id = self.files.keys().next_back().map_or(1, |last| last + 1);
        self.files.insert(id, FileState::default());
        let change = NameChange::Created {
            name: name.to_owned(),
            id,
        };
        change.apply(&mut self.names);
        self.name_changes.push(change);
        id
    }

    pub(super) fn rename_or_remove(&mut self, change: NameChange, name: &str) -> io::Result<()> {
        if !self.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        change.apply(&mut self.names);
        self.name_changes.push(change);
        Ok(())
    }

    pub(super) fn write(&mut self, id: u64, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let used: usize = self
            .names
            .values()
            .map(|id| self.files[id].cached.len())
            .sum();
        let grows = (offset + bytes.len()).saturating_sub(self.files[&id].cached.len());
        if self
            .faults
            .bytes_max
            .is_some_and(|limit| used + grows > limit)
            && grows > 0
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let failing = due(&mut self.faults.fail_write);
        let written = if failing {
            &bytes[..bytes.len() / 2]
        } else {
            bytes
        };
        self.file(id).change(Pending::Write {
            offset,
            bytes: written.to_vec(),
        });
        if failing {
            Err(fault("the write failed"))
        } else {
            Ok(())
        }
    }

    pub(super) fn count_sync(&mut self) -> io::Result<()> {
        self.syncs += 1;
        if due(&mut self.faults.fail_sync) {
            Err(fault("the sync failed"))
        } else {
            Ok(())
        }
    }

    pub(super) fn lose_what_is_not_durable(&mut self, chance: &mut Chance) {
        let kept = chance.below(self.name_changes.len() as u64 + 1) as usize;
        for change in self.name_changes.drain(..).take(kept) {
            change.apply(&mut self.durable_names);
        }
        self.names = self.durable_names.clone();
        let live: Vec<u64> = self.names.values().copied().collect();
        self.files.retain(|id, _| live.contains(id));
        for file in self.files.values_mut() {
            // Nothing, everything, or a mixture of what was pending reaches the medium.
            let per_mille = [0, 1000, 300, 700][chance.below(4) as usize];
            for pending in std::mem::take(&mut file.pending) {
                pending.reach(&mut file.durable, per_mille, chance);
            }
            file.cached.clone_from(&file.durable);
        }
    }
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Created { name, id } => {
                names.insert(name.clone(), *id);
            }
            Self::Renamed { from, to } => {
                if let Some(id) = names.remove(from) {
                    names.insert(to.clone(), id);
                }
            }
            Self::Removed { name } => {
                names.remove(name);
            }
        }
    }
}

impl FileState {
    pub(super) fn change(&mut self, pending: Pending) {
        pending.reach(&mut self.cached, 1000, &mut Chance(0));
        self.pending.push(pending);
    }
}

impl Pending {
    /// Carries each sector over with a probability of `per_mille` in a thousand.
    pub(super) fn reach(&self, content: &mut Vec<u8>, per_mille: u64, chance: &mut Chance) {
        match self {
            Self::SetLen(bytes) => {
                if chance.below(1000) < per_mille {
                    content.resize(*bytes, 0);
                }
            }
            Self::Write { offset, bytes } => {
                let mut at = *offset;
                while at < offset + bytes.len() {
                    let end = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(offset + bytes.len());
                    if chance.below(1000) < per_mille {
                        if content.len() < end {
                            content.resize(end, 0);
                        }
                        content[at..end].copy_from_slice(&bytes[at - offset..end - offset]);
                    }
                    at = end;
                }
            }
        }
    }
}

/// What a disk writes at once.
pub(super) const SECTOR_BYTES: usize = 512;

/// Counts down to a fault; true when it is due.
pub(super) fn due(countdown: &mut Option<u64>) -> bool {
    *countdown = countdown.map(|count| count.saturating_sub(1));
    if *countdown == Some(0) {
        *countdown = None;
        return true;
    }
    false
}

pub(super) fn fault(what: &str) -> io::Error {
    io::Error::other(what.to_owned())
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit.max(1)
    }
}
