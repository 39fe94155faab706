//! The model and Adam against numbers that JAX, Flax and Optax computed.
//!
//! `reference/jax_reference.py` wrote the files in `tests/fixture`, which between them have every value of every part of a model: initial weights, twenty batches, logits and
//! gradients of the first batch, the losses of twenty Adam steps, all computed in `f64`. Whatever computes the
//! model goes through the same checks: the plain reference in both formats, and the engine, which crosses
//! its seam only.

use diapason_engine::{Batch, CpuEngine, Engine, Optimizer, Precision, Shape, Update};
use diapason_kernels::Isa;
use diapason_model::{Layout, ModelConfig, NgramTables};
use diapason_reference::{Float, adam};
use safetensors::SafeTensors;
use std::collections::BTreeSet;
use std::ops::Range;

/// One file of `tests/fixture`.
struct Fixture {
    name: &'static str,
    model: ModelConfig,
    weights: Vec<f32>,
    sequence_length: usize,
    learning_rate: f64,
    /// Inputs and targets \[B, T\] of each step.
    batches: Vec<(Vec<u8>, Vec<u8>)>,
    /// \[B, T, V\] of the first batch.
    logits: Vec<f64>,
    /// In the order of the layout, of the first batch.
    gradient: Vec<f64>,
    /// Before each of the steps; the first is the loss that belongs to `gradient`.
    losses: Vec<f64>,
}

impl Fixture {
    fn read(name: &'static str) -> Self {
        let path = format!("{}/tests/fixture/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().clone().unwrap();
        let number = |key: &str| metadata[key].parse::<f64>().unwrap();
        let size = |key: &str| metadata[key].parse::<usize>().unwrap();
        // Sizes and parts are there as JSON, under the names that they have in a checkpoint.
        let others = ["windows", "sequence_length", "seed", "steps", "learning_rate"];
        let fields: Vec<String> = metadata
            .iter()
            .filter(|(key, _)| !others.contains(&key.as_str()))
            .map(|(key, value)| format!("{key:?}:{value}"))
            .collect();
        let model: ModelConfig = serde_json::from_str(&format!("{{{}}}", fields.join(","))).unwrap();
        let model = model.validated().unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let floats = |name: &str| -> Vec<f32> {
            let data = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}")).data();
            data.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect()
        };

        // The file has the tensors of the layout, by name and by shape, and no others.
        let layout = Layout::new(&model);
        let mut names: Vec<String> = ["inputs", "targets", "logits", "losses"].map(String::from).to_vec();
        let (mut weights, mut gradient) = (Vec::new(), Vec::new());
        for tensor in &layout.tensors {
            for (kind, values) in [("weight", &mut weights), ("gradient", &mut gradient)] {
                let name = format!("{kind}/{}", tensor.name);
                assert_eq!(file.tensor(&name).unwrap().shape(), tensor.shape, "{name}");
                values.extend(floats(&name));
                names.push(name);
            }
        }
        let mut found = file.names();
        found.sort();
        names.sort();
        assert_eq!(found, names);

        let t = size("sequence_length");
        let symbols = |name: &str| -> Vec<Vec<u8>> {
            let tensor = file.tensor(name).unwrap();
            assert_eq!(tensor.shape(), [size("steps"), size("windows"), t], "{name}");
            tensor.data().chunks(size("windows") * t).map(<[u8]>::to_vec).collect()
        };
        let fixture = Self {
            name,
            weights,
            sequence_length: t,
            learning_rate: number("learning_rate"),
            batches: symbols("inputs").into_iter().zip(symbols("targets")).collect(),
            logits: widen(&floats("logits")),
            gradient: widen(&gradient),
            losses: widen(&floats("losses")),
            model,
        };
        // The checks below mean something: the updates change the loss, and no tensor is without a gradient.
        assert_eq!(fixture.losses.len(), 20);
        assert!(fixture.losses[19] < fixture.losses[0] - 0.1, "{:?}", fixture.losses);
        for tensor in &layout.tensors {
            assert!(largest(&fixture.gradient[tensor.range.clone()]) > 1e-4, "{}", tensor.name);
        }
        fixture
    }

