//! How the loss falls with size: straight lines through logarithms.
//!
//! Over a wide enough range the loss of language models falls about as a power of the number of parameters, and of the
//! amount of text that they have seen (Kaplan et al., "Scaling Laws for Neural Language Models", arXiv:2001.08361). A
//! grid that spans sizes shows with which power, for its own text and steps. Of configurations of the same size only
//! the best counts: the others say nothing about the size.
//!
//! What is claimed is little. There is no line through fewer than four sizes or over less than a factor of four, and the
//! exponent has a 95 % interval: Student's t with n - 2 degrees of freedom times its standard error, by the distances
//! of the points from the line. It holds if they lie about a line by chance; a bend is no chance, and is not in it.

use diapason_study::{Candidate, CellReading, Study, critical_value};
use serde::Serialize;
use std::collections::BTreeMap;

/// A fit needs so many sizes ...
const SIZES: usize = 4;

/// ... over this factor.
const SPAN: f64 = 4.0;

/// The chance that an exponent lies outside of its interval.
const MISS: f64 = 0.05;

/// What the loss is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Size {
    /// Parameters of the model.
    Parameters,
    /// Characters that it was trained on: steps x windows x characters of a window.
    TrainingCharacters,
}

impl Size {
    /// In words.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Parameters => "parameters",
            Self::TrainingCharacters => "characters of training",
        }
    }
}

/// loss = factor x size^exponent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fit {
    /// What the loss is held against.
    pub against: Size,
    /// The power by which the loss goes with the size.
    pub exponent: f64,
    /// Where the exponent lies with 95 % confidence, if the points lie about a line by chance.
    pub low: f64,
    /// ... and at most.
    pub high: f64,
    /// The loss at size 1, which nobody has trained.
    pub factor: f64,
    /// Size and loss of the best configuration of each size, the smallest first.
    pub points: Vec<(u64, f64)>,
    /// Which cells these are.
    #[serde(skip)]
    pub(crate) cells: Vec<usize>,
}

impl Fit {
    /// The loss at a size.
    pub(crate) fn at(&self, size: f64) -> f64 {
        self.factor * size.powf(self.exponent)
    }

    /// The fit in a sentence.
    pub(crate) fn text(&self) -> String {
        let open = if self.low < 0.0 && self.high > 0.0 {
            "; 0 lies in the interval, so these sizes do not show whether the loss falls"
        } else {
            ""
        };
        format!(
            "straight line through the logarithms of {} sizes, the best configuration of each: loss ~ {}^{}{open}",
            self.points.len(),
            self.against.name(),
            self.exponent_text()
        )
    }

    /// `-0.082 (95 %: -0.091 to -0.073)`.
    pub(crate) fn exponent_text(&self) -> String {
        format!("{:.3} (95 %: {:.3} to {:.3})", self.exponent, self.low, self.high)
    }
}

/// The size of a cell, if it has one.
type SizeOf<'a> = dyn Fn(usize) -> Option<u64> + 'a;

