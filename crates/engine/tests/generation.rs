//! Generation: the same bits on any number of threads and beside any number of other streams, and what reading the
//! whole context gives.

use diapason_engine::{CpuEngine, Engine, Shape};
use diapason_model::{Activation, Layout, ModelConfig, Norm, Positions, initialise};

const V: usize = 27;

/// The notebook's model, and two that between them have every part that generation treats in its own way.
fn parts() -> [ModelConfig; 3] {
    let seed = ModelConfig { vocabulary: V, ..ModelConfig::default() };
    let fast = ModelConfig {
        norm: Norm::RmsNorm,
        positions: Positions::Rotary,
        activation: Activation::ReluSquared,
        mlp_bias: false,
        qk_norm: true,
        logit_softcap: 15.0,
        embedding_norm: true,
        ngram_table: 8,
        ngram_rows: 500,
        value_residual: true,
        ..seed
    };
    let gated = ModelConfig {
        positions: Positions::Sinusoidal,
        activation: Activation::Swiglu,
        ngram_table: 2,
        embedding_residual: true,
        ..seed
    };
    [seed, fast, gated]
}

/// Wide enough for the threads to share products, and no multiple of a vector.
fn engine(parts: ModelConfig, d_model: usize, threads: usize) -> CpuEngine {
    let model = ModelConfig { d_model, n_heads: 4, n_layers: 2, mlp_ratio: 4.0, max_len: 16, ..parts };
    let mut parameters = initialise(&model, 3);
    // What starts at zero would hide where it is looked up.
    if let Some(range) = Layout::new(&model).ngram_embedding {
        let from = parameters[..range.len() % 1000].to_vec();
        parameters[range].iter_mut().zip(from.iter().cycle()).for_each(|(p, x)| *p = 0.5 * x);
    }
    let shape = Shape { batch_size: 1, sequence_length: 16 };
    CpuEngine::new(model, &parameters, threads, shape).unwrap()
}

/// The symbol of a stream at a position.
fn symbol(stream: usize, position: usize) -> u8 {
    ((stream * 7 + position * 11 + stream * position) % V) as u8
}

/// Logits [position, stream, V] of `streams`, read with a prefill of five positions and then one at a time.
fn decoded(engine: &mut CpuEngine, streams: &[usize]) -> Vec<Vec<f32>> {
    let mut cache = engine.cache(streams.len(), 16);
    let mut logits = vec![0.0; streams.len() * V];
    let context: Vec<u8> = streams.iter().flat_map(|&s| (0..5).map(move |p| symbol(s, p))).collect();
    engine.prefill(&mut cache, &context, &mut logits);
    let mut all = vec![logits.clone()];
    for position in 5..16 {
        let symbols: Vec<u8> = streams.iter().map(|&s| symbol(s, position)).collect();
        engine.decode(&mut cache, &symbols, &mut logits);
        all.push(logits.clone());
    }
    all
}

#[test]
fn the_same_bits_on_any_threads_and_beside_any_streams() {
    for (parts, d_model) in parts().into_iter().flat_map(|parts| [(parts, 32), (parts, 132)]) {
        let streams: Vec<usize> = (0..19).collect();
        let together = decoded(&mut engine(parts, d_model, 1), &streams);
        for threads in [1, 2, 3] {
            let mut engine = engine(parts, d_model, threads);
            assert_eq!(decoded(&mut engine, &streams), together, "{threads} threads");
            for few in [&streams[..1], &streams[4..6], &streams[7..12], &streams[3..18]] {
                for (position, (own, all)) in decoded(&mut engine, few).iter().zip(&together).enumerate() {
                    let expected = &all[few[0] * V..(few[0] + few.len()) * V];
                    assert_eq!(own, expected, "d {d_model}, {threads} threads, {few:?}, {position}");
                }
            }
        }
    }
}

#[test]
fn a_position_more_is_as_reading_all_anew() {
    for parts in parts() {
        let mut engine = engine(parts, 132, 2);
        for (i, row) in decoded(&mut engine, &[5]).iter().enumerate() {
            let context: Vec<u8> = (0..5 + i).map(|p| symbol(5, p)).collect();
            let (mut cache, mut anew) = (engine.cache(1, 16), vec![0.0; V]);
            engine.prefill(&mut cache, &context, &mut anew);
            for (a, b) in row.iter().zip(&anew) {
                assert!((a - b).abs() < 1e-4, "{i}: {a} {b}");
            }
        }
    }
}
