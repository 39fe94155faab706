//! Runs from beginning to end, and all the ways in which they can be cut short.

mod common;

use common::{Bigram, config, corpus, counter, run, run_watched};
use diapason_corpus::{Alphabet, Corpus, CorpusRequest, SplitRequest};
use diapason_training::{
    BEST, CHECKPOINT, CURVE, Checkpoint, CheckpointError, Config, ConfigError, Control, CurvePoint, Event,
    FolderLock, LockError, Occasion, Protocol, RunOutcome, RunSpec, RunState, SeedRule, SpanReading,
    TrainingError,
};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// All that must be equal when two runs are the same run: everything but times.
#[derive(Debug, PartialEq)]
struct Trace {
    state: RunState,
    steps: u64,
    curve: Vec<CurvePoint>,
    spans: Vec<SpanReading>,
    early: Option<u64>,
    best: Option<u64>,
    parameters: Vec<u32>,
    moments: Vec<u32>,
    best_parameters: Vec<u32>,
}

fn timeless(curve: &[CurvePoint]) -> Vec<CurvePoint> {
    curve.iter().map(|p| CurvePoint { train_seconds: 0.0, ..*p }).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn trace(outcome: &RunOutcome, folder: &Path) -> Trace {
    let last = Checkpoint::read(&folder.join(CHECKPOINT)).unwrap();
    assert_eq!(last.header.progress.state, outcome.state);
    assert_eq!(last.header.step, outcome.steps);
    assert_eq!(last.header.progress.curve, outcome.curve);
    assert_eq!(last.header.progress.spans, outcome.spans);
    // Spans are of equal length: their mean is the loss.
    for SpanReading { step, losses } in &outcome.spans {
        let mean = losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / losses.len() as f64;
        let point = outcome.curve.iter().find(|point| point.step == *step).unwrap();
        assert!((mean - point.validation_loss).abs() < 1e-6);
    }
    let moments = last.moments.unwrap();
    let best = Checkpoint::read(&folder.join(BEST)).unwrap();
    assert_eq!(best.moments, None);
    assert_eq!(Some(best.header.step), outcome.best.map(|b| b.step));
    Trace {
        state: outcome.state,
        steps: outcome.steps,
        curve: timeless(&outcome.curve),
        spans: outcome.spans.clone(),
        early: outcome.early.map(|e| e.step),
        best: outcome.best.map(|b| b.step),
        parameters: bits(&last.parameters),
        moments: [bits(&moments.first), bits(&moments.second)].concat(),
        best_parameters: bits(&best.parameters),
    }
}

fn files_of(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_run_learns_and_leaves_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { steps: 300, eval_every: 0, ..config() };
    let mut spec = RunSpec::new(config.clone(), 3, folder.path().join("new/folder"));
    spec.early_step = Some(50);
    let mut engine = Bigram::new(&config);
    let (outcome, events) = run_watched(&corpus(0), &mut engine, &spec, &AtomicBool::new(false));
    let outcome = outcome.unwrap();
    assert_eq!(outcome.state, RunState::Complete);
    assert_eq!(outcome.steps, 300);
    assert_eq!(outcome.seed_rule, None);
    let last = outcome.last.unwrap();
    // ln 27 before, ln 3 at best.
    assert!(last.validation_loss < 1.6, "{last:?}");
    assert!(last.accuracy > 0.25 && last.accuracy_last > 0.2, "{last:?}");
    assert!((last.bpc() - last.validation_loss / 2f64.ln()).abs() < 1e-12);
    assert!(outcome.tokens_per_second > 0.0);
    let steps: Vec<u64> = outcome.curve.iter().map(|p| p.step).collect();
    let mut expected: Vec<u64> = (1..=20).map(|i| 15 * i).collect();
    expected.insert(3, 50);
    assert_eq!(steps, expected);
    assert_eq!(outcome.early.unwrap().step, 50);
    assert_eq!(files_of(&spec.folder), [".lock", BEST, CHECKPOINT, CURVE]);

    let csv = fs::read_to_string(spec.folder.join(CURVE)).unwrap();
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("step,train_loss,validation_loss,accuracy,accuracy_last,train_seconds"));
    assert_eq!(lines.count(), outcome.curve.len());

    let Event::Started { step: 0, steps: 300, evaluations: 21, parameters } = events[0] else {
        panic!("{:?}", events[0])
    };
    assert_eq!(parameters, engine.parameters().len());
    assert_eq!(events.iter().filter(|e| matches!(e, Event::Evaluated(_))).count(), 21);
    assert!(events.iter().any(|e| matches!(e, Event::Step { step: 300, .. })));
}

