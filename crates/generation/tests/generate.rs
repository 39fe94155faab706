//! Generation, against the definition: at every symbol, the whole context is read anew.

use diapason_corpus::Alphabet;
use diapason_engine::{Batch, Cache, Engine, EngineId, Scores, State, StateMut, StepMetrics, Update};
use diapason_generation::{GenerationError, Request, generate, start_symbol};
use diapason_model::ModelConfig;
use diapason_random::{Purpose, Stream};
use std::ops::ControlFlow;

const V: usize = 5;

/// Logits are a hash of the whole context, positions included; the cache is the context. It counts reads.
struct Hash {
    id: EngineId,
    model: ModelConfig,
    scale: f64,
    prefills: Vec<usize>,
    decodes: usize,
}

impl Hash {
    fn new() -> Self {
        let model = ModelConfig {
            vocabulary: V,
            d_model: 4,
            n_heads: 1,
            n_layers: 1,
            mlp_ratio: 1.0,
            max_len: 16,
            tie_embeddings: false,
            ..ModelConfig::default()
        };
        let id = EngineId { version: "0".into(), isa: "test".into(), precision: "f32".into() };
        Self { id, model, scale: 3.0, prefills: Vec::new(), decodes: 0 }
    }

    fn logits(&self, context: &[u8]) -> Vec<f32> {
        assert!((1..=self.model.max_len).contains(&context.len()));
        let hash = context.iter().fold(7u64, |h, &x| h.wrapping_mul(31).wrapping_add(u64::from(x) + 1));
        let stream = Stream::new(hash, Purpose::Test, context.len() as u64);
        (0..V).map(|v| (self.scale * stream.normal(v as u64)) as f32).collect()
    }
}

