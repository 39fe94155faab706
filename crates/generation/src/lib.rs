//! Text from a trained model, one symbol after the other.
//!
//! The engine keeps keys and values of what it has read, so a new symbol costs one position, not the whole
//! context again. What the model learned are windows of a certain length, with positions counted from the
//! start of the window; beyond it there is nothing it knows. So the context never grows beyond that length:
//! when it is full, its last half is read again from position 0, and generation goes on. Each symbol is drawn
//! from a random number with an address (seed, place in the text): the same request gives the same text, and
//! a longer one begins with the shorter one. Several texts from one prompt are generated side by side, which takes far less
//! time than one after the other, and each is what it would be alone.

use diapason_corpus::Alphabet;
use diapason_engine::Engine;
use diapason_random::{Purpose, Stream};
use std::ops::ControlFlow;

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Ids of the text to go on from; of a prompt longer than the context, its end is read. If empty,
    /// generation goes on from [`Request::start`].
    pub prompt: Vec<u8>,
    /// The symbol to go on from without a prompt; see [`start_symbol`].
    pub start: u8,
    /// Number of symbols to generate in each text.
    pub length: usize,
    /// Divides the logits; 0 always takes the likeliest symbol, the first of equals.
    pub temperature: f64,
    /// Only the k likeliest symbols are drawn from; none: all. Of equally likely ones the first are kept.
    pub top_k: Option<usize>,
    /// One text for each: the seed of its draws.
    pub seeds: Vec<u64>,
    /// Longest context, the sequence length of training.
    pub context: usize,
}

/// Why nothing can be generated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GenerationError {
    /// A temperature that is negative or no number.
    #[error("temperature is {temperature}, but must be 0 (always the likeliest) or a positive number")]
    Temperature {
        /// The temperature.
        temperature: f64,
    },
    /// Nothing to draw from.
    #[error("top-k is 0, but at least one symbol is needed to draw from")]
    TopK,
    /// A context that the model cannot read.
    #[error("the context is {context} symbols, but must lie between 1 and {max_len}, the model's max_len")]
    Context {
        /// The context.
        context: usize,
        /// The model's longest.
        max_len: usize,
    },
    /// A prompt in another alphabet.
    #[error("the prompt has symbol {symbol} at position {position}, but the model knows only 0 to {last}")]
    Symbol {
        /// The symbol.
        symbol: u8,
        /// Its place, from 0.
        position: usize,
        /// The model's last symbol.
        last: usize,
    },
    /// Broken weights.
    #[error(
        "the model's predictions are not finite numbers after {generated} symbols: its weights are broken"
    )]
    NotFinite {
        /// Symbols generated before.
        generated: usize,
    },
}

/// The symbol that a text begins after in `alphabet`: the space, or id 0 if there is none.
pub fn start_symbol(alphabet: &Alphabet) -> u8 {
    alphabet.encode(b" ").ok().and_then(|ids| ids.first().copied()).unwrap_or(0)
}

/// Generates `request.length` symbols for each seed and hands them to `emit(text, symbol)`, texts counted from 0 in the order of
/// the seeds; it may break off. The prompt is not emitted.
///
/// # Errors
/// A request out of range, or a model whose logits are not finite.
pub fn generate(
    engine: &mut dyn Engine,
    request: &Request,
    emit: &mut dyn FnMut(usize, u8) -> ControlFlow<()>,
) -> Result<(), GenerationError> {
    let (vocabulary, max_len) = (engine.model().vocabulary, engine.model().max_len);
    let capacity = request.context;
    if !(request.temperature >= 0.0 && request.temperature.is_finite()) {
        return Err(GenerationError::Temperature { temperature: request.temperature });
    }
    if request.top_k == Some(0) {
        return Err(GenerationError::TopK);
    }
    if capacity == 0 || capacity > max_len {
        return Err(GenerationError::Context { context: capacity, max_len });
    }
    let start = [request.start];
    let prompt = if request.prompt.is_empty() { &start[..] } else { &request.prompt };
    if let Some(position) = prompt.iter().position(|&symbol| usize::from(symbol) >= vocabulary) {
        return Err(GenerationError::Symbol { symbol: prompt[position], position, last: vocabulary - 1 });
    }
    let texts = request.seeds.len();
    if request.length == 0 || texts == 0 {
        return Ok(());
    }

    // All texts have as many symbols, so their contexts are full at the same time.
    let mut contexts = vec![prompt[prompt.len().saturating_sub(capacity)..].to_vec(); texts];
    let mut symbols = vec![0; texts];
    let mut logits = vec![0.0; texts * vocabulary];
    let mut sampler = Sampler { request, candidates: Vec::with_capacity(vocabulary) };
    let mut cache = engine.cache(texts, capacity);
    engine.prefill(&mut cache, &contexts.concat(), &mut logits);
    for generated in 0..request.length {
        for (text, logits) in logits.chunks_exact(vocabulary).enumerate() {
            if logits.iter().any(|logit| !logit.is_finite()) {
                return Err(GenerationError::NotFinite { generated });
            }
            symbols[text] = sampler.draw(logits, request.seeds[text], generated as u64);
            if emit(text, symbols[text]).is_break() {
                return Ok(());
            }
        }
        if generated + 1 == request.length {
            break;
        }
        let full = contexts[0].len() == capacity;
        for (context, &symbol) in contexts.iter_mut().zip(&symbols) {
            context.push(symbol);
            if full {
                // Half of the capacity, the new symbol included; at least that symbol.
                context.drain(..context.len() - (capacity / 2).max(1));
            }
        }
        if full {
            engine.prefill(&mut cache, &contexts.concat(), &mut logits);
        } else {
            engine.decode(&mut cache, &symbols, &mut logits);
        }
    }
    Ok(())
}

/// Draws symbols from logits.
struct Sampler<'a> {
    request: &'a Request,
    /// Symbols that are drawn from, the likeliest first.
    candidates: Vec<u8>,
}

impl Sampler<'_> {
    /// The symbol number `position` of the text: the first whose cumulated probability exceeds the random
    /// number of (`seed`, sampling, position). Probabilities are softmax(logits / temperature), in `f64`,
    /// over the `top_k` likeliest.
    fn draw(&mut self, logits: &[f32], seed: u64, position: u64) -> u8 {
        let likelier = |a: &u8, b: &u8| {
            let (x, y) = (logits[usize::from(*a)], logits[usize::from(*b)]);
            y.partial_cmp(&x).unwrap_or(std::cmp::Ordering::Equal).then(a.cmp(b))
        };
        self.candidates.clear();
        self.candidates.extend((0..logits.len()).map(|symbol| symbol as u8));
        self.candidates.sort_unstable_by(likelier);
        let likeliest = self.candidates[0];
        if self.request.temperature == 0.0 {
            return likeliest;
        }
        self.candidates.truncate(self.request.top_k.unwrap_or(usize::MAX));
        let top = f64::from(logits[usize::from(likeliest)]);
        let weight =
            |symbol: u8| libm::exp((f64::from(logits[usize::from(symbol)]) - top) / self.request.temperature);
        let total: f64 = self.candidates.iter().map(|&symbol| weight(symbol)).sum();
        let mut left = Stream::new(seed, Purpose::Sampling, position).unit(0) * total;
        for &symbol in &self.candidates {
            left -= weight(symbol);
            if left < 0.0 {
                return symbol;
            }
        }
        // Rounding can leave a rest: it belongs to the last candidate that has any weight.
        self.candidates.iter().rev().copied().find(|&symbol| weight(symbol) > 0.0).unwrap_or(likeliest)
    }
}
