//! Models put together at random, of sizes that fit nothing: whatever parts meet, gradients and logits are those of the plain
//! reference, and training in any precision, by any optimizer, has the same bits on any number of threads.

use diapason_engine::{Batch, CpuEngine, Engine, Optimizer, Precision, Scores, Shape, Update};
use diapason_kernels::Isa;
use diapason_model::{Activation, Layout, LossPositions, ModelConfig, Norm, Positions};
use diapason_random::{Purpose, Stream};
use diapason_reference::{logits, loss_and_gradient};
use std::cell::Cell;

/// Models that are tried.
const CASES: u64 = 60;

/// Draws one after the other.
struct Draws {
    stream: Stream,
    at: Cell<u64>,
}

impl Draws {
    fn new(case: u64) -> Self {
        Self { stream: Stream::new(11, Purpose::Test, case), at: Cell::new(0) }
    }

    fn below(&self, bound: usize) -> usize {
        self.at.set(self.at.get() + 1);
        self.stream.below(self.at.get(), bound as u64) as usize
    }

    fn one_of<T: Copy>(&self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn flag(&self) -> bool {
        self.below(2) == 1
    }

    fn symbols(&self, n: usize, vocabulary: usize) -> Vec<u8> {
        (0..n).map(|_| self.below(vocabulary) as u8).collect()
    }

    fn model(&self) -> ModelConfig {
        let n_heads = 1 + self.below(4);
        // Norms of a few numbers are nearly steps, and a step's slope in f32 is nobody's.
        let d_model = n_heads * (6usize.div_ceil(n_heads) + self.below(9));
        ModelConfig {
            vocabulary: self.one_of(&[1, 2, 5, 17, 27]),
            d_model,
            n_heads,
            n_layers: 1 + self.below(3),
            mlp_ratio: (1 + self.below(3 * d_model)) as f64 / d_model as f64,
            max_len: 1 + self.below(20),
            tie_embeddings: self.flag(),
            norm: self.one_of(&[Norm::LayerNorm, Norm::RmsNorm]),
            positions: self.one_of(&[
                Positions::Learned,
                Positions::Sinusoidal,
                Positions::Rotary,
                Positions::None,
            ]),
            activation: self.one_of(&[
                Activation::Gelu,
                Activation::Relu,
                Activation::ReluSquared,
                Activation::Silu,
                Activation::Swiglu,
                Activation::Swiglu,
            ]),
            mlp_bias: self.flag(),
            qk_norm: self.flag(),
            logit_softcap: self.one_of(&[0.0, 2.0, 15.0]),
            embedding_norm: self.flag(),
            ngram_table: self.one_of(&[0, 2, 3, 6]),
            ngram_rows: self.one_of(&[7, 200]),
            value_residual: self.flag(),
            embedding_residual: self.flag(),
            dropout: self.one_of(&[0.0, 0.2]),
            loss_positions: self.one_of(&[LossPositions::All, LossPositions::Last]),
            ..ModelConfig::default()
        }
        .validated()
        .unwrap()
    }

    /// Random numbers in every tensor, so that every path carries some.
    fn parameters(&self, layout: &Layout) -> Vec<f32> {
        let mut parameters = vec![0.0; layout.total];
        for tensor in &layout.tensors {
            let (shift, std) = match (tensor.name.ends_with("scale"), tensor.shape.len()) {
                (true, _) => (1.0, 0.2),
                _ if tensor.name.ends_with("residual") => (0.6, 0.2),
                (false, 2) if tensor.name.starts_with("blocks") => (0.0, (tensor.shape[0] as f64).powf(-0.5)),
                (false, 2) => (0.0, 0.5),
                _ => (0.0, 0.2),
            };
            let from = (self.below(1 << 20) as u64) << 32;
            for (i, p) in parameters[tensor.range.clone()].iter_mut().enumerate() {
                *p = (shift + std * self.stream.normal(from + i as u64)) as f32;
            }
        }
        parameters
    }

    fn update(&self) -> Update {
        let optimizer = self.one_of(&[
            Optimizer::Adam,
            Optimizer::AdamW,
            Optimizer::Lion,
            Optimizer::Muon,
            Optimizer::Muon,
        ]);
        let (gradient_clip, adaptive_clip) = self.one_of(&[(0.0, 0.0), (0.05, 0.0), (0.0, 0.02)]);
        Update {
            optimizer,
            learning_rate: 0.01,
            weight_decay: if optimizer == Optimizer::Adam { 0.0 } else { 0.1 },
            gradient_clip,
            adaptive_clip,
            average: 0.3,
            ..Update::default()
        }
    }
}

fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn length(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}

/// |x - y| / max(|y|, floor).
fn apart(x: &[f32], y: &[f64], floor: f64) -> f64 {
    length(x.iter().zip(y).map(|(x, y)| f64::from(*x) - y)) / length(y.iter().copied()).max(floor)
}

/// Symbols of [`Batch`]es of `windows` windows of `t`.
struct Symbols(Vec<u8>, Vec<u8>, usize);

impl Symbols {
    fn new(draws: &Draws, windows: usize, t: usize, vocabulary: usize) -> Self {
        Self(draws.symbols(windows * t, vocabulary), draws.symbols(windows * t, vocabulary), t)
    }

