//! Replay: what a stopping rule would have done to a study that is finished.
//!
//! A study whose trials all ran to their end knows every curve. So it can be played through once more under any rule:
//! which trials the rule would have ended and when, which configuration would have been chosen, what that choice would
//! have cost in loss and saved in training.
//!
//! Nothing is decided here. Trials are put back to their beginning and taken by one worker, in the order of their
//! numbers; what a trial reads on its way is looked up instead of trained; and what follows is asked of the same
//! functions that a running study asks: [`crate::rungs`] through the director, [`Median::falls_behind`], the
//! run's patience, the notebook's rule, and in the end [`Study::decision`]. A reproducible rule therefore comes to what it comes
//! to in a real study; one that depends on timing comes to what one worker alone would have made of it.

use crate::director::{self, Action};
use crate::home::Found;
use crate::rungs::Ladders;
use crate::{
    Cost, Home, Median, Params, Pass, PassDecision, Rule, Study, StudyError, TrialFailure, TrialRecord,
    TrialState,
};
use diapason_storage::{Decision, ItemId, ItemState, Opening, Page};
use diapason_training::{Config, CurvePoint, Protocol, Reading, SeedRule, out_of_patience};
use std::collections::{BTreeMap, HashMap};

/// What a trial reported on its way: validation loss by step.
pub type Curve = BTreeMap<u64, f64>;

/// Why a study cannot be replayed under a rule.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Trials are at work or yet to begin.
    #[error(
        "the study is not finished: {unfinished} of {trials} trials are not at their end, and a rule cannot be applied to curves that are not there"
    )]
    Unfinished {
        /// How many.
        unfinished: usize,
        /// Of how many.
        trials: usize,
    },
    /// The study itself ended trials.
    #[error(
        "rule {rule} of the study ended {pruned} of {trials} trials itself: what they would have come to is not known"
    )]
    Pruned {
        /// The study's rule.
        rule: Rule,
        /// How many.
        pruned: usize,
        /// Of how many.
        trials: usize,
    },
    /// A study without a grid of its own.
    #[error("the study has no trials of its own to replay: others enqueued them")]
    NoGrid,
    /// Trials that were evaluated on other text each time.
    #[error(
        "rule {rule}: the notebook's protocol evaluates on other text each time, so that nothing can be compared on the way"
    )]
    AsSeed {
        /// The rule.
        rule: Rule,
    },
    /// No configuration has a result.
    #[error("rule {rule}: no configuration has a result")]
    NoResult {
        /// The rule.
        rule: Rule,
    },
    /// A curve without the evaluation that a rule wants to look at.
    #[error("rule {rule}: trial {number} has no evaluation at step {step}")]
    NotEvaluated {
        /// The rule.
        rule: Rule,
        /// The trial.
        number: i64,
        /// The step.
        step: u64,
    },
    /// A curve that the study's own patience cut before the rule would have.
    #[error(
        "rule {rule}: the study's own patience of {patience} ended trial {number} before the rule would have: what it would have come to is not known"
    )]
    Cut {
        /// The rule.
        rule: Rule,
        /// The trial.
        number: i64,
        /// The key of its configuration.
        patience: u64,
    },
    /// A rule that the study could not have had, or a study that is not as this program writes it.
    #[error(transparent)]
    Study(#[from] StudyError),
}

impl ReplayError {
    /// What to do about it, if that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unfinished { .. } => {
                Some("`diapason tune` with the study's command finishes it".to_string())
            }
            Self::Pruned { .. } => {
                Some("replay a study of the same grid that was begun without --rule".to_string())
            }
            Self::Cut { .. } => Some("replay a study that was begun with --set patience=0".to_string()),
            Self::AsSeed { .. } => Some("none and as-seed can be replayed".to_string()),
            Self::Study(error) => error.hint(),
            _ => None,
        }
    }
}

/// How much training was done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Training {
    /// Updates.
    pub steps: u64,
    /// Seconds: those of the steps alone if they were timed ([`Study::timed`]), else as they went by.
    pub seconds: f64,
    /// Floating-point operations, by the field's usual count.
    pub flop: f64,
}