#[test]
fn an_interrupted_run_comes_to_the_same_bits() {
    let config = config();
    let corpus = corpus(0);
    let spec = |folder: &Path| RunSpec {
        early_step: Some(10),
        resume: true,
        ..RunSpec::new(config.clone(), 5, folder)
    };
    let straight = tempfile::tempdir().unwrap();
    let outcome = run(&corpus, &mut Bigram::new(&config), &spec(straight.path())).unwrap();
    let expected = trace(&outcome, straight.path());
    assert_eq!(expected.early, Some(10));

    for stops in [&[1][..], &[6, 7, 8], &[10], &[9, 29, 30, 31], &[56], &[59], &[60]] {
        let folder = tempfile::tempdir().unwrap();
        for &stop in stops {
            let flag = Arc::new(AtomicBool::new(false));
            let mut engine = Bigram::interrupting(&config, stop, &flag);
            let (outcome, _) = run_watched(&corpus, &mut engine, &spec(folder.path()), &flag);
            let outcome = outcome.unwrap();
            if stop == 60 {
                // At the last step there is nothing left to interrupt, but the evaluation comes first.
                assert!(matches!(outcome.state, RunState::Complete | RunState::Interrupted { step: 60 }));
            } else {
                assert_eq!(outcome.state, RunState::Interrupted { step: stop });
            }
        }
        let outcome = run(&corpus, &mut Bigram::new(&config), &spec(folder.path())).unwrap();
        assert_eq!(trace(&outcome, folder.path()), expected, "interrupted at {stops:?}");
        assert!(outcome.train_seconds > 0.0);
        // A run that is over computes nothing more and says the same.
        let again = run(&corpus, &mut Bigram::new(&config), &spec(folder.path())).unwrap();
        assert_eq!(again, outcome);
    }
}

#[test]
fn a_killed_run_loses_only_what_was_not_written() {
    let config = config();
    let corpus = corpus(0);
    let straight = tempfile::tempdir().unwrap();
    let spec = |folder: &Path| RunSpec { resume: true, ..RunSpec::new(config.clone(), 5, folder) };
    let outcome = run(&corpus, &mut Bigram::new(&config), &spec(straight.path())).unwrap();
    let expected = trace(&outcome, straight.path());

    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join(CHECKPOINT);
    let until = |stop| {
        let flag = Arc::new(AtomicBool::new(false));
        let mut engine = Bigram::interrupting(&config, stop, &flag);
        run_watched(&corpus, &mut engine, &spec(folder.path()), &flag).0.unwrap();
    };
    until(16);
    let old = fs::read(&checkpoint).unwrap();
    until(40);
    // As if the process had died without writing again: an old checkpoint beside younger files, and what a
    // write that was cut off leaves.
    fs::write(&checkpoint, old).unwrap();
    fs::write(folder.path().join(".checkpoint.safetensors.tmp"), b"half").unwrap();
    let outcome = run(&corpus, &mut Bigram::new(&config), &spec(folder.path())).unwrap();
    assert_eq!(trace(&outcome, folder.path()), expected);
    assert_eq!(files_of(folder.path()), [".lock", BEST, CHECKPOINT, CURVE]);

    // Best weights that are lost are missed.
    let folder_of_best = tempfile::tempdir().unwrap();
    let mut last = Checkpoint::read(&checkpoint).unwrap();
    last.header.progress.curve[0].validation_loss = 0.0;
    last.write(&folder_of_best.path().join(CHECKPOINT)).unwrap();
    let flag = AtomicBool::new(false);
    let (_, events) = run_watched(&corpus, &mut Bigram::new(&config), &spec(folder_of_best.path()), &flag);
    assert!(
        events
            .iter()
            .any(|e| matches!(e, Event::Note(note) if note.contains("best step so far, 7, are lost")))
    );

    // The best weights alone are not overwritten by a new run.
    fs::remove_file(&checkpoint).unwrap();
    let error = run(&corpus, &mut Bigram::new(&config), &spec(folder.path())).unwrap_err();
    assert!(matches!(error, TrainingError::WeightsAlone { .. }), "{error}");

    // Killed after the checkpoint of a best evaluation and before the best weights.
    let folder = tempfile::tempdir().unwrap();
    let flag = Arc::new(AtomicBool::new(false));
    let mut engine = Bigram::interrupting(&config, 14, &flag);
    run_watched(&corpus, &mut engine, &spec(folder.path()), &flag).0.unwrap();
    assert_eq!(Checkpoint::read(&folder.path().join(BEST)).unwrap().header.step, 14);
    fs::remove_file(folder.path().join(BEST)).unwrap();
    fs::remove_file(folder.path().join(CURVE)).unwrap();
    let flag = AtomicBool::new(true);
    run_watched(&corpus, &mut Bigram::new(&config), &spec(folder.path()), &flag).0.unwrap();
    let best = Checkpoint::read(&folder.path().join(BEST)).unwrap();
    let last = Checkpoint::read(&folder.path().join(CHECKPOINT)).unwrap();
    assert_eq!((best.header.step, best.parameters), (14, last.parameters));
    assert_eq!(files_of(folder.path()), [".lock", BEST, CHECKPOINT, CURVE]);
}

