//! The sizes and the parts of a model, checked.

use crate::LONGEST_NGRAM;
use serde::{Deserialize, Serialize};

/// What earlier versions wrote in place of the parts: the one family of models that there was, which is the default of
/// every part. Read, never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// Pre-LayerNorm, learned positions, GELU: the model of the notebook that this program started from.
    #[default]
    Seed,
}

/// How rows of the residual stream are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Norm {
    /// LayerNorm with scale and bias (Ba, Kiros, Hinton, 2016).
    #[default]
    LayerNorm,
    /// x / sqrt(mean(x^2) + epsilon) (Zhang and Sennrich, 2019), without parameters: each is followed by a matrix that can
    /// hold a scale.
    RmsNorm,
}

/// How a model knows where in its window a symbol stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// A learned row for each position, added to the embedding.
    #[default]
    Learned,
    /// A fixed row of sines and cosines, added to the embedding (Vaswani et al., 2017).
    Sinusoidal,
    /// Queries and keys are turned by angles that grow with the position (Su et al., 2021).
    Rotary,
    /// By the causal mask alone.
    None,
}

/// What stands between the matrices of the MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// GELU in its tanh form (Hendrycks and Gimpel, 2016).
    #[default]
    Gelu,
    /// max(x, 0).
    Relu,
    /// max(x, 0)^2 (So et al., 2021).
    ReluSquared,
    /// x / (1 + e^-x) (Elfwing et al., 2017).
    Silu,
    /// silu(x Wgate) * (x Wup): a third matrix (Shazeer, 2020).
    Swiglu,
}

/// Which positions of a window the training loss is the mean of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum LossPositions {
    /// Every one.
    #[default]
    All,
    /// The last one, which sees a whole window.
    Last,
}