/// What a rule would have come to.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The rule.
    pub rule: Rule,
    /// The configuration that would have been chosen.
    pub chosen: Params,
    /// Its loss as far as it would have been trained, nats.
    pub loss: f64,
    /// Its loss in the whole study; none if it has no result there.
    pub full_loss: Option<f64>,
    /// What the whole study chooses.
    pub full_chosen: Params,
    /// By which fraction `full_loss` is above the loss of `full_chosen`: what the rule's choice costs once it is trained to
    /// its end. Negative where a better but dearer configuration is chosen.
    pub regret: Option<f64>,
    /// By which fraction `full_loss` is above the lowest loss of the whole study.
    pub regret_to_best: Option<f64>,
    /// Trials that the rule would have ended before their end.
    pub ended: usize,
    /// Trials in all.
    pub trials: usize,
    /// Trials of the study beside those: seeds that only some configurations have, and what others enqueued.
    pub left_out: usize,
    /// What would have been trained.
    pub trained: Training,
    /// What was.
    pub all: Training,
    /// The study as it would have been.
    pub study: Study,
}

impl Replayed {
    /// Whether the rule comes to what the whole study comes to.
    pub fn same_choice(&self) -> bool {
        self.chosen == self.full_chosen
    }
}

/// Reads a study with the curves of its trials, in the order of the trials.
///
/// # Errors
/// There is no study, or it is not as this program writes it.
pub fn read_curves(home: &Home) -> Result<(Study, Vec<Curve>), StudyError> {
    let (mut storage, id, spec) = match home.find(Opening::Read)? {
        Some(Found { storage, id, spec: Some(spec), .. }) => (storage, id, spec),
        Some(Found { name, .. }) => return Err(StudyError::NotOurs { name }),
        None => return Err(home.no_study()),
    };
    // What depends on the alphabet is in the records of trials that have begun, and others have no curve.
    const ANY_ALPHABET: usize = 1;
    let study = Study::load(&mut storage, id, spec, ANY_ALPHABET, &home.folder)?;
    let mut by_key: HashMap<String, Curve> = HashMap::new();
    let mut page = Page { curves: true, ..Page::default() };
    loop {
        let trials = storage.trials(id, page)?;
        let Some(last) = trials.last() else { break };
        page.from = last.number + 1;
        for trial in trials {
            let Some(item) = trial.item else { continue };
            let values = trial.intermediate_values.iter();
            by_key.insert(
                item.key,
                values.filter_map(|(&step, &loss)| Some((u64::try_from(step).ok()?, loss))).collect(),
            );
        }
    }
    let curve = |trial: &crate::Trial| by_key.remove(&trial.stored.as_ref()?.key);
    let curves = study.trials.iter().map(curve).map(Option::unwrap_or_default).collect();
    Ok((study, curves))
}

/// Plays a finished study through under `rule`. `curves`: of its trials, in their order. Trials that others enqueued, and
/// seeds that were added to some configurations, are left out: the rule would have met neither.
///
/// # Errors
/// A study that is not finished, or whose curves have been cut by a rule; a rule that it could not have had.
pub fn replay(study: &Study, curves: &[Curve], rule: Rule) -> Result<Replayed, ReplayError> {
    let trials = study.trials.len();
    let whole = whole(study)?;
    let full = decision(&whole, Rule::None)?;
    let mut played = Played::new(whole.clone(), curves, rule)?;
    played.play()?;
    let mut study = played.study;
    study.decisions.sort_by_key(|decision| (decision.bracket, decision.rung));
    let decision = decision(&study, rule)?;

    let loss = |decision: &PassDecision, place: usize| {
        Some(decision.candidates[place].loss).filter(|loss| loss.is_finite())
    };
    let chosen = decision.decision.chosen;
    let compared = full.decision.comparison(chosen).is_some();
    let full_loss = loss(&full, chosen).filter(|_| compared);
    let above = |place: usize| Some((full_loss? - loss(&full, place)?) / loss(&full, place)?.abs());
    let ended = |trial: &&crate::Trial| {
        let here = trial.record.as_ref().map_or(0, |record| record.steps);
        here < whole.trials[trial.number].record.as_ref().map_or(0, |record| record.steps)
    };
    Ok(Replayed {
        rule,
        chosen: decision.chosen().clone(),
        loss: decision.candidates[chosen].loss,
        full_loss,
        full_chosen: full.chosen().clone(),
        regret: above(full.decision.chosen),
        regret_to_best: above(full.decision.best),
        ended: study.trials.iter().filter(ended).count(),
        trials: study.trials.len(),
        left_out: trials - study.trials.len(),
        trained: training(&study, &whole),
        all: training(&whole, &whole),
        study,
    })
}

