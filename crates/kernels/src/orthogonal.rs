//! Muon's step (Jordan, 2024): a matrix goes towards the orthogonal matrix that is nearest to its momentum.
//!
//! For U = W S V^T that is W V^T: all singular values become 1. It is not computed exactly. An odd polynomial
//! x (a + b x^2 + c x^4 + ...), applied to a matrix as U (a I + b A + c A^2 + ...) with A = U^T U, acts on the singular values alone,
//! and a few of them one after the other bring every value that is not too small near to 1 (the "Newton-Schulz" iteration). Four
//! choices make it cheap:
//!
//! **All work is on the small side.** The polynomials of the steps are polynomials of one matrix, A = U^T U [m, m], m the smaller
//! side of U: they commute, their products are symmetric and cost half ([`crate::symmetric`]), and U itself is
//! multiplied once, at the end, by the product P of all of them. A step with the polynomial B of A is P B for P and
//! A B^2 for A.
//!
//! **The polynomials are of degree 9.** With S = A^2 a step is a + b A + S (c + d A + e S): two products, where the usual degree 5 takes
//! one. With the two for A and the one for P, which a step costs anyway, three steps of degree 9 are 12 products
//! of [m, m], four of degree 5 are 13, and 9^3 is more than 5^4.
//!
//! **The start is scaled well.** The polynomials want singular values in 0 ..= 1, the larger the better. The usual bound for the largest
//! one is the root of the sum of their squares; the first step computes A^2 anyway, and (sum of s^8)^(1/8) = |A^2|^(1/4) is a bound that
//! is up to m^(3/8) times closer (8 times for m = 256).
//!
//! **The polynomials are the best ones.** Each has the smallest largest distance from 1 on the interval that the one before it left
//! (Amsel et al., "The Polar Express", 2025), beginning with 0.002 ..= 1.

use crate::buffer::Buffer;
use crate::gemm::padded;
use crate::isa::{Isa, dispatch};
use crate::simd::Simd;
use crate::symmetric::{gemm_in_place, gemm_upper, mirror, mirrored, polynomial, sum_of_squares, transpose};
use crate::vector;

/// a, b, c, d, e of each step: what is between 0.002 and 1 comes to lie within 1 +- 0.23, what is smaller grows 423 times.
const STEPS: [[f32; 5]; 3] = [
    [14.937_262, -146.249_37, 486.661_1, -625.530_3, 272.151_37],
    [6.759_616, -16.349_737, 13.842_081, -4.556_161_4, 0.508_881_87],
    [4.188_235_3, -8.776_878, 7.944_614, -2.958_828_4, 0.382_719_7],
];

/// Products of [m, m] that the steps take, apart from the first, A.
const PRODUCTS: usize = 2 * STEPS.len() + 3 * (STEPS.len() - 1);

/// The bound for the largest singular value may be too small by rounding: by so much it is enlarged.
const SAFETY: f64 = 1.01;

/// Rows of the tall matrix that are multiplied at a time: with the small one they have room in the second-level cache.
const ROWS: usize = 256;

/// What is needed to orthogonalise matrices with sides of at most `small` and `large` numbers.
pub struct OrthogonalScratch {
    /// The matrix, upright: [large, small].
    x: Buffer,
    /// And its product [large, small].
    y: Buffer,
    /// Five [small, small].
    squares: [Buffer; 5],
    /// Some rows of a transposed result [8, large].
    strip: Buffer,
}

impl OrthogonalScratch {
    /// For matrices whose smaller and larger sides are at most these.
    pub fn new(small: usize, large: usize) -> Self {
        let ld = padded(small);
        Self {
            x: Buffer::zeroed(large * ld),
            y: Buffer::zeroed(large * ld),
            squares: std::array::from_fn(|_| Buffer::zeroed(small * ld)),
            strip: Buffer::zeroed(8 * large),
        }
    }

    /// Bytes that [`OrthogonalScratch::new`] allocates.
    pub fn bytes(small: usize, large: usize) -> usize {
        4 * ((2 * large + 5 * small) * padded(small) + 8 * large)
    }
}

