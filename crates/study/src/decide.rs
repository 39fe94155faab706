//! The decision: which configuration to keep.
//!
//! A person who looks at a table of losses and times takes a slightly worse loss when it costs much less, and
//! could not say twice where "slightly" ends. The rule says it: **the cheapest configuration whose loss is
//! within the tolerance of the best loss is kept.** Equal costs are decided by the lower loss, equal losses by
//! the order in which the configurations were declared.
//!
//! d = (loss - best loss) / best loss; acceptable means d <= tolerance. On the notebook's tables, with 1 %, that
//! chooses what its authors chose by eye: 256 channels, 8 heads, 4 layers.
//!
//! Costs have noise of their own: seconds measured one trial after the other on a shared machine differ by some
//! per cent for no reason, and identical studies would choose differently. So costs within a margin of the
//! cheapest acceptable one ([`Cost::noise`]) count as equal, and the lower loss decides. A table from elsewhere is
//! taken literally. Losses are taken at face value here; [`weigh`](crate::weigh()) says how certain the choice is.

use crate::Params;
use serde::{Deserialize, Serialize};

/// What a configuration costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cost {
    /// Seconds in training steps, as measured: evaluations and checkpoints do not count.
    #[default]
    Seconds,
    /// Floating-point operations by the field's usual count: the same on every machine.
    Flop,
    /// Number of parameters.
    Parameters,
}

/// Times that scatter by more than this part of themselves are worth a hint.
const LOUD: f64 = 0.3;

impl Cost {
    /// How far apart two costs of a study must be to count as different, as a fraction of the lower one: for seconds the
    /// two largest of what was `measured` ([`Timing::noise`](crate::Timing)) together, and 10 % at least, since
    /// from one minute to another a shared machine differs by as much.
    pub fn noise(self, measured: impl IntoIterator<Item = f64>) -> f64 {
        let mut measured: Vec<f64> = measured.into_iter().filter(|noise| noise.is_finite()).collect();
        measured.sort_by(|a, b| b.total_cmp(a));
        match self {
            Self::Seconds => measured.iter().take(2).sum::<f64>().max(0.1),
            Self::Flop | Self::Parameters => 0.0,
        }
    }

    /// Its name, as it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Flop => "flop",
            Self::Parameters => "parameters",
        }
    }

    /// A cost with its unit: `331.1 s`.
    pub fn text(self, cost: f64) -> String {
        match self {
            Self::Seconds if cost.abs() < 0.95 => format!("{cost:.3} s"),
            Self::Seconds => format!("{cost:.1} s"),
            Self::Flop => format!("{cost:.3e} FLOP"),
            Self::Parameters => format!("{cost:.0} parameters"),
        }
    }

    /// How a cost differs from another: `49 % less time`, with the difference as a fraction of the other.
    pub fn difference(self, fraction: f64) -> String {
        let size = percent(fraction.abs());
        match (self, fraction > 0.0) {
            (Self::Seconds, true) => format!("{size} more time"),
            (Self::Seconds, false) => format!("{size} less time"),
            (Self::Flop, true) => format!("{size} more computation"),
            (Self::Flop, false) => format!("{size} less computation"),
            (Self::Parameters, true) => format!("{size} more parameters"),
            (Self::Parameters, false) => format!("{size} fewer parameters"),
        }
    }
}

/// The rule's one number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance(f64);

impl Default for Tolerance {
    /// One per cent.
    fn default() -> Self {
        Self(0.01)
    }
}

impl Tolerance {
    /// A tolerance as a fraction of the best loss: 0.01 is one per cent. `None` for a negative number or one of 1
    /// and above.
    pub fn new(fraction: f64) -> Option<Self> {
        (0.0..1.0).contains(&fraction).then_some(Self(fraction))
    }

    /// The fraction.
    pub fn fraction(self) -> f64 {
        self.0
    }
}

