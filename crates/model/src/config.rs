//! The sizes of a model, checked.

use serde::{Deserialize, Serialize};

/// The family of models. One for now; the recipes to come add others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// Pre-LayerNorm, learned positions, GELU: the model of the notebook that this program started from.
    #[default]
    Seed,
}

/// The sizes of a model. Make one with [`ModelConfig::validated`]: everything that takes one relies on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
    /// Number of symbols V, 1 to 256.
    pub vocabulary: usize,
    /// Width D of the residual stream.
    pub d_model: usize,
    /// Number of attention heads H; divides `d_model`.
    pub n_heads: usize,
    /// Number of blocks L.
    pub n_layers: usize,
    /// Hidden width of the MLP in units of `d_model`; `mlp_ratio * d_model` is a whole number.
    pub mlp_ratio: f64,
    /// Rows of the position table: the longest context.
    pub max_len: usize,
    /// Whether the output matrix is the token embedding transposed.
    pub tie_embeddings: bool,
}

/// Why sizes do not make a model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A size outside of its range.
    #[error("{key} is {value}, but must lie between {low} and {high}")]
    OutOfRange {
        /// The key of the configuration.
        key: &'static str,
        /// Its value.
        value: String,
        /// Smallest value allowed.
        low: String,
        /// Largest value allowed.
        high: String,
    },
    /// Heads do not divide the width.
    #[error(
        "d_model {d_model} is not divisible by n_heads {n_heads}: each head needs the same whole number of channels"
    )]
    HeadsDoNotDivide {
        /// The width.
        d_model: usize,
        /// The number of heads.
        n_heads: usize,
    },
    /// The MLP's width is no whole number.
    #[error("mlp_ratio {mlp_ratio} times d_model {d_model} is not a whole number")]
    FractionalMlp {
        /// The ratio.
        mlp_ratio: f64,
        /// The width.
        d_model: usize,
    },
}

impl ModelConfig {
    /// Checks every size.
    ///
    /// # Errors
    /// The first size that is zero, absurd or does not fit the others.
    pub fn validated(self) -> Result<Self, ConfigError> {
        let within = |key, value: usize, low: usize, high: usize| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(ConfigError::OutOfRange {
                    key,
                    value: value.to_string(),
                    low: low.to_string(),
                    high: high.to_string(),
                })
            }
        };
        within("vocabulary", self.vocabulary, 1, 256)?;
        within("d_model", self.d_model, 1, 1 << 16)?;
        within("n_heads", self.n_heads, 1, 1 << 16)?;
        within("n_layers", self.n_layers, 1, 1024)?;
        within("max_len", self.max_len, 1, 1 << 20)?;
        if !self.d_model.is_multiple_of(self.n_heads) {
            return Err(ConfigError::HeadsDoNotDivide { d_model: self.d_model, n_heads: self.n_heads });
        }
        if !(self.mlp_ratio > 0.0 && self.mlp_ratio <= 64.0) {
            return Err(ConfigError::OutOfRange {
                key: "mlp_ratio",
                value: self.mlp_ratio.to_string(),
                low: "a positive number".to_string(),
                high: "64".to_string(),
            });
        }
        let hidden = self.mlp_ratio * self.d_model as f64;
        if hidden < 1.0 || (hidden - hidden.round()).abs() > 1e-9 {
            return Err(ConfigError::FractionalMlp { mlp_ratio: self.mlp_ratio, d_model: self.d_model });
        }
        Ok(self)
    }

    /// Hidden width F of the MLP.
    pub fn mlp_width(&self) -> usize {
        (self.mlp_ratio * self.d_model as f64).round() as usize
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        let (v, d, f) = (self.vocabulary, self.d_model, self.mlp_width());
        let block = 4 * d * d + 2 * d * f + f + d + 4 * d;
        let head = if self.tie_embeddings { 0 } else { d * v };
        (v + self.max_len) * d + self.n_layers * block + 2 * d + head
    }

    /// Floating-point operations of one training step on `tokens` positions in windows of
    /// `sequence_length`: tokens x (6 x matrix parameters + 12 x L x D x T), the field's usual count (Chowdhery
    /// et al., "PaLM", 2022, appendix B). The embedding tables are looked up, not multiplied, and do not count;
    /// the output matrix does, tied or not.
    pub fn training_flop(&self, tokens: usize, sequence_length: usize) -> f64 {
        let (v, d, f) = (self.vocabulary as f64, self.d_model as f64, self.mlp_width() as f64);
        let layers = self.n_layers as f64;
        let matrices = layers * (4.0 * d * d + 2.0 * d * f) + d * v;
        tokens as f64 * (6.0 * matrices + 12.0 * layers * d * sequence_length as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(d_model: usize, n_heads: usize, n_layers: usize) -> ModelConfig {
        ModelConfig {
            architecture: Architecture::Seed,
            vocabulary: 27,
            d_model,
            n_heads,
            n_layers,
            mlp_ratio: 4.0,
            max_len: 128,
            tie_embeddings: false,
        }
    }

    #[test]
    fn the_notebooks_parameter_counts() {
        assert_eq!(seed(256, 8, 4).parameters(), 3_202_048);
        assert_eq!(seed(256, 8, 8).parameters(), 6_356_992);
        assert_eq!(seed(256, 16, 4).parameters(), 3_202_048);
    }

    #[test]
    fn the_notebooks_step_is_39_5_gflop() {
        let flop = seed(256, 8, 4).training_flop(64 * 32, 32);
        assert!((flop / 1e9 - 39.5).abs() < 0.05, "{flop}");
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert_eq!(
            seed(100, 8, 1).validated(),
            Err(ConfigError::HeadsDoNotDivide { d_model: 100, n_heads: 8 })
        );
        assert!(seed(0, 1, 1).validated().is_err());
        assert!(seed(256, 0, 1).validated().is_err());
        assert!(seed(256, 8, 0).validated().is_err());
        assert!(ModelConfig { mlp_ratio: f64::NAN, ..seed(256, 8, 4) }.validated().is_err());
        assert!(ModelConfig { mlp_ratio: 0.3, ..seed(256, 8, 4) }.validated().is_err());
        assert!(ModelConfig { mlp_ratio: 2.5, ..seed(256, 8, 4) }.validated().is_ok());
    }
}