#[test]
fn an_evaluation_can_be_interrupted() {
    // No multiple of the window: a short one comes at the end, after which it can be broken off.
    let config = Config { steps: 20, validation_characters: 350, ..config() };
    let corpus = corpus(0);
    let straight = tempfile::tempdir().unwrap();
    let outcome =
        run(&corpus, &mut Bigram::new(&config), &RunSpec::new(config.clone(), 5, straight.path())).unwrap();
    let expected = trace(&outcome, straight.path());

    let folder = tempfile::tempdir().unwrap();
    let spec = RunSpec { resume: true, ..RunSpec::new(config.clone(), 5, folder.path()) };
    let flag = Arc::new(AtomicBool::new(false));
    let raised = flag.clone();
    let mut engine = Bigram::new(&config).hooked(move |step, evaluating| {
        raised.store(evaluating && step == 14, Ordering::Relaxed);
        0.0
    });
    let (outcome, events) = run_watched(&corpus, &mut engine, &spec, &flag);
    let outcome = outcome.unwrap();
    assert_eq!(outcome.state, RunState::Interrupted { step: 14 });
    assert_eq!(outcome.curve.len(), 1);
    assert!(matches!(
        events[events.len() - 2],
        Event::Evaluating { step: 14, done: 1..350, characters: 350 }
    ));
    let (outcome, events) = run_watched(&corpus, &mut Bigram::new(&config), &spec, &AtomicBool::new(false));
    assert!(events.contains(&Event::Started {
        step: 14,
        steps: 20,
        parameters: expected.parameters.len(),
        evaluations: 2
    }));
    assert_eq!(trace(&outcome.unwrap(), folder.path()), expected);
}

#[test]
fn training_does_not_depend_on_how_it_is_evaluated() {
    let corpus = corpus(0);
    let last = |config: Config, protocol| {
        let folder = tempfile::tempdir().unwrap();
        let spec = RunSpec { protocol, ..RunSpec::new(config.clone(), 5, folder.path()) };
        run(&corpus, &mut Bigram::new(&config), &spec).unwrap();
        bits(&Checkpoint::read(&folder.path().join(CHECKPOINT)).unwrap().parameters)
    };
    let expected = last(config(), Protocol::Standard);
    assert_eq!(last(Config { eval_every: 60, ..config() }, Protocol::Standard), expected);
    assert_eq!(last(Config { validation_characters: 3, ..config() }, Protocol::Standard), expected);
    assert_eq!(last(config(), Protocol::AsSeed), expected);
    assert_ne!(last(Config { batch_size: 5, ..config() }, Protocol::Standard), expected);
}

#[test]
fn patience_ends_a_run_and_its_best_weights_stay() {
    // So large a rate that it overshoots after a while.
    let config = Config {
        steps: 2000,
        eval_every: 10,
        patience: 3,
        min_improvement: 0.02,
        learning_rate: 0.3,
        ..config()
    };
    let corpus = corpus(0);
    let folder = tempfile::tempdir().unwrap();
    let spec = RunSpec { resume: true, ..RunSpec::new(config.clone(), 5, folder.path()) };
    let outcome = run(&corpus, &mut Bigram::new(&config), &spec).unwrap();
    assert_eq!(outcome.state, RunState::StoppedEarly);
    assert!(outcome.steps < 300);
    let expected = trace(&outcome, folder.path());
    let losses: Vec<f64> = outcome.curve.iter().map(|p| p.validation_loss).collect();
    let reference = losses[losses.len() - 4];
    assert!(losses[losses.len() - 3..].iter().all(|loss| loss + 0.02 >= reference), "{losses:?}");
    // Its best weights are those of the best evaluation.
    let best = Checkpoint::read(&folder.path().join(BEST)).unwrap();
    let lowest = losses.iter().copied().fold(f64::INFINITY, f64::min);
    assert_eq!(outcome.best.unwrap().validation_loss, lowest);
    assert_eq!(best.header.progress.curve.last().unwrap().validation_loss, lowest);

    // Resumed as it is, it stays ended.
    let again = run(&corpus, &mut Bigram::new(&config), &spec).unwrap();
    assert_eq!(trace(&again, folder.path()), expected);

    // With more patience it goes on, as a run that had it from the start.
    let patient = Config { patience: 0, ..config.clone() };
    let resumed =
        run(&corpus, &mut Bigram::new(&patient), &RunSpec { config: patient.clone(), ..spec.clone() })
            .unwrap();
    assert_eq!(resumed.state, RunState::Complete);
    let other = tempfile::tempdir().unwrap();
    let from_start =
        run(&corpus, &mut Bigram::new(&patient), &RunSpec::new(patient.clone(), 5, other.path())).unwrap();
    assert_eq!(trace(&resumed, folder.path()), trace(&from_start, other.path()));

    // The early read-out is taken first, however flat the curve.
    let early = outcome.steps + 25;
    let folder = tempfile::tempdir().unwrap();
    let spec = RunSpec { early_step: Some(early), ..RunSpec::new(config.clone(), 5, folder.path()) };
    let waited = run(&corpus, &mut Bigram::new(&config), &spec).unwrap();
    assert_eq!((waited.state, waited.steps), (RunState::StoppedEarly, early));
    assert_eq!(waited.early.unwrap().step, early);
}

