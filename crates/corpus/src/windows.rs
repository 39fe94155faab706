//! Windows: the pieces of text that a model reads.
//!
//! A window is T characters and, as targets, the T characters that begin one further. Training windows start
//! anywhere, drawn from a number with an address (seed, step, place in the batch), so that step n sees the same
//! windows in every configuration, on every machine, after every interruption.

use diapason_random::{Purpose, Stream};

/// B windows of T characters with their targets, both [B, T], row-major.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows {
    /// The characters that the model reads, B x T.
    pub inputs: Vec<u8>,
    /// The character after each of them, B x T.
    pub targets: Vec<u8>,
    /// T.
    pub sequence_length: usize,
}

impl Windows {
    /// Number of windows B.
    pub fn count(&self) -> usize {
        self.inputs.len().checked_div(self.sequence_length).unwrap_or(0)
    }

    /// Replaces the content by the windows of `text` that begin at `starts`, T = `t`. Allocates only when it
    /// has to hold more than ever before.
    ///
    /// # Panics
    ///
    /// If a window does not lie within the text: start + t + 1 <= N.
    pub fn gather(&mut self, text: &[u8], starts: impl IntoIterator<Item = usize>, t: usize) {
        self.inputs.clear();
        self.targets.clear();
        self.sequence_length = t;
        for start in starts {
            let window = &text[start..start + t + 1];
            self.inputs.extend_from_slice(&window[..t]);
            self.targets.extend_from_slice(&window[1..]);
        }
    }
}

/// Start of window `index`: uniform over the N - T places where a window and its last target fit.
fn start(text: &[u8], stream: &Stream, index: usize, t: usize) -> usize {
    assert!(text.len() > t, "a window of {t} characters needs {} of text, not {}", t + 1, text.len());
    stream.below(index as u64, (text.len() - t) as u64) as usize
}

/// The batch of training step `step`: window i starts at a place drawn from (seed, training windows, step, i).
///
/// # Panics
///
/// If the text has fewer than T + 1 characters; [`Corpus::require`](crate::Corpus::require) checks it once.
pub fn training_windows(train: &[u8], seed: u64, step: u64, batch_size: usize, t: usize, out: &mut Windows) {
    let stream = Stream::new(seed, Purpose::TrainingWindows, step);
    out.gather(train, (0..batch_size).map(|index| start(train, &stream, index, t)), t);
}

/// `n` windows at places drawn from `stream`: the fixed validation windows of a study, or a fresh batch.
///
/// # Panics
///
/// If the text has fewer than T + 1 characters.
pub fn random_windows(text: &[u8], stream: Stream, n: usize, t: usize) -> Windows {
    let mut windows = Windows::default();
    windows.gather(text, (0..n).map(|index| start(text, &stream, index, t)), t);
    windows
}
