//! A study as it stands: what was asked, what is known, and what follows from it.
//!
//! Everything that is said about a study (rows of a table, candidates for the decision, the verdict) is worked
//! out here from the specification and the records of the trials, whether the study runs, has been killed or is
//! finished. Nothing of it is stored.

use crate::director::{self, RungDecision};
use crate::home::Found;
use crate::rungs::Ladders;
use crate::table::mean;
use crate::trial::trials;
use crate::{
    Candidate, Cell, Certainty, Cost, Decision, Evidence, Home, Need, Params, SpanLosses, StoredTrial,
    StudyError, StudySpec, Timing, Timings, Tolerance, Trial, TrialRecord, TrialState, Weighed, compare,
    decide, percent, weigh,
};
use diapason_storage::{Opening, Storage, StudyId};
use diapason_training::{Budget, Protocol, SeedRule};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

/// The chance that all intervals of a study hold at once.
const CONFIDENCE: f64 = 0.95;

/// Configurations that are compared with intervals, each with each, at most.
const MOST_COMPARED: usize = 256;

/// A reading of a trajectory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pass {
    /// At the early step.
    Early,
    /// At the end: the best loss of the run, or the last with the notebook's protocol.
    Full,
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Early => "early",
            Self::Full => "full",
        })
    }
}

/// One pass of one trial: a line of `tune --json` and of `results.csv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Number of the trial, as Optuna's tools show it; its two passes share it.
    pub number: i64,
    /// The cell.
    pub params: Params,
    /// The seed.
    pub seed: u64,
    /// Which reading.
    pub pass: Pass,
    /// How far the pass is.
    pub state: TrialState,
    /// Updates done.
    pub steps: u64,
    /// Whether patience (in the notebook's early pass: its rule) ended it before the last step.
    pub stopped_early: bool,
    /// Mean cross-entropy over all positions of the validation windows, nats. Of a pass that is running: so far.
    pub validation_loss: Option<f64>,
    /// The same in bits per character.
    pub validation_bpc: Option<f64>,
    /// Share of positions where the likeliest symbol was right.
    pub accuracy: Option<f64>,
    /// The same at the last position of each window.
    pub accuracy_last: Option<f64>,
    /// Seconds in training steps; evaluations and checkpoints do not count.
    pub train_seconds: f64,
    /// Positions trained on per such second.
    pub tokens_per_second: Option<f64>,
    /// Threads that the trial ran on, mean over its time.
    #[serde(default)]
    pub threads: Option<f64>,
    /// Trials at work while it ran, itself included, mean over its time: above 1, `train_seconds` is not what it would
    /// have been alone.
    #[serde(default)]
    pub trials_at_once: Option<f64>,
    /// Milliseconds of a step alone on all threads, the mean over its steps, as timed at the start of the study, if it was.
    #[serde(default)]
    pub ms_per_step_alone: Option<f64>,
    /// How far that may be off, as a fraction of it.
    #[serde(default)]
    pub ms_per_step_noise: Option<f64>,
    /// Number of parameters.
    pub parameters: u64,
    /// Floating-point operations of the steps done, by the field's usual count.
    pub flop: f64,
    /// The step that the loss was read at: of the full pass, the best evaluation.
    pub read_at: Option<u64>,
    /// Which arithmetic computed it; none before an engine is made.
    #[serde(default)]
    pub engine: Option<String>,
    /// Which other arithmetics computed earlier parts of the trial: it is then no function of its settings.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub other_engines: Vec<String>,
    /// Whether the notebook's rule would have left no number behind; only in its early pass.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lost_by_seed_rule: Option<bool>,
    /// Why there is no result.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// What one pass of a cell came to: means over seeds. Without a result every number is NaN.
#[derive(Clone, Debug, PartialEq)]
pub struct CellReading {
    /// Why there is no result.
    pub left_out: Option<String>,
    /// The loss that it was ended with by a comparison, mean over its seeds, and the step.
    pub dropped: Option<(f64, u64)>,
    /// How many seeds the means are over: those that all configurations have.
    pub seeds: usize,
    /// How many it has finished beyond those; they count in the evidence.
    pub further: usize,
    /// Validation loss, nats per character.
    pub loss: f64,
    /// The same in bits.
    pub bpc: f64,
    /// Share of positions where the likeliest symbol was right.
    pub accuracy: f64,
    /// The same at the last position of each window.
    pub accuracy_last: f64,
    /// Updates done.
    pub steps: f64,
    /// Seconds in training steps, as they went by.
    pub train_seconds: f64,
    /// Seconds of the same steps alone on all threads, which compare: the time of one step, if that was measured at
    /// the start ([`Study::timed`]), times the steps; else `train_seconds`, scaled to the same number of threads.
    pub seconds: f64,
    /// Positions trained on per such second.
    pub tokens_per_second: f64,
    /// Floating-point operations of the steps done.
    pub flop: f64,
    /// Number of parameters; none before the first trial of the cell begins.
    pub parameters: Option<u64>,
}