    fn all() -> [Self; 6] {
        ["untied", "tied", "fast", "gated", "plain", "turned"].map(Self::read)
    }
}

fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn largest(x: &[f64]) -> f64 {
    x.iter().fold(0.0, |a, x| a.max(x.abs()))
}

/// Whatever computes the model: holds parameters and moments.
trait Implementation {
    /// \[B, T, V\]
    fn logits(&mut self, inputs: &[u8], sequence_length: usize) -> Vec<f64>;
    fn loss_and_gradient(&mut self, inputs: &[u8], targets: &[u8], sequence_length: usize)
    -> (f64, Vec<f64>);
    /// One update of Adam, `number` counting from 1; the loss before it.
    fn step(
        &mut self,
        inputs: &[u8],
        targets: &[u8],
        sequence_length: usize,
        number: u64,
        learning_rate: f64,
    ) -> f64;
}

/// Of every fixture, beside its own.
const NGRAM_LEARNING_RATE: f64 = 0.002;

/// What is allowed. Losses are compared relative to themselves, logits and each tensor's gradient relative to
/// their largest magnitude.
struct Bounds {
    logits: f64,
    gradient: f64,
    first_five_losses: f64,
    later_losses: f64,
}

/// What every engine has to reach.
const ENGINE: Bounds = Bounds { logits: 1e-4, gradient: 1e-3, first_five_losses: 1e-4, later_losses: 1e-3 };
/// The plain reference in `f32`, where only rounding is left.
const SINGLE: Bounds = Bounds { logits: 1e-5, gradient: 1e-5, first_five_losses: 1e-5, later_losses: 1e-5 };
/// And in `f64`: what is left is that the file has `f32`.
const DOUBLE: Bounds = Bounds { logits: 1e-6, gradient: 1e-6, first_five_losses: 1e-6, later_losses: 1e-6 };

fn check(what: &str, fixture: &Fixture, implementation: &mut dyn Implementation, bounds: &Bounds) {
    let what = format!("{what}, {}", fixture.name);
    let t = fixture.sequence_length;
    let (inputs, targets) = &fixture.batches[0];

    let error = |got: &[f64], expected: &[f64]| -> f64 {
        assert_eq!(got.len(), expected.len());
        // No `max` of floats: it would pass over NaN.
        assert!(got.iter().all(|x| x.is_finite()));
        let apart: Vec<f64> = got.iter().zip(expected).map(|(x, y)| x - y).collect();
        largest(&apart) / largest(expected)
    };
    let e = error(&implementation.logits(inputs, t), &fixture.logits);
    assert!(e <= bounds.logits, "{what}: logits differ by {e:.1e}");

    let (loss, gradient) = implementation.loss_and_gradient(inputs, targets, t);
    let e = (loss / fixture.losses[0] - 1.0).abs();
    assert!(e <= bounds.first_five_losses, "{what}: loss {loss}, not {}", fixture.losses[0]);
    for tensor in &Layout::new(&fixture.model).tensors {
        let range = tensor.range.clone();
        let e = error(&gradient[range.clone()], &fixture.gradient[range]);
        assert!(e <= bounds.gradient, "{what}: gradient of {} differs by {e:.1e}", tensor.name);
    }

    for (i, ((inputs, targets), expected)) in fixture.batches.iter().zip(&fixture.losses).enumerate() {
        let loss = implementation.step(inputs, targets, t, i as u64 + 1, fixture.learning_rate);
        let bound = if i < 5 { bounds.first_five_losses } else { bounds.later_losses };
        let e = (loss / expected - 1.0).abs();
        assert!(e <= bound, "{what}: step {}: loss {loss}, not {expected}: differs by {e:.1e}", i + 1);
    }
}

/// The plain reference.
struct Plain<F> {
    model: ModelConfig,
    parameters: Vec<F>,
    first_moment: Vec<F>,
    second_moment: Vec<F>,
}

