//! The engine, timed beside the machine's limits.
//!
//! Machines are shared and change their clock, so what is compared is measured in turns in one run: a little of the one,
//! then of the other, again and again. The figures that last are ratios, and each is a median over such rounds.
//!
//! - [`benchmark`]: a training step against the multiply-add peak; [`cell`] the same for a table of many shapes.
//! - [`evaluation`]: scoring against training.
//! - [`generation`]: one text and many at once against reading the weights, and against the multiply-add peak.
//! - [`trials`]: several trials at once, one thread each, against each of them alone.

mod evaluation;
mod generation;
mod step;
mod sweep;
mod trials;

pub use evaluation::{Evaluation, evaluation};
pub use generation::{Generation, Streams, generation, generation_memory};
pub use step::{Benchmark, Comparison, benchmark};
pub use sweep::{Cell, cell, cells};
pub use trials::{Trials, trials};

use crate::api::{Batch, Engine, EngineError, Update};
use crate::cpu::{CpuEngine, Shape};
use diapason_kernels::{Isa, Pool, Precision, flop_per_peak_iteration, peak, peak_of_pairs};
use diapason_model::{ModelConfig, initialise};
use std::time::Instant;

/// The shortest turn worth timing, seconds: threads that have slept are awake after a fraction of it.
const TURN: f64 = 0.02;
/// Batches of a trainer begin at so many different places of its text.
const PLACES: usize = 4096;

/// A model in training on random symbols.
struct Trainer {
    engine: CpuEngine,
    symbols: Vec<u8>,
    shape: Shape,
    /// What each step does, but for its number.
    update: Update,
    /// Updates so far.
    number: u64,
}

impl Trainer {
    fn new(
        model: &ModelConfig,
        precision: Precision,
        shape: Shape,
        threads: usize,
    ) -> Result<Self, EngineError> {
        CpuEngine::check_memory(model, precision, shape, threads)?;
        let engine = CpuEngine::with_precision(precision, *model, &initialise(model, 0), threads, shape)?;
        let symbols = symbols(shape.batch_size * shape.sequence_length + PLACES + 1, model.vocabulary);
        Ok(Self { engine, symbols, shape, update: Update::default(), number: 0 })
    }

    /// Positions in a batch.
    fn positions(&self) -> usize {
        self.shape.batch_size * self.shape.sequence_length
    }

    /// Floating-point operations of a step by the usual count.
    fn flop(&self) -> f64 {
        self.engine.model().training_flop(self.positions(), self.shape.sequence_length)
    }

    fn isa(&self) -> Isa {
        Isa::named(&self.engine.id().isa).unwrap_or_else(Isa::detect)
    }

    fn step(&mut self) {
        self.number += 1;
        let update = Update { number: self.number, ..self.update };
        // Never the same batch for long: it would be learned by heart, and gradients of almost nothing can be slow.
        let at = self.number as usize * 61 % PLACES;
        let n = self.positions();
        let batch = Batch {
            inputs: &self.symbols[at..at + n],
            targets: &self.symbols[at + 1..at + n + 1],
            sequence_length: self.shape.sequence_length,
        };
        self.engine.step(batch, &update);
    }

    /// Seconds per step over `count` steps.
    fn time(&mut self, count: usize) -> f64 {
        seconds(count, || self.step())
    }

    /// Touches all memory for the first time; then how many steps make a turn, and its seconds.
    fn warm(&mut self) -> (usize, f64) {
        self.time(1);
        let one = self.time(1);
        let count = turns(one);
        (count, count as f64 * if count > 1 { self.time(count) } else { one })
    }
}

/// Measures the multiply-add peak of some threads: of f32, or of pairs of 16-bit integers, which half precision multiplies.
struct Peak {
    isa: Isa,
    precision: Precision,
    pool: Pool,
    iterations: u64,
}

impl Peak {
    /// Turns of about `turn` seconds.
    fn new(isa: Isa, precision: Precision, threads: usize, turn: f64) -> Self {
        let mut peak = Self { isa, precision, pool: Pool::new(threads), iterations: 1_000_000 };
        let per_iteration =
            flop_per_peak_iteration(isa, precision) * peak.pool.threads() as f64 / peak.rate();
        peak.iterations = ((turn / per_iteration) as u64).max(100_000);
        peak
    }

    /// Operations per second of all threads together, two for each multiply-add.
    fn rate(&mut self) -> f64 {
        let (isa, iterations) = (self.isa, self.iterations);
        let start = Instant::now();
        let run = match self.precision {
            Precision::F32 => peak,
            Precision::Half => peak_of_pairs,
        };
        self.pool.run(&|_| run(isa, iterations));
        let flop =
            flop_per_peak_iteration(isa, self.precision) * iterations as f64 * self.pool.threads() as f64;
        flop / start.elapsed().as_secs_f64()
    }
}

/// Seconds per call over `count` calls.
fn seconds(count: usize, mut f: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..count {
        f();
    }
    start.elapsed().as_secs_f64() / count as f64
}

/// How many calls of `one` second each make a turn.
fn turns(one: f64) -> usize {
    (TURN / one).ceil().clamp(1.0, 1e6) as usize
}

/// How many rounds of `one` second each fit into `duration`; at least three.
fn rounds(duration: f64, one: f64) -> usize {
    ((duration / one) as usize).clamp(3, 1000)
}

/// Random symbols, `n` of them.
fn symbols(n: usize, vocabulary: usize) -> Vec<u8> {
    let mut x = 0x9E37_79B9_7F4A_7C15_u64;
    (0..n)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            ((x >> 33) % vocabulary as u64) as u8
        })
        .collect()
}

/// The `q` quantile of the values (nearest rank).
fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * q).round() as usize]
}

/// The median.
fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

/// A tenth and nine tenths of the values lie below these.
fn spread(values: &mut [f64]) -> (f64, f64) {
    (quantile(values, 0.1), quantile(values, 0.9))
}
