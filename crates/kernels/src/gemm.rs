//! Matrix products: C = A B in the three forms that a linear layer needs.
//!
//! **The micro-tile.** Some rows by two or three vectors of C stay in registers for the whole sum over k ([`Simd::TILE`]). With 32
//! vector registers (AVX-512) it is 8 by 3: 24 accumulators, 3 for a row of B, one for the broadcast element of
//! A. With 16 it has 12 accumulators: 6 by 2 with AVX2, since a panel of 16 columns is one cache line wide and fits into the first-level
//! cache where one of 24 does not; 4 by 3 on the portable path, whose multiply-adds are two instructions. The multipliers, not the load
//! ports, are the limit.
//!
//! **B is packed** into panels of the tile's width (`[panel][k][3 x LANES]`), so that the inner loop reads it
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

use crate::extent;
use crate::half;
use crate::isa::{Isa, dispatch};
use crate::packed::{Packed, Precision, panels};
use crate::simd::Simd;

/// Row stride for rows of `n` numbers: an odd number of cache lines, with at least 16 numbers to spare, so that
/// vector loads may run past the end of a row.
pub fn padded(n: usize) -> usize {
    let lines = n.div_ceil(16) + 1;
    (lines | 1) * 16
}

/// The left operand A [m, k].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Left<'a> {
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

/// Both operands of a product, the right one from some column on: what the tiles of C are made of.
pub(crate) trait Operands<S: Simd>: Copy {
    /// Rows and vectors of the micro-tile.
    const TILE: (usize, usize) = S::TILE;

    /// Steps of the inner loop over k.
    fn steps(self) -> usize;

    /// An address that is in the cache anyway.
    fn near(self) -> *const f32;

    /// The sums of the tile of MR rows from `r` on and V vectors. Each step also asks for a cache line of the walk.
    ///
    /// # Safety
    /// The left operand has these rows, the right one these columns.
    unsafe fn sums<const MR: usize, const V: usize>(self, s: S, r: usize, walk: Walk) -> [[S::V; V]; MR];
}

/// Operands in f32: A, and a panel of B whose rows are `b_stride` apart.
#[derive(Clone, Copy)]
pub(crate) struct Single<'a> {
    pub(crate) a: Left<'a>,
    pub(crate) b: *const f32,
    pub(crate) b_stride: usize,
    pub(crate) k: usize,
}

impl<S: Simd> Operands<S> for Single<'_> {
    #[inline(always)]
    fn steps(self) -> usize {
        self.k
    }

    #[inline(always)]
    fn near(self) -> *const f32 {
        self.b
    }

    #[inline(always)]
    unsafe fn sums<const MR: usize, const V: usize>(self, s: S, r: usize, walk: Walk) -> [[S::V; V]; MR] {
        let Self { a, b, b_stride, k } = self;
        // SAFETY: the caller's promise.
        unsafe {
            match a {
                Left::Rows { data, stride } => {
                    let a = data.as_ptr().wrapping_add(r * stride);
                    tile::<S, MR, V, true>(s, a, stride, b, b_stride, k, walk)
                }
                Left::Columns { data, stride } => {
                    let a = data.as_ptr().wrapping_add(r);
                    tile::<S, MR, V, false>(s, a, stride, b, b_stride, k, walk)
                }
            }
        }
    }
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

impl<'a> Init<'a> {
    /// For the columns column..n.
    #[inline(always)]
    pub(crate) fn from(self, column: usize, n: usize) -> Self {
        match self {
            Self::Bias(bias) => Self::Bias(&bias[column..n]),
            Self::AccumulateBias(bias) => Self::AccumulateBias(&bias[column..n]),
            other => other,
        }
    }
}

/// Which cache lines the tiles of a panel ask for meanwhile, one line at each step over k.
#[derive(Clone, Copy)]
pub(crate) enum Lines<'a> {
    /// None, and the result is in the cache too.
    Nothing,
    /// Only those of C that the tile will write.
    Result,
    /// These too, from `base` on in order, by the first `tiles` tiles.
    All { base: *const f32, tiles: usize },
    /// Those of C, and what follows a weight gradient; the first tile is number `first` of `slots`.
    Spread { ahead: Spread<'a>, first: usize, slots: usize },
}