#[test]
fn a_loss_that_is_no_number_ends_the_run() {
    let config = config();
    let corpus = corpus(0);
    for (name, bad_step, bad_evaluation) in
        [("training", 17, false), ("validation", 21, true), ("first", 1, false)]
    {
        let folder = tempfile::tempdir().unwrap();
        let spec = RunSpec { resume: true, ..RunSpec::new(config.clone(), 5, folder.path()) };
        let calls = counter();
        let counted = calls.clone();
        let mut engine = Bigram::new(&config).hooked(move |step, evaluating| {
            counted.fetch_add(1, Ordering::Relaxed);
            if step == bad_step && evaluating == bad_evaluation { f64::INFINITY } else { 0.0 }
        });
        let outcome = run(&corpus, &mut engine, &spec).unwrap();
        let RunState::Diverged { step, last_finite_loss } = outcome.state else {
            panic!("{name}: {:?}", outcome.state)
        };
        assert_eq!(step, bad_step, "{name}");
        assert_eq!(last_finite_loss.is_some(), bad_step > 1, "{name}");
        assert!(last_finite_loss.is_none_or(|loss| loss.is_finite() && loss > 0.5), "{name}");
        assert_eq!(outcome.curve.len() as u64, (bad_step - 1) / 7, "{name}");
        // It stays diverged, without another step.
        let before = calls.load(Ordering::Relaxed);
        let again = run(&corpus, &mut engine, &spec).unwrap();
        assert_eq!(again, outcome, "{name}");
        assert_eq!(calls.load(Ordering::Relaxed), before, "{name}");
    }
}

#[test]
fn the_notebooks_protocol() {
    let config = Config { steps: 5500, eval_every: 0, learning_rate: 2e-4, ..config() };
    let corpus = corpus(0);
    let folder = tempfile::tempdir().unwrap();
    let spec = RunSpec {
        protocol: Protocol::AsSeed,
        resume: true,
        ..RunSpec::new(config.clone(), 5, folder.path())
    };
    let outcome = run(&corpus, &mut Bigram::new(&config), &spec).unwrap();
    let steps: Vec<u64> = outcome.curve.iter().map(|p| p.step).collect();
    assert_eq!(steps, [1, 1001, 2001, 3001, 4001, 5001, 5500]);
    assert_eq!(outcome.seed_rule, Some(SeedRule::Stopped { step: 4001 }));
    assert_eq!(outcome.early.map(|r| r.validation_loss), Some(outcome.curve[4].validation_loss));
    assert_eq!(outcome.early.unwrap().step, 4001);
    assert_eq!(outcome.last.unwrap().step, 5500);
    // A longer run would count the last evaluation of this one.
    let longer = Config { steps: 6000, ..config.clone() };
    let error =
        run(&corpus, &mut Bigram::new(&longer), &RunSpec { config: longer.clone(), ..spec }).unwrap_err();
    assert!(matches!(error, TrainingError::SettingsChanged { .. }), "{error}");

    // Fresh windows at every evaluation, of this seed's: 1,024 of them.
    let config = Config { steps: 3, eval_every: 1, learning_rate: 1e-20, ..config };
    let losses = |seed, protocol| {
        let folder = tempfile::tempdir().unwrap();
        let spec = RunSpec { protocol, ..RunSpec::new(config.clone(), seed, folder.path()) };
        let (outcome, events) =
            run_watched(&corpus, &mut Bigram::new(&config), &spec, &AtomicBool::new(false));
        let expected = if protocol == Protocol::AsSeed { 1024 * 6 } else { 300 };
        assert!(
            events
                .iter()
                .any(|e| matches!(e, Event::Evaluating { characters, .. } if *characters == expected))
        );
        let has_spans = events.iter().any(|e| matches!(e, Event::Spans(_)));
        assert_eq!(has_spans, protocol == Protocol::Standard);
        outcome.unwrap().curve.iter().map(|p| p.validation_loss).collect::<Vec<_>>()
    };
    // The weights stand still, so differences are the windows'.
    let fresh = losses(5, Protocol::AsSeed);
    assert!(fresh[0] != fresh[1] && fresh[1] != fresh[2], "{fresh:?}");
    let fixed = losses(5, Protocol::Standard);
    assert!(fixed[0] == fixed[1] && fixed[1] == fixed[2], "{fixed:?}");
}

