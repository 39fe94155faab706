//! Going through the trials of a study.
//!
//! Everything that can be refused is refused before the first step: other settings than the study began with,
//! impossible cells, too little memory for any one of them. After that a study does not give up: a trial that
//! diverges is recorded and the next one begins. A study that was killed is continued by the same call:
//! finished trials are left alone, the interrupted one goes on from its checkpoint.
//!
//! Trials run in the order of their numbers: every cell with the first seed, then every cell with the second, so
//! that a study that is cut short has compared all cells with fewer seeds, not some cells with all. No result
//! depends on the order.

use crate::{Cell, Params, Study, StudyError, StudySpec, TrialRecord, TrialState};
use diapason_corpus::Corpus;
use diapason_engine::{Engine, EngineError};
use diapason_model::ModelConfig;
use diapason_training::{
    Config, CurvePoint, Event, FolderLock, Protocol, Reading, RunSpec, create_folder, run,
};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Shortest time between two writings of a trial's record while it runs.
const RECORD_INTERVAL: Duration = Duration::from_secs(1);

/// An engine, or why there is none.
pub type MadeEngine = Result<Box<dyn Engine>, EngineError>;

/// How a study comes by engines.
pub struct Engines<'a> {
    /// Whether an engine for this configuration fits into the machine, without allocating one. Asked for every
    /// cell that has work left before the first trial starts.
    pub check: &'a dyn Fn(&ModelConfig, &Config) -> Result<(), EngineError>,
    /// An engine for this configuration. Its parameters are overwritten before the first step.
    pub make: &'a dyn Fn(ModelConfig, &Config) -> MadeEngine,
    /// Whether a trial that an engine of another arithmetic began may be gone on with; it is then marked.
    pub allow_other: bool,
}

/// What a trial still has to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Number of the trial.
    pub number: usize,
    /// Steps left, if nothing ends it early.
    pub steps: u64,
    /// Floating-point operations of these steps.
    pub flop: f64,
}

/// What a study tells while it goes on.
#[derive(Clone, Debug)]
pub enum StudyEvent<'a> {
    /// All checks are passed and training begins.
    Planned {
        /// Number of trials.
        trials: usize,
        /// Every trial that is not finished, in order.
        work: Vec<Work>,
    },
    /// A trial begins or goes on.
    TrialStarted {
        /// Its number.
        number: usize,
        /// Number of trials.
        trials: usize,
        /// Its cell.
        params: &'a Params,
        /// Its seed.
        seed: u64,
        /// Floating-point operations of one step.
        flop_per_step: f64,
    },
    /// Something happened inside the trial.
    Training {
        /// Its number.
        number: usize,
        /// What.
        event: &'a Event,
    },
    /// A trial has ended, or was interrupted: then its state is still running.
    TrialFinished {
        /// Its number.
        number: usize,
        /// What is known of it.
        record: &'a TrialRecord,
    },
}