impl Lines<'_> {
    pub(crate) fn all(base: *const f32, len: usize, k: usize) -> Self {
        Self::All { base, tiles: len.div_ceil(16 * k.max(1)) }
    }

    /// What tile `t` asks for during its k steps; a tile with nothing to ask for stays at `idle`.
    #[inline(always)]
    fn tile(self, t: usize, k: usize, idle: *const f32) -> Walk {
        let walk = |line, step| Walk { line, step, end: std::ptr::null(), skip: 0 };
        match self {
            Self::All { base, tiles } if t < tiles => walk(base.wrapping_add(16 * k * t), 16),
            Self::Spread { ahead, first, slots } => ahead.tile(first + t, slots).unwrap_or(walk(idle, 0)),
            _ => walk(idle, 0),
        }
    }
}

/// The cache lines that a tile asks for, one at each step over k.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    line: *const f32,
    /// From one line to the next, in numbers.
    step: usize,
    /// Where it stops.
    end: *const f32,
    /// From one row to the next, where a chunk has rows that nobody reads.
    skip: usize,
}

impl Walk {
    /// Asks for the next line.
    #[inline(always)]
    pub(crate) fn ask<S: Simd>(&mut self, s: S) {
        s.prefetch(self.line);
        self.line = if self.line == self.end { self.end } else { self.line.wrapping_add(self.step) };
    }

    /// Passes over the last `rows` rows of a chunk.
    #[inline(always)]
    pub(crate) fn skip(&mut self, rows: usize) {
        self.line = self.line.wrapping_add(rows * self.skip);
    }
}

/// C = A B (+ what `init` says): A [m, k] with row stride `a_stride`, B packed [k, n], C row-major [m, n] with row stride
/// `c_stride`. `ahead`: what the caller reads soon, to be fetched meanwhile, one entry a panel. `scratch`: in half precision, room for
/// the rounded rows of A, [`half_rows_len`]`(m, k)` numbers.
///
/// # Panics
/// When an operand is smaller than its shape: a mistake in the caller, never of a user.
pub fn gemm(
    isa: Isa,
    (a, a_stride): (&[f32], usize),
    b: &Packed,
    m: usize,
    init: Init<'_>,
    c: &mut [f32],
    c_stride: usize,
    ahead: &[&[f32]],
    scratch: &mut [f32],
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
    let data = b.data(isa);
    match b.precision() {
        Precision::F32 => {
            let a = Left::Rows { data: a, stride: a_stride };
            gemm_checked(isa, a, data, m, n, k, init, c, c_stride, ahead);
        }
        Precision::Half => {
            half::round_rows(isa, (a, a_stride), m, k, scratch);
            half::gemm_checked(isa, scratch, data, m, n, k, init, c, c_stride, ahead);
        }
    }
}

dispatch! {
    /// The product, sizes checked by the caller.
    pub(crate) fn gemm_checked(a: Left<'_>, b: &[f32], m: usize, n: usize, k: usize, init: Init<'_>, c: &mut [f32], c_stride: usize, ahead: &[&[f32]]) = gemm_generic;
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
    ahead: &[&[f32]],
) {
    let vectors = n.div_ceil(S::LANES);
    for (number, (first, width)) in panels(vectors, S::TILE.1).enumerate() {
        let column = first * S::LANES;
        // SAFETY: `gemm` has checked every operand against its shape; the panel lies inside of b, row tiles
        // inside of 0..m, columns inside of 0..n.
        unsafe {
            let b = b.as_ptr().add(column * k);
            let c = c.as_mut_ptr().add(column);
            let init = init.from(column, n);
            let valid = n - column;
            let lines = match ahead.get(number) {
                Some(data) => Lines::all(data.as_ptr(), data.len(), k),
                // The next panel.
                None if first + width < vectors => {
                    let len = width * S::LANES * k;
                    Lines::all(b.wrapping_add(len), len, k)
                }
                None => Lines::Result,
            };
            let operands = Single { a, b, b_stride: width * S::LANES, k };
            panel(s, width, operands, m, valid, init, c, c_stride, lines);
        }
    }
}

/// All row tiles against one panel of B: `width` vectors.
///
/// # Safety
/// The operands hold m rows and `width` vectors, C [m, valid] at `c_stride`; bias holds `valid` numbers.
#[inline(always)]
pub(crate) unsafe fn panel<S: Simd, O: Operands<S>>(
    s: S,
    width: usize,
    operands: O,
    m: usize,
    valid: usize,
    init: Init<'_>,
    c: *mut f32,
    c_stride: usize,
    lines: Lines<'_>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match width {
            3 if O::TILE.1 == 3 => rows::<S, O, 3>(s, operands, m, valid, init, c, c_stride, lines),
            2 => rows::<S, O, 2>(s, operands, m, valid, init, c, c_stride, lines),
            _ => rows::<S, O, 1>(s, operands, m, valid, init, c, c_stride, lines),
        }
    }
}

