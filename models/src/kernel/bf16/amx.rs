//! AMX: products of tiles of bfloat16, 16 rows by 16 pairs by 16 columns in one instruction.
//!
//! Intel's processors have it from Sapphire Rapids on. The operating system has to be asked for the
//! use of tiles, for the whole process; when it refuses, because a thread's stack for signals is too
//! small for the tiles, say, the machine counts as one without. The configuration of tiles belongs to
//! a thread, and is there only while [`Tiles`] lives.
//!
//! Not checked on such a machine: there was none. What surrounds the instructions (packing, blocks,
//! what follows) is tested with another unit that does the same; the two loops in assembly are tested
//! only where the processor has AMX.
//!
//! A process that moves to a processor without AMX dies in the midst of a tile: pin it to nodes that
//! have it, or set `PACELINE_KERNELS=avx512`.
#![expect(unsafe_code, reason = "Rust has no stable functions for tiles")]

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::marker::PhantomData;
use std::sync::OnceLock;

use super::{BLOCK_ROWS, Block, Pair, TILE, TILE_PAIRS};

/// Proof that this machine has tiles of bfloat16 and that this process may use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Amx(());

impl Amx {
    /// If this machine has AMX and the operating system lets this process use it. Asked once.
    pub(in super::super) fn detect() -> Option<Self> {
        static HAS_IT: OnceLock<bool> = OnceLock::new();
        HAS_IT
            .get_or_init(|| processor_has_it() && system_saves_it() && system_permits_it())
            .then_some(Self(()))
    }

    /// Makes tiles ready on the calling thread, in 50 ns or so.
    pub(super) fn configure(self) -> Tiles {
        // SAFETY: `self` proves that the instruction exists and is permitted; the operand is the
        // 64 bytes that it reads, in the layout of palette 1, whose limits `ALL_WHOLE` keeps. It
        // changes tile registers alone, which no Rust code uses outside of the `asm!` blocks here.
        unsafe {
            asm!(
                "ldtilecfg [{configuration}]",
                configuration = in(reg) &raw const ALL_WHOLE,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags, readonly),
            );
        }
        Tiles(PhantomData)
    }
}

/// CPUID leaf 7: AMX-BF16 is bit 22 of EDX, AMX-TILE bit 24 (Intel SDM, volume 2, CPUID).
fn processor_has_it() -> bool {
    const WANTED: u32 = 1 << 22 | 1 << 24;
    const LEAF_TILES: u32 = 0x1d;
    __cpuid(0).eax >= LEAF_TILES && __cpuid_count(7, 0).edx & WANTED == WANTED
}

/// Whether the system saves tiles when it changes threads: bits 17 and 18 of XCR0.
fn system_saves_it() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const TILES: u32 = 0b11 << 17;
    if __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    let low: u32;
    // SAFETY: XGETBV exists, since the system has set OSXSAVE; register 0 exists then. It writes EDX
    // and EAX and touches no memory.
    unsafe {
        asm!(
            "xgetbv",
            in("ecx") 0,
            out("eax") low,
            out("edx") _,
            options(nomem, nostack, preserves_flags),
        );
    }
    low & TILES == TILES
}

/// Asks Linux for the use of tile data: `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)` (its
/// documentation of x86, xstate). It holds for all threads, also those that run already. Any answer
/// but 0 means that there are no tiles, also on systems that have no such call.
#[cfg(target_os = "linux")]
fn system_permits_it() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let answer: i64;
    // SAFETY: a system call of Linux on x86-64, which clobbers RCX and R11 beside its result. This one
    // reads and writes no memory of ours.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => answer,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    answer == 0
}

/// How other systems are asked is not known here, so they are taken to refuse.
#[cfg(not(target_os = "linux"))]
fn system_permits_it() -> bool {
    false
}

/// The operand of `ldtilecfg` (Intel SDM, volume 1, 18.2): 64 bytes.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Palette 1 has eight tiles of at most 16 rows of 64 bytes: all of them whole.
static ALL_WHOLE: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Tiles are configured on this thread while this lives. It stays on its thread, and a panic releases
/// them too: live tiles make every change of threads dearer.
pub(super) struct Tiles(PhantomData<*const ()>);

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: tiles were configured, so the instruction exists. It changes tile registers alone.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags, nomem),
            );
        }
    }
}