    fn batch(&self) -> Batch<'_> {
        Batch { inputs: &self.0, targets: &self.1, sequence_length: self.2 }
    }
}

#[test]
fn gradients_and_logits_of_any_model() {
    for case in 0..CASES {
        let draws = Draws::new(case);
        let model = draws.model();
        let layout = Layout::new(&model);
        let parameters = draws.parameters(&layout);
        let (windows, t) = (1 + draws.below(40), 1 + draws.below(model.max_len));
        let symbols = Symbols::new(&draws, windows, t, model.vocabulary);
        let batch = symbols.batch();
        let wide = widen(&parameters);
        let masks = Stream::new(3, Purpose::Dropout, case);
        let (loss, expected) = loss_and_gradient(&model, &wide, batch.inputs, batch.targets, t, Some(&masks));
        let whole = length(expected.iter().copied());
        let shape = Shape { batch_size: windows, sequence_length: t };
        let isas = Isa::available();
        let isa = isas[case as usize % isas.len()];
        for (precision, bound) in [(Precision::F32, 2e-5), (Precision::Half, 2e-2)] {
            let what = format!("case {case}, {isa}, {precision:?}, {windows} of {t}: {model:?}");
            let mut engine = CpuEngine::with_isa(isa, precision, model, &parameters, 2, shape).unwrap();
            engine.draw_masks(3, case);
            let mut gradient = vec![f32::NAN; layout.total];
            let metrics = engine.gradient(batch, &mut gradient);
            assert!((metrics.loss - loss).abs() <= bound * loss.max(1.0), "{what}: {metrics:?}, not {loss}");
            // ReLU's slope is 0 or 1: a number that rounding moves over 0 counts for much in a model as small as this.
            let kinks = precision == Precision::Half && model.activation == Activation::Relu;
            let error = apart(&gradient, &expected, 1e-3);
            assert!(error <= if kinks { 0.2 } else { bound }, "{what}: {error:.1e}");
            if precision == Precision::F32 {
                for tensor in &layout.tensors {
                    let range = tensor.range.clone();
                    let error = apart(&gradient[range.clone()], &expected[range], 1e-2 * whole.max(1e-2));
                    assert!(error <= 1e-3, "{what}: {}: {error:.1e}", tensor.name);
                }
            }
            // Logits after each position, one symbol at a time.
            let streams = 1 + case as usize % 9;
            let v = model.vocabulary;
            let text = draws.symbols(streams * model.max_len, v);
            let rows = logits(&model, &wide, &text, model.max_len);
            let mut cache = engine.cache(streams, model.max_len);
            let start = 1 + draws.below(model.max_len);
            let contexts: Vec<u8> =
                text.chunks(model.max_len).flat_map(|text| text[..start].to_vec()).collect();
            let mut found = vec![f32::NAN; streams * v];
            engine.prefill(&mut cache, &contexts, &mut found);
            for length in start..=model.max_len {
                if length > start {
                    let next: Vec<u8> = text.chunks(model.max_len).map(|text| text[length - 1]).collect();
                    engine.decode(&mut cache, &next, &mut found);
                }
                let expected: Vec<f64> = (0..streams)
                    .flat_map(|s| rows[(s * model.max_len + length - 1) * v..][..v].to_vec())
                    .collect();
                assert!(apart(&found, &expected, 1.0) <= 1e-5, "{what}: after {length} from {start}");
            }
            // What is not a number comes to light wherever it is.
            for tensor in &layout.tensors {
                engine.with_state(&mut |state| {
                    state.parameters.copy_from_slice(&parameters);
                    state.parameters[tensor.range.clone()].fill(f32::NAN);
                });
                let loss = engine.gradient(batch, &mut gradient).loss;
                assert!(loss.is_nan(), "{what}: {loss} in spite of {}", tensor.name);
            }
        }
    }
}