/// One configuration to decide on.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its parameters, in column order.
    pub params: Params,
    /// What it costs, in the unit of a [`Cost`].
    pub cost: f64,
    /// Its loss, the mean over its seeds. Not finite: the candidate is left out.
    pub loss: f64,
    /// Why it is left out, if it failed or has not finished.
    pub left_out: Option<String>,
}

/// How a candidate compares with the best.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Index among the candidates.
    pub candidate: usize,
    /// d = (loss - best loss) / best loss.
    pub difference: f64,
    /// d <= tolerance.
    pub acceptable: bool,
    /// (cost - cost of the best) / cost of the best.
    pub cost_difference: f64,
}

/// What the rule found. Indices are places in the list of candidates.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The configuration to keep.
    pub chosen: usize,
    /// The one with the lowest loss.
    pub best: usize,
    /// Every candidate that has a loss, in declaration order.
    pub compared: Vec<Comparison>,
    /// Every candidate that was left out, with the reason.
    pub left_out: Vec<(usize, String)>,
    /// The tolerance applied.
    pub tolerance: Tolerance,
    /// The margin within which costs counted as equal.
    pub noise: f64,
}

/// Applies the rule; costs within the fraction `noise` of the cheapest acceptable one count as equal. `None` when no
/// candidate has a finite loss and cost.
pub fn decide(candidates: &[Candidate], tolerance: Tolerance, noise: f64) -> Option<Decision> {
    let mut left_out = Vec::new();
    let mut finite = Vec::new();
    for (i, candidate) in candidates.iter().enumerate() {
        if let Some(reason) = &candidate.left_out {
            left_out.push((i, reason.clone()));
        } else if !candidate.loss.is_finite() {
            left_out.push((i, format!("its loss is {}", candidate.loss)));
        } else if !candidate.cost.is_finite() {
            left_out.push((i, format!("its cost is {}", candidate.cost)));
        } else {
            finite.push(i);
        }
    }
    // `min_by` returns the first of equals: declaration order.
    let best = *finite.iter().min_by(|&&a, &&b| candidates[a].loss.total_cmp(&candidates[b].loss))?;
    let (best_loss, best_cost) = (candidates[best].loss, candidates[best].cost);
    let compared: Vec<Comparison> = finite
        .iter()
        .map(|&i| {
            let difference = relative(candidates[i].loss, best_loss);
            Comparison {
                candidate: i,
                difference,
                // A loss of 2.02 is within 1 % of 2, whatever binary fractions make of it.
                acceptable: difference <= tolerance.0 + 1e-12,
                cost_difference: relative(candidates[i].cost, best_cost),
            }
        })
        .collect();
    let acceptable = || compared.iter().filter(|c| c.acceptable).map(|c| c.candidate);
    let cheapest = acceptable().map(|c| candidates[c].cost).min_by(f64::total_cmp).unwrap_or(best_cost);
    let chosen = acceptable()
        .filter(|&c| candidates[c].cost <= cheapest + noise * cheapest.abs())
        .min_by(|&a, &b| {
            let (a, b) = (&candidates[a], &candidates[b]);
            a.loss.total_cmp(&b.loss).then(a.cost.total_cmp(&b.cost))
        })
        .unwrap_or(best);
    Some(Decision { chosen, best, compared, left_out, tolerance, noise })
}

/// (x - base) / |base|; equal numbers differ by 0 even when the base is 0.
fn relative(x: f64, base: f64) -> f64 {
    if x == base { 0.0 } else { (x - base) / base.abs() }
}

impl Decision {
    /// The comparison of one candidate, unless it was left out.
    pub fn comparison(&self, candidate: usize) -> Option<&Comparison> {
        self.compared.iter().find(|c| c.candidate == candidate)
    }

    /// The price of the choice: `0.75 % more loss for 49 % less time`. Nothing when the best is chosen.
    pub fn price(&self, cost: Cost) -> Option<String> {
        let chosen = self.comparison(self.chosen).filter(|_| self.chosen != self.best)?;
        Some(trade(chosen, cost))
    }

