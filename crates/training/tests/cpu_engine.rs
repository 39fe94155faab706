//! A small model on the real engine: it learns, and neither threads nor interruptions change a bit.

mod common;

use common::Told;
use diapason_engine::{Batch, CpuEngine, Engine, Optimizer, Shape, Update};
use diapason_model::initialise;
use diapason_training::updates::{Averaging, RateSchedule};
use diapason_training::{
    BEST, CHECKPOINT, Checkpoint, Config, Control, CurvePoint, RunSpec, RunState, evaluate_split, run,
};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The seed's recipe, and one in which everything happens that keeps or changes something over the steps.
fn configs() -> [Config; 3] {
    let seed = Config {
        d_model: 32,
        n_heads: 4,
        n_layers: 2,
        max_len: 16,
        batch_size: 16,
        sequence_length: 12,
        steps: 80,
        learning_rate: 1e-2,
        eval_every: 25,
        validation_characters: 1600,
        patience: 0,
        ..Config::default()
    };
    let all = Config {
        optimizer: Optimizer::Muon,
        adam_learning_rate: 1e-2,
        gradient_clip: 0.3,
        schedule: RateSchedule::Linear,
        warmup_steps: 5,
        batch_ramp: 0.5,
        weight_averaging: Averaging::Ema,
        averaging_decay: 0.9,
        train_fraction: 0.7,
        ..seed.clone()
    };
    // Lion has one moment, but rows of n-grams have two.
    let lion = Config {
        optimizer: Optimizer::Lion,
        learning_rate: 3e-3,
        ngram_table: 4,
        ngram_rows: 500,
        ngram_learning_rate: 5e-3,
        ..seed.clone()
    };
    [seed, all, lion]
}

fn engine(config: &Config, threads: usize) -> CpuEngine {
    let model = config.model(27).unwrap();
    let shape = Shape { batch_size: config.batch_size, sequence_length: config.sequence_length };
    // Other weights than the run's, which must not matter.
    CpuEngine::new(model, &initialise(&model, 99), threads, shape).unwrap()
}

fn traces(folder: &Path, curve: &[CurvePoint]) -> (Vec<CurvePoint>, Vec<Vec<u32>>) {
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let last = Checkpoint::read(&folder.join(CHECKPOINT)).unwrap();
    let best = Checkpoint::read(&folder.join(BEST)).unwrap();
    let moments = last.moments.unwrap();
    let average = last.average.unwrap_or_default();
    let all = [&last.parameters, &moments.first, &moments.second, &average, &best.parameters];
    (
        curve.iter().map(|p| CurvePoint { train_seconds: 0.0, ..*p }).collect(),
        all.iter().map(|values| bits(values)).collect(),
    )
}

#[test]
fn threads_and_interruptions_change_nothing() {
    configs().iter().for_each(nothing_changes);
}

/// What is drawn in each step is drawn again.
#[test]
fn nor_with_dropout_and_the_parts_of_fast() {
    let fast = Config::recipe("fast").unwrap();
    let [seed, ..] = configs();
    let Config { d_model, n_heads, n_layers, max_len, batch_size, sequence_length, steps, .. } = seed;
    nothing_changes(&Config {
        d_model,
        n_heads,
        n_layers,
        max_len,
        batch_size,
        sequence_length,
        steps,
        dropout: 0.1,
        learning_rate: 1e-2,
        warmup_steps: 5,
        eval_every: 25,
        validation_characters: 1600,
        patience: 0,
        ..fast
    });
}

fn nothing_changes(config: &Config) {
    let corpus = common::corpus(0);
    let straight = tempfile::tempdir().unwrap();
    let spec = RunSpec { resume: true, ..RunSpec::new(config.clone(), 1, straight.path()) };
    let never = Control::default();
    let mut one = engine(config, 1);
    let outcome = run(&corpus, &mut one, &spec, &never, &mut |_| {}).unwrap();
    assert_eq!(outcome.state, RunState::Complete);
    let losses: Vec<f64> = outcome.curve.iter().map(|p| p.validation_loss).collect();
    // ln 27 = 3.3 at the start, ln 3 = 1.1 at best.
    assert!(losses[3] < losses[0] && losses[3] < 1.5, "{losses:?}");
    let expected = traces(straight.path(), &outcome.curve);

    let folder = tempfile::tempdir().unwrap();
    let spec = RunSpec { folder: folder.path().to_path_buf(), ..spec };
    for (threads, stop) in [(2, 13), (3, 50), (1, 51)] {
        let flag = AtomicBool::new(false);
        let tell =
            |_: &Batch<'_>, update: &Update, _: usize| flag.store(update.number == stop, Ordering::Relaxed);
        let mut stopping = Told { engine: engine(config, threads), tell };
        let control = Control { stop: &[&AtomicBool::new(false), &flag], ..Control::default() };
        let outcome = run(&corpus, &mut stopping, &spec, &control, &mut |_| {}).unwrap();
        assert_eq!(outcome.state, RunState::Interrupted { step: stop });
    }
    let outcome = run(&corpus, &mut engine(config, 4), &spec, &never, &mut |_| {}).unwrap();
    assert!(traces(folder.path(), &outcome.curve) == expected, "{:?}", outcome.curve);

    // Threads that come and go while it runs: what is asked for during a step holds from the next one on.
    let folder = tempfile::tempdir().unwrap();
    let spec = RunSpec { folder: folder.path().to_path_buf(), ..spec };
    let (share, mut seen) = (AtomicUsize::new(3), Vec::new());
    let tell = |_: &Batch<'_>, update: &Update, threads: usize| {
        seen.push(threads);
        share.store(1 + update.number as usize % 3, Ordering::Relaxed);
    };
    let control = Control { threads: Some(&share), ..Control::default() };
    let mut changing = Told { engine: engine(config, 1), tell };
    let outcome = run(&corpus, &mut changing, &spec, &control, &mut |_| {}).unwrap();
    assert_eq!(seen[..4], [3, 2, 3, 1]);
    assert!(traces(folder.path(), &outcome.curve) == expected, "{:?}", outcome.curve);

    // The weights that come back from the file predict as those in memory do.
    let best = Checkpoint::read(&straight.path().join(CHECKPOINT)).unwrap();
    let mut loaded = engine(config, 2);
    let weights = best.average.as_ref().unwrap_or(&best.parameters);
    loaded.with_state(&mut |state| state.parameters.copy_from_slice(weights));
    one.swap_average();
    for stride in [None, Some(5)] {
        let mut all = |_: u64, _: u64| ControlFlow::Continue(());
        let text = corpus.test();
        let a = evaluate_split(&mut one, text, 12, stride, &mut all).unwrap();
        let b = evaluate_split(&mut loaded, text, 12, stride, &mut all).unwrap();
        assert_eq!(a, b);
        assert!((a.loss - losses[3]).abs() < 0.1, "{a:?}");
    }
}
