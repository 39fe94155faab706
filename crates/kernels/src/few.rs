//! Products with few rows: C = A B for the one row of a text that is being written, or for some rows.
//!
//! With many rows a product is bound by arithmetic (`gemm.rs`). With one, every element of B is used once, so what counts is
//! how fast B comes out of the cache that holds it:
//!
//! - **Several panels side by side.** One row against one panel has three sums, and each waits for its own last
//!   result. Four panels make twelve sums for a row, and four streams of memory under way at once, which the
//!   processor foresees by itself: asking for lines ahead brought nothing that could be measured.
//! - **By columns over threads.** A matrix that is large enough to be worth a join is cut between panels, a piece for
//!   each thread: together they read faster than one alone.
//!
//! Every element is one sum in the order of k, as in `gemm.rs`: a row has the same bits alone and among others, whole and
//! in pieces.

use crate::extent;
use crate::gelu::gelu_of;
use crate::gemm::{Init, Left, Lines, Single, panel};
use crate::isa::{Isa, dispatch};
use crate::packed::{Packed, Precision, panels};
use crate::pool::Pool;
use crate::simd::Simd;

/// Panels side by side.
const ABREAST: usize = 4;
/// Bytes of B, at least, for which a thread is worth a join.
const SHARE: usize = 48 << 10;

/// C = A B (+ what `init` says), then with `gelu` C = GELU(C): A [m, k] with row stride `a_stride`, B packed [k, n], C
/// row-major [m, n] with row stride `c_stride`. The threads of a `team` share the columns.
///
/// # Panics
/// When an operand is smaller than its shape: a mistake in the caller, never of a user.
pub fn gemm_few(
    isa: Isa,
    team: Option<&mut Pool>,
    (a, a_stride): (&[f32], usize),
    b: &Packed,
    m: usize,
    init: Init<'_>,
    gelu: bool,
    c: &mut [f32],
    c_stride: usize,
) {
    let (k, n) = b.shape();
    if m == 0 || n == 0 {
        return;
    }
    assert!(a.len() >= extent(m, a_stride, k));
    assert!(c_stride >= n && c.len() >= extent(m, c_stride, n));
    if let Init::Bias(bias) | Init::AccumulateBias(bias) = init {
        assert!(bias.len() >= n);
    }
    let c = c.as_mut_ptr();
    assert_eq!(b.precision(), Precision::F32);
    let product = Product { a, a_stride, b: b.data(isa), m, n, k, init, gelu, c, c_stride };
    let vectors = n.div_ceil(isa.lanes());
    let shares = 4 * k * n / SHARE;
    match team {
        Some(pool) if pool.threads() > 1 && shares > 1 => {
            let pieces = shares.min(pool.threads());
            let panels = || panels(vectors, isa.panel());
            let count = panels().count();
            let edge = |i: usize| panels().nth(i * count / pieces).map_or(vectors, |(first, _)| first);
            pool.run(&|thread| {
                if thread < pieces {
                    // Pieces share no column.
                    columns(isa, product, edge(thread), edge(thread + 1));
                }
            });
        }
        _ => columns(isa, product, 0, vectors),
    }
}

/// A product whose operands were checked: A [m, k], B [k, n], C [m, n] and the bias hold what they must.
#[derive(Clone, Copy)]
struct Product<'a> {
    a: &'a [f32],
    a_stride: usize,
    b: &'a [f32],
    m: usize,
    n: usize,
    k: usize,
    init: Init<'a>,
    gelu: bool,
    c: *mut f32,
    c_stride: usize,
}

// SAFETY: threads work on different columns of C.
unsafe impl Sync for Product<'_> {}