    /// The Pareto front, cheapest first: candidates that nothing else equals in both cost and loss, or beats in one and
    /// equals in the other. Of equals in both, the first.
    pub fn front(&self, candidates: &[Candidate]) -> Vec<usize> {
        let mut by_cost: Vec<usize> = self.compared.iter().map(|c| c.candidate).collect();
        let key = |&i: &usize| (candidates[i].cost, candidates[i].loss);
        by_cost.sort_by(|a, b| key(a).0.total_cmp(&key(b).0).then(key(a).1.total_cmp(&key(b).1)));
        let mut front: Vec<usize> = Vec::new();
        for i in by_cost {
            if front.last().is_none_or(|&last| candidates[i].loss < candidates[last].loss) {
                front.push(i);
            }
        }
        front
    }

    /// What each configuration of the front saves against the next dearer one, cheapest first:
    /// `A: 0.75 % more loss for 49 % less time than B`.
    pub fn prices(&self, candidates: &[Candidate], cost: Cost) -> Vec<String> {
        let front = self.front(candidates);
        let price = |two: &[usize]| {
            let (a, b) = (&candidates[two[0]], &candidates[two[1]]);
            let step = Comparison {
                candidate: two[0],
                difference: relative(a.loss, b.loss),
                acceptable: true,
                cost_difference: relative(a.cost, b.cost),
            };
            format!("{}: {} than {}", a.params, trade(&step, cost), b.params)
        };
        front.windows(2).map(price).collect()
    }

    /// The reason in one sentence.
    pub fn reason(&self, candidates: &[Candidate], cost: Cost) -> String {
        let tolerance = percent(self.tolerance.0);
        let chosen = &candidates[self.chosen].params;
        let count = self.compared.len();
        if count == 1 {
            return format!("{chosen} is the only configuration with a result");
        }
        match self.price(cost) {
            None => {
                let cheaper = self.cheaper(candidates);
                if cheaper.iter().any(|c| c.acceptable) {
                    format!(
                        "{chosen} has the lowest loss of {count}, and what is cheaper within {tolerance} of it is cheaper by less than {}, the noise of measured times",
                        percent(self.noise)
                    )
                } else if cheaper.is_empty() {
                    format!("{chosen} has the lowest loss of {count} and none costs less")
                } else {
                    format!(
                        "{chosen} has the lowest loss of {count}, and nothing cheaper is within {tolerance} of it"
                    )
                }
            }
            Some(price) => format!(
                "{chosen} is the cheapest of {count} within {tolerance} of the best loss: {price} than {}",
                candidates[self.best].params
            ),
        }
    }

    /// The whole reasoning, line by line: the best, everything that costs less than the best and why it is or is
    /// not acceptable, what was left out, and at the end `chosen: KEY=VALUE ...`.
    pub fn explain(&self, candidates: &[Candidate], cost: Cost) -> Vec<String> {
        let best = &candidates[self.best];
        let tolerance = percent(self.tolerance.0);
        let mut lines = vec![
            format!("best loss: {:.4}, {}, by {}", best.loss, cost.text(best.cost), best.params),
            format!(
                "tolerance: {tolerance}, so a loss up to {:.4} is acceptable, and the cheapest such configuration is chosen",
                best.loss + best.loss.abs() * self.tolerance.0
            ),
        ];
        let cheaper = self.cheaper(candidates);
        let chosen_cost = candidates[self.chosen].cost;
        let passed_over =
            self.compared.iter().any(|c| c.acceptable && candidates[c.candidate].cost < chosen_cost);
        if passed_over {
            lines.push(format!(
                "costs within {} of the cheapest acceptable one count as equal, and the lower loss decides: times measured one after the other are no more exact{}",
                percent(self.noise),
                if self.noise > LOUD { "; --cost flop compares without noise" } else { "" }
            ));
        }
        if cheaper.is_empty() && self.compared.len() > 1 {
            lines.push("no other configuration costs less".to_string());
        }
        for comparison in cheaper {
            let candidate = &candidates[comparison.candidate];
            let verdict = if comparison.candidate == self.chosen {
                if passed_over { "acceptable, and chosen" } else { "acceptable, and the cheapest that is" }
            } else if comparison.acceptable && candidate.cost < chosen_cost {
                "acceptable, but not cheaper by more than noise"
            } else if comparison.acceptable {
                "acceptable, but not the cheapest"
            } else {
                "too much"
            };
            lines.push(format!(
                "{}: loss {:.4}, {}: {}: {verdict}",
                candidate.params,
                candidate.loss,
                cost.text(candidate.cost),
                trade(comparison, cost),
            ));
        }
        // Of two the price is said already.
        if self.front(candidates).len() > 2 {
            lines.push("from each configuration that nothing else beats to the next dearer one:".to_string());
            lines.extend(self.prices(candidates, cost));
        }
        for (candidate, reason) in &self.left_out {
            lines.push(format!("left out: {}: {reason}", candidates[*candidate].params));
        }
        lines.push(format!("chosen: {}", candidates[self.chosen].params));
        lines
    }