impl Tiles {
    /// Sums a block: 32 rows by 32 columns at a time, or 16 by 64 where there are no more rows.
    pub(super) fn multiply(&self, block: Block<'_>) {
        let Block {
            left,
            rows,
            right,
            columns,
            sums,
        } = block;
        let steps = left.len() / (2 * TILE_PAIRS);
        assert!(steps > 0 && rows <= BLOCK_ROWS && (columns == 32 || columns == 64));
        assert_eq!(left.len(), 2 * steps * TILE_PAIRS, "two tiles of rows");
        assert_eq!(right.len(), steps * TILE * columns, "a panel of that depth");
        assert_eq!(sums.len(), BLOCK_ROWS * columns, "room for all sums");
        let mut quarter = Quarters {
            left: left.as_ptr(),
            right: right.as_ptr(),
            sums: sums.as_mut_ptr(),
            steps,
            columns,
        };
        if rows <= TILE && columns == 64 {
            // SAFETY: `self` proves that tiles are configured on this thread; the lengths above are
            // what the loop walks over, of which it reads one tile of rows and all 64 columns.
            unsafe { quarter.one_by_four() };
            return;
        }
        for _ in 0..columns / 32 {
            // SAFETY: as above, with two tiles of rows, and 32 columns from where `right` and `sums`
            // point: the first or the second half of a row of 64, or all of a row of 32.
            unsafe { quarter.two_by_two() };
            // The second half, or the end of the first row, which is not used.
            quarter.right = quarter.right.wrapping_add(32);
            quarter.sums = quarter.sums.wrapping_add(32);
        }
    }
}

/// Four tiles of sums that are computed at a time.
struct Quarters {
    left: *const Pair,
    right: *const Pair,
    sums: *mut f32,
    /// Tiles of the depth.
    steps: usize,
    /// Columns of the panel, and of the sums.
    columns: usize,
}

impl Quarters {
    /// `[32, depth] · [depth, 32]`. All of it is one `asm!` block, so that the compiler knows which
    /// tile registers it changes and none has to keep anything between blocks.
    ///
    /// # Safety
    /// Tiles are configured on this thread. `left` holds `2 · steps` tiles, `right` `16 · steps` rows
    /// of `columns`, of which 32 are read, and `sums` 32 rows of `columns`, of which 32 are written.
    unsafe fn two_by_two(&self) {
        // SAFETY: each step reads a tile of 1 KiB at `upper` and at `lower`, and two of 16 rows,
        // `stride` bytes apart, at `right`; the caller's lengths hold `steps` of these. The stores write 16 rows
        // of 64 bytes at four places, `stride` apart, all within the 32 rows of sums. Every register
        // that changes is declared.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm6, [{right} + {stride}*1]",
                "tileloadd tmm4, [{upper} + {line}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{right} + {stride}*1 + 64]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{lower} + {line}*1]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {upper}, 1024",
                "add {lower}, 1024",
                "add {right}, {step}",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{sums} + {stride}*1], tmm0",
                "tilestored [{sums} + {stride}*1 + 64], tmm1",
                "add {sums}, {step}",
                "tilestored [{sums} + {stride}*1], tmm2",
                "tilestored [{sums} + {stride}*1 + 64], tmm3",
                upper = inout(reg) self.left => _,
                lower = inout(reg) self.left.add(self.steps * TILE_PAIRS) => _,
                right = inout(reg) self.right => _,
                steps = inout(reg) self.steps => _,
                sums = inout(reg) self.sums => _,
                line = in(reg) 64_usize,
                stride = in(reg) self.columns * size_of::<Pair>(),
                step = in(reg) self.columns * size_of::<Pair>() * TILE,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }

    /// `[16, depth] · [depth, 64]`.
    ///
    /// # Safety
    /// Tiles are configured on this thread, and `columns` is 64. `left` holds `steps` tiles, `right`
    /// `16 · steps` rows of 64, and `sums` 16 rows of 64.
    unsafe fn one_by_four(&self) {
        // SAFETY: each step reads a tile of 1 KiB at `left`, and four of 16 rows, 256 bytes apart, at
        // `right`, which are 16 of its rows; the caller's lengths hold `steps` of these. The stores
        // write 16 rows of 64 numbers. Every register that changes is declared.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{left} + {line}*1]",
                "tileloadd tmm5, [{right} + {stride}*1]",
                "tdpbf16ps tmm0, tmm4, tmm5",
                "tileloadd tmm6, [{right} + {stride}*1 + 64]",
                "tdpbf16ps tmm1, tmm4, tmm6",
                "tileloadd tmm7, [{right} + {stride}*1 + 128]",
                "tdpbf16ps tmm2, tmm4, tmm7",
                "tileloadd tmm5, [{right} + {stride}*1 + 192]",
                "tdpbf16ps tmm3, tmm4, tmm5",
                "add {left}, 1024",
                "add {right}, 4096",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{sums} + {stride}*1], tmm0",
                "tilestored [{sums} + {stride}*1 + 64], tmm1",
                "tilestored [{sums} + {stride}*1 + 128], tmm2",
                "tilestored [{sums} + {stride}*1 + 192], tmm3",
                left = inout(reg) self.left => _,
                right = inout(reg) self.right => _,
                steps = inout(reg) self.steps => _,
                sums = in(reg) self.sums,
                line = in(reg) 64_usize,
                stride = in(reg) 256_usize,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}