#[test]
fn the_seed_changes_weights_and_training_windows_only() {
    let corpus = corpus(0);
    let config = Config { steps: 7, ..config() };
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let outcomes: Vec<RunOutcome> = (0..2)
        .map(|seed| {
            let spec = RunSpec::new(config.clone(), seed, folders[seed as usize].path());
            run(&corpus, &mut Bigram::new(&config), &spec).unwrap()
        })
        .collect();
    assert_ne!(outcomes[0].curve[0].validation_loss, outcomes[1].curve[0].validation_loss);
    // Seed 0's weights as the start of both: what is left of the difference is the windows.
    let weights = folders[0].path().join(BEST);
    let standing = Config { learning_rate: 1e-30, ..config };
    let from_weights: Vec<f64> = (0..2)
        .map(|seed| {
            let folder = tempfile::tempdir().unwrap();
            let spec = RunSpec {
                init: Some(weights.clone()),
                ..RunSpec::new(standing.clone(), seed, folder.path())
            };
            let outcome = run(&corpus, &mut Bigram::new(&standing), &spec).unwrap();
            outcome.curve[0].validation_loss
        })
        .collect();
    assert_eq!(from_weights[0], from_weights[1]);
    assert_eq!(from_weights[0], outcomes[0].curve[0].validation_loss);
}

/// A run to be resumed wrongly.
fn half_a_run(folder: &Path) -> RunSpec {
    let config = config();
    let flag = Arc::new(AtomicBool::new(false));
    let spec = RunSpec { resume: true, ..RunSpec::new(config.clone(), 5, folder) };
    let mut engine = Bigram::interrupting(&config, 20, &flag);
    run_watched(&corpus(0), &mut engine, &spec, &flag).0.unwrap();
    spec
}

#[test]
fn another_run_is_not_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let spec = half_a_run(folder.path());
    let before = fs::read(folder.path().join(CHECKPOINT)).unwrap();
    let refused = |spec: RunSpec, text: &str| {
        let error = run(&corpus(0), &mut Bigram::new(&spec.config), &spec).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(text), "{message}");
        assert!(!message.contains('\n'));
        assert!(error.hint().is_some(), "{message}");
    };
    let with = |change: &dyn Fn(&mut RunSpec)| {
        let mut spec = spec.clone();
        change(&mut spec);
        spec
    };
    refused(
        with(&|s| {
            s.config.learning_rate = 0.5;
            s.config.batch_size = 5;
        }),
        "batch_size was 4, now 5; learning_rate was 0.03, now 0.5",
    );
    refused(with(&|s| s.config.n_heads = 4), "n_heads was 2, now 4");
    refused(with(&|s| s.config.steps = 50), "steps was 60, now 50");
    refused(with(&|s| s.config.patience = 4), "patience was 5, now 4");
    refused(with(&|s| s.seed = 6), "seed was 5, now 6");
    refused(with(&|s| s.protocol = Protocol::AsSeed), "protocol was standard, now as-seed");
    refused(with(&|s| s.init = Some(s.folder.join(BEST))), "it started from random weights");
    refused(with(&|s| s.resume = false), "already holds a run");

    let other = corpus(1);
    let error = run(&other, &mut Bigram::new(&spec.config), &spec).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, TrainingError::CorpusChanged { .. }), "{message}");
    assert!(message.contains(&corpus(0).digest) && message.contains(&other.digest), "{message}");

    assert_eq!(fs::read(folder.path().join(CHECKPOINT)).unwrap(), before, "a refusal changes nothing");
}

#[test]
fn a_text_may_move() {
    let folder = tempfile::tempdir().unwrap();
    let spec = half_a_run(folder.path());
    let mut corpus = corpus(0);
    let request = CorpusRequest::new("elsewhere/text.txt");
    corpus.request = Some(request.clone());
    run_watched(&corpus, &mut Bigram::new(&spec.config), &spec, &AtomicBool::new(true)).0.unwrap();
    let header = Checkpoint::read_header(&folder.path().join(CHECKPOINT)).unwrap();
    assert_eq!((header.step, header.corpus_request), (20, Some(request)));
}

#[test]
fn another_engine_goes_on_only_if_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let spec = half_a_run(folder.path());
    let mut engine = Bigram::with_isa(&spec.config, "other");
    let error = run(&corpus(0), &mut engine, &spec).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("diapason-1/test/f32") && message.contains("diapason-1/other/f32"), "{message}");
    assert!(error.hint().unwrap().contains("--allow-other-engine"));

    let spec = RunSpec { allow_other_engine: true, ..spec };
    let (outcome, events) = run_watched(&corpus(0), &mut engine, &spec, &AtomicBool::new(false));
    assert_eq!(outcome.unwrap().state, RunState::Complete);
    assert!(events.iter().any(|e| matches!(e, Event::Note(note) if note.contains("up to step 20"))));
    let header = Checkpoint::read_header(&folder.path().join(CHECKPOINT)).unwrap();
    assert_eq!(header.engine, "diapason-1/other/f32");
    assert_eq!(header.progress.other_engines, ["diapason-1/test/f32"]);
}