/// The fits for which there are enough sizes. `compared`: the cells with a loss; `candidates` and `readings` of all cells. Of an
/// ablation, whose changes are no sizes, the cells without a change count.
pub(crate) fn fits(
    study: &Study,
    candidates: &[Candidate],
    readings: &[CellReading],
    compared: &[usize],
) -> Vec<Fit> {
    let characters = |cell: usize| {
        let config = &study.cells[cell].config;
        let whole = readings[cell].steps == config.steps as f64;
        let of_step = (config.batch_size * config.sequence_length) as u64;
        whole.then(|| config.steps.saturating_mul(of_step))
    };
    let parameters = |cell: usize| readings[cell].parameters;
    let kinds: [(Size, &SizeOf<'_>); 2] =
        [(Size::Parameters, &parameters), (Size::TrainingCharacters, &characters)];
    let of = |(against, size): (Size, &SizeOf<'_>)| {
        let loss = |cell: usize| candidates[cell].loss;
        let mut best: BTreeMap<u64, usize> = BTreeMap::new();
        let counts = |cell: usize| {
            let is_whole = study.base_of(cell).is_none_or(|base| base == cell);
            is_whole && loss(cell) > 0.0 && loss(cell).is_finite()
        };
        for &cell in compared.iter().filter(|&&cell| counts(cell)) {
            if let Some(size) = size(cell).filter(|size| *size > 0) {
                let best = best.entry(size).or_insert(cell);
                if loss(cell) < loss(*best) {
                    *best = cell;
                }
            }
        }
        through(
            against,
            best.iter().map(|(&size, &cell)| (size, loss(cell))).collect(),
            best.into_values().collect(),
        )
    };
    kinds.into_iter().filter_map(of).collect()
}

/// The line of least squares through the logarithms.
fn through(against: Size, points: Vec<(u64, f64)>, cells: Vec<usize>) -> Option<Fit> {
    let (smallest, largest) = (points.first()?.0 as f64, points.last()?.0 as f64);
    if points.len() < SIZES || largest < SPAN * smallest {
        return None;
    }
    let n = points.len() as f64;
    let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| ((*x as f64).ln(), y.ln())).collect();
    let mean = |value: &dyn Fn(&(f64, f64)) -> f64| logs.iter().map(value).sum::<f64>() / n;
    let (x, y) = (mean(&|p| p.0), mean(&|p| p.1));
    let spread = logs.iter().map(|p| (p.0 - x).powi(2)).sum::<f64>();
    let exponent = logs.iter().map(|p| (p.0 - x) * (p.1 - y)).sum::<f64>() / spread;
    let offset = y - exponent * x;
    let distances = logs.iter().map(|p| (p.1 - offset - exponent * p.0).powi(2)).sum::<f64>();
    let half = critical_value(1, n - 2.0, MISS) * (distances / (n - 2.0) / spread).sqrt();
    let (low, high) = (exponent - half, exponent + half);
    let fit = Fit { against, exponent, low, high, factor: offset.exp(), points, cells };
    [fit.exponent, fit.low, fit.high].iter().all(|x| x.is_finite()).then_some(fit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(points: &[(u64, f64)]) -> Option<Fit> {
        through(Size::Parameters, points.to_vec(), Vec::new())
    }

    #[test]
    fn a_power_is_found_again() {
        let points = [10_000u64, 30_000, 200_000, 1_000_000].map(|n| (n, 7.0 * (n as f64).powf(-0.12)));
        let fit = fit(&points).unwrap();
        assert!((fit.exponent + 0.12).abs() < 1e-12 && fit.high - fit.low < 1e-6, "{fit:?}");
        assert!((fit.at(1e5) - 7.0 * 1e5f64.powf(-0.12)).abs() < 1e-9);
    }

    #[test]
    fn the_interval_by_hand() {
        // In powers of ten: (0, 0) (1, 1) (2, 1) (3, 2). Slope 0.6, its standard error sqrt(0.2 / 2 / 5); Student's t
        // with 2 degrees of freedom, 95 %: 4.302653.
        let points = [(1, 1.0), (10, 10.0), (100, 10.0), (1_000, 100.0)];
        let fit = fit(&points).unwrap();
        let half = 4.302_653 * (0.2f64 / 2.0 / 5.0).sqrt();
        assert!((fit.exponent - 0.6).abs() < 1e-12, "{fit:?}");
        assert!((fit.high - 0.6 - half).abs() < 1e-5 && (0.6 - half - fit.low).abs() < 1e-5, "{fit:?}");
    }

    #[test]
    fn too_few_sizes_have_no_line() {
        assert_eq!(fit(&[]), None);
        let scattered = fit(&[(1, 3.0), (10, 2.0), (100, 3.5), (1_000, 2.5)]).unwrap();
        assert!(
            scattered.low < 0.0 && scattered.high > 0.0 && scattered.text().contains("; 0 lies in"),
            "{scattered:?}"
        );
        assert_eq!(fit(&[(1, 3.0), (10, 2.0), (100, 1.0)]), None);
        assert_eq!(fit(&[(100, 3.0), (150, 2.0), (200, 1.5), (300, 1.0)]), None);
    }
}
