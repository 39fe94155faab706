//! RMSNorm over rows, without parameters (Zhang and Sennrich, 2019).
//!
//! y = x rstd, rstd = 1 / sqrt(mean(x^2) + epsilon). The backward pass needs y and rstd, not x: y is at once what the layer behind
//! reads and what is kept.

use crate::extent;
use crate::isa::dispatch;
use crate::simd::Simd;

dispatch! {
    /// y = RMSNorm(x) for `m` rows of `n` numbers, both with row stride `stride`; keeps `rstd` [m].
    pub fn rms_norm(x: &[f32], m: usize, n: usize, stride: usize, epsilon: f32, rstd: &mut [f32], y: &mut [f32]) = forward;
}

#[inline(always)]
fn forward<S: Simd>(
    s: S,
    x: &[f32],
    m: usize,
    n: usize,
    stride: usize,
    epsilon: f32,
    rstd: &mut [f32],
    y: &mut [f32],
) {
    assert!(stride >= n && rstd.len() >= m && x.len().min(y.len()) >= extent(m, stride, n));
    for r in 0..m {
        // SAFETY: row r of both matrices holds n numbers, asserted.
        unsafe {
            let (x, y) = (x.as_ptr().add(r * stride), y.as_mut_ptr().add(r * stride));
            let root = reciprocal_root(s, x, n, epsilon);
            rstd[r] = root;
            let root = s.splat(root);
            for j in (0..n).step_by(S::LANES) {
                s.store_upto(y.add(j), s.mul(s.load_upto(x.add(j), n - j), root), n - j);
            }
        }
    }
}

/// 1 / sqrt(mean(x^2) + epsilon).
///
/// # Safety
/// `x` is valid for reading `n` numbers.
#[inline(always)]
pub(crate) unsafe fn reciprocal_root<S: Simd>(s: S, x: *const f32, n: usize, epsilon: f32) -> f32 {
    let mut squares = s.splat(0.0);
    for j in (0..n).step_by(S::LANES) {
        // SAFETY: the caller's promise; lanes past the end are zeros.
        let x = unsafe { s.load_upto(x.add(j), n - j) };
        squares = s.mul_add(x, x, squares);
    }
    1.0 / (s.sum(squares) * (1.0 / n as f32) + epsilon).sqrt()
}

dispatch! {
    /// dx = residual + d loss / dx for dy = d loss / dy, y and rstd as they were kept; no residual counts as zeros.
    ///
    /// d loss / dx = rstd (dy - y mean(dy y)).
    pub fn rms_norm_backward(dy: &[f32], m: usize, n: usize, stride: usize, y: &[f32], rstd: &[f32], residual: Option<&[f32]>, dx: &mut [f32]) = backward;
}

#[inline(always)]
fn backward<S: Simd>(
    s: S,
    dy: &[f32],
    m: usize,
    n: usize,
    stride: usize,
    y: &[f32],
    rstd: &[f32],
    residual: Option<&[f32]>,
    dx: &mut [f32],
) {
    let shortest = dy.len().min(y.len()).min(dx.len()).min(residual.unwrap_or(dy).len());
    assert!(stride >= n && rstd.len() >= m && shortest >= extent(m, stride, n));
    let inverse = 1.0 / n as f32;
    for r in 0..m {
        // SAFETY: row r of every matrix holds n numbers, asserted.
        unsafe {
            let (dy, y) = (dy.as_ptr().add(r * stride), y.as_ptr().add(r * stride));
            let dx = dx.as_mut_ptr().add(r * stride);
            let residual = residual.map(|x| x.as_ptr().add(r * stride));
            let mut dot = s.splat(0.0);
            for j in (0..n).step_by(S::LANES) {
                dot = s.mul_add(s.load_upto(dy.add(j), n - j), s.load_upto(y.add(j), n - j), dot);
            }
            let mean = s.splat(s.sum(dot) * inverse);
            let root = s.splat(rstd[r]);
            for j in (0..n).step_by(S::LANES) {
                let left = n - j;
                let e = s.neg_mul_add(s.load_upto(y.add(j), left), mean, s.load_upto(dy.add(j), left));
                let start = residual.map_or(s.splat(0.0), |x| s.load_upto(x.add(j), left));
                s.store_upto(dx.add(j), s.mul_add(e, root, start), left);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::{assert_close, numbers};
    use diapason_reference::rms_norm as plain;

    #[test]
    fn as_the_reference() {
        for isa in Isa::available() {
            for (m, n, pad) in [(3, 64, 16), (2, 37, 0), (4, 1, 3), (1, 15, 1), (2, 256, 16)] {
                let stride = n + pad;
                let x = numbers(1, m * stride);
                let (mut y, mut rstd) = (vec![9.0; m * stride], vec![0.0; m]);
                rms_norm(isa, &x, m, n, stride, 1e-6, &mut rstd, &mut y);
                let (dy, residual) = (numbers(2, m * stride), numbers(3, m * stride));
                for residual in [None, Some(&residual[..])] {
                    let mut dx = vec![9.0; m * stride];
                    rms_norm_backward(isa, &dy, m, n, stride, &y, &rstd, residual, &mut dx);
                    for r in 0..m {
                        let wide = |v: &[f32]| -> Vec<f64> {
                            v[r * stride..][..n].iter().map(|&x| f64::from(x)).collect()
                        };
                        let what = format!("{isa} {m} x {n} row {r}");
                        assert_close(&y[r * stride..][..n], &plain::forward(&wide(&x), n), 1e-6, &what);
                        let mut expected = plain::backward(&wide(&x), n, &wide(&dy));
                        if let Some(residual) = residual {
                            expected.iter_mut().zip(wide(residual)).for_each(|(x, start)| *x += start);
                        }
                        assert_close(&dx[r * stride..][..n], &expected, 1e-5, &what);
                        for rest in [&y, &dx] {
                            assert_eq!(rest[r * stride + n..(r + 1) * stride], vec![9.0; pad]);
                        }
                    }
                }
            }
        }
    }
}
