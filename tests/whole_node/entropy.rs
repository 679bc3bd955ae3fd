//! The operating system's entropy, replaced by a seeded one for threads that ask for it.
//!
//! The standard library's hash maps, tokio's scheduler, openraft's election timeouts and our own
//! op-ids all draw from the C library's `getrandom`. The linker prefers this binary's symbol of
//! that name, so that one definition seeds all of them (the method of S2's mad-turmoil).

#![allow(
    unsafe_code,
    reason = "a symbol of the C library cannot be defined without; each block has its proof"
)]

use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    /// State of this thread's generator; 0 asks the operating system.
    static STATE: Cell<u64> = const { Cell::new(0) };
    static DRAWN: Cell<u64> = const { Cell::new(0) };
}

/// Draws of all threads that went to the operating system.
static UNSEEDED: AtomicU64 = AtomicU64::new(0);

/// From now on this thread's entropy follows from `seed`. Hash maps that this thread made before
/// keep their keys, so that a run begins on a fresh thread.
pub(crate) fn seed(seed: u64) {
    STATE.set(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1);
}

/// How often this thread has drawn since the beginning.
pub(crate) fn drawn() -> u64 {
    DRAWN.get()
}

/// How often any thread has drawn from the operating system.
pub(crate) fn unseeded() -> u64 {
    UNSEEDED.load(Ordering::Relaxed)
}

/// As `getrandom(2)`: fills `buffer`, and returns how many bytes it filled.
///
/// # Safety
/// `buffer` is valid for writes of `length` bytes, as the C library's declaration demands.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    if length == 0 {
        return 0;
    }
    // SAFETY: the caller vouches for `length` writable bytes at `buffer`, which nobody else
    // holds while it waits for them; they are initialised first, so that a slice may be made.
    let bytes = unsafe {
        std::ptr::write_bytes(buffer, 0, length);
        std::slice::from_raw_parts_mut(buffer, length)
    };
    let state = STATE.get();
    if state == 0 {
        UNSEEDED.fetch_add(1, Ordering::Relaxed);
        let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(bytes));
        return read.map_or(-1, |()| length as isize);
    }
    DRAWN.set(DRAWN.get() + 1);
    STATE.set(fill(state, bytes));
    length as isize
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
fn fill(mut state: u64, bytes: &mut [u8]) -> u64 {
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        chunk.copy_from_slice(&mixed.to_le_bytes()[..chunk.len()]);
    }
    state.max(1)
}

/// That the symbol is the one that everybody calls: without it nothing here means anything.
#[test]
fn everybody_draws_from_the_seed() {
    use std::hash::{BuildHasher, RandomState};
    let draw = || {
        let drawing = std::thread::spawn(|| {
            seed(7);
            let hash = RandomState::new().hash_one(1);
            assert_eq!(drawn(), 1, "hash maps draw here");
            let mut bytes = [0; 16];
            getrandom::fill(&mut bytes).expect("it always gives");
            assert!(drawn() > 1, "op-ids draw here");
            (hash, bytes)
        });
        drawing.join().expect("it only draws")
    };
    assert_eq!(draw(), draw());
}
