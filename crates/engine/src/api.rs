//! The seam between training and arithmetic.

use diapason_model::ModelConfig;
use std::any::Any;
use std::fmt;

/// Windows of symbols with the symbol that follows each position: B windows of T positions, row-major [B, T].
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Symbols, B x T.
    pub inputs: &'a [u8],
    /// The symbol after each input, B x T.
    pub targets: &'a [u8],
    /// T.
    pub sequence_length: usize,
}

impl Batch<'_> {
    /// Number of windows B.
    pub fn windows(&self) -> usize {
        self.inputs.len() / self.sequence_length
    }
}

/// What a step does to the parameters: plain numbers that the schedule has resolved.
///
/// Adam (Kingma and Ba, 2015) as Optax has it: m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
/// p -= learning_rate * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// Number of this update, from 1: t in the bias corrections.
    pub number: u64,
    /// Step size.
    pub learning_rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
}

/// What a step says of its batch, before the update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepMetrics {
    /// Mean cross-entropy over the positions that count, nats. Not finite when the run has diverged.
    pub loss: f64,
}

/// How well each position of a batch was predicted, [B, T] row-major. Everything that an evaluation reports
/// (loss, both accuracies, losses per span) is a sum over these.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// Cross-entropy at the position, nats.
    pub losses: Vec<f32>,
    /// Whether the likeliest symbol (the first of equals) was the right one.
    pub hits: Vec<bool>,
}

/// All that a checkpoint has to keep of an engine: three vectors in the order of the model's `Layout`.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    /// Parameters.
    pub parameters: &'a [f32],
    /// Adam's first moment m.
    pub first_moment: &'a [f32],
    /// Adam's second moment v.
    pub second_moment: &'a [f32],
}

/// The same vectors, to be overwritten.
#[derive(Debug)]
pub struct StateMut<'a> {
    /// Parameters.
    pub parameters: &'a mut [f32],
    /// Adam's first moment m.
    pub first_moment: &'a mut [f32],
    /// Adam's second moment v.
    pub second_moment: &'a mut [f32],
}

/// Which arithmetic produced a result. Equal ids promise equal bits, on any number of threads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EngineId {
    /// Version of the program.
    pub version: String,
    /// Instruction set of the kernels: `avx512`, `avx2`, `portable`.
    pub isa: String,
    /// Number format of the products: `f32`, `half`.
    pub precision: String,
}

impl fmt::Display for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "diapason-{}/{}/{}", self.version, self.isa, self.precision)
    }
}

/// Why an engine cannot be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// More memory than the machine has.
    #[error("this needs {needed_gib:.1} GiB of memory, and the machine has {available_gib:.1} GiB")]
    Memory {
        /// What the engine would allocate.
        needed_gib: f64,
        /// What is available.
        available_gib: f64,
    },
    /// An instruction set that was asked for by name is unknown or not in this processor.
    #[error("instruction set `{name}` is not available here: {available} are")]
    InstructionSet {
        /// What was asked for.
        name: String,
        /// What there is.
        available: String,
    },
}

/// Keys and values of the positions that a generation has read, one per engine and set of streams; opaque.
pub type Cache = Box<dyn Any + Send>;

/// Computes steps, scores and next-symbol logits of one model.
///
/// Windows have at most `max_len` positions and symbols below `vocabulary`: callers have checked both.
pub trait Engine: Send {
    /// Which arithmetic this is.
    fn id(&self) -> &EngineId;

    /// The model.
    fn model(&self) -> &ModelConfig;

    /// Number of threads that share a step. It never changes a bit of a result.
    fn threads(&self) -> usize;

    /// From the next call on, `threads` threads share the work; at least one. For a run whose share of the machine
    /// changes while it goes on. An engine that has no threads of its own does nothing.
    fn set_threads(&mut self, threads: usize) {
        let _ = threads;
    }

    /// What dropout leaves out of the next batch is drawn for this update (numbers from 1) of a run with this seed. A model without dropout
    /// has no use for it.
    fn draw_masks(&mut self, seed: u64, update: u64);

    /// Forward, loss, backward, update, on one batch.
    fn step(&mut self, batch: Batch<'_>, update: &Update) -> StepMetrics;

    /// Loss and gradient of the mean loss on one batch, nothing changed; `gradient` in the order of the
    /// layout. For tests and diagnostics: `step` has no use for it.
    fn gradient(&mut self, batch: Batch<'_>, gradient: &mut [f32]) -> StepMetrics;

    /// Scores of every position of `batch`, any number of windows; `scores` is resized to fit.
    fn evaluate(&mut self, batch: Batch<'_>, scores: &mut Scores);

    /// Parameters and moments.
    fn state(&self) -> State<'_>;

    /// Lets `change` overwrite parameters and moments.
    fn with_state(&mut self, change: &mut dyn FnMut(StateMut<'_>));

    /// An empty cache for `streams` texts that are generated side by side, each with a context of at most `positions` symbols.
    fn cache(&self, streams: usize, positions: usize) -> Cache;

    /// Empties `cache` and reads contexts of equal length, `contexts` = [streams, length] row-major, one symbol
    /// each or more. `logits` [streams, V] of the symbol that follows.
    fn prefill(&mut self, cache: &mut Cache, contexts: &[u8], logits: &mut [f32]);

    /// Reads one more symbol per stream; `logits` [streams, V] of the one that follows.
    ///
    /// # Panics
    /// When more is read than the cache was made for: a mistake in the caller.
    fn decode(&mut self, cache: &mut Cache, symbols: &[u8], logits: &mut [f32]);
}
