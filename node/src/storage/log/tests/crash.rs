//! Random histories, power cuts at any operation, torn writes: what is found afterwards is
//! what a prefix of the history says, and the prefix holds all that was acknowledged.

use std::collections::BTreeMap;

use super::*;

/// What a log should say, kept without any of the log's code.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    entries: BTreeMap<u64, Vec<u8>>,
    vote: Option<Vec<u8>>,
    committed: Option<Vec<u8>>,
    purged: Option<Mark>,
}

impl Model {
    fn of(recovered: &Recovered) -> Self {
        let entries = recovered.entries.iter();
        Self {
            entries: entries
                .map(|entry| (entry.index, entry.bytes.clone()))
                .collect(),
            vote: recovered.vote.clone(),
            committed: recovered.committed.clone(),
            purged: recovered.purged.clone(),
        }
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::Append(entries) => {
                for entry in entries {
                    self.entries.split_off(&entry.index);
                    self.entries.insert(entry.index, entry.bytes.clone());
                }
            }
            Write::Vote(bytes) => self.vote = Some(bytes.clone()),
            Write::Committed(bytes) => self.committed = Some(bytes.clone()),
            Write::Truncate(from) => {
                self.entries.split_off(from);
            }
            Write::Purge(mark) => {
                self.entries = self.entries.split_off(&(mark.index + 1));
                self.purged = Some(mark.clone());
            }
        }
    }

    fn next(&self) -> u64 {
        let purged = self.purged.as_ref().map_or(0, |mark| mark.index + 1);
        self.entries
            .keys()
            .next_back()
            .map_or(purged, |last| last + 1)
            .max(purged)
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        // Xorshift64* (Vigna, 2016).
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit.max(1)
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        (0..self.below(most + 1))
            .map(|_| self.below(256) as u8)
            .collect()
    }

    /// A change that may follow `model`.
    fn write(&mut self, model: &Model) -> Write {
        let first = model.entries.keys().next().copied().unwrap_or(model.next());
        let held = model.next() - first;
        match self.below(20) {
            0..12 => {
                let next = model.next();
                let count = 1 + self.below(4);
                let entry = |index, random: &mut Self| Entry {
                    index,
                    bytes: random.bytes(200),
                };
                Write::Append(
                    (next..next + count)
                        .map(|index| entry(index, self))
                        .collect(),
                )
            }
            12..14 => Write::Vote(self.bytes(24)),
            14..17 => Write::Committed(self.bytes(24)),
            17 => Write::Truncate(first + self.below(held + 1)),
            _ => {
                let index = first + self.below(held + 3);
                Write::Purge(Mark {
                    index,
                    bytes: self.bytes(24),
                })
            }
        }
    }
}

/// What a run did, so that a run that proves nothing fails.
#[derive(Debug, Default)]
struct Work {
    acknowledged: u64,
    crashes: u64,
    torn_tails: u64,
    segments: u64,
    lost: u64,
}

/// The single steps of a change: an append may be found in part.
fn steps(write: &Write) -> Vec<Write> {
    match write {
        Write::Append(entries) => entries
            .iter()
            .map(|entry| Write::Append(vec![entry.clone()]))
            .collect(),
        other => vec![other.clone()],
    }
}

fn run(seed: u64, work: &mut Work) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut disk = MemoryDisk::new();
    let mut found = Model::default();
    for _ in 0..6 {
        let (mut writer, recovered) = open(&disk).unwrap();
        assert_eq!(Model::of(&recovered), found, "the same twice");
        disk.cut_power_after(1 + random.below(120));
        let mut model = found.clone();
        // All states that a crash may leave, from the last one that must be there.
        let mut allowed = vec![model.clone()];
        loop {
            let mut group = Vec::new();
            let mut durable = 0;
            for _ in 0..1 + random.below(4) {
                let write = random.write(&model);
                for step in steps(&write) {
                    model.apply(&step);
                    allowed.push(model.clone());
                }
                if !matches!(write, Write::Committed(_)) {
                    durable = allowed.len() - 1;
                }
                group.push(write);
            }
            let results = writer.write(&group);
            work.acknowledged += results.iter().filter(|result| result.is_ok()).count() as u64;
            if results.iter().any(Result::is_err) {
                break;
            }
            allowed.drain(..durable);
        }
        drop(writer);
        disk = disk.crash(random.below(u64::MAX));
        let (writer, recovered) =
            open(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        drop(writer);
        found = Model::of(&recovered);
        let place = allowed.iter().position(|state| *state == found);
        let place = place.unwrap_or_else(|| {
            let brief = |model: &Model| {
                let keys = (
                    model.entries.keys().next(),
                    model.entries.keys().next_back(),
                );
                format!(
                    "{keys:?} {:?} {:?} {:?}",
                    model.vote, model.committed, model.purged
                )
            };
            let allowed: Vec<String> = allowed.iter().map(brief).collect();
            panic!(
                "seed {seed}: {} was never said, only {allowed:#?}",
                brief(&found)
            )
        });
        work.lost += (allowed.len() - 1 - place) as u64;
        work.crashes += 1;
        work.torn_tails += u64::from(recovered.cut_bytes > 0);
        let last = disk.list().unwrap().pop().unwrap();
        work.segments = work
            .segments
            .max(super::super::segment::sequence_of(&last).unwrap());
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_invented() {
    let mut work = Work::default();
    for seed in 1..=400 {
        run(seed, &mut work);
    }
    println!("{work:?}");
    assert_eq!(work.crashes, 2400);
    assert!(work.acknowledged > 20_000, "{work:?}");
    assert!(
        work.torn_tails > 50 && work.lost > 200 && work.segments > 10,
        "{work:?}"
    );
}

#[test]
fn a_disk_that_lies_about_syncs_is_found_out_or_loses_the_end_only() {
    let (mut refused, mut cut) = (0, 0);
    for seed in 0..300 {
        let disk = MemoryDisk::new();
        let (mut writer, _) = open(&disk).unwrap();
        write(&mut writer, append(0..5)).unwrap();
        disk.lose_syncs(true);
        for index in 5..15 {
            write(&mut writer, append(index..index + 1)).unwrap();
        }
        drop(writer);
        match open(&disk.crash(seed)) {
            Err(OpenError::Corrupt {
                offset, durable, ..
            }) => {
                assert!(offset < durable);
                refused += 1;
            }
            Err(other) => panic!("seed {seed}: {other}"),
            Ok((_, recovered)) => {
                assert!(recovered.entries.len() >= 5);
                let expected: Vec<Entry> = (0..recovered.entries.len() as u64).map(entry).collect();
                assert_eq!(recovered.entries, expected, "seed {seed}: a prefix");
                cut += 1;
            }
        }
    }
    assert!(refused > 30 && cut > 30, "{refused} refused, {cut} opened");
}
