//! What stands between the matrices of an MLP.
//!
//! Most are functions of one number, g = f(u), whose backward pass is du = f'(u) dg: they share one pair of loops. SwiGLU (Shazeer,
//! 2020) is a function of two: rows of u hold [gate | value], n numbers each, and g = silu(gate) value; dgate = silu'(gate) value dg,
//! dvalue = silu(gate) dg.
//!
//! The backward pass also rewrites u as g, which the weight gradient of the layer behind needs (see `gelu.rs`).

use crate::extent;
use crate::gelu::Gelu;
use crate::isa::dispatch;
use crate::simd::Simd;

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// GELU in its tanh form.
    Gelu,
    /// max(u, 0).
    Relu,
    /// max(u, 0)^2 (So et al., 2021).
    ReluSquared,
    /// u / (1 + e^-u) (Elfwing, Uchibe, Doya, 2017).
    Silu,
    /// Two numbers, gate and value, to one.
    Swiglu,
}

/// A function of one number.
pub(crate) trait Function {
    /// f(u).
    fn value<S: Simd>(s: S, u: S::V) -> S::V;
    /// (f(u), f'(u)).
    fn value_and_slope<S: Simd>(s: S, u: S::V) -> (S::V, S::V);
}

struct Relu;

impl Function for Relu {
    #[inline(always)]
    fn value<S: Simd>(s: S, u: S::V) -> S::V {
        // The operand order keeps a NaN in u.
        s.max(s.splat(0.0), u)
    }
    #[inline(always)]
    fn value_and_slope<S: Simd>(s: S, u: S::V) -> (S::V, S::V) {
        (Self::value(s, u), s.where_positive(u, s.splat(1.0)))
    }
}

struct ReluSquared;

impl Function for ReluSquared {
    #[inline(always)]
    fn value<S: Simd>(s: S, u: S::V) -> S::V {
        let positive = s.max(s.splat(0.0), u);
        s.mul(positive, positive)
    }
    #[inline(always)]
    fn value_and_slope<S: Simd>(s: S, u: S::V) -> (S::V, S::V) {
        let positive = s.max(s.splat(0.0), u);
        (s.mul(positive, positive), s.add(positive, positive))
    }
}

struct Silu;

impl Function for Silu {
    #[inline(always)]
    fn value<S: Simd>(s: S, u: S::V) -> S::V {
        s.mul(u, sigmoid(s, u))
    }
    #[inline(always)]
    fn value_and_slope<S: Simd>(s: S, u: S::V) -> (S::V, S::V) {
        let gate = sigmoid(s, u);
        let value = s.mul(u, gate);
        // s + u s (1 - s)
        (value, s.add(gate, s.neg_mul_add(value, gate, value)))
    }
}

/// 1 / (1 + e^-u).
#[inline(always)]
fn sigmoid<S: Simd>(s: S, u: S::V) -> S::V {
    s.div(s.splat(1.0), s.add(s.splat(1.0), s.exp(s.sub(s.splat(0.0), u))))
}

dispatch! {
    /// g = f(u) for `m` rows of `n` results; row strides `stride` of u (2 n numbers in a row with a gate) and `g_stride` of g.
    pub fn activate(which: Activation, u: &[f32], m: usize, n: usize, stride: usize, g: &mut [f32], g_stride: usize) = forward;
}

#[inline(always)]
fn forward<S: Simd>(
    s: S,
    which: Activation,
    u: &[f32],
    m: usize,
    n: usize,
    stride: usize,
    g: &mut [f32],
    g_stride: usize,
) {
    let width = if which == Activation::Swiglu { 2 * n } else { n };
    assert!(stride >= width && u.len() >= extent(m, stride, width));
    assert!(g_stride >= n && g.len() >= extent(m, g_stride, n));
    match which {
        Activation::Gelu => forward_of::<S, Gelu>(s, u, m, n, stride, g, g_stride),
        Activation::Relu => forward_of::<S, Relu>(s, u, m, n, stride, g, g_stride),
        Activation::ReluSquared => forward_of::<S, ReluSquared>(s, u, m, n, stride, g, g_stride),
        Activation::Silu => forward_of::<S, Silu>(s, u, m, n, stride, g, g_stride),
        Activation::Swiglu => forward_gated(s, u, m, n, stride, g, g_stride),
    }
}

#[inline(always)]
fn forward_of<S: Simd, F: Function>(
    s: S,
    u: &[f32],
    m: usize,
    n: usize,
    stride: usize,
    g: &mut [f32],
    g_stride: usize,
) {
    for r in 0..m {
        for j in (0..n).step_by(S::LANES) {
            // SAFETY: row r holds n numbers in both, asserted by the caller.
            unsafe {
                let x = s.load_upto(u.as_ptr().add(r * stride + j), n - j);
                s.store_upto(g.as_mut_ptr().add(r * g_stride + j), F::value(s, x), n - j);
            }
        }
    }
}

