//! How well a model predicts: a fixed set of windows during a run, a whole split after it.
//!
//! An engine scores every position; everything here is sums over those scores, in `f64` and in the order of the
//! text, so the way in which windows are handed over (how many at a time) cannot change a result.
//!
//! A whole split can be read in two ways. In windows that do not overlap, position t of a window sees t
//! characters before it, as in training; so the loss is that of training. With a stride S < T, windows begin S
//! apart and only the last S positions of each count (all of the first), so that every character is predicted
//! with at least T - S characters before it: a lower loss, T/S times the work.

use diapason_engine::{Batch, Engine, Scores};
use diapason_model::ModelConfig;
use serde::Serialize;
use std::ops::ControlFlow;

/// How well a text was predicted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Mean cross-entropy, nats per character.
    pub loss: f64,
    /// Share of positions where the likeliest symbol was right.
    pub accuracy: f64,
    /// The same at the last position of each full window. (A remainder shorter than a window counts only if
    /// there is nothing else.)
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
    /// A window that the model cannot read.
    #[error(
        "sequence_length is {sequence_length}, but must lie between 1 and {max_len}, the model's max_len"
    )]
    SequenceLength {
        /// The window.
        sequence_length: usize,
        /// The model's longest.
        max_len: usize,
    },
    /// A stride that would leave positions out.
    #[error("stride is {stride}, but must lie between 1 and {sequence_length}, the characters in a window")]
    Stride {
        /// The stride.
        stride: usize,
        /// The window.
        sequence_length: usize,
    },
    /// A text in another alphabet.
    #[error("the text has symbol {symbol}, but the model knows only 0 to {last}")]
    Symbol {
        /// The symbol.
        symbol: u8,
        /// The model's last symbol.
        last: usize,
    },
    /// The caller broke off.
    #[error("interrupted")]
    Interrupted,
}

/// Sums over scores.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    loss: f64,
    hits: u64,
    positions: u64,
    last_hits: u64,
    windows: u64,
}

impl Sums {
    /// Adds positions `from` .. T of every window of T positions; with `last`, also the last position of each
    /// to the accuracy there.
    pub(crate) fn add(&mut self, scores: &Scores, t: usize, from: usize, last: bool) {
        for (losses, hits) in scores.losses.chunks_exact(t).zip(scores.hits.chunks_exact(t)) {
            self.loss += losses[from..].iter().map(|&loss| f64::from(loss)).sum::<f64>();
            self.hits += hits[from..].iter().filter(|&&hit| hit).count() as u64;
            self.positions += (t - from) as u64;
            if last {
                self.last_hits += u64::from(hits[t - 1]);
                self.windows += 1;
            }
        }
    }

    /// Positions that count.
    pub(crate) fn positions(&self) -> u64 {
        self.positions
    }

    pub(crate) fn evaluation(&self) -> Evaluation {
        Evaluation {
            loss: self.loss / self.positions as f64,
            accuracy: self.hits as f64 / self.positions as f64,
            accuracy_last: self.last_hits as f64 / self.windows as f64,
            characters: self.positions,
        }
    }
}

/// Windows that are handed to the engine at a time: enough to keep many cores busy, few enough that
/// progress is seen and an interruption heard.
pub(crate) fn windows_at_a_time(t: usize) -> usize {
    (8192 / t).max(64)
}

/// Positions that are scored at a time.
pub(crate) fn scored_at_a_time(t: usize) -> usize {
    windows_at_a_time(t) * t
}

/// Scores windows, at least one. `progress` is told the characters done and the characters in all, and may break off.
pub(crate) fn evaluate_windows(
    engine: &mut dyn Engine,
    windows: Batch<'_>,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Evaluation, EvaluationError> {
    let t = windows.sequence_length;
    let piece = scored_at_a_time(t);
    let (mut sums, mut scores) = (Sums::default(), Scores::default());
    for (inputs, targets) in windows.inputs.chunks(piece).zip(windows.targets.chunks(piece)) {
        engine.evaluate(Batch { inputs, targets, sequence_length: t }, &mut scores);
        sums.add(&scores, t, 0, true);
        if progress(sums.positions, windows.inputs.len() as u64).is_break() {
            return Err(EvaluationError::Interrupted);
        }
    }
    Ok(sums.evaluation())
}

