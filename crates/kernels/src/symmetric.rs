//! Products whose result is symmetric, at half the price.
//!
//! X^T X is symmetric, and so is the product of two symmetric matrices that commute (polynomials of one matrix do). Then only
//! the tiles on and above the diagonal are computed, and what is below is their mirror image. Both operands are read in place, rows
//! of `padded` numbers: each is used once or twice, and a copy into panels would cost more than it saves.
//!
//! Since only X^T Y is formed, a symmetric X needs no transposing either.

use crate::extent;
use crate::gemm::{Init, Left, Lines, Single, panel};
use crate::isa::dispatch;
use crate::packed::panels;
use crate::simd::Simd;

/// Tiles are mirrored in squares of this size.
const SQUARE: usize = 8;

/// The part of C = X^T Y (+ C if `accumulate`) on and above the diagonal, for X and Y [k, m] with row stride `stride`, C [m, m] likewise; what is
/// below the diagonal is left as it is, but for some tiles that reach over it. Rows can be read up to the next multiple of 16 numbers past m.
///
/// # Panics
/// When an operand is smaller than its shape: a mistake in the caller, never of a user.
pub(crate) fn gemm_upper(
    isa: crate::Isa,
    (x, y): (&[f32], &[f32]),
    (k, m): (usize, usize),
    stride: usize,
    accumulate: bool,
    c: &mut [f32],
) {
    let width = m.next_multiple_of(16);
    assert!(stride >= width && c.len() >= extent(m, stride, m));
    assert!(x.len() >= extent(k, stride, m) && y.len() >= extent(k, stride, width));
    let init = if accumulate { Init::Accumulate } else { Init::Zero };
    upper_checked(isa, x, y, k, m, stride, init, c);
}

