//! The matrix units of x86-64 (AMX): whether they may be used, and the tile programs that kernels run.
//!
//! A tile register holds 16 rows of 64 bytes. The standard library does not offer these instructions
//! yet, so each program is one block of assembly. Registers 0 to 3 hold sums, 4 and 5 activations, 6
//! and 7 weights.

use std::arch::asm;
use std::sync::OnceLock;

/// Rows of a tile, and columns of a tile of sums.
pub(super) const TILE: usize = 16;
/// Bytes of a full tile.
pub(super) const TILE_BYTES: usize = 1024;
/// Sums of a full tile, row by row.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Sums<T>(pub [[T; TILE]; TILE]);

impl<T: Copy + Default> Default for Sums<T> {
    fn default() -> Self {
        Self([[T::default(); TILE]; TILE])
    }
}

/// Whether the processor has matrix units for bf16 and bytes and the system lets us use them.
pub(super) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        /// AMX-BF16, AMX-TILE and AMX-INT8 in leaf 7.
        const FEATURES: u32 = 1 << 22 | 1 << 24 | 1 << 25;
        let leaf = std::arch::x86_64::__cpuid_count(7, 0).edx;
        leaf & FEATURES == FEATURES && request_permission()
    })
}

/// Asks the kernel for the large register state, which it gives only to processes that want it.
#[cfg(target_os = "linux")]
fn request_permission() -> bool {
    const ARCH_PRCTL: usize = 158;
    const REQUEST_PERMISSION: usize = 0x1023;
    const TILE_DATA: usize = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: the call changes no memory; it fails where the kernel does not know it.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") result,
            in("rdi") REQUEST_PERMISSION,
            in("rsi") TILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn request_permission() -> bool {
    false
}

/// The shapes of this thread's tile registers, until dropped.
pub(super) struct Config(());

#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Config {
    /// Tiles of sums with `rows` rows, of activations `rows` x `depth` bytes, of weights `depth / 4` x 64
    /// bytes.
    ///
    /// # Safety
    /// [`is_available`] must be true, and no other configuration of this thread alive.
    pub unsafe fn new(rows: usize, depth: usize) -> Self {
        debug_assert!((1..=TILE).contains(&rows) && depth <= 64 && depth.is_multiple_of(4));
        let mut shapes = Shapes {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        for register in 0..8 {
            let (height, width) = match register {
                0..4 => (rows, 64),
                4..6 => (rows, depth),
                _ => (depth / 4, 64),
            };
            shapes.rows[register] = height as u8;
            shapes.row_bytes[register] = width as u16;
        }
        // SAFETY: the shapes are valid ones; the caller's promise.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack, preserves_flags));
        }
        Self(())
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        // SAFETY: whoever made this value had the instructions.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) }
    }
}

/// One block of activations with four panels of bf16 weights: `sums[p]` are the products of `steps`
/// tiles of `a` with as many of `panels[p]`, all one after the other in memory. Reads ahead.
///
/// # Safety
/// A [`Config`] of depth 64 must be alive, and all tiles readable.
#[inline(always)]
pub(super) unsafe fn bf16_1x4(
    a: *const u8,
    row_bytes: usize,
    panels: [*const u8; 4],
    steps: usize,
    sums: &mut [Sums<f32>; 4],
) {
    // SAFETY: reads the tiles named, writes `sums`; what is prefetched need not be readable.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            ".irp ahead, 4096,4160,4224,4288,4352,4416,4480,4544,4608,4672,4736,4800,4864,4928,4992,5056",
            "prefetcht0 [{b0} + \\ahead]",
            "prefetcht0 [{b1} + \\ahead]",
            "prefetcht0 [{b2} + \\ahead]",
            "prefetcht0 [{b3} + \\ahead]",
            ".endr",
            "tileloadd tmm4, [{a} + {arow}*1]",
            "tileloadd tmm6, [{b0} + {row}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b1} + {row}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm6, [{b2} + {row}*1]",
            "tdpbf16ps tmm2, tmm4, tmm6",
            "tileloadd tmm7, [{b3} + {row}*1]",
            "tdpbf16ps tmm3, tmm4, tmm7",
            "add {a}, 1024",
            "add {b0}, 1024",
            "add {b1}, 1024",
            "add {b2}, 1024",
            "add {b3}, 1024",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {row}*1], tmm0",
            "tilestored [{sums} + {row}*1 + 1024], tmm1",
            "tilestored [{sums} + {row}*1 + 2048], tmm2",
            "tilestored [{sums} + {row}*1 + 3072], tmm3",
            a = inout(reg) a => _,
            b0 = inout(reg) panels[0] => _,
            b1 = inout(reg) panels[1] => _,
            b2 = inout(reg) panels[2] => _,
            b3 = inout(reg) panels[3] => _,
            steps = inout(reg) steps => _,
            sums = in(reg) sums.as_mut_ptr(),
            arow = in(reg) row_bytes,
            row = in(reg) 64_usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Bytes that [`bf16_2x2`] fetches with each step.
