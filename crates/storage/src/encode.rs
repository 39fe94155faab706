//! How Optuna writes things down.
//!
//! One row that Optuna cannot read makes a whole study unreadable to it, so everything that goes into its tables
//! passes through here, and what the schema has no room for is refused before it is written:
//! - a number in a column of values: the number and `FINITE`, or nothing and `INF_POS`, `INF_NEG`, `NAN`. The value
//!   of a finished trial is never NaN.
//! - a parameter: always a float; of a named choice, its index. The distribution stands beside it as JSON.
//! - an attribute: JSON text. Python also writes bare `NaN` and `Infinity`, which are read as text.
//! - a time: naive UTC with six digits, as Optuna 5 stores it. (Optuna up to 4.9 stored naive *local* time in the
//!   same columns: such times are shown as they stand, and durations are right either way.)
//! - names of at most 512 characters without a zero byte, steps of 31 bits.

use crate::{Result, StorageError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

/// How far a trial is, in Optuna's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TrialState {
    /// Begun and not finished; perhaps waiting at a rung or for a worker.
    Running,
    /// Finished with a value.
    Complete,
    /// Ended by a comparison with others.
    Pruned,
    /// Ended without a result.
    Fail,
    /// Not begun.
    Waiting,
}

impl TrialState {
    const ALL: [Self; 5] = [Self::Running, Self::Complete, Self::Pruned, Self::Fail, Self::Waiting];

    /// The name, as in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Complete => "COMPLETE",
            Self::Pruned => "PRUNED",
            Self::Fail => "FAIL",
            Self::Waiting => "WAITING",
        }
    }

    /// Whether Optuna holds the trial for finished, and so for unchangeable.
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Complete | Self::Pruned | Self::Fail)
    }

    pub(crate) fn from_name(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|state| state.name() == name)
            .ok_or_else(|| content(format!("a trial in state `{}`", crate::printable(name))))
    }
}

/// Which values are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Direction {
    /// Small ones.
    Minimize,
    /// Large ones.
    Maximize,
    /// Nobody has said.
    #[serde(rename = "NOT_SET")]
    NotSet,
}

impl Direction {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Minimize => "MINIMIZE",
            Self::Maximize => "MAXIMIZE",
            Self::NotSet => "NOT_SET",
        }
    }

    pub(crate) fn from_name(name: &str) -> Result<Self> {
        [Self::Minimize, Self::Maximize, Self::NotSet]
            .into_iter()
            .find(|direction| direction.name() == name)
            .ok_or_else(|| content(format!("a direction `{}`", crate::printable(name))))
    }
}

/// The values that a parameter may take in a study. A numeric one stays numeric for ever, but its bounds may widen;
/// choices can never change, so they are for names only.
#[derive(Clone, Debug, PartialEq)]
pub enum Distribution {
    /// Real numbers.
    Float {
        /// Smallest.
        low: f64,
        /// Largest.
        high: f64,
        /// Whether differences count in orders of magnitude.
        log: bool,
        /// Distance between neighbours, if they are discrete.
        step: Option<f64>,
    },
    /// Whole numbers.
    Int {
        /// Smallest.
        low: i64,
        /// Largest.
        high: i64,
        /// Whether differences count in orders of magnitude.
        log: bool,
        /// Distance between neighbours.
        step: i64,
    },
    /// Names.
    Categorical {
        /// All of them, in an order that cannot change.
        choices: Vec<Json>,
    },
}

