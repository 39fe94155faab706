//! GELU in its tanh form (Hendrycks and Gimpel, 2016): g(u) = u/2 (1 + tanh(sqrt(2/pi) (u + 0.044715 u^3))).
//!
//! Since (1 + tanh(z)) / 2 = 1 / (1 + e^-2z) = s, one exponential gives the value u s and the derivative
//! s + u s (1 - s) 2 z'.

use crate::isa::dispatch;
use crate::simd::Simd;

/// 2 sqrt(2/pi).
const TWICE: f32 = 1.595_769;
const CUBIC: f32 = 0.044_715;

/// s(u).
#[inline(always)]
fn gate<S: Simd>(s: S, u: S::V, square: S::V) -> S::V {
    let z = s.mul(u, s.mul_add(square, s.splat(TWICE * CUBIC), s.splat(TWICE)));
    let e = s.exp(s.sub(s.splat(0.0), z));
    s.div(s.splat(1.0), s.add(s.splat(1.0), e))
}

/// GELU(u).
#[inline(always)]
pub(crate) fn gelu_of<S: Simd>(s: S, u: S::V) -> S::V {
    s.mul(u, gate(s, u, s.mul(u, u)))
}

dispatch! {
    /// g = GELU(u) for `m` rows of `n` numbers, both with row stride `stride`.
    pub fn gelu(u: &[f32], m: usize, n: usize, stride: usize, g: &mut [f32]) = forward;
}

#[inline(always)]
fn forward<S: Simd>(s: S, u: &[f32], m: usize, n: usize, stride: usize, g: &mut [f32]) {
    assert!(stride >= n && u.len().min(g.len()) >= crate::extent(m, stride, n));
    for r in 0..m {
        for j in (0..n).step_by(S::LANES) {
            // SAFETY: row r holds n numbers in both, asserted above.
            unsafe {
                let x = s.load_upto(u.as_ptr().add(r * stride + j), n - j);
                s.store_upto(g.as_mut_ptr().add(r * stride + j), gelu_of(s, x), n - j);
            }
        }
    }
}

dispatch! {
    /// The backward pass, in place: `dg` (d loss / dg) becomes du, `u` becomes g = GELU(u), which the weight
    /// gradient of the layer behind needs; `dbias` += sum over rows of du.
    pub fn gelu_backward(u: &mut [f32], dg: &mut [f32], m: usize, n: usize, stride: usize, dbias: &mut [f32]) = backward;
}

#[inline(always)]
fn backward<S: Simd>(
    s: S,
    u: &mut [f32],
    dg: &mut [f32],
    m: usize,
    n: usize,
    stride: usize,
    dbias: &mut [f32],
) {
    assert!(stride >= n && dbias.len() >= n && u.len().min(dg.len()) >= crate::extent(m, stride, n));
    for r in 0..m {
        for j in (0..n).step_by(S::LANES) {
            let left = n - j;
            // SAFETY: row r holds n numbers in both matrices, dbias n, asserted above.
            unsafe {
                let u = u.as_mut_ptr().add(r * stride + j);
                let d = dg.as_mut_ptr().add(r * stride + j);
                let x = s.load_upto(u, left);
                let square = s.mul(x, x);
                let gate = gate(s, x, square);
                let value = s.mul(x, gate);
                let slope = s.mul_add(square, s.splat(3.0 * TWICE * CUBIC), s.splat(TWICE));
                let derivative = s.mul_add(s.neg_mul_add(value, gate, value), slope, gate);
                let du = s.mul(s.load_upto(d, left), derivative);
                s.store_upto(u, value, left);
                s.store_upto(d, du, left);
                let b = dbias.as_mut_ptr().add(j);
                s.store_upto(b, s.add(s.load_upto(b, left), du), left);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::{assert_close, numbers};
    use diapason_reference::gelu as plain;

    #[test]
    fn as_the_reference() {
        for isa in Isa::available() {
            for (m, n, pad, size) in [(2, 64, 0, 1.0), (3, 37, 5, 8.0), (1, 3, 0, 40.0)] {
                let stride = n + pad;
                let u: Vec<f32> = numbers(1, m * stride).iter().map(|x| x * size).collect();
                let dg = numbers(2, m * stride);
                let mut g = vec![0.0; m * stride];
                gelu(isa, &u, m, n, stride, &mut g);
                let (mut value, mut du, mut dbias) = (u.clone(), dg.clone(), vec![0.0; n]);
                gelu_backward(isa, &mut value, &mut du, m, n, stride, &mut dbias);
                let mut sums = vec![0.0; n];
                for r in 0..m {
                    let wide = |v: &[f32]| -> Vec<f64> {
                        v[r * stride..r * stride + n].iter().map(|&x| f64::from(x)).collect()
                    };
                    let expected = plain::forward(&wide(&u));
                    let gradient = plain::backward(&wide(&u), &wide(&dg));
                    let row = r * stride..r * stride + n;
                    assert_close(&g[row.clone()], &expected, 1e-6, "value");
                    assert_close(&value[row.clone()], &expected, 1e-6, "value again");
                    assert_close(&du[row], &gradient, 3e-6, "gradient");
                    for j in 0..n {
                        sums[j] += gradient[j];
                    }
                }
                assert_close(&dbias, &sums, 1e-5, "bias");
            }
        }
    }

    #[test]
    #[should_panic(expected = "larger than memory")]
    fn a_stride_that_wraps_around_is_refused() {
        let u = [0.0; 9];
        gelu(Isa::detect(), &u, 9, 1, 1 << 61, &mut [0.0; 9]);
    }

    #[test]
    fn not_a_number_is_not_hidden() {
        for isa in Isa::available() {
            let mut g = [0.0];
            gelu(isa, &[f32::NAN], 1, 1, 1, &mut g);
            assert!(g[0].is_nan(), "{isa}");
        }
    }
}
