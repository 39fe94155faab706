//! Losses per span, against the definition written out position by position.

mod common;

use common::{Bigram, config, corpus};
use diapason_corpus::ngrams;
use diapason_engine::{Batch, Engine, Scores};
use diapason_model::initialise;
use diapason_training::{Config, Counting, EvaluationError, Spans, evaluate_spans};
use std::ops::ControlFlow;

fn engine() -> Bigram {
    // Random weights: every position of a window predicts differently.
    let mut engine = Bigram::new(&Config { max_len: 8, ..config() });
    let parameters = initialise(engine.model(), 1);
    engine.with_state(&mut |state| {
        for (value, start) in state.parameters.iter_mut().zip(&parameters) {
            *value = 20.0 * start;
        }
    });
    engine
}

/// The loss of each position when `text` is read in windows of `t`, and whether the likeliest symbol was right.
fn positions(text: &[u8], t: usize) -> Vec<(f64, bool)> {
    let (mut engine, mut scores, mut found) = (engine(), Scores::default(), Vec::new());
    for from in (0..text.len() - 1).step_by(t) {
        let to = (from + t).min(text.len() - 1);
        let batch =
            Batch { inputs: &text[from..to], targets: &text[from + 1..=to], sequence_length: to - from };
        engine.evaluate(batch, &mut scores);
        found.extend(scores.losses.iter().map(|&loss| f64::from(loss)).zip(scores.hits.iter().copied()));
    }
    found
}

#[test]
fn every_window_predicts_the_same_characters() {
    let corpus = corpus(0);
    // Longer than the corpus, so that there is more than one region.
    let text: Vec<u8> = corpus.train().iter().copied().cycle().take(30_011).collect();
    for (n, characters) in [(2, 1), (9, 8), (701, 300), (30_011, 20_000)] {
        let text = &text[..n];
        let spans = Spans::new(n, characters).unwrap();
        let ranges: Vec<_> = spans.ranges().collect();
        for t in [1, 3, 5, 8] {
            let evaluated =
                evaluate_spans(&mut engine(), text, &spans, t, &mut |_, _| ControlFlow::Continue(()));
            let (evaluation, losses) = evaluated.unwrap();
            assert_eq!(evaluation.characters, spans.characters() as u64);
            // The definition, region by region: spans that follow each other without a gap.
            let (mut expected, mut hits, mut i) = (Vec::new(), 0, 0);
            while i < ranges.len() {
                let gap = |k: &usize| *k + 1 == ranges.len() || ranges[k + 1].start != ranges[*k].end;
                let last = (i..ranges.len()).find(gap).unwrap();
                let found = positions(&text[ranges[i].start - 1..ranges[last].end], t);
                for losses in found.chunks(ranges[i].len()) {
                    expected.push(losses.iter().map(|x| x.0).sum::<f64>() / losses.len() as f64);
                    hits += losses.iter().filter(|x| x.1).count();
                }
                i = last + 1;
            }
            assert_eq!(losses.len(), expected.len());
            for (found, expected) in losses.iter().zip(&expected) {
                assert!((f64::from(*found) - expected).abs() < 1e-6 * expected.max(1.0), "{n} {t}");
            }
            let mean = expected.iter().sum::<f64>() / expected.len() as f64;
            assert!((evaluation.loss - mean).abs() < 1e-12 * mean, "{n} {t}");
            assert!((evaluation.accuracy - hits as f64 / spans.characters() as f64).abs() < 1e-12);
            assert!((0.0..=1.0).contains(&evaluation.accuracy_last));
        }
    }
}

#[test]
fn questions_are_what_the_windows_hold() {
    let corpus = corpus(0);
    let text: Vec<u8> = corpus.train().iter().copied().cycle().take(30_011).collect();
    for (n, characters) in [(2, 1), (9, 8), (701, 300), (30_011, 20_000)] {
        let text = &text[..n];
        let spans = Spans::new(n, characters).unwrap();
        for t in [1, 3, 8] {
            let questions: Vec<_> = spans.questions(text, t).collect();
            let predicted: Vec<usize> = spans.ranges().flatten().collect();
            assert_eq!(questions.len(), predicted.len());
            let mut known = 0;
            for (i, (question, place)) in questions.iter().zip(&predicted).enumerate() {
                // A window is full, or a region begins.
                let begins = i == 0 || predicted[i - 1] + 1 != *place;
                known = if begins || known == t { 1 } else { known + 1 };
                assert_eq!((question.context, question.next), (&text[place - known..*place], text[*place]));
            }
        }
    }
}

#[test]
fn counting_is_of_the_length_that_does_it_best() {
    let corpus = corpus(0);
    let mut go_on = |_, _| ControlFlow::Continue(());
    let config = Config { validation_characters: 300, sequence_length: 8, ..config() };
    let counting = Counting::of(&corpus, &config, &mut go_on).unwrap();
    assert_eq!(counting.context, 8);
    let spans = Spans::new(corpus.validation().len(), 300).unwrap();
    let questions: Vec<_> = spans.questions(corpus.validation(), 8).collect();
    let losses = ngrams::mean_losses(corpus.train(), corpus.alphabet.len(), &questions, &mut go_on).unwrap();
    assert_eq!(counting.loss, losses[counting.order - 1]);
    assert!(losses.iter().all(|&loss| counting.loss <= loss) && counting.order > 1, "{losses:?}");
    assert!(Counting::memory(&corpus, &config) > 8 * corpus.train().len() / corpus.alphabet.len());
    // Of less text, and with less before each character, less is known.
    let less = Config { train_fraction: 0.1, ..config.clone() };
    assert!(Counting::of(&corpus, &less, &mut go_on).unwrap().loss > counting.loss);
    let short = Config { sequence_length: 1, ..config.clone() };
    assert!(Counting::of(&corpus, &short, &mut go_on).unwrap().loss > counting.loss);
    assert_eq!(Counting::of(&corpus, &config, &mut |_, _| ControlFlow::Break(())), None);
}

#[test]
fn it_can_be_broken_off() {
    let corpus = corpus(0);
    let spans = Spans::new(corpus.train().len(), 600).unwrap();
    let broken = evaluate_spans(&mut engine(), corpus.train(), &spans, 8, &mut |_, _| ControlFlow::Break(()));
    assert!(matches!(broken, Err(EvaluationError::Interrupted)));
}