impl Distribution {
    /// The distribution of an axis of a grid: whole numbers, numbers, or names. `None` for no values, or for what
    /// Optuna has no place for (lists, numbers among names, numbers that are not finite). `log` has no meaning for
    /// names and for numbers that are not all positive.
    pub fn over(values: &[Json], log: bool) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let whole: Option<Vec<i64>> = values.iter().map(Json::as_i64).collect();
        if let Some(whole) = whole {
            let (low, high) = (whole.iter().copied().min()?, whole.iter().copied().max()?);
            return Some(Self::Int { low, high, log: log && low > 0, step: 1 });
        }
        let numbers: Option<Vec<f64>> = values.iter().map(Json::as_f64).collect();
        if let Some(numbers) = numbers {
            let low = numbers.iter().copied().fold(f64::INFINITY, f64::min);
            let high = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            return Some(Self::Float { low, high, log: log && low > 0.0, step: None });
        }
        // Python takes True for 1: names and truth values must not be mixed with each other or with numbers.
        let all_names = values.iter().all(Json::is_string) || values.iter().all(Json::is_boolean);
        all_names.then(|| Self::Categorical { choices: values.to_vec() })
    }

    /// The smallest distribution that holds this one's values and the other's; `None` if Optuna does not allow both in
    /// one study.
    pub fn widened(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (
                &Self::Float { low, high, log, step },
                &Self::Float { low: other_low, high: other_high, log: other_log, step: other_step },
            ) if log == other_log => Some(Self::Float {
                low: low.min(other_low),
                high: high.max(other_high),
                log,
                step: step.filter(|_| step == other_step),
            }),
            (
                &Self::Int { low, high, log, step },
                &Self::Int { low: other_low, high: other_high, log: other_log, step: other_step },
            ) if log == other_log => Some(Self::Int {
                low: low.min(other_low),
                high: high.max(other_high),
                log,
                step: if step == other_step { step } else { 1 },
            }),
            (Self::Categorical { choices }, Self::Categorical { choices: others }) if choices == others => {
                Some(self.clone())
            }
            _ => None,
        }
    }

    /// What stands in `distribution_json`.
    pub fn to_json(&self) -> String {
        let (name, attributes) = match self {
            Self::Float { low, high, log, step } => {
                ("FloatDistribution", json!({"step": step, "low": low, "high": high, "log": log}))
            }
            Self::Int { low, high, log, step } => {
                ("IntDistribution", json!({"log": log, "step": step, "low": low, "high": high}))
            }
            Self::Categorical { choices } => ("CategoricalDistribution", json!({ "choices": choices })),
        };
        json!({"name": name, "attributes": attributes}).to_string()
    }

    /// Reads `distribution_json`, also of the names that Optuna used before 3.0.
    ///
    /// # Errors
    /// Text that is no distribution.
    pub fn from_json(text: &str) -> Result<Self> {
        let wrong = || content(format!("a distribution that is none: {}", crate::error::one_line(text)));
        let read = || {
            let Json::Object(whole) = lenient(text).ok()? else { return None };
            let attributes = whole.get("attributes")?.as_object()?;
            let number = |key: &str| attributes.get(key).and_then(Json::as_f64);
            let integer = |key: &str| {
                attributes.get(key).and_then(|value| value.as_i64().or_else(|| whole_number(value.as_f64()?)))
            };
            let log = attributes.get("log").and_then(Json::as_bool);
            Some(match whole.get("name")?.as_str()? {
                "FloatDistribution" => Self::Float {
                    low: number("low")?,
                    high: number("high")?,
                    log: log.unwrap_or(false),
                    step: number("step"),
                },
                name @ ("UniformDistribution" | "LogUniformDistribution" | "DiscreteUniformDistribution") => {
                    Self::Float {
                        low: number("low")?,
                        high: number("high")?,
                        log: name == "LogUniformDistribution",
                        step: number("q"),
                    }
                }
                name @ ("IntDistribution" | "IntUniformDistribution" | "IntLogUniformDistribution") => {
                    Self::Int {
                        low: integer("low")?,
                        high: integer("high")?,
                        log: log.unwrap_or(name == "IntLogUniformDistribution"),
                        step: integer("step").unwrap_or(1),
                    }
                }
                "CategoricalDistribution" => {
                    Self::Categorical { choices: attributes.get("choices")?.as_array()?.clone() }
                }
                _ => return None,
            })
        };
        read().ok_or_else(wrong)
    }

    /// The number that stands for `value`; `None` if it is not one of the distribution's.
    pub fn internal(&self, value: &Json) -> Option<f64> {
        match self {
            Self::Float { low, high, .. } => value.as_f64().filter(|x| (low..=high).contains(&x)),
            Self::Int { low, high, .. } => {
                let whole = value.as_i64().filter(|x| (low..=high).contains(&x))?;
                // Beyond 2^53 a float no longer tells neighbours apart.
                Some(whole as f64).filter(|_| whole.unsigned_abs() <= 1 << 53)
            }
            Self::Categorical { choices } => {
                choices.iter().position(|choice| choice == value).map(|index| index as f64)
            }
        }
    }

    /// The value that the number stands for.
    ///
    /// # Errors
    /// A number that stands for nothing.
    pub fn external(&self, internal: f64) -> Result<Json> {
        let found = match self {
            Self::Float { .. } => serde_json::Number::from_f64(internal).map(Json::Number),
            Self::Int { .. } => whole_number(internal).map(Json::from),
            Self::Categorical { choices } => whole_number(internal)
                .and_then(|index| usize::try_from(index).ok())
                .and_then(|index| choices.get(index).cloned()),
        };
        found.ok_or_else(|| {
            content(format!("a parameter that is {internal}, which {} has not", self.to_json()))
        })
    }
}