#[test]
fn more_steps_extend_a_finished_run() {
    let corpus = corpus(0);
    let short = Config { patience: 0, ..config() };
    let long = Config { steps: 90, ..short.clone() };
    let folder = tempfile::tempdir().unwrap();
    run(&corpus, &mut Bigram::new(&short), &RunSpec::new(short.clone(), 5, folder.path())).unwrap();
    let spec = RunSpec { resume: true, early_step: Some(11), ..RunSpec::new(long.clone(), 5, folder.path()) };
    let (extended, events) = run_watched(&corpus, &mut Bigram::new(&long), &spec, &AtomicBool::new(false));
    let extended = extended.unwrap();
    assert_eq!((extended.state, extended.steps), (RunState::Complete, 90));
    // An early read-out that was asked for too late is not made up.
    assert_eq!(extended.early, None);
    assert!(
        events.iter().any(|e| matches!(e, Event::Note(note) if note.contains("early read-out at step 11")))
    );

    let other = tempfile::tempdir().unwrap();
    let spec = RunSpec::new(long.clone(), 5, other.path());
    let straight = run(&corpus, &mut Bigram::new(&long), &spec).unwrap();
    // The shorter run's last evaluation, at step 60, is not one of the longer run's, and is left out.
    assert_eq!(trace(&extended, folder.path()), trace(&straight, other.path()));
}

#[test]
fn a_twentieth_of_the_steps_is_of_those_that_the_run_began_with() {
    let corpus = corpus(0);
    let with = |steps, eval_every| Config { steps, eval_every, patience: 3, ..config() };
    let go = |config: Config, folder: &Path| {
        let spec = RunSpec { resume: true, ..RunSpec::new(config.clone(), 5, folder) };
        run(&corpus, &mut Bigram::new(&config), &spec).unwrap()
    };
    // 50 / 20 is 2, 130 / 20 would be 6; then 51 is off the grid.
    for short in [50, 51] {
        let [folder, other] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        assert_eq!(go(with(short, 0), folder.path()).state, RunState::Complete);
        let header = Checkpoint::read_header(&folder.path().join(CHECKPOINT)).unwrap();
        assert_eq!(header.config.eval_every, 2, "written out");
        let extended = go(with(130, 0), folder.path());
        let straight = go(with(130, 2), other.path());
        assert_eq!(trace(&extended, folder.path()), trace(&straight, other.path()), "{short}");
        // And again, with what is now written out.
        let [extended, straight] = [go(with(140, 0), folder.path()), go(with(140, 2), other.path())];
        assert_eq!(trace(&extended, folder.path()), trace(&straight, other.path()), "{short}");
    }
}

#[test]
fn the_end_of_a_shorter_run_stays_while_it_is_the_best() {
    let corpus = corpus(0);
    let (short, long) = (config(), Config { steps: 90, ..config() });
    let folder = tempfile::tempdir().unwrap();
    let spec = |config: &Config| RunSpec { resume: true, ..RunSpec::new(config.clone(), 5, folder.path()) };
    // Its last evaluation, at step 60, is better than all that come.
    let lucky = |step, evaluating| if evaluating && step == 60 { -1.0 } else { 0.0 };
    let steps = |outcome: &RunOutcome| outcome.curve.iter().map(|p| p.step).collect::<Vec<_>>();
    run(&corpus, &mut Bigram::new(&short).hooked(lucky), &spec(&short)).unwrap();
    let outcome = run(&corpus, &mut Bigram::new(&long), &spec(&long)).unwrap();
    // Its weights are the best ones, but it has no say in patience.
    assert_eq!(outcome.best.map(|b| b.step), Some(60));
    assert_eq!(Checkpoint::read_header(&folder.path().join(BEST)).unwrap().step, 60);
    assert_eq!(outcome.state, RunState::Complete);
    assert_eq!(steps(&outcome), [7, 14, 21, 28, 35, 42, 49, 56, 60, 63, 70, 77, 84, 90]);
}

