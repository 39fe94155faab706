//! The architecture: which parameters a model has, where they lie, how they start, what a step costs.
//!
//! A model is data here, not behaviour: [`ModelConfig`] says its sizes, [`Layout`] places every tensor in one
//! flat `f32` vector, [`initialise`] fills that vector. Engines, checkpoints and reports all read the same
//! layout, so a tensor has one name and one place in the whole program.
//!
//! The model of `architecture = "seed"`: decoder-only, pre-LayerNorm, V symbols, D = `d_model`, H = `n_heads`,
//! F = `mlp_ratio` x D:
//!
//! - x = E\[token\] + P\[position\]
//! - each block: x += Attention(LayerNorm(x)); x += MLP(LayerNorm(x)). Attention: query, key, value and output
//!   projections without bias, head size D/H, scores scaled by 1/sqrt(D/H), causal. MLP: D -> F with bias, GELU
//!   (tanh form), F -> D with bias. LayerNorm: scale and bias, epsilon 1e-6.
//! - final LayerNorm, logits = x W without bias; W is its own matrix, or E transposed if `tie_embeddings`.

mod config;
mod initialise;
mod layout;

pub use config::{Architecture, ConfigError, ModelConfig};
pub use initialise::{initialise, initialise_into};
pub use layout::{BlockTensors, Layout, Tensor};

/// The epsilon inside the square root of every LayerNorm.
pub const LAYER_NORM_EPSILON: f32 = 1e-6;
