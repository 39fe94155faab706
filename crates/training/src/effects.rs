//! Which keys have an effect only under some values of another.
//!
//! A key that does nothing is no error by itself: a recipe sets many, and the optimizer that reads them may be changed. But whoever asks
//! for it by name expects something, and a search over it would train the same thing several times. One table says when each has an effect.

use crate::updates::{Averaging, RateSchedule};
use crate::{Config, Protocol};
use diapason_engine::Optimizer;
use std::fmt;
use toml::Value;

/// A key, the other key that decides whether it has an effect, whether it has one, and a value of the other with which it has.
type Effect = (&'static str, &'static str, fn(&Config) -> bool, &'static str);

/// Keys that are not here always have an effect.
const EFFECTS: &[Effect] = &[
    ("value_residual", "n_layers", |c| c.n_layers > 1, "2"),
    ("embedding_residual", "n_layers", |c| c.n_layers > 1, "2"),
    ("ngram_rows", "ngram_table", |c| c.ngram_table > 0, "4"),
    ("ngram_learning_rate", "ngram_table", |c| c.ngram_table > 0, "4"),
    ("adam_learning_rate", "optimizer", |c| c.optimizer == Optimizer::Muon, "muon"),
    ("momentum", "optimizer", |c| c.optimizer == Optimizer::Muon, "muon"),
    ("epsilon", "optimizer", |c| c.optimizer != Optimizer::Lion || c.ngram_table > 0, "adam"),
    ("weight_decay", "optimizer", |c| c.optimizer != Optimizer::Adam, "adamw"),
    ("decay_share", "schedule", |c| c.schedule == RateSchedule::Wsd, "wsd"),
    ("final_learning_rate", "schedule", |c| c.schedule != RateSchedule::Constant, "linear"),
    ("averaging_decay", "weight_averaging", |c| c.weight_averaging == Averaging::Ema, "ema"),
    ("averaging_share", "weight_averaging", |c| c.weight_averaging == Averaging::Tail, "tail"),
    ("min_improvement", "patience", |c| c.patience > 0, "5"),
];

/// Keys that the notebook's protocol does not read.
const NOT_AS_SEED: [&str; 3] = ["patience", "min_improvement", "validation_characters"];

/// A key that has no effect: `momentum` with `optimizer = adam`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle {
    /// The key.
    pub key: &'static str,
    /// What decides that.
    pub because: &'static str,
    /// Its values with which the key has no effect.
    pub values: Vec<String>,
    /// What would give the key an effect; none: nothing in the configuration.
    pub remedy: Option<String>,
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` has no effect with {} = {}", self.key, self.because, self.values.join(", "))
    }
}

/// The key that decides whether `key` has an effect, if one does.
pub fn decides_on(key: &str) -> Option<&'static str> {
    EFFECTS.iter().find(|(of, ..)| *of == key).map(|(_, by, ..)| *by)
}

impl Config {
    /// That `key` has no effect in this configuration under `protocol`; none if it has one.
    pub fn idle(&self, key: &str, protocol: Protocol) -> Option<Idle> {
        if protocol == Protocol::AsSeed
            && let Some(key) = NOT_AS_SEED.into_iter().find(|of| *of == key)
        {
            let values = vec![protocol.name().to_string()];
            return Some(Idle { key, because: "protocol", values, remedy: None });
        }
        let (key, because, has_effect, with) = *EFFECTS.iter().find(|(of, ..)| *of == key)?;
        let value = match self.get(because)? {
            Value::String(name) => name,
            number => number.to_string(),
        };
        (!has_effect(self)).then(|| Idle {
            key,
            because,
            values: vec![value],
            remedy: Some(format!("set {because}={with}")),
        })
    }

    /// What to say if the run ends before its warm-up.
    pub fn endless_warm_up(&self) -> Option<String> {
        let Self { warmup_steps, steps, .. } = self;
        (warmup_steps >= steps).then(|| {
            format!("the warm-up lasts the whole run: warmup_steps = {warmup_steps}, steps = {steps}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_an_effect_with_one_value_and_none_with_another() {
        let idle = |assignments: &[(&str, &str)], key| {
            let mut config = Config::default();
            for (key, value) in assignments {
                config.set(key, value).unwrap();
            }
            config.validated(27).unwrap().idle(key, Protocol::Standard).map(|idle| idle.to_string())
        };
        let mut seen = 0;
        for (other, value, keys) in [
            ("n_layers", "1", &["value_residual", "embedding_residual"][..]),
            ("ngram_table", "0", &["ngram_rows", "ngram_learning_rate"]),
            ("optimizer", "adamw", &["adam_learning_rate", "momentum"]),
            ("optimizer", "lion", &["epsilon"]),
            ("optimizer", "adam", &["weight_decay"]),
            ("schedule", "cosine", &["decay_share"]),
            ("schedule", "constant", &["final_learning_rate"]),
            ("weight_averaging", "tail", &["averaging_decay"]),
            ("weight_averaging", "ema", &["averaging_share"]),
            ("patience", "0", &["min_improvement"]),
        ] {
            for key in keys {
                assert_eq!(decides_on(key), Some(other));
                let said = idle(&[(other, value)], key);
                assert_eq!(said.unwrap(), format!("`{key}` has no effect with {other} = {value}"));
                let with = EFFECTS.iter().find(|(of, ..)| of == key).unwrap().3;
                assert_eq!(idle(&[(other, with)], key), None, "{key} with {other}={with}");
                seen += 1;
            }
        }
        assert_eq!(seen, EFFECTS.len());
        assert!(EFFECTS.iter().all(|(key, by, ..)| Config::default().get(key).is_some() && by != key));
    }

    #[test]
    fn the_notebooks_protocol_reads_fewer() {
        let config = Config::default();
        assert_eq!(
            config.idle("patience", Protocol::AsSeed).unwrap().to_string(),
            "`patience` has no effect with protocol = as-seed"
        );
        assert_eq!(config.idle("patience", Protocol::Standard), None);
        assert!(NOT_AS_SEED.iter().all(|key| config.get(key).is_some()));
    }

    #[test]
    fn a_warm_up_ends_before_the_run() {
        let said = |warmup_steps| Config { warmup_steps, steps: 50, ..Config::default() }.endless_warm_up();
        assert_eq!(said(49), None);
        assert_eq!(said(50).unwrap(), "the warm-up lasts the whole run: warmup_steps = 50, steps = 50");
    }
}
