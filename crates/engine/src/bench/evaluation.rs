//! Scoring against training: how many characters a second each reads.

use super::{Peak, Trainer, median, rounds, seconds, spread, symbols, turns};
use crate::api::{Batch, Engine, EngineError, Scores};
use crate::cpu::Shape;
use diapason_kernels::Precision;
use diapason_model::ModelConfig;
use std::time::Duration;

/// Characters that are scored in one call, about: as many as an evaluation hands over at a time.
const CHARACTERS: usize = 8192;

/// What [`evaluation`] found; medians over the rounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Characters scored per second.
    pub evaluation_rate: f64,
    /// Characters trained on per second.
    pub training_rate: f64,
    /// The first over the second: the median over rounds of their ratio.
    pub ratio: f64,
    /// A tenth and nine tenths of the rounds had smaller ratios.
    pub ratio_spread: (f64, f64),
    /// The forward pass's rate (a third of a training step's operations) as a fraction of the peak.
    pub evaluation_peak_fraction: f64,
    /// The training step's rate as a fraction of the peak.
    pub training_peak_fraction: f64,
    /// Multiply-add peak of the same threads, 10^9 operations per second.
    pub peak_gflops: f64,
    /// Characters in one call of the engine's `evaluate`.
    pub characters_per_call: usize,
    /// Threads.
    pub threads: usize,
    /// Instruction set.
    pub isa: String,
    /// Rounds measured.
    pub rounds: usize,
}

/// Times, in turns, training steps of `model`, scoring, and the multiply-add peak.
///
/// # Errors
/// As [`crate::CpuEngine::new`].
pub fn evaluation(
    model: &ModelConfig,
    precision: Precision,
    shape: Shape,
    threads: usize,
    duration: Duration,
    observe: &mut dyn FnMut(usize, usize),
) -> Result<Evaluation, EngineError> {
    let mut trainer = Trainer::new(model, precision, shape, threads)?;
    let t = shape.sequence_length;
    let n = (CHARACTERS / t).max(64) * t;
    let text = symbols(n + 1, model.vocabulary);
    let mut scores = Scores::default();
    let mut score = |trainer: &mut Trainer, count| {
        let batch = Batch { inputs: &text[..n], targets: &text[1..], sequence_length: t };
        seconds(count, || trainer.engine.evaluate(batch, &mut scores))
    };
    let (steps, step_turn) = trainer.warm();
    score(&mut trainer, 1);
    let calls = turns(score(&mut trainer, 1));
    let call_turn = calls as f64 * score(&mut trainer, calls);
    let mut peak = Peak::new(trainer.isa(), Precision::F32, threads, step_turn.min(call_turn));
    let total = rounds(duration.as_secs_f64(), step_turn + call_turn + step_turn.min(call_turn));
    let flop_per_position = trainer.flop() / trainer.positions() as f64;
    let (mut evaluated, mut trained, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut peaks, mut evaluation_fractions, mut training_fractions) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..total {
        observe(round, total);
        let training = trainer.positions() as f64 / trainer.time(steps);
        let limit = peak.rate();
        let evaluation = n as f64 / score(&mut trainer, calls);
        trained.push(training);
        evaluated.push(evaluation);
        ratios.push(evaluation / training);
        peaks.push(limit / 1e9);
        training_fractions.push(flop_per_position * training / limit);
        evaluation_fractions.push(flop_per_position / 3.0 * evaluation / limit);
    }
    Ok(Evaluation {
        evaluation_rate: median(&mut evaluated),
        training_rate: median(&mut trained),
        ratio: median(&mut ratios),
        ratio_spread: spread(&mut ratios),
        evaluation_peak_fraction: median(&mut evaluation_fractions),
        training_peak_fraction: median(&mut training_fractions),
        peak_gflops: median(&mut peaks),
        characters_per_call: n,
        threads: trainer.engine.threads(),
        isa: trainer.isa().name().to_string(),
        rounds: total,
    })
}
