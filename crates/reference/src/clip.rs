//! Gradients that are too long are made shorter: of all parameters together, or unit by unit.

use crate::Float;

/// Scales `gradient` down to the length `most`, if it is longer.
pub fn by_length<F: Float>(gradient: &mut [F], most: f64) {
    let length = length(gradient.iter().copied());
    if length > most {
        gradient.iter_mut().for_each(|g| *g = *g * F::from_f64(most / length));
    }
}

/// Adaptive clipping (Brock et al., 2021) of one tensor: each column of a matrix [rows, columns] is scaled down to `most` times the
/// length of its parameters, which counts as 1e-3 at least, if it is longer. A vector is a matrix of one column.
pub fn by_units<F: Float>(gradient: &mut [F], parameters: &[F], columns: usize, most: f64) {
    assert_eq!(gradient.len(), parameters.len());
    for c in 0..columns {
        let own = length(parameters[c..].iter().step_by(columns).copied());
        let limit = most * own.max(1e-3);
        let length = length(gradient[c..].iter().step_by(columns).copied());
        if length > limit {
            gradient[c..].iter_mut().step_by(columns).for_each(|g| *g = *g * F::from_f64(limit / length));
        }
    }
}

fn length<F: Float>(x: impl Iterator<Item = F>) -> f64 {
    x.map(|x| x * x).sum::<F>().sqrt().to_f64()
}
