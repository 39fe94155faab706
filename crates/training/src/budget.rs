//! How much a run may take: so much time, so many characters, so much arithmetic.

use crate::{Config, ConfigError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Seconds of a year.
const YEAR: f64 = 365.0 * 24.0 * 3600.0;

/// A limit that a run ends with; in files it is the text that is typed, as `2e9chars`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Budget {
    /// Seconds of the clock.
    Seconds(f64),
    /// Characters that are trained on, each time anew.
    Characters(f64),
    /// Floating-point operations by the usual count of the model's training.
    Flop(f64),
}

/// Why a budget is refused.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    /// Text of another form.
    #[error("must be a positive number with s, min, h, chars or flop, as in 60min or 2e9chars")]
    Form,
    /// More than any run can take.
    #[error("is more than any run can take: at most a year, 1e18chars or 1e24flop")]
    TooLarge,
    /// More steps than a run can have.
    #[error("a budget of {budget} pays for more than {most} steps, the most that a run can have")]
    TooManySteps {
        /// The budget.
        budget: Budget,
        /// The steps.
        most: u32,
    },
    /// Less than one step.
    #[error("a budget of {budget} does not pay for one step, which takes {step}")]
    TooSmall {
        /// The budget.
        budget: Budget,
        /// A step.
        step: Budget,
    },
    /// A configuration that makes no model.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl BudgetError {
    /// What to do about it, if that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint(),
            Self::TooSmall { .. } => {
                Some("a larger budget, or a smaller batch_size, as in --set batch_size=16".to_string())
            }
            Self::TooManySteps { .. } => {
                Some("a smaller budget, or a larger model or batch_size".to_string())
            }
            Self::Form | Self::TooLarge => None,
        }
    }
}

impl FromStr for Budget {
    type Err = BudgetError;

    fn from_str(text: &str) -> Result<Self, BudgetError> {
        let plain = text.trim().to_lowercase().replace('_', "");
        // `chars` ends in `s` too: longer units come first.
        let (unit, number) = ["min", "chars", "flop", "h", "s"]
            .into_iter()
            .find_map(|unit| Some((unit, plain.strip_suffix(unit)?.trim().parse::<f64>().ok()?)))
            .filter(|(_, number)| *number > 0.0)
            .ok_or(BudgetError::Form)?;
        let (budget, most) = match unit {
            "min" => (Self::Seconds(60.0 * number), YEAR),
            "h" => (Self::Seconds(3600.0 * number), YEAR),
            "s" => (Self::Seconds(number), YEAR),
            "chars" => (Self::Characters(number), 1e18),
            _ => (Self::Flop(number), 1e24),
        };
        let (Self::Seconds(amount) | Self::Characters(amount) | Self::Flop(amount)) = budget;
        if amount > most { Err(BudgetError::TooLarge) } else { Ok(budget) }
    }
}

impl TryFrom<String> for Budget {
    type Error = BudgetError;

    fn try_from(text: String) -> Result<Self, BudgetError> {
        text.parse()
    }
}

impl From<Budget> for String {
    fn from(budget: Budget) -> Self {
        budget.to_string()
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Seconds(s) if s % 3600.0 == 0.0 => write!(f, "{}h", s / 3600.0),
            Self::Seconds(s) if s % 60.0 == 0.0 => write!(f, "{}min", s / 60.0),
            Self::Seconds(s) => write!(f, "{s}s"),
            Self::Characters(n) if n < 1e6 => write!(f, "{n}chars"),
            Self::Characters(n) => write!(f, "{n:e}chars"),
            Self::Flop(n) => write!(f, "{n:e}flop"),
        }
    }
}

impl Budget {
    /// So many times as much.
    pub fn times(self, factor: f64) -> Self {
        match self {
            Self::Seconds(seconds) => Self::Seconds(factor * seconds),
            Self::Characters(characters) => Self::Characters(factor * characters),
            Self::Flop(flop) => Self::Flop(factor * flop),
        }
    }

