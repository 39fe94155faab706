//! Lion (Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023): a step of one size for every parameter, its sign taken
//! from a momentum; one pass over parameters, gradient and that momentum.

use crate::isa::dispatch;
use crate::simd::Simd;

/// The numbers of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LionUpdate {
    /// Step size.
    pub learning_rate: f32,
    /// Weight of the momentum against the gradient in the step.
    pub beta1: f32,
    /// Decay of the momentum.
    pub beta2: f32,
    /// What is left of a parameter before the step: 1 - learning_rate x weight decay.
    pub keep: f32,
}

dispatch! {
    /// p = keep p - learning_rate sign(beta1 m + (1 - beta1) g); m = beta2 m + (1 - beta2) g. The sign of 0 is 0.
    pub fn lion(update: &LionUpdate, g: &[f32], p: &mut [f32], m: &mut [f32]) = generic;
}

#[inline(always)]
fn generic<S: Simd>(s: S, update: &LionUpdate, g: &[f32], p: &mut [f32], m: &mut [f32]) {
    let n = g.len();
    assert!(p.len() == n && m.len() == n);
    let beta1 = s.splat(update.beta1);
    let beta2 = s.splat(update.beta2);
    let rest1 = s.splat(1.0 - update.beta1);
    let rest2 = s.splat(1.0 - update.beta2);
    let keep = s.splat(update.keep);
    let step = s.splat(update.learning_rate);
    let (zero, tiny) = (s.splat(0.0), s.splat(f32::MIN_POSITIVE));
    for j in (0..n).step_by(S::LANES) {
        let left = n - j;
        // SAFETY: j < n, the length of all three.
        unsafe {
            let (pp, pm) = (p.as_mut_ptr().add(j), m.as_mut_ptr().add(j));
            let g = s.load_upto(g.as_ptr().add(j), left);
            let m = s.load_upto(pm, left);
            let c = s.mul_add(beta1, m, s.mul(rest1, g));
            // x / |x| is 1 or -1 exactly; c comes last in `max`, so that what is no number stays so.
            let sign = s.div(c, s.max(tiny, s.max(s.sub(zero, c), c)));
            let p = s.neg_mul_add(step, sign, s.mul(keep, s.load_upto(pp, left)));
            s.store_upto(pp, p, left);
            s.store_upto(pm, s.mul_add(beta2, m, s.mul(rest2, g)), left);
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
            let mut m = vec![0.0; n];
            let mut wide: Vec<f64> = p.iter().map(|&x| f64::from(x)).collect();
            let mut wm = vec![0.0f64; n];
            let update =
                LionUpdate { learning_rate: 0.01, beta1: 0.9, beta2: 0.99, keep: 1.0 - 0.01 * weight_decay };
            for t in 1..=5 {
                let mut g = numbers(10 + t, n);
                // Without gradient and momentum a parameter only decays.
                g[3] = 0.0;
                lion(isa, &update, &g, &mut p, &mut m);
                for i in 0..n {
                    let g = f64::from(g[i]);
                    let c = 0.9 * wm[i] + 0.1 * g;
                    let sign = if c == 0.0 { 0.0 } else { c.signum() };
                    wide[i] -= 0.01 * (sign + f64::from(weight_decay) * wide[i]);
                    wm[i] = 0.99 * wm[i] + 0.01 * g;
                }
            }
            assert_close(&p, &wide, 1e-6, &format!("{isa}"));
            assert_close(&m, &wm, 1e-6, "m");
        }
    }

    #[test]
    fn what_is_no_number_is_not_hidden() {
        for isa in Isa::available() {
            let update = LionUpdate { learning_rate: 0.01, beta1: 0.9, beta2: 0.99, keep: 1.0 };
            let (mut p, mut m) = (vec![1.0; 3], vec![0.0; 3]);
            lion(isa, &update, &[1.0, f32::NAN, 0.0], &mut p, &mut m);
            assert!(p[0] == 0.99 && p[1].is_nan() && p[2] == 1.0 && m[1].is_nan(), "{isa}: {p:?}");
        }
    }
}
