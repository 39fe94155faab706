//! The configuration of a run: one flat set of keys.
//!
//! Everything that decides what a run computes, apart from the text, the seed and the engine, is a key here.
//! The set is flat so that a search space, a command line and a file all name a thing in the same way. One
//! table ([`Config::keys`]) describes every key; the help text, the written file and the nearest-name hint
//! read it. The defaults are those of the notebook that this program started from.

use crate::updates::{Averaging, RateSchedule};
use diapason_engine::{Optimizer, Precision, Updating};
use diapason_model::{Activation, Architecture, LossPositions, ModelConfig, Norm, Positions};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// Which [`Precision`] is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionChoice {
    /// [`Precision::F32`].
    F32,
    /// [`Precision::Half`], also where that is slower.
    Half,
    /// [`Precision::Half`] where that is faster, else [`Precision::F32`]: they learn equally well (docs/precision.md).
    #[default]
    Auto,
}

impl PrecisionChoice {
    /// What that is on a processor on which half precision is faster, or is not.
    pub fn resolved(self, half_is_faster: bool) -> Precision {
        match self {
            Self::F32 => Precision::F32,
            Self::Auto if !half_is_faster => Precision::F32,
            Self::Half | Self::Auto => Precision::Half,
        }
    }
}

/// What a run computes. Change keys by name with [`Config::set`], check with [`Config::validated`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Read from files of earlier versions, which name the one family of models that there was.
    #[serde(skip_serializing)]
    pub architecture: Architecture,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Attention heads; divides `d_model`.
    pub n_heads: usize,
    /// Number of blocks.
    pub n_layers: usize,
    /// Hidden width of the MLP in units of `d_model`.
    pub mlp_ratio: f64,
    /// The longest context; rows of the position table.
    pub max_len: usize,
    /// Whether the output matrix is the token embedding transposed.
    pub tie_embeddings: bool,
    /// How rows of the residual stream are normalised.
    pub norm: Norm,
    /// How positions are told apart.
    pub positions: Positions,
    /// What stands between the matrices of the MLP.
    pub activation: Activation,
    /// Whether the MLP's matrices have biases.
    pub mlp_bias: bool,
    /// Whether each head of queries and keys is normalised.
    pub qk_norm: bool,
    /// c in c tanh(logits / c); 0: none.
    pub logit_softcap: f64,
    /// Whether the sum of embeddings is normalised.
    pub embedding_norm: bool,
    /// n of the longest n-grams that have a row in a table that is added to the embedding, all shorter ones too; 0: none.
    pub ngram_table: usize,
    /// Rows of such a table, at most.
    pub ngram_rows: usize,
    /// Whether values are mixed with those of the first block.
    pub value_residual: bool,
    /// Whether blocks read a mixture of the residual stream and the embedding.
    pub embedding_residual: bool,
    /// Whether output projections and output matrix start at zero.
    pub zero_init: bool,
    /// Share of each branch's output that is left out in training.
    pub dropout: f64,
    /// Which positions the training loss counts.
    pub loss_positions: LossPositions,
    /// Windows in a training batch.
    pub batch_size: usize,
    /// Characters in a window; at most `max_len`.
    pub sequence_length: usize,
    /// Training steps (updates).
    pub steps: u64,
    /// Part of the run in which the batch grows to its size, in three stages; 0: it has it from the start.
    pub batch_ramp: f64,
    /// Part of the training text that is used, from its beginning.
    pub train_fraction: f64,
    /// How parameters follow from gradients.
    pub optimizer: Optimizer,
    /// Step size, before the schedule.
    pub learning_rate: f64,
    /// Step size of Adam beside Muon.
    pub adam_learning_rate: f64,
    /// Step size of the tables of n-grams, under every optimizer.
    pub ngram_learning_rate: f64,
    /// Decay of Muon's momentum.
    pub momentum: f64,
    /// Decay of Adam's first moment; Lion's weight of the momentum in a step.
    pub beta1: f64,
    /// Decay of Adam's second moment; of Lion's momentum.
    pub beta2: f64,
    /// Added to the root of Adam's second moment.
    pub epsilon: f64,
    /// Decoupled weight decay of matrices and tables; with Muon of its matrices alone.
    pub weight_decay: f64,
    /// Longest gradient; 0: any.
    pub gradient_clip: f64,
    /// Longest gradient of a unit in units of its parameters' length; 0: any.
    pub adaptive_clip: f64,
    /// How the step sizes change over the run.
    pub schedule: RateSchedule,
    /// Steps in which the step sizes grow to their values.
    pub warmup_steps: u64,
    /// Last part of the run in which they fall, for `wsd`.
    pub decay_share: f64,
    /// What they fall to, as a part of their values.
    pub final_learning_rate: f64,
    /// Which average of the weights is evaluated.
    pub weight_averaging: Averaging,
    /// Decay of that average, for `ema`.
    pub averaging_decay: f64,
    /// Last part of the run that is averaged over, for `tail`.
    pub averaging_share: f64,
    /// Steps between evaluations; 0: a twentieth of `steps`, at least 1.
    pub eval_every: u64,
    /// Characters of the validation text that an evaluation predicts, about: the same ones in every configuration
    /// ([`crate::Spans`]).
    pub validation_characters: usize,
    /// Evaluations without improvement that end a run; 0: never.
    pub patience: u64,
    /// How far the loss must fall to count as an improvement, nats.
    pub min_improvement: f64,
    /// Seconds between checkpoints.
    pub checkpoint_seconds: u64,
    /// Number format of the matrix products.
    pub precision: PrecisionChoice,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            architecture: Architecture::Seed,
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
            ngram_rows: 32768,
            value_residual: false,
            embedding_residual: false,
            zero_init: false,
            dropout: 0.0,
            loss_positions: LossPositions::All,
            batch_size: 64,
            sequence_length: 32,
            steps: 20_000,
            batch_ramp: 0.0,
            train_fraction: 1.0,
            optimizer: Optimizer::Adam,
            learning_rate: 1e-3,
            adam_learning_rate: 1e-3,
            ngram_learning_rate: 0.02,
            momentum: 0.95,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            gradient_clip: 0.0,
            adaptive_clip: 0.0,
            schedule: RateSchedule::Constant,
            warmup_steps: 0,
            decay_share: 0.5,
            final_learning_rate: 0.0,
            weight_averaging: Averaging::None,
            averaging_decay: 0.999,
            averaging_share: 0.2,
            eval_every: 0,
            validation_characters: 131_072,
            patience: 5,
            min_improvement: 1e-3,
            checkpoint_seconds: 60,
            precision: PrecisionChoice::Auto,
        }
    }
}

