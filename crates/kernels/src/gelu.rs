//! GELU in its tanh form (Hendrycks and Gimpel, 2016): g(u) = u/2 (1 + tanh(sqrt(2/pi) (u + 0.044715 u^3))).
//!
//! Since (1 + tanh(z)) / 2 = 1 / (1 + e^-2z) = s, one exponential gives the value u s and the derivative
//! s + u s (1 - s) 2 z'.

use crate::activation::Function;
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

/// See the module.
pub(crate) struct Gelu;

impl Function for Gelu {
    #[inline(always)]
    fn value<S: Simd>(s: S, u: S::V) -> S::V {
        gelu_of(s, u)
    }
    #[inline(always)]
    fn value_and_slope<S: Simd>(s: S, u: S::V) -> (S::V, S::V) {
        let square = s.mul(u, u);
        let gate = gate(s, u, square);
        let value = s.mul(u, gate);
        let slope = s.mul_add(square, s.splat(3.0 * TWICE * CUBIC), s.splat(TWICE));
        (value, s.mul_add(s.neg_mul_add(value, gate, value), slope, gate))
    }
}
