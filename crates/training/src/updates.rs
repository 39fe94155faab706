//! What each update of a run is: step sizes, batch sizes and averages as functions of how much of the run lies behind it.
//!
//! A schedule sees two numbers: which update it is, and the share of the run that is done before it. In a run of so many steps the
//! share follows from the number; in a run of so many minutes it is the share of the time. All numbers are resolved here, so
//! that an engine knows nothing of time.

use crate::Config;
use diapason_engine::Update;
use serde::{Deserialize, Serialize};

/// How step sizes change over a run. Each begins with a linear warm-up, if there is one, and has a last value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RateSchedule {
    /// They stay what they are.
    #[default]
    Constant,
    /// Half a period of a cosine from their values to the last.
    Cosine,
    /// A straight line from their values to the last.
    Linear,
    /// Warm-up, stable, decay: they stay what they are and fall on a straight line in the last part of the run.
    Wsd,
}

/// Which average of the weights is evaluated and kept as the best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Averaging {
    /// The weights themselves.
    #[default]
    None,
    /// An exponential moving average of the weights after each step: the mean of all as long as that forgets faster.
    Ema,
    /// The mean of the weights after each step of the last part of the run; before it, the weights themselves.
    Tail,
}

/// Stages of a batch ramp: the batch is a quarter, then half of its size.
const STAGES: u32 = 2;

/// What is multiplied with the step sizes in update `number` (from 1), before which `done` (0 to 1) of the run is over.
fn rate(config: &Config, number: u64, done: f64) -> f64 {
    let last = config.final_learning_rate;
    // 1 at first, 0 in the end.
    let left = match config.schedule {
        RateSchedule::Constant => return warm_up(config, number),
        RateSchedule::Cosine => 0.5 + 0.5 * libm::cos(std::f64::consts::PI * done),
        RateSchedule::Linear => 1.0 - done,
        RateSchedule::Wsd => ((1.0 - done) / config.decay_share).min(1.0),
    };
    warm_up(config, number) * (last + (1.0 - last) * left.clamp(0.0, 1.0))
}

fn warm_up(config: &Config, number: u64) -> f64 {
    if number < config.warmup_steps { number as f64 / config.warmup_steps as f64 } else { 1.0 }
}

/// Update `number` (from 1) of a run of which `done` (0 to 1) is over before it; `averaged` updates are in the average already.
pub fn update(config: &Config, number: u64, done: f64, averaged: u64) -> Update {
    let rate = rate(config, number, done);
    let averages = match config.weight_averaging {
        Averaging::None => false,
        Averaging::Ema => true,
        Averaging::Tail => done >= 1.0 - config.averaging_share,
    };
    let mean = 1.0 / (averaged + 1) as f64;
    Update {
        number,
        optimizer: config.optimizer,
        learning_rate: (config.learning_rate * rate) as f32,
        adam_learning_rate: (config.adam_learning_rate * rate) as f32,
        ngram_learning_rate: (config.ngram_learning_rate * rate) as f32,
        momentum: config.momentum as f32,
        beta1: config.beta1 as f32,
        beta2: config.beta2 as f32,
        epsilon: config.epsilon as f32,
        weight_decay: config.weight_decay as f32,
        gradient_clip: config.gradient_clip as f32,
        adaptive_clip: config.adaptive_clip as f32,
        average: match config.weight_averaging {
            _ if !averages => 0.0,
            Averaging::Ema => mean.max(1.0 - config.averaging_decay) as f32,
            _ => mean as f32,
        },
    }
}

/// Windows in the batch of an update before which `done` (0 to 1) of the run is over.
pub(crate) fn batch_size(config: &Config, done: f64) -> usize {
    let stages_ahead = (1..=STAGES).filter(|&stage| done < stage_ends(config, stage)).count();
    (config.batch_size >> stages_ahead).max(1)
}

/// Share of the run at which stage `stage` of the batch ramp, from 1, ends.
fn stage_ends(config: &Config, stage: u32) -> f64 {
    config.batch_ramp * f64::from(stage) / f64::from(STAGES)
}

impl Config {
    /// Whether an update of this configuration depends on how long the run will be: if so, a run cannot be made longer afterwards.
    pub fn depends_on_length(&self) -> bool {
        self.schedule != RateSchedule::Constant
            || self.weight_averaging == Averaging::Tail
            || self.batch_ramp > 0.0
    }

    /// Share of a run of `steps` steps that is over before update `number`, from 1.
    pub(crate) fn done_before(&self, number: u64) -> f64 {
        (number - 1) as f64 / self.steps as f64
    }

    /// Characters that the first `steps` updates of a run of `self.steps` train on.
    pub fn characters(&self, steps: u64) -> f64 {
        // The first update of each stage, by the very rule that decides.
        let first = |done: f64| {
            let near = (done * self.steps as f64) as u64;
            (near.saturating_sub(1)..)
                .find(|&before| before as f64 / self.steps as f64 >= done)
                .unwrap_or(near)
        };
        let mut windows = 0.0;
        let mut from = 0;
        for stage in 1..=STAGES {
            let to = first(stage_ends(self, stage)).min(steps);
            if to > from {
                windows += (to - from) as f64 * batch_size(self, self.done_before(from + 1)) as f64;
                from = to;
            }
        }
        windows += (steps - from) as f64 * self.batch_size as f64;
        windows * self.sequence_length as f64
    }