/// One line of description per key, in the order of the file. The test `every_key_is_described` holds it to
/// the fields of [`Config`].
const DESCRIPTIONS: &[(&str, &str)] = &[
    ("d_model", "width of the residual stream"),
    ("n_heads", "attention heads in each block; divides d_model"),
    ("n_layers", "number of blocks"),
    ("mlp_ratio", "hidden width of the MLP in units of d_model; with swiglu that of gate and up each"),
    ("max_len", "the longest context; rows of the position table"),
    ("tie_embeddings", "use the token embedding, transposed, as the output matrix"),
    ("norm", "layer_norm (scale and bias) or rms_norm (no parameters)"),
    ("positions", "learned, sinusoidal, rotary or none"),
    ("activation", "of the MLP: gelu, relu, relu_squared, silu or swiglu (a third matrix, the gate)"),
    ("mlp_bias", "biases in the MLP"),
    ("qk_norm", "divide each head's queries and keys by the root of their mean square"),
    ("logit_softcap", "c in c tanh(logits / c), as in 15; 0: logits as they are"),
    ("embedding_norm", "divide the sum of embeddings by the root of its mean square"),
    ("ngram_table", "add learned rows for the last 2, 3, .. and so many symbols, at most 8; 0: none"),
    ("ngram_rows", "rows for n-grams of one length; where there are more of them, some share a row"),
    ("value_residual", "mix each block's values with the first block's, by a learned weight"),
    ("embedding_residual", "mix the embedding into what each block reads, by learned weights"),
    ("zero_init", "output projections and the output matrix start at zero"),
    ("dropout", "share of the outputs of attention and MLP that is left out in training"),
    ("loss_positions", "the training loss is the mean over all positions of a window, or its last"),
    ("batch_size", "windows in a training batch"),
    ("sequence_length", "characters in a window; at most max_len"),
    ("steps", "training steps"),
    ("batch_ramp", "part of the run in which the batch grows: a quarter, a half, then all; 0: none"),
    ("train_fraction", "part of the training text that is used, from its beginning"),
    ("optimizer", "\"adam\", \"adamw\", \"lion\", or \"muon\" (for the blocks' matrices; Adam for the rest)"),
    ("learning_rate", "step size, before the schedule"),
    ("adam_learning_rate", "step size of Adam beside Muon"),
    (
        "ngram_learning_rate",
        "step size of the n-gram tables: Adam without momentum, of the rows that a batch reads",
    ),
    ("momentum", "decay of Muon's momentum"),
    ("beta1", "decay of Adam's first moment; Lion's weight of the momentum in a step"),
    ("beta2", "decay of Adam's second moment; of Lion's momentum"),
    ("epsilon", "added to the root of Adam's second moment"),
    ("weight_decay", "decoupled decay of matrices and tables; muon's of the blocks' matrices, adam has none"),
    ("gradient_clip", "largest global norm of the gradient, as 1; 0: no clipping"),
    (
        "adaptive_clip",
        "largest norm of a unit's gradient, as a part of its weights' norm, as 0.01 (AGC); 0: none",
    ),
    ("schedule", "of the step sizes: \"constant\", \"cosine\", \"linear\", \"wsd\" (warm-up, stable, decay)"),
    ("warmup_steps", "steps in which the step sizes grow to their values"),
    ("decay_share", "last part of the run in which the step sizes of \"wsd\" fall"),
    ("final_learning_rate", "what a schedule ends with, as a part of the step size"),
    (
        "weight_averaging",
        "weights that are evaluated: \"none\" (the last), \"ema\", \"tail\" (means of steps)",
    ),
    ("averaging_decay", "decay of \"ema\" per step; before that it is the mean of all steps"),
    ("averaging_share", "last part of the run that \"tail\" is the mean of"),
    ("eval_every", "steps between evaluations; 0: a twentieth of steps"),
    (
        "validation_characters",
        "characters of the validation text that an evaluation predicts, the same for all",
    ),
    ("patience", "evaluations without improvement that end a run; 0: never"),
    ("min_improvement", "how far the validation loss must fall to count as an improvement, nats"),
    ("checkpoint_seconds", "seconds between checkpoints"),
    ("precision", "of the matrix products: \"f32\", \"half\" (12 bits), \"auto\" (half where faster)"),
];

