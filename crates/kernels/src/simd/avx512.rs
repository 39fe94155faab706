//! 16 lanes: AVX-512 F, BW, DQ, VL.

use super::{Integers, Simd};
use std::arch::x86_64::*;

/// Proof that the processor has AVX-512, and with `VNNI` its dot products of 16-bit pairs too.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const VNNI: bool = false>(());

impl<const VNNI: bool> Avx512<VNNI> {
    /// # Safety
    /// The processor has AVX-512 F, BW, DQ and VL, and VNNI where the type says so.
    #[inline(always)]
    pub(crate) unsafe fn new() -> Self {
        Self(())
    }
}

/// The first n of 16 lanes.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

/// [`Integers::dot`] as the one instruction that it is: from the intrinsic the compiler makes a product and a sum where it thinks that
/// the latency counts, and they cost twice.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot(a: __m512i, b: __m512i, mut sum: __m512i) -> __m512i {
    // SAFETY: only registers.
    unsafe {
        std::arch::asm!(
            "vpdpwssd {sum}, {a}, {b}",
            sum = inout(zmm_reg) sum, a = in(zmm_reg) a, b = in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

// SAFETY of every block below: the token proves that the instructions exist; pointers are the caller's promise.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const VNNI: bool> Simd for Avx512<VNNI> {
    const LANES: usize = 16;
    const TILE: (usize, usize) = (8, 3);
    type V = __m512;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m512) {
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> __m512 {
        unsafe { _mm512_maskz_loadu_ps(first(n), p) }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, v: __m512, n: usize) {
        unsafe { _mm512_mask_storeu_ps(p, first(n), v) }
    }
    #[inline(always)]
    fn select_first(self, n: usize, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mask_blend_ps(first(n.min(16)), b, a) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn neg_mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fnmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn where_positive(self, x: __m512, a: __m512) -> __m512 {
        unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, _mm512_setzero_ps()), a) }
    }
    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        unsafe { _mm512_sqrt_ps(a) }
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    fn scale(self, p: __m512, n: __m512) -> __m512 {
        unsafe { _mm512_scalef_ps(p, n) }
    }
    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        unsafe {
            let b = _mm512_add_ps(a, _mm512_shuffle_f32x4::<0b01_00_11_10>(a, a));
            let c = _mm512_add_ps(b, _mm512_shuffle_f32x4::<0b10_11_00_01>(b, b));
            let d = _mm512_castps512_ps128(c);
            let e = _mm_add_ps(d, _mm_movehl_ps(d, d));
            _mm_cvtss_f32(_mm_add_ss(e, _mm_movehdup_ps(e)))
        }
    }
    #[inline(always)]
    fn largest(self, a: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(a) }
    }
    #[inline(always)]
    unsafe fn transpose8(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        unsafe { super::avx2::transpose8(from, from_stride, to, to_stride) }
    }
}

// SAFETY of every block below: the token proves that the instructions exist; pointers are the caller's promise.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const VNNI: bool> Integers for Avx512<VNNI> {
    const PAIR_TILE: (usize, usize) = (7, 2);
    type I = __m512i;

    #[inline(always)]
    fn repeat(self, x: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn load_integers(self, p: *const i32) -> __m512i {
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store_integers(self, p: *mut i32, v: __m512i) {
        unsafe { _mm512_storeu_si512(p.cast(), v) }
    }
    #[inline(always)]
    fn dot(self, a: __m512i, b: __m512i, sum: __m512i) -> __m512i {
        unsafe { if VNNI { dot(a, b, sum) } else { _mm512_add_epi32(sum, _mm512_madd_epi16(a, b)) } }
    }
    #[inline(always)]
    fn convert(self, a: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    fn magnitude(self, largest: __m512i, x: __m512) -> __m512i {
        unsafe {
            _mm512_max_epi32(largest, _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(i32::MAX)))
        }
    }
    #[inline(always)]
    fn largest_integer(self, a: __m512i) -> i32 {
        unsafe { _mm512_reduce_max_epi32(a) }
    }
    #[inline(always)]
    fn interleave(self, low: __m512, high: __m512) -> __m512i {
        unsafe {
            let high = _mm512_slli_epi32::<16>(_mm512_cvtps_epi32(high));
            _mm512_mask_blend_epi16(0xAAAA_AAAA, _mm512_cvtps_epi32(low), high)
        }
    }
    #[inline(always)]
    unsafe fn store_rounded(self, p: *mut i32, a: __m512, b: __m512) {
        /// The low half of every lane of two vectors.
        static LOW: [u16; 32] = {
            let mut low = [0; 32];
            let mut i = 0;
            while i < 32 {
                low[i] = 2 * i as u16;
                i += 1;
            }
            low
        };
        unsafe {
            let low = _mm512_loadu_si512(LOW.as_ptr().cast());
            let words = _mm512_permutex2var_epi16(_mm512_cvtps_epi32(a), low, _mm512_cvtps_epi32(b));
            self.store_integers(p, words);
        }
    }
}
