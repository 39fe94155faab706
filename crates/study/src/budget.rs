//! A budget in place of steps: every configuration of a study is trained for the same time, on the same number of characters,
//! or with the same arithmetic.
//!
//! "Which configuration is the best for the ten minutes that I have?" A small model makes more steps in ten minutes than
//! a large one, so each configuration has steps of its own: as many as the budget pays for. From there on all is as ever:
//! schedules, evaluations and the early read-out go by the steps of each configuration.
//!
//! Characters and floating-point operations can be counted beforehand. Seconds cannot: before a study begins, the
//! kinds of steps that its configurations have are timed once, alone on all threads of the machine ([`crate::timings`]), and what they took
//! becomes a part of what was asked for. Whoever continues the study, or joins it on another machine, divides by the same
//! times. So a trial stays a function of its settings, and a study can be made again from its `study.toml`.

use crate::timings::{Benches, Kind, MANY_TURNS, TURNS, Timings, measure, worthwhile};
use crate::{Cell, Engines, Params, Study, StudyError, StudySpec, percent, value_text};
use diapason_corpus::Corpus;
use diapason_training::{Budget, BudgetError, Config, Protocol};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// Times that scatter by less than this part of themselves are good enough to divide by.
const QUIET: f64 = 0.1;

impl StudySpec {
    /// Whether configurations may differ in their steps.
    pub(crate) fn steps_vary(&self) -> bool {
        self.budget.is_some() || self.lists("steps")
    }

    /// Whether the study can have its budget.
    pub(crate) fn check_budget(&self) -> Result<(), StudyError> {
        let Some(budget) = self.budget else { return Ok(()) };
        let refuse = |what: &str, hint| Err(StudyError::Budget { budget, what: what.to_string(), hint });
        if self.lists("steps") {
            return refuse("steps in the grid say as well how long a trial is", "leave one of them out");
        }
        if self.protocol == Protocol::AsSeed {
            return refuse(
                "the notebook's protocol counts in steps, the same for all",
                "leave --as-seed or the budget out",
            );
        }
        if self.enqueued_only {
            return refuse(
                "trials that others enqueue are as long as --steps says, or they themselves",
                "leave --enqueued or the budget out",
            );
        }
        let later = self.search.as_ref().is_some_and(|search| search.drawn_first() < search.samples);
        if later && matches!(budget, Budget::Seconds(_)) {
            return refuse(
                "all steps are timed before the study begins, and tpe draws configurations while it goes on",
                "give the budget in chars or flop, or take --sampler random",
            );
        }
        Ok(())
    }

    /// Whether what the steps take has yet to be measured.
    pub(crate) fn is_to_be_timed(&self) -> bool {
        matches!(self.budget, Some(Budget::Seconds(_))) && self.ms_per_step.is_empty()
    }

    /// Gives a configuration the steps that the budget pays for. Where what a step takes is not known yet, and without a
    /// budget, it keeps those that it has.
    ///
    /// # Errors
    /// A budget that pays for no step, or for more than a run can have. A kind of step that was not timed when the others
    /// were.
    pub(crate) fn paid(&self, params: &Params, config: Config) -> Result<Config, StudyError> {
        let Some(budget) = self.budget else { return Ok(config) };
        let refused =
            |error: BudgetError| StudyError::Unpaid { params: params.clone(), error: Box::new(error) };
        let steps = match budget {
            // The number of symbols makes no difference.
            Budget::Characters(_) => budget.steps(&config, 1),
            Budget::Flop(_) => match self.symbols {
                Some(symbols) => budget.steps(&config, symbols),
                None => return Ok(config),
            },
            Budget::Seconds(_) if self.ms_per_step.is_empty() => return Ok(config),
            Budget::Seconds(seconds) => {
                let ms = time_of(&config, &self.ms_per_step)
                    .ok_or_else(|| StudyError::Untimed { params: params.clone(), budget })?;
                // A batch that grows costs less at first.
                let of_step = (config.batch_size * config.sequence_length) as f64;
                let steps = Budget::Characters(1e3 * seconds / ms * of_step).steps(&config, 1);
                match steps {
                    Err(BudgetError::TooSmall { .. }) => {
                        Err(BudgetError::TooSmall { budget, step: Budget::Seconds(ms / 1e3) })
                    }
                    Err(BudgetError::TooManySteps { most, .. }) => {
                        Err(BudgetError::TooManySteps { budget, most })
                    }
                    steps => steps,
                }
            }
        };
        Ok(Config { steps: steps.map_err(refused)?, ..config })
    }

    /// What the budget came to, in a line.
    fn said(&self, cells: &[Cell]) -> Option<String> {
        let budget = self.budget?;
        let steps = || cells.iter().map(|cell| cell.config.steps);
        let (least, most) = (steps().min()?, steps().max()?);
        let range = match (least, most) {
            (1, 1) => "1 step".to_string(),
            (least, most) if least == most => format!("{most} steps"),
            _ => format!("{least} to {most} steps"),
        };
        Some(format!("a budget of {budget} for each configuration: {range}"))
    }
}

