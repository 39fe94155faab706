//! What a run does with schedules, averages, budgets and a part of the text; and that runs of an earlier version go on.

mod common;

use common::{Bigram, Told, config, corpus, run};
use diapason_corpus::{Alphabet, Corpus, CorpusRequest, SplitRequest};
use diapason_engine::{Batch, CpuEngine, Engine, Shape, Update};
use diapason_training::updates::{Averaging, RateSchedule};
use diapason_training::{
    BEST, CHECKPOINT, Checkpoint, Config, Control, RunSpec, RunState, Spans, TrainingError, evaluate_spans,
};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn each_step_has_its_rate_and_its_batch() {
    let config = Config {
        schedule: RateSchedule::Linear,
        warmup_steps: 10,
        batch_ramp: 0.5,
        steps: 60,
        batch_size: 4,
        ..config()
    };
    let folder = tempfile::tempdir().unwrap();
    let mut told = Vec::new();
    let mut engine = Told {
        engine: Bigram::new(&config),
        tell: |batch: &Batch<'_>, update: &Update, _: usize| {
            told.push((batch.windows(), update.learning_rate))
        },
    };
    let spec = RunSpec::new(config.clone(), 0, folder.path());
    let outcome =
        diapason_training::run(&corpus(0), &mut engine, &spec, &Control::default(), &mut |_| {}).unwrap();
    assert_eq!(told.len(), 60);
    assert_eq!([told[0].0, told[14].0, told[15].0, told[29].0, told[30].0, told[59].0], [1, 1, 2, 2, 4, 4]);
    let rate = |number: usize| (0.03 * (number as f64 / 10.0).min(1.0) * (61 - number) as f64 / 60.0) as f32;
    assert!((1..=60).all(|number| (told[number - 1].1 - rate(number)).abs() < 1e-8), "{told:?}");
    let characters = (15 + 2 * 15 + 4 * 30) * config.sequence_length as u64;
    assert_eq!(
        Checkpoint::read_header(&folder.path().join(CHECKPOINT)).unwrap().progress.characters,
        characters
    );
    assert!((outcome.tokens_per_second * outcome.train_seconds / characters as f64 - 1.0).abs() < 1e-9);
}

#[test]
fn what_counts_on_the_steps_keeps_them() {
    let longer = |config: &Config| {
        let folder = tempfile::tempdir().unwrap();
        run(&corpus(0), &mut Bigram::new(config), &RunSpec::new(config.clone(), 0, folder.path())).unwrap();
        let config = Config { steps: config.steps + 20, ..config.clone() };
        let spec = RunSpec { resume: true, ..RunSpec::new(config.clone(), 0, folder.path()) };
        run(&corpus(0), &mut Bigram::new(&config), &spec)
    };
    let ema = Config { weight_averaging: Averaging::Ema, warmup_steps: 10, ..config() };
    assert_eq!(longer(&ema).unwrap().steps, 80);
    for config in [
        Config { schedule: RateSchedule::Wsd, ..config() },
        Config { weight_averaging: Averaging::Tail, ..config() },
        Config { batch_ramp: 0.5, ..config() },
    ] {
        let error = longer(&config).unwrap_err();
        assert!(matches!(&error, TrainingError::SettingsChanged { .. }), "{error}");
        assert!(error.to_string().contains("steps was 60, now 80") && error.hint().is_some(), "{error}");
    }
}

#[test]
fn an_average_that_was_not_kept_is_another_setting() {
    let folder = tempfile::tempdir().unwrap();
    run(&corpus(0), &mut Bigram::new(&config()), &RunSpec::new(config(), 0, folder.path())).unwrap();
    let config = Config { weight_averaging: Averaging::Ema, ..config() };
    let spec = RunSpec { resume: true, ..RunSpec::new(config.clone(), 0, folder.path()) };
    let error = run(&corpus(0), &mut Bigram::new(&config), &spec).unwrap_err();
    assert!(matches!(&error, TrainingError::SettingsChanged { .. }), "{error}");
    assert!(error.to_string().contains("weight_averaging was \"none\", now \"ema\""), "{error}");
}

