//! Logits that cannot grow beyond a bound (Gemma 2, 2024): y = c tanh(x / c). The backward pass, a factor 1 - (y / c)^2, is part of
//! `cross_entropy.rs`.

use crate::isa::dispatch;
use crate::simd::Simd;

dispatch! {
    /// x = c tanh(x / c) for `m` rows of `n` numbers with row stride `stride`.
    pub fn softcap(x: &mut [f32], m: usize, n: usize, stride: usize, c: f32) = generic;
}

#[inline(always)]
fn generic<S: Simd>(s: S, x: &mut [f32], m: usize, n: usize, stride: usize, c: f32) {
    assert!(stride >= n && x.len() >= crate::extent(m, stride, n));
    let inverse = s.splat(1.0 / c);
    for r in 0..m {
        for j in (0..n).step_by(S::LANES) {
            // SAFETY: row r holds n numbers, asserted.
            unsafe {
                let p = x.as_mut_ptr().add(r * stride + j);
                let y = tanh(s, s.mul(s.load_upto(p, n - j), inverse));
                s.store_upto(p, s.mul(y, s.splat(c)), n - j);
            }
        }
    }
}

/// tanh(x) = q / (q + 2), q = e^2x - 1. So that small numbers keep their precision, q is made from the polynomial of e^r - 1, with
/// 2x = n ln 2 + r as in [`Simd::exp`]: q = 2^n (e^r - 1) + (2^n - 1).
#[inline(always)]
fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    // Beyond 10 tanh is 1 in f32. The operand order keeps a NaN in x.
    let x = s.min(s.splat(10.0), s.max(s.splat(-10.0), x));
    let x = s.add(x, x);
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.neg_mul_add(n, s.splat(0.693_359_4), x);
    let r = s.neg_mul_add(n, s.splat(-2.121_944_4e-4), r);
    let mut p = s.splat(1.0 / 5040.0);
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0] {
        p = s.mul_add(p, r, s.splat(c));
    }
    let power = s.scale(s.splat(1.0), n);
    let q = s.mul_add(power, s.mul(p, r), s.sub(power, s.splat(1.0)));
    s.div(q, s.add(q, s.splat(2.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::numbers;

    #[test]
    fn as_in_f64() {
        for isa in Isa::available() {
            for (m, n, pad, size, c) in
                [(3, 27, 5, 20.0, 15.0), (1, 1, 0, 1.0, 0.5), (2, 33, 0, 1e-3, 15.0), (1, 16, 1, 1e4, 15.0)]
            {
                let stride = n + pad;
                let x: Vec<f32> = numbers(1, m * stride).iter().map(|x| x * size).collect();
                let mut y = x.clone();
                softcap(isa, &mut y, m, n, stride, c);
                for (i, (&x, &y)) in x.iter().zip(&y).enumerate() {
                    if i % stride >= n {
                        assert_eq!(x, y);
                        continue;
                    }
                    let expected = f64::from(c) * libm::tanh(f64::from(x) / f64::from(c));
                    // Small numbers too: relative to themselves.
                    let error = (f64::from(y) - expected).abs() / expected.abs().max(1e-30);
                    assert!(error < 5e-7, "{isa}: {x} gives {y}, not {expected}");
                }
            }
            let mut special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0];
            softcap(isa, &mut special, 1, 4, 4, 15.0);
            assert!(special[0].is_nan() && special[1..] == [15.0, -15.0, 0.0], "{isa} {special:?}");
        }
    }
}
