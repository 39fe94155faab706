//! When a run is evaluated, and what ends it before its last step.
//!
//! Two protocols. The standard one evaluates at regular steps on the same characters, so that all
//! evaluations of all configurations are paired, and stops on stagnation. The notebook's evaluates on a fresh
//! random batch each time and counts improvements; it is kept, under its own name, to repeat what was done.

use crate::{Config, CurvePoint, Reading, SeedRule};
use diapason_corpus::windows::{Windows, random_windows};
use diapason_random::{Purpose, Stream};
use serde::{Deserialize, Serialize};

/// When and on what a run is evaluated, and what ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Every `steps_between_evaluations` steps, at the early step and at the last, always on the same characters;
    /// patience can end the run.
    #[default]
    Standard,
    /// The notebook's, as it ran. Iteration i = 0, 1000, 2000, ... and the last is evaluated after its update,
    /// so after update i + 1, each time on 1,024 fresh windows. The early reading is where its rule stops,
    /// but the run goes on to its last step. `eval_every`, if not 0, replaces the 1000; `validation_characters`,
    /// `patience` and `min_improvement` do not apply.
    AsSeed,
}

impl Protocol {
    /// The name, as in checkpoints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::AsSeed => "as-seed",
        }
    }

    /// The protocol of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Standard, Self::AsSeed].into_iter().find(|protocol| protocol.name() == name)
    }

    /// Characters that a run predicts in evaluations for each of its steps, on average: what an estimate of its time
    /// needs. `config` is a validated one, and the validation text long enough.
    pub fn evaluated_characters_per_step(self, config: &Config) -> f64 {
        let characters = match self {
            Self::Standard => config.validation_characters,
            Self::AsSeed => SEED_WINDOWS * config.sequence_length,
        };
        let evaluations = Schedule::new(config, self, 0, None).ahead(0);
        characters as f64 * evaluations as f64 / config.steps.max(1) as f64
    }
}

/// Whether patience ends a standard run of `config` after the last evaluation of `curve`, as [`crate::run`] decides it.
pub fn out_of_patience(config: &Config, early_step: Option<u64>, curve: &[CurvePoint]) -> bool {
    Schedule::new(config, Protocol::Standard, 0, early_step).out_of_patience(curve)
}

/// The notebook evaluates at every thousandth iteration ...
const SEED_EVERY: u64 = 1000;
/// ... on this number of windows.
const SEED_WINDOWS: usize = 1024;

/// The evaluations of one run.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    protocol: Protocol,
    every: u64,
    steps: u64,
    early_step: Option<u64>,
    patience: u64,
    min_improvement: f64,
    sequence_length: usize,
    seed: u64,
    /// Time decides when to evaluate: every evaluation that was made was due.
    timed: bool,
}

impl Schedule {
    /// The schedule of a validated configuration.
    pub(crate) fn new(config: &Config, protocol: Protocol, seed: u64, early_step: Option<u64>) -> Self {
        let as_seed = protocol == Protocol::AsSeed;
        Self {
            protocol,
            every: match (as_seed, config.eval_every) {
                (true, 0) => SEED_EVERY,
                (true, every) => every,
                (false, _) => config.steps_between_evaluations(),
            },
            steps: config.steps,
            early_step: if as_seed { None } else { early_step },
            patience: if as_seed { 0 } else { config.patience },
            min_improvement: config.min_improvement,
            sequence_length: config.sequence_length,
            seed,
            timed: false,
        }
    }

    /// The same of a run with a budget of time.
    pub(crate) fn timed(self) -> Self {
        Self { timed: true, ..self }
    }

    /// Whether the run is evaluated after update `step`, counted from 1.
    pub(crate) fn is_due(&self, step: u64) -> bool {
        step > 0 && (self.timed || step == self.steps || self.is_due_in_longer_runs(step))
    }

    /// Whether the evaluation after update `step` is there for more than that the run ends with it: a run with
    /// more steps has it too.
    pub(crate) fn is_due_in_longer_runs(&self, step: u64) -> bool {
        let regular = match self.protocol {
            Protocol::Standard => step.is_multiple_of(self.every),
            Protocol::AsSeed => (step.max(1) - 1).is_multiple_of(self.every),
        };
        step > 0 && (self.timed || regular || Some(step) == self.early_step)
    }

