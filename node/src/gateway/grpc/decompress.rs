//! Compressed messages: decompressed in steps, within the limit of what was not compressed.

use bytes::{Bytes, BytesMut};
use paceline_protocol::{ErrorCode, Failure};

use super::metadata::Encoding;
use crate::gateway::bodies::Place;
use crate::gateway::inflate::{Inflate, STEP_READ_BYTES_MAX, Step};

/// Decompresses a message. Other tasks run in between, and whoever is gone costs one step more.
///
/// # Errors
/// `MESSAGE_INVALID` if it is not what it says, `TOO_LARGE` over the limit, `OVERLOADED` without
/// room.
pub(super) async fn decompress(
    message: Bytes,
    encoding: Encoding,
    (limit, place): (usize, &mut Place),
) -> Result<Bytes, Failure> {
    // It is held beside what becomes of it.
    let compressed = message.len();
    let mut inflate = match encoding {
        Encoding::Identity => {
            let message = "a message is compressed, and grpc-encoding does not say how";
            return Err(Failure::new(ErrorCode::MessageInvalid, message));
        }
        Encoding::Gzip => Inflate::gzip(message),
        Encoding::Deflate => Inflate::zlib(message),
    };
    let mut whole = BytesMut::new();
    let mut step = vec![0; STEP_BYTES];
    loop {
        let done = inflate.step(&mut step, STEP_READ_BYTES_MAX);
        let done = done.map_err(|error| {
            let message = format!("a message cannot be decompressed: {error}");
            Failure::new(ErrorCode::MessageInvalid, message)
        })?;
        let written = match done {
            Step::Wrote(written) => written,
            Step::Read => 0,
            Step::End(_) => return Ok(whole.freeze()),
        };
        if whole.len() + written > limit {
            let message = format!("a message has more than {limit} bytes, decompressed");
            return Err(Failure::new(ErrorCode::TooLarge, message));
        }
        place.grow(compressed + whole.len() + written)?;
        whole.extend_from_slice(&step[..written]);
        tokio::task::yield_now().await;
    }
}

/// What is decompressed at once: some hundred microseconds of work.
const STEP_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::bodies::Bodies;
    use crate::threads::Threads;
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap().into()
    }

    async fn read(message: Bytes, encoding: Encoding, limit: usize) -> Result<Bytes, ErrorCode> {
        let mut place = Bodies::new(1 << 30, Threads::Own).place();
        let read = decompress(message, encoding, (limit, &mut place)).await;
        read.map_err(|failure| failure.code)
    }

    #[tokio::test]
    async fn both_encodings_are_read_and_held_to_the_limit() {
        let text = "paceline ".repeat(100_000);
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(text.as_bytes()).unwrap();
        let zlib = Bytes::from(zlib.finish().unwrap());
        let whole = Ok(Bytes::from(text.clone()));
        let gzip = gzip(text.as_bytes());
        assert_eq!(read(gzip.clone(), Encoding::Gzip, text.len()).await, whole);
        assert_eq!(
            read(zlib.clone(), Encoding::Deflate, text.len()).await,
            whole
        );
        let too_large = Err(ErrorCode::TooLarge);
        assert_eq!(
            read(gzip.clone(), Encoding::Gzip, text.len() - 1).await,
            too_large
        );
        let invalid = Err(ErrorCode::MessageInvalid);
        assert_eq!(read(zlib, Encoding::Gzip, text.len()).await, invalid);
        assert_eq!(
            read(gzip.slice(..100), Encoding::Gzip, text.len()).await,
            invalid
        );
        assert_eq!(read(gzip, Encoding::Identity, text.len()).await, invalid);
    }

    /// Another task has its turn after every few kilobytes, though nothing comes of them.
    #[tokio::test]
    async fn a_message_of_nothing_lets_others_run() {
        use crate::gateway::inflate::nothing;
        use std::cell::Cell;
        for (encoding, is_gzip) in [(Encoding::Gzip, true), (Encoding::Deflate, false)] {
            let message = nothing(100_000, is_gzip);
            let least = message.len() / STEP_READ_BYTES_MAX;
            let turns = Cell::new(0);
            let others = async {
                loop {
                    turns.set(turns.get() + 1);
                    tokio::task::yield_now().await;
                }
            };
            let read = tokio::select! {
                biased;
                read = read(message, encoding, 1) => read,
                () = others => unreachable!("they have no end"),
            };
            assert_eq!(read, Ok(Bytes::new()));
            assert!(turns.get() >= least, "{} of {least}", turns.get());
        }
    }

    /// A thousand times as much as was sent, of which the limit and one step are ever held.
    #[tokio::test]
    async fn a_bomb_ends_at_the_limit() {
        let bomb = gzip(&vec![0; 64 << 20]);
        assert!(bomb.len() < 128 << 10);
        assert_eq!(
            read(bomb, Encoding::Gzip, 1 << 20).await,
            Err(ErrorCode::TooLarge)
        );
    }
}
