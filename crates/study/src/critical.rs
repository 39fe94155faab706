//! Critical values: how many standard errors an interval reaches to each side.
//!
//! One comparison needs Student's t. Several comparisons with one configuration, all made with the same estimate of
//! the noise, need more, so that all of them hold at once: Dunnett ("A multiple comparison procedure for comparing
//! several treatments with a control", JASA 50, 1955, 1096-1121). Both are the same integral, done here by the
//! trapezoidal rule, which converges faster than any power of the step for such integrands. Functions come from
//! `libm`: a value has the same bits on every machine.

use libm::{erf, exp, log, sqrt};

/// The two-sided critical value of `comparisons` differences of equally exact means from one common mean (for one
/// comparison: Student's t), with `degrees` of freedom: the chance that any of them is further out is `miss`, which
/// lies between 1e-9 and 0.9.
pub fn critical_value(comparisons: usize, degrees: f64, miss: f64) -> f64 {
    let tail = Tail::new(comparisons.max(1), degrees.max(1.0));
    // How far ln P(outside x) lies above ln(miss), as a function of y = ln x: smooth, falling, nearly a line.
    let excess = |y: f64| log(tail.outside(exp(y)).max(1e-300)) - log(miss);
    let (mut low, mut high) = (-3.0, 1.0);
    let (mut at_low, mut at_high) = (excess(low), excess(high));
    while at_high > 0.0 && high < 40.0 {
        (low, at_low) = (high, at_high);
        high += 1.0;
        at_high = excess(high);
    }
    // False position, the Illinois form: the end that stays twice counts half.
    let mut stayed = 0;
    for _ in 0..60 {
        let y = (low * at_high - high * at_low) / (at_high - at_low);
        let at = excess(y);
        if at.abs() < 1e-9 || high - low < 1e-12 {
            return exp(y);
        }
        if at > 0.0 {
            (low, at_low) = (y, at);
            at_high *= if stayed == 1 { 0.5 } else { 1.0 };
            stayed = 1;
        } else {
            (high, at_high) = (y, at);
            at_low *= if stayed == -1 { 0.5 } else { 1.0 };
            stayed = -1;
        }
    }
    exp(high)
}

/// P(max |t_i| > x) for t_i = (Z_i - Z_0) / (sqrt(2) s), i = 1 .. p, all Z standard normal, `degrees` s^2 a
/// chi-square of that many degrees.
struct Tail {
    p: usize,
    /// Places s and their weights, which sum to 1.
    spread: Vec<(f64, f64)>,
    /// Places of Z_0 and their weights, which sum to 1.
    common: Vec<(f64, f64)>,
}

impl Tail {
    fn new(p: usize, degrees: f64) -> Self {
        // In u = ln s the density is exp(degrees (u - exp(2u) / 2)): its standard deviation is about
        // 1 / sqrt(2 degrees), and it falls like exp(degrees u) to the left.
        let step = (0.8 / sqrt(2.0 * degrees)).min(0.25);
        let (from, to) = (-(20.0 / degrees + 4.5 / sqrt(degrees)), log(1.0 + 7.0 / sqrt(degrees)));
        let density = |u: f64| exp(degrees * (u - exp(2.0 * u) / 2.0 + 0.5));
        let spread = weighted((from / step) as i64, (to / step) as i64, step, density);
        let common = weighted(-13, 13, 0.5, |z| exp(-z * z / 2.0));
        Self { p, spread: spread.into_iter().map(|(u, weight)| (exp(u), weight)).collect(), common }
    }

    fn outside(&self, x: f64) -> f64 {
        let root = std::f64::consts::FRAC_1_SQRT_2;
        let within = |reach: f64| -> f64 {
            if self.p == 1 {
                return libm::erfc(reach * root);
            }
            // Z_i within sqrt(2) s x of Z_0.
            let reach = reach * std::f64::consts::SQRT_2;
            let all = |z: f64| 0.5 * (erf((z + reach) * root) - erf((z - reach) * root));
            self.common.iter().map(|&(z, weight)| weight * (1.0 - libm::pow(all(z), self.p as f64))).sum()
        };
        self.spread.iter().map(|&(s, weight)| weight * within(s * x)).sum()
    }
}

/// The places `from` .. `to` times `step`, with weights in proportion to `density` that sum to 1.
fn weighted(from: i64, to: i64, step: f64, density: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
    let places: Vec<(f64, f64)> = (from..=to).map(|i| i as f64 * step).map(|x| (x, density(x))).collect();
    let sum: f64 = places.iter().map(|(_, weight)| weight).sum();
    places.into_iter().map(|(x, weight)| (x, weight / sum)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Student's t, two-sided, as every table has it.
    #[test]
    fn one_comparison_is_students_t() {
        for (degrees, miss, expected) in [
            (1.0, 0.05, 12.7062),
            (2.0, 0.05, 4.3027),
            (3.0, 0.01, 5.8409),
            (10.0, 0.05, 2.2281),
            (23.0, 0.05, 2.0687),
            (23.0, 0.001, 3.7676),
            (120.0, 0.05, 1.9799),
            (1e6, 0.05, 1.9600),
        ] {
            let found = critical_value(1, degrees, miss);
            assert!((found - expected).abs() < 6e-5, "{degrees} {miss}: {found}");
        }
    }

    /// Dunnett's own table of 1964 (Biometrics 20, 482-491), two-sided, 5 %.
    #[test]
    fn several_comparisons_are_dunnetts() {
        for (comparisons, degrees, expected) in [
            (2, 5.0, 3.03),
            (3, 5.0, 3.29),
            (5, 5.0, 3.62),
            (2, 10.0, 2.57),
            (3, 10.0, 2.76),
            (5, 10.0, 2.99),
            (2, 20.0, 2.38),
            (4, 20.0, 2.65),
            (2, 1e6, 2.21),
            (4, 1e6, 2.44),
        ] {
            let found = critical_value(comparisons, degrees, 0.05);
            assert!((found - expected).abs() < 0.0051, "{comparisons} {degrees}: {found}");
        }
    }

    #[test]
    fn extreme_requests_have_finite_answers() {
        for comparisons in [1, 2, 11, 500] {
            for degrees in [0.0, 1.0, 2.0, 1e9] {
                for miss in [0.9, 0.05, 1e-6] {
                    let found = critical_value(comparisons, degrees, miss);
                    assert!(found.is_finite() && found > 0.0, "{comparisons} {degrees} {miss}: {found}");
                }
            }
        }
    }
}
