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
    // 24 sums, 4 of what is read and 1 spread number of the 32 registers.
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
}

impl<E: Load512> Load<E> for Avx512 {
    #[inline(always)]
    unsafe fn load(from: *const E) -> Self {
        // SAFETY: the caller's promises.
        Self(unsafe { E::load(from) })
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

/// Reading and widening sixteen numbers.
///
/// # Safety
/// AVX-512 F, BW and VL must be available, and sixteen numbers readable.
pub(in super::super) trait Load512: Element {
    unsafe fn load(from: *const Self) -> __m512;
    /// 32 numbers, apart by the input they belong to.
    #[inline(always)]
    unsafe fn pair(from: *const Self) -> [__m512; 2] {
        // SAFETY: the caller's promises.
        unsafe { [Self::load(from), Self::load(from.add(16))] }
    }
}

impl Load512 for f32 {
    #[inline(always)]
    unsafe fn load(from: *const Self) -> __m512 {
        // SAFETY: the caller's promises.
        unsafe { _mm512_loadu_ps(from) }
    }
}

impl Load512 for f16 {
    #[inline(always)]
    unsafe fn load(from: *const Self) -> __m512 {
        // SAFETY: the caller's promises.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }
}

impl Load512 for bf16 {
    #[inline(always)]
    unsafe fn load(from: *const Self) -> __m512 {
        // A bf16 number is the upper half of the same f32.
        // SAFETY: the caller's promises.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
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