impl Engine for Hash {
    fn id(&self) -> &EngineId {
        &self.id
    }
    fn model(&self) -> &ModelConfig {
        &self.model
    }
    fn threads(&self) -> usize {
        1
    }
    fn draw_masks(&mut self, _: u64, _: u64) {}
    fn step(&mut self, _: Batch<'_>, _: &Update) -> StepMetrics {
        unreachable!("generation does not train")
    }
    fn gradient(&mut self, _: Batch<'_>, _: &mut [f32]) -> StepMetrics {
        unreachable!("generation does not train")
    }
    fn evaluate(&mut self, _: Batch<'_>, _: &mut Scores) {
        unreachable!("generation does not evaluate")
    }
    fn state(&self) -> State<'_> {
        State { parameters: &[], first_moment: &[], second_moment: &[], average: &[] }
    }
    fn with_state(&mut self, _: &mut dyn FnMut(StateMut<'_>)) {}
    fn keep_average(&mut self, _: bool) {}
    fn swap_average(&mut self) {}
    fn cache(&self, streams: usize, positions: usize) -> Cache {
        assert!(streams == 1 && positions <= self.model.max_len);
        Box::new(vec![99u8])
    }
    fn prefill(&mut self, cache: &mut Cache, contexts: &[u8], logits: &mut [f32]) {
        self.prefills.push(contexts.len());
        logits.copy_from_slice(&self.logits(contexts));
        *cache = Box::new(contexts.to_vec());
    }
    fn decode(&mut self, cache: &mut Cache, symbols: &[u8], logits: &mut [f32]) {
        self.decodes += 1;
        let context = cache.downcast_mut::<Vec<u8>>().unwrap();
        context.extend_from_slice(symbols);
        logits.copy_from_slice(&self.logits(context));
    }
}

fn request() -> Request {
    Request {
        prompt: vec![1, 2, 3],
        start: 4,
        length: 60,
        temperature: 1.0,
        top_k: None,
        seeds: vec![1],
        context: 8,
    }
}

fn text(engine: &mut Hash, request: &Request) -> Vec<u8> {
    let mut text = Vec::new();
    generate(engine, request, &mut |_, symbol| {
        text.push(symbol);
        ControlFlow::Continue(())
    })
    .unwrap();
    text
}

/// The definition of greedy generation.
fn greedy(request: &Request) -> Vec<u8> {
    let engine = Hash::new();
    let mut context = if request.prompt.is_empty() { vec![request.start] } else { request.prompt.clone() };
    if context.len() > request.context {
        context = context[context.len() - request.context..].to_vec();
    }
    let mut text = Vec::new();
    for _ in 0..request.length {
        let logits = engine.logits(&context);
        let symbol = (0..V).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u8;
        text.push(symbol);
        context.push(symbol);
        if context.len() > request.context {
            context = context[context.len() - (request.context / 2).max(1)..].to_vec();
        }
    }
    text
}

#[test]
fn the_context_is_bounded_and_keeps_its_last_half() {
    for context in [1, 2, 3, 5, 8, 16] {
        for prompt in [vec![], vec![2], vec![0, 1, 2, 3, 4, 3, 2, 1], vec![3; 40]] {
            let request = Request { prompt, context, temperature: 0.0, ..request() };
            assert_eq!(text(&mut Hash::new(), &request), greedy(&request), "context {context}");
        }
    }
}

#[test]
fn a_symbol_costs_one_position() {
    let mut engine = Hash::new();
    text(&mut engine, &request());
    // 3 of the prompt, 5 decoded, then again and again 4 kept and 4 decoded.
    assert_eq!(engine.prefills[0], 3);
    assert!(engine.prefills[1..].iter().all(|&n| n == 4));
    assert_eq!(engine.prefills.len() + engine.decodes, 60, "nothing is read after the last symbol");
    assert_eq!(engine.prefills.len(), 1 + (60usize - 1 - 5).div_ceil(5));
}

#[test]
fn the_same_request_gives_the_same_text() {
    let first = text(&mut Hash::new(), &request());
    assert_eq!(first, text(&mut Hash::new(), &request()));
    assert_ne!(first, text(&mut Hash::new(), &Request { seeds: vec![2], ..request() }));
    assert_eq!(first[..20], text(&mut Hash::new(), &Request { length: 20, ..request() }));
    assert_eq!(text(&mut Hash::new(), &Request { length: 0, ..request() }), []);
    assert_eq!(text(&mut Hash::new(), &Request { seeds: vec![], ..request() }), []);
    // No prompt is a prompt of the start symbol.
    let empty = Request { prompt: vec![], ..request() };
    assert_eq!(
        text(&mut Hash::new(), &empty),
        text(&mut Hash::new(), &Request { prompt: vec![4], ..request() })
    );
}

#[test]
fn symbols_come_as_often_as_their_probabilities() {
    // One symbol each, with many seeds, from the same logits.
    let logits = Hash::new().logits(&[1, 2, 3]);
    for (temperature, top_k) in [(1.0, None), (2.5, None), (1.0, Some(2)), (0.7, Some(3)), (1.0, Some(100))] {
        let mut order: Vec<usize> = (0..V).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        order.truncate(top_k.unwrap_or(V));
        let weight = |v: usize| (f64::from(logits[v]) / temperature).exp();
        let total: f64 = order.iter().map(|&v| weight(v)).sum();
        let n = 20_000;
        let mut counts = [0.0; V];
        let mut engine = Hash::new();
        for seed in 0..n {
            let request = Request { length: 1, seeds: vec![seed], temperature, top_k, ..request() };
            counts[usize::from(text(&mut engine, &request)[0])] += 1.0;
        }
        for v in 0..V {
            let expected = if order.contains(&v) { weight(v) / total } else { 0.0 };
            let error = 5.0 * (expected * (1.0 - expected) / n as f64).sqrt() + 1e-12;
            assert!(
                (counts[v] / n as f64 - expected).abs() <= error,
                "{temperature} {top_k:?} {v}: {counts:?}"
            );
        }
    }
}

#[test]
fn cold_is_greedy() {
    let greedy = greedy(&Request { temperature: 0.0, ..request() });
    for (temperature, top_k) in [(0.0, None), (1e-3, None), (1e-300, None), (5e-324, None), (1.0, Some(1))] {
        let cold = Request { temperature, top_k, ..request() };
        assert_eq!(text(&mut Hash::new(), &cold), greedy, "{temperature} {top_k:?}");
    }
    // Of equals, the first.
    let mut engine = Hash::new();
    engine.scale = 0.0;
    assert!(text(&mut engine, &Request { temperature: 0.0, ..request() }).iter().all(|&x| x == 0));
    assert!(text(&mut engine, &Request { top_k: Some(2), ..request() }).iter().all(|&x| x < 2));
}

#[test]
fn the_caller_can_break_off() {
    let mut count = 0;
    generate(&mut Hash::new(), &request(), &mut |_, _| {
        count += 1;
        if count == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    assert_eq!(count, 7);
}

#[test]
fn what_cannot_be_generated_is_refused() {
    let refused = |request: Request| {
        generate(&mut Hash::new(), &request, &mut |_, _| panic!("nothing is emitted")).unwrap_err()
    };
    for temperature in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(refused(Request { temperature, ..request() }), GenerationError::Temperature { .. }));
    }
    assert_eq!(refused(Request { top_k: Some(0), ..request() }), GenerationError::TopK);
    for context in [0, 17] {
        let error = refused(Request { context, ..request() });
        assert_eq!(error, GenerationError::Context { context, max_len: 16 });
    }
    let error = refused(Request { prompt: vec![0, 5], ..request() });
    assert_eq!(error, GenerationError::Symbol { symbol: 5, position: 1, last: 4 });
    let error = refused(Request { prompt: vec![], start: 9, ..request() });
    assert_eq!(error, GenerationError::Symbol { symbol: 9, position: 0, last: 4 });
    let mut broken = Hash::new();
    broken.scale = f64::NAN;
    let error = generate(&mut broken, &request(), &mut |_, _| ControlFlow::Continue(())).unwrap_err();
    assert_eq!(error, GenerationError::NotFinite { generated: 0 });
}

#[test]
fn a_text_begins_after_a_space() {
    assert_eq!(start_symbol(&Alphabet::text8()), 26);
    assert_eq!(start_symbol(&Alphabet::bytes()), 32);
    assert_eq!(start_symbol(&Alphabet::auto("a b".as_bytes()).unwrap()), 0);
    assert_eq!(start_symbol(&Alphabet::auto("ba".as_bytes()).unwrap()), 0);
    assert_eq!(start_symbol(&Alphabet::auto("\tb a".as_bytes()).unwrap()), 1);
}
