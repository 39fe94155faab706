//! 4 lanes by the crate `wide`, for processors that have no file of their own: SSE2, NEON, WebAssembly or plain numbers,
//! as the target has it. Multiply and add are rounded separately where the target promises no fused operation.

use super::{Integers, Simd};
use wide::f32x4;

/// Needs nothing.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Simd for Portable {
    const LANES: usize = 4;
    const TILE: (usize, usize) = (4, 3);
    type V = f32x4;

    #[inline(always)]
    fn splat(self, x: f32) -> f32x4 {
        f32x4::splat(x)
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> f32x4 {
        // SAFETY: the caller's promise; an array of f32 may be read unaligned.
        f32x4::new(unsafe { p.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: f32x4) {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(v.to_array()) }
    }
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> f32x4 {
        let mut v = [0.0; 4];
        for (i, x) in v.iter_mut().enumerate().take(n) {
            // SAFETY: i < n, the caller's promise.
            *x = unsafe { *p.add(i) };
        }
        f32x4::new(v)
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, v: f32x4, n: usize) {
        for (i, x) in v.to_array().iter().enumerate().take(n) {
            // SAFETY: i < n, the caller's promise.
            unsafe { *p.add(i) = *x };
        }
    }
    #[inline(always)]
    fn select_first(self, n: usize, a: f32x4, b: f32x4) -> f32x4 {
        f32x4::new([0.0, 1.0, 2.0, 3.0]).simd_lt(f32x4::splat(n as f32)).bitselect(a, b)
    }
    #[inline(always)]
    fn add(self, a: f32x4, b: f32x4) -> f32x4 {
        a + b
    }
    #[inline(always)]
    fn sub(self, a: f32x4, b: f32x4) -> f32x4 {
        a - b
    }
    #[inline(always)]
    fn mul(self, a: f32x4, b: f32x4) -> f32x4 {
        a * b
    }
    #[inline(always)]
    fn div(self, a: f32x4, b: f32x4) -> f32x4 {
        a / b
    }
    #[inline(always)]
    fn mul_add(self, a: f32x4, b: f32x4, c: f32x4) -> f32x4 {
        a.mul_add(b, c)
    }
    #[inline(always)]
    fn neg_mul_add(self, a: f32x4, b: f32x4, c: f32x4) -> f32x4 {
        a.mul_neg_add(b, c)
    }
    #[inline(always)]
    fn max(self, a: f32x4, b: f32x4) -> f32x4 {
        a.simd_gt(b).bitselect(a, b)
    }
    #[inline(always)]
    fn min(self, a: f32x4, b: f32x4) -> f32x4 {
        a.simd_lt(b).bitselect(a, b)
    }
    #[inline(always)]
    fn where_positive(self, x: f32x4, a: f32x4) -> f32x4 {
        x.simd_gt(f32x4::splat(0.0)).bitselect(a, f32x4::splat(0.0))
    }
    #[inline(always)]
    fn sqrt(self, a: f32x4) -> f32x4 {
        a.sqrt()
    }
    #[inline(always)]
    fn round(self, a: f32x4) -> f32x4 {
        // Adding 1.5 * 2^23 pushes the fraction out of the significand; a NaN passes through.
        let shift = f32x4::splat(12_582_912.0);
        (a + shift) - shift
    }
    #[inline(always)]
    fn scale(self, p: f32x4, n: f32x4) -> f32x4 {
        // A NaN converts to some power and is kept by p.
        p * f32x4::new(n.to_array().map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23)))
    }
    #[inline(always)]
    fn sum(self, a: f32x4) -> f32 {
        let a = a.to_array();
        (a[0] + a[2]) + (a[1] + a[3])
    }
    #[inline(always)]
    fn largest(self, a: f32x4) -> f32 {
        let m = |a: f32, b: f32| if a > b { a } else { b };
        let a = a.to_array();
        m(m(a[0], a[1]), m(a[2], a[3]))
    }
}

/// The low and the high half.
#[inline(always)]
fn halves(pair: i32) -> (i32, i32) {
    (i32::from(pair as i16), pair >> 16)
}

#[inline(always)]
fn pair(low: f32, high: f32) -> i32 {
    (low as i32 & 0xFFFF) | (high as i32) << 16
}

impl Integers for Portable {
    const PAIR_TILE: (usize, usize) = Self::TILE;
    type I = [i32; 4];

    #[inline(always)]
    fn repeat(self, x: i32) -> [i32; 4] {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn load_integers(self, p: *const i32) -> [i32; 4] {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[i32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_integers(self, p: *mut i32, v: [i32; 4]) {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[i32; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    fn dot(self, a: [i32; 4], b: [i32; 4], sum: [i32; 4]) -> [i32; 4] {
        std::array::from_fn(|i| {
            let ((a0, a1), (b0, b1)) = (halves(a[i]), halves(b[i]));
            // Two products of 16-bit numbers overflow together only where both are -2^15 squared.
            sum[i].wrapping_add((a0 * b0).wrapping_add(a1 * b1))
        })
    }
    #[inline(always)]
    fn convert(self, a: [i32; 4]) -> f32x4 {
        f32x4::new(a.map(|a| a as f32))
    }
    #[inline(always)]
    fn fused(self, a: f32x4, b: f32x4, c: f32x4) -> f32x4 {
        let (a, b, c) = (a.to_array(), b.to_array(), c.to_array());
        f32x4::new(std::array::from_fn(|i| a[i].mul_add(b[i], c[i])))
    }
    #[inline(always)]
    fn magnitude(self, largest: [i32; 4], x: f32x4) -> [i32; 4] {
        let x = x.to_array();
        std::array::from_fn(|i| largest[i].max((x[i].to_bits() & 0x7FFF_FFFF) as i32))
    }
    #[inline(always)]
    fn largest_integer(self, a: [i32; 4]) -> i32 {
        a[0].max(a[1]).max(a[2].max(a[3]))
    }
    #[inline(always)]
    fn interleave(self, low: f32x4, high: f32x4) -> [i32; 4] {
        let (low, high) = (self.round(low).to_array(), self.round(high).to_array());
        std::array::from_fn(|i| pair(low[i], high[i]))
    }
    #[inline(always)]
    unsafe fn store_rounded(self, p: *mut i32, a: f32x4, b: f32x4) {
        let (a, b) = (self.round(a).to_array(), self.round(b).to_array());
        let pairs = [pair(a[0], a[1]), pair(a[2], a[3]), pair(b[0], b[1]), pair(b[2], b[3])];
        // SAFETY: the caller's promise.
        unsafe { self.store_integers(p, pairs) }
    }
}
