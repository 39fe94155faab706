//! A model that is small enough for tests of whole studies: the next symbol from the last one, a table of logits
//! trained by gradient descent with momentum. It uses the first V x V parameters; the rest, which depend on
//! the configuration, add a constant to one logit, so that different configurations have different losses.

// Every test binary includes this file and uses a part of it.
#![allow(dead_code)]

use diapason_corpus::{Alphabet, Corpus, SplitRequest};
use diapason_engine::{
    Batch, Cache, Engine, EngineError, EngineId, Scores, State, StateMut, StepMetrics, Update,
};
use diapason_model::ModelConfig;
use diapason_study::{
    Engines, Grid, Home, MadeEngine, Row, Study, StudyError, StudyEvent, StudySpec, join_study, run_study,
};
use diapason_training::Config;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// A learning rate from which on the toy diverges, at its third update.
pub(crate) const TOO_FAST: f64 = 10.0;

/// Called after each update with its number in its trial, the model, and the engine's threads.
pub(crate) type OnStep = Box<dyn Fn(u64, &ModelConfig, usize) + Send + Sync>;

/// What all engines of a test share.
#[derive(Default)]
pub(crate) struct Hooks {
    /// Updates done by all engines, those that were only timed left out.
    pub(crate) steps: AtomicU64,
    /// Updates that were only timed.
    pub(crate) timed: AtomicU64,
    /// Called after each update that is not only timed.
    pub(crate) on_step: Option<OnStep>,
    /// Refuses to make engines for a model with so many layers; 0: none.
    pub(crate) no_engine: usize,
    /// Threads in all; 0: one.
    pub(crate) threads: usize,
    /// Whether an engine of another arithmetic is what this process has.
    pub(crate) other_engine: bool,
    /// Whether trials of another arithmetic may be gone on with.
    pub(crate) allow_other: bool,
    /// Seconds of a lease; 0: a minute.
    pub(crate) lease: u64,
    /// Whether to leave when nothing is to be had.
    pub(crate) no_wait: bool,
    /// Trials at once that are asked for.
    pub(crate) trials_at_once: Option<usize>,
    /// How many engines of a usual size fit into memory; 0: any number.
    pub(crate) room: u128,
    /// Sets the interrupt when that many updates are done; 0: never.
    pub(crate) interrupt_at: AtomicU64,
    /// Panics when that many updates are done, as a crash; 0: never.
    pub(crate) crash_at: AtomicU64,
    /// The interrupt.
    pub(crate) interrupt: AtomicBool,
}

/// The arithmetic of a toy.
fn id(hooks: &Hooks) -> EngineId {
    let version = if hooks.other_engine { "1" } else { "0" };
    EngineId { version: version.into(), isa: "toy".into(), precision: "f32".into() }
}

struct Toy {
    id: EngineId,
    model: ModelConfig,
    parameters: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
    threads: usize,
    hooks: Arc<Hooks>,
}

impl Toy {
    fn new(model: ModelConfig, threads: usize, hooks: Arc<Hooks>) -> Self {
        let n = model.parameters();
        assert!(n > model.vocabulary * model.vocabulary);
        let id = id(&hooks);
        let zeros = || vec![0.0; n];
        Self { id, model, parameters: zeros(), first: zeros(), second: zeros(), threads, hooks }
    }

    /// Probabilities of the symbol after `last`.
    fn probabilities(&self, last: u8) -> Vec<f64> {
        let v = self.model.vocabulary;
        let row = &self.parameters[usize::from(last) * v..][..v];
        let mut logits: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        logits[0] += 0.01 * self.model.n_heads as f64 + 0.1 / self.model.n_layers as f64;
        let highest = logits.iter().copied().fold(f64::MIN, f64::max);
        let sum: f64 = logits.iter().map(|x| (x - highest).exp()).sum();
        logits.iter().map(|x| (x - highest).exp() / sum).collect()
    }
}

impl Engine for Toy {
    fn id(&self) -> &EngineId {
        &self.id
    }

    fn model(&self) -> &ModelConfig {
        &self.model
    }

    fn threads(&self) -> usize {
        self.threads
    }

