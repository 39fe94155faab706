//! What the tests of this crate share: a small text, and an engine that is quick and exact.
#![allow(dead_code, missing_docs, unreachable_pub)]

use diapason_corpus::{Alphabet, Corpus, SplitRequest};
use diapason_engine::{Batch, Cache, Engine, EngineId, Scores, State, StateMut, StepMetrics, Update};
use diapason_model::{Layout, ModelConfig};
use diapason_random::{Purpose, Stream};
use diapason_training::{Config, Control, Event, RunOutcome, RunSpec, TrainingError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A text with something to learn: each symbol follows from the one before, up to one of three.
pub fn corpus(seed: u64) -> Corpus {
    let stream = Stream::new(seed, Purpose::Test, 0);
    let mut symbol = 0;
    let ids = (0..20_000)
        .map(|i| {
            symbol = (5 * symbol + stream.below(i, 3)) % 27;
            symbol as u8
        })
        .collect();
    Corpus::from_parts("three-way", Alphabet::text8(), ids, &SplitRequest::default()).unwrap()
}

/// A small configuration that [`Bigram`] can compute.
pub fn config() -> Config {
    Config {
        d_model: 28,
        n_heads: 2,
        n_layers: 1,
        mlp_ratio: 1.0,
        max_len: 8,
        batch_size: 4,
        sequence_length: 6,
        steps: 60,
        learning_rate: 0.03,
        eval_every: 7,
        validation_characters: 300,
        checkpoint_seconds: 3600,
        ..Config::default()
    }
}

/// Called at every step with its number and at every evaluation with the number of the last step.
type Hook = Box<dyn FnMut(u64, bool) -> f64 + Send>;

/// An engine for tests: logits\[v\] = E\[x, v\] + P\[t, v\], in the first V columns of the embeddings, with exact
/// gradients and Adam. The other parameters of the model get no gradient.
pub struct Bigram {
    id: EngineId,
    model: ModelConfig,
    layout: Layout,
    parameters: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
    average: Vec<f32>,
    steps: u64,
    /// What it returns is added to the loss.
    pub hook: Option<Hook>,
}

impl Bigram {
    pub fn new(config: &Config) -> Self {
        let model = config.model(27).unwrap();
        assert!(model.d_model >= model.vocabulary);
        let layout = Layout::new(&model);
        let zeros = vec![0.0; layout.total];
        Self {
            id: EngineId { version: "1".into(), isa: "test".into(), precision: "f32".into() },
            model,
            layout,
            // Whatever is here must not matter: a run overwrites it.
            parameters: vec![f32::NAN; zeros.len()],
            first: vec![f32::NAN; zeros.len()],
            second: zeros,
            average: Vec::new(),
            steps: 0,
            hook: None,
        }
    }

    pub fn with_isa(config: &Config, isa: &str) -> Self {
        let mut engine = Self::new(config);
        engine.id.isa = isa.to_string();
        engine
    }

    /// Raises a flag after update `step`.
    pub fn interrupting(config: &Config, step: u64, flag: &Arc<AtomicBool>) -> Self {
        let flag = flag.clone();
        Self::new(config).hooked(move |number, evaluating| {
            if !evaluating && number == step {
                flag.store(true, Ordering::Relaxed);
            }
            0.0
        })
    }

    pub fn hooked(mut self, hook: impl FnMut(u64, bool) -> f64 + Send + 'static) -> Self {
        self.hook = Some(Box::new(hook));
        self
    }

    pub fn parameters(&self) -> &[f32] {
        &self.parameters
    }

    fn logits(&self, x: u8, t: usize) -> Vec<f64> {
        let (d, v) = (self.model.d_model, self.model.vocabulary);
        let e = &self.parameters[self.layout.token_embedding.clone()][usize::from(x) * d..][..v];
        let p = &self.parameters[self.layout.position_embedding.clone().unwrap()][t * d..][..v];
        e.iter().zip(p).map(|(&e, &p)| f64::from(e) + f64::from(p)).collect()
    }

    /// Probabilities and the loss of `y`.
    fn predict(&self, x: u8, t: usize, y: u8) -> (Vec<f64>, f64) {
        let logits = self.logits(x, t);
        let top = logits.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
        let sum: f64 = logits.iter().map(|z| (z - top).exp()).sum();
        let loss = top + sum.ln() - logits[usize::from(y)];
        (logits.iter().map(|z| (z - top).exp() / sum).collect(), loss)
    }
}

impl Engine for Bigram {
    fn id(&self) -> &EngineId {
        &self.id
    }

    fn model(&self) -> &ModelConfig {
        &self.model
    }

    fn threads(&self) -> usize {
        1
    }

    fn draw_masks(&mut self, _: u64, _: u64) {}
    fn step(&mut self, batch: Batch<'_>, update: &Update) -> StepMetrics {
        let mut gradient = vec![0.0; self.parameters.len()];
        let mut metrics = self.gradient(batch, &mut gradient);
        let Update { learning_rate, beta1, beta2, epsilon, number, .. } = *update;
        let correct1 = 1.0 - beta1.powi(number as i32);
        let correct2 = 1.0 - beta2.powi(number as i32);
        for i in 0..gradient.len() {
            let g = gradient[i];
            self.first[i] = beta1 * self.first[i] + (1.0 - beta1) * g;
            self.second[i] = beta2 * self.second[i] + (1.0 - beta2) * g * g;
            self.parameters[i] -=
                learning_rate * (self.first[i] / correct1) / ((self.second[i] / correct2).sqrt() + epsilon);
        }
        for (average, &p) in self.average.iter_mut().zip(&self.parameters) {
            *average += update.average * (p - *average);
        }
        self.steps = number;
        if let Some(hook) = &mut self.hook {
            metrics.loss += hook(number, false);
        }
        metrics
    }

    fn gradient(&mut self, batch: Batch<'_>, gradient: &mut [f32]) -> StepMetrics {
        let (d, t) = (self.model.d_model, batch.sequence_length);
        let n = batch.inputs.len() as f64;
        let mut total = 0.0;
        for (i, (&x, &y)) in batch.inputs.iter().zip(batch.targets).enumerate() {
            let (probabilities, loss) = self.predict(x, i % t, y);
            total += loss;
            for (v, p) in probabilities.iter().enumerate() {
                let g = ((p - f64::from(u8::from(v == usize::from(y)))) / n) as f32;
                gradient[self.layout.token_embedding.start + usize::from(x) * d + v] += g;
                gradient[self.layout.position_embedding.as_ref().unwrap().start + (i % t) * d + v] += g;
            }
        }
        StepMetrics { loss: total / n }
    }

    fn evaluate(&mut self, batch: Batch<'_>, scores: &mut Scores) {
        scores.losses.clear();
        scores.hits.clear();
        let extra = match &mut self.hook {
            Some(hook) => hook(self.steps, true),
            None => 0.0,
        };
        for (i, (&x, &y)) in batch.inputs.iter().zip(batch.targets).enumerate() {
            let (probabilities, loss) = self.predict(x, i % batch.sequence_length, y);
            let likeliest = (0..probabilities.len())
                .fold(0, |best, v| if probabilities[v] > probabilities[best] { v } else { best });
            scores.losses.push((loss + extra) as f32);
            scores.hits.push(likeliest == usize::from(y));
        }
    }

    fn state(&self) -> State<'_> {
        State {
            parameters: &self.parameters,
            first_moment: &self.first,
            second_moment: &self.second,
            average: &self.average,
        }
    }

    fn with_state(&mut self, change: &mut dyn FnMut(StateMut<'_>)) {
        change(StateMut {
            parameters: &mut self.parameters,
            first_moment: &mut self.first,
            second_moment: &mut self.second,
            average: &mut self.average,
        });
    }

    fn keep_average(&mut self, keep: bool) {
        self.average.resize(if keep { self.parameters.len() } else { 0 }, f32::NAN);
    }

    fn swap_average(&mut self) {
        if !self.average.is_empty() {
            std::mem::swap(&mut self.parameters, &mut self.average);
        }
    }

    fn cache(&self, _streams: usize, _positions: usize) -> Cache {
        unimplemented_here()
    }

    fn prefill(&mut self, _cache: &mut Cache, _contexts: &[u8], _logits: &mut [f32]) {
        unimplemented_here()
    }

    fn decode(&mut self, _cache: &mut Cache, _symbols: &[u8], _logits: &mut [f32]) {
        unimplemented_here()
    }
}

fn unimplemented_here<T>() -> T {
    unreachable!("training generates no text")
}

/// Runs without a listener.
pub fn run(corpus: &Corpus, engine: &mut Bigram, spec: &RunSpec) -> Result<RunOutcome, TrainingError> {
    diapason_training::run(corpus, engine, spec, &Control::default(), &mut |_| {})
}

/// Runs until `flag` is up; returns the events, too.
pub fn run_watched(
    corpus: &Corpus,
    engine: &mut Bigram,
    spec: &RunSpec,
    flag: &AtomicBool,
) -> (Result<RunOutcome, TrainingError>, Vec<Event>) {
    let mut events = Vec::new();
    let control = Control { stop: &[flag], ..Control::default() };
    let outcome = diapason_training::run(corpus, engine, spec, &control, &mut |e| events.push(e.clone()));
    (outcome, events)
}

/// A counter that a hook can share with its test.
pub fn counter() -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(0))
}

