//! The configuration of a run: one flat set of keys.
//!
//! Everything that decides what a run computes, apart from the text, the seed and the engine, is a key here.
//! The set is flat so that a search space, a command line and a file all name a thing in the same way. One
//! table ([`Config::keys`]) describes every key; the help text, the written file and the nearest-name hint
//! read it. The defaults are those of the notebook that this program started from.

use crate::files;
use diapason_model::{Architecture, ModelConfig};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

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
    /// Windows in the fixed validation set.
    pub validation_windows: usize,
    /// Evaluations without improvement that end a run; 0: never.
    pub patience: u64,
    /// How far the loss must fall to count as an improvement, nats.
    pub min_improvement: f64,
    /// Seconds between checkpoints.
    pub checkpoint_seconds: u64,
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
            validation_windows: 4096,
            patience: 5,
            min_improvement: 1e-3,
            checkpoint_seconds: 60,
        }
    }
}

/// One line of description per key, in the order of the file. The test `every_key_is_described` holds it to
/// the fields of [`Config`].
const DESCRIPTIONS: [(&str, &str); 19] = [
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
    ("validation_windows", "windows in the fixed validation set"),
    ("patience", "evaluations without improvement that end a run; 0: never"),
    ("min_improvement", "how far the validation loss must fall to count as an improvement, nats"),
    ("checkpoint_seconds", "seconds between checkpoints"),
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
    #[error("unknown key `{key}`{}", in_file(.path))]
    UnknownKey {
        /// What was written.
        key: String,
        /// The known key that looks most like it, if any does.
        nearest: Option<&'static str>,
        /// The file it stands in, if it came from one.
        path: Option<PathBuf>,
    },
    /// A value of the wrong kind.
    #[error("{key} = {value}{}: expected {expected}", in_file(.path))]
    Value {
        /// The key.
        key: String,
        /// What was written.
        value: String,
        /// What would be right.
        expected: String,
        /// The file it stands in, if it came from one.
        path: Option<PathBuf>,
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
    /// A validation set that would fill the memory.
    #[error("validation_windows {windows} of {sequence_length} characters need {gib:.0} GiB of memory")]
    ValidationTooLarge {
        /// Number of windows.
        windows: usize,
        /// Characters each.
        sequence_length: usize,
        /// What they need.
        gib: f64,
    },
    /// Sizes that make no model.
    #[error(transparent)]
    Model(#[from] diapason_model::ConfigError),
    /// A file that is not TOML.
    #[error("{}{message}", path.as_ref().map(|p| format!("{}: ", p.display())).unwrap_or_default())]
    Toml {
        /// The file, if it came from one.
        path: Option<PathBuf>,
        /// What the parser says, in one line.
        message: String,
    },
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

fn in_file(path: &Option<PathBuf>) -> String {
    path.as_ref().map(|p| format!(" in {}", p.display())).unwrap_or_default()
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
                let divisors: Vec<String> = (1..=d_model.div_euclid(2))
                    .filter(|h| d_model.is_multiple_of(*h))
                    .map(|h| h.to_string())
                    .collect();
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
            return Err(ConfigError::UnknownKey {
                key: key.to_string(),
                nearest: nearest_key(key),
                path: None,
            });
        };
        let refuse = |expected: &str| ConfigError::Value {
            key: key.to_string(),
            value: value.to_string(),
            expected: expected.to_string(),
            path: None,
        };
        let value = match (old, &value) {
            (Value::Integer(_), Value::Integer(i)) if *i >= 0 => value,
            (Value::Integer(_), _) => return Err(refuse("a whole number, 0 or more")),
            (Value::Float(_), Value::Integer(i)) => Value::Float(*i as f64),
            (Value::Float(_), Value::Float(_)) => value,
            (Value::Float(_), _) => return Err(refuse("a number")),
            (Value::Boolean(_), Value::Boolean(_)) => value,
            (Value::Boolean(_), _) => return Err(refuse("true or false")),
            _ => value,
        };
        table.insert(key.to_string(), value.clone());
        *self = table.try_into().map_err(|error: toml::de::Error| ConfigError::Value {
            key: key.to_string(),
            value: value.to_string(),
            expected: error.message().to_string(),
            path: None,
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
        within("validation_windows", self.validation_windows as u64, 1, 1 << 30)?;
        let bytes = 2.0 * self.validation_windows as f64 * self.sequence_length as f64;
        if bytes > (1u64 << 32) as f64 {
            return Err(ConfigError::ValidationTooLarge {
                windows: self.validation_windows,
                sequence_length: self.sequence_length,
                gib: bytes / (1u64 << 30) as f64,
            });
        }
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

    /// Reads what [`Config::to_toml`] writes; keys that are absent keep their defaults.
    ///
    /// # Errors
    /// Text that is not TOML, unknown keys, values of the wrong kind.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Toml {
            path: None,
            message: error.message().replace('\n', " "),
        })?;
        let mut config = Self::default();
        for (key, value) in table {
            config.set_value(&key, value)?;
        }
        Ok(config)
    }

    /// Reads a TOML file.
    ///
    /// # Errors
    /// As [`Config::from_toml`], and files that cannot be read.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Io { path: path.to_path_buf(), source })?;
        Self::from_toml(&text).map_err(|mut error| {
            match &mut error {
                ConfigError::UnknownKey { path: place, .. }
                | ConfigError::Value { path: place, .. }
                | ConfigError::Toml { path: place, .. } => *place = Some(path.to_path_buf()),
                _ => {}
            }
            error
        })
    }

    /// Writes a TOML file, atomically.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ConfigError> {
        files::write_atomically(path, |out| out.write_all(self.to_toml().as_bytes()))
            .map_err(|source| ConfigError::Io { path: path.to_path_buf(), source })
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
