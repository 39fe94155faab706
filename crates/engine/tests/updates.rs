//! Every optimizer and every kind of clipping against the plain versions in `f64`, on the engine's own gradients, on each instruction
//! set; and the same bits on any number of threads.

use diapason_engine::{Batch, CpuEngine, Engine, Optimizer, Precision, Shape, Update};
use diapason_kernels::Isa;
use diapason_model::{Activation, Layout, ModelConfig, NgramTables, Norm, Positions, Tensor, initialise};
use diapason_random::{Purpose, Stream};
use diapason_reference::{adam, clip, lion, muon};
use std::collections::BTreeSet;

const OPTIMIZERS: [Optimizer; 4] = [Optimizer::Adam, Optimizer::AdamW, Optimizer::Lion, Optimizer::Muon];

struct Case {
    model: ModelConfig,
    parameters: Vec<f32>,
    windows: usize,
    t: usize,
}

impl Case {
    fn all() -> Vec<Self> {
        let seed = ModelConfig::default();
        let fast = ModelConfig {
            norm: Norm::RmsNorm,
            positions: Positions::Rotary,
            activation: Activation::Swiglu,
            mlp_bias: false,
            qk_norm: true,
            ngram_table: 4,
            ngram_rows: 150,
            value_residual: true,
            embedding_residual: true,
            ..seed
        };
        // Widths that fill no vector, more columns than a stripe, matrices higher and wider than they are long.
        [
            (27, 32, 4, 2, 4.0, false, seed),
            (5, 20, 2, 1, 2.5, true, seed),
            (3, 7, 7, 2, 1.0, false, seed),
            (9, 72, 2, 1, 4.0, false, seed),
            (11, 24, 2, 2, 2.0, false, fast),
        ]
        .into_iter()
        .map(|(vocabulary, d_model, n_heads, n_layers, mlp_ratio, tie_embeddings, parts)| {
            let model = ModelConfig {
                vocabulary,
                d_model,
                n_heads,
                n_layers,
                mlp_ratio,
                max_len: 8,
                tie_embeddings,
                ..parts
            }
            .validated()
            .unwrap();
            let mut parameters = initialise(&model, 1);
            // Biases too, so that their decay would show.
            let stream = Stream::new(1, Purpose::Test, 0);
            for (i, p) in parameters.iter_mut().enumerate() {
                *p += 0.1 * stream.normal(i as u64) as f32;
            }
            Self { model, parameters, windows: 14, t: 7 }
        })
        .collect()
    }

    fn engine(&self, isa: Isa, threads: usize) -> CpuEngine {
        let shape = Shape { batch_size: self.windows, sequence_length: self.t };
        CpuEngine::with_isa(isa, Precision::F32, self.model, &self.parameters, threads, shape).unwrap()
    }

    /// Inputs and targets of a step.
    fn symbols(&self, step: u64) -> (Vec<u8>, Vec<u8>) {
        let stream = Stream::new(2, Purpose::Test, step);
        let n = (self.windows * self.t) as u64;
        let draw = |from: u64| {
            (from..from + n).map(|i| stream.below(i, self.model.vocabulary as u64) as u8).collect()
        };
        (draw(0), draw(n))
    }

    /// The rows of the tables of n-grams that these inputs read.
    fn read(&self, inputs: &[u8]) -> BTreeSet<usize> {
        let tables = NgramTables::new(&self.model);
        let mut rows = BTreeSet::new();
        for window in inputs.chunks(self.t) {
            (0..self.t).for_each(|t| {
                tables.each_row(window, t, |row| {
                    rows.insert(row);
                })
            });
        }
        assert!(tables.count() == 0 || (rows.len() > 50 && rows.len() < tables.rows() - 50));
        rows
    }

    fn batch<'a>(&self, (inputs, targets): &'a (Vec<u8>, Vec<u8>)) -> Batch<'a> {
        Batch { inputs, targets, sequence_length: self.t }
    }
}

/// Updates with no number that is usual, so that each of them shows.
fn updates() -> Vec<Update> {
    let mut all = Vec::new();
    for optimizer in OPTIMIZERS {
        let weight_decay = if optimizer == Optimizer::Adam { 0.0 } else { 0.3 };
        for (gradient_clip, adaptive_clip) in [(0.0, 0.0), (0.05, 0.0), (1e6, 0.0), (0.0, 0.02)] {
            all.push(Update {
                optimizer,
                learning_rate: 0.01,
                adam_learning_rate: 0.02,
                ngram_learning_rate: 0.03,
                momentum: 0.7,
                beta1: 0.8,
                beta2: 0.95,
                epsilon: 1e-3,
                weight_decay,
                gradient_clip,
                adaptive_clip,
                ..Update::default()
            });
        }
    }
    all
}