impl CellReading {
    /// What the pass cost.
    pub fn cost(&self, cost: Cost) -> f64 {
        match cost {
            Cost::Seconds => self.seconds,
            Cost::Flop => self.flop,
            Cost::Parameters => self.parameters.map_or(f64::NAN, |n| n as f64),
        }
    }
}

/// The decision of one pass with what it was made from.
#[derive(Clone, Debug, PartialEq)]
pub struct PassDecision {
    /// Which reading.
    pub pass: Pass,
    /// One per cell, in grid order.
    pub candidates: Vec<Candidate>,
    /// What the rule found in them.
    pub decision: Decision,
    /// How certain that is; or why nothing can be said about it, in words.
    pub grounds: Result<Grounds, String>,
}

/// What a decision rests on, apart from mean losses.
#[derive(Clone, Debug, PartialEq)]
pub struct Grounds {
    /// By how much each cell is worse than the best, with intervals.
    pub evidence: Evidence,
    /// The intervals held against the tolerance.
    pub weighed: Weighed,
}

impl PassDecision {
    /// The configuration to keep.
    pub fn chosen(&self) -> &Params {
        &self.candidates[self.decision.chosen].params
    }
}

/// Which configuration to keep, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The parameters of the chosen cell.
    pub chosen: Params,
    /// Why, in words.
    pub reason: String,
    /// How certain the choice is; none where that cannot be said.
    pub certainty: Option<Certainty>,
    /// The same in words, with what is missing.
    pub certainty_text: String,
}

/// What a study that goes on until it is decided is to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Until {
    /// Trials are at work or yet to begin.
    Running,
    /// The verdict is decided.
    Decided,
    /// To train these seeds of these cells.
    More(Vec<(usize, u64)>),
    /// To leave it undecided: why.
    Open(String),
}

/// A study as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Study {
    /// What was asked for.
    pub spec: StudySpec,
    /// The grid's cells, in order.
    pub cells: Vec<Cell>,
    /// Every cell with every seed, in the order of their numbers.
    pub trials: Vec<Trial>,
    /// What the steps of the cells take on each machine that has timed them, the first to do so first.
    pub timings: Vec<Timings>,
    /// What was decided at rungs, by bracket and rung.
    pub decisions: Vec<RungDecision>,
    /// Whether the run that returned this was asked to stop before all was done.
    pub interrupted: bool,
}

impl Study {
    /// Reads a study, for a text of `vocabulary` symbols. It may be running.
    ///
    /// # Errors
    /// There is no study, or it is not as this program writes it.
    pub fn open(home: &Home, vocabulary: usize) -> Result<Self, StudyError> {
        match home.find(Opening::Read)? {
            Some(Found { mut storage, id, spec: Some(spec), .. }) => {
                Self::load(&mut storage, id, spec, vocabulary, &home.folder)
            }
            Some(Found { name, .. }) => Err(StudyError::NotOurs { name }),
            None => Err(home.no_study()),
        }
    }

    /// A study that has not begun.
    pub(crate) fn new(
        spec: StudySpec,
        mut cells: Vec<Cell>,
        folder: &Path,
        vocabulary: usize,
    ) -> Result<Self, StudyError> {
        let trials = trials(&spec, &mut cells, folder, vocabulary, None)?;
        Ok(Self { spec, cells, trials, timings: Vec::new(), decisions: Vec::new(), interrupted: false })
    }

    /// A study with what the database knows of its trials.
    pub(crate) fn load(
        storage: &mut Storage,
        id: StudyId,
        spec: StudySpec,
        vocabulary: usize,
        folder: &Path,
    ) -> Result<Self, StudyError> {
        let (spec, mut cells) = spec.completed(vocabulary)?;
        let trials = trials(&spec, &mut cells, folder, vocabulary, Some((&mut *storage, id)))?;
        let timings = Timings::read(storage, id)?;
        let decisions = director::stored(storage, id)?;
        Ok(Self { spec, cells, trials, timings, decisions, interrupted: false })
    }