/// The whole numbers that [`Distribution::internal`] gives.
fn whole_number(x: f64) -> Option<i64> {
    (x.fract() == 0.0 && x.abs() <= (1i64 << 53) as f64).then_some(x as i64)
}

fn content(what: String) -> StorageError {
    StorageError::Content { what }
}

/// The value and type columns of the value of a trial; `None` for NaN, which Optuna does not store.
pub(crate) fn value(x: f64) -> Option<(Option<f64>, &'static str)> {
    (!x.is_nan()).then(|| intermediate(x))
}

/// The value and type columns of an intermediate value.
pub(crate) fn intermediate(x: f64) -> (Option<f64>, &'static str) {
    if x.is_nan() {
        (None, "NAN")
    } else if x == f64::INFINITY {
        (None, "INF_POS")
    } else if x == f64::NEG_INFINITY {
        (None, "INF_NEG")
    } else {
        (Some(x), "FINITE")
    }
}

/// What the two columns say.
pub(crate) fn number(value: Option<f64>, kind: &str) -> Result<f64> {
    match (kind, value) {
        ("FINITE", Some(value)) => Ok(value),
        ("INF_POS", _) => Ok(f64::INFINITY),
        ("INF_NEG", _) => Ok(f64::NEG_INFINITY),
        ("NAN", _) => Ok(f64::NAN),
        _ => Err(content(format!("a value that is {} and {value:?}", crate::printable(kind)))),
    }
}

/// JSON as Python writes it: `NaN`, `Infinity` and `-Infinity` become text.
///
/// # Errors
/// Text that is not JSON to Python either.
pub fn lenient(text: &str) -> Result<Json, serde_json::Error> {
    serde_json::from_str(text).or_else(|error| {
        let mut quoted = String::with_capacity(text.len() + 8);
        let mut rest = text;
        let mut in_string = false;
        while let Some(c) = rest.chars().next() {
            let word = ["-Infinity", "Infinity", "NaN"].into_iter().find(|word| rest.starts_with(word));
            let length = match (in_string, c, word) {
                (false, _, Some(word)) => {
                    quoted.push_str(&format!("\"{word}\""));
                    rest = &rest[word.len()..];
                    continue;
                }
                // What is escaped does not end the text.
                (true, '\\', _) => 1 + rest.chars().nth(1).map_or(0, char::len_utf8),
                (_, '"', _) => {
                    in_string = !in_string;
                    1
                }
                (_, c, _) => c.len_utf8(),
            };
            quoted.push_str(&rest[..length]);
            rest = &rest[length..];
        }
        serde_json::from_str(&quoted).map_err(|_: serde_json::Error| error)
    })
}

/// An attribute as read: text that is not JSON is text.
pub(crate) fn attribute(text: &str) -> Json {
    lenient(text).unwrap_or_else(|_| Json::String(text.to_string()))
}

/// `fixed_params` of a trial that was enqueued.
pub(crate) fn fixed_params<'a>(params: impl IntoIterator<Item = (&'a str, &'a Json)>) -> Json {
    Json::Object(
        params.into_iter().map(|(name, value)| (name.to_string(), value.clone())).collect::<Map<_, _>>(),
    )
}

/// A name that every database can hold.
pub(crate) fn name<'a>(what: &str, name: &'a str) -> Result<&'a str> {
    let refuse =
        |why: &str| StorageError::Refused { what: format!("the {what} `{}`: {why}", crate::printable(name)) };
    if name.is_empty() {
        return Err(refuse("it is empty"));
    }
    if name.chars().count() > 512 {
        return Err(StorageError::Refused {
            what: format!("a {what} of {} characters: there is room for 512", name.chars().count()),
        });
    }
    if name.contains('\0') {
        return Err(refuse("it holds a zero byte"));
    }
    Ok(name)
}