/// Runs, or continues, the study in `folder`. Stops at the next step when `interrupt` becomes true; the study
/// that comes back then says so.
///
/// # Errors
/// Everything that keeps the study as a whole from starting or going on. Nothing has been written if it is a
/// setting that is refused.
pub fn run_study(
    corpus: &Corpus,
    spec: &StudySpec,
    folder: &Path,
    engines: &Engines<'_>,
    interrupt: &AtomicBool,
    observe: &mut dyn FnMut(&StudyEvent<'_>),
) -> Result<Study, StudyError> {
    // A folder that is there may hold a study, and another process may be at work on it.
    let lock = if folder.is_dir() { Some(FolderLock::acquire(folder)?) } else { None };
    let vocabulary = corpus.alphabet.len();
    let (spec, cells) = match StudySpec::read(folder)? {
        Some(stored) => spec.clone().continued(&stored, folder, vocabulary)?,
        None => spec.clone().completed(vocabulary)?,
    };
    let mut study = Study::assembled(folder, spec, cells)?;
    let work = study.work(vocabulary)?;
    let mut checked = vec![false; study.cells.len()];
    for Work { number, .. } in &work {
        let index = study.trials[*number].cell;
        let Cell { params, config } = &study.cells[index];
        if !std::mem::replace(&mut checked[index], true) {
            corpus
                .require(config.sequence_length)
                .map_err(|error| StudyError::Text { params: params.clone(), error: Box::new(error) })?;
            (engines.check)(&config.model(vocabulary)?, config)
                .map_err(|error| StudyError::Engine { params: params.clone(), error: Box::new(error) })?;
        }
    }

    create_folder(folder).map_err(|source| StudyError::Io { path: folder.to_path_buf(), source })?;
    let _lock = match lock {
        Some(lock) => lock,
        None => FolderLock::acquire(folder)?,
    };
    study.spec.write(folder)?;
    observe(&StudyEvent::Planned { trials: study.trials.len(), work: work.clone() });
    for Work { number, .. } in work {
        if interrupt.load(Ordering::Relaxed) {
            study.interrupted = true;
            break;
        }
        let record = run_trial(corpus, &study, number, folder, engines, interrupt, observe)?;
        observe(&StudyEvent::TrialFinished { number, record: &record });
        study.interrupted = record.state == TrialState::Running;
        study.trials[number].record = Some(record);
        if study.interrupted {
            break;
        }
    }
    Ok(study)
}

impl Study {
    /// Every trial that is not finished with what is left to do, in order, for a text of `vocabulary` symbols.
    ///
    /// # Errors
    /// A configuration that makes no model.
    pub fn work(&self, vocabulary: usize) -> Result<Vec<Work>, StudyError> {
        let mut work = Vec::new();
        for trial in &self.trials {
            let config = &self.cells[trial.cell].config;
            let done = match &trial.record {
                Some(record) if record.is_finished(config.steps) => continue,
                Some(record) => record.steps,
                None => 0,
            };
            let steps = config.steps.saturating_sub(done);
            let model = config.model(vocabulary)?;
            let per_step =
                model.training_flop(config.batch_size * config.sequence_length, config.sequence_length);
            work.push(Work { number: trial.number, steps, flop: steps as f64 * per_step });
        }
        Ok(work)
    }
}

fn run_trial(
    corpus: &Corpus,
    study: &Study,
    number: usize,
    folder: &Path,
    engines: &Engines<'_>,
    interrupt: &AtomicBool,
    observe: &mut dyn FnMut(&StudyEvent<'_>),
) -> Result<TrialRecord, StudyError> {
    let Study { spec, cells, trials, .. } = study;
    let trial = &trials[number];
    let (cell, seed) = (&cells[trial.cell], trial.seed);
    let trial_folder = folder.join(&trial.folder);
    let begun = TrialRecord::begun(cell, seed, corpus.alphabet.len(), &corpus.digest)?;
    // What is known of an interrupted trial stays until there is news of it.
    let mut record = TrialRecord {
        state: TrialState::Running,
        failure: None,
        config: cell.config.clone(),
        ..trial.record.clone().unwrap_or(begun)
    };
    observe(&StudyEvent::TrialStarted {
        number,
        trials: trials.len(),
        params: &cell.params,
        seed,
        flop_per_step: record.flop_per_step,
    });
    create_folder(&trial_folder).map_err(|source| StudyError::Io { path: trial_folder.clone(), source })?;
    record.write(&trial_folder)?;

    let mut engine = match (engines.make)(cell.config.model(corpus.alphabet.len())?, &cell.config) {
        Ok(engine) => engine,
        Err(error) => {
            record.fail(error.to_string());
            record.write(&trial_folder)?;
            return Ok(record);
        }
    };
    let id = engine.id().to_string();
    let before = std::mem::replace(&mut record.engine, id);
    if record.steps > 0 && before != record.engine && !record.other_engines.contains(&before) {
        record.other_engines.push(before);
    }
    let early_step = spec.early_step(&cell.config);
    let run_spec = RunSpec {
        protocol: spec.protocol,
        early_step,
        resume: true,
        allow_other_engine: engines.allow_other,
        ..RunSpec::new(cell.config.clone(), seed, &trial_folder)
    };
    let mut written = Instant::now();
    let mut failed_writing = None;
    let outcome = run(corpus, engine.as_mut(), &run_spec, interrupt, &mut |event| {
        if let Event::Evaluated(point) = event {
            let is_early = spec.protocol == Protocol::Standard && early_step == Some(point.step);
            record.take_in(point, is_early);
            if is_early || written.elapsed() >= RECORD_INTERVAL {
                written = Instant::now();
                // A disk that is full now is full for the next checkpoint too, which ends the run.
                failed_writing = record.write(&trial_folder).err();
            }
        }
        observe(&StudyEvent::Training { number, event });
    });
    match outcome {
        Ok(outcome) => record.finish(&outcome),
        // Not this trial's failure but something to be mended: without it the verdict would be about other cells.
        Err(error) => {
            let error = Box::new(error);
            return Err(StudyError::Trial { number, params: cell.params.clone(), seed, error });
        }
    }
    if let Some(error) = failed_writing {
        return Err(error);
    }
    record.write(&trial_folder)?;
    Ok(record)
}

impl TrialRecord {
    /// Takes in an evaluation while the trial runs.
    fn take_in(&mut self, point: &CurvePoint, is_early: bool) {
        let reading = Reading::from(point);
        self.steps = point.step;
        self.train_seconds = point.train_seconds;
        self.tokens_per_second = Some((point.step * self.tokens_per_step) as f64 / point.train_seconds)
            .filter(|speed| speed.is_finite());
        self.last = Some(reading);
        if self.best.is_none_or(|best| reading.validation_loss < best.validation_loss) {
            self.best = Some(reading);
        }
        if is_early {
            self.early = Some(reading);
        }
    }
}