/// What a step of `config` takes, by the times of some kinds of steps. A key that a later version of the program has in
/// addition makes no other kind of it, as long as it has its default.
fn time_of(config: &Config, times: &BTreeMap<String, f64>) -> Option<f64> {
    let key = Timings::key(config);
    if let Some(ms) = times.get(&key) {
        return Some(*ms);
    }
    let (own, default) = (pairs(&key), Timings::key(&Config::default()));
    let default = pairs(&default);
    let same = |kind: &str| {
        let kind = pairs(kind);
        let has = |key: &str, value: &str| config.get(key).is_some_and(|own| value_text(&own) == value);
        kind.iter().all(|(key, value)| has(key, value))
            && own.iter().all(|(key, value)| kind.contains_key(key) || default.get(key) == Some(value))
    };
    times.iter().find_map(|(kind, ms)| same(kind).then_some(*ms))
}

/// The keys and values of a kind of step.
fn pairs(kind: &str) -> BTreeMap<&str, &str> {
    kind.split(',').filter_map(|pair| pair.split_once('=')).collect()
}

/// To four digits: what is beyond them is chance, and people read the file.
fn rounded(ms: f64) -> f64 {
    format!("{ms:.3e}").parse().unwrap_or(ms)
}

impl Study {
    /// What the budget came to, of a study that nobody has begun.
    pub(crate) fn budget_in_steps(&self) -> Option<String> {
        let begun = self.trials.iter().any(|trial| trial.record.is_some());
        self.spec.said(&self.cells).filter(|_| !begun)
    }

    /// Times a step of every kind, alone on all threads; and side by side as well, in those of `ways` for which that is worth its
    /// time, so that all times that the study goes by are of the same hour. None if `stop` became true.
    ///
    /// # Errors
    /// There is no memory for an engine.
    pub(crate) fn time_kinds(
        &self,
        budget: Budget,
        ways: &[usize],
        corpus: &Corpus,
        engines: &Engines<'_>,
        stop: &AtomicBool,
        tell: &mut dyn FnMut(usize, usize),
    ) -> Result<Option<Timings>, StudyError> {
        let (mut kinds, kind_of) = self.kinds(corpus.alphabet.len())?;
        let mut measured = |kinds: &[Kind<'_>], ways: &[usize], turns: usize| {
            let timings = measure(corpus, kinds, ways, engines.threads, turns, engines, stop, tell);
            match timings {
                None if !stop.load(Ordering::Relaxed) => Err(StudyError::Budget {
                    budget,
                    what: "steps cannot be timed, since there is no memory for an engine".to_string(),
                    hint: "free some memory, or give the budget in chars or flop",
                }),
                timings => Ok(timings),
            }
        };
        // Roughly first: how long it is worth measuring goes by the steps that will be trained.
        let Some(rough) = measured(&kinds, &[1], TURNS)? else { return Ok(None) };
        if let Budget::Seconds(seconds) = budget {
            for trial in &self.trials {
                let kind = &mut kinds[kind_of[trial.cell]];
                let ms = rough.of(kind.config).map_or(f64::INFINITY, |timing| timing.ms_per_step);
                kind.steps += 1e3 * seconds / ms;
            }
        }
        let ways = match engines.trials_at_once {
            Some(_) => Vec::new(),
            None => worthwhile(&kinds, ways),
        };
        let most = ways.last().copied().unwrap_or(1);
        let fit = Benches::fit(&kinds, most, engines);
        let ways = if fit && !ways.is_empty() { &ways[..] } else { &[1] };
        let mut best = measured(&kinds, ways, TURNS)?;
        // All that follows rests on this: where something else disturbed it, it is worth a second and a third try, with medians of
        // more turns.
        for _ in 0..2 {
            let Some(timings) = best.as_mut().filter(|timings| timings.noise() > QUIET) else { break };
            let Some(again) = measured(&kinds, ways, MANY_TURNS)? else { return Ok(None) };
            if again.noise() < timings.noise() {
                *timings = again;
            }
        }
        Ok(best)
    }
}

/// What to say of times that scattered.
pub(crate) fn disturbed(timings: &Timings) -> Option<String> {
    let noise = timings.noise();
    (noise > QUIET).then(|| {
        format!(
            "the times of a step scattered by {}, so what the configurations get is only roughly the same: something else is at work on this machine",
            percent(noise)
        )
    })
}

