//! What comes next, when there is nothing to claim.
//!
//! Trials wait at rungs until somebody says who goes on. Nobody is appointed to say it: whichever worker finds nothing
//! to claim looks at the study as it is stored, and what follows from it is the same for all of them. A decision is
//! stored in the same transaction that carries it out ([`Storage::decide`]), with everything that it was made from, so it
//! is made once: who comes later, a moment or a crash later, finds it and follows it.
//!
//! A rung is decided when every trial of its configurations has been read there, or is over (failed, ended by patience).
//! What a configuration would cost is the measured time of a step where one machine has timed them all, else the
//! floating-point operations: both are the same whoever asks, unlike the times that trials took.

use crate::rungs::{Fate, Ladders, keep, keep_so_far};
use crate::{Candidate, Cell, Cost, Params, Study, StudyError, StudySpec, Tolerance, Trial, Until};
use diapason_storage::{Attributes, Decision, ItemId, ItemState, NewTrial, Storage, StudyId};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How the names of the study's attributes begin that hold decisions.
const PREFIX: &str = "rung_decision:";

/// Configurations named in a note of each kind, those that go on and those that are dropped.
const NAMED: usize = 4;

/// What was decided at a rung, with everything that it was made from: an attribute of the Optuna study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RungDecision {
    /// The bracket.
    pub bracket: usize,
    /// The rung, counted from 0.
    pub rung: u32,
    /// Its step.
    pub step: u64,
    /// The step of the next one.
    pub next: u64,
    /// About one in so many went on.
    pub eta: u64,
    /// Tolerance of the rule.
    pub tolerance: f64,
    /// Costs this close counted as equal.
    pub noise: f64,
    /// What the costs are.
    pub cost: String,
    /// Every configuration that was compared.
    pub candidates: Vec<RungCandidate>,
}

/// A configuration at a rung.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RungCandidate {
    /// Its parameters.
    pub params: Params,
    /// What its work items' keys begin with.
    pub cell: String,
    /// Loss at the rung, the mean over its seeds; none if it had none.
    pub loss: Option<f64>,
    /// The losses by seed.
    pub losses: BTreeMap<u64, f64>,
    /// What it would cost to its last step.
    pub cost: Option<f64>,
    /// Whether it goes on.
    pub goes_on: bool,
    /// Why, or why not.
    pub why: String,
}

impl RungDecision {
    /// The name of the study's attribute.
    fn key(&self) -> String {
        format!("{PREFIX}bracket_{}:rung_{}", self.bracket, self.rung)
    }

    /// What became of a configuration.
    pub fn fate(&self, cell_key: &str) -> Option<&RungCandidate> {
        self.candidates.iter().find(|candidate| candidate.cell == cell_key)
    }

    /// How many went on.
    pub fn kept(&self) -> usize {
        self.candidates.iter().filter(|candidate| candidate.goes_on).count()
    }

    /// The decision in a line.
    pub fn text(&self) -> String {
        let list = |goes_on: bool| {
            let of: Vec<String> = self
                .candidates
                .iter()
                .filter(|candidate| candidate.goes_on == goes_on)
                .map(|candidate| format!("{} ({})", candidate.params, candidate.why))
                .collect();
            let more = of.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            of[..of.len().min(NAMED)].join(", ") + &more
        };
        let mut text = format!(
            "rung at step {}: {} of {} configurations go on to step {}",
            self.step,
            self.kept(),
            self.candidates.len(),
            self.next
        );
        for (goes_on, word) in [(true, ""), (false, "dropped: ")] {
            let list = list(goes_on);
            if !list.is_empty() {
                text += &format!("{} {word}{list}", if goes_on { ":" } else { ";" });
            }
        }
        text
    }
}

/// Something to be done to a study.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// To trials that wait at a rung.
    Decide {
        rung: u32,
        decisions: Vec<(ItemId, Decision)>,
        /// None: it is stored already, or is no decision on the whole rung.
        reason: Option<Box<RungDecision>>,
        note: Option<String>,
    },
    /// More trials are to come: a round, all of it or nothing.
    Enqueue { trials: Vec<NewTrial>, note: String },
}

