//! Matrix products: C = A B in the three forms that a linear layer needs.
//!
//! **The micro-tile.** MR rows by up to three vectors of C stay in registers for the whole sum over k. With 32
//! vector registers (AVX-512, NEON) MR is 8: 24 accumulators, 3 for a row of B, one for the broadcast element of
//! A. With 16 (AVX2, SSE2) MR is 4. Each step over k loads 3 vectors and MR scalars for 3 MR multiply-adds, so
//! the multipliers, not the load ports, are the limit.
//!
//! **B is packed** into panels of three vectors' width (`[panel][k][3 x LANES]`), so that the inner loop reads it
//! sequentially. Weights change once a step and are multiplied by thousands of rows, so they are packed once a
//! step, in both orientations. Widths that are no multiple of three vectors end in panels of two (a single vector would
//! leave the multipliers waiting for their own results); the last vector is padded with zeros.
//!
//! **A is not packed.** Its elements are broadcast one by one, from rows (`A[r][k]`, activations times weights) or
//! from columns (`A[k][r]`, the weight gradient X^T dY); activations keep a row stride that is an odd number of
//! cache lines ([`padded`]), so that rows never fight for the same cache set.
//!
//! **k is never split** inside of a call: every element of C is one sum in the order of k, the same whatever the tile
//! that computes it. That is what makes results independent of how rows are dealt out to threads.
//!
//! **What comes next is fetched meanwhile.** A product is bound by arithmetic, and what it reads next (the next panel of
//! B, or what the caller names: [`Ahead`]) often lies in main memory. So each step over k asks for one more cache line, and
//! each tile for the lines of C that it will write.
//!
//! Loop order: panels of B outside, row tiles inside: a panel stays in the cache while the rows pass by.

use crate::buffer::Buffer;
use crate::extent;
use crate::isa::{Isa, dispatch};
use crate::simd::Simd;

/// Vectors in a full panel of B.
pub(crate) const NV: usize = 3;

/// Row stride for rows of `n` numbers: an odd number of cache lines, with at least 16 numbers to spare, so that
/// vector loads may run past the end of a row.
pub fn padded(n: usize) -> usize {
    let lines = n.div_ceil(16) + 1;
    (lines | 1) * 16
}

/// The left operand A [m, k].
#[derive(Clone, Copy, Debug)]
pub enum Left<'a> {
    /// A[r][k] at `data[r * stride + k]`.
    Rows {
        /// The numbers.
        data: &'a [f32],
        /// From one row to the next.
        stride: usize,
    },
    /// A[r][k] at `data[k * stride + r]`: the transpose of what is stored.
    Columns {
        /// The numbers.
        data: &'a [f32],
        /// From one k to the next.
        stride: usize,
    },
}

