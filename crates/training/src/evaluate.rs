//! How well a model predicts: a fixed set of windows during a run, a whole split after it.

use diapason_engine::Engine;
use serde::Serialize;
use std::ops::ControlFlow;

/// How well a text was predicted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Mean cross-entropy, nats per character.
    pub loss: f64,
    /// Share of positions where the likeliest symbol was right.
    pub accuracy: f64,
    /// The same at the last position of each window.
    pub accuracy_last: f64,
    /// Characters that were predicted: one less than the text has.
    pub characters: u64,
}

impl Evaluation {
    /// The loss in bits per character.
    pub fn bpc(&self) -> f64 {
        self.loss / std::f64::consts::LN_2
    }
}

/// Why a text cannot be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// Nothing to predict.
    #[error("a text of {characters} characters has nothing to predict: at least 2 are needed")]
    TooShort {
        /// Its length.
        characters: usize,
    },
    /// A stride that would leave positions out.
    #[error("stride is {stride}, but must lie between 1 and {sequence_length}, the characters in a window")]
    Stride {
        /// The stride.
        stride: usize,
        /// The window.
        sequence_length: usize,
    },
    /// The caller broke off.
    #[error("interrupted")]
    Interrupted,
}

/// Predicts the whole of `text` (ids) in windows of `sequence_length`.
///
/// `progress` is told the characters done and the characters in all, and may break off.
///
/// # Errors
/// A text too short, a stride out of range, or `progress` broke off.
pub fn evaluate_split(
    engine: &mut dyn Engine,
    text: &[u8],
    sequence_length: usize,
    stride: Option<usize>,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Evaluation, EvaluationError> {
    let _ = (engine, text, sequence_length, stride, progress);
    Err(EvaluationError::Interrupted)
}