    /// Why a trial was ended by a comparison, as `dropped at step 222: 1.4716: 1.4 % above the best loss`.
    pub fn dropped(&self, trial: &Trial) -> Option<String> {
        let record = trial.record.as_ref().filter(|record| record.state == TrialState::Pruned)?;
        let stored = trial.stored.as_ref();
        let params = &self.cells[trial.cell].params;
        let at = |decision: &&RungDecision| {
            let here = |stored: &StoredTrial| Some(i64::from(decision.rung)) == stored.rung;
            Some(decision.bracket) == trial.bracket && stored.is_none_or(here)
        };
        let fate = |decision: &'_ RungDecision| match stored {
            Some(stored) => decision.fate(stored.cell_key()).cloned(),
            None => decision.candidates.iter().find(|c| c.params == *params && !c.goes_on).cloned(),
        };
        let why = self.decisions.iter().filter(at).find_map(fate).map(|fate| fate.why);
        Some(match why.or_else(|| stored?.prune_reason.clone()) {
            Some(why) => format!("dropped at step {}: {why}", record.steps),
            None => format!("pruned at step {}", record.steps),
        })
    }

    /// Whether a configuration of a bracket was dropped at a rung before this trial of it was read there.
    pub(crate) fn is_dropped(&self, trial: &Trial) -> bool {
        let Some((bracket, stored)) = trial.bracket.zip(trial.stored.as_ref()) else { return false };
        let of = |decision: &&RungDecision| decision.bracket == bracket;
        let mut fates = self.decisions.iter().filter(of).filter_map(|d| d.fate(stored.cell_key()));
        fates.any(|fate| !fate.goes_on)
    }

    /// Steps that are expected of a trial that is not over, with rungs on average: see [`Ladders::later`].
    pub(crate) fn ahead(&self, trial: &Trial) -> Option<f64> {
        let config = &self.cells[trial.cell].config;
        let done = match &trial.record {
            Some(record) if record.is_finished(config.steps) => return None,
            Some(record) => record.steps,
            None => 0,
        };
        let all = config.steps.saturating_sub(done) as f64;
        let Some((ladders, bracket)) = Ladders::of(&self.spec).zip(trial.bracket) else { return Some(all) };
        let stored = trial.stored.as_ref();
        let waits = stored.is_some_and(|stored| stored.rung.is_some_and(|rung| stored.waits_at(rung as u32)));
        // The rung that it has passed.
        let passed = stored.and_then(|stored| stored.rung).map(|rung| rung - i64::from(waits));
        let passed = passed.filter(|rung| *rung >= 0);
        let here = match passed {
            None => self.cells_of(bracket),
            Some(rung) => {
                let at = |d: &&RungDecision| (d.bracket, i64::from(d.rung)) == (bracket, rung);
                self.decisions.iter().find(at).map_or(1, RungDecision::kept)
            }
        };
        let later = ladders.later(bracket, passed, here);
        let next = ladders.next(bracket, passed).map_or(config.steps, |(_, step)| step);
        Some(next.saturating_sub(done) as f64 + later)
    }

    /// What the rule will do to a study that nobody has begun, in a line; none without rungs.
    pub(crate) fn outline(&self) -> Option<String> {
        let begun = self.trials.iter().any(|trial| trial.record.is_some());
        let Some(ladders) = Ladders::of(&self.spec) else {
            let warning = self.spec.rule.not_reproducible().filter(|_| !begun)?;
            return Some(format!("rule {}: {warning}", self.spec.rule));
        };
        let brackets: BTreeSet<usize> = self.trials.iter().filter_map(|trial| trial.bracket).collect();
        let of = |bracket: &usize| {
            let ladder = ladders.ladder(*bracket);
            let (last, rungs) = ladder.split_last()?;
            let (last_rung, others) = rungs.split_last()?;
            let others: Vec<String> = others.iter().map(u64::to_string).collect();
            let steps = match others.as_slice() {
                [] => format!("step {last_rung}"),
                others => format!("steps {} and {last_rung}", others.join(", ")),
            };
            Some(format!("{} configurations are compared at {steps} of {last}", self.cells_of(*bracket)))
        };
        let brackets: Vec<String> = brackets.iter().filter_map(of).collect();
        let all: f64 = self.trials.iter().map(|trial| self.cells[trial.cell].config.steps as f64).sum();
        let ahead: f64 = self.trials.iter().filter_map(|trial| self.ahead(trial)).sum();
        if brackets.is_empty() || begun {
            return None;
        }
        let mut text = format!(
            "rule {}: {}; about {} of the training that all to the end would take",
            self.spec.rule,
            brackets.join("; "),
            percent(ahead / all)
        );
        if let Some(warning) = self.spec.rule.not_reproducible() {
            text += &format!(" ({warning})");
        }
        Some(text)
    }

    /// Configurations of a bracket.
    fn cells_of(&self, bracket: usize) -> usize {
        let of = self.trials.iter().filter(|trial| trial.bracket == Some(bracket));
        of.map(|trial| trial.cell).collect::<BTreeSet<_>>().len()
    }

    /// What share of the training has been done that all trials to their last step would be, by floating-point
    /// operations; none before every configuration has begun.
    pub fn trained_share(&self) -> Option<f64> {
        let mut flop = vec![None; self.cells.len()];
        for trial in &self.trials {
            if let Some(record) = &trial.record {
                flop[trial.cell] = Some(record.flop_per_step);
            }
        }
        let (mut done, mut all) = (0.0, 0.0);
        for trial in &self.trials {
            let flop = flop[trial.cell]?;
            let config = &self.cells[trial.cell].config;
            done += flop * config.full_batches(trial.record.as_ref().map_or(0, |record| record.steps));
            all += flop * config.full_batches(config.steps);
        }
        Some(done / all).filter(|share| share.is_finite())
    }

    /// The keys by which the cells differ: those of the grid, then those of trials that other programs enqueued.
    pub fn keys(&self) -> Vec<&str> {
        let mut keys: Vec<&str> = self.spec.grid.axes().iter().map(|axis| axis.key.as_str()).collect();
        for key in self.cells.iter().flat_map(|cell| cell.params.0.keys()) {
            if !keys.contains(&key.as_str()) {
                keys.push(key);
            }
        }
        keys
    }

    /// Of an ablation, the cell from which `cell` differs in the key that was changed, or which it is itself.
    pub fn base_of(&self, cell: usize) -> Option<usize> {
        if self.spec.ablate.is_empty() {
            return None;
        }
        let mut whole = self.cells[cell].params.clone();
        whole.0.retain(|key, _| self.spec.ablate.axis(key).is_none());
        self.cells.iter().position(|cell| cell.params == whole)
    }

    /// The passes that each trial has.
    pub fn passes(&self) -> &'static [Pass] {
        if self.spec.protocol == Protocol::Standard && self.spec.early_fraction == 0.0 {
            &[Pass::Full]
        } else {
            &[Pass::Early, Pass::Full]
        }
    }

    /// The step at which a pass of `cell` is read; of the full pass, the last step. None for the early pass of the
    /// notebook's protocol, which finds its own.
    pub fn planned_steps(&self, cell: &Cell, pass: Pass) -> Option<u64> {
        match pass {
            Pass::Early => self.spec.early_step(&cell.config),
            Pass::Full => Some(cell.config.steps),
        }
    }

    /// The times that costs rest on: those of the first machine that has timed every cell that has begun. Costs from
    /// different sources would not compare.
    pub fn timed(&self) -> Option<&Timings> {
        let begun = self.trials.iter().filter(|trial| trial.record.is_some());
        let cells: BTreeSet<usize> = begun.map(|trial| trial.cell).collect();
        let configs = || cells.iter().map(|cell| &self.cells[*cell].config);
        self.timings.iter().find(|timings| timings.cover(configs(), &[1]))
    }

    /// What a step of each cell takes alone, if it was timed.
    fn times_of_a_step(&self) -> Vec<Option<&Timing>> {
        let timings = self.timed().or(self.timings.first());
        self.cells.iter().map(|cell| timings?.of(&cell.config)).collect()
    }

    /// How far apart the costs of two cells must be to count as different, as a fraction of the lower one.
    pub fn cost_noise(&self) -> f64 {
        let begun: BTreeSet<usize> =
            self.trials.iter().filter(|trial| trial.record.is_some()).map(|trial| trial.cell).collect();
        let timing = |cell: usize| self.timed()?.of(&self.cells[cell].config);
        self.spec.cost.noise(begun.into_iter().filter_map(timing).map(|timing| timing.noise))
    }

    /// The most threads that a trial had, mean over its time; none if that is not known of any.
    pub fn most_threads(&self) -> Option<f64> {
        let records = self.trials.iter().filter_map(|trial| trial.record.as_ref());
        records.filter_map(|record| record.threads).max_by(f64::total_cmp)
    }

    /// One row per pass of each trial that has begun, in the order of numbers, early before full.
    pub fn rows(&self) -> Vec<Row> {
        let (mut rows, times) = (Vec::new(), self.times_of_a_step());
        for trial in &self.trials {
            if let Some(record) = &trial.record {
                let row = |&pass| self.row(trial, record, pass, times[trial.cell]);
                rows.extend(self.passes().iter().map(row));
            }
        }
        rows
    }

    fn row(&self, trial: &Trial, record: &TrialRecord, pass: Pass, timing: Option<&Timing>) -> Row {
        let as_seed = self.spec.protocol == Protocol::AsSeed;
        let reading = match pass {
            Pass::Early => record.early,
            Pass::Full if as_seed => record.last,
            // What it was compared by.
            Pass::Full if record.state == TrialState::Pruned => record.last,
            Pass::Full => record.best,
        };
        // The early pass is over once it has its reading, whatever becomes of the trial after that.
        let over = pass == Pass::Early && reading.is_some();
        let state = match record.state {
            _ if over => TrialState::Complete,
            // The study has been given more steps, and this trial has not done them yet.
            TrialState::Complete if !record.is_finished(self.cells[trial.cell].config.steps) => {
                TrialState::Running
            }
            state => state,
        };
        let reading = reading.filter(|_| state != TrialState::Fail);
        let (steps, train_seconds) = match reading {
            Some(reading) if pass == Pass::Early => (reading.step, reading.train_seconds),
            _ => (record.steps, record.train_seconds),
        };
        let tokens = record.config.characters(steps);
        // A batch that grows takes less time at first.
        let full = record.config.full_batches(steps);
        let ms_per_step_alone = timing.map(|timing| timing.ms_per_step * (full / steps.max(1) as f64));
        Row {
            number: trial.shown_number(),
            params: record.params.clone(),
            seed: trial.seed,
            pass,
            state,
            steps,
            stopped_early: match pass {
                Pass::Early => matches!(record.seed_rule, Some(SeedRule::Stopped { .. })),
                Pass::Full => record.stopped_early,
            },
            validation_loss: reading.map(|r| r.validation_loss),
            validation_bpc: reading.map(|r| r.bpc()),
            accuracy: reading.map(|r| r.accuracy),
            accuracy_last: reading.map(|r| r.accuracy_last),
            train_seconds,
            tokens_per_second: match pass {
                Pass::Early => Some(tokens / train_seconds).filter(|speed| speed.is_finite() && *speed > 0.0),
                Pass::Full => record.tokens_per_second,
            },
            threads: record.threads,
            trials_at_once: record.trials_at_once,
            ms_per_step_alone,
            ms_per_step_noise: timing.map(|timing| timing.noise),
            parameters: record.parameters,
            flop: full * record.flop_per_step,
            read_at: reading.map(|r| r.step),
            engine: Some(record.engine.clone()).filter(|engine| !engine.is_empty()),
            other_engines: record.other_engines.clone(),
            lost_by_seed_rule: record
                .seed_rule
                .filter(|_| pass == Pass::Early && over)
                .map(|rule| rule == SeedRule::Lost),
            error: record
                .failure
                .as_ref()
                .map(|failure| failure.message.clone())
                .or_else(|| self.dropped(trial))
                .filter(|_| !over),
        }
    }

    /// What one pass came to, cell by cell in grid order: means over the seeds that every cell with a result has
    /// finished. So cells of a study that was cut short are compared on the same seeds; a cell without any result
    /// is left out.
    pub fn readings(&self, pass: Pass) -> Vec<CellReading> {
        let mut rows: Vec<Vec<Row>> = vec![Vec::new(); self.cells.len()];
        let times = self.times_of_a_step();
        for trial in &self.trials {
            if let Some(record) = &trial.record {
                rows[trial.cell].push(self.row(trial, record, pass, times[trial.cell]));
            }
        }
        readings(&rows, self.several_seeds())
    }

    /// One candidate per cell, in grid order.
    pub fn candidates(&self, pass: Pass) -> Vec<Candidate> {
        let readings = self.readings(pass).into_iter();
        readings
            .zip(&self.cells)
            .map(|(reading, cell)| Candidate {
                params: cell.params.clone(),
                cost: self.share_of_budget(cell, pass, &reading).unwrap_or(reading.cost(self.spec.cost)),
                loss: reading.loss,
                left_out: reading.left_out,
            })
            .collect()
    }

    /// What a configuration has cost, where the budget says it: what its division by whole steps leaves over is no difference.
    fn share_of_budget(&self, cell: &Cell, pass: Pass, reading: &CellReading) -> Option<f64> {
        let budget = match (self.spec.budget?, self.spec.cost) {
            (Budget::Seconds(seconds), Cost::Seconds) => seconds,
            (Budget::Flop(flop), Cost::Flop) => flop,
            _ => return None,
        };
        let share = match pass {
            _ if self.planned_steps(cell, pass).map(|steps| steps as f64) != Some(reading.steps) => {
                reading.steps / cell.config.steps as f64
            }
            Pass::Full => 1.0,
            Pass::Early => self.spec.early_fraction,
        };
        Some(budget * share)
    }

    /// The rule applied to one pass, with evidence where there is some; `None` while no cell has a result.
    pub fn decision(&self, pass: Pass) -> Option<PassDecision> {
        let (tolerance, noise) = (self.tolerance(), self.cost_noise());
        let candidates = self.candidates(pass);
        let decision = decide(&candidates, tolerance, noise)?;
        let grounds = self.evidence(pass, &decision).and_then(|evidence| {
            let weighed = weigh(&candidates, &evidence, tolerance, noise).ok_or("nothing can be compared")?;
            Ok(Grounds { evidence, weighed })
        });
        Some(match grounds {
            Ok(Grounds { evidence, weighed }) => PassDecision {
                pass,
                candidates: weighed.candidates.clone(),
                decision: weighed.decision.clone(),
                grounds: Ok(Grounds { evidence, weighed }),
            },
            Err(why_not) => PassDecision { pass, candidates, decision, grounds: Err(why_not) },
        })
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::new(self.spec.tolerance).unwrap_or_default()
    }

    /// What the losses per span say about the cells that `decision` compares, all seeds that have finished included; or
    /// why they say nothing.
    fn evidence(&self, pass: Pass, decision: &Decision) -> Result<Evidence, String> {
        if self.spec.protocol == Protocol::AsSeed {
            return Err(
                "the notebook's protocol evaluates on other text each time, so that nothing is paired"
                    .to_string(),
            );
        }
        let compared = || decision.compared.iter().map(|comparison| comparison.candidate);
        if compared().count() > MOST_COMPARED {
            return Err(format!("at most {MOST_COMPARED} configurations are compared with intervals"));
        }
        let characters: BTreeSet<usize> =
            compared().map(|cell| self.cells[cell].config.validation_characters).collect();
        if characters.len() > 1 {
            return Err("the configurations are not evaluated on the same text".to_string());
        }
        let mut losses = vec![SpanLosses::new(); self.cells.len()];
        for trial in &self.trials {
            let Some(record) = &trial.record else { continue };
            let reading = match pass {
                Pass::Early => record.early,
                Pass::Full if record.is_finished(self.cells[trial.cell].config.steps) => record.best,
                Pass::Full => None,
            };
            let Some(reading) = reading.filter(|_| decision.comparison(trial.cell).is_some()) else {
                continue;
            };
            let Some(spans) = record.spans.iter().find(|spans| spans.step == reading.step) else {
                return Err(format!("trial {} has no losses per span of text", trial.shown_number()));
            };
            losses[trial.cell].insert(trial.seed, spans.losses.clone());
        }
        compare(&losses, CONFIDENCE).map_err(|error| error.to_string())
    }

    /// The decision that the verdict rests on: that of the full pass; while no cell has finished it, of the early pass.
    pub fn decided(&self) -> Option<PassDecision> {
        self.passes().iter().rev().find_map(|&pass| self.decision(pass))
    }

    /// The verdict, from [`Study::decided`].
    pub fn verdict(&self) -> Option<Verdict> {
        let decided = self.decided()?;
        let mut reason = decided.decision.reason(&decided.candidates, self.spec.cost);
        if decided.pass == Pass::Early {
            reason += " (early reading: no full run has finished)";
        }
        if let Some(search) =
            self.spec.search.as_ref().filter(|search| (self.samples() as u64) < search.samples)
        {
            reason += &format!(" ({} of {} samples are drawn)", self.samples(), search.samples);
        }
        let unfinished = self.trials.iter().filter(|trial| !self.is_over(trial)).count();
        if unfinished > 0 {
            reason += &format!(" ({unfinished} of {} trials have not finished)", self.trials.len());
        } else if let Some(share) = self.trained_share().filter(|_| !self.spec.rule.is_none()) {
            reason += &format!(
                " (rule {}: {} of the training that all trials to their last step would have been{})",
                self.spec.rule,
                percent(share),
                self.spec.rule.not_reproducible().map_or(String::new(), |why| format!("; {why}"))
            );
        }
        let (certainty, certainty_text) = match &decided.grounds {
            Ok(Grounds { weighed, .. }) => (Some(weighed.certainty), weighed.certainty_text()),
            Err(why_not) => (None, format!("unknown, since {why_not}")),
        };
        Some(Verdict { chosen: decided.chosen().clone(), reason, certainty, certainty_text })
    }

    /// How many samples have been drawn, in a study that draws its configurations; they are its first cells.
    pub fn samples(&self) -> usize {
        let Some(search) = &self.spec.search else { return 0 };
        let drawn =
            self.trials.iter().filter_map(|trial| trial.stored.as_ref()?.sample).map(|sample| sample + 1);
        drawn.max().unwrap_or(0).max(search.drawn_first()) as usize
    }

    /// The samples by rank, with their parameters, the best first: those with a result by their loss; then those that
    /// were dropped on the way, who came furthest first; then those that failed.
    pub(crate) fn ranks(&self) -> Vec<(Params, f64)> {
        let readings = self.readings(Pass::Full);
        let key = |reading: &CellReading| match (&reading.left_out, reading.dropped) {
            (None, _) => (0, 0, reading.loss),
            (Some(_), Some((loss, step))) => (1, u64::MAX - step, loss),
            (Some(_), None) => (2, 0, 0.0),
        };
        let mut order: Vec<usize> = (0..self.samples().min(readings.len())).collect();
        order.sort_by(|&a, &b| {
            let (a, b) = (key(&readings[a]), key(&readings[b]));
            (a.0, a.1).cmp(&(b.0, b.1)).then(a.2.total_cmp(&b.2))
        });
        order
            .into_iter()
            .zip(0u32..)
            .map(|(cell, rank)| (self.cells[cell].params.clone(), f64::from(rank)))
            .collect()
    }

    /// Whether any configuration has more than one seed.
    pub fn several_seeds(&self) -> bool {
        self.spec.seeds > 1 || self.trials.iter().any(|trial| trial.seed > 0)
    }

    /// What a study that goes on until it is decided is to do next; none of one that does not.
    ///
    /// It depends on nothing but trials that are over, so it is the same whoever asks.
    pub fn until_decided(&self) -> Option<Until> {
        let most = self.spec.until_decided?;
        if !self.trials.iter().all(|trial| self.is_over(trial)) {
            return Some(Until::Running);
        }
        let Some(decision) = self.decision(Pass::Full) else {
            return Some(Until::Open("no configuration has a result".to_string()));
        };
        let weighed = match &decision.grounds {
            Ok(grounds) => &grounds.weighed,
            Err(why_not) => {
                return Some(Until::Open(format!(
                    "how certain the choice is cannot be said, since {why_not}"
                )));
            }
        };
        let Some(missing) = &weighed.missing else { return Some(Until::Decided) };
        let more = match missing.need {
            Need::SecondSeed => 1,
            Need::Seeds(more) => more,
            Need::TooManySeeds | Need::Text => return Some(Until::Open(weighed.certainty_text())),
        };
        let mut seeds = Vec::new();
        for &cell in &missing.candidates {
            let have: BTreeSet<u64> =
                self.trials.iter().filter(|trial| trial.cell == cell).map(|trial| trial.seed).collect();
            let more = more.min((most as usize).saturating_sub(have.len()));
            // Everybody's first ones: seeds pair configurations only if they have them in common.
            let new = (0..).filter(|seed| !have.contains(seed)).take(more);
            seeds.extend(new.map(|seed| (cell, seed)));
        }
        // As the trials of a grid: all with one seed before the next.
        seeds.sort_by_key(|&(cell, seed)| (seed, cell));
        Some(match seeds.is_empty() {
            false => Until::More(seeds),
            true => {
                Until::Open(format!("{most} seeds is the bound that was set: {}", weighed.certainty_text()))
            }
        })
    }

    /// Whether a trial has come to its end, good or bad.
    pub fn is_over(&self, trial: &Trial) -> bool {
        let steps = self.cells[trial.cell].config.steps;
        trial
            .record
            .as_ref()
            .is_some_and(|record| record.state == TrialState::Fail || record.is_finished(steps))
    }

    /// The cells, with their seeds, whose early pass the notebook's rule would have lost. Empty unless the study
    /// ran with the notebook's protocol.
    pub fn lost_by_seed_rule(&self) -> Vec<Row> {
        self.rows().into_iter().filter(|row| row.lost_by_seed_rule == Some(true)).collect()
    }
}

