//! The number of threads may change between any two calls, and no bit of a result does.

use diapason_engine::{Batch, CpuEngine, Engine, Precision, Scores, Shape, Update};
use diapason_model::{ModelConfig, Norm, Positions, initialise};
use diapason_random::{Purpose, Stream};

const SHAPE: Shape = Shape { batch_size: 9, sequence_length: 12 };

fn engine(parts: ModelConfig, precision: Precision, threads: usize) -> CpuEngine {
    let model = ModelConfig { d_model: 40, n_heads: 4, n_layers: 2, mlp_ratio: 2.5, max_len: 16, ..parts };
    CpuEngine::with_precision(precision, model, &initialise(&model, 1), threads, SHAPE).unwrap()
}

/// Everything that an engine computes, on 1 + (step x `more`) % 5 threads.
fn computed(parts: ModelConfig, precision: Precision, more: usize) -> (Vec<u64>, Vec<u32>, Scores) {
    let mut engine = engine(parts, precision, 1);
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
        let update = Update { number: step + 1, learning_rate: 1e-2, ..Update::default() };
        engine.draw_masks(5, step + 1);
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
    let seed = ModelConfig::default();
    let other = ModelConfig {
        norm: Norm::RmsNorm,
        positions: Positions::Rotary,
        qk_norm: true,
        embedding_norm: true,
        ngram_table: 4,
        ngram_rows: 3000,
        value_residual: true,
        embedding_residual: true,
        dropout: 0.2,
        ..seed
    };
    for (parts, precision) in
        [seed, other].into_iter().flat_map(|parts| [(parts, Precision::F32), (parts, Precision::Half)])
    {
        let one = computed(parts, precision, 0);
        for more in 1..=4 {
            assert!(computed(parts, precision, more) == one, "{precision:?} {more}");
        }
    }
}

#[test]
fn masks_depend_on_seed_and_update() {
    let losses = |masks: &[(u64, u64)]| -> Vec<u64> {
        let mut engine = engine(ModelConfig { dropout: 0.5, ..ModelConfig::default() }, Precision::F32, 2);
        let symbols = vec![1; SHAPE.batch_size * SHAPE.sequence_length];
        let batch = Batch { inputs: &symbols, targets: &symbols, sequence_length: 12 };
        let mut gradient = vec![0.0; engine.model().parameters()];
        let mut loss = |&(seed, update)| {
            engine.draw_masks(seed, update);
            engine.gradient(batch, &mut gradient).loss.to_bits()
        };
        masks.iter().map(&mut loss).collect()
    };
    let drawn = losses(&[(1, 1), (1, 2), (2, 1), (1, 1)]);
    assert_eq!(drawn[0], drawn[3]);
    assert!(drawn[0] != drawn[1] && drawn[0] != drawn[2] && drawn[1] != drawn[2], "{drawn:?}");
}

#[test]
fn there_is_always_one_thread() {
    let mut engine = engine(ModelConfig::default(), Precision::F32, 3);
    engine.set_threads(0);
    assert_eq!(engine.threads(), 1);
}