/// An engine that tells of each step (its batch, its update, the threads), before another one does it.
pub struct Told<E, F> {
    pub engine: E,
    pub tell: F,
}

impl<E: Engine, F: FnMut(&Batch<'_>, &Update, usize) + Send> Engine for Told<E, F> {
    fn id(&self) -> &EngineId {
        self.engine.id()
    }
    fn model(&self) -> &ModelConfig {
        self.engine.model()
    }
    fn threads(&self) -> usize {
        self.engine.threads()
    }
    fn set_threads(&mut self, threads: usize) {
        self.engine.set_threads(threads);
    }
    fn draw_masks(&mut self, seed: u64, update: u64) {
        self.engine.draw_masks(seed, update);
    }
    fn step(&mut self, batch: Batch<'_>, update: &Update) -> StepMetrics {
        (self.tell)(&batch, update, self.engine.threads());
        self.engine.step(batch, update)
    }
    fn gradient(&mut self, batch: Batch<'_>, gradient: &mut [f32]) -> StepMetrics {
        self.engine.gradient(batch, gradient)
    }
    fn evaluate(&mut self, batch: Batch<'_>, scores: &mut Scores) {
        self.engine.evaluate(batch, scores);
    }
    fn state(&self) -> State<'_> {
        self.engine.state()
    }
    fn with_state(&mut self, change: &mut dyn FnMut(StateMut<'_>)) {
        self.engine.with_state(change);
    }
    fn keep_average(&mut self, keep: bool) {
        self.engine.keep_average(keep);
    }
    fn swap_average(&mut self) {
        self.engine.swap_average();
    }
    fn cache(&self, streams: usize, positions: usize) -> Cache {
        self.engine.cache(streams, positions)
    }
    fn prefill(&mut self, cache: &mut Cache, contexts: &[u8], logits: &mut [f32]) {
        self.engine.prefill(cache, contexts, logits);
    }
    fn decode(&mut self, cache: &mut Cache, symbols: &[u8], logits: &mut [f32]) {
        self.engine.decode(cache, symbols, logits);
    }
}
