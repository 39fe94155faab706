//! Generation on the real engine: keys and values that are kept give what reading the context anew gives.

use diapason_engine::{CpuEngine, Engine, Shape};
use diapason_generation::{Request, generate};
use diapason_model::{ModelConfig, initialise};
use std::ops::ControlFlow;

#[test]
fn the_cache_changes_nothing() {
    let model = ModelConfig {
        vocabulary: 27,
        d_model: 48,
        n_heads: 4,
        n_layers: 3,
        mlp_ratio: 2.0,
        max_len: 20,
        tie_embeddings: false,
        ..ModelConfig::default()
    };
    // Weights of a size at which the predictions are far from equal.
    let parameters: Vec<f32> = initialise(&model, 1).iter().map(|x| 3.0 * x).collect();
    let shape = Shape { batch_size: 1, sequence_length: 12 };
    let mut engine = CpuEngine::new(model, &parameters, 1, shape).unwrap();
    let request = Request {
        prompt: vec![3, 1, 4, 1, 5],
        start: 26,
        length: 100,
        temperature: 0.0,
        top_k: None,
        seeds: vec![0],
        context: 12,
    };
    let mut text = Vec::new();
    generate(&mut engine, &request, &mut |_, symbol| {
        text.push(symbol);
        ControlFlow::Continue(())
    })
    .unwrap();

    let mut context = request.prompt.clone();
    let mut logits = vec![0.0; 27];
    for (i, &symbol) in text.iter().enumerate() {
        let mut cache = engine.cache(1, 12);
        engine.prefill(&mut cache, &context, &mut logits);
        let top = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        // The likeliest, up to rounding.
        assert!(logits[usize::from(symbol)] > top - 1e-3, "symbol {i}: {symbol} {logits:?}");
        context.push(symbol);
        if context.len() > 12 {
            context.drain(..context.len() - 6);
        }
    }
    assert!(text.iter().collect::<std::collections::BTreeSet<_>>().len() > 3, "{text:?}");
}

#[test]
fn many_texts_are_what_each_would_be_alone() {
    let model = ModelConfig {
        vocabulary: 27,
        d_model: 40,
        n_heads: 2,
        n_layers: 2,
        mlp_ratio: 4.0,
        max_len: 16,
        tie_embeddings: false,
        ..ModelConfig::default()
    };
    let parameters = initialise(&model, 5);
    let shape = Shape { batch_size: 1, sequence_length: 9 };
    let texts = |seeds: Vec<u64>, threads: usize| {
        let mut engine = CpuEngine::new(model, &parameters, threads, shape).unwrap();
        let mut texts = vec![Vec::new(); seeds.len()];
        let request = Request {
            prompt: vec![7, 20, 13],
            start: 26,
            length: 50,
            temperature: 1.0,
            top_k: None,
            seeds,
            context: 9,
        };
        generate(&mut engine, &request, &mut |text, symbol| {
            texts[text].push(symbol);
            ControlFlow::Continue(())
        })
        .unwrap();
        texts
    };
    let alone: Vec<_> = (3..22).flat_map(|seed| texts(vec![seed], 1)).collect();
    assert!(alone.iter().all(|text| text.len() == 50) && alone[0] != alone[1]);
    for threads in [1, 2, 4] {
        assert_eq!(texts((3..22).collect(), threads), alone, "{threads} threads");
        assert_eq!(texts(vec![9, 4], threads), [alone[6].clone(), alone[1].clone()]);
    }
}