/// What the product is added to.
#[derive(Clone, Copy, Debug)]
pub enum Init<'a> {
    /// C = A B.
    Zero,
    /// C += A B.
    Accumulate,
    /// C = A B + bias, the same for every row; n numbers.
    Bias(&'a [f32]),
    /// C += A B + bias.
    AccumulateBias(&'a [f32]),
}

/// Memory that the caller reads soon after a product.
#[derive(Clone, Copy, Debug)]
pub enum Ahead<'a> {
    /// All of it, in order.
    All(&'a [f32]),
    /// The first `columns` numbers of each row; as many rows as the product has steps over k.
    Columns {
        /// The numbers, from the first row's first.
        data: &'a [f32],
        /// From one row to the next.
        stride: usize,
        /// Numbers wanted of each row.
        columns: usize,
    },
}

/// Which cache lines the tiles of a panel ask for: tile number t the lines at `base + t * tile_step + kk * k_step`, for the
/// first `tiles` tiles.
#[derive(Clone, Copy)]
pub(crate) struct Lines {
    /// Whether each tile also asks for the lines of C that it will write.
    result: bool,
    base: *const f32,
    tile_step: usize,
    k_step: usize,
    tiles: usize,
}

impl Lines {
    /// For operands that are in the cache.
    pub(crate) const NONE: Self = Self { result: false, ..Self::RESULT };
    /// Only what the tile writes.
    const RESULT: Self = Self { result: true, base: std::ptr::null(), tile_step: 0, k_step: 0, tiles: 0 };

    fn all(base: *const f32, len: usize, k: usize) -> Self {
        Self { base, tile_step: 16 * k, k_step: 16, tiles: len.div_ceil(16 * k.max(1)), ..Self::RESULT }
    }

    fn of(ahead: Ahead<'_>, k: usize) -> Self {
        match ahead {
            Ahead::All(data) => Self::all(data.as_ptr(), data.len(), k),
            Ahead::Columns { data, stride, columns } => {
                let tiles = columns.div_ceil(16);
                Self { base: data.as_ptr(), tile_step: 16, k_step: stride, tiles, ..Self::RESULT }
            }
        }
    }

    /// Where tile `t` starts, and its step over k; tiles with nothing to ask for stay at `idle`.
    #[inline(always)]
    fn tile(&self, t: usize, idle: *const f32) -> (*const f32, usize) {
        if t < self.tiles { (self.base.wrapping_add(t * self.tile_step), self.k_step) } else { (idle, 0) }
    }
}

/// The right operand B [k, n] in panels.
pub struct Packed {
    isa: Isa,
    k: usize,
    n: usize,
    data: Buffer,
}

impl Packed {
    /// Room for a matrix [k, n].
    pub fn new(isa: Isa, k: usize, n: usize) -> Self {
        let lanes = isa.lanes();
        Self {
            isa,
            k,
            n,
            data: Buffer::zeroed(extent(k, n.next_multiple_of(lanes), n.next_multiple_of(lanes))),
        }
    }

    /// Bytes that [`Packed::new`] allocates.
    pub fn bytes(k: usize, n: usize) -> usize {
        4 * k * n.div_ceil(16) * 16
    }

    /// Packs `source` [k, n], row-major with row stride `stride`. The shape may be smaller than the one made
    /// for: that is how blocks of different sizes share one buffer.
    pub fn pack(&mut self, source: &[f32], stride: usize, k: usize, n: usize) {
        self.reshape(k, n);
        assert!(source.len() >= extent(k, stride, n));
        pack_rows(self.isa, source, stride, k, n, &mut self.data);
    }

    /// Packs the transpose of `source` [n, k], row-major with row stride `stride`.
    pub fn pack_transposed(&mut self, source: &[f32], stride: usize, k: usize, n: usize) {
        self.reshape(k, n);
        assert!(source.len() >= extent(n, stride, k));
        pack_columns(self.isa, source, stride, k, n, &mut self.data);
    }

    fn reshape(&mut self, k: usize, n: usize) {
        let lanes = self.isa.lanes();
        let width = n.next_multiple_of(lanes);
        assert!(extent(k, width, width) <= self.data.len(), "packed matrix too large for its buffer");
        self.k = k;
        self.n = n;
    }
}

/// The panels of a matrix of `vectors` vectors' width: (first vector, number of vectors).
#[inline(always)]
pub(crate) fn panels(vectors: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let width = match vectors - at {
            0 => return None,
            // Four are two and two: one alone would wait for its own sums.
            4 => 2,
            left => left.min(NV),
        };
        at += width;
        Some((at - width, width))
    })
}

dispatch! {
    /// Packs rows.
    pub(crate) fn pack_rows(source: &[f32], stride: usize, k: usize, n: usize, out: &mut [f32]) = pack_rows_generic;
}