    /// The same in full batches: what the first `steps` updates cost in units of one whose batch has its size.
    pub fn full_batches(&self, steps: u64) -> f64 {
        self.characters(steps) / (self.batch_size * self.sequence_length) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diapason_engine::Optimizer;

    fn config(schedule: RateSchedule) -> Config {
        Config {
            schedule,
            steps: 10,
            learning_rate: 1.0,
            adam_learning_rate: 2.0,
            ngram_learning_rate: 4.0,
            warmup_steps: 4,
            decay_share: 0.5,
            final_learning_rate: 0.1,
            ..Config::default()
        }
    }

    fn rates(config: &Config) -> Vec<f64> {
        (1..=config.steps).map(|number| rate(config, number, config.done_before(number))).collect()
    }

    #[track_caller]
    fn close(got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        assert!(got.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-6), "{got:?}, not {expected:?}");
    }

    #[test]
    fn step_sizes_by_hand() {
        close(&rates(&config(RateSchedule::Constant)), &[0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        close(
            &rates(&config(RateSchedule::Linear)),
            &[0.25, 0.5 * 0.91, 0.75 * 0.82, 0.73, 0.64, 0.55, 0.46, 0.37, 0.28, 0.19],
        );
        close(&rates(&config(RateSchedule::Wsd)), &[0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 0.82, 0.64, 0.46, 0.28]);
        let cosine = rates(&Config { warmup_steps: 0, ..config(RateSchedule::Cosine) });
        close(&cosine[..1], &[1.0]);
        close(&cosine[5..6], &[0.55]);
        assert!(cosine.windows(2).all(|pair| pair[0] > pair[1]) && cosine[9] > 0.1);
        let update = update(&config(RateSchedule::Linear), 6, 0.5, 0);
        let rates = [update.learning_rate, update.adam_learning_rate, update.ngram_learning_rate];
        assert_eq!(rates, [0.55, 1.1, 2.2]);
    }

    #[test]
    fn the_seeds_updates_are_what_they_were() {
        let config = Config::default();
        let expected = Update { number: 77, ..Update::default() };
        assert_eq!(update(&config, 77, config.done_before(77), 0), expected);
        assert_eq!(expected.optimizer, Optimizer::Adam);
        assert!(!config.depends_on_length());
        assert_eq!(config.characters(1000), 2_048_000.0);
    }

    #[test]
    fn averages_begin_as_means() {
        let share = |config: &Config, done, averaged| update(config, 5, done, averaged).average;
        let ema = Config { weight_averaging: Averaging::Ema, averaging_decay: 0.75, ..Config::default() };
        assert_eq!(
            [0, 1, 2, 3, 4, 100].map(|n| share(&ema, 0.0, n)),
            [1.0, 0.5, 1.0 / 3.0, 0.25, 0.25, 0.25]
        );
        let tail = Config { weight_averaging: Averaging::Tail, averaging_share: 0.25, ..Config::default() };
        assert_eq!([share(&tail, 0.74, 0), share(&tail, 0.75, 0), share(&tail, 0.9, 9)], [0.0, 1.0, 0.1]);
        assert_eq!(share(&Config::default(), 0.9, 0), 0.0);
    }

    #[test]
    fn batches_grow_in_stages() {
        for (batch_size, ramp, steps) in
            [(64, 0.5, 100), (64, 0.3, 77), (3, 1.0, 10), (1, 0.7, 3), (64, 0.0, 5), (64, 1e-9, 9)]
        {
            let config =
                Config { batch_size, batch_ramp: ramp, steps, sequence_length: 2, ..Config::default() };
            let sizes: Vec<usize> =
                (1..=steps).map(|n| super::batch_size(&config, config.done_before(n))).collect();
            assert!(
                sizes.windows(2).all(|pair| pair[0] <= pair[1]) && sizes.iter().all(|&n| n >= 1),
                "{sizes:?}"
            );
            for steps in 0..=steps {
                let characters: usize = sizes[..steps as usize].iter().sum::<usize>() * 2;
                assert_eq!(config.characters(steps), characters as f64, "{config:?} after {steps}");
                if ramp == 0.0 {
                    assert_eq!(config.full_batches(steps), steps as f64);
                }
            }
        }
        let config = Config { batch_ramp: 0.5, ..Config::default() };
        assert_eq!(config.full_batches(20_000), 5_000.0 * 0.25 + 5_000.0 * 0.5 + 10_000.0);
        let sizes = [0.0, 0.24, 0.25, 0.49, 0.5, 1.0].map(|done| super::batch_size(&config, done));
        assert_eq!(sizes, [16, 16, 32, 32, 64, 64]);
    }
}