#[test]
fn the_average_is_what_counts() {
    for (averaging, share) in [(Averaging::Ema, 1.0), (Averaging::Tail, 0.5)] {
        let config =
            Config { weight_averaging: averaging, averaging_share: share, averaging_decay: 0.95, ..config() };
        let folder = tempfile::tempdir().unwrap();
        let text = corpus(0);
        let mut engine = Bigram::new(&config);
        let outcome = run(&text, &mut engine, &RunSpec::new(config.clone(), 0, folder.path())).unwrap();
        let last = Checkpoint::read(&folder.path().join(CHECKPOINT)).unwrap();
        let average = last.average.unwrap();
        assert_eq!(last.header.progress.averaged, if averaging == Averaging::Ema { 60 } else { 30 });
        assert!(average != last.parameters && engine.parameters() == last.parameters);
        // The last evaluation, again, on the average from the file.
        engine.with_state(&mut |state| state.parameters.copy_from_slice(&average));
        let spans = Spans::new(text.validation().len(), config.validation_characters).unwrap();
        let mut all = |_: u64, _: u64| ControlFlow::Continue(());
        let (evaluation, _) =
            evaluate_spans(&mut engine, text.validation(), &spans, config.sequence_length, &mut all).unwrap();
        assert_eq!(evaluation.loss, outcome.last.unwrap().validation_loss);
        let best = Checkpoint::read(&folder.path().join(BEST)).unwrap();
        assert_eq!(best.average, None);
        if outcome.best == outcome.last {
            assert_eq!(best.parameters, average);
        }

        // Whoever starts from the file starts from what was evaluated, and is known by it when it goes on.
        let next = tempfile::tempdir().unwrap();
        let init = Some(folder.path().join(CHECKPOINT));
        let spec = RunSpec { init, resume: true, ..RunSpec::new(config.clone(), 1, next.path()) };
        for until in [0, 1] {
            let control = Control { until: Some(until), ..Control::default() };
            diapason_training::run(&text, &mut Bigram::new(&config), &spec, &control, &mut |_| {}).unwrap();
            let begun = Checkpoint::read(&next.path().join(CHECKPOINT)).unwrap();
            assert_eq!((begun.header.step, begun.parameters == average), (until, until == 0));
        }
    }
}

#[test]
fn a_part_of_the_text_is_its_beginning() {
    // The second half of the training text has another symbol.
    let ids: Vec<u8> = (0..1000).map(|i| if i < 400 { 1 } else { 2 }).collect();
    let text = Corpus::from_parts("halves", Alphabet::text8(), ids, &SplitRequest::default()).unwrap();
    let config = |train_fraction| Config { train_fraction, steps: 20, validation_characters: 50, ..config() };
    let seen = |train_fraction| {
        let mut seen = [false; 27];
        let config = config(train_fraction);
        let mut engine = Told {
            engine: Bigram::new(&config),
            tell: |batch: &Batch<'_>, _: &Update, _: usize| {
                batch.inputs.iter().chain(batch.targets).for_each(|&symbol| seen[usize::from(symbol)] = true);
            },
        };
        let folder = tempfile::tempdir().unwrap();
        let spec = RunSpec::new(config, 0, folder.path());
        diapason_training::run(&text, &mut engine, &spec, &Control::default(), &mut |_| {})
            .map(|_| [seen[1], seen[2]])
    };
    assert_eq!(seen(1.0).unwrap(), [true, true]);
    assert_eq!(seen(0.5).unwrap(), [true, false]);
    let error = seen(0.005).unwrap_err();
    assert!(matches!(error, TrainingError::TooLittleText { left: 4, needed: 7, .. }), "{error}");
}

