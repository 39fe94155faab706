//! Stopping rules: what may end a trial before its last step.
//!
//! A rule is one value with one way of writing it, on the command line, in `study.toml` and in what is said of a study:
//! `halving:eta=2`. A name, then options after a colon, with commas between them. What is left out has its default, and
//! a rule is always written with all that holds for it, so that a default that changes does not change a study.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What may end a trial before its last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Rule {
    /// `none`: every trial runs to its end (patience, a key of the configuration, can still end it).
    #[default]
    None,
    /// `halving:eta=2`: successive halving. Trials are compared at rungs; of each rung about one in `eta` goes on.
    Halving(Rungs),
    /// `hyperband:eta=3`: successive halving in several brackets that begin to compare at different steps.
    Hyperband(Rungs),
    /// `median:startup=5,warmup=0.2`: a trial ends that is worse than half of those before it.
    Median(Median),
    /// `patience:5`: a trial ends after so many evaluations without improvement. In a study this is the
    /// configuration's `patience`; as a rule it can be replayed.
    Patience(u64),
    /// `as-seed`: what the notebook's early pass did. In a study this is a protocol; as a rule it can be replayed.
    AsSeed,
}

/// Options of the rules that compare at rungs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rungs {
    /// About one in so many goes on, and the next rung has so many times the steps; 2 to 16.
    pub eta: u64,
    /// The step of the first rung; none: see [`crate::rungs::first_rung`].
    pub first: Option<u64>,
    /// Whether a configuration goes on as soon as it is among the best so far, instead of when all have been read.
    /// What is trained then depends on timing.
    pub asynchronous: bool,
}

/// Options of the median rule, as Optuna's `MedianPruner` has them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Median {
    /// Trials that must be complete before any is ended.
    pub startup: u64,
    /// No trial is ended in this share of its steps.
    pub warmup: f64,
}

impl Default for Median {
    fn default() -> Self {
        Self { startup: 5, warmup: 0.2 }
    }
}

impl Median {
    /// Whether a trial of `steps` steps ends after the evaluation at `step`, and why: the lowest loss that it has had so
    /// far is above the median of what the complete trials had at that step. `complete`: how many there are; `others`:
    /// their losses there, as far as they were evaluated there.
    pub fn falls_behind(
        &self,
        (step, steps): (u64, u64),
        best: f64,
        complete: usize,
        others: &[f64],
    ) -> Option<String> {
        let too_soon = (step as f64) < self.warmup * steps as f64 || (complete as u64) < self.startup;
        let mut others: Vec<f64> = others.iter().copied().filter(|loss| loss.is_finite()).collect();
        if too_soon || others.is_empty() {
            return None;
        }
        others.sort_by(f64::total_cmp);
        let n = others.len();
        let median = (others[(n - 1) / 2] + others[n / 2]) / 2.0;
        (best > median)
            .then(|| format!("{best:.4} at best so far, above {median:.4}, the median of {n} trials there"))
    }
}

/// A rule that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule `{text}`: {what}")]
pub struct RuleError {
    text: String,
    what: String,
}

impl RuleError {
    /// What a rule looks like.
    pub fn hint(&self) -> &'static str {
        "one of none, halving:eta=2, halving:eta=2,asynchronous, hyperband:eta=3, median:startup=5,warmup=0.2, patience:5, as-seed (in replay)"
    }
}

impl Rule {
    /// The options of a rule with rungs.
    pub fn rungs(&self) -> Option<&Rungs> {
        match self {
            Self::Halving(rungs) | Self::Hyperband(rungs) => Some(rungs),
            _ => None,
        }
    }

    /// Whether there is no rule.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// Why two runs of the same study may differ under this rule; none if they may not.
    pub fn not_reproducible(&self) -> Option<&'static str> {
        match self {
            Self::Halving(Rungs { asynchronous: true, .. }) => {
                Some("not reproducible: which configurations go on depends on when each is read")
            }
            Self::Median(_) => Some(
                "not reproducible when several trials run at once: which trials are ended depends on when each is read",
            ),
            _ => None,
        }
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let refuse = |what: String| RuleError { text: text.to_string(), what };
        let (name, rest) = text.trim().split_once(':').unwrap_or((text.trim(), ""));
        let options: Vec<&str> = rest.split(',').map(str::trim).filter(|option| !option.is_empty()).collect();
        let whole =
            |key: &str, value: &str, low: u64, high: u64| {
                value.parse().ok().filter(|n| (low..=high).contains(n)).ok_or_else(|| {
                    refuse(format!("{key} is a whole number from {low} to {high}, not `{value}`"))
                })
            };
        let mut seen = Vec::new();
        let mut pairs = Vec::new();
        for option in options {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            if seen.contains(&key) {
                return Err(refuse(format!("{key} is given twice")));
            }
            seen.push(key);
            pairs.push((key, value));
        }
        let unknown = |key: &str| refuse(format!("it has no option `{key}`"));
        match name {
            "halving" | "hyperband" => {
                // Halving: docs/log.md, 2026-11-30, has the studies that say so. Hyperband: as its authors have it.
                let eta = if name == "halving" { 2 } else { 3 };
                let mut rungs = Rungs { eta, first: None, asynchronous: false };
                for (key, value) in pairs {
                    match key {
                        "eta" => rungs.eta = whole(key, value, 2, 16)?,
                        "first" => rungs.first = Some(whole(key, value, 1, u64::from(u32::MAX))?),
                        "asynchronous" if value.is_empty() && name == "halving" => rungs.asynchronous = true,
                        key => return Err(unknown(key)),
                    }
                }
                Ok(if name == "halving" { Self::Halving(rungs) } else { Self::Hyperband(rungs) })
            }
            "median" => {
                let mut median = Median::default();
                for (key, value) in pairs {
                    match key {
                        "startup" => median.startup = whole(key, value, 1, 1_000_000)?,
                        "warmup" => {
                            let share = value.parse().ok().filter(|share| (0.0..1.0).contains(share));
                            median.warmup = share.ok_or_else(|| {
                                refuse(format!("warmup is a share of the steps, 0 to below 1, not `{value}`"))
                            })?;
                        }
                        key => return Err(unknown(key)),
                    }
                }
                Ok(Self::Median(median))
            }
            "patience" => match pairs[..] {
                [(evaluations, "")] => Ok(Self::Patience(whole("patience", evaluations, 1, 1_000_000)?)),
                _ => Err(refuse("it needs a number of evaluations, as in patience:5".to_string())),
            },
            "none" | "as-seed" => match pairs.first() {
                Some((key, _)) => Err(unknown(key)),
                None if name == "none" => Ok(Self::None),
                None => Ok(Self::AsSeed),
            },
            _ => Err(refuse("there is no such rule".to_string())),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Halving(rungs) | Self::Hyperband(rungs) => {
                let name = if matches!(self, Self::Halving(_)) { "halving" } else { "hyperband" };
                write!(f, "{name}:eta={}", rungs.eta)?;
                if let Some(first) = rungs.first {
                    write!(f, ",first={first}")?;
                }
                f.write_str(if rungs.asynchronous { ",asynchronous" } else { "" })
            }
            Self::Median(Median { startup, warmup }) => write!(f, "median:startup={startup},warmup={warmup}"),
            Self::Patience(evaluations) => write!(f, "patience:{evaluations}"),
            Self::AsSeed => f.write_str("as-seed"),
        }
    }
}

