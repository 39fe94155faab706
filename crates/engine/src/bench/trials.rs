//! Several trials at once, one thread each, against each of them alone.
//!
//! Cores share caches, memory and power, so even the multiply-add peak of two cores is not always twice that of
//! one. What the trials lose beyond that is ours: they fight for the cache or for memory.

use super::{Peak, Trainer, median, rounds, spread};
use crate::api::EngineError;
use crate::cpu::Shape;
use diapason_kernels::{Pool, Precision};
use diapason_model::ModelConfig;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What [`trials`] found; medians over the rounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Trials {
    /// Trials at once.
    pub trials: usize,
    /// Steps per second of each trial while it runs alone.
    pub single_rates: Vec<f64>,
    /// Steps per second of each trial while all run.
    pub together_rates: Vec<f64>,
    /// Sum of the rates together over the sum of the rates alone.
    pub ratio: f64,
    /// Multiply-add peak of one core, 10^9 operations per second.
    pub peak_one_gflops: f64,
    /// Multiply-add peak of as many cores as there are trials.
    pub peak_all_gflops: f64,
    /// The second over the first times the number of trials: what the machine itself keeps.
    pub peak_ratio: f64,
    /// `ratio` over `peak_ratio`: the median over rounds.
    pub corrected: f64,
    /// A tenth and nine tenths of the rounds had smaller corrected ratios.
    pub corrected_spread: (f64, f64),
    /// Instruction set.
    pub isa: String,
    /// Rounds measured.
    pub rounds: usize,
}

/// Times, in turns, `count` trials of `model` alone and all at once, and the peak of one core and of `count`.
///
/// # Errors
/// As [`crate::CpuEngine::new`].
pub fn trials(
    model: &ModelConfig,
    precision: Precision,
    shape: Shape,
    count: usize,
    duration: Duration,
    observe: &mut dyn FnMut(usize, usize),
) -> Result<Trials, EngineError> {
    let mut pool = Pool::new(count);
    // A system that refuses threads gets fewer trials.
    let count = pool.threads();
    let mut trainers = Vec::new();
    for _ in 0..count {
        trainers.push(Trainer::new(model, precision, shape, 1)?);
    }
    let isa = trainers[0].isa();
    let (mut steps, mut turn) = (1, 0.0_f64);
    for trainer in &mut trainers {
        let (count, seconds) = trainer.warm();
        (steps, turn) = (steps.max(count), turn.max(seconds));
    }
    together(&mut trainers, &mut pool, steps);
    let mut one = Peak::new(isa, Precision::F32, 1, turn / 2.0);
    let mut all = Peak::new(isa, Precision::F32, count, turn / 2.0);
    let total = rounds(duration.as_secs_f64(), turn * (count as f64 + 2.0));
    let mut single = vec![Vec::new(); count];
    let mut shared = vec![Vec::new(); count];
    let (mut ratios, mut ones, mut alls) = (Vec::new(), Vec::new(), Vec::new());
    let (mut peak_ratios, mut corrected) = (Vec::new(), Vec::new());
    for round in 0..total {
        observe(round, total);
        let (mut alone, mut at_once) = (0.0, 0.0);
        for (trainer, rates) in trainers.iter_mut().zip(&mut single) {
            rates.push(1.0 / trainer.time(steps));
            alone += rates[round];
        }
        let (peak_one, peak_all) = (one.rate(), all.rate());
        for (rate, rates) in together(&mut trainers, &mut pool, steps).into_iter().zip(&mut shared) {
            rates.push(rate);
            at_once += rate;
        }
        let machine = peak_all / (peak_one * count as f64);
        ratios.push(at_once / alone);
        ones.push(peak_one / 1e9);
        alls.push(peak_all / 1e9);
        peak_ratios.push(machine);
        corrected.push(at_once / alone / machine);
    }
    Ok(Trials {
        trials: count,
        single_rates: single.iter_mut().map(|rates| median(rates)).collect(),
        together_rates: shared.iter_mut().map(|rates| median(rates)).collect(),
        ratio: median(&mut ratios),
        peak_one_gflops: median(&mut ones),
        peak_all_gflops: median(&mut alls),
        peak_ratio: median(&mut peak_ratios),
        corrected: median(&mut corrected),
        corrected_spread: spread(&mut corrected),
        isa: isa.name().to_string(),
        rounds: total,
    })
}

/// Steps per second of each trial over `steps` steps, all at once on a thread each: who has done his goes on until the last has, so
/// that nobody is timed with a core to spare.
fn together(trainers: &mut [Trainer], pool: &mut Pool, steps: usize) -> Vec<f64> {
    let unfinished = AtomicUsize::new(trainers.len());
    let mut jobs: Vec<(&mut Trainer, f64)> = trainers.iter_mut().map(|trainer| (trainer, 0.0)).collect();
    let mut scratch = vec![(); pool.threads()];
    let started = AtomicUsize::new(0);
    let all = jobs.len();
    pool.for_each(&mut jobs, &mut scratch, |_, (trainer, rate), ()| {
        started.fetch_add(1, Ordering::Relaxed);
        while started.load(Ordering::Relaxed) < all {
            std::hint::spin_loop();
        }
        let start = Instant::now();
        for _ in 0..steps {
            trainer.step();
        }
        *rate = steps as f64 / start.elapsed().as_secs_f64();
        unfinished.fetch_sub(1, Ordering::Relaxed);
        while unfinished.load(Ordering::Relaxed) > 0 {
            trainer.step();
        }
    });
    jobs.iter().map(|(_, rate)| *rate).collect()
}