/// A preset: a name for some keys and their values. Whatever else is set by name wins over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Its name.
    pub name: &'static str,
    /// What it is, in one line.
    pub description: &'static str,
    /// The keys that differ from the defaults, with their values as [`Config::set`] takes them.
    pub values: &'static [(&'static str, &'static str)],
}

/// All presets, the defaults first.
pub const RECIPES: [Recipe; 2] = [
    Recipe {
        name: "seed",
        description: "the notebook that this program started from: the defaults",
        values: &[],
    },
    Recipe {
        name: "fast",
        description: "the lowest loss after a minute to ten: a narrower model with tables of n-grams, which learns more from each character",
        values: &[
            ("d_model", "128"),
            ("n_heads", "4"),
            ("norm", "rms_norm"),
            ("positions", "rotary"),
            ("activation", "relu_squared"),
            ("mlp_bias", "false"),
            ("qk_norm", "true"),
            ("logit_softcap", "15"),
            ("embedding_norm", "true"),
            ("ngram_table", "6"),
            ("value_residual", "true"),
            ("embedding_residual", "true"),
            ("zero_init", "true"),
            ("optimizer", "muon"),
            ("learning_rate", "0.02"),
            ("adam_learning_rate", "0.01"),
            ("beta1", "0.8"),
            ("beta2", "0.95"),
            ("schedule", "linear"),
            ("warmup_steps", "50"),
        ],
    },
];

/// A key, for help and listings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyDoc {
    /// The key.
    pub name: &'static str,
    /// Its default, as TOML.
    pub default: String,
    /// What it is, in one line.
    pub description: &'static str,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key that does not exist.
    #[error("unknown key `{key}`")]
    UnknownKey {
        /// What was written.
        key: String,
        /// The known key that looks most like it, if any does.
        nearest: Option<&'static str>,
    },
    /// A value of the wrong kind.
    #[error("{key} = {value}: expected {expected}")]
    Value {
        /// The key.
        key: String,
        /// What was written.
        value: String,
        /// What would be right.
        expected: String,
    },
    /// A number outside of its range.
    #[error("{key} is {value}, but must lie between {low} and {high}")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// Smallest value allowed.
        low: String,
        /// Largest value allowed.
        high: String,
    },
    /// A preset that does not exist.
    #[error("there is no recipe `{name}`")]
    UnknownRecipe {
        /// What was written.
        name: String,
    },
    /// A window that is longer than the position table.
    #[error(
        "sequence_length {sequence_length} is longer than max_len {max_len}, the rows of the position table"
    )]
    WindowTooLong {
        /// The window.
        sequence_length: usize,
        /// The table.
        max_len: usize,
    },
    /// Two ways of clipping at once.
    #[error(
        "gradient_clip = {gradient_clip} and adaptive_clip = {adaptive_clip}: gradients are clipped in one way"
    )]
    TwoClips {
        /// The one.
        gradient_clip: f64,
        /// The other.
        adaptive_clip: f64,
    },
    /// Sizes that make no model.
    #[error(transparent)]
    Model(#[from] diapason_model::ConfigError),
}

