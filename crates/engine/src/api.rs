//! The seam between training and arithmetic.

use diapason_model::ModelConfig;
use serde::{Deserialize, Serialize};
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

/// How parameters follow from gradients. g is the gradient, t the number of the update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// Kingma and Ba, 2015, as Optax has it: m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
    /// p -= learning_rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon).
    #[default]
    Adam,
    /// Adam with decoupled weight decay (Loshchilov and Hutter, 2019): besides, p -= learning_rate weight_decay p, for matrices
    /// and tables; biases and scales do not decay.
    AdamW,
    /// Chen et al., 2023: p -= learning_rate sign(beta1 m + (1 - beta1) g); m = beta2 m + (1 - beta2) g. Weight decay as in AdamW.
    Lion,
    /// Jordan, 2024, for each matrix [in, out] of the blocks: m = momentum m + (1 - momentum) g;
    /// p -= learning_rate sqrt(max(1, out / in)) O, O being (1 - momentum) g + momentum m with all its singular values brought near
    /// to 1. Matrices decay as in AdamW. Everything else is Adam's, at `adam_learning_rate`.
    Muon,
}

/// What a step does to the parameters: plain numbers that the schedule has resolved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// Number of this update, from 1: t in the bias corrections.
    pub number: u64,
    /// How parameters follow from gradients.
    pub optimizer: Optimizer,
    /// Step size.
    pub learning_rate: f32,
    /// Step size of Adam beside Muon.
    pub adam_learning_rate: f32,
    /// Step size of the tables of n-grams, whose rows differ so much in how often they are read that no optimizer of the other parameters suits
    /// them. Whatever that is, a row that a batch reads goes a step of Adam without momentum and with a long memory (beta1 = 0,
    /// beta2 = 0.999), so one that is seldom read goes longer steps, as in AdaGrad. A row that is not read stands still, its moments too (as in
    /// PyTorch's SparseAdam), and nothing there decays.
    pub ngram_learning_rate: f32,
    /// Decay of Muon's momentum.
    pub momentum: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decoupled weight decay, of AdamW, Lion and Muon.
    pub weight_decay: f32,
    /// Longest gradient, over all parameters: a longer one is scaled down to it. 0: any.
    pub gradient_clip: f32,
    /// Longest gradient of a unit (a column of a matrix [in, out] or of a table, a row of a table of n-grams, a whole vector) in units of the unit's own
    /// length or 1e-3, whichever is larger (Brock et al., 2021). 0: any.
    pub adaptive_clip: f32,
    /// Share w of the new parameters in their average: average += w (p - average). 0 leaves it as it is. Needs
    /// [`Engine::keep_average`].
    pub average: f32,
}

impl Default for Update {
    /// The first update of Adam with the usual numbers.
    fn default() -> Self {
        Self {
            number: 1,
            optimizer: Optimizer::Adam,
            learning_rate: 1e-3,
            adam_learning_rate: 1e-3,
            ngram_learning_rate: 0.02,
            momentum: 0.95,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            gradient_clip: 0.0,
            adaptive_clip: 0.0,
            average: 0.0,
        }
    }
}

/// What updates need beside parameters and moments: how much memory an engine takes depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Updating {
    /// How parameters follow from gradients.
    pub optimizer: Optimizer,
    /// Whether gradients are clipped.
    pub clips: bool,
    /// Whether an average of the parameters is kept.
    pub averages: bool,
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

/// All that a checkpoint has to keep of an engine: vectors in the order of the model's `Layout`.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    /// Parameters.
    pub parameters: &'a [f32],
    /// The optimizer's first moment m, or momentum.
    pub first_moment: &'a [f32],
    /// Adam's second moment v; zero where the optimizer has none.
    pub second_moment: &'a [f32],
    /// Average of the parameters; empty if none is kept.
    pub average: &'a [f32],
}

/// The same vectors, to be overwritten.
#[derive(Debug)]
pub struct StateMut<'a> {
    /// Parameters.
    pub parameters: &'a mut [f32],
    /// The optimizer's first moment m, or momentum.
    pub first_moment: &'a mut [f32],
    /// Adam's second moment v.
    pub second_moment: &'a mut [f32],
    /// Average of the parameters; empty if none is kept.
    pub average: &'a mut [f32],
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

    /// Whether an average of the parameters is kept beside them from now on; whoever wants one says what it is at first, by
    /// [`Engine::with_state`] or by an update whose share is 1.
    fn keep_average(&mut self, keep: bool);

    /// Parameters and their average change places, so that what follows (an evaluation) uses the average; done twice, nothing
    /// has changed. Without an average it does nothing.
    fn swap_average(&mut self);

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