#[inline(always)]
fn pack_rows_generic<S: Simd>(s: S, source: &[f32], stride: usize, k: usize, n: usize, out: &mut [f32]) {
    let vectors = n.div_ceil(S::LANES);
    assert!(out.len() >= extent(k, vectors * S::LANES, vectors * S::LANES));
    assert!(source.len() >= extent(k, stride, n));
    for (first, width) in panels(vectors) {
        let base = first * S::LANES * k;
        for kk in 0..k {
            for v in 0..width {
                let column = (first + v) * S::LANES;
                // SAFETY: row kk < k, at most n - column numbers from `column`; both asserted above. The panel's
                // place ends at (first + width) * LANES * k <= out.len().
                unsafe {
                    let x = s.load_upto(source.as_ptr().add(kk * stride + column), n - column);
                    s.store(out.as_mut_ptr().add(base + (kk * width + v) * S::LANES), x);
                }
            }
        }
    }
}

dispatch! {
    /// Packs columns: the transpose of the source.
    pub(crate) fn pack_columns(source: &[f32], stride: usize, k: usize, n: usize, out: &mut [f32]) = pack_columns_generic;
}

#[inline(always)]
pub(crate) fn pack_columns_generic<S: Simd>(
    s: S,
    source: &[f32],
    stride: usize,
    k: usize,
    n: usize,
    out: &mut [f32],
) {
    let vectors = n.div_ceil(S::LANES);
    assert!(out.len() >= extent(k, vectors * S::LANES, vectors * S::LANES));
    assert!(source.len() >= extent(n, stride, k));
    for (first, width) in panels(vectors) {
        let columns = width * S::LANES;
        let column = first * S::LANES;
        let panel = &mut out[column * k..(column + columns) * k];
        // Squares of 8 by 8 where both sides have them, single numbers at the edges, zeros behind column n.
        let (whole_k, whole_c) = (k / 8 * 8, columns.min(n - column) / 8 * 8);
        for k0 in (0..whole_k).step_by(8) {
            for c in (0..whole_c).step_by(8) {
                // SAFETY: rows column + c .. + 8 < n of the source hold k numbers; the panel holds k rows of `columns`.
                unsafe {
                    let from = source.as_ptr().add((column + c) * stride + k0);
                    s.transpose8(from, stride, panel.as_mut_ptr().add(k0 * columns + c), columns);
                }
            }
        }
        for kk in 0..k {
            for c in if kk < whole_k { whole_c } else { 0 }..columns {
                let inside = column + c < n;
                panel[kk * columns + c] = if inside { source[(column + c) * stride + kk] } else { 0.0 };
            }
        }
    }
}

