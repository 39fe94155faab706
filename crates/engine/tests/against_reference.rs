//! The engine against the plain reference in `f64`, on sizes that a fast kernel can trip over: widths that are no
//! multiple of a vector, heads of one channel, one position, one window, one symbol, 256 symbols.
//!
//! Everything that the engine computes is covered, on each instruction set of the processor: gradient, update,
//! scores, logits of prefill and decode. Its weights go to the reference as they are, so all that may differ
//! is rounding.

use diapason_engine::{Batch, CpuEngine, Engine, Precision, Scores, Shape, Update};
use diapason_kernels::Isa;
use diapason_model::{Activation, Layout, LossPositions, ModelConfig, Norm, Positions};
use diapason_random::{Purpose, Stream};
use diapason_reference::{adam, cross_entropy, logits, loss_and_gradient};

/// Losses and logits, relative to the largest of them (or to 1).
const LOGITS: f64 = 2e-6;
/// Gradients, relative to the largest of the tensor.
const GRADIENT: f64 = 1e-5;
/// And a gradient that is zero or nearly so, relative to the largest of all tensors.
const GRADIENT_FLOOR: f64 = 1e-6;

/// One model with weights and a batch.
struct Case {
    what: &'static str,
    model: ModelConfig,
    parameters: Vec<f32>,
    sequence_length: usize,
    inputs: Vec<u8>,
    targets: Vec<u8>,
}

impl Case {
    fn batch(&self) -> Batch<'_> {
        Batch { inputs: &self.inputs, targets: &self.targets, sequence_length: self.sequence_length }
    }

    fn windows(&self) -> usize {
        self.inputs.len() / self.sequence_length
    }

    fn engine(&self, isa: Isa, threads: usize) -> CpuEngine {
        let shape = Shape { batch_size: self.windows(), sequence_length: self.sequence_length };
        let mut engine =
            CpuEngine::with_isa(isa, Precision::F32, self.model, &self.parameters, threads, shape).unwrap();
        engine.draw_masks(MASKS.0, MASKS.1);
        engine
    }

    fn wide(&self) -> Vec<f64> {
        widen(&self.parameters)
    }
}

fn symbols(step: u64, n: usize, vocabulary: usize) -> Vec<u8> {
    let stream = Stream::new(2, Purpose::Test, step);
    (0..n as u64).map(|i| stream.below(i, vocabulary as u64) as u8).collect()
}

