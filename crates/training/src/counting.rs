//! What counting alone predicts of the text that runs are evaluated on.

use crate::Spans;
use diapason_corpus::{Corpus, ngrams};
use serde::Serialize;
use std::sync::atomic::AtomicBool;

/// How well counts of the training text predict the validation text, with n-grams of the length that does it best.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Counting {
    /// n of the longest n-grams that count.
    pub order: usize,
    /// Mean loss over the characters that evaluations predict, nats per character.
    pub loss: f64,
}

impl Counting {
    /// Predicts the characters that evaluations of so many `characters` predict ([`Spans`]), in windows of `sequence_length`, with no more
    /// context than a model has. Method and source: [`ngrams`]. None where there is nothing to predict, and if `stop` became true.
    pub fn of(corpus: &Corpus, characters: usize, sequence_length: usize, stop: &AtomicBool) -> Option<Self> {
        let text = corpus.validation();
        let spans = Spans::new(text.len(), characters)?;
        let questions: Vec<ngrams::Question<'_>> = spans.questions(text, sequence_length).collect();
        let losses = ngrams::mean_losses(corpus.train(), corpus.alphabet.len(), &questions, stop)?;
        let (at, loss) = losses.into_iter().enumerate().min_by(|(_, a), (_, b)| a.total_cmp(b))?;
        Some(Self { order: at + 1, loss })
    }

    /// Bytes that this takes at its most, while it goes on.
    pub fn memory(corpus: &Corpus, characters: usize) -> usize {
        let spans = Spans::new(corpus.validation().len(), characters);
        let questions = spans.map_or(0, |spans| spans.characters());
        size_of::<ngrams::Question<'_>>() * questions
            + ngrams::memory(corpus.train(), corpus.alphabet.len(), questions)
    }
}