/// Whether [`evaluate_split`] can do what it is asked to, without doing it.
///
/// # Errors
/// A text too short or with unknown symbols, a window or stride out of range.
pub fn check_evaluation(
    model: &ModelConfig,
    text: &[u8],
    sequence_length: usize,
    stride: Option<usize>,
) -> Result<(), EvaluationError> {
    let (max_len, vocabulary) = (model.max_len, model.vocabulary);
    if text.len() < 2 {
        return Err(EvaluationError::TooShort { characters: text.len() });
    }
    if sequence_length == 0 || sequence_length > max_len {
        return Err(EvaluationError::SequenceLength { sequence_length, max_len });
    }
    if let Some(&symbol) = text.iter().find(|&&symbol| usize::from(symbol) >= vocabulary) {
        return Err(EvaluationError::Symbol { symbol, last: vocabulary - 1 });
    }
    match stride {
        Some(stride) if stride == 0 || stride > sequence_length => {
            Err(EvaluationError::Stride { stride, sequence_length })
        }
        _ => Ok(()),
    }
}

/// Predicts the whole of `text` (ids, N of them), N - 1 characters, each once, in windows of
/// `sequence_length` T.
///
/// Without `stride`: windows that do not overlap, and the remainder as a short window. With it: windows that
/// begin `stride` apart, each of which counts its last `stride` positions, the first all of them; the last
/// window ends with the text and counts what is left.
///
/// `progress` is told the characters done and the characters in all, and may break off.
///
/// # Errors
/// A text too short or with unknown symbols, a window or stride out of range, or `progress` broke off.
pub fn evaluate_split(
    engine: &mut dyn Engine,
    text: &[u8],
    sequence_length: usize,
    stride: Option<usize>,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Evaluation, EvaluationError> {
    check_evaluation(engine.model(), text, sequence_length, stride)?;
    let total = (text.len() - 1) as u64;
    // A text shorter than a window is one short window.
    let t = sequence_length.min(text.len() - 1);
    let stride = stride.map_or(t, |stride| stride.min(t));
    let overlapping = stride < t;
    let mut sums = Sums::default();
    let mut scores = Scores::default();
    let mut done = |sums: &Sums| match progress(sums.positions, total) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(EvaluationError::Interrupted),
    };

    // The first window counts in full; from then on `start` is the start of the next one.
    let mut start = 0;
    let mut gathered = (Vec::new(), Vec::new());
    while start + t < text.len() {
        // Full windows that fit, and are handed over together.
        let fitting = (text.len() - 1 - t - start) / stride + 1;
        let count = if overlapping && start == 0 { 1 } else { fitting.min(windows_at_a_time(t)) };
        let batch = if overlapping {
            let (inputs, targets) = &mut gathered;
            inputs.clear();
            targets.clear();
            for window in (0..count).map(|i| &text[start + i * stride..][..t + 1]) {
                inputs.extend_from_slice(&window[..t]);
                targets.extend_from_slice(&window[1..]);
            }
            Batch { inputs, targets, sequence_length: t }
        } else {
            // Neighbouring windows lie one after the other: the text is the batch.
            let span = &text[start..start + count * t + 1];
            Batch { inputs: &span[..count * t], targets: &span[1..], sequence_length: t }
        };
        engine.evaluate(batch, &mut scores);
        sums.add(&scores, t, if start == 0 { 0 } else { t - stride }, true);
        done(&sums)?;
        start += count * stride;
    }

    let left = (total - sums.positions) as usize;
    if left > 0 {
        // With overlap, the last window is a full one that ends with the text.
        let length = if overlapping { t } else { left };
        let span = &text[text.len() - 1 - length..];
        let batch = Batch { inputs: &span[..length], targets: &span[1..], sequence_length: length };
        engine.evaluate(batch, &mut scores);
        sums.add(&scores, length, length - left, overlapping);
        done(&sums)?;
    }
    Ok(sums.evaluation())
}
