//! The configuration of a run: one flat set of keys.
//!
//! Everything that decides what a run computes, apart from the text, the seed and the engine, is a key here.
//! The set is flat so that a search space, a command line and a file all name a thing in the same way. One
//! table ([`Config::keys`]) describes every key; the help text, the written file and the nearest-name hint
//! read it. The defaults are those of the notebook that this program started from.

use diapason_engine::Precision;
use diapason_model::{Architecture, ModelConfig};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// Which [`Precision`] is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionChoice {
    /// [`Precision::F32`].
    #[default]
    F32,
    /// [`Precision::Half`], also where that is slower.
    Half,
    /// [`Precision::Half`] where that is faster, else [`Precision::F32`].
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
    /// The family of models.
    pub architecture: Architecture,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Attention heads; divides `d_model`.
    pub n_heads: usize,
    /// Number of blocks.
    pub n_layers: usize,
    /// Hidden width of the MLP in units of `d_model`.
    pub mlp_ratio: f64,
    /// Rows of the position table: the longest context.
    pub max_len: usize,
    /// Whether the output matrix is the token embedding transposed.
    pub tie_embeddings: bool,
    /// Windows in a training batch.
    pub batch_size: usize,
    /// Characters in a window; at most `max_len`.
    pub sequence_length: usize,
    /// Training steps (updates).
    pub steps: u64,
    /// Adam's step size.
    pub learning_rate: f64,
    /// Decay of Adam's first moment.
    pub beta1: f64,
    /// Decay of Adam's second moment.
    pub beta2: f64,
    /// Added to the root of Adam's second moment.
    pub epsilon: f64,
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
            batch_size: 64,
            sequence_length: 32,
            steps: 20_000,
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            eval_every: 0,
            validation_characters: 131_072,
            patience: 5,
            min_improvement: 1e-3,
            checkpoint_seconds: 60,
            precision: PrecisionChoice::F32,
        }
    }
}

/// One line of description per key, in the order of the file. The test `every_key_is_described` holds it to
/// the fields of [`Config`].
const DESCRIPTIONS: [(&str, &str); 20] = [
    ("architecture", "family of models: \"seed\" (pre-LayerNorm, learned positions, GELU)"),
    ("d_model", "width of the residual stream"),
    ("n_heads", "attention heads in each block; divides d_model"),
    ("n_layers", "number of blocks"),
    ("mlp_ratio", "hidden width of the MLP in units of d_model"),
    ("max_len", "rows of the position table: the longest context"),
    ("tie_embeddings", "use the token embedding, transposed, as the output matrix"),
    ("batch_size", "windows in a training batch"),
    ("sequence_length", "characters in a window; at most max_len"),
    ("steps", "training steps"),
    ("learning_rate", "Adam's step size"),
    ("beta1", "decay of Adam's first moment"),
    ("beta2", "decay of Adam's second moment"),
    ("epsilon", "added to the root of Adam's second moment"),
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
    /// Sizes that make no model.
    #[error(transparent)]
    Model(#[from] diapason_model::ConfigError),
}

impl ConfigError {
    /// What to do about it, if that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownKey { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
            Self::UnknownKey { nearest: None, .. } => Some(format!(
                "known keys: {}",
                DESCRIPTIONS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
            )),
            Self::WindowTooLong { sequence_length, .. } => {
                Some(format!("set max_len={sequence_length} as well, or a shorter sequence_length"))
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
        number("epsilon", self.epsilon, self.epsilon as f32 > 0.0, "a positive number", 1.0)?;
        within("eval_every", self.eval_every, 0, u64::from(u32::MAX))?;
        within("validation_characters", self.validation_characters as u64, 1, 1 << 34)?;
        within("patience", self.patience, 0, u64::from(u32::MAX))?;
        number("min_improvement", self.min_improvement, self.min_improvement >= 0.0, "0", 1e3)?;
        within("checkpoint_seconds", self.checkpoint_seconds, 1, 1 << 32)?;
        Ok(self)
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
            if let Some(value) = table.get(name) {
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
            ("architecture", "seed"),
            ("architecture", "\"seed\""),
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
            ("architecture", "mamba", "architecture = \"mamba\": expected `seed`"),
            ("architecture", "3", "architecture = 3: expected a name"),
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
        ] {
            let mut config = Config::default();
            config.set(key, value).unwrap();
            let message = config.validated(27).unwrap_err().to_string();
            assert!(message.contains(key) && !message.contains('\n'), "{key}={value}: {message}");
        }
        let error = Config { n_heads: 7, ..Config::default() }.validated(27).unwrap_err();
        assert!(error.hint().unwrap().ends_with("1, 2, 4, 8, 16, 32, 64, 128, 256"), "{:?}", error.hint());
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