    /// Everything that costs less than the best, cheapest first.
    fn cheaper(&self, candidates: &[Candidate]) -> Vec<&Comparison> {
        let best_cost = candidates[self.best].cost;
        let mut cheaper: Vec<&Comparison> =
            self.compared.iter().filter(|c| candidates[c.candidate].cost < best_cost).collect();
        cheaper.sort_by(|a, b| candidates[a.candidate].cost.total_cmp(&candidates[b.candidate].cost));
        cheaper
    }
}

/// `0.75 % more loss for 49 % less time`.
fn trade(comparison: &Comparison, cost: Cost) -> String {
    let cost = cost.difference(comparison.cost_difference);
    format!("{} more loss for {cost}", percent(comparison.difference))
}

/// A fraction as a percentage with two or three digits that matter: `0.75 %`, `3.1 %`, `49 %`.
pub fn percent(fraction: f64) -> String {
    let p = 100.0 * fraction;
    let text = match p.abs() {
        a if a >= 9.95 => format!("{p:.0}"),
        a if a >= 1.995 => format!("{p:.1}"),
        _ => format!("{p:.2}"),
    };
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} %")
}

#[cfg(test)]
mod tests {
    use super::*;
    use toml::Value;

    fn candidates(rows: &[(f64, f64)]) -> Vec<Candidate> {
        rows.iter()
            .enumerate()
            .map(|(i, &(cost, loss))| Candidate {
                params: Params::new([("i", Value::Integer(i as i64))]),
                cost,
                loss,
                left_out: None,
            })
            .collect()
    }

    fn chosen(rows: &[(f64, f64)], tolerance: f64) -> usize {
        decide(&candidates(rows), Tolerance::new(tolerance).unwrap(), 0.0).unwrap().chosen
    }

    #[test]
    fn the_cheapest_within_the_tolerance() {
        assert_eq!(chosen(&[(1.0, 1.02), (2.0, 1.009), (4.0, 1.0)], 0.01), 1);
        assert_eq!(chosen(&[(1.0, 1.02), (2.0, 1.009), (4.0, 1.0)], 0.02), 0);
        assert_eq!(chosen(&[(1.0, 1.02), (2.0, 1.009), (4.0, 1.0)], 0.0), 2);
    }

    #[test]
    fn the_tolerance_itself_is_acceptable() {
        for best in [1.0, 1.3, 2.0, 0.7, 3.1, 1.1234] {
            assert_eq!(chosen(&[(2.0, best), (1.0, best * 1.01)], 0.01), 1, "{best}");
            assert_eq!(chosen(&[(2.0, best), (1.0, best * 1.010_001)], 0.01), 0, "{best}");
        }
        assert_eq!(chosen(&[(2.0, 2.0), (1.0, 2.02)], 0.01), 1);
    }

