//! Reads a segment and decides where it ends, and whether it may end there.

use super::record::{ALIGN, Found, Record};
use crate::storage::header::Header;

/// What is in a segment.
pub(crate) struct Scan<'a> {
    /// The intact records from the beginning, each with its position.
    pub(crate) records: Vec<(u64, Record<'a>)>,
    /// The position behind the last of them.
    pub(crate) end: u64,
    /// What stands behind it.
    pub(crate) tail: Tail,
}

/// What stands behind the last intact record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Zeros.
    Clean,
    /// What a crash left of writes that were never acknowledged.
    Torn,
    /// A later record knows that all up to this log offset was durable.
    Corrupt {
        /// That offset, behind the damage.
        durable: u64,
    },
}

/// Scans a segment whose byte 0 is at log offset `base`.
///
/// Cost: one pass; after damage a second one that tries every possible position of a record.
pub(crate) fn scan(file: &[u8], base: u64) -> Scan<'_> {
    let mut records = Vec::new();
    let mut position = Header::BYTES;
    while let Found::Record(record, bytes) = found_at(file, base, position) {
        records.push((position as u64, record));
        position += bytes;
    }
    let rest = file.get(position..).unwrap_or_default();
    let tail = if rest.iter().all(|byte| *byte == 0) {
        Tail::Clean
    } else {
        // Damage, or a hole of zeros with records behind it: sectors reach a disk in any order.
        match durable_behind(file, base, position) {
            durable if durable > base + position as u64 => Tail::Corrupt { durable },
            _ => Tail::Torn,
        }
    };
    Scan {
        records,
        end: position as u64,
        tail,
    }
}

/// The largest durable offset that any intact record behind `position` knows of.
fn durable_behind(file: &[u8], base: u64, position: usize) -> u64 {
    let mut durable = 0;
    let mut at = position + ALIGN;
    while at < file.len() {
        at += match found_at(file, base, at) {
            Found::Record(record, bytes) => {
                durable = durable.max(record.durable);
                bytes
            }
            Found::Nothing | Found::Damage => ALIGN,
        };
    }
    durable
}

fn found_at(file: &[u8], base: u64, position: usize) -> Found<'_> {
    Record::decode(
        file.get(position..).unwrap_or_default(),
        base + position as u64,
    )
}
