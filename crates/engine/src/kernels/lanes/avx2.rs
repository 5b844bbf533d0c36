//! Registers of AVX2, FMA and F16C.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::super::matrix::Element;
use super::{Lanes, Load, Pairs};

/// Eight numbers. Stands for AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(in super::super) struct Avx2(__m256);

impl Lanes for Avx2 {
    const WIDTH: usize = 8;
    // 12 sums leave 4 of the 16 registers.
    const TILE_ROWS: usize = 3;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has AVX2.
        Self(unsafe { _mm256_setzero_ps() })
    }

    #[inline(always)]
    unsafe fn splat(number: f32) -> Self {
        // SAFETY: the caller has AVX2.
        Self(unsafe { _mm256_set1_ps(number) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller has AVX2 and may write 8 numbers.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn fused(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller has FMA.
        Self(unsafe { _mm256_fmadd_ps(a.0, b.0, self.0) })
    }
}

impl<E: Load256> Load<E> for Avx2 {
    #[inline(always)]
    unsafe fn load(from: *const E) -> Self {
        // SAFETY: the caller's promises.
        Self(unsafe { E::load(from) })
    }
}

impl<E: Load256> Pairs<E> for Avx2 {
    #[inline(always)]
    unsafe fn pair(pair: *const E, part: usize) -> [Self; 2] {
        // SAFETY: the caller's promises.
        let [even, odd] = unsafe { E::pair(pair, part) };
        [Self(even), Self(odd)]
    }
}

/// Reading and widening eight numbers.
///
/// # Safety
/// AVX2 and F16C must be available, and eight numbers readable.
pub(in super::super) trait Load256: Element + Default {
    unsafe fn load(from: *const Self) -> __m256;
    /// Half of 32 numbers, apart by the input they belong to.
    #[inline(always)]
    unsafe fn pair(from: *const Self, part: usize) -> [__m256; 2] {
        // SAFETY: the caller's promises.
        unsafe { [Self::load(from.add(8 * part)), Self::load(from.add(16 + 8 * part))] }
    }
}

impl Load256 for f32 {
    #[inline(always)]
    unsafe fn load(from: *const Self) -> __m256 {
        // SAFETY: the caller's promises.
        unsafe { _mm256_loadu_ps(from) }
    }
}

impl Load256 for f16 {
    #[inline(always)]
    unsafe fn load(from: *const Self) -> __m256 {
        // SAFETY: the caller's promises.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }
}

impl Load256 for bf16 {
    #[inline(always)]
    unsafe fn load(from: *const Self) -> __m256 {
        // A bf16 number is the upper half of the same f32.
        // SAFETY: the caller's promises.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }

    // The two inputs of a pair lie side by side: the odd one is an f32 once the even one is cleared.
    #[inline(always)]
    unsafe fn pair(from: *const Self, part: usize) -> [__m256; 2] {
        // SAFETY: the caller's promises.
        unsafe {
            let both = _mm256_loadu_si256(from.add(16 * part).cast());
            let odd = _mm256_and_si256(both, _mm256_set1_epi32(0xffff_0000_u32.cast_signed()));
            [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(both)), _mm256_castsi256_ps(odd)]
        }
    }
}
