//! A training step against the multiply-add peak of the same threads.

use super::{Peak, Trainer, median, rounds, spread};
use crate::api::{Engine, EngineError, Update, Updating};
use crate::cpu::{Shape, flop_of_update};
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
}

/// Times training steps of `model` with updates like `update` on random symbols for about `duration`, in rounds of one turn of steps and one
/// of the peak; `observe(round, total)` is told of each. A turn is one step, or as many short ones as
/// make 20 ms, so that it does not matter that the peak's turn put the engine's threads to sleep.
///
/// # Errors
/// As [`crate::CpuEngine::new`].
pub fn benchmark(
    model: &ModelConfig,
    shape: Shape,
    threads: usize,
    update: &Update,
    duration: Duration,
    observe: &mut dyn FnMut(usize, usize),
) -> Result<Benchmark, EngineError> {
    let mut trainer = Trainer::new(model, shape, threads)?;
    trainer.update = *update;
    let plain = Update { learning_rate: update.adam_learning_rate, ..Update::default() };
    let clips = update.gradient_clip > 0.0 || update.adaptive_clip > 0.0;
    let updating = Updating { optimizer: update.optimizer, clips, averages: false };
    let is_plain = updating == Updating::default();
    let (count, turn) = trainer.warm();
    let mut peak = Peak::new(trainer.isa(), threads, turn);
    let total = rounds(duration.as_secs_f64(), if is_plain { 2.0 } else { 3.0 } * turn);
    let flop = trainer.flop() + flop_of_update(model, update);
    let (mut times, mut peaks, mut ratios, mut shares) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
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
        isa: trainer.isa().name().to_string(),
        rounds: total,
        memory_bytes: crate::memory_needed(model, shape, trainer.engine.threads())
            + crate::memory_of_updates(model, updating, trainer.engine.threads()),
    })
}
