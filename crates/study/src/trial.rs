//! One trial: a cell of the grid with a seed, and what came of it.
//!
//! A trial is one trajectory. The early and the full pass are two readings of it. What is known of a trial lies
//! in `trial.json` in its folder, beside the checkpoint: written when it starts, at evaluations, and when it
//! ends. A trial is found again by its configuration and its seed, not by its number or the name of its folder,
//! so a grid can grow without anything being trained twice. (A study database will take the place of these
//! files; nothing outside this module reads or writes them.)

use crate::{Cell, Params, StudyError};
use diapason_training::{Config, Reading, RunOutcome, RunState, SeedRule, files};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Name of the file with what is known of a trial, in its folder.
pub const TRIAL_FILE: &str = "trial.json";

/// The folder of a study's trials.
const TRIALS: &str = "trials";

/// How far a trial is, in Optuna's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TrialState {
    /// Begun and not finished: training now, or interrupted.
    Running,
    /// Finished.
    Complete,
    /// Ended by a comparison with others. (No pruner makes use of it yet.)
    Pruned,
    /// Ended without a result.
    Fail,
}

/// Why a trial has no result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialFailure {
    /// What happened, in one line.
    pub message: String,
    /// The update at which the loss was no longer a number. The same trial would diverge again: it is not
    /// repeated. None: another failure, which the next run tries again.
    pub diverged_at: Option<u64>,
    /// The last training loss that was a number, nats.
    pub last_finite_loss: Option<f64>,
}

/// What is known of a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialRecord {
    /// The cell, for readers of the file.
    pub params: Params,
    /// The seed.
    pub seed: u64,
    /// How far it is.
    pub state: TrialState,
    /// Updates done.
    pub steps: u64,
    /// Whether patience ended it.
    pub stopped_early: bool,
    /// The early reading; with the notebook's protocol, the evaluation that its early pass ended with.
    pub early: Option<Reading>,
    /// What the notebook's rule recorded; only with its protocol.
    pub seed_rule: Option<SeedRule>,
    /// The reading with the lowest validation loss.
    pub best: Option<Reading>,
    /// The last reading.
    pub last: Option<Reading>,
    /// Seconds in training steps.
    pub train_seconds: f64,
    /// Positions trained on per such second; none before the first step.
    pub tokens_per_second: Option<f64>,
    /// Threads that it ran on, mean over its time: they change when a neighbour ends.
    #[serde(default)]
    pub threads: Option<f64>,
    /// Trials at work while it ran, itself included, mean over its time.
    #[serde(default)]
    pub trials_at_once: Option<f64>,
    /// Number of parameters.
    pub parameters: u64,
    /// Positions in a step.
    pub tokens_per_step: u64,
    /// Floating-point operations of a step, by the field's usual count.
    pub flop_per_step: f64,
    /// Which arithmetic computed it.
    pub engine: String,
    /// Which other arithmetics computed earlier parts of it: the trial is then no function of its settings.
    pub other_engines: Vec<String>,
    /// Digest of the text.
    pub corpus_digest: String,
    /// Why there is no result.
    pub failure: Option<TrialFailure>,
    /// The complete configuration.
    pub config: Config,
}

impl TrialRecord {
    /// A trial that has not done a step.
    pub(crate) fn begun(
        cell: &Cell,
        seed: u64,
        vocabulary: usize,
        corpus_digest: &str,
    ) -> Result<Self, StudyError> {
        let config = &cell.config;
        let model = config.model(vocabulary)?;
        let tokens = config.batch_size * config.sequence_length;
        Ok(Self {
            params: cell.params.clone(),
            seed,
            state: TrialState::Running,
            steps: 0,
            stopped_early: false,
            early: None,
            seed_rule: None,
            best: None,
            last: None,
            train_seconds: 0.0,
            tokens_per_second: None,
            threads: None,
            trials_at_once: None,
            parameters: model.parameters() as u64,
            tokens_per_step: tokens as u64,
            flop_per_step: model.training_flop(tokens, config.sequence_length),
            engine: String::new(),
            other_engines: Vec::new(),
            corpus_digest: corpus_digest.to_string(),
            failure: None,
            config: config.clone(),
        })
    }

    /// Whether there is nothing left to do for a run of `steps` steps.
    pub(crate) fn is_finished(&self, steps: u64) -> bool {
        match self.state {
            TrialState::Complete => self.stopped_early || self.steps >= steps,
            TrialState::Pruned => true,
            TrialState::Fail => self.failure.as_ref().is_some_and(|failure| failure.diverged_at.is_some()),
            TrialState::Running => false,
        }
    }