#[inline(always)]
fn forward_gated<S: Simd>(
    s: S,
    u: &[f32],
    m: usize,
    n: usize,
    stride: usize,
    g: &mut [f32],
    g_stride: usize,
) {
    for r in 0..m {
        for j in (0..n).step_by(S::LANES) {
            // SAFETY: row r holds 2 n numbers in u and n in g, asserted by the caller.
            unsafe {
                let gate = s.load_upto(u.as_ptr().add(r * stride + j), n - j);
                let value = s.load_upto(u.as_ptr().add(r * stride + n + j), n - j);
                let product = s.mul(Silu::value(s, gate), value);
                s.store_upto(g.as_mut_ptr().add(r * g_stride + j), product, n - j);
            }
        }
    }
}

dispatch! {
    /// The backward pass, in place: the first n numbers of a row of `dg` (d loss / dg) become du, n numbers or with a gate
    /// 2 n; those of `u` become g; `dbias` += sum over rows of du. Both matrices have row stride `stride`.
    pub fn activate_backward(which: Activation, u: &mut [f32], dg: &mut [f32], m: usize, n: usize, stride: usize, dbias: Option<&mut [f32]>) = backward;
}

#[inline(always)]
fn backward<S: Simd>(
    s: S,
    which: Activation,
    u: &mut [f32],
    dg: &mut [f32],
    m: usize,
    n: usize,
    stride: usize,
    dbias: Option<&mut [f32]>,
) {
    let width = if which == Activation::Swiglu { 2 * n } else { n };
    assert!(stride >= width && u.len().min(dg.len()) >= extent(m, stride, width));
    match dbias {
        Some(dbias) => {
            assert!(dbias.len() >= width);
            backward_with::<S, true>(s, which, u, dg, m, n, stride, dbias);
        }
        None => backward_with::<S, false>(s, which, u, dg, m, n, stride, &mut []),
    }
}

#[inline(always)]
fn backward_with<S: Simd, const BIAS: bool>(
    s: S,
    which: Activation,
    u: &mut [f32],
    dg: &mut [f32],
    m: usize,
    n: usize,
    stride: usize,
    dbias: &mut [f32],
) {
    match which {
        Activation::Gelu => backward_of::<S, Gelu, BIAS>(s, u, dg, m, n, stride, dbias),
        Activation::Relu => backward_of::<S, Relu, BIAS>(s, u, dg, m, n, stride, dbias),
        Activation::ReluSquared => backward_of::<S, ReluSquared, BIAS>(s, u, dg, m, n, stride, dbias),
        Activation::Silu => backward_of::<S, Silu, BIAS>(s, u, dg, m, n, stride, dbias),
        Activation::Swiglu => backward_gated::<S, BIAS>(s, u, dg, m, n, stride, dbias),
    }
}

#[inline(always)]
fn backward_of<S: Simd, F: Function, const BIAS: bool>(
    s: S,
    u: &mut [f32],
    dg: &mut [f32],
    m: usize,
    n: usize,
    stride: usize,
    dbias: &mut [f32],
) {
    for r in 0..m {
        for j in (0..n).step_by(S::LANES) {
            let left = n - j;
            // SAFETY: row r holds n numbers in both matrices, and dbias n where there is one, asserted by the caller.
            unsafe {
                let u = u.as_mut_ptr().add(r * stride + j);
                let d = dg.as_mut_ptr().add(r * stride + j);
                let (value, slope) = F::value_and_slope(s, s.load_upto(u, left));
                let du = s.mul(s.load_upto(d, left), slope);
                s.store_upto(u, value, left);
                s.store_upto(d, du, left);
                if BIAS {
                    let b = dbias.as_mut_ptr().add(j);
                    s.store_upto(b, s.add(s.load_upto(b, left), du), left);
                }
            }
        }
    }
}