/// Time is not the same twice, so only what must hold at any speed is asked for.
#[test]
fn a_budget_of_time_is_spent_once() {
    let config = Config { schedule: RateSchedule::Linear, patience: 0, eval_every: 0, ..config() };
    let folder = tempfile::tempdir().unwrap();
    let spec =
        RunSpec { resume: true, time_budget: Some(0.4), ..RunSpec::new(config.clone(), 0, folder.path()) };
    let spent = || Checkpoint::read_header(&folder.path().join(CHECKPOINT)).unwrap().progress.time.unwrap();
    let text = corpus(0);
    let mut rates = Vec::new();
    for stop_after in [1, 5, u64::MAX] {
        let before = if stop_after == 1 { 0.0 } else { spent().seconds };
        let flag = AtomicBool::new(false);
        let mut steps = 0;
        let mut engine = Told {
            engine: Bigram::new(&config),
            tell: |_: &Batch<'_>, update: &Update, _: usize| {
                rates.push(update.learning_rate);
                steps += 1;
                std::thread::sleep(std::time::Duration::from_millis(2));
                flag.store(steps >= stop_after, Ordering::Relaxed);
            },
        };
        let control = Control { stop: &[&flag], ..Control::default() };
        let outcome = diapason_training::run(&text, &mut engine, &spec, &control, &mut |_| {}).unwrap();
        let time = spent();
        assert!(time.budget == 0.4 && time.seconds > before, "{time:?} after {before}");
        if stop_after == u64::MAX {
            assert_eq!(outcome.state, RunState::Complete);
            assert_eq!(outcome.last.unwrap().step, outcome.steps, "it ends with an evaluation");
            assert!(time.evaluation.is_some() && time.evaluated <= time.seconds);
        } else {
            assert!(
                matches!(outcome.state, RunState::Interrupted { .. } | RunState::Complete),
                "{outcome:?}"
            );
        }
    }
    // Each step is taken later than the one before, whoever computes it.
    assert!(rates.windows(2).all(|pair| pair[1] <= pair[0]) && rates[0] > 0.02, "{rates:?}");

    // What is complete stays so, and another budget is another run.
    let steps = Checkpoint::read_header(&folder.path().join(CHECKPOINT)).unwrap().step;
    let again = run(&text, &mut Bigram::new(&config), &spec).unwrap();
    assert_eq!((again.state, again.steps), (RunState::Complete, steps));
    for (time_budget, now) in [(Some(0.5), "now 0.5 seconds"), (None, "now none")] {
        let error =
            run(&text, &mut Bigram::new(&config), &RunSpec { time_budget, ..spec.clone() }).unwrap_err();
        assert!(
            error.to_string().contains("budget was 0.4 seconds") && error.to_string().contains(now),
            "{error}"
        );
    }
}

/// A file that the version before wrote, after step 4 of 4; it went on to 3.876308 at step 6 when it was given 6 from the start.
#[test]
fn a_run_that_version_1_began_goes_on() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixture/version1.safetensors");
    let old = Checkpoint::read(&file).unwrap();
    assert!(old.moments.is_some() && old.average.is_none());
    assert_eq!((old.header.step, old.header.progress.characters), (4, 0));
    let config = Config { steps: 6, ..old.header.config.clone() };
    assert_eq!(config.optimizer, Config::default().optimizer);
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(&file, folder.path().join(CHECKPOINT)).unwrap();
    let request = CorpusRequest::new("builtin:english:20000");
    let text = Corpus::open(&request, &mut |_| {}).unwrap();
    let model = config.model(27).unwrap();
    let shape = Shape { batch_size: config.batch_size, sequence_length: config.sequence_length };
    let mut engine = CpuEngine::new(model, &vec![0.0; model.parameters()], 1, shape).unwrap();
    let spec = RunSpec { resume: true, allow_other_engine: true, ..RunSpec::new(config, 3, folder.path()) };
    let outcome =
        diapason_training::run(&text, &mut engine, &spec, &Control::default(), &mut |_| {}).unwrap();
    let loss = outcome.last.unwrap().validation_loss;
    assert!((loss - 3.876_308).abs() < 1e-5, "{loss}");
    let new = Checkpoint::read_header(&folder.path().join(CHECKPOINT)).unwrap();
    assert_eq!(new.progress.characters, 6 * 2 * 8);
}