/// Rows of the next tile where `left` are left and a full tile has `tile`: that, four, two (where the tile has seven) or one.
#[inline(always)]
const fn tile_rows(tile: usize, left: usize) -> usize {
    match left {
        // Eight are four and four: tiles of a single row wait for their own sums.
        8 if tile == 6 => 4,
        _ if left >= tile => tile,
        4.. => 4,
        2.. if tile == 7 => 2,
        _ => 1,
    }
}

/// Number of tiles that [`rows`] cuts m rows into.
pub(crate) fn row_tiles(tile: usize, m: usize) -> usize {
    let mut left = m;
    std::iter::from_fn(|| (left > 0).then(|| left -= tile_rows(tile, left))).count()
}

/// # Safety
/// As [`panel`], for V vectors.
#[inline(always)]
unsafe fn rows<S: Simd, O: Operands<S>, const V: usize>(
    s: S,
    operands: O,
    m: usize,
    valid: usize,
    init: Init<'_>,
    c: *mut f32,
    c_stride: usize,
    lines: Lines<'_>,
) {
    let mut r = 0;
    let mut number = 0;
    while r < m {
        // SAFETY: r + MR <= m in every call, so the tile lies inside of A and C.
        unsafe {
            let c = (c.add(r * c_stride), c_stride);
            r += match tile_rows(O::TILE.0, m - r) {
                8 if O::TILE.0 == 8 => tile_at::<S, 8, V>(s, operands, r, valid, init, c, lines, number),
                7 if O::TILE.0 == 7 => tile_at::<S, 7, V>(s, operands, r, valid, init, c, lines, number),
                6 if O::TILE.0 == 6 => tile_at::<S, 6, V>(s, operands, r, valid, init, c, lines, number),
                4 => tile_at::<S, 4, V>(s, operands, r, valid, init, c, lines, number),
                2 if O::TILE.0 == 7 => tile_at::<S, 2, V>(s, operands, r, valid, init, c, lines, number),
                _ => tile_at::<S, 1, V>(s, operands, r, valid, init, c, lines, number),
            };
        }
        number += 1;
    }
}

/// The rows r .. r + MR; gives MR.
///
/// # Safety
/// As [`panel`], for these rows.
#[inline(always)]
unsafe fn tile_at<S: Simd, const MR: usize, const V: usize>(
    s: S,
    operands: impl Operands<S>,
    r: usize,
    valid: usize,
    init: Init<'_>,
    (c, c_stride): (*mut f32, usize),
    lines: Lines<'_>,
    number: usize,
) -> usize {
    if !matches!(lines, Lines::Nothing) {
        for i in 0..MR {
            for v in 0..V {
                s.prefetch(c.wrapping_add(i * c_stride + v * S::LANES));
            }
        }
    }
    let walk = lines.tile(number, operands.steps(), operands.near());
    // SAFETY: the caller's promise.
    unsafe {
        let sums = operands.sums::<MR, V>(s, r, walk);
        store_tile(s, &sums, valid, init, c, c_stride);
    }
    MR
}

/// Writes the sums of a tile to C, with what `init` says.
///
/// # Safety
/// C holds [MR, valid] at `c_stride`; bias holds `valid` numbers.
#[inline(always)]
unsafe fn store_tile<S: Simd, const MR: usize, const V: usize>(
    s: S,
    sums: &[[S::V; V]; MR],
    valid: usize,
    init: Init<'_>,
    c: *mut f32,
    c_stride: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match init {
            Init::Zero => store_each::<S, MR, V, false>(s, sums, valid, c, c_stride, |_, x, _| x),
            Init::Accumulate => {
                store_each::<S, MR, V, true>(s, sums, valid, c, c_stride, |_, x, old| s.add(old, x));
            }
            Init::Bias(bias) => {
                let bias = bias_of::<S, V>(s, bias, valid);
                store_each::<S, MR, V, false>(s, sums, valid, c, c_stride, |v, x, _| s.add(x, bias[v]));
            }
            Init::AccumulateBias(bias) => {
                let bias = bias_of::<S, V>(s, bias, valid);
                let f = |v: usize, x, old| s.add(old, s.add(x, bias[v]));
                store_each::<S, MR, V, true>(s, sums, valid, c, c_stride, f);
            }
        }
    }
}

