//! Adam (Kingma and Ba, 2015) in the form of Optax: epsilon is added outside of the root.
//!
//! With gradient g and update number t, from 1: m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
//! p -= learning_rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon).

use crate::Float;

/// The plain numbers of one update. They are kept in `f64`, and so are the bias corrections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Number of the update, from 1.
    pub number: u64,
    /// Step size.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
}

/// One update of parameters, first moment m and second moment v; all slices have one length.
pub fn update<F: Float>(
    parameters: &mut [F],
    first_moment: &mut [F],
    second_moment: &mut [F],
    gradient: &[F],
    settings: &Settings,
) {
    let n = parameters.len();
    assert_eq!((first_moment.len(), second_moment.len(), gradient.len()), (n, n, n));
    let s = settings;
    let (beta1, rest1) = (F::from_f64(s.beta1), F::from_f64(1.0 - s.beta1));
    let (beta2, rest2) = (F::from_f64(s.beta2), F::from_f64(1.0 - s.beta2));
    let correction1 = F::from_f64(1.0 - libm::pow(s.beta1, s.number as f64));
    let correction2 = F::from_f64(1.0 - libm::pow(s.beta2, s.number as f64));
    let (learning_rate, epsilon) = (F::from_f64(s.learning_rate), F::from_f64(s.epsilon));
    for i in 0..n {
        let g = gradient[i];
        first_moment[i] = beta1 * first_moment[i] + rest1 * g;
        second_moment[i] = beta2 * second_moment[i] + rest2 * g * g;
        let m = first_moment[i] / correction1;
        let v = second_moment[i] / correction2;
        parameters[i] = parameters[i] - learning_rate * m / (v.sqrt() + epsilon);
    }
}

/// Decoupled weight decay (Loshchilov and Hutter, 2019), before the optimizer's own step: p -= learning_rate weight_decay p.
pub fn decay<F: Float>(parameters: &mut [F], learning_rate: f64, weight_decay: f64) {
    let keep = F::from_f64(1.0 - learning_rate * weight_decay);
    parameters.iter_mut().for_each(|p| *p = keep * *p);
}