impl ConfigError {
    /// What to do about it, if that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownKey { key, .. } if matches!(key.as_str(), "seed" | "seeds") => Some(
                "a seed is no key: --seeds N trains each configuration with N seeds, `train` takes --seed N"
                    .to_string(),
            ),
            Self::UnknownKey { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
            Self::UnknownKey { nearest: None, .. } => Some(format!(
                "known keys: {}",
                DESCRIPTIONS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
            )),
            Self::UnknownRecipe { .. } => Some(format!(
                "known recipes: {}",
                RECIPES.iter().map(|recipe| recipe.name).collect::<Vec<_>>().join(", ")
            )),
            Self::WindowTooLong { sequence_length, .. } => {
                Some(format!("set max_len={sequence_length} as well, or a shorter sequence_length"))
            }
            Self::TwoClips { .. } => Some("leave one of the two at 0".to_string()),
            Self::Model(diapason_model::ConfigError::FractionalMlp { d_model, .. }) => {
                Some(format!("mlp_ratio may be any whole number divided by {d_model}"))
            }
            Self::Model(diapason_model::ConfigError::HeadsDoNotDivide { d_model, .. }) => {
                let divisors: Vec<String> =
                    (1..=*d_model).filter(|h| d_model.is_multiple_of(*h)).map(|h| h.to_string()).collect();
                Some(format!("n_heads may be one of {}", divisors.join(", ")))
            }
            _ => None,
        }
    }
}

impl Config {
    /// The configuration that a preset stands for.
    ///
    /// # Errors
    /// A name that no preset has.
    pub fn recipe(name: &str) -> Result<Self, ConfigError> {
        let recipe = RECIPES
            .iter()
            .find(|recipe| recipe.name == name)
            .ok_or_else(|| ConfigError::UnknownRecipe { name: name.to_string() })?;
        let mut config = Self::default();
        for (key, value) in recipe.values {
            config.set(key, value)?;
        }
        Ok(config)
    }