#[inline(always)]
fn backward_gated<S: Simd, const BIAS: bool>(
    s: S,
    u: &mut [f32],
    dg: &mut [f32],
    m: usize,
    n: usize,
    stride: usize,
    dbias: &mut [f32],
) {
    for r in 0..m {
        for j in (0..n).step_by(S::LANES) {
            let left = n - j;
            // SAFETY: row r holds 2 n numbers in both matrices, and dbias 2 n where there is one, asserted by the caller.
            unsafe {
                let u = u.as_mut_ptr().add(r * stride + j);
                let d = dg.as_mut_ptr().add(r * stride + j);
                let value = s.load_upto(u.add(n), left);
                let (silu, slope) = Silu::value_and_slope(s, s.load_upto(u, left));
                let g = s.load_upto(d, left);
                let dgate = s.mul(s.mul(g, value), slope);
                let dvalue = s.mul(g, silu);
                s.store_upto(u, s.mul(silu, value), left);
                s.store_upto(d, dgate, left);
                s.store_upto(d.add(n), dvalue, left);
                if BIAS {
                    let b = dbias.as_mut_ptr().add(j);
                    s.store_upto(b, s.add(s.load_upto(b, left), dgate), left);
                    let b = b.add(n);
                    s.store_upto(b, s.add(s.load_upto(b, left), dvalue), left);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::{assert_close, numbers};
    use diapason_reference::{activation as plain, gelu as plain_gelu};

    const ALL: [Activation; 5] =
        [Activation::Gelu, Activation::Relu, Activation::ReluSquared, Activation::Silu, Activation::Swiglu];

    /// (g, du) of a row u, given dg.
    fn expected(which: Activation, u: &[f64], dg: &[f64]) -> (Vec<f64>, Vec<f64>) {
        match which {
            Activation::Gelu => (plain_gelu::forward(u), plain_gelu::backward(u, dg)),
            Activation::Relu => (plain::relu_forward(u), plain::relu_backward(u, dg)),
            Activation::ReluSquared => (plain::relu_squared_forward(u), plain::relu_squared_backward(u, dg)),
            Activation::Silu => (plain::silu_forward(u), plain::silu_backward(u, dg)),
            Activation::Swiglu => {
                let (gate, value) = u.split_at(dg.len());
                let (dgate, dvalue) = plain::swiglu_backward(gate, value, dg);
                (plain::swiglu_forward(gate, value), [dgate, dvalue].concat())
            }
        }
    }

    #[test]
    fn as_the_reference() {
        for (isa, which) in Isa::available().into_iter().flat_map(|isa| ALL.map(|which| (isa, which))) {
            for (m, n, pad, size) in [(2, 64, 0, 1.0), (3, 37, 5, 8.0), (1, 3, 0, 40.0), (2, 1, 2, 3.0)] {
                let width = if which == Activation::Swiglu { 2 * n } else { n };
                let (stride, g_stride) = (width + pad, n + 2 * pad);
                let u: Vec<f32> = numbers(1, m * stride).iter().map(|x| x * size).collect();
                let dg = numbers(2, m * stride);
                let mut g = vec![7.0; m * g_stride];
                activate(isa, which, &u, m, n, stride, &mut g, g_stride);
                let (mut value, mut du, mut dbias) = (u.clone(), dg.clone(), vec![0.0; width]);
                activate_backward(isa, which, &mut value, &mut du, m, n, stride, Some(&mut dbias));
                let (mut value_again, mut du_again) = (u.clone(), dg.clone());
                activate_backward(isa, which, &mut value_again, &mut du_again, m, n, stride, None);
                assert_eq!((&value, &du), (&value_again, &du_again));
                let mut sums = vec![0.0; width];
                for r in 0..m {
                    let wide = |v: &[f32], n: usize| -> Vec<f64> {
                        v[r * stride..][..n].iter().map(|&x| f64::from(x)).collect()
                    };
                    let (values, gradient) = expected(which, &wide(&u, width), &wide(&dg, n));
                    let what = format!("{isa} {which:?} {m} x {n}");
                    assert_close(&g[r * g_stride..][..n], &values, 1e-6, &what);
                    assert_close(&value[r * stride..][..n], &values, 1e-6, &what);
                    assert_close(&du[r * stride..][..width], &gradient, 3e-6, &what);
                    assert_eq!(g[r * g_stride + n..(r + 1) * g_stride], vec![7.0; g_stride - n]);
                    assert_eq!(
                        du[r * stride + width..(r + 1) * stride],
                        dg[r * stride + width..(r + 1) * stride]
                    );
                    for j in 0..width {
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
        activate(Isa::detect(), Activation::Gelu, &u, 9, 1, 1 << 61, &mut [0.0; 9], 1);
    }

    #[test]
    fn not_a_number_is_not_hidden() {
        for (isa, which) in Isa::available().into_iter().flat_map(|isa| ALL.map(|which| (isa, which))) {
            let mut g = [0.0];
            activate(isa, which, &[f32::NAN, 1.0], 1, 1, 2, &mut g, 1);
            assert!(g[0].is_nan(), "{isa} {which:?}");
        }
    }
}