/// The first `valid` numbers of a bias, zeros after them.
///
/// # Safety
/// It holds so many.
#[inline(always)]
unsafe fn bias_of<S: Simd, const V: usize>(s: S, bias: &[f32], valid: usize) -> [S::V; V] {
    let mut vectors = [s.splat(0.0); V];
    for v in 0..V {
        let offset = (v * S::LANES).min(valid);
        // SAFETY: the caller's promise.
        vectors[v] = unsafe { s.load_upto(bias.as_ptr().add(offset), valid - offset) };
    }
    vectors
}

/// Writes `f(v, sum, old)` for the sums of a tile; old: what C holds, if `OLD`. With `f` known here the loops have no branches and come out
/// unrolled: otherwise the sums go through memory to be counted off, which costs as much as forty vector multiply-adds.
///
/// # Safety
/// C holds [MR, valid] at `c_stride`.
#[inline(always)]
unsafe fn store_each<S: Simd, const MR: usize, const V: usize, const OLD: bool>(
    s: S,
    sums: &[[S::V; V]; MR],
    valid: usize,
    c: *mut f32,
    c_stride: usize,
    f: impl Fn(usize, S::V, S::V) -> S::V,
) {
    let none = s.splat(0.0);
    // SAFETY: the caller's promise.
    unsafe {
        if valid >= V * S::LANES {
            for i in 0..MR {
                for v in 0..V {
                    let p = c.add(i * c_stride + v * S::LANES);
                    let old = if OLD { s.load(p) } else { none };
                    s.store(p, f(v, sums[i][v], old));
                }
            }
        } else {
            for v in 0..V {
                let left = valid.saturating_sub(v * S::LANES);
                for i in 0..MR {
                    let p = c.wrapping_add(i * c_stride + v * S::LANES);
                    let old = if OLD { s.load_upto(p, left) } else { none };
                    s.store_upto(p, f(v, sums[i][v], old), left);
                }
            }
        }
    }
}

/// The sums of one tile: MR rows, V vectors. A's element (i, kk) is at i * stride + kk (`ROWS`) or at
/// kk * stride + i. Each step over k also asks for a cache line.
///
/// # Safety
/// A holds the MR x k elements, B k rows of V vectors at `b_stride`.
#[inline(always)]
unsafe fn tile<S: Simd, const MR: usize, const V: usize, const ROWS: bool>(
    s: S,
    a: *const f32,
    a_stride: usize,
    mut b: *const f32,
    b_stride: usize,
    k: usize,
    mut walk: Walk,
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
            walk.ask(s);
            a = a.wrapping_add(if ROWS { 1 } else { a_stride });
            b = b.wrapping_add(b_stride);
        }
    }
    sums
}

/// Rows of the two operands of a weight gradient X^T dY.
#[derive(Clone, Copy, Debug)]
pub struct Stretch<'a> {
    /// X [k, m] from its first element; in half precision both are rounded by [`round_columns`](crate::round_columns).
    pub x: &'a [f32],
    /// dY [k, n]; rows can be read up to the next multiple of 16 numbers past n.
    pub dy: &'a [f32],
    /// Number of rows.
    pub k: usize,
}

impl Stretch<'_> {
    /// What is read of X and dY, for the strides and widths that they are multiplied with.
    pub fn sheets(
        self,
        precision: Precision,
        (x_stride, dy_stride): (usize, usize),
        (m, n): (usize, usize),
    ) -> [Sheet; 2] {
        let rounded = precision == Precision::Half;
        [(self.x, x_stride, m), (self.dy, dy_stride, n)].map(|(numbers, stride, columns)| Sheet {
            rounded,
            ..Sheet::new(numbers, stride, self.k, columns)
        })
    }
}

/// Numbers that are read or written soon, as rows: a product fetches them into the cache meanwhile. Addresses only.
#[derive(Clone, Copy, Debug)]
pub struct Sheet {
    from: *const f32,
    /// From one row to the next.
    stride: usize,
    rows: usize,
    /// Cache lines of a row.
    lines: usize,
    /// By [`round_columns`](crate::round_columns): half of the rows.
    rounded: bool,
}

impl Sheet {
    /// `rows` rows of `columns` numbers, `stride` apart, the first one at the start of `numbers`.
    pub fn new(numbers: &[f32], stride: usize, rows: usize, columns: usize) -> Self {
        Self { from: numbers.as_ptr(), stride, rows, lines: columns.div_ceil(16), rounded: false }
    }