pub(super) const FETCH_BYTES: usize = 256;

/// Two blocks of activations with two panels of bf16 weights: a0·b0, a0·b1, a1·b0, a1·b1 go to `sums`, added to
/// what was there unless `is_first`. Starts to bring nearer as many times [`FETCH_BYTES`] from `next` on as there
/// are steps.
///
/// # Safety
/// A [`Config`] of 16 rows and depth 64 must be alive, and `steps` tiles of each readable.
#[inline(always)]
pub(super) unsafe fn bf16_2x2(
    a: [*const u8; 2],
    panels: [*const u8; 2],
    steps: usize,
    next: *const u8,
    is_first: bool,
    sums: &mut [Sums<f32>; 4],
) {
    // SAFETY: reads the tiles named, reads and writes `sums`; what is fetched need not be readable.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "test {is_first:e}, {is_first:e}",
            "jnz 2f",
            "tileloadd tmm0, [{sums} + {row}*1]",
            "tileloadd tmm1, [{sums} + {row}*1 + 1024]",
            "tileloadd tmm2, [{sums} + {row}*1 + 2048]",
            "tileloadd tmm3, [{sums} + {row}*1 + 3072]",
            "2:",
            "prefetcht1 [{next}]",
            "prefetcht1 [{next} + 64]",
            "tileloadd tmm6, [{b0} + {row}*1]",
            "tileloadd tmm4, [{a0} + {row}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a1} + {row}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "prefetcht1 [{next} + 128]",
            "prefetcht1 [{next} + 192]",
            "tileloadd tmm7, [{b1} + {row}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {next}, {fetched}",
            "add {a0}, 1024",
            "add {a1}, 1024",
            "add {b0}, 1024",
            "add {b1}, 1024",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {row}*1], tmm0",
            "tilestored [{sums} + {row}*1 + 1024], tmm1",
            "tilestored [{sums} + {row}*1 + 2048], tmm2",
            "tilestored [{sums} + {row}*1 + 3072], tmm3",
            a0 = inout(reg) a[0] => _,
            a1 = inout(reg) a[1] => _,
            b0 = inout(reg) panels[0] => _,
            b1 = inout(reg) panels[1] => _,
            steps = inout(reg) steps => _,
            next = inout(reg) next => _,
            fetched = const FETCH_BYTES,
            is_first = in(reg) u32::from(is_first),
            sums = in(reg) sums.as_mut_ptr(),
            row = in(reg) 64_usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Makes register `SUM`, 0 to 3, the product of a tile of signed bytes with another, each `depth` inputs deep
/// and one piece of memory.
///
/// The compiler never uses tile registers of its own accord: [`store`] finds there what this left.
///
/// # Safety
/// A [`Config`] of that depth must be alive, and both tiles readable.
#[inline(always)]
pub(super) unsafe fn multiply_bytes<const SUM: usize>(
    (a, b): (*const u8, *const u8),
    depth: usize,
) {
    const { assert!(SUM < 4) };
    // SAFETY: reads the tiles named.
    unsafe {
        asm!(
            "tilezero tmm{sum}",
            "tileloadd tmm{left}, [{a} + {depth}*1]",
            "tileloadd tmm{right}, [{b} + {row}*1]",
            "tdpbssd tmm{sum}, tmm{left}, tmm{right}",
            sum = const SUM,
            left = const 4 + SUM % 2,
            right = const 6 + SUM % 2,
            a = in(reg) a,
            b = in(reg) b,
            depth = in(reg) depth,
            row = in(reg) 64_usize,
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// Writes register `SUM`.
///
/// # Safety
/// A [`Config`] must be alive.
#[inline(always)]
pub(super) unsafe fn store<const SUM: usize>(sums: &mut Sums<i32>) {
    const { assert!(SUM < 4) };
    // SAFETY: writes `sums`.
    unsafe {
        asm!(
            "tilestored [{sums} + {row}*1], tmm{sum}",
            sum = const SUM,
            sums = in(reg) sums,
            row = in(reg) 64_usize,
            options(nostack, preserves_flags),
        );
    }
}
