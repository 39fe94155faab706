//! LayerNorm over rows (Ba, Kiros, Hinton, 2016).
//!
//! xhat = (x - mean(x)) * rstd, rstd = 1 / sqrt(var(x) + epsilon) with the biased variance; y = xhat * scale + bias.
//!
//! The backward pass needs xhat and rstd, not x. It also rewrites xhat as y, which the weight gradient of the layer
//! behind needs: y is recomputed for one multiply-add instead of being kept in memory of its own.

use crate::isa::dispatch;
use crate::simd::Simd;

dispatch! {
    /// y = LayerNorm(x) for `m` rows of `n` numbers, all with row stride `stride`. Keeps `xhat` [m, n] and `rstd`
    /// [m] for the backward pass.
    pub fn layer_norm(x: &[f32], m: usize, n: usize, stride: usize, epsilon: f32, scale: &[f32], bias: &[f32], xhat: &mut [f32], rstd: &mut [f32], y: &mut [f32]) = forward;
}

#[inline(always)]
fn forward<S: Simd>(
    s: S,
    x: &[f32],
    m: usize,
    n: usize,
    stride: usize,
    epsilon: f32,
    scale: &[f32],
    bias: &[f32],
    xhat: &mut [f32],
    rstd: &mut [f32],
    y: &mut [f32],
) {
    check(m, n, stride, &[x, xhat, y], &[scale, bias], rstd);
    let inverse = 1.0 / n as f32;
    for r in 0..m {
        // SAFETY: `check` has seen that row r of every matrix and both vectors hold n numbers.
        unsafe {
            let x = x.as_ptr().add(r * stride);
            let h = xhat.as_mut_ptr().add(r * stride);
            let y = y.as_mut_ptr().add(r * stride);
            let mut sum = s.splat(0.0);
            for j in (0..n).step_by(S::LANES) {
                sum = s.add(sum, s.load_upto(x.add(j), n - j));
            }
            let mean = s.splat(s.sum(sum) * inverse);
            let mut squares = s.splat(0.0);
            for j in (0..n).step_by(S::LANES) {
                let d = s.sub(s.load_upto(x.add(j), n - j), mean);
                // Lanes past the end hold -mean: store and reload as zeros.
                s.store_upto(h.add(j), d, n - j);
                let d = if n - j >= S::LANES { d } else { s.load_upto(h.add(j), n - j) };
                squares = s.mul_add(d, d, squares);
            }
            let root = 1.0 / (s.sum(squares) * inverse + epsilon).sqrt();
            rstd[r] = root;
            let root = s.splat(root);
            for j in (0..n).step_by(S::LANES) {
                let hat = s.mul(s.load_upto(h.add(j), n - j), root);
                s.store_upto(h.add(j), hat, n - j);
                let scale = s.load_upto(scale.as_ptr().add(j), n - j);
                let bias = s.load_upto(bias.as_ptr().add(j), n - j);
                s.store_upto(y.add(j), s.mul_add(hat, scale, bias), n - j);
            }
        }
    }
}

dispatch! {
    /// dx = residual + d loss / dx for dy = d loss / dy; no residual counts as zeros. `xhat` becomes y.
    ///
    /// With e = dy * scale: d loss / dx = rstd * (e - mean(e) - xhat * mean(e * xhat)); dscale += sum over rows of dy * xhat;
    /// dbias += sum over rows of dy.
    pub fn layer_norm_backward(dy: &[f32], m: usize, n: usize, stride: usize, scale: &[f32], bias: &[f32], xhat: &mut [f32], rstd: &[f32], residual: Option<&[f32]>, dx: &mut [f32], dscale: &mut [f32], dbias: &mut [f32]) = backward;
}

