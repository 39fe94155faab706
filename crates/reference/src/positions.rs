//! Positions without parameters.
//!
//! Sinusoidal (Vaswani et al., 2017): P\[t, 2i\] = sin(a), P\[t, 2i + 1\] = cos(a), a = t / 10000^(2i / D).
//!
//! Rotary (Su et al., 2021): each head has d channels, h = d / 2 rounded down; its channels i and i + h are turned by the angle
//! a = t / 10000^(i / h): y\[i\] = x\[i\] cos a - x\[i + h\] sin a; y\[i + h\] = x\[i + h\] cos a + x\[i\] sin a. The last channel of an
//! odd number stays as it is.

use crate::Float;

/// The table \[rows, D\] of sinusoidal positions.
pub fn sinusoidal<F: Float>(rows: usize, d_model: usize) -> Vec<F> {
    let mut table = Vec::with_capacity(rows * d_model);
    for t in 0..rows {
        for channel in 0..d_model {
            let exponent = (channel / 2 * 2) as f64 / d_model as f64;
            let angle = t as f64 / libm::pow(10_000.0, exponent);
            table.push(F::from_f64(if channel % 2 == 0 { libm::sin(angle) } else { libm::cos(angle) }));
        }
    }
    table
}

/// x \[B, T, H d\] turned by its positions.
pub fn rotary_forward<F: Float>(x: &[F], sequence_length: usize, d_model: usize, n_heads: usize) -> Vec<F> {
    rotated(x, sequence_length, d_model, n_heads, 1.0)
}

/// dx: dy turned back, since a rotation's transpose is its inverse.
pub fn rotary_backward<F: Float>(dy: &[F], sequence_length: usize, d_model: usize, n_heads: usize) -> Vec<F> {
    rotated(dy, sequence_length, d_model, n_heads, -1.0)
}

fn rotated<F: Float>(x: &[F], sequence_length: usize, d_model: usize, n_heads: usize, sign: f64) -> Vec<F> {
    assert_eq!(x.len() % (sequence_length * d_model), 0);
    let size = d_model / n_heads;
    let half = size / 2;
    let mut y = x.to_vec();
    for (n, y) in y.chunks_mut(d_model).enumerate() {
        let t = n % sequence_length;
        for head in y.chunks_mut(size) {
            for i in 0..half {
                let angle = sign * t as f64 / libm::pow(10_000.0, i as f64 / half as f64);
                let (sin, cos) = (F::from_f64(libm::sin(angle)), F::from_f64(libm::cos(angle)));
                let (a, b) = (head[i], head[i + half]);
                head[i] = a * cos - b * sin;
                head[i + half] = b * cos + a * sin;
            }
        }
    }
    y
}