    #[test]
    fn ties_go_to_the_lower_loss_then_to_the_first_declared() {
        assert_eq!(chosen(&[(3.0, 1.0), (1.0, 1.008), (1.0, 1.005), (1.0, 1.005)], 0.01), 2);
        assert_eq!(chosen(&[(1.0, 1.0), (1.0, 1.0)], 0.01), 0);
    }

    #[test]
    fn costs_within_their_noise_are_told_apart_by_loss() {
        let chosen =
            |rows: &[(f64, f64)]| decide(&candidates(rows), Tolerance::default(), 0.1).unwrap().chosen;
        assert_eq!(chosen(&[(1.00, 1.005), (1.09, 1.000)]), 1);
        assert_eq!(chosen(&[(1.09, 1.005), (1.00, 1.000)]), 1);
        assert_eq!(chosen(&[(1.00, 1.005), (1.11, 1.000)]), 0);
        // What is not acceptable sets no margin.
        assert_eq!(chosen(&[(0.90, 1.5), (1.00, 1.005), (1.09, 1.000), (1.2, 0.999)]), 2);
        let rows = candidates(&[(1.00, 1.005), (1.09, 1.000)]);
        let decision = decide(&rows, Tolerance::default(), 0.1).unwrap();
        assert!(decision.reason(&rows, Cost::Seconds).contains("less than 10 %"));
    }

    #[test]
    fn the_front_has_what_nothing_else_beats() {
        let rows = candidates(&[
            (4.0, 1.0),
            (3.0, 1.1),
            (2.0, 1.01),
            (2.0, 1.01),
            (2.0, 1.02),
            (1.0, 1.05),
            (9.0, 1.0),
        ]);
        let decision = decide(&rows, Tolerance::default(), 0.0).unwrap();
        assert_eq!(decision.front(&rows), [5, 2, 0]);
        assert_eq!(
            decision.prices(&rows, Cost::Seconds),
            [
                "i=5: 4 % more loss for 50 % less time than i=2",
                "i=2: 1 % more loss for 50 % less time than i=0"
            ]
        );
    }

    #[test]
    fn what_has_no_loss_is_left_out_and_named() {
        let mut rows = candidates(&[(1.0, f64::NAN), (2.0, 1.0), (0.5, 1.0), (f64::INFINITY, 0.5)]);
        rows[2].left_out = Some("diverged at step 7".to_string());
        let decision = decide(&rows, Tolerance::default(), 0.0).unwrap();
        assert_eq!(decision.chosen, 1);
        let explained = decision.explain(&rows, Cost::Seconds);
        assert_eq!(
            explained[2..],
            [
                "left out: i=0: its loss is NaN",
                "left out: i=2: diverged at step 7",
                "left out: i=3: its cost is inf",
                "chosen: i=1"
            ]
        );
        assert_eq!(decide(&rows[..1], Tolerance::default(), 0.0), None);
        assert_eq!(decide(&[], Tolerance::default(), 0.0), None);
    }

    #[test]
    fn zero_and_negative_losses_are_compared_too() {
        assert_eq!(chosen(&[(2.0, 0.0), (1.0, 1e-9)], 0.01), 0);
        assert_eq!(chosen(&[(2.0, -1.0), (1.0, -0.995)], 0.01), 1);
        assert_eq!(chosen(&[(2.0, -1.0), (1.0, -0.98)], 0.01), 0);
    }

    #[test]
    fn percentages_have_the_digits_that_matter() {
        let texts = [0.0, 0.0004, 0.0075, 0.01, 0.0171, 0.0315, 0.0996, 0.4923].map(percent);
        assert_eq!(texts, ["0 %", "0.04 %", "0.75 %", "1 %", "1.71 %", "3.1 %", "10 %", "49 %"]);
    }

    #[test]
    fn tolerances_outside_of_0_to_1_are_refused() {
        assert!(Tolerance::new(0.0).is_some());
        for wrong in [-0.01, 1.0, 5.0, f64::NAN, f64::INFINITY] {
            assert!(Tolerance::new(wrong).is_none(), "{wrong}");
        }
    }
}
