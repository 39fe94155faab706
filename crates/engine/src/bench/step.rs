//! A training step against the multiply-add peak of the same threads.

use super::{Peak, Trainer, median, rounds, spread};
use crate::api::{Engine, EngineError};
use crate::cpu::Shape;
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
    /// Floating-point operations of a step by the usual count.
    pub flop_per_step: f64,
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

/// Times training steps of `model` on random symbols for about `duration`, in rounds of one turn of steps and one
/// of the peak; `observe(round, total)` is told of each. A turn is one step, or as many short ones as
/// make 20 ms, so that it does not matter that the peak's turn put the engine's threads to sleep.
///
/// # Errors
/// As [`crate::CpuEngine::new`].
pub fn benchmark(
    model: &ModelConfig,
    shape: Shape,
    threads: usize,
    duration: Duration,
    observe: &mut dyn FnMut(usize, usize),
) -> Result<Benchmark, EngineError> {
    let mut trainer = Trainer::new(model, shape, threads)?;
    let (count, turn) = trainer.warm();
    let mut peak = Peak::new(trainer.isa(), threads, turn);
    let total = rounds(duration.as_secs_f64(), 2.0 * turn);
    let flop = trainer.flop();
    let (mut times, mut peaks, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..total {
        observe(round, total);
        let time = trainer.time(count);
        let limit = peak.rate();
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
        peak_gflops: median(&mut peaks),
        peak_fraction: median(&mut ratios),
        threads: trainer.engine.threads(),
        isa: trainer.isa().name().to_string(),
        rounds: total,
        memory_bytes: crate::memory_needed(model, shape, trainer.engine.threads()),
    })
}