impl<F: Float> Plain<F> {
    fn new(fixture: &Fixture) -> Self {
        let parameters: Vec<F> = fixture.weights.iter().map(|&w| F::from_f64(f64::from(w))).collect();
        let zeros = vec![F::ZERO; parameters.len()];
        Self { model: fixture.model, parameters, first_moment: zeros.clone(), second_moment: zeros }
    }
}

impl<F: Float> Implementation for Plain<F> {
    fn logits(&mut self, inputs: &[u8], sequence_length: usize) -> Vec<f64> {
        let logits = diapason_reference::logits(&self.model, &self.parameters, inputs, sequence_length);
        logits.into_iter().map(F::to_f64).collect()
    }

    fn loss_and_gradient(
        &mut self,
        inputs: &[u8],
        targets: &[u8],
        sequence_length: usize,
    ) -> (f64, Vec<f64>) {
        let (loss, gradient) = diapason_reference::loss_and_gradient(
            &self.model,
            &self.parameters,
            inputs,
            targets,
            sequence_length,
            None,
        );
        (loss.to_f64(), gradient.into_iter().map(F::to_f64).collect())
    }

    fn step(
        &mut self,
        inputs: &[u8],
        targets: &[u8],
        sequence_length: usize,
        number: u64,
        learning_rate: f64,
    ) -> f64 {
        let (loss, gradient) = diapason_reference::loss_and_gradient(
            &self.model,
            &self.parameters,
            inputs,
            targets,
            sequence_length,
            None,
        );
        let settings = adam::Settings { number, learning_rate, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
        let mut update = |range: Range<usize>, settings: &adam::Settings| {
            adam::update(
                &mut self.parameters[range.clone()],
                &mut self.first_moment[range.clone()],
                &mut self.second_moment[range.clone()],
                &gradient[range],
                settings,
            );
        };
        let layout = Layout::new(&self.model);
        let tables = layout.ngram_embedding.unwrap_or(layout.total..layout.total);
        update(0..tables.start, &settings);
        update(tables.end..layout.total, &settings);
        // Of the tables of n-grams only the rows that these inputs read.
        let settings = adam::Settings { learning_rate: NGRAM_LEARNING_RATE, beta1: 0.0, ..settings };
        let (ngrams, d) = (NgramTables::new(&self.model), self.model.d_model);
        let mut rows = BTreeSet::new();
        for window in inputs.chunks(sequence_length) {
            for t in 0..sequence_length {
                ngrams.each_row(window, t, |row| _ = rows.insert(tables.start + row * d));
            }
        }
        rows.into_iter().for_each(|start| update(start..start + d, &settings));
        loss.to_f64()
    }
}

#[test]
fn the_reference_in_f64() {
    for fixture in Fixture::all() {
        check("f64", &fixture, &mut Plain::<f64>::new(&fixture), &DOUBLE);
    }
}

#[test]
fn the_reference_in_f32() {
    for fixture in Fixture::all() {
        check("f32", &fixture, &mut Plain::<f32>::new(&fixture), &SINGLE);
    }
}

/// An engine behind its seam.
struct Through<E>(E);

impl<E: Engine> Implementation for Through<E> {
    /// The seam gives logits after a context, so each position is asked for as the end of one.
    fn logits(&mut self, inputs: &[u8], sequence_length: usize) -> Vec<f64> {
        let v = self.0.model().vocabulary;
        let windows = inputs.len() / sequence_length;
        let mut all = vec![0.0; inputs.len() * v];
        let mut cache = self.0.cache(windows, sequence_length);
        for length in 1..=sequence_length {
            let contexts: Vec<u8> =
                inputs.chunks(sequence_length).flat_map(|window| &window[..length]).copied().collect();
            let mut last = vec![0.0; windows * v];
            self.0.prefill(&mut cache, &contexts, &mut last);
            for (window, last) in last.chunks(v).enumerate() {
                all[(window * sequence_length + length - 1) * v..][..v].copy_from_slice(&widen(last));
            }
        }
        all
    }