#[test]
fn weights_can_be_given() {
    let corpus = corpus(0);
    let folder = tempfile::tempdir().unwrap();
    let spec = half_a_run(folder.path());
    let weights = folder.path().join(CHECKPOINT);

    let next = tempfile::tempdir().unwrap();
    let tuned = Config { learning_rate: 1e-3, steps: 1, ..spec.config.clone() };
    let init = RunSpec { init: Some(weights.clone()), ..RunSpec::new(tuned.clone(), 0, next.path()) };
    let outcome = run(&corpus, &mut Bigram::new(&tuned), &init).unwrap();
    let before = Checkpoint::read(&weights).unwrap().header.progress.curve.last().unwrap().validation_loss;
    assert!((outcome.last.unwrap().validation_loss - before).abs() < 0.3, "{:?} {before}", outcome.last);
    let header = Checkpoint::read_header(&next.path().join(CHECKPOINT)).unwrap();
    assert!(header.progress.init.unwrap().starts_with("sha256:"));
    // Resuming it needs the file no more, and does not read it.
    let again = RunSpec { init: None, resume: true, ..init.clone() };
    assert_eq!(run(&corpus, &mut Bigram::new(&tuned), &again).unwrap().curve, outcome.curve);

    // Given all the same, it must be what the run started from.
    let same = RunSpec { init: Some(weights.clone()), ..again.clone() };
    assert_eq!(run(&corpus, &mut Bigram::new(&tuned), &same).unwrap().curve, outcome.curve);
    let other_weights = RunSpec { init: Some(next.path().join(BEST)), ..again };
    let error = run(&corpus, &mut Bigram::new(&tuned), &other_weights).unwrap_err();
    assert!(matches!(error, TrainingError::SettingsChanged { .. }), "{error}");
    assert!(error.to_string().contains("it started from other weights than those in "), "{error}");

    let other = Config { n_heads: 4, ..spec.config };
    let empty = tempfile::tempdir().unwrap();
    let spec = RunSpec { init: Some(weights), ..RunSpec::new(other.clone(), 0, empty.path().join("run")) };
    let error = run(&corpus, &mut Bigram::new(&other), &spec).unwrap_err();
    assert!(error.to_string().ends_with("another architecture: n_heads is 2, not 4"), "{error}");
    assert!(!spec.folder.exists(), "nothing half-written");
}

#[test]
fn a_folder_in_use_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let config = config();
    let lock = FolderLock::acquire(folder.path()).unwrap();
    let spec = RunSpec::new(config.clone(), 0, folder.path());
    let error = run(&corpus(0), &mut Bigram::new(&config), &spec).unwrap_err();
    assert!(matches!(error, TrainingError::Lock(LockError::Held { .. })), "{error}");
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    drop(lock);
    run(&corpus(0), &mut Bigram::new(&config), &spec).unwrap();
}

/// All files but the lock.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = files_of(folder).into_iter().filter(|name| name != ".lock");
    files.map(|name| (name.clone(), fs::read(folder.join(name)).unwrap())).collect()
}

/// A run whose process was stopped, while another was given the run and brought it to its end.
#[test]
fn a_run_behind_a_fence_leaves_what_is_later_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (corpus, config) = (corpus(0), config());
    let spec = RunSpec { resume: true, ..RunSpec::new(config.clone(), 5, folder.path()) };
    let flag = AtomicBool::new(false);
    // It does not learn at once that it has a successor.
    let fence = |occasion| occasion != Occasion::Last;
    let control = Control { stop: &[&flag], fence: Some(&fence), ..Control::default() };
    let mut files = Vec::new();
    let mut evaluations = 0;
    let slow = diapason_training::run(&corpus, &mut Bigram::new(&config), &spec, &control, &mut |event| {
        if matches!(event, Event::Evaluated(_)) {
            evaluations += 1;
            if evaluations == 1 {
                let alone = Control { fence: Some(&|_| true), ..Control::default() };
                let mut engine = Bigram::new(&config);
                let quick = diapason_training::run(&corpus, &mut engine, &spec, &alone, &mut |_| {}).unwrap();
                assert_eq!(quick.state, RunState::Complete);
                files = contents(folder.path());
            }
            flag.store(evaluations == 3, Ordering::Relaxed);
        }
    });
    assert!(matches!(slow.unwrap().state, RunState::Interrupted { .. }));
    assert!(files.len() == 3 && contents(folder.path()) == files, "files of the successor have changed");
}

#[test]
fn a_run_behind_a_fence_has_the_folder_only_while_it_writes() {
    let folder = tempfile::tempdir().unwrap();
    let (corpus, config) = (corpus(0), config());
    let spec = RunSpec { resume: true, ..RunSpec::new(config.clone(), 5, folder.path()) };
    let lock = FolderLock::acquire(folder.path()).unwrap();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            let free = &mut |event: &Event| {
                if matches!(event, Event::Evaluated(_)) {
                    drop(FolderLock::acquire(folder.path()).unwrap());
                }
            };
            let control = Control { fence: Some(&|_| true), ..Control::default() };
            diapason_training::run(&corpus, &mut Bigram::new(&config), &spec, &control, free).unwrap()
        });
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert_eq!(files_of(folder.path()), [".lock"], "somebody else is writing");
        drop(lock);
        assert_eq!(run.join().unwrap().state, RunState::Complete);
    });
}

/// Two studies with one folder, which began at the same moment.
#[test]
fn a_run_behind_a_fence_overwrites_no_other_run() {
    let folder = tempfile::tempdir().unwrap();
    let (corpus, config) = (corpus(0), config());
    let spec = RunSpec::new(config.clone(), 5, folder.path());
    let control = Control { fence: Some(&|_| true), ..Control::default() };
    let mut done = false;
    let mine = diapason_training::run(&corpus, &mut Bigram::new(&config), &spec, &control, &mut |event| {
        if matches!(event, Event::Evaluated(_)) && !std::mem::replace(&mut done, true) {
            let other = tempfile::tempdir().unwrap();
            run(&corpus, &mut Bigram::new(&config), &RunSpec::new(config.clone(), 6, other.path())).unwrap();
            fs::copy(other.path().join(CHECKPOINT), folder.path().join(CHECKPOINT)).unwrap();
        }
    });
    let error = mine.unwrap_err();
    assert!(error.to_string().contains("was begun with other settings: seed was 6, now 5"), "{error}");
}

