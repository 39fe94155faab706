//! Half precision: products of 16-bit integers with a common quantum for each chunk.
//!
//! **The format.** An operand is cut along k into chunks of [`CHUNK`]. Each chunk of a row of A, or of a column of B, has a
//! *quantum* q, its largest magnitude over [`LARGEST`]. Every number is rounded to a multiple m q, the nearest (ties to even), with |m| <= [`LARGEST`].
//! So a chunk's part of a product is the integer sum of m_a m_b, times q_a q_b. [`LARGEST`]^2 [`CHUNK`] < 2^31: the integer
//! sum is exact in 32 bits. Between chunks sums are f32: one multiply-add with q_a q_b for each.
//!
//! Numbers of any size keep their place below the largest of their chunk; those 2 [`LARGEST`] times smaller than it vanish. A chunk of zeros
//! is zero. A chunk with an infinity, or with what is not a number, has a quantum that is not a number, and so has
//! everything that it is multiplied with. Below 2^-100 the quantum gets no smaller.
//!
//! **The same bits everywhere.** Integers are exact in any order, the sum over chunks goes in the order of k, and its multiply-adds
//! round once even where that takes a function. So every instruction set gives the same bits.
//!
//! **Speed.** Two neighbours along k lie in one 32-bit lane, and one instruction (`vpdpwssd` of AVX512-VNNI) adds both products to the sum:
//! twice the multiply-adds of an f32 instruction, from half the bytes. The tiles are smaller than those of
//! `gemm.rs`: at the end of a chunk each sum is converted and added to an f32 total, three instructions, and both sets stay in registers.
//!
//! **Where the quanta lie.** Behind the pairs of their chunk, where the inner loop over k ends anyway:
//!
//! - rows of A: `[row][chunk][pairs, quantum, padding]`, [`ROW_CHUNK`] numbers a chunk;
//! - panels of B: `[panel][chunk][rows of pairs, row of quanta][columns]`;
//! - X and dY of a weight gradient, whose k are the rows: *in place* of the numbers that they are made of. Of the rows of a
//!   chunk the first half become rows of pairs, the next one holds the quanta, the rest is no longer used.
//!
//! All this lies in vectors of f32, as bits: only this module looks at them.

use crate::extent;
use crate::gemm::{Init, Lines, Operands, Sheet, Spread, Stretch, Walk, padded, panel, row_tiles};
use crate::isa::{Isa, dispatch, dispatch_pairs};
use crate::packed::{Part, panels};
use crate::simd::Integers;

/// Numbers with a common quantum.
pub(crate) const CHUNK: usize = 128;
/// The largest integer: its square times [`CHUNK`] is below 2^31.
const LARGEST: f32 = 4095.0;
/// From one chunk to the next in a row of A: the pairs, and a cache line for the quantum.
const ROW_CHUNK: usize = CHUNK / 2 + 16;
/// Smaller magnitudes count as this: 2^-100.
const TINY: f32 = 7.888_609e-31;

const _: () = assert!(LARGEST as u64 * LARGEST as u64 * (CHUNK as u64) < 1 << 31);

/// The quantum of a chunk, and its inverse, from the bits of the largest magnitude in it.
#[inline(always)]
fn quantum(largest: i32) -> (f32, f32) {
    let largest = f32::from_bits(largest as u32);
    // What is not a number stays so.
    let largest = if largest < TINY { TINY } else { largest };
    // Not a number for an infinity too.
    (largest * (1.0 / LARGEST) + 0.0 * largest, LARGEST / largest)
}

/// Row stride of a row of A with k numbers when it is rounded.
fn row_stride(k: usize) -> usize {
    padded(k.div_ceil(CHUNK) * ROW_CHUNK)
}

/// How many numbers of scratch a product in half precision takes for a left operand [m, k].
pub fn half_rows_len(m: usize, k: usize) -> usize {
    m * row_stride(k)
}

/// Rows of pairs and of quanta in a panel for k rows.
pub(crate) fn packed_rows(k: usize) -> usize {
    k.div_ceil(2) + k.div_ceil(CHUNK)
}

/// Rounds the rows of A [m, k] into `out`.
pub(crate) fn round_rows(isa: Isa, (a, stride): (&[f32], usize), m: usize, k: usize, out: &mut [f32]) {
    assert!(a.len() >= extent(m, stride, k));
    assert!(out.len() >= half_rows_len(m, k), "no room for the rounded rows");
    rows_checked(isa, a, stride, m, k, out);
}

