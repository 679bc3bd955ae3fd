//! Frames in pieces: every way to cut them, and what promises may cost.

use proptest::prelude::*;

use super::*;
use crate::frame::Message;
use crate::id::Epoch;
use crate::tensor::Tensor;

const LIMIT: usize = 32 << 20;

fn frame(number: u64, values: usize) -> Frame {
    let values: Vec<f32> = (0..values).map(|at| (at % 1021) as f32).collect();
    Frame {
        number,
        message: Message::Gone {
            epoch: Epoch(number),
        },
        tensors: vec![Tensor::from_f32(1, &values), Tensor::from_f32(1, &[1.0])],
    }
}

fn bytes(frames: &[Frame]) -> Vec<u8> {
    let parts = frames.iter().flat_map(|frame| frame.encode().unwrap());
    parts.collect::<Vec<_>>().concat()
}

/// Feeds pieces of the lengths that `cuts` gives, over and over.
fn fed(bytes: &[u8], cuts: &[usize]) -> Vec<Frame> {
    let mut decoder = FrameDecoder::new(LIMIT);
    let mut frames = Vec::new();
    let (mut rest, mut cuts) = (bytes, cuts.iter().cycle());
    while !rest.is_empty() {
        let taken = (*cuts.next().unwrap()).clamp(1, rest.len());
        let mut piece = &rest[..taken];
        rest = &rest[taken..];
        while let Some(frame) = decoder.feed(&mut piece).unwrap() {
            frames.push(frame);
        }
        assert!(piece.is_empty());
    }
    assert!(decoder.is_between_frames());
    frames
}

proptest! {
    #[test]
    fn frames_come_out_whole_however_they_are_cut(
        lengths in proptest::collection::vec(0usize..3_000, 1..5),
        cuts in proptest::collection::vec(1usize..5_000, 1..8),
    ) {
        let frames: Vec<_> = lengths.iter().zip(1..).map(|(values, n)| frame(n, *values)).collect();
        let back = fed(&bytes(&frames), &cuts);
        for tensor in back.iter().flat_map(|frame| &frame.tensors) {
            prop_assert_eq!(tensor.data().as_ptr().addr() % 64, 0);
        }
        prop_assert_eq!(back, frames);
    }

    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..300), cut in 1usize..40) {
        let mut bytes = bytes(&[frame(1, 20)]);
        let at = noise.len().min(bytes.len());
        let (kept, _) = bytes.split_at_mut(at);
        kept.copy_from_slice(&noise[..at]);
        bytes[..4].copy_from_slice(b"PLF1");
        let mut decoder = FrameDecoder::new(LIMIT);
        for mut piece in bytes.chunks(cut) {
            if decoder.feed(&mut piece).is_err() {
                break;
            }
        }
    }
}

#[test]
fn a_large_body_is_read_into_its_place_and_is_aligned() {
    let sent = frame(9, 5 << 20);
    let encoded = bytes(std::slice::from_ref(&sent));
    let mut decoder = FrameDecoder::new(LIMIT);
    let at = encoded.len() - (20 << 20) - 64;
    let mut first = &encoded[..at - 10];
    assert_eq!(decoder.feed(&mut first).unwrap(), None);
    assert!(decoder.room().is_none(), "the header is not for the body");
    let mut second = &encoded[at - 10..at];
    assert_eq!(decoder.feed(&mut second).unwrap(), None);
    let mut rest = &encoded[at..];
    let mut turns = 0;
    while let Some(mut room) = decoder.room() {
        let taken = room.remaining_mut().min(rest.len()).min(1 << 20);
        room.put_slice(&rest[..taken]);
        rest.advance(taken);
        turns += 1;
    }
    assert!(rest.is_empty() && turns > 20);
    let back = decoder.feed(&mut &[][..]).unwrap().expect("complete");
    assert!(back == sent);
    assert_eq!(back.tensors[0].data().as_ptr().addr() % 64, 0);
}

#[test]
fn memory_follows_what_has_come_and_not_what_was_promised() {
    let encoded = bytes(&[frame(1, 7 << 20)]);
    let mut decoder = FrameDecoder::new(LIMIT);
    let mut fed = 0;
    for (length, at_most) in [
        (4_096, ROOM_BYTES_FIRST),
        (100_000, 2 << 20),
        (2 << 20, 32 << 20),
    ] {
        let mut piece = &encoded[fed..length];
        assert_eq!(decoder.feed(&mut piece).unwrap(), None);
        fed = length;
        let room = decoder.body.as_ref().expect("a body").room;
        assert!(room <= at_most, "{room} bytes after {length}");
    }
    assert!(decoder.missing() > 25 << 20);
}

#[test]
fn what_is_over_a_limit_is_refused_with_the_first_bytes() {
    let encoded = bytes(&[frame(1, 1_000)]);
    let mut decoder = FrameDecoder::new(1_000);
    let mut prelude = &encoded[..PRELUDE_BYTES];
    let refused = decoder.feed(&mut prelude);
    assert!(matches!(refused, Err(FrameError::BodyTooLarge { .. })));
}
