//! What the evaluations of a run say: the curve, and everything that is read off it.
//!
//! A run keeps one list, its curve. The read-outs (early, best, last), patience and the notebook's own
//! stopping rule are functions of that list and of nothing else. So there is no counter to save with a
//! checkpoint, and a resumed run cannot come to another conclusion than an uninterrupted one.

use serde::{Deserialize, Serialize};

/// One evaluation. `curve.csv` has these columns.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurvePoint {
    /// Updates done.
    pub step: u64,
    /// Mean training loss of the steps since the previous evaluation, nats.
    pub train_loss: f64,
    /// Mean validation loss over all positions, nats.
    pub validation_loss: f64,
    /// Share of positions where the likeliest symbol was right.
    pub accuracy: f64,
    /// The same at the last position of each window.
    pub accuracy_last: f64,
    /// Seconds spent in training steps so far.
    pub train_seconds: f64,
}

/// A read-out of the trajectory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// Updates done.
    pub step: u64,
    /// Mean validation loss over all positions, nats.
    pub validation_loss: f64,
    /// Share of positions where the likeliest symbol was right.
    pub accuracy: f64,
    /// The same at the last position of each window.
    pub accuracy_last: f64,
    /// Seconds spent in training steps so far.
    pub train_seconds: f64,
}

impl Reading {
    /// The loss in bits per character.
    pub fn bpc(&self) -> f64 {
        self.validation_loss / std::f64::consts::LN_2
    }
}

impl From<&CurvePoint> for Reading {
    fn from(point: &CurvePoint) -> Self {
        Self {
            step: point.step,
            validation_loss: point.validation_loss,
            accuracy: point.accuracy,
            accuracy_last: point.accuracy_last,
            train_seconds: point.train_seconds,
        }
    }
}

/// The evaluation with the lowest validation loss, the first of equals.
pub(crate) fn best(curve: &[CurvePoint]) -> Option<&CurvePoint> {
    curve.iter().min_by(|a, b| a.validation_loss.total_cmp(&b.validation_loss))
}

/// The curve as comma-separated values, numbers in full.
pub(crate) fn csv(curve: &[CurvePoint]) -> String {
    let mut text = String::from("step,train_loss,validation_loss,accuracy,accuracy_last,train_seconds\n");
    for p in curve {
        text += &format!(
            "{},{},{},{},{},{:.3}\n",
            p.step, p.train_loss, p.validation_loss, p.accuracy, p.accuracy_last, p.train_seconds
        );
    }
    text
}

/// What the notebook's early-stopping loop would have recorded for this run.
///
/// Its loop counts improvements and stops at the fifth. At the last iteration it records the loss only if
/// that evaluation was *no* improvement; a run whose last evaluation is one of its first four improvements
/// leaves no number behind. (The first evaluation is always an improvement, so a run with one alone is lost.)
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum SeedRule {
    /// The run is not over and the fifth improvement has not come.
    Undecided,
    /// The fifth improvement came at `step` (after `step` updates; the notebook's iteration is one less).
    Stopped {
        /// Updates done.
        step: u64,
    },
    /// The run went to its end, and the last evaluation, no improvement, was recorded.
    RanThrough,
    /// The run went to its end, and the last evaluation, an improvement, was lost.
    Lost,
}

/// What the notebook takes for an improvement, nats.
const SEED_MIN_IMPROVEMENT: f64 = 1e-3;
/// The number of improvements at which it stops.
const SEED_IMPROVEMENTS: u32 = 5;
/// Its best loss before the first evaluation.
const SEED_START: f64 = 1000.0;

impl SeedRule {
    /// What the rule says after the evaluations of `curve`; `over`: the last of them is the last iteration's.
    pub fn of(curve: &[CurvePoint], over: bool) -> Self {
        let (mut best, mut improvements, mut improved) = (SEED_START, 0, false);
        for point in curve {
            improved = point.validation_loss + SEED_MIN_IMPROVEMENT < best;
            if improved {
                best = point.validation_loss;
                improvements += 1;
                if improvements == SEED_IMPROVEMENTS {
                    return Self::Stopped { step: point.step };
                }
            }
        }
        match (over, improved) {
            (false, _) => Self::Undecided,
            (true, true) => Self::Lost,
            (true, false) => Self::RanThrough,
        }
    }
}