/// What one pass of each cell came to, from the rows that it has in that pass, one for each seed; see
/// [`Study::readings`].
pub(crate) fn readings(rows: &[Vec<Row>], several_seeds: bool) -> Vec<CellReading> {
    let finished = |rows: &[Row]| -> BTreeSet<u64> {
        rows.iter().filter(|row| row.state == TrialState::Complete).map(|row| row.seed).collect()
    };
    let common = rows
        .iter()
        .filter(|rows| rows.iter().all(|row| row.state != TrialState::Fail))
        .map(|rows| finished(rows))
        .filter(|seeds| !seeds.is_empty())
        .reduce(|common, seeds| &common & &seeds)
        .unwrap_or_default();
    // Trials that other programs enqueued may have no seed in common: better an unpaired comparison than none.
    let counts =
        |row: &Row| common.contains(&row.seed) || (common.is_empty() && row.state == TrialState::Complete);
    let all = || rows.iter().flatten();
    let timed = all().all(|row| row.ms_per_step_alone.is_some());
    let most_threads = all().filter_map(|row| row.threads).max_by(f64::total_cmp);
    let seconds = |row: &Row| match row.ms_per_step_alone.filter(|_| timed) {
        Some(ms) => row.steps as f64 * ms / 1e3,
        // As if its neighbours' threads had been its own.
        None => row.train_seconds * row.threads.zip(most_threads).map_or(1.0, |(had, most)| had / most),
    };
    let reading = |rows: &Vec<Row>| {
        let left_out = match rows.iter().find(|row| row.state == TrialState::Fail) {
            Some(row) => {
                let reason = row.error.clone().unwrap_or_else(|| "failed".to_string());
                Some(if several_seeds { format!("seed {}: {reason}", row.seed) } else { reason })
            }
            None if rows.iter().any(|row| row.state == TrialState::Pruned) => {
                let reason = rows.iter().find_map(|row| row.error.clone());
                Some(reason.unwrap_or_else(|| "pruned".to_string()))
            }
            None if finished(rows).is_empty() => Some("not finished".to_string()),
            None => None,
        };
        let counted: Vec<&Row> = rows.iter().filter(|row| left_out.is_none() && counts(row)).collect();
        let average = |value: &dyn Fn(&Row) -> Option<f64>| {
            mean(&counted.iter().map(|row| value(row).unwrap_or(f64::NAN)).collect::<Vec<_>>())
        };
        let dropped: Vec<&Row> = rows.iter().filter(|row| row.state == TrialState::Pruned).collect();
        let losses: Vec<f64> = dropped.iter().filter_map(|row| row.validation_loss).collect();
        let at = dropped.iter().map(|row| row.steps).max();
        let further = if left_out.is_none() { finished(rows).len().saturating_sub(counted.len()) } else { 0 };
        CellReading {
            left_out,
            dropped: at.map(|step| (mean(&losses), step)),
            seeds: counted.len(),
            further,
            loss: average(&|row| row.validation_loss),
            bpc: average(&|row| row.validation_bpc),
            accuracy: average(&|row| row.accuracy),
            accuracy_last: average(&|row| row.accuracy_last),
            steps: average(&|row| Some(row.steps as f64)),
            train_seconds: average(&|row| Some(row.train_seconds)),
            seconds: average(&|row| Some(seconds(row))),
            tokens_per_second: average(&|row| {
                row.tokens_per_second.map(|speed| speed * row.train_seconds / seconds(row))
            }),
            flop: average(&|row| Some(row.flop)),
            parameters: rows.first().map(|row| row.parameters),
        }
    };
    rows.iter().map(reading).collect()
}