/// What of `timings` a budget of time is divided by: milliseconds of a step by its kind.
pub(crate) fn times(timings: &Timings) -> BTreeMap<String, f64> {
    timings.configurations.iter().map(|(kind, timing)| (kind.clone(), rounded(timing.ms_per_step))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Grid, Search};

    fn draft(budget: &str, grid: &[&str]) -> StudySpec {
        let spec = StudySpec::drafted("budgets", Config::default(), Grid::parse(grid).unwrap());
        StudySpec { budget: Some(budget.parse().unwrap()), ..spec }
    }

    fn steps(spec: &StudySpec) -> Vec<u64> {
        spec.cells(27).unwrap().iter().map(|cell| cell.config.steps).collect()
    }

    #[test]
    fn what_can_be_counted_is_divided_at_once() {
        // 64 and 32 windows of 32 characters.
        assert_eq!(steps(&draft("204800chars", &["batch_size=64,32"])), [100, 200]);
        // A batch that grows is small at first.
        assert_eq!(steps(&draft("76800chars", &["batch_ramp=0,1"])), [37, 100]);
        // Of arithmetic nothing is known before the text is: its alphabet counts.
        let spec = draft("39.6e11flop", &["n_layers=4,8"]);
        assert_eq!(steps(&spec), [20_000, 20_000]);
        let (spec, cells) = spec.completed(27).unwrap();
        assert_eq!(spec.symbols, Some(27));
        assert_eq!(cells.iter().map(|cell| cell.config.steps).collect::<Vec<_>>(), [100, 50]);
        // Whoever does not know the text has the same steps.
        let (_, again) = spec.completed(1).unwrap();
        assert_eq!(again, cells);
        let error = draft("3000chars", &["batch_size=64,128"]).check().unwrap_err();
        assert_eq!(
            error.to_string(),
            "batch_size=128: a budget of 3000chars does not pay for one step, which takes 4096chars"
        );
        assert!(error.hint().unwrap().contains("a larger budget"));
    }

    #[test]
    fn time_is_divided_by_what_was_measured() {
        let mut spec = draft("10s", &["n_layers=4,8", "learning_rate=1e-3,1e-2"]);
        assert!(spec.is_to_be_timed());
        assert_eq!(steps(&spec), [20_000; 4], "nothing is known yet");
        let of = |n_layers, ms| (Timings::key(&Config { n_layers, ..Config::default() }), ms);
        spec.ms_per_step = BTreeMap::from([of(4, 5.0), of(8, 30_000.0)]);
        assert!(!spec.is_to_be_timed());
        let error = spec.cells(27).unwrap_err().to_string();
        assert!(error.ends_with("a budget of 10s does not pay for one step, which takes 30s"), "{error}");
        spec.ms_per_step.insert(of(8, 0.0).0, 9_000.0);
        assert_eq!(steps(&spec), [2000, 2000, 1, 1]);
        spec.ms_per_step = BTreeMap::from([of(4, 5.0), of(8, 1e-9)]);
        let error = spec.cells(27).unwrap_err();
        assert!(error.to_string().contains("a budget of 10s pays for more than 4294967295 steps"), "{error}");
        spec.ms_per_step.remove(&of(8, 0.0).0);
        let error = spec.cells(27).unwrap_err();
        assert!(
            error.to_string().starts_with("n_layers=8 learning_rate=0.001: its steps were not timed"),
            "{error}"
        );
        assert!(error.hint().is_some());
    }

    #[test]
    fn keys_of_later_versions_make_no_other_kind() {
        let config = Config { d_model: 64, ..Config::default() };
        let key = Timings::key(&config);
        let without = key.replace(",dropout=0", "");
        assert_ne!(without, key);
        let times = BTreeMap::from([(without, 2.5)]);
        assert_eq!(time_of(&config, &times), Some(2.5));
        assert_eq!(time_of(&Config { dropout: 0.1, ..config.clone() }, &times), None);
        assert_eq!(time_of(&Config { d_model: 128, ..config }, &times), None);
        assert_eq!([1.234_567, 0.056_784_9, 12_345.6].map(rounded), [1.235, 0.056_78, 12_350.0]);
    }

    #[test]
    fn what_a_budget_does_not_go_with_is_refused() {
        let refused = |spec: StudySpec, part: &str| {
            let error = spec.check().unwrap_err();
            assert!(error.to_string().contains(part) && error.hint().is_some(), "{error}");
        };
        let search = |sampler: &str, samples| {
            let ranges = vec!["learning_rate=1e-4..1e-2:log".parse().unwrap()];
            Some(Search { sampler: sampler.parse().unwrap(), samples, ranges })
        };
        refused(draft("10s", &["steps=10,20"]), "steps in the grid");
        refused(StudySpec { protocol: Protocol::AsSeed, ..draft("10s", &[]) }, "counts in steps");
        refused(StudySpec { enqueued_only: true, ..draft("10s", &[]) }, "others enqueue");
        for rule in ["halving", "hyperband", "median"] {
            let spec = StudySpec { rule: rule.parse().unwrap(), ..draft("1e9chars", &["n_layers=1,2,4,8"]) };
            refused(spec, "with a budget each configuration has steps of its own");
        }
        refused(StudySpec { search: search("tpe", 12), ..draft("10s", &[]) }, "tpe draws configurations");
        for (budget, sampler, samples) in
            [("10s", "tpe", 10), ("10s", "random", 12), ("1e9chars", "tpe", 12), ("1e15flop", "tpe", 12)]
        {
            let spec = StudySpec { search: search(sampler, samples), ..draft(budget, &[]) };
            spec.check().unwrap();
        }
        let patient = Config { patience: 3, ..draft("10s", &[]).config };
        StudySpec { config: patient, ..draft("10s", &[]) }.check().unwrap();
    }
}