/// All decisions on rungs that are stored.
pub(crate) fn stored(storage: &mut Storage, study: StudyId) -> Result<Vec<RungDecision>, StudyError> {
    let attributes = storage.study_attributes(study, Attributes::User)?;
    let decisions = attributes.into_iter().filter(|(key, _)| key.starts_with(PREFIX));
    let read = |(key, value)| {
        serde_json::from_value(value).map_err(|error| StudyError::File {
            path: storage.place().into(),
            message: format!("{key}: {error}"),
        })
    };
    let mut decisions: Vec<RungDecision> = decisions.map(read).collect::<Result<_, _>>()?;
    decisions.sort_by_key(|decision| (decision.bracket, decision.rung));
    Ok(decisions)
}

/// What came of looking.
#[derive(Default)]
pub(crate) struct Advanced {
    /// Whether there may be something to claim now.
    pub(crate) changed: bool,
    /// Whether there are trials that the study did not have.
    pub(crate) grown: bool,
    /// What there is to say.
    pub(crate) notes: Vec<String>,
    /// Steps that are expected of each trial that is not over, by number.
    pub(crate) ahead: Vec<(usize, f64)>,
}

/// Looks at the study as it is stored, and does what follows from it.
pub(crate) fn advance(
    storage: &mut Storage,
    id: StudyId,
    spec: &StudySpec,
    vocabulary: usize,
    folder: &Path,
) -> Result<Advanced, StudyError> {
    let mut advanced = Advanced::default();
    if !spec.has_rounds() {
        return Ok(advanced);
    }
    let mut study = Study::load(storage, id, spec.clone(), vocabulary, folder)?;
    // Each action may make way for another.
    loop {
        let actions = next(&study)?;
        if actions.is_empty() || advanced.grown {
            break;
        }
        for action in actions {
            // Another may have been quicker; then it is said there.
            let (done, note) = match action {
                Action::Decide { rung, decisions, reason, note } => {
                    let reason = match reason {
                        Some(reason) => Some((reason.key(), json(&reason)?)),
                        None => None,
                    };
                    (storage.decide(id, rung, &decisions, reason.as_ref())?, note)
                }
                Action::Enqueue { trials, note } => {
                    advanced.grown = true;
                    (storage.enqueue(id, &trials)?.added, Some(note))
                }
            };
            advanced.notes.extend(note.filter(|_| done > 0));
            advanced.changed = true;
        }
        study = Study::load(storage, id, spec.clone(), vocabulary, folder)?;
    }
    advanced.ahead =
        study.trials.iter().filter_map(|trial| Some((trial.number, study.ahead(trial)?))).collect();
    Ok(advanced)
}

fn json(decision: &RungDecision) -> Result<Json, StudyError> {
    serde_json::to_value(decision)
        .map_err(|error| StudyError::File { path: decision.key().into(), message: error.to_string() })
}

/// What follows from the study as it stands. Nothing else goes into it.
///
/// # Errors
/// A value that Optuna has no place for.
pub(crate) fn next(study: &Study) -> Result<Vec<Action>, StudyError> {
    let mut actions = rungs(study);
    if actions.is_empty() {
        actions.extend(more_samples(study)?);
    }
    if let Some(Until::More(seeds)) = study.until_decided().filter(|_| actions.is_empty()) {
        let trial =
            |&(cell, seed): &(usize, u64)| Trial::another_seed(cell, &study.cells[cell], seed, &study.spec);
        let trials = seeds.iter().map(trial).collect::<Result<_, _>>()?;
        let missing = study.verdict().map_or(String::new(), |verdict| verdict.certainty_text);
        let count = if seeds.len() == 1 {
            "1 more trial".to_string()
        } else {
            format!("{} more trials", seeds.len())
        };
        actions.push(Action::Enqueue { trials, note: format!("{missing}: {count}") });
    }
    Ok(actions)
}