/// (what, (V, D, H, L, mlp_ratio, max_len), parts, (B, T))
type Sizes = (&'static str, (usize, usize, usize, usize, f64, usize), ModelConfig, (usize, usize));

fn cases() -> Vec<Case> {
    let seed = ModelConfig::default();
    let tied = ModelConfig { tie_embeddings: true, ..seed };
    let fast = ModelConfig {
        norm: Norm::RmsNorm,
        positions: Positions::Rotary,
        activation: Activation::ReluSquared,
        mlp_bias: false,
        qk_norm: true,
        logit_softcap: 2.0,
        embedding_norm: true,
        ngram_table: 2,
        value_residual: true,
        ..seed
    };
    let other = ModelConfig {
        positions: Positions::Sinusoidal,
        activation: Activation::Swiglu,
        ngram_table: 5,
        ngram_rows: 300,
        embedding_residual: true,
        dropout: 0.3,
        loss_positions: LossPositions::Last,
        ..seed
    };
    let sizes: Vec<Sizes> = vec![
        ("all even", (27, 32, 4, 2, 4.0, 16), seed, (4, 16)),
        ("width 20, T below max_len", (27, 20, 2, 2, 2.5, 11), seed, (3, 7)),
        ("heads of one channel", (5, 7, 7, 2, 1.0, 8), seed, (2, 5)),
        ("width 1", (3, 1, 1, 2, 4.0, 4), seed, (2, 3)),
        ("width 2, tied", (4, 2, 1, 1, 0.5, 4), tied, (3, 4)),
        ("one position", (27, 24, 3, 2, 4.0, 1), seed, (6, 1)),
        ("one window", (27, 48, 4, 1, 4.0, 12), seed, (1, 9)),
        ("one window of one position, tied", (27, 18, 2, 2, 4.0, 12), tied, (1, 1)),
        ("one symbol", (1, 16, 2, 1, 4.0, 6), seed, (2, 4)),
        ("two symbols, tied", (2, 17, 1, 2, 2.0, 6), tied, (5, 3)),
        ("256 symbols, narrow MLP", (256, 18, 3, 1, 0.5, 8), seed, (2, 6)),
        ("256 symbols, tied", (256, 40, 5, 1, 2.5, 8), tied, (3, 8)),
        ("odd head size, three layers", (27, 51, 3, 3, 4.0, 9), seed, (7, 9)),
        ("more windows than shards", (27, 12, 2, 1, 4.0, 5), seed, (67, 3)),
        ("longer than a tile", (45, 96, 2, 1, 4.0, 80), tied, (5, 70)),
        ("longer than two tiles", (27, 24, 2, 1, 1.0, 150), seed, (2, 150)),
        ("wider than a rectangle", (27, 264, 3, 1, 2.5, 4), seed, (2, 3)),
        ("fast", (27, 32, 4, 3, 4.0, 16), fast, (4, 16)),
        ("fast, odd heads", (27, 51, 3, 3, 2.0, 9), fast, (7, 9)),
        ("fast, heads of one channel", (5, 7, 7, 2, 1.0, 8), fast, (2, 5)),
        (
            "fast, tied, one window",
            (27, 48, 4, 2, 4.0, 12),
            ModelConfig { tie_embeddings: true, ..fast },
            (1, 9),
        ),
        ("fast, one position, 256 symbols", (256, 24, 3, 2, 1.0, 1), fast, (6, 1)),
        ("fast, longer than two tiles", (27, 24, 2, 2, 1.0, 150), fast, (2, 150)),
        ("fast, more windows than shards", (27, 12, 2, 2, 4.0, 5), fast, (67, 3)),
        ("other", (27, 32, 4, 3, 4.0, 16), other, (4, 16)),
        ("other, odd width", (5, 51, 3, 3, 2.0, 9), other, (7, 8)),
        ("other, many windows", (4, 12, 2, 2, 1.5, 5), other, (67, 3)),
        (
            "other, all positions, no bias, wide",
            (3, 264, 3, 2, 1.0, 4),
            ModelConfig { mlp_bias: false, loss_positions: LossPositions::All, ..other },
            (2, 3),
        ),
        (
            "hashed trigrams, ReLU",
            (256, 6, 2, 2, 2.0, 8),
            ModelConfig { ngram_table: 3, ngram_rows: 1 << 15, activation: Activation::Relu, ..seed },
            (2, 6),
        ),
        (
            "SiLU, no positions",
            (27, 20, 2, 2, 2.0, 8),
            ModelConfig { activation: Activation::Silu, positions: Positions::None, ..seed },
            (3, 7),
        ),
        (
            "dropout, tied, no bias",
            (27, 21, 3, 2, 2.0, 8),
            ModelConfig { dropout: 0.1, mlp_bias: false, ..tied },
            (40, 7),
        ),
        (
            "mixtures without a norm",
            (27, 20, 2, 4, 1.0, 8),
            ModelConfig { value_residual: true, embedding_residual: true, ..seed },
            (3, 7),
        ),
        (
            "mixtures of a norm, turned",
            (27, 30, 2, 3, 1.0, 8),
            ModelConfig {
                embedding_residual: true,
                positions: Positions::Rotary,
                ..ModelConfig { embedding_norm: true, ..seed }
            },
            (3, 7),
        ),
    ];
    sizes
        .into_iter()
        .map(|(what, (vocabulary, d_model, n_heads, n_layers, mlp_ratio, max_len), parts, (b, t))| {
            let model = ModelConfig { vocabulary, d_model, n_heads, n_layers, mlp_ratio, max_len, ..parts }
                .validated()
                .unwrap();
            // Every tensor random, biases and scales too, so that every path carries numbers.
            let layout = Layout::new(&model);
            let mut parameters = vec![0.0; layout.total];
            for (index, tensor) in layout.tensors.iter().enumerate() {
                let stream = Stream::new(1, Purpose::Test, index as u64);
                let (shift, std) = match (tensor.name.ends_with("scale"), tensor.shape.len()) {
                    (true, _) => (1.0, 0.2),
                    _ if tensor.name.ends_with("residual") => (0.6, 0.2),
                    _ if tensor.name == "ngram_embedding" => (0.0, 0.3),
                    (false, 2) => (0.0, (tensor.shape[0] as f64).powf(-0.5)),
                    _ => (0.0, 0.2),
                };
                for (i, p) in parameters[tensor.range.clone()].iter_mut().enumerate() {
                    *p = (shift + std * stream.normal(i as u64)) as f32;
                }
            }
            let (inputs, targets) = (symbols(1, b * t, vocabulary), symbols(2, b * t, vocabulary));
            Case { what, model, parameters, sequence_length: t, inputs, targets }
        })
        .collect()
}

/// What dropout leaves out in every test.
const MASKS: (u64, u64) = (9, 4);

/// Every case on every instruction set.
fn cases_and_isas() -> impl Iterator<Item = (Case, Isa)> {
    Isa::available().into_iter().flat_map(|isa| cases().into_iter().map(move |case| (case, isa)))
}

fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn largest(x: &[f64]) -> f64 {
    x.iter().fold(0.0, |a, x| a.max(x.abs()))
}

/// `got` is within `bound` x (the largest of `expected`, or `floor`) everywhere.
#[track_caller]
fn close(what: &str, got: &[f32], expected: &[f64], bound: f64, floor: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = largest(expected).max(floor);
    for (i, (&x, &y)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(x) - y).abs() / scale;
        // Written so that NaN fails.
        assert!(error <= bound, "{what}: number {i} is {x}, not {y}: error {error:.1e}");
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn loss_and_gradient_of_every_tensor() {
    for case in cases() {
        let (what, batch) = (case.what, case.batch());
        let masks = Stream::new(MASKS.0, Purpose::Dropout, MASKS.1);
        let (t, wide) = (batch.sequence_length, case.wide());
        let (loss, expected) =
            loss_and_gradient(&case.model, &wide, batch.inputs, batch.targets, t, Some(&masks));
        let layout = Layout::new(&case.model);
        for isa in Isa::available() {
            let what = format!("{what}, {isa}");
            // Numbers left over from before must not matter.
            let mut gradient = vec![f32::NAN; layout.total];
            let metrics = case.engine(isa, 1).gradient(batch, &mut gradient);
            let error = (metrics.loss - loss).abs() / loss.max(1.0);
            assert!(error <= LOGITS, "{what}: loss {}, not {loss}", metrics.loss);
            let floor = largest(&expected).max(1e-3) * GRADIENT_FLOOR / GRADIENT;
            for tensor in &layout.tensors {
                let range = tensor.range.clone();
                let what = format!("{what}: gradient of {}", tensor.name);
                close(&what, &gradient[range.clone()], &expected[range], GRADIENT, floor);
            }
            // The same bits on any number of threads, and again after a batch of another shape.
            for threads in [2, 3] {
                let mut engine = case.engine(isa, threads);
                for _ in 0..2 {
                    let mut again = vec![f32::NAN; layout.total];
                    let metrics_again = engine.gradient(batch, &mut again);
                    assert_eq!(bits(&gradient), bits(&again), "{what}: {threads} threads");
                    assert_eq!(metrics, metrics_again, "{what}: {threads} threads");
                    let t = batch.sequence_length.div_ceil(2);
                    let (inputs, targets) = (&batch.inputs[..t], &batch.targets[..t]);
                    engine.gradient(Batch { inputs, targets, sequence_length: t }, &mut again);
                }
            }
        }
    }
}

/// Rounding products to 12 bits moves gradients a little; what is rounded at the wrong moment, or twice, moves them far.
#[test]
fn half_precision_of_every_part() {
    for case in cases() {
        let (what, batch) = (case.what, case.batch());
        let masks = Stream::new(MASKS.0, Purpose::Dropout, MASKS.1);
        let (t, wide) = (batch.sequence_length, case.wide());
        let (loss, expected) =
            loss_and_gradient(&case.model, &wide, batch.inputs, batch.targets, t, Some(&masks));
        let shape = Shape { batch_size: case.windows(), sequence_length: t };
        let (precision, parameters) = (Precision::Half, &case.parameters);
        let mut engine = CpuEngine::with_precision(precision, case.model, parameters, 2, shape).unwrap();
        engine.draw_masks(MASKS.0, MASKS.1);
        let mut gradient = vec![f32::NAN; parameters.len()];
        let metrics = engine.gradient(batch, &mut gradient);
        assert!(
            (metrics.loss - loss).abs() <= 2e-3 * loss.max(1.0),
            "{what}: loss {}, not {loss}",
            metrics.loss
        );
        let square = |x: f64| x * x;
        let apart: f64 = gradient.iter().zip(&expected).map(|(x, y)| square(f64::from(*x) - y)).sum();
        let length: f64 = expected.iter().map(|y| square(*y)).sum();
        let error = (apart / length.max(1e-12)).sqrt();
        assert!(error <= 0.01, "{what}: the gradient is off by {error:.1e} of its length");
    }
}

#[test]
fn updates_are_adam_on_the_gradient() {
    for (case, isa) in cases_and_isas() {
        let mut engine = case.engine(isa, 2);
        let mut expected = (case.wide(), vec![0.0; case.parameters.len()], vec![0.0; case.parameters.len()]);
        for number in 1..=3 {
            let what = format!("{}, {isa}: update {number}", case.what);
            // Not the usual numbers, so that each of them shows; epsilon as large as some gradients.
            let update = Update {
                number,
                learning_rate: 0.01,
                beta1: 0.8,
                beta2: 0.95,
                epsilon: 1e-3,
                ..Update::default()
            };
            let mut gradient = vec![0.0; case.parameters.len()];
            let before = engine.gradient(case.batch(), &mut gradient);
            let metrics = engine.step(case.batch(), &update);
            assert_eq!(before, metrics, "{what}: step and gradient see the same loss");
            let (parameters, first, second) = &mut expected;
            adam::update(
                parameters,
                first,
                second,
                &widen(&gradient),
                &adam::Settings {
                    number,
                    learning_rate: f64::from(update.learning_rate),
                    beta1: f64::from(update.beta1),
                    beta2: f64::from(update.beta2),
                    epsilon: f64::from(update.epsilon),
                },
            );
            // A fused step may round the gradient's sums differently.
            let state = engine.state();
            // Tables of n-grams have a rule of their own: `updates.rs`.
            if let Some(range) = Layout::new(&case.model).ngram_embedding {
                for (expected, got) in [
                    (&mut *parameters, state.parameters),
                    (&mut *first, state.first_moment),
                    (&mut *second, state.second_moment),
                ] {
                    expected[range.clone()].copy_from_slice(&widen(&got[range.clone()]));
                }
            }
            close(&format!("{what}: m"), state.first_moment, first, 2e-6, 1e-6);
            close(&format!("{what}: v"), state.second_moment, second, 2e-6, 1e-6);
            close(&format!("{what}: parameters"), state.parameters, parameters, 1e-6, 1e-3);
        }
    }
}

#[test]
fn scores_of_any_windows() {
    for (case, isa) in cases_and_isas() {
        let mut engine = case.engine(isa, 2);
        let v = case.model.vocabulary;
        // More windows than a batch and an odd number of them; one window; and a shorter one.
        let t = case.sequence_length;
        for (windows, t) in [(2 * case.windows() + 1, t), (1, t), (3, t.div_ceil(2))] {
            let what = format!("{}, {isa}: {windows} windows of {t}", case.what);
            let (inputs, targets) = (symbols(3, windows * t, v), symbols(4, windows * t, v));
            let rows = logits(&case.model, &case.wide(), &inputs, t);
            let (losses, hits) = cross_entropy::forward(&rows, &targets, v);
            let mut scores = Scores::default();
            engine.evaluate(Batch { inputs: &inputs, targets: &targets, sequence_length: t }, &mut scores);
            close(&what, &scores.losses, &losses, LOGITS, 1.0);
            assert_eq!(scores.hits.len(), hits.len(), "{what}");
            for (i, row) in rows.chunks(v).enumerate() {
                let mut sorted = row.to_vec();
                sorted.sort_by(|a, b| b.total_cmp(a));
                // Where rounding may swap the two likeliest, either is right.
                let clear = v == 1 || sorted[0] - sorted[1] > LOGITS * largest(row).max(1.0);
                assert!(!clear || scores.hits[i] == hits[i], "{what}: hit at position {i}");
            }
        }
        assert_eq!(bits(&case.parameters), bits(engine.state().parameters), "{}: nothing changed", case.what);
    }
}

#[test]
fn of_equally_likely_symbols_the_first_is_the_guess() {
    for (case, isa) in cases_and_isas() {
        let mut engine = case.engine(isa, 1);
        engine.with_state(&mut |state| state.parameters.fill(0.0));
        let mut scores = Scores::default();
        engine.evaluate(case.batch(), &mut scores);
        let expected: Vec<bool> = case.targets.iter().map(|&target| target == 0).collect();
        assert_eq!(scores.hits, expected, "{}", case.what);
        close(
            case.what,
            &scores.losses,
            &vec![(case.model.vocabulary as f64).ln(); expected.len()],
            1e-6,
            1.0,
        );
    }
}

#[test]
fn logits_of_prefill_and_decode() {
    for (case, isa) in cases_and_isas() {
        let (v, t, streams) = (case.model.vocabulary, case.model.max_len, case.windows().min(11));
        let contexts = symbols(5, streams * t, v);
        let rows = logits(&case.model, &case.wide(), &contexts, t);
        // Logits [streams, V] after `length` symbols.
        let expected = |length: usize| -> Vec<f64> {
            (0..streams).flat_map(|s| rows[(s * t + length - 1) * v..][..v].to_vec()).collect()
        };
        let beginnings = |length: usize| -> Vec<u8> {
            (0..streams).flat_map(|s| contexts[s * t..][..length].to_vec()).collect()
        };
        let mut engine = case.engine(isa, 2);
        let mut cache = engine.cache(streams, t);
        // Prefill half, decode to the end of the table; prefill empties the cache for the next.
        for start in [1, t.div_ceil(2), t] {
            let what = format!("{}, {isa}: {start} of {t} positions at once", case.what);
            let mut got = vec![f32::NAN; streams * v];
            engine.prefill(&mut cache, &beginnings(start), &mut got);
            close(&what, &got, &expected(start), LOGITS, 1.0);
            for length in start + 1..=t {
                let next: Vec<u8> = (0..streams).map(|s| contexts[s * t + length - 1]).collect();
                engine.decode(&mut cache, &next, &mut got);
                close(&format!("{what}: decoded {length}"), &got, &expected(length), LOGITS, 1.0);
            }
        }
    }
}