dispatch! {
    /// Sizes checked by the caller.
    fn rows_checked(a: &[f32], stride: usize, m: usize, k: usize, out: &mut [f32]) = rows_generic;
}

#[inline(always)]
fn rows_generic<S: Integers>(s: S, a: &[f32], stride: usize, m: usize, k: usize, out: &mut [f32]) {
    let out_stride = row_stride(k);
    for r in 0..m {
        for (chunk, k0) in (0..k).step_by(CHUNK).enumerate() {
            let len = CHUNK.min(k - k0);
            // SAFETY: the row holds k0 .. k0 + len; the chunk's pairs, rounded up to whole vectors, end before its quantum's line does,
            // and the quantum is written last.
            unsafe {
                let a = a.as_ptr().add(r * stride + k0);
                let to = out.as_mut_ptr().add(r * out_stride + chunk * ROW_CHUNK);
                let mut largest = s.repeat(0);
                for i in (0..len).step_by(S::LANES) {
                    largest = s.magnitude(largest, s.load_upto(a.add(i), len - i));
                }
                let (quantum, inverse) = quantum(s.largest_integer(largest));
                let inverse = s.splat(inverse);
                for i in (0..len).step_by(2 * S::LANES) {
                    let x = s.mul(s.load_upto(a.add(i), len - i), inverse);
                    let left = (len - i).saturating_sub(S::LANES);
                    let y = s.mul(s.load_upto(a.wrapping_add(i + S::LANES), left), inverse);
                    s.store_rounded(to.cast::<i32>().add(i / 2), x, y);
                }
                *to.add(len.div_ceil(2)) = quantum;
            }
        }
    }
}