/// The sizes and the parts of a model. Make one with [`ModelConfig::validated`]: everything that takes one relies on it.
/// The default is the model of the notebook, for 27 symbols.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Read from old files.
    #[serde(skip_serializing)]
    pub architecture: Architecture,
    /// Number of symbols V, 1 to 256.
    pub vocabulary: usize,
    /// Width D of the residual stream.
    pub d_model: usize,
    /// Number of attention heads H; divides `d_model`.
    pub n_heads: usize,
    /// Number of blocks L.
    pub n_layers: usize,
    /// Hidden width F of the MLP in units of `d_model`; `mlp_ratio * d_model` is a whole number. With SwiGLU both gate and up
    /// have that width.
    pub mlp_ratio: f64,
    /// The longest context; rows of the position table where there is one.
    pub max_len: usize,
    /// Whether the output matrix is the token embedding transposed.
    pub tie_embeddings: bool,
    /// How rows are normalised.
    pub norm: Norm,
    /// How positions are told apart.
    pub positions: Positions,
    /// What stands between the matrices of the MLP.
    pub activation: Activation,
    /// Whether the MLP's matrices have biases.
    pub mlp_bias: bool,
    /// Whether queries and keys are normalised, each head by the root of its mean square (Henry et al., 2020).
    pub qk_norm: bool,
    /// c in c tanh(logits / c); 0: logits as they are.
    pub logit_softcap: f64,
    /// Whether the sum of embeddings is divided by the root of its mean square.
    pub embedding_norm: bool,
    /// n of the longest n-grams that have a row in a table, added to the embedding: from 2 to 8, and all shorter ones too; 0: none.
    pub ngram_table: usize,
    /// Rows of such a table, at most; where there are more n-grams, some share a row.
    pub ngram_rows: usize,
    /// Whether values are mixed with those of the first block (Zhou et al., 2024).
    pub value_residual: bool,
    /// Whether each block but the first reads a mixture of the residual stream and the embedding.
    pub embedding_residual: bool,
    /// Whether the matrices that write to the residual stream, and the output matrix, start at zero.
    pub zero_init: bool,
    /// Share of each branch's output that is left out in training (Srivastava et al., 2014).
    pub dropout: f64,
    /// Which positions the training loss counts.
    pub loss_positions: LossPositions,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            architecture: Architecture::Seed,
            vocabulary: 27,
            d_model: 256,
            n_heads: 8,
            n_layers: 4,
            mlp_ratio: 4.0,
            max_len: 128,
            tie_embeddings: false,
            norm: Norm::LayerNorm,
            positions: Positions::Learned,
            activation: Activation::Gelu,
            mlp_bias: true,
            qk_norm: false,
            logit_softcap: 0.0,
            embedding_norm: false,
            ngram_table: 0,
            ngram_rows: 1 << 15,
            value_residual: false,
            embedding_residual: false,
            zero_init: false,
            dropout: 0.0,
            loss_positions: LossPositions::All,
        }
    }
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
    /// n-grams of another length.
    #[error("ngram_table is {ngram_table}, but must be 0 (none) or from 2 to {LONGEST_NGRAM}")]
    Ngram {
        /// The length.
        ngram_table: usize,
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
        let number = |key, value: f64, low: f64, high: f64, word: &str| {
            if value >= low && value <= high {
                return Ok(());
            }
            let (value, low) = (value.to_string(), low.to_string());
            Err(ConfigError::OutOfRange { key, value, low, high: word.to_string() })
        };
        number("logit_softcap", self.logit_softcap, 0.0, 1e6, "1000000")?;
        number("dropout", self.dropout, 0.0, 0.99, "0.99")?;
        within("ngram_rows", self.ngram_rows, 1, 1 << 24)?;
        if !matches!(self.ngram_table, 0 | 2..=LONGEST_NGRAM) {
            return Err(ConfigError::Ngram { ngram_table: self.ngram_table });
        }
        Ok(self)
    }

    /// The same without what matters for training alone: two models that are equal in this way compute the same from the same
    /// weights.
    pub fn for_inference(&self) -> Self {
        // Without tables their rows mean nothing.
        let ngram_rows = if self.ngram_table == 0 { Self::default().ngram_rows } else { self.ngram_rows };
        Self { zero_init: false, dropout: 0.0, loss_positions: LossPositions::All, ngram_rows, ..*self }
    }

    /// Hidden width F of the MLP.
    pub fn mlp_width(&self) -> usize {
        (self.mlp_ratio * self.d_model as f64).round() as usize
    }

    /// Outputs of the MLP's first product: F, or 2 F where a gate has its own.
    pub fn up_width(&self) -> usize {
        self.mlp_width() * if self.activation == Activation::Swiglu { 2 } else { 1 }
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        crate::Layout::new(self).total
    }

    /// Floating-point operations of one training step on `tokens` positions in windows of
    /// `sequence_length`: tokens x (6 x matrix parameters + 12 x L x D x T), the field's usual count (Chowdhery
    /// et al., "PaLM", 2022, appendix B). The embedding tables are looked up, not multiplied, and do not count;
    /// the output matrix does, tied or not.
    pub fn training_flop(&self, tokens: usize, sequence_length: usize) -> f64 {
        let (v, d, f) = (self.vocabulary as f64, self.d_model as f64, self.mlp_width() as f64);
        let layers = self.n_layers as f64;
        let matrices = layers * (4.0 * d * d + d * (self.up_width() as f64 + f)) + d * v;
        tokens as f64 * (6.0 * matrices + 12.0 * layers * d * sequence_length as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(d_model: usize, n_heads: usize, n_layers: usize) -> ModelConfig {
        ModelConfig { d_model, n_heads, n_layers, ..ModelConfig::default() }
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
        for ngram_table in [1, LONGEST_NGRAM + 1] {
            assert!(ModelConfig { ngram_table, ..seed(256, 8, 4) }.validated().is_err());
        }
        assert!(ModelConfig { ngram_rows: 0, ..seed(256, 8, 4) }.validated().is_err());
        assert!(ModelConfig { dropout: 1.0, ..seed(256, 8, 4) }.validated().is_err());
        assert!(ModelConfig { dropout: f64::NAN, ..seed(256, 8, 4) }.validated().is_err());
        assert!(ModelConfig { logit_softcap: -1.0, ..seed(256, 8, 4) }.validated().is_err());
    }

    #[test]
    fn the_parts_count() {
        let model = seed(256, 8, 4);
        let matrices = 4 * 12 * 256 * 256 + 256 * 27;
        let fast = ModelConfig {
            norm: Norm::RmsNorm,
            positions: Positions::Rotary,
            mlp_bias: false,
            ngram_table: 2,
            value_residual: true,
            ..model
        };
        assert_eq!(fast.parameters(), matrices + (27 + 27 * 28) * 256 + 3);
        assert_eq!(fast.training_flop(64 * 32, 32), model.training_flop(64 * 32, 32));
        // A gate is half as much again of the MLP.
        let gated = ModelConfig { activation: Activation::Swiglu, ..fast };
        assert_eq!(gated.parameters() - fast.parameters(), 4 * 4 * 256 * 256);
        let flop = gated.training_flop(64 * 32, 32) - fast.training_flop(64 * 32, 32);
        assert_eq!(flop, 6.0 * (64 * 32) as f64 * (4 * 4 * 256 * 256) as f64);
        let mixed = ModelConfig { embedding_residual: true, ..fast };
        assert_eq!(mixed.parameters() - fast.parameters(), 2 * 3);
    }

    #[test]
    fn old_files_name_a_family() {
        let old = r#"{"architecture":"seed","vocabulary":27,"d_model":64,"n_heads":8,"n_layers":2,"mlp_ratio":4.0,
            "max_len":128,"tie_embeddings":true}"#;
        let model: ModelConfig = serde_json::from_str(old).unwrap();
        assert_eq!(model, ModelConfig { tie_embeddings: true, ..seed(64, 8, 2) });
        let new = serde_json::to_string(&model).unwrap();
        assert!(!new.contains("architecture") && new.contains(r#""norm":"layer_norm""#), "{new}");
        assert_eq!(serde_json::from_str::<ModelConfig>(&new).unwrap(), model);
    }
}
