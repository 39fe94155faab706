//! Muon (Jordan, 2024) on one matrix: a step along the momentum, with all its singular values brought near to 1.
//!
//! The singular values s of X are changed by X (a I + b A + c A^2 + d A^3 + e A^4) with A = X^T X, which makes them
//! s (a + b s^2 + c s^4 + d s^6 + e s^8). Three such steps follow each other, after X has been divided by 1.01 (sum of s^8)^(1/8), so that no
//! value is larger than 1.

use crate::{Float, matmul};

/// a to e of each step: of all such polynomials each has the smallest largest distance from 1 on the interval where the values lie,
/// which is 0.002 ..= 1 at first (Amsel et al., 2025).
const STEPS: [[f64; 5]; 3] = [
    [14.937_262_1, -146.249_37, 486.661_11, -625.530_256, 272.151_38],
    [6.759_615_9, -16.349_737_3, 13.842_081_1, -4.556_161_51, 0.508_881_892],
    [4.188_235_38, -8.776_877_95, 7.944_614_08, -2.958_828_44, 0.382_719_708],
];

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
        let (gram, _) = powers(&x, rows, columns);
        // By Horner's rule.
        let mut polynomial = vec![F::ZERO; columns * columns];
        for coefficient in step.into_iter().rev() {
            polynomial = matmul::forward(&polynomial, &gram, columns, columns, columns);
            polynomial.iter_mut().step_by(columns + 1).for_each(|p| *p += F::from_f64(coefficient));
        }
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