/// Rounds a matrix B [k, n] that consists of `parts` into the panels `out`; sizes checked by the caller.
pub(crate) fn round_parts(isa: Isa, parts: &[Part<'_>], (k, n): (usize, usize), out: &mut [f32]) {
    let width = n.next_multiple_of(isa.lanes());
    assert!(out.len() >= extent(packed_rows(k), width, width));
    parts_checked(isa, parts, k, n, out);
}

dispatch! {
    /// Sizes checked by the caller.
    fn parts_checked(parts: &[Part<'_>], k: usize, n: usize, out: &mut [f32]) = parts_generic;
}

#[inline(always)]
fn parts_generic<S: Integers>(s: S, parts: &[Part<'_>], k: usize, n: usize, out: &mut [f32]) {
    // The chunk of a vector's columns, gathered here: where the parts lie, its rows are far apart and would throw each other out of the
    // cache before they are read again.
    let mut gathered = [0.0; 16 * CHUNK];
    for (number, k0) in (0..k).step_by(CHUNK).enumerate() {
        let len = CHUNK.min(k - k0);
        for (first, width) in panels(n.div_ceil(S::LANES), S::PAIR_TILE.1) {
            let stride = width * S::LANES;
            for v in first..first + width {
                let column = v * S::LANES;
                let columns = S::LANES.min(n - column);
                let chunk = &mut gathered[..len * S::LANES];
                if columns < S::LANES {
                    chunk.fill(0.0);
                }
                for part in parts.iter().filter_map(|part| part.within((k0, column), (len, columns))) {
                    part.copy(s, (len, S::LANES), chunk);
                }
                // SAFETY: the vector's part of the panel's chunk lies inside of `out`, whose size the caller has checked.
                unsafe {
                    let panel = out.as_mut_ptr().add(first * S::LANES * packed_rows(k));
                    let to = panel.add(number * (CHUNK / 2 + 1) * stride + (v - first) * S::LANES);
                    columns_into(s, (chunk.as_ptr(), S::LANES), len, S::LANES, (to, stride), 0);
                }
            }
        }
    }
}

/// Rounds X [k, n], with row stride `stride`, along its columns, in place: what [`gemm_transposed_half`] multiplies. Rows can be read
/// and written up to the next multiple of 16 numbers past n; one row more than k where k is one more than a multiple of [`CHUNK`].
///
/// # Panics
/// When X is smaller than that: a mistake in the caller, never of a user.
pub fn round_columns(isa: Isa, x: &mut [f32], k: usize, n: usize, stride: usize) {
    let width = n.next_multiple_of(16);
    assert!(stride >= width && x.len() >= extent(k, stride, width));
    assert!(x.len() >= extent(rounded_rows(k), stride, width), "no room for the last quanta");
    in_place_checked(isa, x, k, n, stride);
}

/// Rows of X from its first to that of its last quanta, for k rows of numbers.
pub fn rounded_rows(k: usize) -> usize {
    match k % CHUNK {
        0 => k.saturating_sub(CHUNK / 2 - 1),
        rest => k - rest + rest.div_ceil(2) + 1,
    }
}

dispatch! {
    /// Sizes checked by the caller.
    fn in_place_checked(x: &mut [f32], k: usize, n: usize, stride: usize) = in_place_generic;
}

#[inline(always)]
fn in_place_generic<S: Integers>(s: S, x: &mut [f32], k: usize, n: usize, stride: usize) {
    let x = x.as_mut_ptr();
    // SAFETY: `round_columns` has checked the size.
    unsafe { columns_into(s, (x, stride), k, n, (x, stride), CHUNK * stride) }
}

/// Rounds `columns` columns of k numbers, rows `stride` apart, into pairs and quanta with the same stride, chunks `chunk` apart.
///
/// # Safety
/// Rows of both are valid up to the next multiple of LANES columns. They may be the same memory: a row is written
/// only after those that it takes the place of have been read, but for those of the last chunk's quanta, which must lie behind.
#[inline(always)]
unsafe fn columns_into<S: Integers>(
    s: S,
    (from, from_stride): (*const f32, usize),
    k: usize,
    columns: usize,
    (to, to_stride): (*mut f32, usize),
    chunk: usize,
) {
    for c in (0..columns).step_by(S::LANES) {
        for (number, k0) in (0..k).step_by(CHUNK).enumerate() {
            let len = CHUNK.min(k - k0);
            // SAFETY: the caller's promise.
            unsafe {
                let from = from.add(k0 * from_stride + c);
                let mut to = to.add(number * chunk + c);
                let mut largest = s.repeat(0);
                for i in 0..len {
                    largest = s.magnitude(largest, s.load(from.add(i * from_stride)));
                }
                let (mut bits, mut quanta, mut inverses) = ([0; 16], [0.0; 16], [0.0; 16]);
                s.store_integers(bits.as_mut_ptr(), largest);
                for i in 0..S::LANES {
                    (quanta[i], inverses[i]) = quantum(bits[i]);
                }
                let inverse = s.load(inverses.as_ptr());
                for i in (0..len).step_by(2) {
                    let x = s.mul(s.load(from.add(i * from_stride)), inverse);
                    let y = if i + 1 < len {
                        s.mul(s.load(from.add((i + 1) * from_stride)), inverse)
                    } else {
                        s.splat(0.0)
                    };
                    s.store_integers(to.cast(), s.interleave(x, y));
                    to = to.add(to_stride);
                }
                s.store(to, s.load(quanta.as_ptr()));
            }
        }
    }
}

/// A rounded left operand and a panel of a rounded right one. `ROWS`: A by rows, else by columns, in place.
#[derive(Clone, Copy)]
struct Rounded<const ROWS: bool> {
    a: *const f32,
    /// From one row to the next of A as it is stored: of its rows, or of its columns' pairs.
    a_stride: usize,
    b: *const f32,
    b_stride: usize,
    /// From one chunk of B to the next.
    b_chunk: usize,
    k: usize,
}

impl<const ROWS: bool, S: Integers> Operands<S> for Rounded<ROWS> {
    const TILE: (usize, usize) = S::PAIR_TILE;

    #[inline(always)]
    fn steps(self) -> usize {
        self.k.div_ceil(2)
    }

    #[inline(always)]
    fn near(self) -> *const f32 {
        self.b
    }

    #[inline(always)]
    unsafe fn sums<const MR: usize, const V: usize>(self, s: S, r: usize, mut walk: Walk) -> [[S::V; V]; MR] {
        let (a_row, a_step) = if ROWS { (self.a_stride, 1) } else { (1, self.a_stride) };
        let a_chunk = if ROWS { ROW_CHUNK } else { CHUNK * self.a_stride };
        let mut total = [[s.splat(0.0); V]; MR];
        let (mut a_start, mut b_start) = (self.a.wrapping_add(r * a_row), self.b);
        for k0 in (0..self.k).step_by(CHUNK) {
            let pairs = CHUNK.min(self.k - k0).div_ceil(2);
            let (mut a, mut b) = (a_start, b_start);
            let mut sums = [[s.repeat(0); V]; MR];
            // SAFETY: the caller's promise for the chunk's pairs, and for the quanta behind them.
            unsafe {
                for _ in 0..pairs {
                    let mut row = [s.repeat(0); V];
                    for v in 0..V {
                        row[v] = s.load_integers(b.add(v * S::LANES).cast());
                    }
                    for i in 0..MR {
                        let x = s.repeat(*a.add(i * a_row).cast::<i32>());
                        for v in 0..V {
                            sums[i][v] = s.dot(x, row[v], sums[i][v]);
                        }
                    }
                    walk.ask(s);
                    a = a.add(a_step);
                    b = b.wrapping_add(self.b_stride);
                }
                let mut quanta = [s.splat(0.0); V];
                for v in 0..V {
                    quanta[v] = s.load(b.add(v * S::LANES));
                }
                for i in 0..MR {
                    let x = s.splat(*a.add(i * a_row));
                    for v in 0..V {
                        let quantum = s.mul(x, quanta[v]);
                        total[i][v] = s.fused(s.convert(sums[i][v]), quantum, total[i][v]);
                    }
                }
            }
            if !ROWS {
                // The next operands are rounded in place too: their quanta, then the next chunk.
                walk.ask(s);
                walk.skip(CHUNK - pairs - 1);
            }
            a_start = a_start.wrapping_add(a_chunk);
            b_start = b_start.wrapping_add(self.b_chunk);
        }
        total
    }
}

dispatch_pairs! {
    /// The product of rounded rows and rounded panels, sizes checked by the caller.
    pub(crate) fn gemm_checked(a: &[f32], b: &[f32], m: usize, n: usize, k: usize, init: Init<'_>, c: &mut [f32], c_stride: usize, ahead: &[&[f32]]) = gemm_generic;
}

#[inline(always)]
fn gemm_generic<S: Integers>(
    s: S,
    a: &[f32],
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
    let (rows, steps) = (packed_rows(k), k.div_ceil(2));
    for (number, (first, width)) in panels(vectors, S::PAIR_TILE.1).enumerate() {
        let (column, columns) = (first * S::LANES, width * S::LANES);
        // SAFETY: `gemm` has checked every operand against its shape; the panel lies inside of b, row tiles
        // inside of 0..m, columns inside of 0..n.
        unsafe {
            let b = b.as_ptr().add(column * rows);
            let c = c.as_mut_ptr().add(column);
            let init = init.from(column, n);
            let lines = match ahead.get(number) {
                Some(data) => Lines::all(data.as_ptr(), data.len(), steps),
                None if first + width < vectors => {
                    Lines::all(b.wrapping_add(columns * rows), columns * rows, steps)
                }
                None => Lines::Result,
            };
            let operands = Rounded::<true> {
                a: a.as_ptr(),
                a_stride: row_stride(k),
                b,
                b_stride: columns,
                b_chunk: (CHUNK / 2 + 1) * columns,
                k,
            };
            panel(s, width, operands, m, n - column, init, c, c_stride, lines);
        }
    }
}

/// [`gemm_transposed`](crate::gemm_transposed) in half precision: X and dY as [`round_columns`] has left them.
///
/// # Panics
/// When an operand is smaller than its shape: a mistake in the caller, never of a user.
pub fn gemm_transposed_half(
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
    let rows = rounded_rows(now.k);
    assert!(now.x.len() >= extent(rows, x_stride, m));
    assert!(now.dy.len() >= extent(rows, dy_stride, width));
    assert!(c_stride >= n && c.len() >= extent(m, c_stride, n));
    let init = if accumulate { Init::Accumulate } else { Init::Zero };
    transposed_checked(isa, now, Spread::new(ahead), (x_stride, dy_stride), (m, n), init, c, c_stride);
}

dispatch_pairs! {
    /// The product, sizes checked by the caller.
    fn transposed_checked(now: Stretch<'_>, ahead: Spread<'_>, strides: (usize, usize), shape: (usize, usize), init: Init<'_>, c: &mut [f32], c_stride: usize) = transposed_generic;
}

#[inline(always)]
fn transposed_generic<S: Integers>(
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
    let tiles = row_tiles(S::PAIR_TILE.0, m);
    let slots = tiles * panels(vectors, S::PAIR_TILE.1).count();
    for (number, (first, width)) in panels(vectors, S::PAIR_TILE.1).enumerate() {
        let column = first * S::LANES;
        // SAFETY: `gemm_transposed_half` has checked every operand against its shape.
        unsafe {
            let operands = Rounded::<false> {
                a: now.x.as_ptr(),
                a_stride: x_stride,
                b: now.dy.as_ptr().add(column),
                b_stride: dy_stride,
                b_chunk: CHUNK * dy_stride,
                k: now.k,
            };
            let c = c.as_mut_ptr().add(column);
            let lines = Lines::Spread { ahead, first: number * tiles, slots };
            panel(s, width, operands, m, n - column, init, c, c_stride, lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::gemm;
    use crate::packed::{Packed, Precision};
    use crate::testing::numbers;
    use proptest::prelude::*;

    /// A chunk's integers and its quantum, from the definition.
    fn plain_chunk(chunk: &[f32]) -> (Vec<i64>, f32) {
        if chunk.iter().any(|x| !x.is_finite()) {
            return (vec![0; chunk.len()], f32::NAN);
        }
        let largest = chunk.iter().fold(TINY, |m, x| m.max(x.abs()));
        let m = |x: &f32| (x * (LARGEST / largest)).round_ties_even() as i64;
        (chunk.iter().map(m).collect(), largest * (1.0 / LARGEST))
    }

    /// C = A B from the definition: A [m, k], B [k, n].
    fn plain(
        a: impl Fn(usize, usize) -> f32,
        b: impl Fn(usize, usize) -> f32,
        (m, n, k): (usize, usize, usize),
    ) -> Vec<f32> {
        let chunks = |at: &dyn Fn(usize) -> f32| {
            let all: Vec<f32> = (0..k).map(at).collect();
            all.chunks(CHUNK).map(plain_chunk).collect::<Vec<_>>()
        };
        let rows: Vec<_> = (0..m).map(|i| chunks(&|kk| a(i, kk))).collect();
        let columns: Vec<_> = (0..n).map(|j| chunks(&|kk| b(kk, j))).collect();
        let mut c = vec![0.0f32; m * n];
        for i in 0..m {
            for j in 0..n {
                for ((x, p), (y, q)) in rows[i].iter().zip(&columns[j]) {
                    let sum: i64 = x.iter().zip(y).map(|(x, y)| x * y).sum();
                    assert!(i32::try_from(sum).is_ok(), "a chunk's sum fits into 32 bits");
                    c[i * n + j] = (sum as f32).mul_add(p * q, c[i * n + j]);
                }
            }
        }
        c
    }

    /// Random numbers whose size changes from row to row and from chunk to chunk, by these powers of ten.
    fn sized(seed: u64, rows: usize, k: usize, powers: &[i32]) -> Vec<f32> {
        let mut x = numbers(seed, rows * k);
        for (i, x) in x.iter_mut().enumerate() {
            let (r, chunk) = (i / k, i % k / CHUNK);
            *x *= 10.0f32.powi(powers[(3 * r + 5 * chunk) % powers.len()]);
        }
        x
    }

    fn transposed(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
        (0..columns * rows).map(|i| x[i % rows * columns + i / rows]).collect()
    }

    /// The product of A [m, k] and the transpose of `bt` [n, k].
    fn rows_times(isa: Isa, a: &[f32], bt: &[f32], (m, n, k): (usize, usize, usize)) -> Vec<f32> {
        let mut packed = Packed::new(isa, Precision::Half, k, n);
        packed.pack(&[Part::transposed(bt, k, (0, 0), (k, n))]);
        let mut c = vec![f32::NAN; m * n];
        let mut scratch = vec![f32::NAN; half_rows_len(m, k)];
        gemm(isa, (a, k), &packed, m, Init::Zero, &mut c, n, &[], &mut scratch);
        c
    }

    /// The same from A and B by columns, as weight gradients have them, both rounded in place; twice, the second time added.
    fn columns_times(isa: Isa, a: &[f32], bt: &[f32], (m, n, k): (usize, usize, usize)) -> Vec<f32> {
        let (ld_x, ld_dy, ld_c) = (padded(m), padded(n), n + 3);
        let lay = |from: &[f32], width: usize, ld: usize| {
            let mut to = vec![f32::NAN; (k + 1) * ld];
            for kk in 0..k {
                for i in 0..width {
                    to[kk * ld + i] = from[i * k + kk];
                }
            }
            round_columns(isa, &mut to, k, width, ld);
            to
        };
        let (x, dy) = (lay(a, m, ld_x), lay(bt, n, ld_dy));
        let now = Stretch { x: &x, dy: &dy, k };
        let mut c = vec![7.0; m * ld_c];
        let ahead = now.sheets(Precision::Half, (ld_x, ld_dy), (m, n));
        gemm_transposed_half(isa, now, &ahead, (ld_x, ld_dy), (m, n), false, &mut c, ld_c);
        let once = c.clone();
        gemm_transposed_half(isa, now, &[], (ld_x, ld_dy), (m, n), true, &mut c, ld_c);
        for i in 0..m {
            assert!(c[i * ld_c + n..][..3].iter().all(|&c| c == 7.0), "writes past the row");
            for (twice, once) in c[i * ld_c..][..n].iter().zip(&once[i * ld_c..]) {
                assert!(*twice == once + once || once.is_nan());
            }
        }
        once.chunks(ld_c).flat_map(|row| row[..n].to_vec()).collect()
    }

    fn bits(x: &[f32]) -> Vec<u32> {
        // Which NaN it is does not matter; -0 does not occur in sums that start at 0.
        x.iter().map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() }).collect()
    }

    fn check(a: &[f32], bt: &[f32], shape: (usize, usize, usize)) {
        let k = shape.2;
        let expected = plain(|i, kk| a[i * k + kk], |kk, j| bt[j * k + kk], shape);
        for isa in Isa::available() {
            assert_eq!(bits(&rows_times(isa, a, bt, shape)), bits(&expected), "{isa} {shape:?}");
            assert_eq!(
                bits(&columns_times(isa, a, bt, shape)),
                bits(&expected),
                "{isa} {shape:?} by columns"
            );
        }
    }

    const SHAPES: [(usize, usize, usize); 11] = [
        (1, 1, 1),
        (8, 48, 128),
        (9, 49, 129),
        (13, 64, 33),
        (16, 27, 256),
        (3, 200, 19),
        (24, 112, 2),
        (7, 17, 300),
        (12, 33, 127),
        (8, 70, 385),
        (5, 17, 0),
    ];

    #[test]
    fn as_defined_bit_by_bit_on_every_instruction_set() {
        for (m, n, k) in SHAPES {
            check(&numbers(1, m * k), &numbers(2, n * k), (m, n, k));
            check(&sized(3, m, k, &[0, 2, -3]), &sized(4, n, k, &[-1, 5, 1, -8]), (m, n, k));
        }
    }

    #[test]
    fn the_largest_sums_fit() {
        // Every number the largest that its quantum allows.
        for x in [1.0, LARGEST, 0.1, 3e-7, -1e9] {
            let (m, n, k) = (8, 48, 256);
            let (a, b) = (vec![x; m * k], vec![-x; n * k]);
            check(&a, &b, (m, n, k));
            let c = rows_times(Isa::detect(), &a, &b, (m, n, k));
            let exact = -256.0 * f64::from(x) * f64::from(x);
            assert!(c.iter().all(|&c| (f64::from(c) / exact - 1.0).abs() < 1e-6), "{x}: {}", c[0]);
        }
    }

    #[test]
    fn other_forms_of_the_result() {
        for isa in Isa::available() {
            let (m, n, k) = (21, 70, 200);
            let (a, b) = (numbers(1, m * k), numbers(2, k * n));
            let bias = numbers(3, n);
            let bt = transposed(&b, k, n);
            let product = rows_times(isa, &a, &bt, (m, n, k));
            // Packed by rows, in two blocks whose border is none of a chunk.
            let mut packed = Packed::new(isa, Precision::Half, k, n);
            let rest = Part::new(&b[70 * n..], n, (70, 0), (k - 70, n));
            packed.pack(&[Part::new(&b, n, (0, 0), (70, n)), rest]);
            let start = numbers(4, m * n);
            for init in [Init::Zero, Init::Accumulate, Init::Bias(&bias), Init::AccumulateBias(&bias)] {
                let mut c = start.clone();
                let mut scratch = vec![0.0; half_rows_len(m, k)];
                gemm(isa, (&a, k), &packed, m, init, &mut c, n, &[&bias], &mut scratch);
                for i in 0..m * n {
                    let expected = match init {
                        Init::Zero => product[i],
                        Init::Accumulate => start[i] + product[i],
                        Init::Bias(bias) => product[i] + bias[i % n],
                        Init::AccumulateBias(bias) => start[i] + (product[i] + bias[i % n]),
                    };
                    assert_eq!(c[i], expected, "{isa} {init:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_spoils_its_row_or_column_and_nothing_else() {
        let (m, n, k) = (9, 20, 300);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
            for at in [0, 127, 130, 299] {
                let (mut a, mut b) = (numbers(1, m * k), numbers(2, n * k));
                a[4 * k + at] = bad;
                b[7 * k + at] = bad;
                check(&a, &b, (m, n, k));
                let c = rows_times(Isa::detect(), &a, &b, (m, n, k));
                for (i, c) in c.iter().enumerate() {
                    assert_eq!(c.is_finite(), i / n != 4 && i % n != 7, "{bad} at {at}: element {i}");
                }
            }
        }
    }

    #[test]
    fn zeros_are_zero() {
        let (m, n, k) = (9, 20, 300);
        let c = rows_times(Isa::detect(), &vec![-0.0; m * k], &numbers(1, n * k), (m, n, k));
        assert!(c.iter().all(|&c| c == 0.0));
        check(&vec![0.0; m * k], &numbers(1, n * k), (m, n, k));
    }

    /// Relative root mean square error, and the mean error in units of its own standard error.
    fn error(found: &[f32], exact: &[f64]) -> (f64, f64) {
        let (mut square, mut size, mut sum) = (0.0, 0.0, 0.0);
        for (&f, &e) in found.iter().zip(exact) {
            let d = f64::from(f) - e;
            square += d * d;
            size += e * e;
            sum += d;
        }
        ((square / size).sqrt(), sum / square.sqrt())
    }

    /// Like a normal distribution: sums of twelve.
    fn normal(seed: u64, n: usize) -> Vec<f32> {
        numbers(seed, 12 * n).chunks(12).map(|x| x.iter().sum::<f32>() / 2.0).collect()
    }

    #[test]
    fn the_error_is_small_and_has_no_bias() {
        let (m, n, k) = (96, 96, 512);
        let (a, b) = (normal(1, m * k), normal(2, n * k));
        let dot = |i: usize| -> f64 {
            (0..k).map(|kk| f64::from(a[i / n * k + kk]) * f64::from(b[i % n * k + kk])).sum()
        };
        let exact: Vec<f64> = (0..m * n).map(dot).collect();
        let (relative, bias) = error(&rows_times(Isa::detect(), &a, &b, (m, n, k)), &exact);
        // The largest of a chunk is about 2.7 times the root mean square, and the error uniform within a quantum: for each operand
        // 2.7 / LARGEST / sqrt(12).
        assert!((1.0e-4..3.5e-4).contains(&relative), "{relative:e}");
        assert!(bias.abs() < 4.0, "{bias}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_magnitude(
            (m, n, k) in (1usize..20, 1usize..60, 1usize..300),
            seed in 0u64..1 << 40,
            powers in prop::collection::vec(-30i32..31, 6),
        ) {
            // Powers of A and B that belong together cancel, so that results are ordinary numbers; chunks differ.
            let other: Vec<i32> = powers.iter().map(|p| -p).collect();
            let (a, b) = (sized(seed, m, k, &powers[..1]), sized(seed ^ 1, n, k, &other[..1]));
            check(&a, &b, (m, n, k));
            for (i, &c) in rows_times(Isa::detect(), &a, &b, (m, n, k)).iter().enumerate() {
                let (a, b) = (&a[i / n * k..][..k], &b[i % n * k..][..k]);
                let exact: f64 = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                let largest = |x: &[f32]| x.iter().fold(0.0f64, |m, x| m.max(f64::from(x.abs())));
                // Each number is off by half a quantum at most.
                let bound = 1.001 / f64::from(LARGEST) * k as f64 * largest(a) * largest(b);
                prop_assert!((f64::from(c) - exact).abs() <= bound, "{c} for {exact}, within {bound}");
            }
            // Anything with anything: small times small vanishes, large times large is infinite, as in f32.
            check(&sized(seed, m, k, &powers[..3]), &sized(seed ^ 1, n, k, &powers[3..]), (m, n, k));
        }
    }
}