/// The study without what a rule would not have met, if it can be replayed.
fn whole(study: &Study) -> Result<Study, ReplayError> {
    let cells = study.spec.configurations();
    let mut whole = study.clone();
    whole.trials.truncate(cells * study.spec.seeds as usize);
    whole.cells.truncate(cells);
    whole.spec.rule = Rule::None;
    whole.spec.until_decided = None;
    whole.decisions.clear();
    let trials = whole.trials.len();
    if trials == 0 {
        return Err(ReplayError::NoGrid);
    }
    let unfinished = whole.trials.iter().filter(|trial| !whole.is_over(trial)).count();
    if unfinished > 0 {
        return Err(ReplayError::Unfinished { unfinished, trials });
    }
    let is_pruned =
        |trial: &&crate::Trial| trial.record.as_ref().is_some_and(|r| r.state == TrialState::Pruned);
    let pruned = whole.trials.iter().filter(is_pruned).count();
    if pruned > 0 {
        return Err(ReplayError::Pruned { rule: study.spec.rule, pruned, trials });
    }
    Ok(whole)
}

fn decision(study: &Study, rule: Rule) -> Result<PassDecision, ReplayError> {
    study.decision(Pass::Full).ok_or(ReplayError::NoResult { rule })
}

/// What all trials of `study` together were trained; `whole` says how long a step of each took.
fn training(study: &Study, whole: &Study) -> Training {
    let mut sum = Training { steps: 0, seconds: 0.0, flop: 0.0 };
    let timed = whole.timed();
    for trial in &study.trials {
        let Some(record) = &trial.record else { continue };
        let timing = timed.and_then(|timings| timings.of(&study.cells[trial.cell].config));
        sum.steps += record.steps;
        let full = record.config.full_batches(record.steps);
        sum.flop += record.flop_per_step * full;
        sum.seconds += timing.map_or(record.train_seconds, |timing| timing.ms_per_step / 1e3 * full);
    }
    sum
}

/// A study that is being played through.
struct Played<'a> {
    /// As it stands.
    study: Study,
    curves: &'a [Curve],
    /// What each trial came to.
    ends: Vec<TrialRecord>,
    rule: Rule,
    ladders: Option<Ladders>,
}

impl<'a> Played<'a> {
    /// The study at its beginning.
    fn new(mut study: Study, curves: &'a [Curve], rule: Rule) -> Result<Self, ReplayError> {
        let as_seed = study.spec.protocol == Protocol::AsSeed;
        if as_seed && !matches!(rule, Rule::None | Rule::AsSeed) {
            return Err(ReplayError::AsSeed { rule });
        }
        // Those two are no rules of a running study.
        if !matches!(rule, Rule::Patience(_) | Rule::AsSeed) {
            study.spec.rule = rule;
            study.spec.check_rule()?;
        }
        let ladders = Ladders::of(&study.spec);
        let mut ends = Vec::new();
        for trial in &mut study.trials {
            ends.extend(trial.record.take());
            trial.bracket = ladders.as_ref().map(|ladders| ladders.bracket(trial.cell));
            if let Some(stored) = &mut trial.stored {
                (stored.rung, stored.prune_reason) = (None, None);
                stored.rung_losses.clear();
                stored.state = ItemState::Ready;
            }
        }
        Ok(Self { study, curves, ends, rule, ladders })
    }

    /// One worker takes trial after trial, and decides what waits at rungs as soon as it can be decided.
    fn play(&mut self) -> Result<(), ReplayError> {
        loop {
            while self.decide()? {}
            let ready =
                |trial: &crate::Trial| trial.stored.as_ref().is_some_and(|s| s.state == ItemState::Ready);
            let Some(place) = self.study.trials.iter().position(ready) else { return Ok(()) };
            self.train(place)?;
        }
    }