/// The numbers of one step of Muon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MuonUpdate {
    /// Step size, for a matrix that is not wider than high.
    pub learning_rate: f32,
    /// What is left of a parameter before the step: 1 - learning_rate x weight decay.
    pub keep: f32,
}

/// Floating-point operations of [`muon`] on a matrix, symmetric products counted as half.
pub fn muon_flop((rows, columns): (usize, usize)) -> f64 {
    let (m, n) = (rows.min(columns) as f64, rows.max(columns) as f64);
    m * m * (3.0 * n + PRODUCTS as f64 * m)
}

dispatch! {
    /// m = momentum m + (1 - momentum) g, then g = momentum m + (1 - momentum) g: what is orthogonalised (Nesterov's look ahead).
    pub fn look_ahead(momentum: f32, g: &mut [f32], m: &mut [f32]) = look_ahead_generic;
}

#[inline(always)]
fn look_ahead_generic<S: Simd>(s: S, momentum: f32, g: &mut [f32], m: &mut [f32]) {
    let n = g.len();
    assert_eq!(n, m.len());
    let (decay, rest) = (s.splat(momentum), s.splat(1.0 - momentum));
    for j in (0..n).step_by(S::LANES) {
        let left = n - j;
        // SAFETY: j < n, the length of both.
        unsafe {
            let (pg, pm) = (g.as_mut_ptr().add(j), m.as_mut_ptr().add(j));
            let fresh = s.mul(rest, s.load_upto(pg, left));
            let m = s.mul_add(decay, s.load_upto(pm, left), fresh);
            s.store_upto(pm, m, left);
            s.store_upto(pg, s.mul_add(decay, m, fresh), left);
        }
    }
}

dispatch! {
    /// p = keep p + factor x.
    fn step_along(keep: f32, factor: f32, x: &[f32], p: &mut [f32]) = step_along_generic;
}

#[inline(always)]
fn step_along_generic<S: Simd>(s: S, keep: f32, factor: f32, x: &[f32], p: &mut [f32]) {
    let n = x.len();
    assert_eq!(n, p.len());
    let (keep, factor) = (s.splat(keep), s.splat(factor));
    for j in (0..n).step_by(S::LANES) {
        let left = n - j;
        // SAFETY: j < n, the length of both.
        unsafe {
            let to = p.as_mut_ptr().add(j);
            let p = s.mul(keep, s.load_upto(to, left));
            s.store_upto(to, s.mul_add(factor, s.load_upto(x.as_ptr().add(j), left), p), left);
        }
    }
}

/// p = keep p - learning_rate sqrt(max(1, columns / rows)) O for matrices [rows, columns], O being `u` with all its singular values
/// brought near to 1. `u` of zeros is a step of zero.
///
/// # Panics
/// When the scratch was made for smaller matrices: a mistake in the caller.
pub fn muon(
    isa: Isa,
    update: &MuonUpdate,
    (rows, columns): (usize, usize),
    u: &[f32],
    p: &mut [f32],
    scratch: &mut OrthogonalScratch,
) {
    assert!(u.len() == rows * columns && p.len() == u.len());
    let (small, large) = (rows.min(columns), rows.max(columns));
    let wide = columns > rows;
    let (ld, keep) = (padded(small), update.keep);
    let factor = orthogonalise(isa, u, (rows, columns), scratch);
    let step = -update.learning_rate * (columns as f32 / rows as f32).max(1.0).sqrt() * factor;
    if !wide {
        for (r, p) in p.chunks_exact_mut(columns).enumerate() {
            step_along(isa, keep, step, &scratch.y[r * ld..][..columns], p);
        }
        return;
    }
    for (first, p) in p.chunks_mut(8 * columns).enumerate() {
        let count = p.len() / columns;
        let y = &scratch.y[8 * first..];
        transpose(isa, (y, ld), (large, count), (&mut scratch.strip, columns));
        for (p, y) in p.chunks_exact_mut(columns).zip(scratch.strip.chunks_exact(columns)) {
            step_along(isa, keep, step, y, p);
        }
    }
}