    /// The preset from which this configuration differs in the fewest keys (the first of equals), and these keys with their values.
    pub fn nearest_recipe(&self) -> (&'static Recipe, Vec<(&'static str, Value)>) {
        let mut nearest = (&RECIPES[0], self.differences(&Self::default()));
        for recipe in &RECIPES {
            // Every preset is made of keys that there are: a test makes each.
            let differences = Self::recipe(recipe.name).map(|config| self.differences(&config));
            if let Ok(differences) = differences.map_err(|_| ())
                && differences.len() < nearest.1.len()
            {
                nearest = (recipe, differences);
            }
        }
        (nearest.0, nearest.1.into_iter().map(|(key, value, _)| (key, value)).collect())
    }

    /// Every key with its default and its description, in order.
    pub fn keys() -> Vec<KeyDoc> {
        let defaults = Self::default();
        DESCRIPTIONS
            .iter()
            .map(|&(name, description)| KeyDoc {
                name,
                default: defaults.get(name).map(|v| v.to_string()).unwrap_or_default(),
                description,
            })
            .collect()
    }

    /// The value of `key`, if there is such a key.
    pub fn get(&self, key: &str) -> Option<Value> {
        self.table().remove(key)
    }

    /// Sets `key` to `value`, written as in TOML (`0.001`, `20_000`, `true`); names need no quotes.
    ///
    /// Ranges are checked by [`Config::validated`], once all keys are set.
    ///
    /// # Errors
    /// An unknown key, or a value of the wrong kind; the configuration is then unchanged.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        let value = value.trim();
        let parsed = format!("value = {value}")
            .parse::<Table>()
            .ok()
            .filter(|table| table.len() == 1)
            .and_then(|mut table| table.remove("value"))
            .unwrap_or_else(|| Value::String(value.to_string()));
        self.set_value(key, parsed)
    }

    /// Sets `key` to a TOML value.
    ///
    /// # Errors
    /// As [`Config::set`].
    pub fn set_value(&mut self, key: &str, value: Value) -> Result<(), ConfigError> {
        let mut table = self.table();
        let Some(old) = table.get(key) else {
            return Err(ConfigError::UnknownKey { key: key.to_string(), nearest: nearest_key(key) });
        };
        let refuse = |expected: &str| ConfigError::Value {
            key: key.to_string(),
            value: one_line(&value),
            expected: expected.to_string(),
        };
        let value = match (old, &value) {
            (Value::Integer(_), Value::Integer(i)) if *i >= 0 => value,
            (Value::Integer(_), _) => return Err(refuse("a whole number, 0 or more, as in 2000")),
            (Value::Float(_), Value::Integer(i)) => Value::Float(*i as f64),
            (Value::Float(_), Value::Float(_)) => value,
            (Value::Float(_), _) => return Err(refuse("a number, as in 0.001 or 1e-3")),
            (Value::Boolean(_), Value::Boolean(_)) => value,
            (Value::Boolean(_), _) => return Err(refuse("true or false")),
            (Value::String(_), Value::String(_)) => value,
            (Value::String(_), _) => return Err(refuse("a name")),
            _ => value,
        };
        table.insert(key.to_string(), value.clone());
        *self = table.try_into().map_err(|error: toml::de::Error| ConfigError::Value {
            key: key.to_string(),
            value: one_line(&value),
            // "unknown variant `x`, expected `y`"
            expected: error.message().rsplit("expected ").next().unwrap_or_default().to_string(),
        })?;
        Ok(())
    }

    /// The model that this configuration describes, for `vocabulary` symbols.
    ///
    /// # Errors
    /// Sizes that make no model.
    pub fn model(&self, vocabulary: usize) -> Result<ModelConfig, ConfigError> {
        let model = ModelConfig {
            architecture: self.architecture,
            vocabulary,
            d_model: self.d_model,
            n_heads: self.n_heads,
            n_layers: self.n_layers,
            mlp_ratio: self.mlp_ratio,
            max_len: self.max_len,
            tie_embeddings: self.tie_embeddings,
            norm: self.norm,
            positions: self.positions,
            activation: self.activation,
            mlp_bias: self.mlp_bias,
            qk_norm: self.qk_norm,
            logit_softcap: self.logit_softcap,
            embedding_norm: self.embedding_norm,
            ngram_table: self.ngram_table,
            ngram_rows: self.ngram_rows,
            value_residual: self.value_residual,
            embedding_residual: self.embedding_residual,
            zero_init: self.zero_init,
            dropout: self.dropout,
            loss_positions: self.loss_positions,
        };
        Ok(model.validated()?)
    }

    /// Checks every key: what comes out can be trained on a text of `vocabulary` symbols, memory and text
    /// length permitting.
    ///
    /// # Errors
    /// The first key that is out of range or does not fit the others.
    pub fn validated(self, vocabulary: usize) -> Result<Self, ConfigError> {
        self.model(vocabulary)?;
        within("batch_size", self.batch_size as u64, 1, 1 << 20)?;
        within("sequence_length", self.sequence_length as u64, 1, 1 << 20)?;
        if self.sequence_length > self.max_len {
            return Err(ConfigError::WindowTooLong {
                sequence_length: self.sequence_length,
                max_len: self.max_len,
            });
        }
        // Steps address random numbers with 32 bits.
        within("steps", self.steps, 1, u64::from(u32::MAX))?;
        number("learning_rate", self.learning_rate, self.learning_rate > 0.0, "a positive number", 1e3)?;
        for (key, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            // As f32 a number just below 1 can become 1, and 1 - beta^t is a divisor.
            if !(beta >= 0.0 && (beta as f32) < 1.0) {
                return Err(ConfigError::OutOfRange {
                    key,
                    value: beta.to_string(),
                    low: "0".to_string(),
                    high: "a number below 1".to_string(),
                });
            }
        }
        self.validate_updates()?;
        number("epsilon", self.epsilon, self.epsilon as f32 > 0.0, "a positive number", 1.0)?;
        within("eval_every", self.eval_every, 0, u64::from(u32::MAX))?;
        within("validation_characters", self.validation_characters as u64, 1, 1 << 34)?;
        within("patience", self.patience, 0, u64::from(u32::MAX))?;
        number("min_improvement", self.min_improvement, self.min_improvement >= 0.0, "0", 1e3)?;
        within("checkpoint_seconds", self.checkpoint_seconds, 1, 1 << 32)?;
        Ok(self)
    }

    /// Checks the keys of optimizer, schedule and averaging.
    fn validate_updates(&self) -> Result<(), ConfigError> {
        let share = |key, value: f64| number(key, value, value >= 0.0, "0", 1.0);
        let positive_share = |key, value: f64| number(key, value, value > 0.0, "a positive number", 1.0);
        for (key, rate) in [
            ("adam_learning_rate", self.adam_learning_rate),
            ("ngram_learning_rate", self.ngram_learning_rate),
        ] {
            number(key, rate, rate > 0.0, "a positive number", 1e3)?;
        }
        number("momentum", self.momentum, self.momentum >= 0.0, "0", 0.9999)?;
        number("weight_decay", self.weight_decay, self.weight_decay >= 0.0, "0", 100.0)?;
        number("gradient_clip", self.gradient_clip, self.gradient_clip >= 0.0, "0", 1e6)?;
        number("adaptive_clip", self.adaptive_clip, self.adaptive_clip >= 0.0, "0", 1e6)?;
        within("warmup_steps", self.warmup_steps, 0, u64::from(u32::MAX))?;
        share("batch_ramp", self.batch_ramp)?;
        positive_share("train_fraction", self.train_fraction)?;
        positive_share("decay_share", self.decay_share)?;
        share("final_learning_rate", self.final_learning_rate)?;
        number("averaging_decay", self.averaging_decay, self.averaging_decay >= 0.0, "0", 0.999_999)?;
        positive_share("averaging_share", self.averaging_share)?;
        let Self { gradient_clip, adaptive_clip, .. } = *self;
        if gradient_clip > 0.0 && adaptive_clip > 0.0 {
            return Err(ConfigError::TwoClips { gradient_clip, adaptive_clip });
        }
        Ok(())
    }

    /// What the updates of this configuration need of an engine.
    pub fn updating(&self) -> Updating {
        Updating {
            optimizer: self.optimizer,
            clips: self.gradient_clip > 0.0 || self.adaptive_clip > 0.0,
            averages: self.weight_averaging != Averaging::None,
        }
    }

    /// Steps from one evaluation to the next: `eval_every`, or a twentieth of `steps`, at least 1.
    pub fn steps_between_evaluations(&self) -> u64 {
        if self.eval_every == 0 { (self.steps / 20).max(1) } else { self.eval_every }
    }

    /// The configuration as a TOML file, each key with its description as a comment.
    pub fn to_toml(&self) -> String {
        let table = self.table();
        let mut text = String::new();
        for (name, description) in DESCRIPTIONS {
            if let Some(value) = table.get(*name) {
                text += &format!("# {description}\n{name} = {value}\n");
            }
        }
        text
    }

    /// The keys whose values differ from those of `other`: key, own value, other value.
    pub fn differences(&self, other: &Self) -> Vec<(&'static str, Value, Value)> {
        let (mut own, mut others) = (self.table(), other.table());
        DESCRIPTIONS
            .iter()
            .filter_map(|&(name, _)| Some((name, own.remove(name)?, others.remove(name)?)))
            .filter(|(_, a, b)| a != b)
            .collect()
    }

    fn table(&self) -> Table {
        // Plain numbers, a flag and a name: there is nothing here that TOML cannot hold.
        Table::try_from(self).unwrap_or_default()
    }
}