    /// Number of evaluations after update `step`, up to the last.
    pub(crate) fn ahead(&self, step: u64) -> u64 {
        if self.timed {
            // How many depends on how long they take; one at least.
            return 1;
        }
        // Regular evaluations at or before a step.
        let regular = |step: u64| match self.protocol {
            Protocol::Standard => step / self.every,
            Protocol::AsSeed => step.div_ceil(self.every),
        };
        let due = |at: Option<u64>| at.is_some_and(|at| step < at && at <= self.steps);
        let is_regular = |at: u64| regular(at) > regular(at - 1);
        let extra = |at: Option<u64>| u64::from(due(at) && at.is_some_and(|at| !is_regular(at)));
        let last = extra(Some(self.steps));
        let early = if self.early_step == Some(self.steps) { 0 } else { extra(self.early_step) };
        regular(self.steps).saturating_sub(regular(step)) + last + early
    }

    /// The validation windows that the notebook's protocol draws anew for the evaluation after update `step`; none under
    /// the standard protocol, which predicts the same spans each time.
    pub(crate) fn fresh_windows(&self, validation: &[u8], step: u64) -> Option<Windows> {
        let stream = Stream::new(self.seed, Purpose::FreshValidationWindows, step);
        (self.protocol == Protocol::AsSeed)
            .then(|| random_windows(validation, stream, SEED_WINDOWS, self.sequence_length))
    }

    /// Bytes that such windows take.
    pub(crate) fn window_bytes(&self) -> usize {
        if self.protocol == Protocol::AsSeed { 2 * SEED_WINDOWS * self.sequence_length } else { 0 }
    }

    /// Whether patience ends a run whose last evaluation is the last of `curve`: `patience` evaluations have
    /// not improved on the best one before them by `min_improvement`, and the early read-out is taken. An
    /// evaluation that is not of this schedule, where a shorter run ended, does not count.
    pub(crate) fn out_of_patience(&self, curve: &[CurvePoint]) -> bool {
        let Some(last) = curve.last() else { return false };
        if self.patience == 0 || self.early_step.is_some_and(|early| last.step < early) {
            return false;
        }
        let (mut reference, mut waited) = (f64::INFINITY, 0);
        for point in curve.iter().filter(|point| self.is_due(point.step)) {
            if point.validation_loss + self.min_improvement < reference {
                reference = point.validation_loss;
                waited = 0;
            } else {
                waited += 1;
            }
        }
        waited >= self.patience
    }

    /// The early reading, if it has been taken. `over`: the last step is done.
    pub(crate) fn early(&self, curve: &[CurvePoint], over: bool) -> Option<Reading> {
        let step = match self.protocol {
            Protocol::Standard => self.early_step?,
            Protocol::AsSeed => match SeedRule::of(curve, over) {
                SeedRule::Stopped { step } => step,
                SeedRule::RanThrough => curve.last()?.step,
                SeedRule::Undecided | SeedRule::Lost => return None,
            },
        };
        curve.iter().find(|point| point.step == step).map(Reading::from)
    }