    fn loss_and_gradient(
        &mut self,
        inputs: &[u8],
        targets: &[u8],
        sequence_length: usize,
    ) -> (f64, Vec<f64>) {
        let mut gradient = vec![0.0; self.0.model().parameters()];
        let metrics = self.0.gradient(Batch { inputs, targets, sequence_length }, &mut gradient);
        (metrics.loss, widen(&gradient))
    }

    fn step(
        &mut self,
        inputs: &[u8],
        targets: &[u8],
        sequence_length: usize,
        number: u64,
        learning_rate: f64,
    ) -> f64 {
        let learning_rate = learning_rate as f32;
        let ngram_learning_rate = NGRAM_LEARNING_RATE as f32;
        let update = Update { number, learning_rate, ngram_learning_rate, ..Update::default() };
        self.0.step(Batch { inputs, targets, sequence_length }, &update).loss
    }
}

#[test]
fn the_cpu_engine() {
    for fixture in Fixture::all() {
        for isa in Isa::available() {
            let shape = Shape {
                batch_size: fixture.batches[0].0.len() / fixture.sequence_length,
                sequence_length: fixture.sequence_length,
            };
            let (model, weights) = (fixture.model, &fixture.weights);
            let engine = CpuEngine::with_isa(isa, Precision::F32, model, weights, 2, shape).unwrap();
            check(isa.name(), &fixture, &mut Through(engine), &ENGINE);
        }
    }
}

/// Losses of twenty steps of each other optimizer, and of clipped gradients, as Optax has them; Muon's singular values come from
/// a singular value decomposition there.
#[test]
fn every_optimizer_of_the_cpu_engine() {
    let path = format!("{}/tests/fixture/optimizers.safetensors", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().clone().unwrap();
    let number = |key: &str| metadata[key].parse::<f32>().unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let [gradient_clip, adaptive_clip] = [number("gradient_clip"), number("adaptive_clip")];
    let plain = Update {
        learning_rate: number("learning_rate"),
        adam_learning_rate: number("adam_learning_rate"),
        momentum: number("momentum"),
        beta1: number("beta1"),
        beta2: number("beta2"),
        epsilon: number("epsilon"),
        ..Update::default()
    };
    let decaying = |optimizer| Update { optimizer, weight_decay: number("weight_decay"), ..plain };
    for fixture in [Fixture::read("untied"), Fixture::read("tied")] {
        for (kind, update) in [
            ("adamw", decaying(Optimizer::AdamW)),
            ("lion", decaying(Optimizer::Lion)),
            ("muon", decaying(Optimizer::Muon)),
            ("clipped", Update { gradient_clip, ..plain }),
            ("clipped by unit", Update { adaptive_clip, ..plain }),
        ] {
            let data = file.tensor(&format!("{}/{kind}", fixture.name)).unwrap().data();
            let expected: Vec<f32> =
                data.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect();
            assert_eq!(expected.len(), 20);
            for isa in Isa::available() {
                let sequence_length = fixture.sequence_length;
                let shape =
                    Shape { batch_size: fixture.batches[0].0.len() / sequence_length, sequence_length };
                let mut engine =
                    CpuEngine::with_isa(isa, Precision::F32, fixture.model, &fixture.weights, 2, shape)
                        .unwrap();
                for (i, ((inputs, targets), expected)) in fixture.batches.iter().zip(&expected).enumerate() {
                    let update = Update { number: i as u64 + 1, ..update };
                    let loss = engine.step(Batch { inputs, targets, sequence_length }, &update).loss;
                    let error = (loss / f64::from(*expected) - 1.0).abs();
                    // Muon makes much of small singular values, which f32 finds less well.
                    let early = i < 5 && update.optimizer != Optimizer::Muon;
                    let bound = if early { ENGINE.first_five_losses } else { ENGINE.later_losses };
                    let what = format!("{}, {kind}, {isa}, step {}", fixture.name, i + 1);
                    assert!(error <= bound, "{what}: loss {loss}, not {expected}: differs by {error:.1e}");
                }
            }
        }
    }
}
