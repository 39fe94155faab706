//! Lion (Chen et al., 2023): p -= learning_rate sign(beta1 m + (1 - beta1) g), then m = beta2 m + (1 - beta2) g.

use crate::Float;

/// The plain numbers of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Step size.
    pub learning_rate: f64,
    /// Weight of the momentum against the gradient in the step.
    pub beta1: f64,
    /// Decay of the momentum.
    pub beta2: f64,
}

/// One update of parameters and momentum m; all slices have one length. The sign of 0 is 0.
pub fn update<F: Float>(parameters: &mut [F], momentum: &mut [F], gradient: &[F], settings: &Settings) {
    assert_eq!((momentum.len(), gradient.len()), (parameters.len(), parameters.len()));
    let learning_rate = F::from_f64(settings.learning_rate);
    let mix = |beta: f64, m: F, g: F| F::from_f64(beta) * m + F::from_f64(1.0 - beta) * g;
    for i in 0..parameters.len() {
        let (m, g) = (momentum[i], gradient[i]);
        let direction = mix(settings.beta1, m, g);
        if direction > F::ZERO {
            parameters[i] = parameters[i] - learning_rate;
        } else if direction < F::ZERO {
            parameters[i] += learning_rate;
        }
        momentum[i] = mix(settings.beta2, m, g);
    }
}