    /// Does what follows from the study as it stands; whether that was anything.
    fn decide(&mut self) -> Result<bool, ReplayError> {
        let mut changed = false;
        for action in director::next(&self.study)? {
            // A study that is played through has no rounds.
            let Action::Decide { decisions, reason, .. } = action else { continue };
            let decisions: HashMap<ItemId, Decision> = decisions.into_iter().collect();
            for trial in &mut self.study.trials {
                let Some(stored) = &mut trial.stored else { continue };
                match decisions.get(&stored.item) {
                    Some(Decision::Promote) => stored.state = ItemState::Ready,
                    Some(Decision::Prune) => {
                        stored.state = ItemState::Pruned;
                        trial.record.iter_mut().for_each(|record| record.state = TrialState::Pruned);
                    }
                    None => {}
                }
            }
            self.study.decisions.extend(reason.map(|reason| *reason));
            changed = true;
        }
        Ok(changed)
    }

    /// Takes a trial to its next rung, or to where it ends.
    fn train(&mut self, place: usize) -> Result<(), ReplayError> {
        let end = self.ends[place].clone();
        let passed = self.study.trials[place].stored.as_ref().and_then(|stored| stored.rung);
        let next = self.ladders.as_ref().and_then(|ladders| {
            let (rung, step) = ladders.next(self.study.trials[place].bracket?, passed)?;
            // A trial that failed, or ran out of patience, before or at the rung does not wait there.
            (step < end.steps).then_some((rung, step))
        });
        if let Some((rung, step)) = next {
            let record = self.read(place, step)?;
            let loss = record.last.map_or(f64::NAN, |reading| reading.validation_loss);
            let trial = &mut self.study.trials[place];
            trial.record = Some(record);
            if let Some(stored) = &mut trial.stored {
                stored.rung = Some(i64::from(rung));
                stored.rung_losses.push(loss);
                stored.state = ItemState::Rung;
            }
            return Ok(());
        }
        let (record, why) = match self.rule {
            Rule::Median(median) => self.by_median(place, &median, end)?,
            Rule::Patience(patience) => (self.by_patience(place, patience, end)?, None),
            Rule::AsSeed => (self.as_seed(place, end)?, None),
            Rule::None | Rule::Halving(_) | Rule::Hyperband(_) => (end, None),
        };
        let trial = &mut self.study.trials[place];
        if let Some(stored) = &mut trial.stored {
            stored.prune_reason = why;
            stored.state = match record.state {
                TrialState::Complete => ItemState::Done,
                TrialState::Pruned => ItemState::Pruned,
                TrialState::Running | TrialState::Fail => ItemState::Failed,
            };
        }
        trial.record = Some(record);
        Ok(())
    }

    /// What is known of a trial that has come to `step`, which is an evaluation. What only its last readings knew,
    /// accuracies, is not known there; its time is shared out over its steps evenly.
    fn read(&self, place: usize, step: u64) -> Result<TrialRecord, ReplayError> {
        let (end, curve) = (&self.ends[place], &self.curves[place]);
        let seconds = |step: u64| end.train_seconds * step as f64 / end.steps.max(1) as f64;
        let reading = |(&step, &validation_loss): (&u64, &f64)| Reading {
            step,
            validation_loss,
            accuracy: f64::NAN,
            accuracy_last: f64::NAN,
            train_seconds: seconds(step),
        };
        let last = curve.get_key_value(&step).map(reading);
        let number = self.study.trials[place].shown_number();
        let last = last.ok_or(ReplayError::NotEvaluated { rule: self.rule, number, step })?;
        let best = curve.range(..=step).min_by(|a, b| a.1.total_cmp(b.1)).map(reading);
        Ok(TrialRecord {
            state: TrialState::Running,
            steps: step,
            stopped_early: false,
            // The readings of the whole trial, where they are the same, are complete.
            early: end.early.filter(|early| early.step <= step),
            best: end.best.filter(|known| Some(known.step) == best.map(|best| best.step)).or(best),
            last: Some(last),
            spans: end.spans.iter().filter(|spans| spans.step <= step).cloned().collect(),
            seed_rule: None,
            failure: None,
            train_seconds: seconds(step),
            ..end.clone()
        })
    }

