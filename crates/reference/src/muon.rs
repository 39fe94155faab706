//! Muon (Jordan, 2024) on one matrix: a step along the momentum, with all its singular values brought near to 1.
//!
//! The singular values s of X are changed by X (a I + b X^T X + c (X^T X)^2), which makes them s (a + b s^2 + c s^4). Three such
//! steps follow each other, after X has been divided by 1.01 (sum of s^8)^(1/8), so that no value is larger than 1.

use crate::{Float, matmul};

/// a, b, c of each step: of all such polynomials each has the smallest largest distance from 1 on the interval where the values lie,
/// which is 0.01 ..= 1 at first (Amsel et al., 2025).
const STEPS: [[f64; 3]; 3] =
    [[8.093_435, -23.620_42, 17.446_22], [3.636_615, -2.721_87, 0.536_53], [2.661_33, -1.977_2, 0.452_6]];

/// The plain numbers of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Step size for matrices that are not wider than high.
    pub learning_rate: f64,
    /// Decay of the momentum.
    pub momentum: f64,
}

/// One update of a matrix [rows, columns] and its momentum: m = momentum m + (1 - momentum) g; with O from
/// u = momentum m + (1 - momentum) g, p -= learning_rate sqrt(max(1, columns / rows)) O.
pub fn update<F: Float>(
    parameters: &mut [F],
    momentum: &mut [F],
    gradient: &[F],
    (rows, columns): (usize, usize),
    settings: &Settings,
) {
    assert_eq!(
        (parameters.len(), momentum.len(), gradient.len()),
        (rows * columns, rows * columns, rows * columns)
    );
    let (decay, rest) = (F::from_f64(settings.momentum), F::from_f64(1.0 - settings.momentum));
    let mut ahead = Vec::with_capacity(gradient.len());
    for (m, &g) in momentum.iter_mut().zip(gradient) {
        *m = decay * *m + rest * g;
        ahead.push(decay * *m + rest * g);
    }
    let rate = settings.learning_rate * libm::sqrt((columns as f64 / rows as f64).max(1.0));
    for (p, o) in parameters.iter_mut().zip(orthogonalised(&ahead, rows, columns)) {
        *p = *p - F::from_f64(rate) * o;
    }
}

/// `x` [rows, columns] with its singular values brought near to 1.
pub fn orthogonalised<F: Float>(x: &[F], rows: usize, columns: usize) -> Vec<F> {
    let length = x.iter().map(|&x| x * x).sum::<F>().sqrt();
    if length.to_f64() == 0.0 {
        return x.to_vec();
    }
    let mut x: Vec<F> = x.iter().map(|&x| x / length).collect();
    let (_, square) = powers(&x, rows, columns);
    let bound = 1.01 * libm::pow(square.iter().map(|&s| s * s).sum::<F>().to_f64(), 0.125);
    x.iter_mut().for_each(|x| *x = *x / F::from_f64(bound));
    for step in STEPS {
        let [a, b, c] = step.map(F::from_f64);
        let (gram, square) = powers(&x, rows, columns);
        let polynomial: Vec<F> = (0..columns * columns)
            .map(|at| {
                let one = if at / columns == at % columns { a } else { F::ZERO };
                one + b * gram[at] + c * square[at]
            })
            .collect();
        x = matmul::forward(&x, &polynomial, rows, columns, columns);
    }
    x
}

/// X^T X and its square.
fn powers<F: Float>(x: &[F], rows: usize, columns: usize) -> (Vec<F>, Vec<F>) {
    let transposed: Vec<F> = (0..rows * columns).map(|at| x[at % rows * columns + at / rows]).collect();
    let gram = matmul::forward(&transposed, x, columns, rows, columns);
    let square = matmul::forward(&gram, &gram, columns, columns, columns);
    (gram, square)
}
