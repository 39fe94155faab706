//! What stands between the MLP's matrices, but GELU, which has a module of its own. Number by number:
//!
//! - ReLU: y = max(x, 0)
//! - squared ReLU (So et al., 2021): y = max(x, 0)^2
//! - SiLU (Elfwing, Uchibe, Doya, 2017): y = x s(x), s(x) = 1 / (1 + e^-x)
//! - SwiGLU (Shazeer, 2020), of a gate and a value: y = gate s(gate) value

use crate::Float;

/// y = max(x, 0).
pub fn relu_forward<F: Float>(x: &[F]) -> Vec<F> {
    x.iter().map(|&x| if x > F::ZERO { x } else { F::ZERO }).collect()
}

/// dx = dy where x > 0, else 0.
pub fn relu_backward<F: Float>(x: &[F], dy: &[F]) -> Vec<F> {
    assert_eq!(x.len(), dy.len());
    x.iter().zip(dy).map(|(&x, &dy)| if x > F::ZERO { dy } else { F::ZERO }).collect()
}

/// y = max(x, 0)^2.
pub fn relu_squared_forward<F: Float>(x: &[F]) -> Vec<F> {
    x.iter().map(|&x| if x > F::ZERO { x * x } else { F::ZERO }).collect()
}

/// dx = 2 x dy where x > 0, else 0.
pub fn relu_squared_backward<F: Float>(x: &[F], dy: &[F]) -> Vec<F> {
    assert_eq!(x.len(), dy.len());
    x.iter().zip(dy).map(|(&x, &dy)| if x > F::ZERO { (x + x) * dy } else { F::ZERO }).collect()
}

/// y = x s(x).
pub fn silu_forward<F: Float>(x: &[F]) -> Vec<F> {
    x.iter().map(|&x| x * sigmoid(x)).collect()
}

/// dx = dy (s + x s (1 - s)).
pub fn silu_backward<F: Float>(x: &[F], dy: &[F]) -> Vec<F> {
    assert_eq!(x.len(), dy.len());
    x.iter().zip(dy).map(|(&x, &dy)| dy * silu_slope(x)).collect()
}

/// y = silu(gate) value.
pub fn swiglu_forward<F: Float>(gate: &[F], value: &[F]) -> Vec<F> {
    assert_eq!(gate.len(), value.len());
    gate.iter().zip(value).map(|(&g, &v)| g * sigmoid(g) * v).collect()
}

/// (dgate, dvalue): dgate = dy value silu'(gate); dvalue = dy silu(gate).
pub fn swiglu_backward<F: Float>(gate: &[F], value: &[F], dy: &[F]) -> (Vec<F>, Vec<F>) {
    assert_eq!((gate.len(), dy.len()), (value.len(), value.len()));
    let dgate = gate.iter().zip(value).zip(dy).map(|((&g, &v), &dy)| dy * v * silu_slope(g)).collect();
    let dvalue = gate.iter().zip(dy).map(|(&g, &dy)| dy * g * sigmoid(g)).collect();
    (dgate, dvalue)
}

fn sigmoid<F: Float>(x: F) -> F {
    F::ONE / (F::ONE + (-x).exp())
}

fn silu_slope<F: Float>(x: F) -> F {
    let s = sigmoid(x);
    s + x * s * (F::ONE - s)
}