    /// No numbers.
    pub fn nothing() -> Self {
        Self::new(&[], 0, 0, 0)
    }

    /// Down the rows, along line `line` of each.
    #[inline(always)]
    fn walk(self, line: usize) -> Walk {
        let line = self.from.wrapping_add(16 * line);
        let (end, skip) = if self.rounded {
            (std::ptr::null(), self.stride)
        } else {
            (line.wrapping_add(self.rows * self.stride), 0)
        };
        Walk { line, step: self.stride, end, skip }
    }
}

/// C = X^T dY (+ C if `accumulate`) for X [k, m] with row stride `x_stride` and dY [k, n] with row stride `dy_stride`. Neither is packed: each
/// is used once. `ahead`: what is read next, fetched meanwhile, evenly over the whole product; of each sheet as many rows as the product
/// has.
///
/// # Panics
/// When an operand is smaller than its shape: a mistake in the caller, never of a user.
pub fn gemm_transposed(
    isa: Isa,
    now: Stretch<'_>,
    ahead: &[Sheet],
    (x_stride, dy_stride): (usize, usize),
    (m, n): (usize, usize),
    accumulate: bool,
    c: &mut [f32],
    c_stride: usize,
) {
    let width = n.next_multiple_of(16);
    assert!(dy_stride >= width);
    assert!(now.x.len() >= extent(now.k, x_stride, m));
    assert!(now.dy.len() >= extent(now.k, dy_stride, width));
    assert!(c_stride >= n && c.len() >= extent(m, c_stride, n));
    let init = if accumulate { Init::Accumulate } else { Init::Zero };
    transposed_checked(isa, now, Spread::new(ahead), (x_stride, dy_stride), (m, n), init, c, c_stride);
}

dispatch! {
    /// The product, sizes checked by the caller.
    fn transposed_checked(now: Stretch<'_>, ahead: Spread<'_>, strides: (usize, usize), shape: (usize, usize), init: Init<'_>, c: &mut [f32], c_stride: usize) = transposed_generic;
}

#[inline(always)]
fn transposed_generic<S: Simd>(
    s: S,
    now: Stretch<'_>,
    ahead: Spread<'_>,
    (x_stride, dy_stride): (usize, usize),
    (m, n): (usize, usize),
    init: Init<'_>,
    c: &mut [f32],
    c_stride: usize,
) {
    let vectors = n.div_ceil(S::LANES);
    let tiles = row_tiles(S::TILE.0, m);
    let slots = tiles * panels(vectors, S::TILE.1).count();
    let x = Left::Columns { data: now.x, stride: x_stride };
    for (number, (first, width)) in panels(vectors, S::TILE.1).enumerate() {
        let column = first * S::LANES;
        // SAFETY: `gemm_transposed` has checked every operand against its shape.
        unsafe {
            let dy = now.dy.as_ptr().add(column);
            let c = c.as_mut_ptr().add(column);
            let lines = Lines::Spread { ahead, first: number * tiles, slots };
            let operands = Single { a: x, b: dy, b_stride: dy_stride, k: now.k };
            panel(s, width, operands, m, n - column, init, c, c_stride, lines);
        }
    }
}

/// Deals the cache lines of sheets out evenly over the tiles of a product.
#[derive(Clone, Copy)]
pub(crate) struct Spread<'a> {
    sheets: &'a [Sheet],
    /// Across a row of all of them.
    lines: usize,
}

impl<'a> Spread<'a> {
    pub(crate) fn new(sheets: &'a [Sheet]) -> Self {
        Self { sheets, lines: sheets.iter().map(|sheet| sheet.lines).sum() }
    }