/// Writes `u`, upright, with its singular values brought near to 1 into `scratch.y`, but for a factor, which it returns.
fn orthogonalise(
    isa: Isa,
    u: &[f32],
    (rows, columns): (usize, usize),
    scratch: &mut OrthogonalScratch,
) -> f32 {
    let (m, n) = (rows.min(columns), rows.max(columns));
    let ld = padded(m);
    let OrthogonalScratch { x, y, squares, .. } = scratch;
    let [a, b, c, p, s] = squares;
    // Upright, and of length 1: no power of a singular value is too large or too small for f32.
    let length: f64 = u.chunks(1024).map(|u| f64::from(vector::sum_of_squares(isa, u))).sum::<f64>().sqrt();
    if length == 0.0 {
        y[..n * ld].fill(0.0);
        return 0.0;
    }
    let unit = (1.0 / length) as f32;
    if columns > rows {
        transpose(isa, (u, columns), (rows, columns), (x, ld));
    } else {
        for (u, x) in u.chunks_exact(columns).zip(x.chunks_exact_mut(ld)) {
            x[..m].copy_from_slice(u);
        }
    }
    for x in x[..n * ld].chunks_exact_mut(ld) {
        vector::scale(isa, unit, &mut x[..m]);
    }
    // A = X^T X, S = A^2.
    for (i, x) in x[..n * ld].chunks(ROWS * ld).enumerate() {
        gemm_upper(isa, (x, x), (x.len() / ld, m), ld, i > 0, s);
    }
    mirrored(isa, m, ld, 1.0, s, a);
    gemm_upper(isa, (a, a), (m, m), ld, false, s);
    let bound = SAFETY * sum_of_squares(isa, m, ld, s).powf(0.125);
    // From here on X / bound is meant; the division is left to the last factor, A and S take it with the first step.
    let (mut of_a, mut of_s) = ((bound.powi(-2)) as f32, (bound.powi(-4)) as f32);
    for (i, step) in STEPS.into_iter().enumerate() {
        if i > 0 {
            gemm_upper(isa, (a, a), (m, m), ld, false, s);
        }
        mirror(isa, m, ld, s);
        polynomial(isa, m, ld, [step[2], of_a * step[3], of_s * step[4]], (a, s), c);
        gemm_upper(isa, (s, c), (m, m), ld, false, b);
        polynomial(isa, m, ld, [step[0], of_a * step[1], of_s], (a, b), s);
        std::mem::swap(b, s);
        if i > 0 {
            gemm_upper(isa, (b, p), (m, m), ld, false, s);
            mirrored(isa, m, ld, 1.0, s, p);
        }
        if i + 1 < STEPS.len() {
            gemm_upper(isa, (b, a), (m, m), ld, false, s);
            mirrored(isa, m, ld, of_a, s, c);
            gemm_upper(isa, (b, c), (m, m), ld, false, s);
            mirrored(isa, m, ld, 1.0, s, a);
        }
        if i == 0 {
            // The first P.
            std::mem::swap(b, p);
        }
        (of_a, of_s) = (1.0, 1.0);
    }
    for (x, y) in x[..n * ld].chunks(ROWS * ld).zip(y.chunks_mut(ROWS * ld)) {
        gemm_in_place(isa, (x, p), (x.len() / ld, m), ld, y);
    }
    (1.0 / bound) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, numbers};

    /// The same in f64, one step after the other on the whole matrix, upright or not.
    fn plain(u: &[f32], rows: usize, columns: usize) -> Vec<f64> {
        let product = |a: &[f64], b: &[f64], n: usize, k: usize, m: usize| -> Vec<f64> {
            (0..n * m).map(|at| (0..k).map(|i| a[at / m * k + i] * b[i * m + at % m]).sum()).collect()
        };
        let transposed = |a: &[f64], rows: usize, columns: usize| -> Vec<f64> {
            (0..rows * columns).map(|at| a[at % rows * columns + at / rows]).collect()
        };
        let mut x: Vec<f64> = u.iter().map(|&u| f64::from(u)).collect();
        let gram = |x: &[f64]| product(&transposed(x, rows, columns), x, columns, rows, columns);
        let a = gram(&x);
        let s = product(&a, &a, columns, columns, columns);
        let bound = SAFETY * s.iter().map(|s| s * s).sum::<f64>().powf(0.125);
        x.iter_mut().for_each(|x| *x /= bound);
        for step in STEPS {
            let step = step.map(f64::from);
            let a = gram(&x);
            let mut b = vec![0.0; columns * columns];
            for coefficient in step.into_iter().rev() {
                b = product(&b, &a, columns, columns, columns);
                b.iter_mut().step_by(columns + 1).for_each(|b| *b += coefficient);
            }
            x = product(&x, &b, rows, columns, columns);
        }
        x
    }

    #[test]
    fn as_in_f64_step_by_step() {
        for isa in Isa::available() {
            let mut scratch = OrthogonalScratch::new(64, 300);
            for (rows, columns) in
                [(64, 64), (20, 50), (50, 20), (1, 1), (1, 9), (9, 1), (300, 33), (33, 100)]
            {
                let what = format!("{isa} {rows} x {columns}");
                let (u, start) = (numbers(1, rows * columns), numbers(2, rows * columns));
                // Very small gradients and very large ones have the same direction.
                for size in [1.0, 1e-14, 1e14] {
                    let u: Vec<f32> = u.iter().map(|u| u * size).collect();
                    let mut p = start.clone();
                    let update = MuonUpdate { learning_rate: 0.1, keep: 0.5 };
                    muon(isa, &update, (rows, columns), &u, &mut p, &mut scratch);
                    let factor = -0.1 * (columns as f64 / rows as f64).max(1.0).sqrt();
                    // Squares of singular values in f32 are off by 1e-7 of the largest: that is much of the smallest, so what counts is the
                    // step as a whole.
                    let (mut apart, mut whole) = (0.0, 0.0);
                    for ((x, &start), &p) in plain(&u, rows, columns).iter().zip(&start).zip(&p) {
                        let step = f64::from(p) - 0.5 * f64::from(start);
                        apart += (step - factor * x).powi(2);
                        whole += (factor * x).powi(2);
                    }
                    let error = (apart / whole).sqrt();
                    assert!(error < 1e-2, "{what}, size {size}: off by {error:.1e}");
                }
            }
            let mut p = vec![2.0; 12];
            let update = MuonUpdate { learning_rate: 0.1, keep: 0.5 };
            muon(isa, &update, (3, 4), &[0.0; 12], &mut p, &mut scratch);
            assert_eq!(p, [1.0; 12], "no gradient, no step");
        }
    }

    #[test]
    fn singular_values_come_near_to_one() {
        // Values are what the steps do to diagonal matrices, of every size down to the smallest promised.
        let m = 48;
        let diagonal = |i: usize| 0.0025f32.powf(i as f32 / (m - 1) as f32);
        let u: Vec<f32> =
            (0..m * m).map(|at| if at / m == at % m { diagonal(at / m) } else { 0.0 }).collect();
        for isa in Isa::available() {
            let mut p = vec![0.0; m * m];
            let update = MuonUpdate { learning_rate: -1.0, keep: 1.0 };
            muon(isa, &update, (m, m), &u, &mut p, &mut OrthogonalScratch::new(m, m));
            for i in 0..m {
                assert!((0.7..1.3).contains(&p[i * m + i]), "{isa}: {} became {}", diagonal(i), p[i * m + i]);
                assert!(p[i * m..(i + 1) * m].iter().enumerate().all(|(j, &x)| i == j || x == 0.0));
            }
        }
    }

    #[test]
    fn momentum_looks_ahead() {
        for isa in Isa::available() {
            let n = 37;
            let (mut m, mut wide) = (vec![0.0; n], vec![0.0f64; n]);
            for t in 0..4 {
                let mut g = numbers(t, n);
                let expected: Vec<f64> = (0..n)
                    .map(|i| {
                        wide[i] = 0.95 * wide[i] + 0.05 * f64::from(g[i]);
                        0.95 * wide[i] + 0.05 * f64::from(g[i])
                    })
                    .collect();
                look_ahead(isa, 0.95, &mut g, &mut m);
                assert_close(&g, &expected, 1e-6, "ahead");
                assert_close(&m, &wide, 1e-6, "momentum");
            }
        }
    }
}