/// Whether a tensor is Muon's.
fn is_matrix(tensor: &Tensor) -> bool {
    tensor.name.starts_with("blocks.") && tensor.shape.len() == 2
}

/// Parameters and moments in `f64`.
struct Plain {
    parameters: Vec<f64>,
    first: Vec<f64>,
    second: Vec<f64>,
}

impl Plain {
    /// Of one tensor; of the tables of n-grams those rows that were read.
    fn update(&mut self, tensor: &Tensor, gradient: &[f64], update: &Update, read: &BTreeSet<usize>) {
        if tensor.name != "ngram_embedding" {
            return self.update_all(tensor, gradient, update);
        }
        let d = tensor.shape[1];
        let Update { number, ngram_learning_rate, epsilon, .. } = *update;
        let settings = adam::Settings {
            number,
            learning_rate: f64::from(ngram_learning_rate),
            beta1: 0.0,
            beta2: f64::from(0.999f32),
            epsilon: f64::from(epsilon),
        };
        for row in read {
            let start = tensor.range.start + row * d;
            let range = start..start + d;
            let p = &mut self.parameters[range.clone()];
            let (m, v) = (&mut self.first[range.clone()], &mut self.second[range.clone()]);
            adam::update(p, m, v, &gradient[range], &settings);
        }
    }

    fn update_all(&mut self, tensor: &Tensor, gradient: &[f64], update: &Update) {
        let range = tensor.range.clone();
        let gradient = &gradient[range.clone()];
        let p = &mut self.parameters[range.clone()];
        let (m, v) = (&mut self.first[range.clone()], &mut self.second[range]);
        let wide = f64::from;
        let is_matrix = is_matrix(tensor);
        let by_adam = update.optimizer == Optimizer::Muon && !is_matrix;
        let learning_rate = wide(if by_adam { update.adam_learning_rate } else { update.learning_rate });
        if tensor.shape.len() == 2 && !by_adam {
            adam::decay(p, learning_rate, wide(update.weight_decay));
        }
        match update.optimizer {
            Optimizer::Lion => {
                let Update { beta1, beta2, .. } = *update;
                let settings = lion::Settings { learning_rate, beta1: wide(beta1), beta2: wide(beta2) };
                lion::update(p, m, gradient, &settings);
            }
            Optimizer::Muon if is_matrix => {
                let settings = muon::Settings { learning_rate, momentum: wide(update.momentum) };
                muon::update(p, m, gradient, (tensor.shape[0], tensor.shape[1]), &settings);
            }
            _ => {
                let Update { number, beta1, beta2, epsilon, .. } = *update;
                let [beta1, beta2, epsilon] = [beta1, beta2, epsilon].map(wide);
                adam::update(
                    p,
                    m,
                    v,
                    gradient,
                    &adam::Settings { number, learning_rate, beta1, beta2, epsilon },
                );
            }
        }
    }
}

fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Every number is within `bound` of what is expected; the share of those that may be elsewhere is `others`.
#[track_caller]
fn close(what: &str, got: &[f32], expected: &[f64], bound: f64, others: f64) {
    let apart: Vec<f64> = got.iter().zip(expected).map(|(&x, y)| (f64::from(x) - y).abs()).collect();
    let far = apart.iter().filter(|apart| apart.is_nan() || **apart > bound).count();
    let worst = apart.iter().fold(0.0f64, |a, &b| a.max(b));
    assert!(far as f64 <= others * got.len() as f64, "{what}: {far} of {} too far, {worst:.1e}", got.len());
}

