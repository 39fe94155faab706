//! One run: from a configuration, a seed and a text to a trained model, and nothing lost on the way.
//!
//! - [`Config`]: what a run computes, key by key.
//! - [`Idle`]: which of them have an effect only under some values of others.
//! - [`run`]: the loop. Windows in, updates, evaluations, checkpoints; stops at the last step, on patience, on
//!   a loss that is no number, or when asked to.
//! - [`updates`]: step sizes, batch sizes and averages over a run.
//! - [`Budget`], [`TimeSpent`]: how much a run may take; what of a budget of time is spent.
//! - [`evaluate_split`]: a trained model on a whole split.
//! - [`evaluate_spans`], [`SpanReading`]: losses of fixed pieces of text, the same whatever the window.
//! - [`Counting`]: what counting n-grams predicts of the same pieces.
//! - [`checkpoint`]: weights, optimizer and history in one safetensors file.
//! - [`lock`], [`files`]: one process per folder, no file half-written.
//!
//! A run is a pure function of (corpus digest, configuration, seed, engine id): it may be interrupted
//! anywhere and resumed, and computes the same bits. Times are the exception, being measured.

mod budget;
pub mod checkpoint;
mod config;
mod counting;
mod curve;
mod effects;
mod error;
mod evaluate;
mod folder;
pub mod lock;
mod run;
mod schedule;
mod spans;
mod time;
pub mod updates;

pub use budget::{Budget, BudgetError};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use config::{Config, ConfigError, KeyDoc, PrecisionChoice, RECIPES, Recipe};
pub use counting::Counting;
pub use curve::{CurvePoint, Reading, SeedRule};
pub use diapason_corpus::files;
pub use effects::{Idle, decides_on};
pub use error::TrainingError;
pub use evaluate::{Evaluation, EvaluationError, check_evaluation, evaluate_split};
pub use folder::create_folder;
pub use lock::{FolderLock, LockError};
pub use run::{
    BEST, CHECKPOINT, CURVE, Control, Ends, Event, Occasion, RunOutcome, RunSpec, RunState, memory_needed,
    run,
};
pub use schedule::{Protocol, out_of_patience};
pub use spans::{SpanReading, Spans, evaluate_spans};
pub use time::TimeSpent;
