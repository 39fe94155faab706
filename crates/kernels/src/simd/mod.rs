//! Vectors of f32, one type per instruction set.
//!
//! Every kernel is written once, generic over [`Simd`], always inlined into one entry point per instruction
//! set that carries the `target_feature` attribute (see `isa.rs`). That way the compiler allocates registers
//! for exactly one instruction set, and one generic binary holds them all.
//!
//! Another processor family is one more file here: a type with these few operations.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use portable::Portable;

/// Operations on vectors of [`Simd::LANES`] f32.
///
/// A value of a type that implements this is a proof that the processor has the instructions, so the
/// arithmetic is safe to call; only memory access is not.
pub(crate) trait Simd: Copy + Send + Sync {
    /// Numbers in a vector; at most 16.
    const LANES: usize;
    /// Rows (8, 6 or 4) and vectors (3 or 2) of the micro-tile of `gemm.rs`: as many sums as the registers hold beside the operands.
    const TILE: (usize, usize);
    /// The vector.
    type V: Copy;

    fn splat(self, x: f32) -> Self::V;
    /// # Safety
    /// `p` is valid for reading LANES numbers.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// # Safety
    /// `p` is valid for writing LANES numbers.
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// The first `n` < LANES numbers, zeros after them.
    /// # Safety
    /// `p` is valid for reading `n` numbers.
    unsafe fn load_first(self, p: *const f32, n: usize) -> Self::V;
    /// # Safety
    /// `p` is valid for writing `n` numbers.
    unsafe fn store_first(self, p: *mut f32, v: Self::V, n: usize);
    /// The lanes before `n` from `a`, the others from `b`; all from `a` if n >= LANES.
    fn select_first(self, n: usize, a: Self::V, b: Self::V) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// a * b + c, rounded once where the processor has it.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// c - a * b.
    fn neg_mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// a > b ? a : b, lane by lane: `b` where either is not a number.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// a < b ? a : b: `b` where either is not a number.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// x > 0 ? a : 0, lane by lane: 0 where x is not a number.
    fn where_positive(self, x: Self::V, a: Self::V) -> Self::V;
    fn sqrt(self, a: Self::V) -> Self::V;
    /// To the nearest integer, ties to even, |a| < 2^22.
    fn round(self, a: Self::V) -> Self::V;
    /// p * 2^n for integers n in -126 ..= 127 held as f32.
    fn scale(self, p: Self::V, n: Self::V) -> Self::V;
    /// The sum of all lanes, always added in the same order.
    fn sum(self, a: Self::V) -> f32;
    /// The largest lane.
    fn largest(self, a: Self::V) -> f32;

    /// Transposes 8 rows of 8 numbers, `from_stride` apart, to rows `to_stride` apart.
    /// # Safety
    /// `from` is valid for reading, `to` for writing eight such rows.
    #[inline(always)]
    unsafe fn transpose8(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        for i in 0..8 {
            for j in 0..8 {
                // SAFETY: the caller's promise.
                unsafe { *to.add(j * to_stride + i) = *from.add(i * from_stride + j) };
            }
        }
    }

    /// Asks for the cache line at `p`, which may lie anywhere, into the second-level cache (the first is too small for what comes
    /// next): a hint that reads nothing and never faults.
    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: prefetches are valid for every address.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(p.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = p;
    }

    /// e^x to about 1.5 units in the last place for x in -87.3 ..= 88; smaller gives e^-87.3, larger e^88; not a
    /// number stays so. Cody and Waite's reduction to |r| <= ln(2)/2, then the Taylor polynomial of degree 7.
    #[inline(always)]
    fn exp(self, x: Self::V) -> Self::V {
        let s = self;
        // The operand order keeps a NaN in x.
        let x = s.min(s.splat(88.0), s.max(s.splat(-87.3), x));
        let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
        let r = s.neg_mul_add(n, s.splat(0.693_359_4), x);
        let r = s.neg_mul_add(n, s.splat(-2.121_944_4e-4), r);
        let mut p = s.splat(1.0 / 5040.0);
        for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = s.mul_add(p, r, s.splat(c));
        }
        s.scale(p, n)
    }

    /// Loads up to LANES of the `n` numbers at `p`: all of them, or the first `n`.
    /// # Safety
    /// `p` is valid for reading min(n, LANES) numbers.
    #[inline(always)]
    unsafe fn load_upto(self, p: *const f32, n: usize) -> Self::V {
        // SAFETY: the caller's promise, in both branches.
        unsafe { if n >= Self::LANES { self.load(p) } else { self.load_first(p, n) } }
    }

    /// Stores up to LANES numbers, the first `n` if there are fewer.
    /// # Safety
    /// `p` is valid for writing min(n, LANES) numbers.
    #[inline(always)]
    unsafe fn store_upto(self, p: *mut f32, v: Self::V, n: usize) {
        // SAFETY: the caller's promise, in both branches.
        unsafe { if n >= Self::LANES { self.store(p, v) } else { self.store_first(p, v, n) } }
    }
}

/// Operations on vectors of [`Simd::LANES`] 32-bit integers, and on pairs of 16-bit integers in each: what `half.rs` needs.
///
/// Every one gives the same bits on every instruction set, for finite numbers.
pub(crate) trait Integers: Simd {
    /// [`Simd::TILE`] of products in half precision, which have two sums for each element: of the chunk, and of those before it.
    const PAIR_TILE: (usize, usize);
    /// The vector.
    type I: Copy;

    fn repeat(self, x: i32) -> Self::I;
    /// # Safety
    /// `p` is valid for reading LANES numbers.
    unsafe fn load_integers(self, p: *const i32) -> Self::I;
    /// # Safety
    /// `p` is valid for writing LANES numbers.
    unsafe fn store_integers(self, p: *mut i32, v: Self::I);
    /// sum + a.low b.low + a.high b.high in each lane, where low and high are the signed 16-bit halves; wraps around.
    fn dot(self, a: Self::I, b: Self::I, sum: Self::I) -> Self::I;
    /// To the nearest f32, ties to even.
    fn convert(self, a: Self::I) -> Self::V;
    /// a * b + c, rounded once everywhere.
    #[inline(always)]
    fn fused(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        self.mul_add(a, b, c)
    }
    /// The larger of `largest` and the bits of |x|, lane by lane: infinity is above every number, and what is not a number above
    /// infinity.
    fn magnitude(self, largest: Self::I, x: Self::V) -> Self::I;
    /// The largest lane of non-negative numbers.
    fn largest_integer(self, a: Self::I) -> i32;
    /// Both to the nearest integers, ties to even, of 16 bits: `low` in the low halves, `high` in the high halves.
    fn interleave(self, low: Self::V, high: Self::V) -> Self::I;
    /// The numbers of `a`, then those of `b`, as [`Integers::interleave`] rounds them, one behind the other.
    /// # Safety
    /// `p` is valid for writing LANES numbers of 32 bits.
    unsafe fn store_rounded(self, p: *mut i32, a: Self::V, b: Self::V);
}
