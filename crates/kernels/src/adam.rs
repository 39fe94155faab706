//! Adam (Kingma and Ba, 2015), with decoupled weight decay (Loshchilov and Hutter, 2019) if asked for: one pass over parameters,
//! gradient and both moments.

use crate::isa::dispatch;
use crate::simd::Simd;

/// The numbers of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamUpdate {
    /// Step size.
    pub learning_rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// 1 / (1 - beta1^t).
    pub correction1: f32,
    /// 1 / (1 - beta2^t).
    pub correction2: f32,
    /// What is left of a parameter before the step: 1 - learning_rate x weight decay.
    pub keep: f32,
}

impl AdamUpdate {
    /// Update number `t` (from 1) without weight decay; the corrections are computed in f64.
    pub fn new(t: u64, learning_rate: f32, beta1: f32, beta2: f32, epsilon: f32) -> Self {
        let correction = |beta: f32| (1.0 / (1.0 - libm::pow(f64::from(beta), t as f64))) as f32;
        Self {
            learning_rate,
            beta1,
            beta2,
            epsilon,
            correction1: correction(beta1),
            correction2: correction(beta2),
            keep: 1.0,
        }
    }

    /// The same with decoupled weight decay.
    pub fn with_weight_decay(self, weight_decay: f32) -> Self {
        Self { keep: 1.0 - self.learning_rate * weight_decay, ..self }
    }
}

dispatch! {
    /// m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
    /// p = keep p - learning_rate (m correction1) / (sqrt(v correction2) + epsilon).
    pub fn adam(update: &AdamUpdate, g: &[f32], p: &mut [f32], m: &mut [f32], v: &mut [f32]) = generic;
}

#[inline(always)]
fn generic<S: Simd>(s: S, update: &AdamUpdate, g: &[f32], p: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    let n = g.len();
    assert!(p.len() == n && m.len() == n && v.len() == n);
    let beta1 = s.splat(update.beta1);
    let beta2 = s.splat(update.beta2);
    let rest1 = s.splat(1.0 - update.beta1);
    let rest2 = s.splat(1.0 - update.beta2);
    let epsilon = s.splat(update.epsilon);
    let correction2 = s.splat(update.correction2);
    let step = s.splat(update.learning_rate * update.correction1);
    let keep = s.splat(update.keep);
    for j in (0..n).step_by(S::LANES) {
        let left = n - j;
        // SAFETY: j < n, the length of all four.
        unsafe {
            let (pp, pm, pv) = (p.as_mut_ptr().add(j), m.as_mut_ptr().add(j), v.as_mut_ptr().add(j));
            let g = s.load_upto(g.as_ptr().add(j), left);
            let m = s.mul_add(beta1, s.load_upto(pm, left), s.mul(rest1, g));
            let v = s.mul_add(beta2, s.load_upto(pv, left), s.mul(rest2, s.mul(g, g)));
            let root = s.add(s.sqrt(s.mul(v, correction2)), epsilon);
            let p = s.sub(s.mul(keep, s.load_upto(pp, left)), s.div(s.mul(step, m), root));
            s.store_upto(pp, p, left);
            s.store_upto(pm, m, left);
            s.store_upto(pv, v, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::{assert_close, numbers};

    #[test]
    fn as_in_f64() {
        for (isa, weight_decay) in Isa::available().into_iter().flat_map(|isa| [(isa, 0.0f32), (isa, 0.1)]) {
            let n = 37;
            let mut p = numbers(1, n);
            let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
            let mut wide: Vec<f64> = p.iter().map(|&x| f64::from(x)).collect();
            let (mut wm, mut wv) = (vec![0.0f64; n], vec![0.0f64; n]);
            for t in 1..=5 {
                let g = numbers(10 + t, n);
                let update = AdamUpdate::new(t, 1e-2, 0.9, 0.999, 1e-8).with_weight_decay(weight_decay);
                adam(isa, &update, &g, &mut p, &mut m, &mut v);
                for i in 0..n {
                    let g = f64::from(g[i]);
                    wm[i] = 0.9 * wm[i] + 0.1 * g;
                    wv[i] = 0.999 * wv[i] + 0.001 * g * g;
                    let mh = wm[i] / (1.0 - 0.9f64.powi(t as i32));
                    let vh = wv[i] / (1.0 - 0.999f64.powi(t as i32));
                    wide[i] -= 1e-2 * (mh / (vh.sqrt() + 1e-8) + f64::from(weight_decay) * wide[i]);
                }
            }
            assert_close(&p, &wide, 3e-6, &format!("{isa}"));
            assert_close(&m, &wm, 1e-6, "m");
            assert_close(&v, &wv, 1e-6, "v");
        }
    }
}
