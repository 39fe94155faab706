//! Half precision: how far its gradients are from those of the plain reference in f64, whether the error leans to one side, and
//! that its results are the same bits wherever they come from.

use diapason_corpus::english::generate;
use diapason_engine::{Batch, CpuEngine, Engine, Precision, Scores, Shape, Update};
use diapason_model::{Layout, ModelConfig, initialise};
use diapason_reference::loss_and_gradient;

/// Windows in a batch, characters in a window.
const B: usize = 24;
const T: usize = 32;

fn model(d_model: usize, n_heads: usize, tie_embeddings: bool) -> ModelConfig {
    ModelConfig {
        vocabulary: 27,
        d_model,
        n_heads,
        n_layers: 2,
        mlp_ratio: 4.0,
        max_len: 64,
        tie_embeddings,
        ..ModelConfig::default()
    }
}

/// Inputs and targets of batch `number` from a text.
fn batch_of(text: &[u8], number: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut inputs, mut targets) = (Vec::new(), Vec::new());
    for w in 0..B {
        let at = (number * B + w) * 977 % (text.len() - T - 1);
        inputs.extend(&text[at..at + T]);
        targets.extend(&text[at + 1..at + T + 1]);
    }
    (inputs, targets)
}

/// A text that can be learned.
fn text() -> Vec<u8> {
    generate(200_000, 3)
}

fn engine(precision: Precision, model: &ModelConfig, parameters: &[f32], threads: usize) -> CpuEngine {
    let shape = Shape { batch_size: B, sequence_length: T };
    CpuEngine::with_precision(precision, *model, parameters, threads, shape).unwrap()
}

fn update(number: u64) -> Update {
    Update { number, learning_rate: 2e-3, ..Update::default() }
}

/// Trains for some steps in half precision; the parameters.
fn trained(model: &ModelConfig, text: &[u8], seed: u64, steps: u64) -> Vec<f32> {
    let mut half = engine(Precision::Half, model, &initialise(model, seed), 2);
    for step in 1..=steps {
        let (inputs, targets) = batch_of(text, step as usize);
        let batch = Batch { inputs: &inputs, targets: &targets, sequence_length: T };
        assert!(half.step(batch, &update(step)).loss.is_finite());
    }
    half.state().parameters.to_vec()
}

/// |x - y| / |y|, root mean square.
fn relative(x: &[f32], y: &[f64]) -> f64 {
    let square = |x: f64| x * x;
    let d: f64 = x.iter().zip(y).map(|(x, y)| square(f64::from(*x) - y)).sum();
    (d / y.iter().map(|y| square(*y)).sum::<f64>()).sqrt()
}

#[test]
fn gradients_are_near_those_of_the_reference() {
    let text = text();
    for (d, heads, tied, steps) in [(128, 4, false, 0), (128, 4, false, 24), (72, 3, true, 12)] {
        let model = model(d, heads, tied);
        let parameters = trained(&model, &text, 5, steps);
        let (inputs, targets) = batch_of(&text, 1000);
        let wide: Vec<f64> = parameters.iter().map(|&p| f64::from(p)).collect();
        let (loss, expected) = loss_and_gradient(&model, &wide, &inputs, &targets, T, None);
        let batch = Batch { inputs: &inputs, targets: &targets, sequence_length: T };
        let mut found = vec![0.0; parameters.len()];
        let metrics = engine(Precision::Half, &model, &parameters, 1).gradient(batch, &mut found);
        assert!((metrics.loss / loss - 1.0).abs() < 1e-4, "loss {} for {loss}", metrics.loss);
        for tensor in Layout::new(&model).tensors {
            let error = relative(&found[tensor.range.clone()], &expected[tensor.range.clone()]);
            assert!(error <= 3e-3, "{d} {steps} {}: {error:.1e}", tensor.name);
            // Far more than in f32, so half precision was at work.
            assert!(error > 2e-5, "{d} {steps} {}: {error:.1e}", tensor.name);
        }
    }
}

#[test]
fn the_error_leans_to_no_side() {
    let (text, model) = (text(), model(48, 4, false));
    let layout = Layout::new(&model);
    // For each tensor the error along the gradient, as a share of it: a bias would make steps longer or shorter.
    let mut shares = vec![Vec::new(); layout.tensors.len()];
    for seed in 0..24 {
        let parameters = initialise(&model, seed);
        let (inputs, targets) = batch_of(&text, seed as usize);
        let batch = Batch { inputs: &inputs, targets: &targets, sequence_length: T };
        let gradient = |precision| {
            let mut gradient = vec![0.0; parameters.len()];
            engine(precision, &model, &parameters, 1).gradient(batch, &mut gradient);
            gradient
        };
        let (half, single) = (gradient(Precision::Half), gradient(Precision::F32));
        for (tensor, shares) in layout.tensors.iter().zip(&mut shares) {
            let pairs = || half[tensor.range.clone()].iter().zip(&single[tensor.range.clone()]);
            let error: f64 = pairs().map(|(h, s)| f64::from(h - s) * f64::from(*s)).sum();
            shares.push(error / pairs().map(|(_, s)| f64::from(*s) * f64::from(*s)).sum::<f64>());
        }
    }
    let mut worst = 0.0f64;
    for (tensor, shares) in layout.tensors.iter().zip(&shares) {
        let n = shares.len() as f64;
        let mean = shares.iter().sum::<f64>() / n;
        let variance = shares.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0);
        let t = mean / (variance / n).sqrt();
        worst = worst.max(t.abs());
        assert!(mean.abs() < 2e-4, "{}: {mean:.1e}", tensor.name);
        assert!(variance > 0.0, "{}", tensor.name);
    }
    // The largest of 30 values of Student's t with 23 degrees of freedom: above 4.5 once in 200 times by chance; the data never change.
    assert!(worst < 4.5, "{worst}");
}

