//! Whether a history of a register could have been one register.
//!
//! Each write has a serial of its own, so that a read names the write that it saw. Then the
//! question has an exact answer in O(n log n) (Gibbons and Korach, "Testing shared memories",
//! SIAM J. Comput. 26(4), 1997, on histories with a read mapping): a write and its reads form a
//! cluster. Between the first end and the last beginning in it, if they come in that order, the
//! register held this value and no other: a *forward* zone. Otherwise all of the cluster fits
//! into one moment between the two: a *backward* zone. A history is linearizable if and only if
//! no read ends before its write begins, no two forward zones overlap, and no backward zone lies
//! inside a forward one.
//!
//! A write whose outcome nobody knows never ends. If nobody has seen it, it has no say.

use std::collections::BTreeMap;

/// A moment: moments are numbered in the order in which things happened.
pub(crate) type Moment = u64;

/// An operation on one register, with when it began and ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) what: What,
    pub(crate) began: Moment,
    /// `None`: its end was never seen.
    pub(crate) ended: Option<Moment>,
}

/// What an operation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Wrote this serial, or perhaps, if it has no end.
    Write(u32),
    /// Was refused: it must never be seen.
    Refused(u32),
    /// Saw this serial; 0 is what was there before the first write.
    Read(u32),
}

/// All that is known of one value.
#[derive(Clone, Copy, Debug)]
struct Cluster {
    serial: u32,
    /// When its write began; `None` while no write of it is known.
    written: Option<Moment>,
    first_end: Moment,
    last_begin: Moment,
    reads: usize,
    write_ended: bool,
}

/// Says why the operations cannot have been one register's, if they cannot.
pub(crate) fn check(operations: &[Operation]) -> Result<(), String> {
    let clusters = clusters(operations)?;
    let seen = clusters.values().filter(|c| c.write_ended || c.reads > 0);
    let (mut forward, backward): (Vec<Cluster>, Vec<Cluster>) =
        seen.copied().partition(|c| c.first_end < c.last_begin);
    forward.sort_by_key(|cluster| cluster.first_end);
    for pair in forward.windows(2) {
        if pair[1].first_end < pair[0].last_begin {
            return Err(format!(
                "{} was seen until {} at least, and {} already at {}",
                pair[0].serial, pair[0].last_begin, pair[1].serial, pair[1].first_end
            ));
        }
    }
    for inner in backward {
        let before = forward.partition_point(|outer| outer.first_end < inner.last_begin);
        let outer = before.checked_sub(1).map(|position| forward[position]);
        if let Some(outer) = outer.filter(|outer| inner.first_end < outer.last_begin) {
            return Err(format!(
                "{} was seen from {} to {} without a break, and {} within that",
                outer.serial, outer.first_end, outer.last_begin, inner.serial
            ));
        }
    }
    Ok(())
}

fn clusters(operations: &[Operation]) -> Result<BTreeMap<u32, Cluster>, String> {
    let mut clusters = BTreeMap::from([(0, Cluster::initial())]);
    let refused = operations.iter().filter_map(|op| match op.what {
        What::Refused(serial) => Some(serial),
        What::Write(_) | What::Read(_) => None,
    });
    let refused: Vec<u32> = refused.collect();
    for operation in operations {
        let (serial, is_read) = match operation.what {
            What::Write(serial) => (serial, false),
            What::Read(serial) => (serial, true),
            What::Refused(_) => continue,
        };
        if is_read && refused.contains(&serial) {
            return Err(format!("{serial} was refused, and was seen"));
        }
        let cluster = clusters.entry(serial).or_insert(Cluster::of(serial));
        // A read that never ended saw nothing.
        let end = operation.ended.unwrap_or(Moment::MAX);
        cluster.first_end = cluster.first_end.min(end);
        cluster.last_begin = cluster.last_begin.max(operation.began);
        if is_read {
            cluster.reads += 1;
        } else if cluster.written.replace(operation.began).is_some() {
            return Err(format!("{serial} was written twice"));
        } else {
            cluster.write_ended = operation.ended.is_some();
        }
    }
    for cluster in clusters.values() {
        let written = cluster.written;
        let written = written.ok_or_else(|| format!("nobody wrote {}", cluster.serial))?;
        if cluster.first_end < written {
            return Err(format!("{} was seen before it was written", cluster.serial));
        }
    }
    Ok(clusters)
}

impl Cluster {
    fn of(serial: u32) -> Self {
        Self {
            serial,
            written: None,
            first_end: Moment::MAX,
            last_begin: 0,
            reads: 0,
            write_ended: false,
        }
    }

