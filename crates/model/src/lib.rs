//! The architecture: which parameters a model has, where they lie, how they start, what a step costs.
//!
//! A model is data here, not behaviour: [`ModelConfig`] says its sizes, [`Layout`] places every tensor in one
//! flat `f32` vector, [`initialise`] fills that vector. Engines, checkpoints and reports all read the same
//! layout, so a tensor has one name and one place in the whole program.
//!
//! A model is put together from parts, each a key of the configuration with a value by name. Decoder-only, pre-norm, V symbols, D =
//! `d_model`, H = `n_heads`, F = `mlp_ratio` x D:
//!
//! - x = E\[token\] + P\[position\] + sum over n of T_n\[n-gram\], as far as there are such tables; then with `embedding_norm` its RMSNorm. P is
//!   learned or made of sines and cosines; T_2, T_3, .. have a row for the last 2, 3, .. `ngram_table` symbols, `ngram_rows` at most.
//! - each block: with `embedding_residual` x = a x + b x0, a and b learned, x0 the embedding; x += Attention(Norm(x)); x +=
//!   MLP(Norm(x)), each branch with `dropout` in training. Norm: LayerNorm with scale and bias, or RMSNorm without parameters; epsilon 1e-6.
//! - Attention: query, key, value and output projections without bias, head size D/H, scores scaled by 1/sqrt(D/H), causal.
//!   With `value_residual` v = (1 - w) v + w v0, w learned, v0 the first block's values. Queries and keys of each head go through
//!   RMSNorm (`qk_norm`), then are turned (`positions = "rotary"`).
//! - MLP: down(activation(up(x))), D -> F -> D, with biases or without (`mlp_bias`). SwiGLU: down(silu(gate(x)) * up(x)).
//! - the norm once more, logits = x W without bias, W its own matrix, or E transposed if `tie_embeddings`; then with
//!   `logit_softcap` c the logits are c tanh(logits / c).
//!
//! The defaults are the model of the notebook that this program started from.

mod config;
mod initialise;
mod layout;
mod ngrams;

pub use config::{Activation, Architecture, ConfigError, LossPositions, ModelConfig, Norm, Positions};
pub use initialise::{initialise, initialise_into};
pub use layout::{BlockTensors, Layout, NormTensors, Tensor};
pub use ngrams::{LONGEST_NGRAM, NgramTables};

/// The epsilon inside the square root of every norm.
pub const NORM_EPSILON: f32 = 1e-6;

/// The angle of rotary and sinusoidal positions: position / 10000^exponent, exponents from 0 to 1 over the channels.
pub fn angle(position: usize, exponent: f64) -> f64 {
    position as f64 / libm::pow(10_000.0, exponent)
}
