//! A training step against the multiply-add peak of the same threads.

use super::{Peak, Trainer, median, rounds, spread};
use crate::api::{Engine, EngineError, Update, Updating};
use crate::cpu::{Shape, flop_of_update};
use diapason_kernels::Precision;
use diapason_model::ModelConfig;
use std::time::Duration;

/// What [`benchmark`] found; medians over the rounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Benchmark {
    /// Milliseconds of one training step.
    pub ms_per_step: f64,
    /// A tenth and nine tenths of the rounds were faster than these, ms.
    pub ms_spread: (f64, f64),
    /// Training positions per second.
    pub tokens_per_second: f64,
    /// Floating-point operations of a step by the usual count, and those of Muon, if it is used.
    pub flop_per_step: f64,
    /// What the optimizer adds to a step with plain Adam, as a part of the whole step; none for Adam itself.
    pub optimizer_share: Option<f64>,
    /// Multiply-add peak of the same threads, 10^9 operations per second.
    pub peak_gflops: f64,
    /// The step's rate as a fraction of the peak: the median over rounds of their ratio.
    pub peak_fraction: f64,
    /// Threads.
    pub threads: usize,
    /// Instruction set.
    pub isa: String,
    /// Rounds measured.
    pub rounds: usize,
    /// Bytes that the engine allocated.
    pub memory_bytes: u128,
    /// Number format of the products.
    pub precision: Precision,
    /// In half precision, the step beside one in f32.
    pub half: Option<Comparison>,
}

/// A step in half precision beside one in f32 and beside its own peak.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Multiply-add peak of 16-bit pairs of the same threads, 10^9 operations per second.
    pub pair_peak_gops: f64,
    /// The step's rate as a fraction of that peak.
    pub pair_peak_fraction: f64,
    /// Milliseconds of a step in f32, in turns with the others.
    pub f32_ms_per_step: f64,
    /// How many times as long that takes: the median over rounds of the ratio.
    pub speedup: f64,
    /// A tenth and nine tenths of the rounds had smaller ratios.
    pub speedup_spread: (f64, f64),
}

/// Times training steps of `model` with updates like `update` on random symbols for about `duration`, in rounds of one turn of steps and one
/// of the peak; `observe(round, total)` is told of each. A turn is one step, or as many short ones as
/// make 20 ms, so that it does not matter that the peak's turn put the engine's threads to sleep.
///
/// In half precision a turn of steps in f32 and one of the peak of 16-bit pairs come into each round.
///
/// # Errors
/// As [`crate::CpuEngine::new`].
pub fn benchmark(
    model: &ModelConfig,
    precision: Precision,
    shape: Shape,
    threads: usize,
    update: &Update,
    duration: Duration,
    observe: &mut dyn FnMut(usize, usize),
) -> Result<Benchmark, EngineError> {
    let mut trainer = Trainer::new(model, precision, shape, threads)?;
    trainer.update = *update;
    let Update { adam_learning_rate: learning_rate, ngram_learning_rate, .. } = *update;
    let plain = Update { learning_rate, ngram_learning_rate, ..Update::default() };
    let clips = update.gradient_clip > 0.0 || update.adaptive_clip > 0.0;
    let updating = Updating { optimizer: update.optimizer, clips, averages: false };
    let is_plain = updating == Updating::default();
    let (count, turn) = trainer.warm();
    let isa = trainer.isa();
    let mut peak = Peak::new(isa, Precision::F32, threads, turn);
    let mut other = match precision {
        Precision::F32 => None,
        Precision::Half => {
            let mut single = Trainer::new(model, Precision::F32, shape, threads)?;
            single.update = *update;
            single.warm();
            Some((single, Peak::new(isa, Precision::Half, threads, turn)))
        }
    };
    let turns = if other.is_some() { 5.0 } else { 2.0 } + if is_plain { 0.0 } else { 1.0 };
    let total = rounds(duration.as_secs_f64(), turns * turn);
    let flop = trainer.flop() + flop_of_update(model, update);
    let (mut times, mut peaks, mut ratios, mut shares) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut singles, mut pair_peaks, mut pair_ratios, mut speedups) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..total {
        observe(round, total);
        let time = trainer.time(count);
        let limit = peak.rate();
        if !is_plain {
            trainer.update = plain;
            shares.push(1.0 - trainer.time(count) / time);
            trainer.update = *update;
        }
        times.push(1e3 * time);
        peaks.push(limit / 1e9);
        ratios.push(flop / time / limit);
        if let Some((single, pairs)) = &mut other {
            let single = single.time(count);
            let limit = pairs.rate();
            singles.push(1e3 * single);
            speedups.push(single / time);
            pair_peaks.push(limit / 1e9);
            pair_ratios.push(flop / time / limit);
        }
    }
    let ms_per_step = median(&mut times);
    Ok(Benchmark {
        ms_per_step,
        ms_spread: spread(&mut times),
        tokens_per_second: trainer.positions() as f64 / ms_per_step * 1e3,
        flop_per_step: flop,
        optimizer_share: if is_plain { None } else { Some(median(&mut shares)) },
        peak_gflops: median(&mut peaks),
        peak_fraction: median(&mut ratios),
        threads: trainer.engine.threads(),
        isa: isa.name().to_string(),
        rounds: total,
        memory_bytes: crate::memory_needed(model, precision, shape, trainer.engine.threads())
            + crate::memory_of_updates(model, updating, trainer.engine.threads()),
        precision,
        half: other.is_some().then(|| Comparison {
            pair_peak_gops: median(&mut pair_peaks),
            pair_peak_fraction: median(&mut pair_ratios),
            f32_ms_per_step: median(&mut singles),
            speedup: median(&mut speedups),
            speedup_spread: spread(&mut speedups),
        }),
    })
}