dispatch! {
    /// The columns from vector `first` up to vector `end`, both edges of panels.
    fn columns(product: Product<'_>, first: usize, end: usize) = columns_generic;
}

#[inline(always)]
fn columns_generic<S: Simd>(s: S, product: Product<'_>, first: usize, end: usize) {
    let vectors = product.n.div_ceil(S::LANES);
    let mut at = first;
    while at < end {
        let mut own = panels(vectors, S::TILE.1).filter(|&(v, _)| v >= at && v < end);
        let Some((_, width)) = own.next() else { return };
        // Neighbours of the same width go side by side.
        let count = 1 + own.take(ABREAST - 1).take_while(|&(_, w)| w == width).count();
        // SAFETY: see `Product`; the panels lie inside of 0..n.
        unsafe {
            match width {
                3 => product.panels::<S, 3>(s, at * S::LANES, count),
                2 => product.panels::<S, 2>(s, at * S::LANES, count),
                _ => product.panels::<S, 1>(s, at * S::LANES, count),
            }
        }
        at += count * width;
    }
}

impl Product<'_> {
    /// All rows against `count` panels of V vectors, the first at `column`.
    ///
    /// # Safety
    /// The panels lie inside of B.
    #[inline(always)]
    unsafe fn panels<S: Simd, const V: usize>(&self, s: S, column: usize, count: usize) {
        // As many rows as the tile of `gemm.rs` has are its business.
        let whole = self.m / S::TILE.0 * S::TILE.0;
        // SAFETY: the caller's promise; rows inside of A and C.
        unsafe {
            if whole > 0 {
                for p in 0..count {
                    self.many::<S, V>(s, column + p * V * S::LANES, whole);
                }
            }
            let mut r = whole;
            while r < self.m {
                r += match self.m - r {
                    4.. if S::LANES == 16 => self.rows::<S, 4, 2, V>(s, r, column, count),
                    4.. => self.rows::<S, 4, 1, V>(s, r, column, count),
                    2.. if S::LANES == 16 => self.rows::<S, 2, 4, V>(s, r, column, count),
                    2.. => self.rows::<S, 2, 2, V>(s, r, column, count),
                    _ => self.rows::<S, 1, 4, V>(s, r, column, count),
                };
            }
        }
    }

    /// Rows 0..m against the panel at `column`.
    ///
    /// # Safety
    /// The panel lies inside of B, m rows inside of A and C.
    #[inline(always)]
    unsafe fn many<S: Simd, const V: usize>(&self, s: S, column: usize, m: usize) {
        let valid = self.n - column;
        let init = self.init.from(column, self.n);
        let a = Left::Rows { data: self.a, stride: self.a_stride };
        // SAFETY: the caller's promise.
        unsafe {
            let b = self.b.as_ptr().add(column * self.k);
            let len = V * S::LANES * self.k;
            let lines = if valid > V * S::LANES {
                Lines::all(b.wrapping_add(len), len, self.k)
            } else {
                Lines::Result
            };
            let c = self.c.add(column);
            let operands = Single { a, b, b_stride: V * S::LANES, k: self.k };
            panel(s, V, operands, m, valid, init, c, self.c_stride, lines);
            if self.gelu {
                for r in 0..m {
                    for v in 0..V {
                        let left = valid.saturating_sub(v * S::LANES);
                        let p = c.wrapping_add(r * self.c_stride + v * S::LANES);
                        s.store_upto(p, gelu_of(s, s.load_upto(p, left)), left);
                    }
                }
            }
        }
    }

    /// Rows r .. r + MR against `count` panels, up to P of them side by side; gives MR.
    ///
    /// # Safety
    /// The panels lie inside of B, the rows inside of A and C.
    #[inline(always)]
    unsafe fn rows<S: Simd, const MR: usize, const P: usize, const V: usize>(
        &self,
        s: S,
        r: usize,
        mut column: usize,
        count: usize,
    ) -> usize {
        let mut left = count;
        while left > 0 {
            // SAFETY: the caller's promise.
            let done = unsafe {
                match left {
                    4.. if P >= 4 => self.tile::<S, MR, 4, V>(s, r, column),
                    3 if P >= 4 => self.tile::<S, MR, 3, V>(s, r, column),
                    2.. if P >= 2 => self.tile::<S, MR, 2, V>(s, r, column),
                    _ => self.tile::<S, MR, 1, V>(s, r, column),
                }
            };
            column += done * V * S::LANES;
            left -= done;
        }
        MR
    }

    /// MR rows against P panels, the first at `column`; gives P.
    ///
    /// # Safety
    /// The panels lie inside of B, the rows inside of A and C.
    #[inline(always)]
    unsafe fn tile<S: Simd, const MR: usize, const P: usize, const V: usize>(
        &self,
        s: S,
        r: usize,
        column: usize,
    ) -> usize {
        let columns = V * S::LANES;
        let mut sums = [[[s.splat(0.0); V]; P]; MR];
        // SAFETY: the caller's promise.
        unsafe {
            let mut a = self.a.as_ptr().add(r * self.a_stride);
            let mut b = self.b.as_ptr().add(column * self.k);
            for _ in 0..self.k {
                let mut x = [s.splat(0.0); MR];
                for i in 0..MR {
                    x[i] = s.splat(*a.add(i * self.a_stride));
                }
                for q in 0..P {
                    let row = b.add(q * columns * self.k);
                    for v in 0..V {
                        let w = s.load(row.add(v * S::LANES));
                        for i in 0..MR {
                            sums[i][q][v] = s.mul_add(x[i], w, sums[i][q][v]);
                        }
                    }
                }
                a = a.add(1);
                b = b.add(columns);
            }
            for q in 0..P {
                for v in 0..V {
                    let at = column + q * columns + v * S::LANES;
                    let left = self.n.saturating_sub(at);
                    if left == 0 {
                        continue;
                    }
                    let bias = match self.init {
                        Init::Bias(bias) | Init::AccumulateBias(bias) => {
                            s.load_upto(bias.as_ptr().add(at), left)
                        }
                        _ => s.splat(0.0),
                    };
                    for i in 0..MR {
                        let c = self.c.add((r + i) * self.c_stride + at);
                        let x = sums[i][q][v];
                        let x = match self.init {
                            Init::Zero => x,
                            Init::Accumulate => s.add(s.load_upto(c, left), x),
                            Init::Bias(_) => s.add(x, bias),
                            Init::AccumulateBias(_) => s.add(s.load_upto(c, left), s.add(x, bias)),
                        };
                        s.store_upto(c, if self.gelu { gelu_of(s, x) } else { x }, left);
                    }
                }
            }
        }
        P
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packed::Part;
    use crate::testing::{assert_close, numbers};
    use crate::{Activation, activate, gemm};

    /// The plain reference, in f64.
    fn plain(
        a: &[f32],
        b: &[f32],
        start: &[f32],
        bias: &[f32],
        form: usize,
        m: usize,
        n: usize,
        k: usize,
    ) -> Vec<f64> {
        let wide = |x: f32| f64::from(x);
        (0..m * n)
            .map(|at| {
                let (i, j) = (at / n, at % n);
                let sum: f64 = (0..k).map(|kk| wide(a[i * k + kk]) * wide(b[kk * n + j])).sum();
                match form {
                    0 => sum,
                    1 => wide(start[at]) + sum,
                    2 => sum + wide(bias[j]),
                    _ => wide(start[at]) + sum + wide(bias[j]),
                }
            })
            .collect()
    }

    fn forms(bias: &[f32]) -> [Init<'_>; 4] {
        [Init::Zero, Init::Accumulate, Init::Bias(bias), Init::AccumulateBias(bias)]
    }

    #[test]
    fn every_form_and_awkward_size_on_every_instruction_set() {
        for isa in Isa::available() {
            let mut pools = [Pool::new(1), Pool::new(2), Pool::new(3)];
            for (n, k) in [(1, 1), (27, 40), (48, 7), (64, 33), (200, 19), (300, 264), (17, 0), (592, 130)] {
                for m in [1, 2, 3, 4, 5, 7, 8, 9, 15, 21] {
                    let (a, b) = (numbers(1, m * k), numbers(2, k * n));
                    let (start, bias) = (numbers(3, m * n), numbers(4, n));
                    let mut packed = Packed::new(isa, Precision::F32, k, n);
                    packed.pack(&[Part::new(&b, n, (0, 0), (k, n))]);
                    for (form, init) in forms(&bias).into_iter().enumerate() {
                        let what = format!("{isa} {m} x {n} x {k}, form {form}");
                        let expected = plain(&a, &b, &start, &bias, form, m, n, k);
                        let mut alone = start.clone();
                        gemm_few(isa, None, (&a, k), &packed, m, init, false, &mut alone, n);
                        assert_close(&alone, &expected, 1e-5, &what);
                        // The same bits as the kernel for many rows, in pieces, and followed by GELU.
                        let mut many = start.clone();
                        gemm(isa, (&a, k), &packed, m, init, &mut many, n, &[], &mut []);
                        assert_eq!(alone, many, "{what}");
                        let mut activated = vec![0.0; m * n];
                        activate(isa, Activation::Gelu, &many, m, n, n, &mut activated, n);
                        for pool in &mut pools {
                            let mut team = start.clone();
                            gemm_few(isa, Some(pool), (&a, k), &packed, m, init, true, &mut team, n);
                            assert_eq!(team, activated, "{what}, {} threads", pool.threads());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_among_others() {
        for isa in Isa::available() {
            let (n, k, m) = (147, 90, 11);
            let mut packed = Packed::new(isa, Precision::F32, k, n);
            packed.pack(&[Part::new(&numbers(2, k * n), n, (0, 0), (k, n))]);
            let (a_stride, c_stride) = (k + 3, n + 5);
            let a = numbers(1, m * a_stride);
            let mut all = vec![7.0; m * c_stride];
            gemm_few(isa, None, (&a, a_stride), &packed, m, Init::Zero, false, &mut all, c_stride);
            for r in 0..m {
                let mut one = vec![7.0; c_stride];
                let row = (&a[r * a_stride..], a_stride);
                gemm_few(isa, None, row, &packed, 1, Init::Zero, false, &mut one, c_stride);
                assert_eq!(one, all[r * c_stride..][..c_stride], "{isa} row {r}");
            }
        }
    }
}