/// The next round of samples, once all those before it are over.
fn more_samples(study: &Study) -> Result<Option<Action>, StudyError> {
    let Some(search) = &study.spec.search else { return Ok(None) };
    let drawn = study.samples();
    if drawn as u64 >= search.samples || !study.trials.iter().all(|trial| study.is_over(trial)) {
        return Ok(None);
    }
    let cells = search.next(&study.spec, drawn, &study.cells, &study.ranks());
    if cells.is_empty() {
        return Ok(None);
    }
    let ladders = Ladders::of(&study.spec);
    let mut trials = Vec::new();
    for seed in 0..study.spec.seeds {
        for (place, cell) in (drawn..).zip(&cells) {
            let bracket = ladders.as_ref().map(|ladders| ladders.bracket(place));
            trials.push(Trial::to_come(place, cell, seed, bracket).new_trial(
                cell,
                &study.spec,
                Some(place),
            )?);
        }
    }
    let (first, last) = (drawn + 1, drawn + cells.len());
    let which = if first == last { format!("sample {first}") } else { format!("samples {first} to {last}") };
    let note = format!(
        "{which} of {}: drawn by {} in the light of the first {drawn}",
        search.samples, search.sampler
    );
    Ok(Some(Action::Enqueue { trials, note }))
}

/// What follows for trials that are compared on the way.
fn rungs(study: &Study) -> Vec<Action> {
    let Some(ladders) = Ladders::of(&study.spec) else { return Vec::new() };
    let mut brackets: BTreeMap<usize, Vec<&Trial>> = BTreeMap::new();
    for trial in &study.trials {
        if let Some(bracket) = trial.bracket {
            brackets.entry(bracket).or_default().push(trial);
        }
    }
    let costs = Costs::of(study);
    let mut actions = Vec::new();
    for (bracket, trials) in brackets {
        let here = Bracket { study, ladders: &ladders, costs: &costs, bracket };
        here.next(trials, &mut actions);
    }
    actions
}

/// What configurations cost, each to its last step.
struct Costs<'a> {
    study: &'a Study,
    /// Seconds, where one machine has timed them all.
    timed: bool,
    noise: f64,
    name: String,
}

impl<'a> Costs<'a> {
    fn of(study: &'a Study) -> Self {
        let cost = study.spec.cost;
        let timed = cost == Cost::Seconds && study.timed().is_some();
        let (noise, name) = match cost {
            Cost::Seconds if timed => (study.cost_noise(), "seconds of all steps, as timed"),
            Cost::Seconds | Cost::Flop => (0.0, "FLOP of all steps"),
            Cost::Parameters => (0.0, "parameters"),
        };
        Self { study, timed, noise, name: name.to_string() }
    }

    fn of_trial(&self, cell: &Cell, trial: &Trial) -> f64 {
        // A batch that grows costs less at first.
        let steps = cell.config.full_batches(cell.config.steps);
        let record = trial.record.as_ref();
        let cost = match self.study.spec.cost {
            Cost::Seconds if self.timed => {
                let timing = self.study.timed().and_then(|timings| timings.of(&cell.config));
                timing.map(|timing| timing.ms_per_step / 1e3 * steps)
            }
            Cost::Seconds | Cost::Flop => record.map(|record| record.flop_per_step * steps),
            Cost::Parameters => record.map(|record| record.parameters as f64),
        };
        cost.unwrap_or(f64::NAN)
    }
}

/// A bracket of a study.
struct Bracket<'a> {
    study: &'a Study,
    ladders: &'a Ladders,
    costs: &'a Costs<'a>,
    bracket: usize,
}