#[inline(always)]
fn backward<S: Simd>(
    s: S,
    dy: &[f32],
    m: usize,
    n: usize,
    stride: usize,
    scale: &[f32],
    bias: &[f32],
    xhat: &mut [f32],
    rstd: &[f32],
    residual: Option<&[f32]>,
    dx: &mut [f32],
    dscale: &mut [f32],
    dbias: &mut [f32],
) {
    check(m, n, stride, &[dy, xhat, dx, residual.unwrap_or(dy)], &[scale, bias, dscale, dbias], rstd);
    let inverse = 1.0 / n as f32;
    for r in 0..m {
        // SAFETY: `check` has seen that row r of every matrix and the four vectors hold n numbers.
        unsafe {
            let dy = dy.as_ptr().add(r * stride);
            let h = xhat.as_mut_ptr().add(r * stride);
            let dx = dx.as_mut_ptr().add(r * stride);
            let residual = residual.map(|x| x.as_ptr().add(r * stride));
            let (mut sum_e, mut sum_eh) = (s.splat(0.0), s.splat(0.0));
            for j in (0..n).step_by(S::LANES) {
                let e = s.mul(s.load_upto(dy.add(j), n - j), s.load_upto(scale.as_ptr().add(j), n - j));
                sum_e = s.add(sum_e, e);
                sum_eh = s.mul_add(e, s.load_upto(h.add(j), n - j), sum_eh);
            }
            let mean_e = s.splat(s.sum(sum_e) * inverse);
            let mean_eh = s.splat(s.sum(sum_eh) * inverse);
            let root = s.splat(rstd[r]);
            for j in (0..n).step_by(S::LANES) {
                let left = n - j;
                let d = s.load_upto(dy.add(j), left);
                let hat = s.load_upto(h.add(j), left);
                let scale = s.load_upto(scale.as_ptr().add(j), left);
                let e = s.sub(s.mul(d, scale), mean_e);
                let e = s.neg_mul_add(hat, mean_eh, e);
                let start = residual.map_or(s.splat(0.0), |x| s.load_upto(x.add(j), left));
                s.store_upto(dx.add(j), s.mul_add(e, root, start), left);
                let p = dscale.as_mut_ptr().add(j);
                s.store_upto(p, s.mul_add(d, hat, s.load_upto(p, left)), left);
                let p = dbias.as_mut_ptr().add(j);
                s.store_upto(p, s.add(d, s.load_upto(p, left)), left);
                let bias = s.load_upto(bias.as_ptr().add(j), left);
                s.store_upto(h.add(j), s.mul_add(hat, scale, bias), left);
            }
        }
    }
}

#[inline(always)]
fn check(m: usize, n: usize, stride: usize, matrices: &[&[f32]], vectors: &[&[f32]], rows: &[f32]) {
    assert!(stride >= n && rows.len() >= m);
    assert!(matrices.iter().all(|x| x.len() >= crate::extent(m, stride, n)));
    assert!(vectors.iter().all(|x| x.len() >= n));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::{assert_close, numbers};
    use diapason_reference::layer_norm as plain;

    #[test]
    fn as_the_reference() {
        for isa in Isa::available() {
            for (m, n, pad) in [(3, 64, 16), (2, 37, 0), (4, 1, 3), (1, 15, 1), (2, 256, 16)] {
                let stride = n + pad;
                let x = numbers(1, m * stride);
                let scale = numbers(2, n);
                let bias = numbers(3, n);
                let (mut xhat, mut y) = (vec![9.0; m * stride], vec![9.0; m * stride]);
                let mut rstd = vec![0.0; m];
                layer_norm(isa, &x, m, n, stride, 1e-6, &scale, &bias, &mut xhat, &mut rstd, &mut y);
                let dy = numbers(4, m * stride);
                let dx_start = numbers(5, m * stride);
                let mut dx = dx_start.clone();
                let (mut dscale, mut dbias) = (vec![0.0; n], vec![0.0; n]);
                layer_norm_backward(
                    isa,
                    &dy,
                    m,
                    n,
                    stride,
                    &scale,
                    &bias,
                    &mut xhat,
                    &rstd,
                    Some(&dx_start),
                    &mut dx,
                    &mut dscale,
                    &mut dbias,
                );
                let dense = |v: &[f32]| -> Vec<f64> {
                    (0..m).flat_map(|r| v[r * stride..r * stride + n].iter().map(|&x| f64::from(x))).collect()
                };
                let (xd, sd, bd) = (dense(&x), widen(&scale), widen(&bias));
                let expected = plain::forward(&xd, &sd, &bd);
                let g = plain::backward(&xd, &sd, &dense(&dy));
                for r in 0..m {
                    let row = |v: &[f32]| v[r * stride..r * stride + n].to_vec();
                    let what = format!("{isa} {m}x{n} row {r}");
                    assert_close(&row(&y), &expected[r * n..(r + 1) * n], 1e-5, &what);
                    assert_close(&row(&xhat), &expected[r * n..(r + 1) * n], 1e-5, &what);
                    let step: Vec<f64> =
                        (0..n).map(|j| g.0[r * n + j] + f64::from(dx_start[r * stride + j])).collect();
                    assert_close(&row(&dx), &step, 1e-5, &what);
                    if r + 1 < m {
                        assert_eq!(
                            dx[r * stride + n..(r + 1) * stride],
                            dx_start[r * stride + n..(r + 1) * stride]
                        );
                    }
                }
                assert_close(&dscale, &g.1, 1e-5, "dscale");
                assert_close(&dbias, &g.2, 1e-5, "dbias");
            }
        }
    }

    fn widen(v: &[f32]) -> Vec<f64> {
        v.iter().map(|&x| f64::from(x)).collect()
    }
}