#[test]
fn training_of_any_model_on_any_threads() {
    for case in 0..CASES {
        let draws = Draws::new(1000 + case);
        let model = draws.model();
        let layout = Layout::new(&model);
        let parameters = draws.parameters(&layout);
        let (windows, t) = (1 + draws.below(40), 1 + draws.below(model.max_len));
        let (update, precision) = (draws.update(), draws.one_of(&[Precision::F32, Precision::Half]));
        // The batch grows, is evaluated in another size, and goes on.
        let batches: Vec<Symbols> = [windows.div_ceil(4), windows.div_ceil(4), windows, windows]
            .map(|windows| Symbols::new(&draws, windows, t, model.vocabulary))
            .into();
        let other =
            Symbols::new(&draws, 1 + draws.below(70), 1 + draws.below(model.max_len), model.vocabulary);
        let what = format!("case {case}, {precision:?}, {update:?}, {windows} of {t}: {model:?}");
        // All bits after each step; half way the engine is another one, with the state of the first.
        let trained = |threads: [usize; 4], carried: bool| {
            let shape = Shape { batch_size: windows, sequence_length: t };
            let make = |threads| {
                let mut engine =
                    CpuEngine::with_precision(precision, model, &parameters, threads, shape).unwrap();
                engine.keep_average(true);
                engine
            };
            let mut engine = make(threads[0]);
            let (mut bits, mut scores) = (Vec::new(), Scores::default());
            for (step, (batch, threads)) in batches.iter().zip(threads).enumerate() {
                if carried && step == 2 {
                    let state = engine.state();
                    let mut new = make(threads);
                    new.with_state(&mut |own| {
                        own.parameters.copy_from_slice(state.parameters);
                        own.first_moment.copy_from_slice(state.first_moment);
                        own.second_moment.copy_from_slice(state.second_moment);
                        own.average.copy_from_slice(state.average);
                    });
                    engine = new;
                }
                engine.set_threads(threads);
                engine.draw_masks(7, step as u64 + 1);
                let average = if step == 0 { 1.0 } else { update.average };
                let loss =
                    engine.step(batch.batch(), &Update { number: step as u64 + 1, average, ..update }).loss;
                assert!(loss.is_finite(), "{what}: {loss}");
                engine.swap_average();
                engine.evaluate(other.batch(), &mut scores);
                engine.swap_average();
                let state = engine.state();
                for x in
                    [state.parameters, state.first_moment, state.second_moment, state.average, &scores.losses]
                {
                    assert!(x.iter().all(|x| x.is_finite()), "{what}");
                    bits.extend(x.iter().map(|x| x.to_bits()));
                }
            }
            bits
        };
        let one = trained([1; 4], false);
        assert!(trained([3, 2, 1, 4], false) == one, "{what}");
        assert!(trained([2, 2, 3, 3], true) == one, "{what}: carried over");
    }
}
