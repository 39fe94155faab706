//! What counting alone predicts of the text that runs are evaluated on.

use crate::run::training_text;
use crate::{Config, Spans};
use diapason_corpus::{Corpus, ngrams};
use serde::Serialize;
use std::ops::ControlFlow;

/// How well counts of the training text predict the validation text, with n-grams of the length that does it best.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Counting {
    /// n of the longest n-grams that count.
    pub order: usize,
    /// Characters that are known at most: those of a window.
    pub context: usize,
    /// Mean loss over the characters that evaluations predict, nats per character.
    pub loss: f64,
}

impl Counting {
    /// Predicts what a run of `config` is evaluated on ([`Spans`], in windows of the same length) by counting what it is trained on. Method and
    /// source: [`ngrams`]. `progress` is told the characters done and those in all, and may break off.
    ///
    /// None where there is nothing to predict, where counting is no better than guessing (a text with other characters than the
    /// counted one), and if `progress` broke off.
    pub fn of(
        corpus: &Corpus,
        config: &Config,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Option<Self> {
        let (text, vocabulary) = (corpus.validation(), corpus.alphabet.len());
        let spans = Spans::new(text.len(), config.validation_characters)?;
        let questions: Vec<ngrams::Question<'_>> = spans.questions(text, config.sequence_length).collect();
        let losses = ngrams::mean_losses(training_text(corpus, config), vocabulary, &questions, progress)?;
        let (at, loss) = losses.into_iter().enumerate().min_by(|(_, a), (_, b)| a.total_cmp(b))?;
        let guessing = libm::log(vocabulary as f64);
        (loss < guessing).then_some(Self { order: at + 1, context: config.sequence_length, loss })
    }

    /// Bytes that this takes at its most, while it goes on.
    pub fn memory(corpus: &Corpus, config: &Config) -> usize {
        let spans = Spans::new(corpus.validation().len(), config.validation_characters);
        let questions = spans.map_or(0, |spans| spans.characters());
        size_of::<ngrams::Question<'_>>() * questions
            + ngrams::memory(training_text(corpus, config), corpus.alphabet.len(), questions)
    }
}