    /// What the notebook's rule says, if this is its protocol.
    pub(crate) fn seed_rule(&self, curve: &[CurvePoint], over: bool) -> Option<SeedRule> {
        (self.protocol == Protocol::AsSeed).then(|| SeedRule::of(curve, over))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(losses: &[f64]) -> Vec<CurvePoint> {
        losses
            .iter()
            .enumerate()
            .map(|(i, &validation_loss)| CurvePoint {
                step: 1 + 1000 * i as u64,
                train_loss: 0.0,
                validation_loss,
                accuracy: 0.0,
                accuracy_last: 0.0,
                train_seconds: i as f64,
            })
            .collect()
    }

    fn due(config: &Config, protocol: Protocol, early: Option<u64>) -> Vec<u64> {
        let schedule = Schedule::new(config, protocol, 0, early);
        let steps: Vec<u64> = (0..=config.steps).filter(|&s| schedule.is_due(s)).collect();
        for step in 0..=config.steps {
            let ahead = steps.iter().filter(|&&s| s > step).count() as u64;
            assert_eq!(schedule.ahead(step), ahead, "{protocol:?} {early:?} after {step}");
        }
        steps
    }

    #[test]
    fn evaluations_have_a_price_per_step() {
        let config =
            Config { steps: 20_000, eval_every: 0, validation_characters: 4000, ..Config::default() };
        assert_eq!(Protocol::Standard.evaluated_characters_per_step(&config), 4.0);
        assert_eq!(Protocol::AsSeed.evaluated_characters_per_step(&config), 21.0 * 1024.0 * 32.0 / 20_000.0);
    }

    #[test]
    fn evaluations_fall_where_they_should() {
        let config = |steps, eval_every| Config { steps, eval_every, ..Config::default() };
        let standard = |steps, every, early| due(&config(steps, every), Protocol::Standard, early);
        assert_eq!(standard(10, 4, None), [4, 8, 10]);
        assert_eq!(standard(10, 4, Some(2)), [2, 4, 8, 10]);
        assert_eq!(standard(10, 4, Some(8)), [4, 8, 10]);
        assert_eq!(standard(10, 4, Some(10)), [4, 8, 10]);
        assert_eq!(standard(10, 5, None), [5, 10]);
        assert_eq!(standard(10, 50, None), [10]);
        assert_eq!(standard(10, 0, None), (1..=10).collect::<Vec<_>>());
        assert_eq!(standard(2000, 0, Some(400)), (1..=20).map(|i| 100 * i).collect::<Vec<_>>());

        let as_seed = |steps, every| due(&config(steps, every), Protocol::AsSeed, Some(7));
        assert_eq!(as_seed(3000, 0), [1, 1001, 2001, 3000]);
        assert_eq!(as_seed(3001, 0), [1, 1001, 2001, 3001]);
        assert_eq!(as_seed(1, 0), [1]);
        assert_eq!(as_seed(2, 0), [1, 2]);
        assert_eq!(as_seed(9, 4), [1, 5, 9]);
    }

    #[test]
    fn patience_counts_stagnation_and_waits_for_the_early_reading() {
        let schedule = |patience, early| {
            let config = Config { patience, min_improvement: 0.1, ..Config::default() };
            Schedule::new(&config, Protocol::Standard, 0, early)
        };
        let curve = |losses: &[f64]| -> Vec<CurvePoint> {
            curve(losses).into_iter().map(|p| CurvePoint { step: p.step + 999, ..p }).collect()
        };
        let stops = |losses: &[f64]| schedule(2, None).out_of_patience(&curve(losses));
        assert!(!stops(&[]));
        assert!(!stops(&[3.0]));
        assert!(!stops(&[3.0, 2.95]));
        assert!(stops(&[3.0, 2.95, 2.91]));
        assert!(!stops(&[3.0, 2.95, 2.89]), "an improvement on the reference");
        assert!(!stops(&[3.0, 2.95, 2.8, 2.79]));
        assert!(stops(&[3.0, 2.95, 2.8, 2.79, 5.0]));
        let flat = curve(&[3.0; 6]);
        assert!(!schedule(0, None).out_of_patience(&flat), "off");
        assert!(!schedule(2, Some(6001)).out_of_patience(&flat), "early read-out still ahead");
        assert!(schedule(2, Some(6000)).out_of_patience(&flat), "early read-out just taken");
        let mut extended = curve(&[3.0, 2.95, 2.91]);
        extended[1].step = 1990;
        assert!(!schedule(2, None).out_of_patience(&extended), "where a shorter run ended");
    }

    /// The rule that is asked, worked out by hand from the notebook's loop.
    #[test]
    fn the_notebooks_rule() {
        let rule = |losses: &[f64], over| SeedRule::of(&curve(losses), over);
        let early = |losses: &[f64], over| {
            let schedule = Schedule::new(&Config::default(), Protocol::AsSeed, 0, None);
            schedule.early(&curve(losses), over).map(|reading| reading.validation_loss)
        };
        // The fifth improvement: stops at iteration 4000, as all four of the notebook's cells did.
        let falling = [3.3, 1.7, 1.6, 1.5, 1.45, 1.44];
        assert_eq!(rule(&falling, false), SeedRule::Stopped { step: 4001 });
        assert_eq!(early(&falling, false), Some(1.45));
        // Its counter is never reset by an evaluation that is no improvement.
        let uneven = [3.3, 3.4, 1.7, 1.7, 1.6, 1.5, 1.6, 1.4, 1.3];
        assert_eq!(rule(&uneven, true), SeedRule::Stopped { step: 7001 });
        assert_eq!(early(&uneven, true), Some(1.4));
        // An improvement of 1e-3 or less is none; four improvements, then stagnation to the end: recorded.
        let stagnating = [3.3, 1.7, 1.6, 1.5, 1.4995, 1.4992];
        assert_eq!(rule(&stagnating, false), SeedRule::Undecided);
        assert_eq!(early(&stagnating, false), None);
        assert_eq!(rule(&stagnating, true), SeedRule::RanThrough);
        assert_eq!(early(&stagnating, true), Some(1.4992));
        // The last evaluation is the fourth improvement: nothing is recorded.
        let late = [3.3, 1.7, 1.6, 1.6, 1.5];
        assert_eq!(rule(&late, true), SeedRule::Lost);
        assert_eq!(early(&late, true), None);
        // The fifth improvement at the very last iteration is recorded.
        assert_eq!(rule(&falling[..5], true), SeedRule::Stopped { step: 4001 });
        // One iteration alone: an improvement on the starting value of 1000, so lost.
        assert_eq!(rule(&[3.3], true), SeedRule::Lost);
    }
}
