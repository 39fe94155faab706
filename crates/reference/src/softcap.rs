//! Logits that cannot grow beyond a bound (Gemma 2, 2024): y = c tanh(x / c).

use crate::Float;

/// y = c tanh(x / c).
pub fn forward<F: Float>(x: &[F], c: F) -> Vec<F> {
    x.iter().map(|&x| c * (x / c).tanh()).collect()
}

/// dx = dy (1 - tanh(x / c)^2).
pub fn backward<F: Float>(x: &[F], c: F, dy: &[F]) -> Vec<F> {
    assert_eq!(x.len(), dy.len());
    let slope = |x: F| F::ONE - (x / c).tanh() * (x / c).tanh();
    x.iter().zip(dy).map(|(&x, &dy)| dy * slope(x)).collect()
}