    /// The evaluations of a trial as the run saw them.
    fn points(&self, place: usize) -> Vec<CurvePoint> {
        let point = |(&step, &validation_loss): (&u64, &f64)| CurvePoint {
            step,
            train_loss: f64::NAN,
            validation_loss,
            accuracy: f64::NAN,
            accuracy_last: f64::NAN,
            train_seconds: f64::NAN,
        };
        self.curves[place].iter().map(point).collect()
    }

    fn by_median(
        &self,
        place: usize,
        median: &Median,
        end: TrialRecord,
    ) -> Result<(TrialRecord, Option<String>), ReplayError> {
        let complete: Vec<usize> = (0..self.study.trials.len())
            .filter(|&other| {
                self.study.trials[other].stored.as_ref().is_some_and(|stored| stored.state == ItemState::Done)
            })
            .collect();
        let steps = self.config(place).steps;
        let mut best = f64::INFINITY;
        for (&step, &loss) in self.curves[place].range(..end.steps) {
            best = best.min(loss);
            let others: Vec<f64> =
                complete.iter().filter_map(|&other| self.curves[other].get(&step).copied()).collect();
            if let Some(why) = median.falls_behind((step, steps), best, complete.len(), &others) {
                return Ok((TrialRecord { state: TrialState::Pruned, ..self.read(place, step)? }, Some(why)));
            }
        }
        Ok((end, None))
    }

    fn by_patience(&self, place: usize, patience: u64, end: TrialRecord) -> Result<TrialRecord, ReplayError> {
        let config = Config { patience, ..self.config(place).clone() };
        let early = self.study.spec.early_step(&config);
        let points = self.points(place);
        let stop = (1..=points.len()).find(|&n| out_of_patience(&config, early, &points[..n]));
        match stop.map(|n| points[n - 1].step).filter(|&step| step < end.steps) {
            Some(step) => Ok(TrialRecord {
                state: TrialState::Complete,
                stopped_early: true,
                ..self.read(place, step)?
            }),
            None if stop.is_none() && end.stopped_early => Err(self.cut(place)),
            None => Ok(end),
        }
    }

    /// The notebook stops at the fifth improvement. What it records is the loss there, which is its best so far; a trial
    /// that runs through is recorded with its last loss, or not at all.
    fn as_seed(&self, place: usize, end: TrialRecord) -> Result<TrialRecord, ReplayError> {
        if end.state != TrialState::Complete {
            return Ok(end);
        }
        match SeedRule::of(&self.points(place), true) {
            SeedRule::Stopped { step } => {
                let read = self.read(place, step)?;
                Ok(TrialRecord { state: TrialState::Complete, stopped_early: true, best: read.last, ..read })
            }
            SeedRule::Lost | SeedRule::RanThrough if end.stopped_early => Err(self.cut(place)),
            SeedRule::Lost => {
                let message = "the notebook's rule would have left no number".to_string();
                let failure = TrialFailure { message, diverged_at: None, last_finite_loss: None };
                Ok(TrialRecord { state: TrialState::Fail, failure: Some(failure), ..end })
            }
            SeedRule::RanThrough | SeedRule::Undecided => Ok(TrialRecord { best: end.last, ..end }),
        }
    }

    /// The rule would have let the trial go on, and the study did not.
    fn cut(&self, place: usize) -> ReplayError {
        let (number, patience) = (self.study.trials[place].shown_number(), self.config(place).patience);
        ReplayError::Cut { rule: self.rule, number, patience }
    }

    fn config(&self, place: usize) -> &Config {
        &self.study.cells[self.study.trials[place].cell].config
    }
}

impl Training {
    /// What share of `all` was saved, by the measure that the study's cost is in.
    pub fn saved(&self, all: &Self, cost: Cost) -> f64 {
        match cost {
            Cost::Seconds => 1.0 - self.seconds / all.seconds,
            Cost::Flop | Cost::Parameters => 1.0 - self.flop / all.flop,
        }
    }
}
