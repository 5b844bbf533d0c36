//! Registers of AVX-512.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::super::matrix::Element;
use super::{Lanes, Load, Pairs};

/// Sixteen numbers. Stands for AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy)]
pub(in super::super) struct Avx512(pub(in super::super) __m512);

impl Lanes for Avx512 {
    const WIDTH: usize = 16;
    // 24 sums, 6 activations and 1 weight of the 32 registers.
    const TILE_ROWS: usize = 6;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has AVX-512.
        Self(unsafe { _mm512_setzero_ps() })
    }

    #[inline(always)]
    unsafe fn splat(number: f32) -> Self {
        // SAFETY: the caller has AVX-512.
        Self(unsafe { _mm512_set1_ps(number) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller has AVX-512 and may write 16 numbers.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn fused(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller has AVX-512.
        Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
    }

    #[inline(always)]
    unsafe fn sum4([a, b, c, d]: [Self; 4]) -> [f32; 4] {
        // SAFETY: the caller has AVX-512.
        unsafe {
            let ab = add_halves(a.0, b.0);
            let cd = add_halves(c.0, d.0);
            // Each quarter of `quarters` belongs to one of a, b, c, d.
            let even = _mm512_shuffle_f32x4::<0b10_00_10_00>(ab, cd);
            let odd = _mm512_shuffle_f32x4::<0b11_01_11_01>(ab, cd);
            let quarters = _mm512_add_ps(even, odd);
            let pairs = _mm512_add_ps(quarters, _mm512_permute_ps::<0b01_00_11_10>(quarters));
            let sums = _mm512_add_ps(pairs, _mm512_permute_ps::<0b10_11_00_01>(pairs));
            let first_of_quarters =
                _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
            let sums = _mm512_permutexvar_ps(first_of_quarters, sums);
            let mut out = [0.0; 4];
            _mm_storeu_ps(out.as_mut_ptr(), _mm512_castps512_ps128(sums));
            out
        }
    }
}

/// The lower half plus the upper half of each: `a` below, `b` above.
#[inline(always)]
unsafe fn add_halves(a: __m512, b: __m512) -> __m512 {
    // SAFETY: the caller has AVX-512.
    unsafe {
        let lower = _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b);
        let upper = _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b);
        _mm512_add_ps(lower, upper)
    }
}

impl<E: Load512> Load<E> for Avx512 {
    #[inline(always)]
    unsafe fn load(from: *const E) -> Self {
        // SAFETY: the caller's promises.
        Self(unsafe { E::load(from, !0) })
    }

    #[inline(always)]
    unsafe fn load_partial(from: *const E, count: usize) -> Self {
        // SAFETY: the caller's promises; the mask names the `count` lanes that may be read.
        Self(unsafe { E::load(from, (1 << count) - 1) })
    }
}

impl<E: Load512> Pairs<E> for Avx512 {
    #[inline(always)]
    unsafe fn pair(pair: *const E, _: usize) -> [Self; 2] {
        // SAFETY: the caller's promises.
        let [even, odd] = unsafe { E::pair(pair) };
        [Self(even), Self(odd)]
    }
}

/// Reading and widening the numbers that `mask` selects, zeros elsewhere.
///
/// # Safety
/// AVX-512 F, BW and VL must be available, and the selected numbers readable.
pub(in super::super) trait Load512: Element {
    unsafe fn load(from: *const Self, mask: __mmask16) -> __m512;
    /// 32 numbers, apart by the input they belong to.
    #[inline(always)]
    unsafe fn pair(from: *const Self) -> [__m512; 2] {
        // SAFETY: the caller's promises.
        unsafe { [Self::load(from, !0), Self::load(from.add(16), !0)] }
    }
}

impl Load512 for f32 {
    #[inline(always)]
    unsafe fn load(from: *const Self, mask: __mmask16) -> __m512 {
        // SAFETY: the caller's promises.
        unsafe { _mm512_maskz_loadu_ps(mask, from) }
    }
}

impl Load512 for f16 {
    #[inline(always)]
    unsafe fn load(from: *const Self, mask: __mmask16) -> __m512 {
        // SAFETY: the caller's promises.
        unsafe { _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, from.cast())) }
    }
}

impl Load512 for bf16 {
    #[inline(always)]
    unsafe fn load(from: *const Self, mask: __mmask16) -> __m512 {
        // A bf16 number is the upper half of the same f32.
        // SAFETY: the caller's promises.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }

    // The two inputs of a pair lie side by side: the odd one is an f32 once the even one is cleared.
    #[inline(always)]
    unsafe fn pair(from: *const Self) -> [__m512; 2] {
        // SAFETY: the caller's promises.
        unsafe {
            let both = _mm512_loadu_si512(from.cast());
            let odd = _mm512_and_si512(both, _mm512_set1_epi32(0xffff_0000_u32.cast_signed()));
            [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(both)), _mm512_castsi512_ps(odd)]
        }
    }
}