impl Bracket<'_> {
    fn next(&self, trials: Vec<&Trial>, actions: &mut Vec<Action>) {
        let ladder = self.ladders.ladder(self.bracket);
        let (mut here, mut settled) = (trials, true);
        for (rung, step) in (0u32..).zip(&ladder[..ladder.len() - 1]) {
            let stored = self.study.decisions.iter().find(|d| (d.bracket, d.rung) == (self.bracket, rung));
            let decision = match stored {
                Some(decision) => {
                    // Those that were not there when it was made.
                    let late = self.follow(&here, decision);
                    if !late.is_empty() {
                        actions.push(Action::Decide { rung, decisions: late, reason: None, note: None });
                    }
                    decision.clone()
                }
                None if settled && here.iter().all(|trial| is_read(trial, rung)) => {
                    let decision = self.decide(&here, rung, *step, ladder[rung as usize + 1], false);
                    actions.push(Action::Decide {
                        rung,
                        decisions: self.follow(&here, &decision),
                        note: Some(decision.text()),
                        reason: Some(Box::new(decision)),
                    });
                    return;
                }
                None if self.ladders.asynchronous => {
                    self.next_so_far(&here, rung, actions);
                    // Who has gone on early may be far ahead.
                    here.retain(|trial| has_passed(trial, rung));
                    settled = false;
                    continue;
                }
                None => return,
            };
            let goes_on = |trial: &&Trial| {
                let stored = trial.stored.as_ref();
                stored.and_then(|stored| decision.fate(stored.cell_key())).is_some_and(|fate| fate.goes_on)
            };
            here.retain(goes_on);
        }
    }

    /// Lets go on who is among the best of those that have been read at an undecided rung.
    fn next_so_far(&self, here: &[&Trial], rung: u32, actions: &mut Vec<Action>) {
        let mut unread: BTreeSet<usize> = BTreeSet::new();
        for trial in here.iter().filter(|trial| !is_read(trial, rung)) {
            unread.insert(trial.cell);
        }
        let read: Vec<&Trial> = here.iter().copied().filter(|trial| !unread.contains(&trial.cell)).collect();
        let ladder = self.ladders.ladder(self.bracket);
        let place = rung as usize;
        let decision = self.decide(&read, rung, ladder[place], ladder[place + 1], true);
        let promoted: Vec<(ItemId, Decision)> = self
            .follow(&read, &decision)
            .into_iter()
            .filter(|(_, decision)| *decision == Decision::Promote)
            .collect();
        if promoted.is_empty() {
            return;
        }
        let names: Vec<String> = decision
            .candidates
            .iter()
            .filter(|candidate| candidate.goes_on)
            .map(|candidate| candidate.params.to_string())
            .collect();
        let note = format!(
            "rung at step {}: of {} configurations read so far, the best go on to step {}: {}",
            decision.step,
            decision.candidates.len(),
            decision.next,
            names.join(", ")
        );
        actions.push(Action::Decide { rung, decisions: promoted, reason: None, note: Some(note) });
    }

    /// What a decision means for those that wait at its rung.
    fn follow(&self, trials: &[&Trial], decision: &RungDecision) -> Vec<(ItemId, Decision)> {
        let of = |trial: &&Trial| {
            let stored = trial.stored.as_ref().filter(|stored| stored.waits_at(decision.rung))?;
            let goes_on = decision.fate(stored.cell_key()).is_some_and(|fate| fate.goes_on);
            Some((stored.item, if goes_on { Decision::Promote } else { Decision::Prune }))
        };
        trials.iter().filter_map(of).collect()
    }

    fn decide(&self, trials: &[&Trial], rung: u32, step: u64, next: u64, so_far: bool) -> RungDecision {
        let mut cells: BTreeMap<usize, Vec<&Trial>> = BTreeMap::new();
        for trial in trials {
            cells.entry(trial.cell).or_default().push(trial);
        }
        let several = self.study.several_seeds();
        let mut of_cells = Vec::new();
        for (cell, trials) in &cells {
            let cell = &self.study.cells[*cell];
            let losses: BTreeMap<u64, f64> =
                trials.iter().filter_map(|trial| Some((trial.seed, loss(trial, rung)?))).collect();
            let left_out = trials.iter().find_map(|trial| {
                let reason = left_out(trial, rung)?;
                Some(if several { format!("seed {}: {reason}", trial.seed) } else { reason })
            });
            let mean = losses.values().sum::<f64>() / losses.len() as f64;
            let candidate = Candidate {
                params: cell.params.clone(),
                cost: self.costs.of_trial(cell, trials[0]),
                loss: if left_out.is_some() { f64::NAN } else { mean },
                left_out,
            };
            let key = trials[0].stored.as_ref().map_or(String::new(), |stored| stored.cell_key().to_string());
            of_cells.push((candidate, losses, key, trials.iter().any(|trial| has_passed(trial, rung))));
        }
        let candidates: Vec<Candidate> = of_cells.iter().map(|(candidate, ..)| candidate.clone()).collect();
        let tolerance = Tolerance::new(self.study.spec.tolerance).unwrap_or_default();
        let (noise, eta) = (self.costs.noise, self.ladders.eta);
        let kept = match so_far {
            true => keep_so_far(&candidates, tolerance, noise, eta),
            false => keep(&candidates, tolerance, noise, eta),
        };
        let candidates =
            of_cells.into_iter().zip(kept.fates).map(|((candidate, losses, cell, passed), fate)| {
                let Fate { goes_on, why } = match fate.goes_on {
                    // It cannot be called back.
                    false if passed => Fate { goes_on: true, why: "it went on early".to_string() },
                    _ => fate,
                };
                let number = |x: f64| Some(x).filter(|x| x.is_finite());
                let (loss, cost) = (number(candidate.loss), number(candidate.cost));
                RungCandidate { params: candidate.params, cell, loss, losses, cost, goes_on, why }
            });
        RungDecision {
            bracket: self.bracket,
            rung,
            step,
            next,
            eta,
            tolerance: tolerance.fraction(),
            noise,
            cost: self.costs.name.clone(),
            candidates: candidates.collect(),
        }
    }
}

