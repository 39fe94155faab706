//! Generation on the real engine: keys and values that are kept give what reading the context anew gives.

use diapason_engine::{CpuEngine, Engine, Shape};
use diapason_generation::{Request, generate};
use diapason_model::{Architecture, ModelConfig, initialise};
use std::ops::ControlFlow;

#[test]
fn the_cache_changes_nothing() {
    let model = ModelConfig {
        architecture: Architecture::Seed,
        vocabulary: 27,
        d_model: 48,
        n_heads: 4,
        n_layers: 3,
        mlp_ratio: 2.0,
        max_len: 20,
        tie_embeddings: false,
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
        seed: 0,
        context: 12,
    };
    let mut text = Vec::new();
    generate(&mut engine, &request, &mut |symbol| {
        text.push(symbol);
        ControlFlow::Continue(())
    })
    .unwrap();

    let mut context = request.prompt.clone();
    let mut logits = vec![0.0; 27];
    for (i, &symbol) in text.iter().enumerate() {
        let mut cache = engine.cache(1);
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
