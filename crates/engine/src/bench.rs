//! One training step, timed, beside the machine's limit.
//!
//! Machines are shared and change their clock, so the two are measured in turns in one run: a few steps, then the
//! multiply-add peak for about as long, again and again. The figure that lasts is the ratio.

use crate::api::{Batch, Engine, EngineError, Update};
use crate::cpu::{CpuEngine, Shape};
use diapason_kernels::{Isa, Pool, flop_per_peak_iteration, peak};
use diapason_model::{ModelConfig, initialise};
use std::time::{Duration, Instant};

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

/// Times training steps of `model` on random symbols for about `duration`, in rounds of one step and one
/// measurement of the peak; `observe(round, total)` is told of each.
///
/// # Errors
/// As [`CpuEngine::new`].
pub fn benchmark(
    model: ModelConfig,
    shape: Shape,
    threads: usize,
    duration: Duration,
    observe: &mut dyn FnMut(usize, usize),
) -> Result<Benchmark, EngineError> {
    let parameters = initialise(&model, 0);
    let mut engine = CpuEngine::new(model.clone(), &parameters, threads, shape)?;
    let isa = Isa::named(&engine.id().isa).unwrap_or_else(Isa::detect);
    let mut pool = Pool::new(threads);
    let n = shape.batch_size * shape.sequence_length;
    let symbols: Vec<u8> = (0..n + 1).map(|i| ((i * 7919 + i / 31) % model.vocabulary) as u8).collect();
    let batch =
        Batch { inputs: &symbols[..n], targets: &symbols[1..], sequence_length: shape.sequence_length };
    let mut number = 0;
    let mut step = |engine: &mut CpuEngine| {
        number += 1;
        let update = Update { number, learning_rate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
        let start = Instant::now();
        engine.step(batch, &update);
        start.elapsed().as_secs_f64()
    };
    // The first steps touch memory for the first time.
    for _ in 0..2 {
        step(&mut engine);
    }
    let one = step(&mut engine);
    let iterations = calibrated(isa, &mut pool, one);
    let rounds = ((duration.as_secs_f64() / (2.0 * one)) as usize).clamp(3, 1000);
    let flop = model.training_flop(n, shape.sequence_length);
    let (mut times, mut peaks, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        observe(round, rounds);
        let time = step(&mut engine);
        let limit = peak_rate(isa, &mut pool, iterations);
        times.push(time);
        peaks.push(limit);
        ratios.push(flop / time / limit);
    }
    let ms_per_step = 1e3 * quantile(&mut times, 0.5);
    Ok(Benchmark {
        ms_per_step,
        ms_spread: (1e3 * quantile(&mut times, 0.1), 1e3 * quantile(&mut times, 0.9)),
        tokens_per_second: n as f64 / ms_per_step * 1e3,
        flop_per_step: flop,
        peak_gflops: quantile(&mut peaks, 0.5) / 1e9,
        peak_fraction: quantile(&mut ratios, 0.5),
        threads: engine.threads(),
        isa: isa.name().to_string(),
        rounds,
        memory_bytes: crate::memory_needed(&model, shape, engine.threads()),
    })
}

/// Iterations of the peak loop that take about `seconds`.
fn calibrated(isa: Isa, pool: &mut Pool, seconds: f64) -> u64 {
    let trial = 1_000_000;
    let rate = peak_rate(isa, pool, trial);
    let per_iteration = flop_per_peak_iteration(isa) * pool.threads() as f64 / rate;
    ((seconds / per_iteration) as u64).max(trial)
}

/// Floating-point operations per second of all threads together.
fn peak_rate(isa: Isa, pool: &mut Pool, iterations: u64) -> f64 {
    let start = Instant::now();
    pool.run(&|_| peak(isa, iterations));
    flop_per_peak_iteration(isa) * iterations as f64 * pool.threads() as f64 / start.elapsed().as_secs_f64()
}

/// The `q` quantile of the values (nearest rank).
fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * q).round() as usize]
}
