//! The number of threads may change between any two calls, and no bit of a result does.

use diapason_engine::{Batch, CpuEngine, Engine, Precision, Scores, Shape, Update};
use diapason_model::{Architecture, ModelConfig, initialise};
use diapason_random::{Purpose, Stream};

const SHAPE: Shape = Shape { batch_size: 9, sequence_length: 12 };

fn engine(precision: Precision, threads: usize) -> CpuEngine {
    let model = ModelConfig {
        architecture: Architecture::Seed,
        vocabulary: 27,
        d_model: 40,
        n_heads: 4,
        n_layers: 2,
        mlp_ratio: 2.5,
        max_len: 16,
        tie_embeddings: false,
    };
    CpuEngine::with_precision(precision, model.clone(), &initialise(&model, 1), threads, SHAPE).unwrap()
}

/// Everything that an engine computes, on 1 + (step x `more`) % 5 threads.
fn computed(precision: Precision, more: usize) -> (Vec<u64>, Vec<u32>, Scores) {
    let mut engine = engine(precision, 1);
    let mut losses = Vec::new();
    let n = SHAPE.batch_size * SHAPE.sequence_length;
    let symbols = |step: u64| -> Vec<u8> {
        let stream = Stream::new(3, Purpose::Test, step);
        (0..=n as u64).map(|i| stream.below(i, 27) as u8).collect()
    };
    for step in 0..8 {
        let threads = 1 + (step as usize * more) % 5;
        engine.set_threads(threads);
        assert_eq!(engine.threads(), threads);
        let symbols = symbols(step);
        let batch = Batch { inputs: &symbols[..n], targets: &symbols[1..], sequence_length: 12 };
        let update =
            Update { number: step + 1, learning_rate: 1e-2, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
        losses.push(engine.step(batch, &update).loss.to_bits());
    }
    let symbols = symbols(8);
    let mut scores = Scores::default();
    engine.set_threads(1 + more % 5);
    engine
        .evaluate(Batch { inputs: &symbols[..n], targets: &symbols[1..], sequence_length: 12 }, &mut scores);
    (losses, engine.state().parameters.iter().map(|p| p.to_bits()).collect(), scores)
}

#[test]
fn threads_come_and_go_and_no_bit_changes() {
    for precision in [Precision::F32, Precision::Half] {
        let one = computed(precision, 0);
        for more in 1..=4 {
            assert!(computed(precision, more) == one, "{precision:?} {more}");
        }
    }
}

#[test]
fn there_is_always_one_thread() {
    let mut engine = engine(Precision::F32, 3);
    engine.set_threads(0);
    assert_eq!(engine.threads(), 1);
}