/// Whether there is nothing to wait for: it waits at the rung, has passed it, or is over.
fn is_read(trial: &Trial, rung: u32) -> bool {
    let Some(stored) = &trial.stored else { return false };
    let is_over = !matches!(stored.state, ItemState::Ready | ItemState::Held | ItemState::Rung);
    is_over || stored.waits_at(rung) || has_passed(trial, rung)
}

/// Whether it was allowed to go on from the rung.
fn has_passed(trial: &Trial, rung: u32) -> bool {
    trial.stored.as_ref().is_some_and(|stored| {
        stored.rung.is_some_and(|last| last >= i64::from(rung))
            && !stored.waits_at(rung)
            && !matches!(stored.state, ItemState::Pruned | ItemState::Failed)
    })
}

/// Why a trial has no loss at a rung that it will not be read at any more.
fn left_out(trial: &Trial, rung: u32) -> Option<String> {
    let stored = trial.stored.as_ref()?;
    match stored.state {
        ItemState::Failed => {
            let failure = trial.record.as_ref().and_then(|record| record.failure.as_ref());
            Some(failure.map_or_else(|| "failed".to_string(), |failure| failure.message.clone()))
        }
        ItemState::Pruned => Some("pruned".to_string()),
        ItemState::Away | ItemState::Foreign => Some("another program has it".to_string()),
        _ if loss(trial, rung).is_none() => Some("it was not read here".to_string()),
        _ => None,
    }
}

/// A trial's loss at a rung; of one that patience ended before, its last.
fn loss(trial: &Trial, rung: u32) -> Option<f64> {
    let stored = trial.stored.as_ref()?;
    let last = || {
        let record = trial.record.as_ref().filter(|_| stored.state == ItemState::Done)?;
        record.last.map(|reading| reading.validation_loss)
    };
    stored.rung_losses.get(rung as usize).copied().or_else(last)
}
