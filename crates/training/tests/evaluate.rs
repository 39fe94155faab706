//! The evaluation of a whole split, against the definition written out position by position.

mod common;

use common::{Bigram, config, corpus};
use diapason_engine::{Batch, Engine, Scores};
use diapason_model::initialise;
use diapason_training::{Config, Evaluation, EvaluationError, evaluate_split};
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

fn evaluate(text: &[u8], t: usize, stride: Option<usize>) -> Result<Evaluation, EvaluationError> {
    evaluate_split(&mut engine(), text, t, stride, &mut |_, _| ControlFlow::Continue(()))
}

/// Windows as (start, length, first position that counts).
fn expected(text: &[u8], windows: &[(usize, usize, usize)]) -> (f64, u64, usize) {
    let (mut loss, mut hits, mut count) = (0.0, 0, 0);
    let mut engine = engine();
    let mut scores = Scores::default();
    for &(start, length, from) in windows {
        let batch = Batch {
            inputs: &text[start..start + length],
            targets: &text[start + 1..start + length + 1],
            sequence_length: length,
        };
        engine.evaluate(batch, &mut scores);
        loss += scores.losses[from..].iter().map(|&l| f64::from(l)).sum::<f64>();
        hits += scores.hits[from..].iter().filter(|&&hit| hit).count() as u64;
        count += length - from;
    }
    (loss / count as f64, hits, count)
}

#[test]
fn a_split_is_predicted_once() {
    let corpus = corpus(0);
    let text = corpus.validation();
    let mut covered = 0;
    for n in [2, 3, 7, 8, 9, 10, 24, 25, 26, 31, 700] {
        let text = &text[..n];
        for t in [1, 2, 5, 8] {
            for stride in [None, Some(1), Some(2), Some(3), Some(5), Some(8)] {
                if stride.is_some_and(|s| s > t) {
                    assert!(matches!(evaluate(text, t, stride), Err(EvaluationError::Stride { .. })));
                    continue;
                }
                // The definition.
                let total = n - 1;
                let mut windows = Vec::new();
                let step = stride.unwrap_or(t);
                if total <= t {
                    windows.push((0, total, 0));
                } else {
                    windows.push((0, t, 0));
                    let mut done = t;
                    while total - done >= step {
                        windows.push((done + step - t, t, t - step));
                        done += step;
                    }
                    let left = total - done;
                    if left > 0 {
                        windows.push(if step == t { (done, left, 0) } else { (total - t, t, t - left) });
                    }
                }
                let (loss, hits, count) = expected(text, &windows);
                let found = evaluate(text, t, stride).unwrap();
                let what = format!("n {n}, t {t}, stride {stride:?}");
                assert_eq!((found.characters, count), (total as u64, total), "{what}");
                assert!((found.loss - loss).abs() < 1e-12 * loss, "{what}: {} {loss}", found.loss);
                assert!((found.accuracy - hits as f64 / total as f64).abs() < 1e-12, "{what}");
                covered += 1;
            }
        }
    }
    assert!(covered > 100);
}

#[test]
fn the_last_position_counts_in_full_windows() {
    let corpus = corpus(0);
    let text = &corpus.validation()[..27];
    let hit = |start: usize, length: usize| {
        let mut scores = Scores::default();
        let (inputs, targets) = (&text[start..start + length], &text[start + 1..start + length + 1]);
        engine().evaluate(Batch { inputs, targets, sequence_length: length }, &mut scores);
        f64::from(u8::from(scores.hits[length - 1]))
    };
    let found = evaluate(text, 8, None).unwrap().accuracy_last;
    assert_eq!(found, (hit(0, 8) + hit(8, 8) + hit(16, 8)) / 3.0);
    let found = evaluate(text, 8, Some(6)).unwrap().accuracy_last;
    assert_eq!(found, (hit(0, 8) + hit(6, 8) + hit(12, 8) + hit(18, 8)) / 4.0);
    assert_eq!(evaluate(&text[..4], 8, None).unwrap().accuracy_last, hit(0, 3));
}

#[test]
fn progress_is_told_and_can_break_off() {
    let corpus = corpus(0);
    let text = corpus.validation();
    for stride in [None, Some(3)] {
        let mut seen = Vec::new();
        evaluate_split(&mut engine(), text, 4, stride, &mut |done, total| {
            assert_eq!(total, text.len() as u64 - 1);
            seen.push(done);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert!(seen.is_sorted() && seen.last() == Some(&(text.len() as u64 - 1)), "{seen:?}");
    }
    let broken = evaluate_split(&mut engine(), text, 4, None, &mut |_, _| ControlFlow::Break(()));
    assert_eq!(broken, Err(EvaluationError::Interrupted));
}

#[test]
fn what_cannot_be_evaluated_is_refused() {
    assert_eq!(evaluate(&[], 4, None), Err(EvaluationError::TooShort { characters: 0 }));
    assert_eq!(evaluate(&[1], 4, None), Err(EvaluationError::TooShort { characters: 1 }));
    assert!(matches!(evaluate(&[1, 2], 0, None), Err(EvaluationError::SequenceLength { .. })));
    assert!(matches!(evaluate(&[1, 2], 9, None), Err(EvaluationError::SequenceLength { .. })));
    assert!(matches!(evaluate(&[1, 2], 4, Some(0)), Err(EvaluationError::Stride { .. })));
    assert_eq!(evaluate(&[1, 27], 4, None), Err(EvaluationError::Symbol { symbol: 27, last: 26 }));
}
