//! The engine against the plain reference in `f64`, on sizes that a fast kernel can trip over: widths that are no
//! multiple of a vector, heads of one channel, one position, one window, one symbol, 256 symbols.
//!
//! Everything that the engine computes is covered, on each instruction set of the processor: gradient, update,
//! scores, logits of prefill and decode. Its weights go to the reference as they are, so all that may differ
//! is rounding.

use diapason_engine::{Batch, CpuEngine, Engine, Precision, Scores, Shape, Update};
use diapason_kernels::Isa;
use diapason_model::{Architecture, Layout, ModelConfig};
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
        CpuEngine::with_isa(isa, Precision::F32, self.model.clone(), &self.parameters, threads, shape)
            .unwrap()
    }

    fn wide(&self) -> Vec<f64> {
        widen(&self.parameters)
    }
}

fn symbols(step: u64, n: usize, vocabulary: usize) -> Vec<u8> {
    let stream = Stream::new(2, Purpose::Test, step);
    (0..n as u64).map(|i| stream.below(i, vocabulary as u64) as u8).collect()
}

/// (what, (V, D, H, L, mlp_ratio, max_len, tied), (B, T))
type Sizes = (&'static str, (usize, usize, usize, usize, f64, usize, bool), (usize, usize));

fn cases() -> Vec<Case> {
    let sizes: [Sizes; 17] = [
        ("all even", (27, 32, 4, 2, 4.0, 16, false), (4, 16)),
        ("width 20, T below max_len", (27, 20, 2, 2, 2.5, 11, false), (3, 7)),
        ("heads of one channel", (5, 7, 7, 2, 1.0, 8, false), (2, 5)),
        ("width 1", (3, 1, 1, 2, 4.0, 4, false), (2, 3)),
        ("width 2, tied", (4, 2, 1, 1, 0.5, 4, true), (3, 4)),
        ("one position", (27, 24, 3, 2, 4.0, 1, false), (6, 1)),
        ("one window", (27, 48, 4, 1, 4.0, 12, false), (1, 9)),
        ("one window of one position, tied", (27, 18, 2, 2, 4.0, 12, true), (1, 1)),
        ("one symbol", (1, 16, 2, 1, 4.0, 6, false), (2, 4)),
        ("two symbols, tied", (2, 17, 1, 2, 2.0, 6, true), (5, 3)),
        ("256 symbols, narrow MLP", (256, 18, 3, 1, 0.5, 8, false), (2, 6)),
        ("256 symbols, tied", (256, 40, 5, 1, 2.5, 8, true), (3, 8)),
        ("odd head size, three layers", (27, 51, 3, 3, 4.0, 9, false), (7, 9)),
        ("more windows than shards", (27, 12, 2, 1, 4.0, 5, false), (67, 3)),
        ("longer than a tile", (45, 96, 2, 1, 4.0, 80, true), (5, 70)),
        ("longer than two tiles", (27, 24, 2, 1, 1.0, 150, false), (2, 150)),
        ("wider than a rectangle", (27, 264, 3, 1, 2.5, 4, false), (2, 3)),
    ];
    sizes
        .into_iter()
        .map(
            |(what, (vocabulary, d_model, n_heads, n_layers, mlp_ratio, max_len, tie_embeddings), (b, t))| {
                let model = ModelConfig {
                    architecture: Architecture::Seed,
                    vocabulary,
                    d_model,
                    n_heads,
                    n_layers,
                    mlp_ratio,
                    max_len,
                    tie_embeddings,
                }
                .validated()
                .unwrap();
                // Every tensor random, biases and scales too, so that every path carries numbers.
                let layout = Layout::new(&model);
                let mut parameters = vec![0.0; layout.total];
                for (index, tensor) in layout.tensors.iter().enumerate() {
                    let stream = Stream::new(1, Purpose::Test, index as u64);
                    let (shift, std) = match (tensor.name.ends_with("scale"), tensor.shape.len()) {
                        (true, _) => (1.0, 0.2),
                        (false, 2) => (0.0, (tensor.shape[0] as f64).powf(-0.5)),
                        _ => (0.0, 0.2),
                    };
                    for (i, p) in parameters[tensor.range.clone()].iter_mut().enumerate() {
                        *p = (shift + std * stream.normal(i as u64)) as f32;
                    }
                }
                let (inputs, targets) = (symbols(1, b * t, vocabulary), symbols(2, b * t, vocabulary));
                Case { what, model, parameters, sequence_length: t, inputs, targets }
            },
        )
        .collect()
}

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
        let (loss, expected) =
            loss_and_gradient(&case.model, &case.wide(), batch.inputs, batch.targets, batch.sequence_length);
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

#[test]
fn updates_are_adam_on_the_gradient() {
    for (case, isa) in cases_and_isas() {
        let mut engine = case.engine(isa, 2);
        let mut expected = (case.wide(), vec![0.0; case.parameters.len()], vec![0.0; case.parameters.len()]);
        for number in 1..=3 {
            let what = format!("{}, {isa}: update {number}", case.what);
            // Not the usual numbers, so that each of them shows; epsilon as large as some gradients.
            let update = Update { number, learning_rate: 0.01, beta1: 0.8, beta2: 0.95, epsilon: 1e-3 };
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
