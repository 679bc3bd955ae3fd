//! Counts what a piece of work allocates: an allocator that passes everything on and counts.

#![allow(
    unsafe_code,
    reason = "an allocator that counts cannot be written without; each block has its proof"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Blocks that this thread has asked for; blocks that grew count again.
    static BLOCKS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, with a count for each thread.
pub(crate) struct Counting;

/// Blocks that `work` allocates on this thread.
pub(crate) fn allocations_of(work: impl FnOnce()) -> u64 {
    let before = BLOCKS.get();
    work();
    BLOCKS.get() - before
}

impl Counting {
    fn count() {
        BLOCKS.set(BLOCKS.get() + 1);
    }
}

// SAFETY: every call is passed to `System` with its arguments unchanged, so its contract is
// kept; counting touches a constant-initialised cell of a plain number, which does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: the caller keeps the contract of `alloc_zeroed`, which is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this layout, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        Self::count();
        // SAFETY: `pointer` came from `System` with this layout, as the caller promises.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}