    /// Takes in what a run came to.
    pub(crate) fn finish(&mut self, outcome: &RunOutcome) {
        self.steps = outcome.steps;
        self.best = outcome.best;
        self.last = outcome.last;
        self.train_seconds = outcome.train_seconds;
        self.tokens_per_second =
            Some(outcome.tokens_per_second).filter(|speed| speed.is_finite() && *speed > 0.0);
        self.seed_rule = outcome.seed_rule;
        self.early = match outcome.seed_rule {
            // The notebook writes nothing down here. We do, and say so.
            Some(SeedRule::Lost) => outcome.last,
            _ => outcome.early,
        };
        self.stopped_early = outcome.state == RunState::StoppedEarly;
        self.failure = None;
        self.state = match outcome.state {
            RunState::Complete | RunState::StoppedEarly => TrialState::Complete,
            RunState::Interrupted { .. } => TrialState::Running,
            RunState::Diverged { step, last_finite_loss } => {
                let last = match last_finite_loss {
                    Some(loss) => format!("the last finite loss was {loss:.4}"),
                    None => "no loss was finite".to_string(),
                };
                self.failure = Some(TrialFailure {
                    message: format!("diverged at step {step}: {last}"),
                    diverged_at: Some(step),
                    last_finite_loss,
                });
                TrialState::Fail
            }
        };
    }

    /// Takes in that a run could not go on.
    pub(crate) fn fail(&mut self, message: String) {
        self.state = TrialState::Fail;
        self.failure = Some(TrialFailure { message, diverged_at: None, last_finite_loss: None });
    }

    /// Writes `trial.json` into `folder`, atomically.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), StudyError> {
        let path = folder.join(TRIAL_FILE);
        files::write_atomically(&path, |out| {
            serde_json::to_writer_pretty(&mut *out, self)?;
            out.write_all(b"\n")
        })
        .map_err(|source| StudyError::Io { path, source })
    }
}

/// A place in a study: a cell, a seed, and the record if there is one.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Place in the enumeration: all cells with seed 0, then all with seed 1, and so on. More seeds leave the
    /// numbers of a study as they are.
    pub number: usize,
    /// Index of its cell.
    pub cell: usize,
    /// Its seed.
    pub seed: u64,
    /// Its folder, relative to the study's.
    pub folder: PathBuf,
    /// What is known of it; none before it starts.
    pub record: Option<TrialRecord>,
}

/// All trials of a study, in the order of their numbers, with what the folder knows of them.
pub(crate) fn trials(
    folder: &Path,
    cells: &[Cell],
    seeds: u64,
    steps_in_grid: bool,
    corpus_digest: &str,
) -> Result<Vec<Trial>, StudyError> {
    let mut known = BTreeMap::new();
    for (folder, record) in records(folder)? {
        if record.corpus_digest == corpus_digest {
            let key = (record.seed, trajectory(&record.config, steps_in_grid));
            known.entry(key).or_insert((folder, record));
        }
    }
    let trajectories: Vec<String> =
        cells.iter().map(|cell| trajectory(&cell.config, steps_in_grid)).collect();
    let mut trials = Vec::new();
    for seed in 0..seeds {
        for (index, (cell, trajectory)) in cells.iter().zip(&trajectories).enumerate() {
            let (folder, record) = match known.remove(&(seed, trajectory.clone())) {
                Some((folder, mut record)) => {
                    // The grid may have grown by a key since.
                    record.params = cell.params.clone();
                    (folder, Some(record))
                }
                None => {
                    let name = Path::new(TRIALS).join(cell.params.folder_name());
                    (name.join(format!("seed-{seed}")), None)
                }
            };
            trials.push(Trial { number: trials.len(), cell: index, seed, folder, record });
        }
    }
    Ok(trials)
}

/// What two configurations share exactly if they are the same trajectory, which may have been asked for with
/// different lengths.
fn trajectory(config: &Config, steps_in_grid: bool) -> String {
    let default = Config::default();
    let checkpoint_seconds = default.checkpoint_seconds;
    let steps = if steps_in_grid { config.steps } else { default.steps };
    Config { checkpoint_seconds, steps, ..config.clone() }.to_toml()
}

/// Every record under a study's folder, with the trial's folder relative to the study's, in the order of names.
fn records(folder: &Path) -> Result<Vec<(PathBuf, TrialRecord)>, StudyError> {
    let mut found = Vec::new();
    for cell in subfolders(folder, Path::new(TRIALS))? {
        for trial in subfolders(folder, &cell)? {
            let path = folder.join(&trial).join(TRIAL_FILE);
            let bytes = match std::fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(StudyError::Io { path, source }),
            };
            let record: TrialRecord = serde_json::from_slice(&bytes)
                .map_err(|error| StudyError::File { path, message: error.to_string() })?;
            found.push((trial, record));
        }
    }
    Ok(found)
}

/// Folders in `root/inside`, relative to `root`, sorted; none if that does not exist.
fn subfolders(root: &Path, inside: &Path) -> Result<Vec<PathBuf>, StudyError> {
    let path = root.join(inside);
    let failed = |source| StudyError::Io { path: path.clone(), source };
    let entries = match std::fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            folders.push(inside.join(entry.file_name()));
        }
    }
    folders.sort();
    Ok(folders)
}
