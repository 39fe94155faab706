//! Half precision: how far its gradients are from those of the plain reference in f64, whether the error leans to one side, and
//! that its results are the same bits wherever they come from.

use diapason_corpus::english::generate;
use diapason_engine::{Batch, CpuEngine, Engine, Precision, Scores, Shape, Update};
use diapason_model::{Architecture, Layout, ModelConfig, initialise};
use diapason_reference::loss_and_gradient;

/// Windows in a batch, characters in a window.
const B: usize = 24;
const T: usize = 32;

fn model(d_model: usize, n_heads: usize, tie_embeddings: bool) -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Seed,
        vocabulary: 27,
        d_model,
        n_heads,
        n_layers: 2,
        mlp_ratio: 4.0,
        max_len: 64,
        tie_embeddings,
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
    CpuEngine::with_precision(precision, model.clone(), parameters, threads, shape).unwrap()
}

fn update(number: u64) -> Update {
    Update { number, learning_rate: 2e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
}

/// Trains for some steps in half precision; the parameters.
fn trained(model: &ModelConfig, text: &[u8], seed: u64, steps: u64) -> Vec<f32> {
    let mut half = engine(Precision::Half, model, &initialise(model, seed), 1);
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
    for (d, heads, tied, steps) in [(128, 4, false, 0), (128, 4, false, 150), (72, 3, true, 100)] {
        let model = model(d, heads, tied);
        let parameters = trained(&model, &text, 5, steps);
        let (inputs, targets) = batch_of(&text, 1000);
        let wide: Vec<f64> = parameters.iter().map(|&p| f64::from(p)).collect();
        let (loss, expected) = loss_and_gradient(&model, &wide, &inputs, &targets, T);
        let batch = Batch { inputs: &inputs, targets: &targets, sequence_length: T };
        let mut found = vec![0.0; parameters.len()];
        let mut half = engine(Precision::Half, &model, &parameters, 1);
        let metrics = half.gradient(batch, &mut found);
        println!("{d} {steps} loss {loss} off by {:.1e}", metrics.loss / loss - 1.0);
        assert!((metrics.loss / loss - 1.0).abs() < 1e-4, "loss {} for {loss}", metrics.loss);
        let mut largest = 0.0f64;
        for tensor in Layout::new(&model).tensors {
            // Keys' biases aside there is none whose gradient is zero by symmetry.
            let error = relative(&found[tensor.range.clone()], &expected[tensor.range.clone()]);
            println!("{} {:?} {error:.2e}", tensor.name, tensor.shape);
            largest = largest.max(error);
        }
        println!("{d} {steps}: {largest:.1e}");
    }
}
