//! Decompressing a body in steps, each of which is bounded by what it reads and by what it writes.
//!
//! Blocks that hold nothing cost their sender two bytes and the node some work each (RFC 1951, section
//! 3.2): a step that ended only with what it writes would go through all of them.

use std::io::{self, BufRead, Read};

use bytes::{Buf, Bytes};
use flate2::bufread::{GzDecoder, ZlibDecoder};

/// A body that is being decompressed.
pub(super) enum Inflate {
    /// RFC 1952.
    Gzip(GzDecoder<Rationed>),
    /// RFC 1950.
    Zlib(ZlibDecoder<Rationed>),
}

/// What a step has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// So many bytes were written.
    Wrote(usize),
    /// It has read what it may, and nothing was written.
    Read,
    /// The body is whole, and so many bytes follow its end.
    End(usize),
}

/// Compressed bytes, of which no more are read than is allowed.
pub(super) struct Rationed {
    bytes: Bytes,
    allowed: usize,
    read: usize,
}

impl Inflate {
    /// A body as gzip wraps it.
    pub(super) fn gzip(bytes: Bytes) -> Self {
        Self::Gzip(GzDecoder::new(Rationed::new(bytes)))
    }

    /// A body as zlib wraps it.
    pub(super) fn zlib(bytes: Bytes) -> Self {
        Self::Zlib(ZlibDecoder::new(Rationed::new(bytes)))
    }

    /// Decompresses into `out`, which is not empty, from `read_max` bytes at most.
    ///
    /// # Errors
    /// The body is malformed or cut off.
    pub(super) fn step(&mut self, out: &mut [u8], read_max: usize) -> io::Result<Step> {
        let read = match self {
            Self::Gzip(decoder) => {
                decoder.get_mut().allowed = read_max;
                decoder.read(out)
            }
            Self::Zlib(decoder) => {
                decoder.get_mut().allowed = read_max;
                decoder.read(out)
            }
        };
        match read {
            Ok(0) => Ok(Step::End(self.rationed().bytes.len())),
            Ok(bytes) => Ok(Step::Wrote(bytes)),
            // Decoders keep what they have read, and go on where they were.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Step::Read),
            Err(error) => Err(error),
        }
    }

    /// How many bytes have been read.
    pub(super) fn read(&self) -> usize {
        self.rationed().read
    }

    fn rationed(&self) -> &Rationed {
        match self {
            Self::Gzip(decoder) => decoder.get_ref(),
            Self::Zlib(decoder) => decoder.get_ref(),
        }
    }
}

impl Rationed {
    fn new(bytes: Bytes) -> Self {
        Self {
            bytes,
            allowed: 0,
            read: 0,
        }
    }
}

impl Read for Rationed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let from = self.fill_buf()?;
        let length = from.len().min(into.len());
        into[..length].copy_from_slice(&from[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Rationed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let length = self.bytes.len().min(self.allowed);
        if length == 0 && !self.bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(&self.bytes[..length])
    }

    fn consume(&mut self, length: usize) {
        self.allowed -= length;
        self.read += length;
        self.bytes.advance(length);
    }
}

/// What a step reads at most where other tasks wait for it. The dearest blocks that write nothing bring
/// codes of their own in a dozen bytes, and take a microsecond each: a millisecond's worth.
pub(super) const STEP_READ_BYTES_MAX: usize = 8 << 10;

/// So many blocks without a byte in them, as gzip or zlib wraps them.
#[cfg(test)]
pub(super) fn nothing(blocks: usize, is_gzip: bool) -> Bytes {
    // Stored, of no length; the last one says that it is the last.
    let (block, last) = ([0, 0, 0, 0xff, 0xff], [1, 0, 0, 0xff, 0xff]);
    let (head, tail): (&[u8], &[u8]) = match is_gzip {
        true => (&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], &[0; 8]),
        false => (&[0x78, 0x9c], &[0, 0, 0, 1]),
    };
    [head, &block.repeat(blocks), &last, tail].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use std::io::Write;

    fn compressed(text: &[u8]) -> [Inflate; 2] {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(text).unwrap();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(text).unwrap();
        let gzip = Bytes::from([&gzip.finish().unwrap()[..], b"behind"].concat());
        let zlib = Bytes::from([&zlib.finish().unwrap()[..], b"behind"].concat());
        [Inflate::gzip(gzip), Inflate::zlib(zlib)]
    }

    #[test]
    fn a_body_comes_back_whole_however_little_is_read_at_a_time() {
        let text: Vec<u8> = (0..20_000_u32)
            .flat_map(|at| (at * at).to_le_bytes())
            .collect();
        for read_max in [1, 7, 1 << 20] {
            for mut inflate in compressed(&text) {
                let (mut whole, mut out) = (Vec::new(), [0; 1_000]);
                let behind = loop {
                    match inflate.step(&mut out, read_max).unwrap() {
                        Step::Wrote(bytes) => whole.extend_from_slice(&out[..bytes]),
                        Step::Read => assert!(read_max < 8, "it had all that there was"),
                        Step::End(behind) => break behind,
                    }
                };
                assert_eq!((whole == text, behind), (true, 6), "{read_max}");
            }
        }
    }

    #[test]
    fn blocks_without_a_byte_end_steps_too() {
        for is_gzip in [true, false] {
            let bytes = nothing(20_000, is_gzip);
            let least = bytes.len() / 1_000;
            let mut inflate = match is_gzip {
                true => Inflate::gzip(bytes),
                false => Inflate::zlib(bytes),
            };
            let mut steps = 0;
            while inflate.step(&mut [0; 64], 1_000).unwrap() != Step::End(0) {
                steps += 1;
            }
            assert!((least..=least + 2).contains(&steps), "{steps}");
        }
    }
}