    /// What is there at the beginning was written before everything.
    fn initial() -> Self {
        Self {
            written: Some(0),
            first_end: 0,
            write_ended: true,
            ..Self::of(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(what: What, began: Moment, ended: Moment) -> Operation {
        let ended = Some(ended);
        Operation { what, began, ended }
    }

    fn unknown(serial: u32, began: Moment) -> Operation {
        let what = What::Write(serial);
        let ended = None;
        Operation { what, began, ended }
    }

    use What::{Read, Refused, Write};

    #[test]
    fn what_a_register_does_is_accepted() {
        let histories: [&[Operation]; 6] = [
            &[],
            &[op(Read(0), 1, 2), op(Write(7), 3, 4), op(Read(7), 5, 6)],
            // Reads beside a write see either value.
            &[op(Write(7), 1, 8), op(Read(0), 2, 3), op(Read(7), 4, 5)],
            // Two writes beside each other, in either order.
            &[op(Write(7), 1, 4), op(Write(8), 2, 3), op(Read(7), 5, 6)],
            // Nobody knows whether 7 was written: it may be seen late, or never.
            &[
                unknown(7, 1),
                op(Write(8), 2, 3),
                op(Read(8), 4, 5),
                op(Read(7), 6, 7),
            ],
            &[unknown(7, 1), op(Refused(9), 1, 2), op(Read(0), 8, 9)],
        ];
        for history in histories {
            assert_eq!(check(history), Ok(()), "{history:?}");
        }
    }

    #[test]
    fn what_no_register_does_is_found() {
        let histories: [(&[Operation], &str); 8] = [
            // A stale read: 7 had been acknowledged before it began.
            (
                &[op(Write(7), 1, 2), op(Read(0), 3, 4)],
                "0 was seen from 0 to 3 without a break, and 7",
            ),
            (
                &[op(Write(7), 1, 2), op(Write(8), 3, 4), op(Read(7), 5, 6)],
                "7 was seen from 2 to 5 without a break, and 8",
            ),
            // Two reads in order see values in the other order.
            (
                &[op(Write(7), 1, 8), op(Read(7), 2, 3), op(Read(0), 4, 5)],
                "0 was seen from 0 to 4 without a break, and 7",
            ),
            // An acknowledged write was lost, and what came before is there again.
            (
                &[op(Write(7), 1, 2), op(Read(7), 3, 4), op(Read(0), 5, 6)],
                "0 was seen until 5",
            ),
            // What nobody knew of was seen, and is gone again.
            (
                &[unknown(7, 1), op(Read(7), 2, 3), op(Read(0), 4, 5)],
                "0 was seen from 0 to 4 without a break, and 7",
            ),
            // Done twice: it comes back after another value.
            (
                &[
                    op(Write(7), 1, 2),
                    op(Write(8), 3, 4),
                    op(Read(8), 5, 6),
                    op(Read(7), 7, 8),
                ],
                "7 was seen until 7 at least, and 8 already at 4",
            ),
            (&[op(Read(7), 1, 2)], "nobody wrote 7"),
            (&[op(Refused(7), 1, 2), op(Read(7), 3, 4)], "7 was refused"),
        ];
        for (history, why) in histories {
            let found = check(history).expect_err("it is wrong");
            assert!(found.contains(why), "{history:?}: {found}");
        }
        let early = [op(Read(7), 1, 2), op(Write(7), 3, 4)];
        let found = check(&early).expect_err("it is wrong");
        assert_eq!(found, "7 was seen before it was written");
        let twice = [op(Write(7), 1, 2), op(Write(7), 3, 4)];
        assert_eq!(check(&twice), Err("7 was written twice".to_owned()));
    }

    /// Against the definition: some order of the operations within their intervals, in which
    /// each read sees the write before it.
    #[test]
    fn small_histories_are_judged_as_the_definition_judges_them() {
        let mut random = paceline_core::Random::stream(1, "histories");
        let (mut good, mut bad) = (0, 0);
        for _ in 0..4_000 {
            let history = drawn(&mut random);
            let wanted = has_order(&history, 0, 0);
            assert_eq!(check(&history).is_ok(), wanted, "{history:?}");
            *(if wanted { &mut good } else { &mut bad }) += 1;
        }
        assert!(good > 400 && bad > 400, "{good} good ones, {bad} bad ones");
    }

    /// Up to six operations, each with its own moments.
    fn drawn(random: &mut paceline_core::Random) -> Vec<Operation> {
        let count = 2 + random.below(5);
        let mut moments: Vec<Moment> = (1..=2 * count).collect();
        let (mut history, mut writes) = (Vec::new(), 0);
        for _ in 0..count {
            let mut take = || moments.remove(random.below(moments.len() as u64) as usize);
            let (a, b) = (take(), take());
            let what = match random.below(2) {
                0 => {
                    writes += 1;
                    Write(writes)
                }
                _ => Read(random.below(4) as u32),
            };
            let is_known = matches!(what, Read(_)) || random.below(4) > 0;
            history.push(Operation {
                what,
                began: a.min(b),
                ended: is_known.then_some(a.max(b)),
            });
        }
        history
    }

    /// Tries every order; `done` has a bit for each operation that has taken place.
    fn has_order(history: &[Operation], done: u32, value: u32) -> bool {
        let left = || (0..history.len()).filter(|n| done & 1 << n == 0);
        let end = |n: usize| history[n].ended.unwrap_or(Moment::MAX);
        if left().all(|n| history[n].ended.is_none()) {
            return true;
        }
        let first_end = left().map(end).min().unwrap_or(Moment::MAX);
        left().any(|n| {
            let next = done | 1 << n;
            let may_be_next = history[n].began < first_end;
            may_be_next
                && match history[n].what {
                    Write(serial) => has_order(history, next, serial),
                    Read(seen) => seen == value && has_order(history, next, value),
                    Refused(_) => has_order(history, next, value),
                }
        })
    }
}
