//! One record of a segment: 32 bytes of header, the payload, zeros up to a multiple of 8.
//!
//! ```text
//!  0  crc      4   CRC32C of the record's log offset and of all its bytes from 4 on
//!  4  length   4   bytes of payload
//!  8  index    8   entry: its index; purge: the last index that goes; truncate: the first
//! 16  durable  8   log offset below which all was durable when this was written
//! 24  kind     1   see RecordKind
//! 25  (zero)   7
//! 32  payload
//! ```
//! The offset inside the checksum refuses intact records that a disk put in a wrong place.

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordKind {
    /// An entry. If its index is not new, it replaces that entry and removes all behind it.
    Entry = 1,
    /// The vote.
    Vote = 2,
    /// The committed position.
    Committed = 3,
    /// Entries from an index on are removed.
    Truncate = 4,
    /// Entries up to an index are removed.
    Purge = 5,
    /// All that is not an entry; first in each segment and last of a log closed in order.
    Checkpoint = 6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) kind: RecordKind,
    pub(crate) index: u64,
    pub(crate) durable: u64,
    pub(crate) payload: &'a [u8],
}

/// What stands at a position of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// An intact record and the bytes that it takes.
    Record(Record<'a>, usize),
    /// Zeros, or no room for another record.
    Nothing,
    /// Something else.
    Damage,
}

impl<'a> Record<'a> {
    /// Bytes of a record with a payload of `payload` bytes.
    pub(crate) fn bytes(payload: usize) -> usize {
        HEADER_BYTES + payload.next_multiple_of(ALIGN)
    }

    /// Appends the record, which will stand at log offset `offset`.
    pub(crate) fn encode(&self, offset: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(self.payload.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.index.to_le_bytes());
        out.extend_from_slice(&self.durable.to_le_bytes());
        out.extend_from_slice(&[self.kind as u8, 0, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(self.payload);
        out.resize(start + Self::bytes(self.payload.len()), 0);
        let crc = checksum(offset, &out[start + 4..]);
        out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads what stands at the beginning of `bytes`, which is at log offset `offset`.
    pub(crate) fn decode(bytes: &'a [u8], offset: u64) -> Found<'a> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return if bytes.iter().all(|byte| *byte == 0) {
                Found::Nothing
            } else {
                Found::Damage
            };
        };
        if *header == [0; HEADER_BYTES] {
            return Found::Nothing;
        }
        let length = u32::from_le_bytes(part(header, 4)) as usize;
        let (Some(kind), [0, 0, 0, 0, 0, 0, 0]) = (kind_of(header[24]), part::<7>(header, 25))
        else {
            return Found::Damage;
        };
        let Some(record) = bytes.get(..Self::bytes(length)) else {
            return Found::Damage;
        };
        let crc = u32::from_le_bytes(part(header, 0));
        if crc != checksum(offset, &record[4..]) {
            return Found::Damage;
        }
        let payload = &record[HEADER_BYTES..HEADER_BYTES + length];
        let index = u64::from_le_bytes(part(header, 8));
        let durable = u64::from_le_bytes(part(header, 16));
        Found::Record(
            Self {
                kind,
                index,
                durable,
                payload,
            },
            Self::bytes(length),
        )
    }
}

fn checksum(offset: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&offset.to_le_bytes()), bytes)
}

fn kind_of(byte: u8) -> Option<RecordKind> {
    Some(match byte {
        1 => RecordKind::Entry,
        2 => RecordKind::Vote,
        3 => RecordKind::Committed,
        4 => RecordKind::Truncate,
        5 => RecordKind::Purge,
        6 => RecordKind::Checkpoint,
        _ => return None,
    })
}

fn part<const N: usize>(header: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&header[at..at + N]);
    part
}

/// Positions of records are multiples of this, so that a search behind damage tries few.
pub(crate) const ALIGN: usize = 8;
const HEADER_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(payload: &[u8], offset: u64) -> Vec<u8> {
        let record = Record {
            kind: RecordKind::Entry,
            index: 5,
            durable: 64,
            payload,
        };
        let mut bytes = Vec::new();
        record.encode(offset, &mut bytes);
        bytes
    }

    #[test]
    fn a_record_is_read_as_written_in_its_place_only() {
        for length in 0..40 {
            let payload = vec![3; length];
            let mut bytes = encoded(&payload, 128);
            assert_eq!(bytes.len() % ALIGN, 0);
            let used = bytes.len();
            bytes.extend_from_slice(&[0xff; 9]);
            let Found::Record(record, taken) = Record::decode(&bytes, 128) else {
                panic!("length {length}")
            };
            assert_eq!((record.index, record.durable, taken), (5, 64, used));
            assert_eq!(record.payload, payload);
            assert_eq!(
                Record::decode(&bytes, 136),
                Found::Damage,
                "a misdirected write"
            );
        }
    }

    #[test]
    fn no_flipped_bit_and_no_cut_passes() {
        let bytes = encoded(b"fourteen bytes", 0);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Record::decode(&flipped, 0), Found::Damage, "bit {bit}");
        }
        for length in 1..bytes.len() {
            assert_eq!(
                Record::decode(&bytes[..length], 0),
                Found::Damage,
                "cut at {length}"
            );
        }
        assert_eq!(Record::decode(&[0; 100], 0), Found::Nothing);
        assert_eq!(Record::decode(&[], 0), Found::Nothing);
    }
}