/// The known key that looks most like `key`, if one is close.
fn nearest_key(key: &str) -> Option<&'static str> {
    let plain = key.to_lowercase().replace('-', "_");
    DESCRIPTIONS
        .iter()
        .map(|&(name, _)| (name, strsim::jaro_winkler(&plain, name)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .filter(|&(_, similarity)| similarity > 0.7)
        .map(|(name, _)| name)
}

/// A value as in TOML, but never over several lines.
fn one_line(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string().replace('\n', " "),
    }
}

fn within(key: &'static str, value: u64, low: u64, high: u64) -> Result<(), ConfigError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::OutOfRange {
        key,
        value: value.to_string(),
        low: low.to_string(),
        high: high.to_string(),
    })
}

fn number(key: &'static str, value: f64, above: bool, low: &str, high: f64) -> Result<(), ConfigError> {
    if above && value <= high {
        return Ok(());
    }
    Err(ConfigError::OutOfRange {
        key,
        value: value.to_string(),
        low: low.to_string(),
        high: high.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_described() {
        let fields: Vec<String> = Config::default().table().keys().cloned().collect();
        let described: Vec<&str> = DESCRIPTIONS.iter().map(|(name, _)| *name).collect();
        assert_eq!(described, fields);
        for key in Config::keys() {
            assert!(!key.description.contains('\n') && key.description.len() < 90, "{key:?}");
            assert_eq!(Config::default().get(key.name).unwrap().to_string(), key.default);
        }
        assert_eq!(Config::default().get("nothing"), None);
    }

    #[test]
    fn keys_are_set_by_name() {
        let mut config = Config::default();
        for (key, value) in [
            ("norm", "rms_norm"),
            ("positions", "\"rotary\""),
            ("logit_softcap", "15"),
            ("precision", "half"),
            ("d_model", "512"),
            ("steps", "50_000"),
            ("learning_rate", " 3e-4 "),
            ("mlp_ratio", "2"),
            ("tie_embeddings", "true"),
        ] {
            config.set(key, value).unwrap();
        }
        let expected = Config {
            d_model: 512,
            steps: 50_000,
            learning_rate: 3e-4,
            mlp_ratio: 2.0,
            tie_embeddings: true,
            norm: Norm::RmsNorm,
            positions: Positions::Rotary,
            logit_softcap: 15.0,
            precision: PrecisionChoice::Half,
            ..Config::default()
        };
        assert_eq!(config, expected);
        assert_eq!(config.get("learning_rate"), Some(Value::Float(3e-4)));
    }

    #[test]
    fn a_wrong_key_names_the_nearest() {
        let nearest = |key| match Config::default().set(key, "1") {
            Err(error @ ConfigError::UnknownKey { nearest, .. }) => {
                assert!(error.to_string().contains(key) && error.hint().is_some());
                nearest
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(nearest("n_head"), Some("n_heads"));
        assert_eq!(nearest("d-model"), Some("d_model"));
        assert_eq!(nearest("LEARNING_RATE"), Some("learning_rate"));
        assert_eq!(nearest("learningrate"), Some("learning_rate"));
        assert_eq!(nearest("layers"), Some("n_layers"));
        assert_eq!(nearest("xyzzy"), None);
        let hint = Config::default().set("seed", "1").unwrap_err().hint().unwrap();
        assert!(hint.contains("--seeds N"), "{hint}");
    }

    #[test]
    fn a_wrong_value_says_what_is_expected() {
        for (key, value, expected) in [
            ("d_model", "big", "d_model = \"big\": expected a whole number, 0 or more"),
            ("d_model", "-1", "d_model = -1: expected a whole number, 0 or more"),
            ("d_model", "256.5", "d_model = 256.5: expected a whole number, 0 or more"),
            ("d_model", "99999999999999999999", "expected a whole number, 0 or more"),
            ("d_model", "", "d_model = \"\": expected a whole number, 0 or more"),
            ("d_model", "1\nsteps = 3", "expected a whole number, 0 or more"),
            ("learning_rate", "fast", "learning_rate = \"fast\": expected a number"),
            ("tie_embeddings", "1", "tie_embeddings = 1: expected true or false"),
            ("optimizer", "sgd", "expected one of `adam`, `adamw`, `lion`, `muon`"),
            ("schedule", "1", "schedule = 1: expected a name"),
            ("norm", "batch_norm", "norm = \"batch_norm\": expected `layer_norm` or `rms_norm`"),
            ("activation", "3", "activation = 3: expected a name"),
            ("precision", "16", "precision = 16: expected a name"),
            ("precision", "fp16", "precision = \"fp16\": expected one of `f32`, `half`, `auto`"),
        ] {
            let mut config = Config::default();
            let message = config.set(key, value).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
            assert!(!message.contains('\n'), "{message}");
            assert_eq!(config, Config::default());
        }
    }

    #[test]
    fn ranges_are_checked() {
        assert_eq!(Config::default().validated(27).unwrap(), Config::default());
        for (key, value) in [
            ("d_model", "0"),
            ("d_model", "250"),
            ("d_model", "10_000_000"),
            ("n_heads", "7"),
            ("n_layers", "0"),
            ("mlp_ratio", "-1"),
            ("mlp_ratio", "nan"),
            ("max_len", "31"),
            ("ngram_table", "9"),
            ("ngram_rows", "0"),
            ("dropout", "1"),
            ("dropout", "nan"),
            ("logit_softcap", "-1"),
            ("batch_size", "0"),
            ("sequence_length", "0"),
            ("sequence_length", "129"),
            ("steps", "0"),
            ("steps", "5_000_000_000"),
            ("learning_rate", "0"),
            ("learning_rate", "-1e-3"),
            ("learning_rate", "inf"),
            ("learning_rate", "nan"),
            ("beta1", "1"),
            ("beta1", "0.99999999999"),
            ("beta2", "-0.1"),
            ("beta2", "nan"),
            ("epsilon", "0"),
            ("epsilon", "1e-60"),
            ("validation_characters", "0"),
            ("validation_characters", "100_000_000_000"),
            ("min_improvement", "-1"),
            ("min_improvement", "nan"),
            ("checkpoint_seconds", "0"),
            ("adam_learning_rate", "0"),
            ("ngram_learning_rate", "0"),
            ("momentum", "1"),
            ("weight_decay", "-1"),
            ("gradient_clip", "nan"),
            ("adaptive_clip", "-0.1"),
            ("warmup_steps", "5_000_000_000"),
            ("batch_ramp", "1.5"),
            ("train_fraction", "0"),
            ("decay_share", "0"),
            ("final_learning_rate", "2"),
            ("averaging_decay", "1"),
            ("averaging_share", "nan"),
        ] {
            let mut config = Config::default();
            config.set(key, value).unwrap();
            let message = config.validated(27).unwrap_err().to_string();
            assert!(message.contains(key) && !message.contains('\n'), "{key}={value}: {message}");
        }
        let error = Config { gradient_clip: 1.0, adaptive_clip: 0.01, ..Config::default() }
            .validated(27)
            .unwrap_err();
        assert!(error.to_string().starts_with("gradient_clip = 1 and adaptive_clip = 0.01: "), "{error}");
        let error = Config { n_heads: 7, ..Config::default() }.validated(27).unwrap_err();
        assert!(error.hint().unwrap().ends_with("1, 2, 4, 8, 16, 32, 64, 128, 256"), "{:?}", error.hint());
    }

    #[test]
    fn recipes_are_configurations() {
        assert_eq!(Config::recipe("seed").unwrap(), Config::default());
        for recipe in RECIPES {
            let config = Config::recipe(recipe.name).unwrap();
            // Only what differs is named, so that the list says what a recipe is.
            let differences = config.differences(&Config::default());
            assert_eq!(differences.len(), recipe.values.len(), "{}", recipe.name);
            config.clone().validated(27).unwrap();
            assert_eq!(
                config.nearest_recipe(),
                (RECIPES.iter().find(|r| **r == recipe).unwrap(), Vec::new())
            );
        }
        let mut config = Config::recipe("fast").unwrap();
        config.set("d_model", "64").unwrap();
        let (recipe, changed) = config.nearest_recipe();
        assert_eq!((recipe.name, changed), ("fast", vec![("d_model", Value::Integer(64))]));
        let error = Config::recipe("slow").unwrap_err();
        assert!(error.hint().unwrap().ends_with("seed, fast"), "{error}");
    }

    #[test]
    fn old_files_name_an_architecture() {
        let old = "architecture = \"seed\"\nd_model = 64\nsteps = 7\n";
        assert_eq!(
            toml::from_str::<Config>(old).unwrap(),
            Config { d_model: 64, steps: 7, ..Config::default() }
        );
        assert!(toml::from_str::<Config>("architecture = \"mamba\"").is_err());
        assert!(Config::default().set("architecture", "seed").is_err());
    }

    #[test]
    fn evaluations_are_twenty_by_default() {
        let every =
            |steps, eval_every| Config { steps, eval_every, ..Config::default() }.steps_between_evaluations();
        assert_eq!(every(20_000, 0), 1000);
        assert_eq!(every(10, 0), 1);
        assert_eq!(every(20_000, 7), 7);
    }

    #[test]
    fn the_file_says_all() {
        let config = Config { learning_rate: 0.1 + 0.2, epsilon: 1e-12, steps: 7, ..Config::default() };
        let text = config.to_toml();
        assert_eq!(toml::from_str::<Config>(&text).unwrap(), config);
        assert!(text.contains("# training steps\nsteps = 7\n"), "{text}");
    }

    #[test]
    fn json_is_strict_and_exact() {
        let config = Config { learning_rate: 1.0 / 3.0, ..Config::default() };
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
        assert!(serde_json::from_str::<Config>(r#"{"n_layer": 3}"#).is_err());
    }
}