impl TryFrom<String> for Rule {
    type Error = RuleError;

    fn try_from(text: String) -> Result<Self, RuleError> {
        text.parse()
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> Self {
        rule.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (text, canonical) in [
            ("none", "none"),
            ("halving", "halving:eta=2"),
            (" halving:first=100, eta=4 ", "halving:eta=4,first=100"),
            ("halving:asynchronous", "halving:eta=2,asynchronous"),
            ("hyperband", "hyperband:eta=3"),
            ("hyperband:eta=2", "hyperband:eta=2"),
            ("median", "median:startup=5,warmup=0.2"),
            ("median:warmup=0", "median:startup=5,warmup=0"),
            ("patience:7", "patience:7"),
            ("as-seed", "as-seed"),
        ] {
            let rule: Rule = text.parse().unwrap();
            assert_eq!(rule.to_string(), canonical);
            assert_eq!(canonical.parse::<Rule>().unwrap(), rule);
            let json = serde_json::to_string(&rule).unwrap();
            assert_eq!(serde_json::from_str::<Rule>(&json).unwrap(), rule);
        }
    }

    #[test]
    fn what_is_no_rule_says_why() {
        for (text, part) in [
            ("", "rule ``: there is no such rule"),
            ("halve", "rule `halve`: there is no such rule"),
            ("halving:eta=1", "eta is a whole number from 2 to 16, not `1`"),
            ("halving:eta", "not ``"),
            ("halving:eta=3,eta=3", "eta is given twice"),
            ("halving:rate=3", "no option `rate`"),
            ("halving:asynchronous=1", "no option `asynchronous`"),
            ("hyperband:asynchronous", "no option `asynchronous`"),
            ("median:warmup=1", "warmup is a share"),
            ("patience", "needs a number"),
            ("patience:0", "from 1"),
            ("none:eta=3", "no option `eta`"),
        ] {
            let error = text.parse::<Rule>().unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
        // What is said to be one of them is one.
        let error = "halve".parse::<Rule>().unwrap_err();
        let named = error.hint().trim_start_matches("one of ").replace(" (in replay)", "");
        for rule in named.split(", ") {
            assert!(rule.parse::<Rule>().is_ok(), "{rule}");
        }
    }

    #[test]
    fn the_median_rule() {
        let median = Median { startup: 3, warmup: 0.2 };
        let ends = |step, best, others: &[f64]| median.falls_behind((step, 100), best, others.len(), others);
        let others = [3.0, 1.0, 2.0];
        assert_eq!(ends(20, 2.0, &others), None, "the median itself is not above it");
        let why = ends(20, 2.01, &others).unwrap();
        assert_eq!(why, "2.0100 at best so far, above 2.0000, the median of 3 trials there");
        assert_eq!(ends(19, 9.0, &others), None, "it has only begun");
        assert_eq!(ends(20, 9.0, &others[..2]), None, "too few to compare with");
        // The mean of the two in the middle; what is no number does not count.
        assert!(ends(20, 2.6, &[1.0, 2.0, 3.0, 4.0, f64::NAN]).is_some());
        assert!(ends(20, 2.4, &[1.0, 2.0, 3.0, 4.0]).is_none());
        assert_eq!(median.falls_behind((20, 100), 9.0, 5, &[]), None, "none was evaluated there");
    }

    #[test]
    fn only_timing_makes_a_rule_irreproducible() {
        let said = |text: &str| text.parse::<Rule>().unwrap().not_reproducible().is_some();
        assert!(said("halving:asynchronous") && said("median"));
        assert!(!said("halving") && !said("hyperband") && !said("none"));
    }
}
