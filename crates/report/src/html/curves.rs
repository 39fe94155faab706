//! The curves of a study's trials, as they lie in the trials' folders.
//!
//! A study may have hundreds of trials with thousands of evaluations each; a picture has some hundred points across.
//! So curves are thinned as they are read: evenly, with the first, the last and the best evaluation in any case.

use diapason_study::Study;
use diapason_training::{CURVE, CurvePoint};
use std::path::Path;

/// Points that all curves of a page have together, about.
const POINTS: usize = 12_000;

/// Points that a curve has at most ...
const MOST: usize = 200;

/// ... and may have, however many curves there are.
const LEAST: usize = 12;

/// Trials whose curves are drawn, at most.
const MOST_TRIALS: usize = 1_000;

/// What a curve takes at most, bytes: more is no curve of ours.
const MOST_BYTES: u64 = 64 << 20;

/// The curves of a study, one for each trial, in the order of `Study::trials`; empty where there is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curves {
    pub(super) of_trials: Vec<Vec<CurvePoint>>,
    /// Whether points were left out.
    pub(super) thinned: bool,
}

impl Curves {
    /// Reads the curves in a study's folder. A trial whose curve is not there (it has not begun, or was trained on
    /// another machine) has none; neither has one whose file is no curve.
    pub fn read(study: &Study, folder: &Path) -> Self {
        let whole =
            study.trials.iter().take(MOST_TRIALS).map(|trial| {
                trial.record.as_ref().and_then(|_| read(&folder.join(&trial.folder).join(CURVE)))
            });
        Self::new(whole.map(Option::unwrap_or_default).collect())
    }

    /// Curves, one for each trial of a study.
    pub fn new(mut of_trials: Vec<Vec<CurvePoint>>) -> Self {
        of_trials.truncate(MOST_TRIALS);
        let drawn = of_trials.iter().filter(|curve| !curve.is_empty()).count();
        let most = (POINTS / drawn.max(1)).clamp(LEAST, MOST);
        let thinned = of_trials.iter().any(|curve| curve.len() > most);
        Self { of_trials: of_trials.iter().map(|curve| thin(curve, most)).collect(), thinned }
    }
}

fn read(path: &Path) -> Option<Vec<CurvePoint>> {
    let is_sensible = std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() <= MOST_BYTES);
    let mut reader = csv::Reader::from_path(path).ok().filter(|_| is_sensible)?;
    reader.deserialize().collect::<Result<_, _>>().ok()
}

/// About `most` points of a curve.
fn thin(curve: &[CurvePoint], most: usize) -> Vec<CurvePoint> {
    let last = curve.len().saturating_sub(1);
    if curve.len() <= most {
        return curve.to_vec();
    }
    let mut kept: Vec<usize> = (0..most).map(|i| i * last / (most - 1)).collect();
    let lowest =
        (0..curve.len()).min_by(|&a, &b| curve[a].validation_loss.total_cmp(&curve[b].validation_loss));
    kept.extend(lowest);
    kept.sort_unstable();
    kept.dedup();
    kept.into_iter().map(|i| curve[i]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(step: u64, validation_loss: f64) -> CurvePoint {
        CurvePoint {
            step,
            train_loss: 1.0,
            validation_loss,
            accuracy: 0.5,
            accuracy_last: 0.5,
            train_seconds: step as f64,
        }
    }

    #[test]
    fn ends_and_the_best_are_kept() {
        let curve: Vec<_> = (1..=5000).map(|i| point(i, if i == 777 { 0.5 } else { 1.0 })).collect();
        let thin = thin(&curve, 20);
        assert_eq!(thin.len(), 21);
        assert!([1, 777, 5000].iter().all(|step| thin.iter().any(|point| point.step == *step)));
        let few = Curves::new(vec![curve[..50].to_vec(), Vec::new()]);
        assert!(!few.thinned && few.of_trials[0].len() == 50);
        let many = Curves::new(vec![curve; 300]);
        assert!(many.thinned && many.of_trials[299].len() <= 41);
    }

    #[test]
    fn a_file_that_is_no_curve_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CURVE);
        assert_eq!(read(&path), None);
        std::fs::write(&path, "step,train_loss,validation_loss,accuracy,accuracy_last,train_seconds\n")
            .unwrap();
        assert_eq!(read(&path), Some(Vec::new()));
        std::fs::write(
            &path,
            "step,train_loss,validation_loss,accuracy,accuracy_last,train_seconds\n5,NaN,1.5,0.5,0.25,0.125\n",
        )
        .unwrap();
        assert_eq!(read(&path).unwrap()[0].step, 5);
        std::fs::write(&path, "<script>").unwrap();
        assert_eq!(read(&path), Some(Vec::new()));
        std::fs::write(&path, "a\n<script>").unwrap();
        assert_eq!(read(&path), None);
    }
}
