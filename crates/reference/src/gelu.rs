//! GELU in its tanh form (Hendrycks and Gimpel, 2016): y = x/2 (1 + tanh(u)), u = sqrt(2/pi) (x + 0.044715 x^3).

use crate::Float;

/// sqrt(2/pi).
const SLOPE: f64 = 0.797_884_560_802_865_4;
/// The weight of the cube.
const CUBE: f64 = 0.044_715;

/// y = x/2 (1 + tanh(u)), number by number.
pub fn forward<F: Float>(x: &[F]) -> Vec<F> {
    let half = F::from_f64(0.5);
    x.iter().map(|&x| half * x * (F::ONE + inner(x).tanh())).collect()
}

/// dx = dy ((1 + tanh(u))/2 + x/2 (1 - tanh(u)^2) u'), u' = sqrt(2/pi) (1 + 3 x 0.044715 x^2).
pub fn backward<F: Float>(x: &[F], dy: &[F]) -> Vec<F> {
    assert_eq!(x.len(), dy.len());
    let half = F::from_f64(0.5);
    x.iter()
        .zip(dy)
        .map(|(&x, &dy)| {
            let tanh = inner(x).tanh();
            let slope = F::from_f64(SLOPE) * (F::ONE + F::from_f64(3.0 * CUBE) * x * x);
            dy * (half * (F::ONE + tanh) + half * x * (F::ONE - tanh * tanh) * slope)
        })
        .collect()
}

/// u.
fn inner<F: Float>(x: F) -> F {
    F::from_f64(SLOPE) * (x + F::from_f64(CUBE) * x * x * x)
}