/// C = A B (+ what `init` says): A [m, k], B packed [k, n], C row-major [m, n] with row stride `c_stride`. `ahead`: what
/// to fetch meanwhile, one entry a panel.
///
/// # Panics
/// When an operand is smaller than its shape: a mistake in the caller, never of a user.
pub fn gemm(
    isa: Isa,
    a: Left<'_>,
    b: &Packed,
    m: usize,
    init: Init<'_>,
    c: &mut [f32],
    c_stride: usize,
    ahead: &[Ahead<'_>],
) {
    let (k, n) = (b.k, b.n);
    if m == 0 || n == 0 {
        return;
    }
    assert_eq!(isa, b.isa);
    match a {
        Left::Rows { data, stride } => assert!(data.len() >= extent(m, stride, k)),
        Left::Columns { data, stride } => assert!(data.len() >= extent(k, stride, m)),
    }
    assert!(c_stride >= n && c.len() >= extent(m, c_stride, n));
    if let Init::Bias(bias) | Init::AccumulateBias(bias) = init {
        assert!(bias.len() >= n);
    }
    gemm_checked(isa, a, &b.data, m, n, k, init, c, c_stride, ahead);
}

dispatch! {
    /// The product, sizes checked by the caller.
    pub(crate) fn gemm_checked(a: Left<'_>, b: &[f32], m: usize, n: usize, k: usize, init: Init<'_>, c: &mut [f32], c_stride: usize, ahead: &[Ahead<'_>]) = gemm_generic;
}

#[inline(always)]
fn gemm_generic<S: Simd>(
    s: S,
    a: Left<'_>,
    b: &[f32],
    m: usize,
    n: usize,
    k: usize,
    init: Init<'_>,
    c: &mut [f32],
    c_stride: usize,
    ahead: &[Ahead<'_>],
) {
    let vectors = n.div_ceil(S::LANES);
    for (number, (first, width)) in panels(vectors).enumerate() {
        let column = first * S::LANES;
        // SAFETY: `gemm` has checked every operand against its shape; the panel lies inside of b, row tiles
        // inside of 0..m, columns inside of 0..n.
        unsafe {
            let b = b.as_ptr().add(column * k);
            let c = c.as_mut_ptr().add(column);
            let init = match init {
                Init::Bias(bias) => Init::Bias(&bias[column..n]),
                Init::AccumulateBias(bias) => Init::AccumulateBias(&bias[column..n]),
                other => other,
            };
            let valid = n - column;
            let lines = match ahead.get(number) {
                Some(&ahead) => Lines::of(ahead, k),
                // The next panel.
                None if first + width < vectors => {
                    let len = width * S::LANES * k;
                    Lines::all(b.wrapping_add(len), len, k)
                }
                None => Lines::RESULT,
            };
            match width {
                3 => rows::<S, 3>(s, a, b, 3 * S::LANES, m, valid, k, init, c, c_stride, lines),
                2 => rows::<S, 2>(s, a, b, 2 * S::LANES, m, valid, k, init, c, c_stride, lines),
                _ => rows::<S, 1>(s, a, b, S::LANES, m, valid, k, init, c, c_stride, lines),
            }
        }
    }
}

/// All row tiles against one panel of B: rows of `V` vectors, `b_stride` apart.
///
/// # Safety
/// A holds [m, k], B [k, V vectors], C [m, valid] at `c_stride`; bias holds `valid` numbers.
#[inline(always)]
pub(crate) unsafe fn rows<S: Simd, const V: usize>(
    s: S,
    a: Left<'_>,
    b: *const f32,
    b_stride: usize,
    m: usize,
    valid: usize,
    k: usize,
    init: Init<'_>,
    c: *mut f32,
    c_stride: usize,
    lines: Lines,
) {
    let mut number = 0;
    let mut r = 0;
    // SAFETY: r + MR <= m in every call, so the tile lies inside of A and C.
    unsafe {
        if S::LANES == 16 {
            while r + 8 <= m {
                tile_at::<S, 8, V>(
                    s,
                    a,
                    r,
                    b,
                    b_stride,
                    valid,
                    k,
                    init,
                    c.add(r * c_stride),
                    c_stride,
                    lines,
                    number,
                );
                r += 8;
                number += 1;
            }
        }
        while r + 4 <= m {
            tile_at::<S, 4, V>(
                s,
                a,
                r,
                b,
                b_stride,
                valid,
                k,
                init,
                c.add(r * c_stride),
                c_stride,
                lines,
                number,
            );
            r += 4;
            number += 1;
        }
        while r < m {
            tile_at::<S, 1, V>(
                s,
                a,
                r,
                b,
                b_stride,
                valid,
                k,
                init,
                c.add(r * c_stride),
                c_stride,
                lines,
                number,
            );
            r += 1;
            number += 1;
        }
    }
}

/// # Safety
/// As [`rows`], for the rows r .. r + MR.
#[inline(always)]
pub(crate) unsafe fn tile_at<S: Simd, const MR: usize, const V: usize>(
    s: S,
    a: Left<'_>,
    r: usize,
    b: *const f32,
    b_stride: usize,
    valid: usize,
    k: usize,
    init: Init<'_>,
    c: *mut f32,
    c_stride: usize,
    lines: Lines,
    number: usize,
) {
    if lines.result {
        for i in 0..MR {
            for v in 0..V {
                s.prefetch(c.wrapping_add(i * c_stride + v * S::LANES));
            }
        }
    }
    let lines = lines.tile(number, b);
    // SAFETY: the caller's promise.
    unsafe {
        let sums = match a {
            Left::Rows { data, stride } => tile::<S, MR, V, true>(
                s,
                data.as_ptr().wrapping_add(r * stride),
                stride,
                b,
                b_stride,
                k,
                lines,
            ),
            Left::Columns { data, stride } => {
                tile::<S, MR, V, false>(s, data.as_ptr().wrapping_add(r), stride, b, b_stride, k, lines)
            }
        };
        if valid >= V * S::LANES {
            for v in 0..V {
                let offset = v * S::LANES;
                let bias = match init {
                    Init::Bias(bias) | Init::AccumulateBias(bias) => s.load(bias.as_ptr().add(offset)),
                    _ => s.splat(0.0),
                };
                for i in 0..MR {
                    let p = c.add(i * c_stride + offset);
                    let x = match init {
                        Init::Zero => sums[i][v],
                        Init::Accumulate => s.add(s.load(p), sums[i][v]),
                        Init::Bias(_) => s.add(sums[i][v], bias),
                        Init::AccumulateBias(_) => s.add(s.load(p), s.add(sums[i][v], bias)),
                    };
                    s.store(p, x);
                }
            }
        } else {
            for v in 0..V {
                let offset = v * S::LANES;
                let left = valid.saturating_sub(offset);
                let bias = match init {
                    Init::Bias(bias) | Init::AccumulateBias(bias) => {
                        s.load_upto(bias.as_ptr().add(offset.min(valid)), left)
                    }
                    _ => s.splat(0.0),
                };
                for i in 0..MR {
                    let p = c.wrapping_add(i * c_stride + offset);
                    let x = match init {
                        Init::Zero => sums[i][v],
                        Init::Accumulate => s.add(s.load_upto(p, left), sums[i][v]),
                        Init::Bias(_) => s.add(sums[i][v], bias),
                        Init::AccumulateBias(_) => s.add(s.load_upto(p, left), s.add(sums[i][v], bias)),
                    };
                    s.store_upto(p, x, left);
                }
            }
        }
    }
}

/// The sums of one tile: MR rows, V vectors. A's element (i, kk) is at i * stride + kk (`ROWS`) or at
/// kk * stride + i. Each step over k also asks for the
/// next cache line of a stretch that begins at `line`.
///
/// # Safety
/// A holds the MR x k elements, B k rows of V vectors at `b_stride`.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, const MR: usize, const V: usize, const ROWS: bool>(
    s: S,
    a: *const f32,
    a_stride: usize,
    mut b: *const f32,
    b_stride: usize,
    k: usize,
    (mut line, line_step): (*const f32, usize),
) -> [[S::V; V]; MR] {
    let mut sums = [[s.splat(0.0); V]; MR];
    let mut a = a;
    for _ in 0..k {
        // SAFETY: the caller's promise for this kk.
        unsafe {
            let mut row = [s.splat(0.0); V];
            for v in 0..V {
                row[v] = s.load(b.add(v * S::LANES));
            }
            for i in 0..MR {
                let x = s.splat(*a.add(if ROWS { i * a_stride } else { i }));
                for v in 0..V {
                    sums[i][v] = s.mul_add(x, row[v], sums[i][v]);
                }
            }
            s.prefetch(line);
            line = line.wrapping_add(line_step);
            a = a.wrapping_add(if ROWS { 1 } else { a_stride });
            b = b.wrapping_add(b_stride);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, numbers};

    /// The plain reference: sums in f64.
    fn plain(
        a: impl Fn(usize, usize) -> f32,
        b: impl Fn(usize, usize) -> f32,
        m: usize,
        n: usize,
        k: usize,
    ) -> Vec<f64> {
        let mut c = vec![0.0; m * n];
        for i in 0..m {
            for j in 0..n {
                c[i * n + j] = (0..k).map(|kk| f64::from(a(i, kk)) * f64::from(b(kk, j))).sum();
            }
        }
        c
    }

    #[test]
    fn every_form_and_awkward_size_on_every_instruction_set() {
        for isa in Isa::available() {
            for (m, n, k) in [
                (1, 1, 1),
                (8, 48, 16),
                (9, 49, 7),
                (13, 64, 33),
                (16, 27, 5),
                (3, 200, 19),
                (24, 112, 1),
                (5, 17, 0),
            ] {
                let (ld_a, ld_t, ld_b, ld_c) = (k + 3, m + 2, n + 1, n + 5);
                let a = numbers(1, m * ld_a);
                let at = numbers(2, k * ld_t + m);
                let b = numbers(3, k * ld_b + n);
                let bt = numbers(4, n * (k + 2));
                let bias = numbers(5, n);
                let start = numbers(6, m * ld_c);
                let mut rows = Packed::new(isa, k, n);
                rows.pack(&b, ld_b, k, n);
                let mut columns = Packed::new(isa, k, n);
                columns.pack_transposed(&bt, k + 2, k, n);
                for transposed in [false, true] {
                    let packed = if transposed { &columns } else { &rows };
                    let b_at = |kk: usize, j: usize| {
                        if transposed { bt[j * (k + 2) + kk] } else { b[kk * ld_b + j] }
                    };
                    for by_rows in [true, false] {
                        let left = if by_rows {
                            Left::Rows { data: &a, stride: ld_a }
                        } else {
                            Left::Columns { data: &at, stride: ld_t }
                        };
                        let a_at =
                            |i: usize, kk: usize| if by_rows { a[i * ld_a + kk] } else { at[kk * ld_t + i] };
                        let product = plain(a_at, b_at, m, n, k);
                        for init in
                            [Init::Zero, Init::Accumulate, Init::Bias(&bias), Init::AccumulateBias(&bias)]
                        {
                            let mut c = start.clone();
                            gemm(isa, left, packed, m, init, &mut c, ld_c, &[]);
                            for i in 0..m {
                                let expected: Vec<f64> = (0..n)
                                    .map(|j| {
                                        product[i * n + j]
                                            + match init {
                                                Init::Zero => 0.0,
                                                Init::Accumulate => f64::from(start[i * ld_c + j]),
                                                Init::Bias(bias) => f64::from(bias[j]),
                                                Init::AccumulateBias(bias) => {
                                                    f64::from(start[i * ld_c + j]) + f64::from(bias[j])
                                                }
                                            }
                                    })
                                    .collect();
                                assert_close(
                                    &c[i * ld_c..i * ld_c + n],
                                    &expected,
                                    1e-5,
                                    &format!("{isa} {m}x{n}x{k}"),
                                );
                                let end = ((i + 1) * ld_c).min(c.len());
                                assert_eq!(
                                    c[i * ld_c + n..end],
                                    start[i * ld_c + n..end],
                                    "writes past the row"
                                );
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn an_element_does_not_depend_on_its_tile() {
        let isa = Isa::detect();
        let (n, k) = (70, 40);
        let a = numbers(1, 21 * k);
        let b = numbers(2, k * n);
        let mut packed = Packed::new(isa, k, n);
        packed.pack(&b, n, k, n);
        let mut all = vec![0.0; 21 * n];
        gemm(isa, Left::Rows { data: &a, stride: k }, &packed, 21, Init::Zero, &mut all, n, &[]);
        for i in 0..21 {
            let mut one = vec![0.0; n];
            gemm(
                isa,
                Left::Rows { data: &a[i * k..], stride: k },
                &packed,
                1,
                Init::Zero,
                &mut one,
                n,
                &[Ahead::All(&b)],
            );
            assert_eq!(one[..], all[i * n..(i + 1) * n]);
        }
    }

    #[test]
    fn panels_cover_every_width() {
        for vectors in 0..40 {
            let mut at = 0;
            for (first, width) in panels(vectors) {
                assert_eq!(first, at);
                assert!((1..=3).contains(&width) && (width > 1 || vectors == 1));
                at += width;
            }
            assert_eq!(at, vectors);
        }
    }
}