#[test]
fn what_cannot_be_trained_is_refused_before_anything_is_written() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("run");
    let corpus = corpus(0);
    let refused = |change: &dyn Fn(&mut RunSpec)| {
        let mut spec = RunSpec::new(config(), 0, &folder);
        let mut engine = Bigram::new(&spec.config);
        change(&mut spec);
        let error = run(&corpus, &mut engine, &spec).unwrap_err();
        assert!(!folder.exists());
        error
    };
    let error = refused(&|s| s.config.batch_size = 0);
    assert!(
        matches!(error, TrainingError::Config(ConfigError::OutOfRange { key: "batch_size", .. })),
        "{error}"
    );
    let error = refused(&|s| s.config.sequence_length = 9);
    assert!(matches!(error, TrainingError::Config(ConfigError::WindowTooLong { .. })), "{error}");
    let error = refused(&|s| s.config.n_layers = 2);
    assert!(matches!(error, TrainingError::OtherModel), "{error}");
    for early in [0, 61] {
        let error = refused(&|s| s.early_step = Some(early));
        assert!(matches!(error, TrainingError::EarlyStep { .. }), "{error}");
    }
    let short =
        Corpus::from_parts("short", Alphabet::text8(), vec![0; 40], &SplitRequest::default()).unwrap();
    let spec = RunSpec::new(config(), 0, &folder);
    let error = run(&short, &mut Bigram::new(&spec.config), &spec).unwrap_err();
    assert!(matches!(error, TrainingError::Corpus(_)), "{error}");
    assert!(!folder.exists());
}

#[test]
fn a_damaged_checkpoint_is_not_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let spec = half_a_run(folder.path());
    let path = folder.path().join(CHECKPOINT);
    let good = fs::read(&path).unwrap();
    fs::write(&path, &good[..good.len() - 1]).unwrap();
    let error = run(&corpus(0), &mut Bigram::new(&spec.config), &spec).unwrap_err();
    assert!(matches!(error, TrainingError::Checkpoint(CheckpointError::Truncated { .. })), "{error}");
    // Weights without an optimizer are no run to go on with.
    fs::copy(folder.path().join(BEST), &path).unwrap();
    let error = run(&corpus(0), &mut Bigram::new(&spec.config), &spec).unwrap_err();
    assert!(error.to_string().contains("--init"), "{error}");
    fs::write(&path, good).unwrap();
    run(&corpus(0), &mut Bigram::new(&spec.config), &spec).unwrap();
}

#[cfg(unix)]
mod full_disk {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    /// What the other test runs in a process of its own, whose files may not grow beyond a limit.
    #[test]
    #[ignore = "run by a_full_disk_leaves_the_old_checkpoint"]
    fn in_a_process_that_cannot_write_much() {
        let Some(folder) = std::env::var_os("DIAPASON_TEST_FOLDER") else { return };
        let spec = RunSpec { resume: true, ..RunSpec::new(config(), 5, Path::new(&folder)) };
        let error = run(&corpus(0), &mut Bigram::new(&spec.config), &spec).unwrap_err();
        assert!(matches!(error, TrainingError::Checkpoint(CheckpointError::Write { .. })), "{error}");
        assert!(error.to_string().contains(CHECKPOINT), "{error}");
    }

    /// A disk that fills up, as a limit on the size of files, which fails in the same way: a write returns an
    /// error after some bytes.
    #[test]
    fn a_full_disk_leaves_the_old_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        half_a_run(folder.path());
        let before = fs::read(folder.path().join(CHECKPOINT)).unwrap();
        assert!(before.len() > 16 * 1024, "the limit must cut it short");
        let script = "trap '' XFSZ; ulimit -f 16; exec \"$0\" --ignored --exact full_disk::in_a_process_that_cannot_write_much";
        let output = Command::new("sh")
            .args(["-c", script])
            .arg(std::env::current_exe().unwrap())
            .env("DIAPASON_TEST_FOLDER", folder.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text} {:?}", output.status.signal());
        assert_eq!(fs::read(folder.path().join(CHECKPOINT)).unwrap(), before);
        assert_eq!(files_of(folder.path()), [".lock", BEST, CHECKPOINT, CURVE]);
        // With room again, the run goes on.
        let spec = RunSpec { resume: true, ..RunSpec::new(config(), 5, folder.path()) };
        let outcome = run(&corpus(0), &mut Bigram::new(&spec.config), &spec).unwrap();
        assert_eq!(outcome.state, RunState::Complete);
    }
}