    /// What tile number `slot` of `slots` asks for, if anything.
    #[inline(always)]
    fn tile(self, slot: usize, slots: usize) -> Option<Walk> {
        let mut line = slot * self.lines / slots;
        if slot > 0 && line == (slot - 1) * self.lines / slots {
            return None;
        }
        for sheet in self.sheets {
            if line < sheet.lines {
                return Some(sheet.walk(line));
            }
            line -= sheet.lines;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packed::Part;
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
                let mut rows = Packed::new(isa, Precision::F32, k, n);
                rows.pack(&[Part::new(&b, ld_b, (0, 0), (k, n))]);
                let mut columns = Packed::new(isa, Precision::F32, k, n);
                columns.pack(&[Part::transposed(&bt, k + 2, (0, 0), (k, n))]);
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
                            gemm_checked(isa, left, packed.data(isa), m, n, k, init, &mut c, ld_c, &[]);
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
    fn weight_gradients_of_awkward_sizes_on_every_instruction_set() {
        for isa in Isa::available() {
            for (m, n, k) in [(1, 1, 1), (8, 48, 16), (13, 27, 33), (40, 70, 9), (5, 200, 0)] {
                let (ld_x, ld_dy, ld_c) = (m + 3, padded(n), n + 5);
                let (x, dy) = (numbers(1, k * ld_x + m), numbers(2, (k + 1) * ld_dy));
                let start = numbers(3, m * ld_c);
                let product = plain(|i, kk| x[kk * ld_x + i], |kk, j| dy[kk * ld_dy + j], m, n, k);
                let now = Stretch { x: &x, dy: &dy, k };
                let sheets = now.sheets(Precision::F32, (ld_x, ld_dy), (m, n));
                for (ahead, accumulate) in [(&[][..], false), (&sheets[..], true)] {
                    let mut c = start.clone();
                    gemm_transposed(isa, now, ahead, (ld_x, ld_dy), (m, n), accumulate, &mut c, ld_c);
                    for i in 0..m {
                        let before = |j: usize| if accumulate { f64::from(start[i * ld_c + j]) } else { 0.0 };
                        let expected: Vec<f64> = (0..n).map(|j| product[i * n + j] + before(j)).collect();
                        let what = format!("{isa} {m}x{n}x{k}");
                        assert_close(&c[i * ld_c..i * ld_c + n], &expected, 1e-5, &what);
                        let behind = i * ld_c + n..((i + 1) * ld_c).min(c.len());
                        assert_eq!(c[behind.clone()], start[behind], "writes past the row");
                    }
                }
            }
        }
    }

    #[test]
    fn every_line_of_the_next_operands_is_asked_for_once() {
        let numbers = [0.0f32; 4096];
        for (m, n, slots) in [(128, 256, 96), (256, 27, 32), (64, 64, 16), (9, 16, 2)] {
            let next = Stretch { x: &numbers[..], dy: &numbers[2048..], k: 1 };
            let sheets = next.sheets(Precision::F32, (256, 256), (m, n));
            let spread = Spread::new(&sheets);
            let asked = (0..slots).filter_map(|slot| spread.tile(slot, slots)).map(|walk| walk.line);
            let across = |numbers: &[f32], columns: usize| {
                let first = numbers.as_ptr();
                (0..columns.div_ceil(16)).map(move |line| first.wrapping_add(16 * line))
            };
            let expected = across(next.x, m).chain(across(next.dy, n));
            assert!(asked.eq(expected), "{m} x {n}");
        }
    }

    #[test]
    fn a_walk_ends_with_its_sheet_and_passes_over_rows_that_rounding_has_emptied() {
        let numbers = [0.0f32; 4096];
        let next = Stretch { x: &numbers[..], dy: &numbers[..], k: 4 };
        let s = crate::simd::Portable;
        let row = |walk: Walk| (walk.line as usize - numbers.as_ptr() as usize) / 4 / 64;
        let [mut walk, _] = next.sheets(Precision::F32, (64, 64), (64, 64)).map(|sheet| sheet.walk(0));
        for expected in [1, 2, 3, 4, 4, 4] {
            walk.ask(s);
            walk.skip(7);
            assert_eq!(row(walk), expected);
        }
        let [mut walk, _] = next.sheets(Precision::Half, (64, 64), (64, 64)).map(|sheet| sheet.walk(0));
        walk.ask(s);
        walk.skip(7);
        assert_eq!(row(walk), 8);
    }

    #[test]
    fn an_element_does_not_depend_on_its_tile() {
        let isa = Isa::detect();
        let (n, k) = (70, 40);
        let a = numbers(1, 21 * k);
        let b = numbers(2, k * n);
        let mut packed = Packed::new(isa, Precision::F32, k, n);
        packed.pack(&[Part::new(&b, n, (0, 0), (k, n))]);
        let mut all = vec![0.0; 21 * n];
        gemm(isa, (&a, k), &packed, 21, Init::Zero, &mut all, n, &[], &mut []);
        for i in 0..21 {
            let mut one = vec![0.0; n];
            gemm(isa, (&a[i * k..], k), &packed, 1, Init::Zero, &mut one, n, &[&b], &mut []);
            assert_eq!(one[..], all[i * n..(i + 1) * n]);
        }
    }
}