#[test]
fn awkward_sizes() {
    // d_model, heads, vocabulary, tied, windows, characters: among them chunks of one row, and one more row than chunks have.
    for (d, heads, vocabulary, tied, windows, t) in [
        (7, 7, 5, false, 2, 5),
        (20, 2, 27, true, 1, 129),
        (40, 5, 256, false, 3, 64),
        (136, 4, 27, false, 2, 33),
        (24, 3, 27, true, 6, 1),
        (1, 1, 3, false, 2, 3),
    ] {
        let model = ModelConfig { max_len: t, vocabulary, ..model(d, heads, tied) };
        let parameters = initialise(&model, 3);
        let symbols: Vec<u8> = (0..=windows * t).map(|i| (i * i * 7 % 251 % vocabulary) as u8).collect();
        let batch = Batch { inputs: &symbols[..windows * t], targets: &symbols[1..], sequence_length: t };
        let shape = Shape { batch_size: windows, sequence_length: t };
        let gradient = |precision| {
            let mut engine = CpuEngine::with_precision(precision, model, &parameters, 2, shape).unwrap();
            let mut gradient = vec![0.0; parameters.len()];
            let loss = engine.gradient(batch, &mut gradient).loss;
            // The second time everything has been rounded in place before.
            let mut again = vec![0.0; parameters.len()];
            assert_eq!(engine.gradient(batch, &mut again).loss.to_bits(), loss.to_bits());
            assert_eq!(again, gradient);
            (loss, gradient)
        };
        let ((half_loss, half), (loss, single)) = (gradient(Precision::Half), gradient(Precision::F32));
        let single: Vec<f64> = single.iter().map(|&x| f64::from(x)).collect();
        let error = relative(&half, &single);
        assert!(
            error < 3e-3 && (half_loss / loss - 1.0).abs() < 1e-3,
            "{d} {t}: {error:.1e}, {half_loss} {loss}"
        );
    }
}

#[test]
fn a_run_moves_between_engines_and_precisions() {
    let (text, model) = (text(), model(64, 4, false));
    let step = |engine: &mut CpuEngine, number: u64| {
        let (inputs, targets) = batch_of(&text, number as usize);
        engine.step(Batch { inputs: &inputs, targets: &targets, sequence_length: T }, &update(number)).loss
    };
    let start = initialise(&model, 1);
    let mut whole = engine(Precision::Half, &model, &start, 1);
    let losses: Vec<f64> = (1..=6).map(|n| step(&mut whole, n)).collect();
    // The same in two pieces on other numbers of threads, the state carried over as a checkpoint does.
    let mut first = engine(Precision::Half, &model, &start, 2);
    let mut found: Vec<f64> = (1..=3).map(|n| step(&mut first, n)).collect();
    let carry = |from: &CpuEngine, precision| {
        let mut to = engine(precision, &model, &start, 3);
        let state = from.state();
        to.with_state(&mut |own| {
            own.parameters.copy_from_slice(state.parameters);
            own.first_moment.copy_from_slice(state.first_moment);
            own.second_moment.copy_from_slice(state.second_moment);
        });
        to
    };
    let mut second = carry(&first, Precision::Half);
    found.extend((4..=6).map(|n| step(&mut second, n)));
    assert_eq!(found, losses);
    assert_eq!(second.state().parameters, whole.state().parameters);
    // In f32 it goes on with the very same parameters, a little differently.
    let mut single = carry(&first, Precision::F32);
    assert_eq!(single.state().parameters, first.state().parameters);
    let loss = step(&mut single, 4);
    assert!(loss != losses[3] && (loss - losses[3]).abs() < 1e-4, "{loss} {}", losses[3]);
    assert_eq!([&single, &second].map(|engine| engine.id().precision.as_str()), ["f32", "half"]);
}

#[test]
fn scores_do_not_depend_on_the_company() {
    let (text, model) = (text(), model(64, 4, false));
    let mut half = engine(Precision::Half, &model, &initialise(&model, 1), 2);
    let (inputs, targets) = batch_of(&text, 1);
    let (mut all, mut one) = (Scores::default(), Scores::default());
    half.evaluate(Batch { inputs: &inputs, targets: &targets, sequence_length: T }, &mut all);
    for w in 0..B {
        let own = w * T..(w + 1) * T;
        let (inputs, targets) = (&inputs[own.clone()], &targets[own.clone()]);
        half.evaluate(Batch { inputs, targets, sequence_length: T }, &mut one);
        assert_eq!(one.losses, all.losses[own]);
    }
}

#[test]
fn what_is_not_finite_comes_to_light() {
    let (text, model) = (text(), model(64, 4, false));
    let (inputs, targets) = batch_of(&text, 1);
    let batch = Batch { inputs: &inputs, targets: &targets, sequence_length: T };
    for tensor in Layout::new(&model).tensors {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut parameters = initialise(&model, 1);
            parameters[tensor.range.start] = bad;
            let mut engine = engine(Precision::Half, &model, &parameters, 1);
            // The first row of the embedding is that of a frequent symbol; every position of the others is in use.
            assert!(!engine.step(batch, &update(1)).loss.is_finite(), "{} {bad}", tensor.name);
        }
    }
}