/// An attribute's value as text; PostgreSQL cannot hold a zero byte, and JSON writes it as `\u0000`.
pub(crate) fn json_text(value: &Json) -> String {
    value.to_string()
}

/// A step, which has 31 bits in Optuna's tables.
pub(crate) fn step(step: u64) -> Result<i64> {
    i32::try_from(step).map(i64::from).map_err(|_| StorageError::Refused {
        what: format!("step {step}: Optuna's tables have room for steps up to {}", i32::MAX),
    })
}

/// A time with six digits after the point, whichever database wrote it.
pub(crate) fn time(text: &str) -> String {
    let text = text.replacen('T', " ", 1);
    match text.split_once('.') {
        Some((seconds, digits)) => format!("{seconds}.{digits:0<6.6}"),
        None => format!("{text}.000000"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn distributions_are_written_as_optuna_writes_them() {
        let same = |distribution: Distribution, text: &str| {
            assert_eq!(distribution.to_json(), text);
            assert_eq!(Distribution::from_json(text).unwrap(), distribution);
        };
        same(
            Distribution::Float { low: 1e-5, high: 0.1, log: true, step: None },
            r#"{"name":"FloatDistribution","attributes":{"step":null,"low":0.00001,"high":0.1,"log":true}}"#,
        );
        same(
            Distribution::Int { low: 2, high: 8, log: false, step: 2 },
            r#"{"name":"IntDistribution","attributes":{"log":false,"step":2,"low":2,"high":8}}"#,
        );
        same(
            Distribution::Categorical { choices: vec![json!("adam"), json!("größe")] },
            r#"{"name":"CategoricalDistribution","attributes":{"choices":["adam","größe"]}}"#,
        );
        for wrong in ["", "{}", "[1]", r#"{"name":"X","attributes":{}}"#, r#"{"name":"IntDistribution"}"#] {
            assert!(Distribution::from_json(wrong).is_err(), "{wrong}");
        }
        let old = r#"{"name": "LogUniformDistribution", "attributes": {"low": 1, "high": 2.0}}"#;
        let read = Distribution::from_json(old).unwrap();
        assert_eq!(read, Distribution::Float { low: 1.0, high: 2.0, log: true, step: None });
    }

    #[test]
    fn axes_become_distributions() {
        let over = |values: Json, log| Distribution::over(values.as_array().unwrap(), log);
        assert_eq!(
            over(json!([8, 16]), false),
            Some(Distribution::Int { low: 8, high: 16, log: false, step: 1 })
        );
        let rates = over(json!([1e-3, 3e-4]), true);
        assert_eq!(rates, Some(Distribution::Float { low: 3e-4, high: 1e-3, log: true, step: None }));
        assert_eq!(
            over(json!([0, 16]), true),
            Some(Distribution::Int { low: 0, high: 16, log: false, step: 1 })
        );
        assert!(matches!(over(json!(["adam", "lion"]), false), Some(Distribution::Categorical { .. })));
        assert!(matches!(over(json!([true, false]), false), Some(Distribution::Categorical { .. })));
        assert_eq!(over(json!([]), false), None);
        assert_eq!(over(json!([1, "a"]), false), None);
        assert_eq!(over(json!([true, "a"]), false), None);
        assert_eq!(over(json!([[1]]), false), None);
    }

    #[test]
    fn bounds_widen_and_choices_do_not() {
        let int = |low, high| Distribution::Int { low, high, log: false, step: 1 };
        assert_eq!(int(8, 16).widened(&int(4, 8)), Some(int(4, 16)));
        assert_eq!(int(8, 16).widened(&Distribution::Int { low: 8, high: 16, log: true, step: 1 }), None);
        assert_eq!(
            int(8, 16).widened(&Distribution::Float { low: 8.0, high: 16.0, log: false, step: None }),
            None
        );
        let names = |names: &[&str]| {
            Distribution::over(&names.iter().map(|n| json!(n)).collect::<Vec<_>>(), false).unwrap()
        };
        assert_eq!(names(&["a", "b"]).widened(&names(&["a", "b"])), Some(names(&["a", "b"])));
        assert_eq!(names(&["a", "b"]).widened(&names(&["b", "a"])), None);
    }

    #[test]
    fn what_python_calls_json() {
        assert_eq!(lenient("NaN").unwrap(), json!("NaN"));
        assert_eq!(
            lenient(r#"[1, -Infinity, {"a": Infinity}]"#).unwrap(),
            json!([1, "-Infinity", {"a": "Infinity"}])
        );
        assert_eq!(
            lenient(r#"["NaN \" NaN", NaN, "\\", NaN]"#).unwrap(),
            json!(["NaN \" NaN", "NaN", "\\", "NaN"])
        );
        assert_eq!(lenient(r#""NaN""#).unwrap(), json!("NaN"));
        assert!(
            lenient("nan").is_err()
                && lenient("").is_err()
                && lenient("\"").is_err()
                && lenient("\"\\").is_err()
        );
        assert_eq!(attribute("plain"), json!("plain"));
    }

    #[test]
    fn times_have_six_digits() {
        assert_eq!(time("2026-11-23 16:17:49"), "2026-11-23 16:17:49.000000");
        assert_eq!(time("2026-11-23 16:17:49.22"), "2026-11-23 16:17:49.220000");
        assert_eq!(time("2026-11-23T16:17:49.123456789"), "2026-11-23 16:17:49.123456");
    }

    #[test]
    fn what_has_no_room_is_refused() {
        assert!(name("name", &"ü".repeat(512)).is_ok());
        assert!(name("name", &"ü".repeat(513)).unwrap_err().to_string().contains("513 characters"));
        assert!(name("name", "").is_err() && name("name", "a\0b").is_err());
        assert_eq!(step(2_147_483_647).unwrap(), 2_147_483_647);
        assert!(step(2_147_483_648).is_err());
    }

    #[test]
    fn the_largest_whole_numbers_come_back() {
        for x in [1i64 << 53, -(1 << 53), -9_000_000_000_000_807] {
            let distribution = Distribution::Int { low: x, high: x, log: false, step: 1 };
            assert_eq!(distribution.external(distribution.internal(&json!(x)).unwrap()).unwrap(), json!(x));
        }
    }

    proptest! {
        #[test]
        fn numbers_come_back_to_the_bit(bits in any::<u64>()) {
            let x = f64::from_bits(bits);
            let (stored, kind) = intermediate(x);
            prop_assert!(stored.is_none_or(f64::is_finite));
            let back = number(stored, kind).unwrap();
            prop_assert!(back.to_bits() == x.to_bits() || (x.is_nan() && back.is_nan()));
            prop_assert_eq!(value(x).is_none(), x.is_nan());
        }

        #[test]
        fn whole_numbers_come_back(low in -(1i64 << 53)..(1i64 << 53), span in 0i64..1000, place in 0.0..1.0) {
            let high = low.saturating_add(span).min(1 << 53);
            let x = low + ((high - low) as f64 * place) as i64;
            let distribution = Distribution::Int { low, high, log: false, step: 1 };
            let again = Distribution::from_json(&distribution.to_json()).unwrap();
            prop_assert_eq!(&again, &distribution);
            prop_assert_eq!(again.external(again.internal(&json!(x)).unwrap()).unwrap(), json!(x));
        }

        #[test]
        fn reals_come_back(a in any::<f64>(), b in any::<f64>()) {
            prop_assume!(a.is_finite() && b.is_finite());
            let distribution = Distribution::Float { low: a.min(b), high: a.max(b), log: false, step: None };
            let again = Distribution::from_json(&distribution.to_json()).unwrap();
            prop_assert_eq!(&again, &distribution);
            for x in [a, b] {
                let back = again.external(again.internal(&json!(x)).unwrap()).unwrap().as_f64().unwrap();
                prop_assert_eq!(back.to_bits(), x.to_bits());
            }
        }

        #[test]
        fn names_come_back(choices in proptest::collection::hash_set(".{0,8}", 1..6)) {
            let choices: Vec<Json> = choices.into_iter().map(Json::from).collect();
            let distribution = Distribution::over(&choices, false).unwrap();
            let again = Distribution::from_json(&distribution.to_json()).unwrap();
            for choice in &choices {
                prop_assert_eq!(&again.external(again.internal(choice).unwrap()).unwrap(), choice);
            }
            prop_assert!(again.external(choices.len() as f64).is_err());
            prop_assert!(again.external(0.5).is_err() && again.external(-1.0).is_err());
        }

        #[test]
        fn lenient_reading_never_panics(text in ".{0,40}") {
            let _ = (lenient(&text), Distribution::from_json(&text), time(&text));
        }
    }
}
