//! A mixture with learned weights: y = a x + b z, a and b one number each. So are values mixed with those of the first block
//! (a = 1 - w, b = w), and the residual stream with the embedding.

use crate::Float;

/// y = a x + b z.
pub fn forward<F: Float>(x: &[F], z: &[F], a: F, b: F) -> Vec<F> {
    assert_eq!(x.len(), z.len());
    x.iter().zip(z).map(|(&x, &z)| a * x + b * z).collect()
}

/// (dx, dz, da, db): dx = a dy; dz = b dy; da = sum of dy x; db = sum of dy z.
pub fn backward<F: Float>(x: &[F], z: &[F], a: F, b: F, dy: &[F]) -> (Vec<F>, Vec<F>, F, F) {
    assert_eq!((x.len(), dy.len()), (z.len(), z.len()));
    let times = |factor: F| dy.iter().map(|&dy| factor * dy).collect();
    let dot = |x: &[F]| x.iter().zip(dy).map(|(&x, &dy)| x * dy).sum();
    (times(a), times(b), dot(x), dot(z))
}