#[test]
fn updates_are_those_of_the_plain_versions() {
    for case in Case::all() {
        let layout = Layout::new(&case.model);
        for (isa, update) in
            Isa::available().into_iter().flat_map(|isa| updates().into_iter().map(move |u| (isa, u)))
        {
            let mut engine = case.engine(isa, 2);
            let zeros = vec![0.0; layout.total];
            let mut plain =
                Plain { parameters: widen(&case.parameters), first: zeros.clone(), second: zeros };
            for number in 1..=2 {
                let what = format!("{isa}, {:?}: {update:?}, number {number}", case.model);
                let symbols = case.symbols(number);
                let mut gradient = vec![0.0; layout.total];
                engine.gradient(case.batch(&symbols), &mut gradient);
                engine.step(case.batch(&symbols), &Update { number, ..update });
                let mut gradient = widen(&gradient);
                if update.gradient_clip > 0.0 {
                    clip::by_length(&mut gradient, f64::from(update.gradient_clip));
                }
                for tensor in layout.tensors.iter().filter(|_| update.adaptive_clip > 0.0) {
                    let range = tensor.range.clone();
                    let (own, most) = (&plain.parameters[range.clone()], f64::from(update.adaptive_clip));
                    let gradient = &mut gradient[range];
                    match tensor.shape[..] {
                        [_, d] if tensor.name == "ngram_embedding" => {
                            let rows = gradient.chunks_mut(d).zip(own.chunks(d));
                            rows.for_each(|(gradient, own)| clip::by_units(gradient, own, 1, most));
                        }
                        [_, columns] => clip::by_units(gradient, own, columns, most),
                        _ => clip::by_units(gradient, own, 1, most),
                    }
                }
                let before = plain.parameters.clone();
                let read = case.read(&symbols.0);
                for tensor in &layout.tensors {
                    plain.update(tensor, &gradient, &Update { number, ..update }, &read);
                }
                let state = engine.state();
                // Lion's sign of what is nearly zero is decided by rounding.
                let others = if update.optimizer == Optimizer::Lion { 5e-3 } else { 0.0 };
                for tensor in &layout.tensors {
                    let range = tensor.range.clone();
                    let (got, expected) =
                        (&state.parameters[range.clone()], &plain.parameters[range.clone()]);
                    if update.optimizer == Optimizer::Muon && is_matrix(tensor) {
                        // Where between 0.77 and 1.23 a singular value comes to lie depends on its last digits, so f32 and f64 differ by a
                        // part of that.
                        let length = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
                        let pairs = || got.iter().map(|&x| f64::from(x)).zip(expected);
                        let step = length(&mut before[range].iter().zip(expected).map(|(x, y)| x - y));
                        let error = length(&mut pairs().map(|(x, y)| x - y)) / step;
                        assert!(error < 0.3, "{what}: {}: off by {error:.1e} of the step", tensor.name);
                    } else {
                        close(&format!("{what}: {}", tensor.name), got, expected, 1e-5, others);
                    }
                }
                close(&format!("{what}: m"), state.first_moment, &plain.first, 1e-6, others);
                close(&format!("{what}: v"), state.second_moment, &plain.second, 1e-6, 0.0);
                // The next gradient is the engine's at its own parameters: errors do not add up.
                plain.parameters = widen(state.parameters);
            }
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let cases = Case::all();
    for (case, update) in
        [&cases[0], &cases[4]].into_iter().flat_map(|case| updates().into_iter().map(move |u| (case, u)))
    {
        let run = |threads: &[usize]| -> Vec<u32> {
            let mut engine = case.engine(Isa::detect(), threads[0]);
            engine.keep_average(true);
            for (number, &threads) in (1..).zip(threads) {
                engine.set_threads(threads);
                let average = if number == 1 { 1.0 } else { 0.3 };
                engine.step(case.batch(&case.symbols(number)), &Update { number, average, ..update });
            }
            let state = engine.state();
            let all = [state.parameters, state.first_moment, state.second_moment, state.average];
            all.iter().flat_map(|x| x.iter().map(|x| x.to_bits())).collect()
        };
        let one = run(&[1; 5]);
        for threads in [[2; 5], [3; 5], [1, 3, 2, 4, 1]] {
            assert!(run(&threads) == one, "{update:?} on {threads:?}");
        }
    }
}

#[test]
fn averages_follow_and_take_their_place() {
    let case = &Case::all()[1];
    let mut engine = case.engine(Isa::detect(), 2);
    let update = |number, average| Update { number, average, learning_rate: 0.01, ..Update::default() };
    // Without one, nothing happens.
    engine.step(case.batch(&case.symbols(1)), &update(1, 1.0));
    assert!(engine.state().average.is_empty());
    engine.swap_average();
    engine.keep_average(true);
    let mut expected = Vec::new();
    for (number, share) in [(2, 1.0), (3, 0.0), (4, 0.25), (5, 0.25)] {
        engine.step(case.batch(&case.symbols(number)), &update(number, share));
        let now = widen(engine.state().parameters);
        if share == 1.0 {
            expected = now;
        } else {
            let share = f64::from(share);
            expected.iter_mut().zip(now).for_each(|(a, p)| *a += share * (p - *a));
        }
        close("average", engine.state().average, &expected, 1e-6, 0.0);
    }
    // What is evaluated is what stands in place of the parameters.
    let symbols = case.symbols(9);
    let scores = |engine: &mut CpuEngine| {
        let mut scores = Default::default();
        engine.evaluate(case.batch(&symbols), &mut scores);
        scores
    };
    let average = engine.state().average.to_vec();
    let before: diapason_engine::Scores = scores(&mut engine);
    engine.swap_average();
    let swapped = scores(&mut engine);
    let mut other = case.engine(Isa::detect(), 1);
    other.with_state(&mut |state| state.parameters.copy_from_slice(&average));
    assert!(scores(&mut other) == swapped && swapped != before);
    engine.swap_average();
    assert!(scores(&mut engine) == before);
    engine.keep_average(false);
    assert!(engine.state().average.is_empty());
}