    fn set_threads(&mut self, threads: usize) {
        self.threads = threads;
    }

    fn draw_masks(&mut self, _: u64, _: u64) {}
    fn step(&mut self, batch: Batch<'_>, update: &Update) -> StepMetrics {
        let mut gradient = vec![0.0; self.parameters.len()];
        let metrics = self.gradient(batch, &mut gradient);
        if update.learning_rate == 0.0 {
            self.hooks.timed.fetch_add(1, Ordering::Relaxed);
            return metrics;
        }
        for (i, g) in gradient.iter().enumerate() {
            self.first[i] = 0.5 * self.first[i] + g;
            self.parameters[i] -= 0.5 * self.first[i];
        }
        let steps = 1 + self.hooks.steps.fetch_add(1, Ordering::Relaxed);
        if steps == self.hooks.interrupt_at.load(Ordering::Relaxed) {
            self.hooks.interrupt.store(true, Ordering::Relaxed);
        }
        assert!(steps != self.hooks.crash_at.load(Ordering::Relaxed), "a crash");
        if let Some(on_step) = &self.hooks.on_step {
            on_step(update.number, &self.model, self.threads);
        }
        if f64::from(update.learning_rate) >= TOO_FAST && update.number >= 3 {
            return StepMetrics { loss: f64::NAN };
        }
        metrics
    }

    fn gradient(&mut self, batch: Batch<'_>, gradient: &mut [f32]) -> StepMetrics {
        let (v, n) = (self.model.vocabulary, batch.inputs.len() as f64);
        let mut loss = 0.0;
        for (&last, &next) in batch.inputs.iter().zip(batch.targets) {
            let p = self.probabilities(last);
            loss -= p[usize::from(next)].ln() / n;
            for (j, p) in p.iter().enumerate() {
                let hit = f64::from(j == usize::from(next));
                gradient[usize::from(last) * v + j] += ((p - hit) / n) as f32;
            }
        }
        StepMetrics { loss }
    }

    fn evaluate(&mut self, batch: Batch<'_>, scores: &mut Scores) {
        scores.losses.clear();
        scores.hits.clear();
        for (&last, &next) in batch.inputs.iter().zip(batch.targets) {
            let p = self.probabilities(last);
            scores.losses.push(-p[usize::from(next)].ln() as f32);
            scores.hits.push((0..p.len()).all(|j| p[j] <= p[usize::from(next)]));
        }
    }

    fn state(&self) -> State<'_> {
        State {
            parameters: &self.parameters,
            first_moment: &self.first,
            second_moment: &self.second,
            average: &[],
        }
    }

    fn with_state(&mut self, change: &mut dyn FnMut(StateMut<'_>)) {
        change(StateMut {
            parameters: &mut self.parameters,
            first_moment: &mut self.first,
            second_moment: &mut self.second,
            average: &mut [],
        });
    }

    // No study of these tests averages.
    fn keep_average(&mut self, _: bool) {}

    fn swap_average(&mut self) {}

    fn cache(&self, _streams: usize, _positions: usize) -> Cache {
        Box::new(())
    }

    fn prefill(&mut self, _cache: &mut Cache, _contexts: &[u8], _logits: &mut [f32]) {}

    fn decode(&mut self, _cache: &mut Cache, _symbols: &[u8], _logits: &mut [f32]) {}
}

/// A text of 3,000 characters over a, b, c, d.
pub(crate) fn corpus() -> Corpus {
    text(3_000)
}

/// The same with another length: usually the next letter follows, sometimes any.
pub(crate) fn text(characters: u64) -> Corpus {
    let mut last = 0;
    let ids = (0..characters).map(|i| {
        last = if (i * i / 7 + i / 3) % 5 == 0 { (i % 3) as u8 } else { (last + 1) % 4 };
        last
    });
    let alphabet = Alphabet::auto(b"abcd").expect("four characters");
    Corpus::from_parts("toy", alphabet, ids.collect(), &SplitRequest::default())
        .expect("the text is long enough")
}