dispatch! {
    /// The product, sizes checked by the caller.
    fn upper_checked(x: &[f32], y: &[f32], k: usize, m: usize, stride: usize, init: Init<'_>, c: &mut [f32]) = upper_generic;
}

#[inline(always)]
fn upper_generic<S: Simd>(
    s: S,
    x: &[f32],
    y: &[f32],
    k: usize,
    m: usize,
    stride: usize,
    init: Init<'_>,
    c: &mut [f32],
) {
    let x = Left::Columns { data: x, stride };
    for (first, width) in panels(m.div_ceil(S::LANES), S::TILE.1) {
        let column = first * S::LANES;
        // Down to the end of the square around the panel's last place on the diagonal.
        let rows = (column + width * S::LANES).next_multiple_of(SQUARE).min(m);
        // SAFETY: `gemm_upper` has checked every operand against its shape.
        unsafe {
            let y = y.as_ptr().add(column);
            let c = c.as_mut_ptr().add(column);
            let operands = Single { a: x, b: y, b_stride: stride, k };
            panel(s, width, operands, rows, m - column, init, c, stride, Lines::Result);
        }
    }
}

/// C = X Y for X [n, m] and Y [m, m] with row stride `stride`, C [n, m] likewise.
///
/// # Panics
/// When an operand is smaller than its shape: a mistake in the caller, never of a user.
pub(crate) fn gemm_in_place(
    isa: crate::Isa,
    (x, y): (&[f32], &[f32]),
    (n, m): (usize, usize),
    stride: usize,
    c: &mut [f32],
) {
    let width = m.next_multiple_of(16);
    assert!(stride >= width && c.len() >= extent(n, stride, m));
    assert!(x.len() >= extent(n, stride, m) && y.len() >= extent(m, stride, width));
    in_place_checked(isa, x, y, n, m, stride, c);
}

dispatch! {
    /// The product, sizes checked by the caller.
    fn in_place_checked(x: &[f32], y: &[f32], n: usize, m: usize, stride: usize, c: &mut [f32]) = in_place_generic;
}

#[inline(always)]
fn in_place_generic<S: Simd>(s: S, x: &[f32], y: &[f32], n: usize, m: usize, stride: usize, c: &mut [f32]) {
    let x = Left::Rows { data: x, stride };
    for (first, width) in panels(m.div_ceil(S::LANES), S::TILE.1) {
        let column = first * S::LANES;
        // SAFETY: `gemm_in_place` has checked every operand against its shape.
        unsafe {
            let y = y.as_ptr().add(column);
            let c = c.as_mut_ptr().add(column);
            let operands = Single { a: x, b: y, b_stride: stride, k: m };
            panel(s, width, operands, n, m - column, Init::Zero, c, stride, Lines::Result);
        }
    }
}

/// out = a I + b A + c S, all [m, m] with row stride `stride`: A is whole and symmetric, S what [`gemm_upper`] left, `out` becomes
/// whole and symmetric.
pub(crate) fn polynomial(
    isa: crate::Isa,
    m: usize,
    stride: usize,
    coefficients: [f32; 3],
    (a, s): (&[f32], &[f32]),
    out: &mut [f32],
) {
    let len = extent(m, stride, m);
    assert!(stride >= m && a.len() >= len && s.len() >= len && out.len() >= len);
    polynomial_checked(isa, m, stride, coefficients, a, s, out);
}

/// out = `factor` S, [m, m] with row stride `stride`: S is what [`gemm_upper`] left, `out` becomes whole and symmetric.
pub(crate) fn mirrored(isa: crate::Isa, m: usize, stride: usize, factor: f32, s: &[f32], out: &mut [f32]) {
    polynomial(isa, m, stride, [0.0, 0.0, factor], (s, s), out);
}

dispatch! {
    /// The polynomial, sizes checked by the caller.
    fn polynomial_checked(m: usize, stride: usize, coefficients: [f32; 3], a: &[f32], s: &[f32], out: &mut [f32]) = polynomial_generic;
}

#[inline(always)]
fn polynomial_generic<S: Simd>(
    s: S,
    m: usize,
    stride: usize,
    coefficients: [f32; 3],
    a: &[f32],
    square: &[f32],
    out: &mut [f32],
) {
    let [_, linear, quadratic] = coefficients.map(|x| s.splat(x));
    for i in 0..m {
        let row = i * stride;
        for j in (i / SQUARE * SQUARE..m).step_by(S::LANES) {
            let left = m - j;
            // SAFETY: row i of all three holds m numbers.
            unsafe {
                let a = s.load_upto(a.as_ptr().add(row + j), left);
                let x =
                    s.mul_add(quadratic, s.load_upto(square.as_ptr().add(row + j), left), s.mul(linear, a));
                s.store_upto(out.as_mut_ptr().add(row + j), x, left);
            }
        }
    }
    mirror_generic(s, m, stride, out);
    for i in 0..m {
        out[i * stride + i] += coefficients[0];
    }
}

/// Makes what [`gemm_upper`] left in `c` whole.
pub(crate) fn mirror(isa: crate::Isa, m: usize, stride: usize, c: &mut [f32]) {
    assert!(stride >= m && c.len() >= extent(m, stride, m));
    mirror_checked(isa, m, stride, c);
}

dispatch! {
    /// The mirror image, sizes checked by the caller.
    fn mirror_checked(m: usize, stride: usize, c: &mut [f32]) = mirror_generic;
}

#[inline(always)]
fn mirror_generic<S: Simd>(s: S, m: usize, stride: usize, c: &mut [f32]) {
    let whole = m / SQUARE * SQUARE;
    for i in (0..whole).step_by(SQUARE) {
        for j in (i + SQUARE..whole).step_by(SQUARE) {
            // SAFETY: two squares inside of the matrix, on either side of the diagonal.
            unsafe {
                let to = c.as_mut_ptr();
                s.transpose8(to.add(i * stride + j).cast_const(), stride, to.add(j * stride + i), stride);
            }
        }
    }
    // The squares on the diagonal are there in full, but rounded on both sides; what is not exactly symmetric would grow.
    for j in 0..m {
        for i in if j < whole { j / SQUARE * SQUARE } else { 0 }..j {
            c[j * stride + i] = c[i * stride + j];
        }
    }
}

/// The sum of squares of the whole symmetric matrix [m, m] whose upper part [`gemm_upper`] left in `s`. In f64, row by row.
pub(crate) fn sum_of_squares(isa: crate::Isa, m: usize, stride: usize, s: &[f32]) -> f64 {
    let mut sum = 0.0;
    for i in 0..m {
        let row = &s[i * stride..i * stride + m];
        // The square on the diagonal is there in full; what is right of it stands for two.
        let (first, end) = (i / SQUARE * SQUARE, (i / SQUARE * SQUARE + SQUARE).min(m));
        sum += f64::from(crate::vector::sum_of_squares(isa, &row[first..end]));
        sum += 2.0 * f64::from(crate::vector::sum_of_squares(isa, &row[end..]));
    }
    sum
}

/// `out` [columns, rows] = the transpose of `x` [rows, columns], with these row strides.
pub(crate) fn transpose(
    isa: crate::Isa,
    (x, x_stride): (&[f32], usize),
    (rows, columns): (usize, usize),
    (out, out_stride): (&mut [f32], usize),
) {
    assert!(x_stride >= columns && x.len() >= extent(rows, x_stride, columns));
    assert!(out_stride >= rows && out.len() >= extent(columns, out_stride, rows));
    transpose_checked(isa, x, x_stride, rows, columns, out, out_stride);
}

dispatch! {
    /// The transpose, sizes checked by the caller.
    fn transpose_checked(x: &[f32], x_stride: usize, rows: usize, columns: usize, out: &mut [f32], out_stride: usize) = transpose_generic;
}

#[inline(always)]
fn transpose_generic<S: Simd>(
    s: S,
    x: &[f32],
    x_stride: usize,
    rows: usize,
    columns: usize,
    out: &mut [f32],
    out_stride: usize,
) {
    let (whole_rows, whole_columns) = (rows / SQUARE * SQUARE, columns / SQUARE * SQUARE);
    for r in (0..whole_rows).step_by(SQUARE) {
        for c in (0..whole_columns).step_by(SQUARE) {
            // SAFETY: whole squares inside of both matrices.
            unsafe {
                let to = out.as_mut_ptr().add(c * out_stride + r);
                s.transpose8(x.as_ptr().add(r * x_stride + c), x_stride, to, out_stride);
            }
        }
    }
    for r in 0..rows {
        for c in if r < whole_rows { whole_columns } else { 0 }..columns {
            out[c * out_stride + r] = x[r * x_stride + c];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, numbers};
    use crate::{Isa, padded};

    #[test]
    fn products_polynomials_and_squares_of_awkward_sizes() {
        for isa in Isa::available() {
            for (k, m) in [(1, 1), (9, 7), (33, 20), (100, 49), (64, 64), (40, 131), (300, 96)] {
                let ld = padded(m);
                let what = format!("{isa} {k} x {m}");
                let x = numbers(1, k * ld);
                let gram = |i: usize, j: usize| -> f64 {
                    (0..k).map(|r| f64::from(x[r * ld + i]) * f64::from(x[r * ld + j])).sum()
                };
                // In two stretches, the second accumulated.
                let (mut s, first) = (vec![f32::NAN; m * ld], k / 3);
                gemm_upper(isa, (&x, &x), (first, m), ld, false, &mut s);
                let rest = &x[first * ld..];
                gemm_upper(isa, (rest, rest), (k - first, m), ld, true, &mut s);
                let mut a = vec![f32::NAN; m * ld];
                mirrored(isa, m, ld, 0.5, &s, &mut a);
                let plain: Vec<f64> = (0..m * m).map(|at| 0.5 * gram(at / m, at % m)).collect();
                for i in 0..m {
                    assert_close(&a[i * ld..i * ld + m], &plain[i * m..(i + 1) * m], 1e-5, &what);
                }
                let sum: f64 = plain.iter().map(|x| 4.0 * x * x).sum();
                assert!((sum_of_squares(isa, m, ld, &s) / sum - 1.0).abs() < 1e-5, "{what}");
                let mut whole = s.clone();
                mirror(isa, m, ld, &mut whole);
                assert!(
                    (0..m * m).all(|at| 0.5 * whole[at / m * ld + at % m] == a[at / m * ld + at % m]),
                    "{what}"
                );
                // A second polynomial of the same matrix commutes with it.
                let mut out = vec![f32::NAN; m * ld];
                polynomial(isa, m, ld, [3.0, -2.0, 0.25], (&a, &s), &mut out);
                for i in 0..m {
                    let row: Vec<f64> =
                        (0..m).map(|j| -1.5 * plain[i * m + j] + if i == j { 3.0 } else { 0.0 }).collect();
                    assert_close(&out[i * ld..i * ld + m], &row, 1e-5, &what);
                }
                let mut c = vec![f32::NAN; k * ld];
                gemm_in_place(isa, (&x, &a), (k, m), ld, &mut c);
                for r in 0..k {
                    let row: Vec<f64> = (0..m)
                        .map(|j| (0..m).map(|i| f64::from(x[r * ld + i]) * plain[i * m + j]).sum())
                        .collect();
                    assert_close(&c[r * ld..r * ld + m], &row, 1e-5, &what);
                }
                let mut t = vec![f32::NAN; m * (k + 3)];
                transpose(isa, (&x, ld), (k, m), (&mut t, k + 3));
                assert!((0..k).all(|r| (0..m).all(|i| t[i * (k + 3) + r] == x[r * ld + i])), "{what}");
            }
        }
    }
}
