//! LayerNorm (Ba, Kiros, Hinton, 2016): each row is centred, divided by its standard deviation, scaled, shifted.
//!
//! Shapes: x, y \[n, D\]; scale, bias \[D\]. With m = mean(x), r = 1 / sqrt(mean((x - m)^2) + epsilon), one
//! of each per row: h = (x - m) r; y = h scale + bias.

use crate::Float;
use diapason_model::NORM_EPSILON;

/// y = (x - m) r scale + bias.
pub fn forward<F: Float>(x: &[F], scale: &[F], bias: &[F]) -> Vec<F> {
    let d = scale.len();
    assert_eq!((x.len() % d, bias.len()), (0, d));
    let mut y = Vec::with_capacity(x.len());
    for row in x.chunks(d) {
        let (mean, reciprocal) = moments(row);
        for i in 0..d {
            y.push((row[i] - mean) * reciprocal * scale[i] + bias[i]);
        }
    }
    y
}

/// (dx, dscale, dbias): dbias = sum over rows of dy; dscale = sum over rows of dy h; with g = dy scale,
/// dx = r (g - mean(g) - h mean(g h)), the means over the row.
pub fn backward<F: Float>(x: &[F], scale: &[F], dy: &[F]) -> (Vec<F>, Vec<F>, Vec<F>) {
    let d = scale.len();
    assert_eq!((x.len() % d, dy.len()), (0, x.len()));
    let count = F::from_f64(d as f64);
    let mut dx = Vec::with_capacity(x.len());
    let mut dscale = vec![F::ZERO; d];
    let mut dbias = vec![F::ZERO; d];
    for (row, dy) in x.chunks(d).zip(dy.chunks(d)) {
        let (mean, reciprocal) = moments(row);
        let h: Vec<F> = row.iter().map(|&x| (x - mean) * reciprocal).collect();
        let g: Vec<F> = dy.iter().zip(scale).map(|(&dy, &scale)| dy * scale).collect();
        let mean_g = g.iter().copied().sum::<F>() / count;
        let mean_gh = g.iter().zip(&h).map(|(&g, &h)| g * h).sum::<F>() / count;
        for i in 0..d {
            dx.push(reciprocal * (g[i] - mean_g - h[i] * mean_gh));
            dscale[i] += dy[i] * h[i];
            dbias[i] += dy[i];
        }
    }
    (dx, dscale, dbias)
}

/// Mean of a row and 1 / sqrt(variance + epsilon).
fn moments<F: Float>(row: &[F]) -> (F, F) {
    let count = F::from_f64(row.len() as f64);
    let mean = row.iter().copied().sum::<F>() / count;
    let variance = row.iter().map(|&x| (x - mean) * (x - mean)).sum::<F>() / count;
    (mean, F::ONE / (variance + F::from_f64(f64::from(NORM_EPSILON))).sqrt())
}