/// A configuration that trains in no time.
pub(crate) fn config() -> Config {
    Config {
        d_model: 8,
        n_heads: 1,
        n_layers: 1,
        max_len: 16,
        batch_size: 2,
        sequence_length: 8,
        steps: 40,
        eval_every: 5,
        validation_characters: 64,
        patience: 0,
        ..Config::default()
    }
}

/// A study of `grid` over [`config`].
pub(crate) fn spec(corpus: &Corpus, grid: &[&str]) -> StudySpec {
    StudySpec::new("toy", corpus, config(), Grid::parse(grid).expect("the grid is well-formed"))
}

/// What came of one call of `run_study`.
pub(crate) struct Ran {
    /// What it returned.
    pub(crate) study: Result<Study, StudyError>,
    /// How many engines were made.
    pub(crate) engines: usize,
    /// How many updates were done.
    pub(crate) steps: u64,
    /// How many updates were only timed.
    pub(crate) timed: u64,
    /// Numbers of the trials that were started, in order.
    pub(crate) started: Vec<usize>,
}

/// Runs a study with toy engines.
pub(crate) fn ran(corpus: &Corpus, spec: &StudySpec, folder: &Path, hooks: Hooks) -> Ran {
    ran_watched(corpus, spec, folder, hooks, &mut |_| {})
}

/// The same, seen by `watch`.
pub(crate) fn ran_watched(
    corpus: &Corpus,
    spec: &StudySpec,
    folder: &Path,
    hooks: Hooks,
    watch: &mut dyn FnMut(&StudyEvent<'_>),
) -> Ran {
    worked(corpus, Some(spec), &Home::local(folder), hooks, watch)
}

/// Begins or continues the study of `spec` at `home`, or joins the one that is there.
pub(crate) fn worked(
    corpus: &Corpus,
    spec: Option<&StudySpec>,
    home: &Home,
    hooks: Hooks,
    watch: &mut dyn FnMut(&StudyEvent<'_>),
) -> Ran {
    let hooks = Arc::new(hooks);
    let made = AtomicUsize::new(0);
    let make = |model: ModelConfig, _: &Config, threads: usize| -> MadeEngine {
        if model.n_layers == hooks.no_engine {
            return Err(EngineError::Memory { needed_gib: 2.0, available_gib: 1.0 });
        }
        made.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Toy::new(model, threads, Arc::clone(&hooks))))
    };
    let gib = 1 << 30;
    let engines = Engines {
        memory: &|model, _| if model.d_model >= 4096 { 100 * gib } else { gib / hooks.room.max(1) },
        available: Some(gib * if hooks.room == 0 { 10 } else { 1 }),
        id: id(&hooks).to_string(),
        make: &make,
        allow_other: hooks.allow_other,
        threads: hooks.threads.max(1),
        trials_at_once: hooks.trials_at_once,
        lease: Duration::from_secs(if hooks.lease == 0 { 60 } else { hooks.lease }),
        wait: !hooks.no_wait,
    };
    let mut started = Vec::new();
    let mut observe = |event: &StudyEvent<'_>| {
        if let StudyEvent::TrialStarted { number, .. } = event {
            started.push(*number);
        }
        watch(event);
    };
    let study = match spec {
        Some(spec) => run_study(corpus, spec, home, &engines, &hooks.interrupt, &mut observe),
        None => join_study(corpus, home, &engines, &hooks.interrupt, &mut observe),
    };
    Ran {
        study,
        engines: made.load(Ordering::Relaxed),
        steps: hooks.steps.load(Ordering::Relaxed),
        timed: hooks.timed.load(Ordering::Relaxed),
        started,
    }
}

/// Runs a study that has to succeed.
pub(crate) fn done(corpus: &Corpus, spec: &StudySpec, folder: &Path) -> Study {
    ran(corpus, spec, folder, Hooks::default()).study.expect("the study runs")
}

/// The rows of a study without the times and the company, which no two runs share.
pub(crate) fn timeless(study: &Study) -> Vec<Row> {
    let timeless = |row| Row {
        train_seconds: 0.0,
        tokens_per_second: None,
        threads: None,
        trials_at_once: None,
        ms_per_step_alone: None,
        ms_per_step_noise: None,
        ..row
    };
    study.rows().into_iter().map(timeless).collect()
}
