//! Generation: the same bits on any number of threads and beside any number of other streams, and what reading the
//! whole context gives.

use diapason_engine::{CpuEngine, Engine, Shape};
use diapason_model::{ModelConfig, initialise};

const V: usize = 27;

/// Wide enough for the threads to share products, and no multiple of a vector.
fn engine(d_model: usize, threads: usize) -> CpuEngine {
    let model = ModelConfig {
        vocabulary: V,
        d_model,
        n_heads: 4,
        n_layers: 2,
        mlp_ratio: 4.0,
        max_len: 16,
        tie_embeddings: false,
        ..ModelConfig::default()
    };
    let parameters = initialise(&model, 3);
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
    for d_model in [32, 132] {
        let streams: Vec<usize> = (0..19).collect();
        let together = decoded(&mut engine(d_model, 1), &streams);
        for threads in [1, 2, 3] {
            let mut engine = engine(d_model, threads);
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
    let mut engine = engine(132, 2);
    for (i, row) in decoded(&mut engine, &[5]).iter().enumerate() {
        let context: Vec<u8> = (0..5 + i).map(|p| symbol(5, p)).collect();
        let (mut cache, mut anew) = (engine.cache(1, 16), vec![0.0; V]);
        engine.prefill(&mut cache, &context, &mut anew);
        for (a, b) in row.iter().zip(&anew) {
            assert!((a - b).abs() < 1e-4, "{i}: {a} {b}");
        }
    }
}