    /// The number of steps of `config`, on a text of `vocabulary` symbols, that the budget pays for: as many as fit. None is
    /// known for time.
    ///
    /// # Errors
    /// A budget smaller than a step; a configuration that makes no model.
    pub fn steps(self, config: &Config, vocabulary: usize) -> Result<u64, BudgetError> {
        let flop = config.model(vocabulary)?.training_flop(1, config.sequence_length);
        let characters = match self {
            Self::Seconds(_) => return Ok(config.steps),
            Self::Characters(characters) => characters,
            Self::Flop(budget) => budget / flop,
        };
        let cost = |steps: u64| Config { steps, ..config.clone() }.characters(steps);
        // Steps address random numbers with 32 bits.
        let most = u32::MAX;
        if cost(u64::from(most)) < characters {
            return Err(BudgetError::TooManySteps { budget: self, most });
        }
        let (mut fits, mut too_many) = (0, u64::from(most) + 1);
        while too_many - fits > 1 {
            let middle = fits + (too_many - fits) / 2;
            if cost(middle) <= characters { fits = middle } else { too_many = middle }
        }
        if fits > 0 {
            return Ok(fits);
        }
        let step = match self {
            Self::Flop(_) => Self::Flop(cost(1) * flop),
            _ => Self::Characters(cost(1)),
        };
        Err(BudgetError::TooSmall { budget: self, step })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read_and_written() {
        for (text, budget, written) in [
            ("60min", Budget::Seconds(3600.0), "1h"),
            ("1.5h", Budget::Seconds(5400.0), "90min"),
            (" 90 s ", Budget::Seconds(90.0), "90s"),
            ("0.5min", Budget::Seconds(30.0), "30s"),
            ("2e9chars", Budget::Characters(2e9), "2e9chars"),
            ("100_000chars", Budget::Characters(1e5), "100000chars"),
            ("1E15 FLOP", Budget::Flop(1e15), "1e15flop"),
        ] {
            let read: Budget = text.parse().unwrap();
            assert_eq!((read, read.to_string().as_str()), (budget, written), "{text}");
            assert_eq!(read.to_string().parse::<Budget>().unwrap(), budget);
            let json = serde_json::to_string(&read).unwrap();
            assert_eq!(
                (json.as_str(), serde_json::from_str(&json).ok()),
                (&*format!("\"{written}\""), Some(read))
            );
        }
        for text in ["", "60", "min", "-1min", "0s", "nanh", "-1e40flop", "ten min", "5 days"] {
            let message = text.parse::<Budget>().unwrap_err().to_string();
            assert!(message.contains("must be a positive number") && !message.contains('\n'), "{message}");
        }
        for text in ["infs", "1e30flop", "1e400chars", "9000h"] {
            let message = text.parse::<Budget>().unwrap_err().to_string();
            assert!(message.contains("is more than any run can take"), "{message}");
        }
    }

    #[test]
    fn budgets_choose_steps() {
        let config = Config::default();
        assert_eq!(Budget::Characters(2048.0 * 100.0).steps(&config, 27).unwrap(), 100);
        assert_eq!(Budget::Characters(2048.0 * 101.0 - 1.0).steps(&config, 27).unwrap(), 100);
        // 39.5 GFLOP a step.
        assert_eq!(Budget::Flop(39.6e11).steps(&config, 27).unwrap(), 100);
        let ramp = Config { batch_ramp: 1.0, ..Config::default() };
        // 50 steps of 16 windows, 50 of 32.
        assert_eq!(Budget::Characters(32.0 * (50.0 * 16.0 + 50.0 * 32.0)).steps(&ramp, 27).unwrap(), 100);
        let error = Budget::Characters(2000.0).steps(&config, 27).unwrap_err().to_string();
        assert_eq!(error, "a budget of 2000chars does not pay for one step, which takes 2048chars");
        assert!(Budget::Flop(1e6).steps(&config, 27).is_err());
        let error = Budget::Flop(1e24).steps(&config, 27).unwrap_err();
        assert!(error.to_string().contains("pays for more than 4294967295 steps"), "{error}");
        assert!(error.hint().is_some());
    }
}
