//! RMSNorm without parameters (Zhang and Sennrich, 2019): each row is divided by the root of its mean square.
//!
//! Shapes: x, y \[n, D\]. With r = 1 / sqrt(mean(x^2) + epsilon), one per row: y = x r.

use crate::Float;
use diapason_model::NORM_EPSILON;

/// y = x r; `width` is D.
pub fn forward<F: Float>(x: &[F], width: usize) -> Vec<F> {
    assert_eq!(x.len() % width, 0);
    x.chunks(width)
        .flat_map(|row| {
            let r = reciprocal(row);
            row.iter().map(move |&x| x * r)
        })
        .collect()
}

/// dx = r (dy - y mean(dy y)), the mean over the row.
pub fn backward<F: Float>(x: &[F], width: usize, dy: &[F]) -> Vec<F> {
    assert_eq!((x.len() % width, dy.len()), (0, x.len()));
    let count = F::from_f64(width as f64);
    let mut dx = Vec::with_capacity(x.len());
    for (row, dy) in x.chunks(width).zip(dy.chunks(width)) {
        let r = reciprocal(row);
        let mean = row.iter().zip(dy).map(|(&x, &dy)| dy * x * r).sum::<F>() / count;
        dx.extend(row.iter().zip(dy).map(|(&x, &dy)| r * (dy - x * r * mean)));
    }
    dx
}

/// 1 / sqrt(mean(x^2) + epsilon).
fn reciprocal<F: Float>(row: &[F]) -> F {
    let count = F::from_f64(row.len() as f64);
    let mean = row.iter().map(|&x| x * x).sum::<F>() / count;
    F::ONE / (mean + F::from_f64(f64::from(NORM_EPSILON))).sqrt()
}
