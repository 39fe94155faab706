//! Going through the trials of a study.
//!
//! Everything that can be refused is refused before the first step: other settings than the study began with,
//! impossible cells, too little memory for any one of them. Then the configurations' steps are timed
//! ([`crate::timings`]), which tells what each costs and whether trials run side by side or one at a time on all
//! threads ([`crate::pace`]), and workers take the trials ([`crate::crew`]). After that a study does not give up: a
//! trial that diverges is recorded and the next one begins. A study that was killed is continued by the same call:
//! finished trials are left alone, the interrupted ones go on from their checkpoints.
//!
//! Trials are taken in the order of their numbers: every cell with the first seed, then every cell with the second, so
//! that a study that is cut short has compared all cells with fewer seeds, not some cells with all. No result
//! depends on the order, on the number of trials at once, or on the threads.

use crate::crew::{self, News, Place};
use crate::pace::{Outlook, Pace, seconds_until_done};
use crate::timings::{Kind, Machine, Timings, measure, worthwhile};
use crate::{Cell, Params, Study, StudyError, StudySpec, TrialRecord, TrialState};
use diapason_corpus::Corpus;
use diapason_engine::{Engine, EngineError};
use diapason_model::ModelConfig;
use diapason_training::{
    Config, Control, CurvePoint, Event, FolderLock, Protocol, Reading, RunSpec, create_folder, run,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Shortest time between two writings of a trial's record while it runs.
const RECORD_INTERVAL: Duration = Duration::from_secs(1);

/// Shortest time between two estimates of the time left.
const ESTIMATE_INTERVAL: Duration = Duration::from_secs(1);

/// How much faster a window is evaluated than trained on: forward of forward and backward.
const EVALUATION_SPEED: f64 = 3.0;

/// An engine, or why there is none.
pub type MadeEngine = Result<Box<dyn Engine>, EngineError>;

/// How a study comes by engines.
#[derive(Clone, Copy)]
pub struct Engines<'a> {
    /// Bytes that an engine for this configuration allocates, on all the study's threads. Asked for every cell that
    /// has work left before the first trial starts.
    pub memory: &'a (dyn Fn(&ModelConfig, &Config) -> u128 + Sync),
    /// Bytes that there are; none where the system does not say.
    pub available: Option<u128>,
    /// An engine for this configuration on so many threads. Its parameters are overwritten before the first step.
    pub make: &'a (dyn Fn(ModelConfig, &Config, usize) -> MadeEngine + Sync),
    /// Whether a trial that an engine of another arithmetic began may be gone on with; it is then marked.
    pub allow_other: bool,
    /// How many trials run at once, each on its share of the threads; none: whatever ends the study soonest.
    pub trials_at_once: Option<usize>,
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

/// How the trials of a study run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Trials at work at the same time, as long as there are so many.
    pub trials_at_once: usize,
    /// Threads that they share.
    pub threads: usize,
    /// What each way of running them would take, by trials at once, ascending; empty if that was not measured.
    pub forecasts: Vec<Forecast>,
}

/// How long a study would take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// With so many trials at work at the same time.
    pub trials_at_once: usize,
    /// Seconds, evaluations included, if nothing ends a trial early.
    pub seconds: f64,
}

/// What a study tells while it goes on.
#[derive(Clone, Debug)]
pub enum StudyEvent<'a> {
    /// The configurations' steps are being timed.
    Timing {
        /// Turns done.
        done: usize,
        /// Turns in all, at least.
        of: usize,
    },
    /// All checks are passed and training begins.
    Planned {
        /// Number of trials.
        trials: usize,
        /// Every trial that is not finished, in order.
        work: &'a [Work],
        /// How they run.
        plan: &'a Plan,
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
    },
    /// Something happened inside a trial.
    Training {
        /// Its number.
        number: usize,
        /// What.
        event: &'a Event,
    },
    /// The whole study will take so long from now, if nothing ends a trial early; sent about once a second.
    TimeLeft {
        /// Seconds.
        seconds: f64,
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
/// setting that is refused. If a trial cannot go on (a disk is full, a checkpoint damaged), the others are stopped
/// with a checkpoint each.
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
    let ways = study.ways(&work, corpus, engines)?;

    create_folder(folder).map_err(|source| StudyError::Io { path: folder.to_path_buf(), source })?;
    let _lock = match lock {
        Some(lock) => lock,
        None => FolderLock::acquire(folder)?,
    };
    study.spec.write(folder)?;
    study.time(&work, &ways, corpus, folder, engines, interrupt, observe)?;
    if interrupt.load(Ordering::Relaxed) && !work.is_empty() {
        study.interrupted = true;
        return Ok(study);
    }
    let (plan, mut outlook) = study.plan(&work, &ways, engines, vocabulary)?;
    observe(&StudyEvent::Planned { trials: study.trials.len(), work: &work, plan: &plan });
    if work.is_empty() {
        return Ok(study);
    }

    let numbers: Vec<usize> = work.iter().map(|work| work.number).collect();
    let mut ended = Vec::new();
    let mut failed = None;
    let begun = Instant::now();
    let mut estimated = None;
    let train = |number, place: Place<'_>, tell: &mut dyn FnMut(&Event)| {
        run_trial(corpus, &study, number, folder, engines, place, tell)
    };
    crew::work(numbers, plan.trials_at_once, plan.threads, interrupt, &train, &mut |news| match news {
        News::Taken(number) => {
            let trial = &study.trials[number];
            let (trials, params) = (study.trials.len(), &study.cells[trial.cell].params);
            observe(&StudyEvent::TrialStarted { number, trials, params, seed: trial.seed });
        }
        News::Training(number, event) => {
            if let Event::Started { step, steps, .. } | Event::Step { step, steps, .. } = event {
                outlook.at(number, steps.saturating_sub(step) as f64);
            }
            if estimated.is_none_or(|at: Instant| at.elapsed() >= ESTIMATE_INTERVAL) {
                estimated = Some(Instant::now());
                if let Some(seconds) = outlook.left(begun.elapsed().as_secs_f64()) {
                    observe(&StudyEvent::TimeLeft { seconds });
                }
            }
            observe(&StudyEvent::Training { number, event: &event });
        }
        News::Left(number, result) => match *result {
            Ok(record) => {
                if record.state != TrialState::Running {
                    outlook.over(number);
                }
                observe(&StudyEvent::TrialFinished { number, record: &record });
                ended.push((number, record));
            }
            // What stopped the study is what is reported; a full disk stops more than one trial.
            Err(error) => failed = failed.take().or(Some(error)),
        },
    });
    if let Some(error) = failed {
        return Err(error);
    }
    for (number, record) in ended {
        study.trials[number].record = Some(record);
    }
    study.interrupted = work.iter().any(|work| !study.is_over(&study.trials[work.number]));
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
            let flop = steps as f64 * flop_per_step(config, vocabulary)?;
            work.push(Work { number: trial.number, steps, flop });
        }
        Ok(work)
    }

    /// The numbers of trials at once that come into question for `work`: those asked for, or 1, 2, 4, ... up to the
    /// number of threads, trials and engines that fit into memory.
    ///
    /// # Errors
    /// A cell that cannot be trained on this text or this machine; more trials at once than fit.
    fn ways(&self, work: &[Work], corpus: &Corpus, engines: &Engines<'_>) -> Result<Vec<usize>, StudyError> {
        let vocabulary = corpus.alphabet.len();
        let enough = |needed: u128| match engines.available {
            Some(available) if needed > available => {
                let gib = |bytes: u128| bytes as f64 / f64::from(1 << 30);
                Err(Box::new(EngineError::Memory { needed_gib: gib(needed), available_gib: gib(available) }))
            }
            _ => Ok(()),
        };
        let mut known = vec![None; self.cells.len()];
        let mut needed = Vec::new();
        for Work { number, .. } in work {
            let index = self.trials[*number].cell;
            let bytes = match known[index] {
                Some(bytes) => bytes,
                None => {
                    let Cell { params, config } = &self.cells[index];
                    corpus.require(config.sequence_length).map_err(|error| StudyError::Text {
                        params: params.clone(),
                        error: Box::new(error),
                    })?;
                    let bytes = (engines.memory)(&config.model(vocabulary)?, config);
                    enough(bytes).map_err(|error| StudyError::Engine { params: params.clone(), error })?;
                    *known[index].insert(bytes)
                }
            };
            needed.push(bytes);
        }
        needed.sort_unstable_by(|a, b| b.cmp(a));
        let trials = needed.len().max(1);
        if let Some(asked) = engines.trials_at_once {
            let at_once = asked.clamp(1, trials);
            enough(needed.iter().take(at_once).sum())
                .map_err(|error| StudyError::AtOnce { trials: at_once, error })?;
            return Ok(vec![at_once]);
        }
        let most = self.spec.threads.min(trials);
        let largest = needed.first().copied().unwrap_or(0);
        let mut ways: Vec<usize> =
            std::iter::successors(Some(1), |way| Some(2 * way)).take_while(|way| *way < most).collect();
        ways.push(most.max(1));
        ways.retain(|way| *way == 1 || enough(*way as u128 * largest).is_ok());
        Ok(ways)
    }

    /// Times the steps of all configurations, unless that is known or not worth its time.
    fn time(
        &mut self,
        work: &[Work],
        ways: &[usize],
        corpus: &Corpus,
        folder: &Path,
        engines: &Engines<'_>,
        interrupt: &AtomicBool,
        observe: &mut dyn FnMut(&StudyEvent<'_>),
    ) -> Result<(), StudyError> {
        let configs = || self.cells.iter().map(|cell| &cell.config);
        let threads = self.spec.threads;
        // One trial alone has nothing to compare; but if the others' times are known, its own is missing.
        let missing = self.timings.as_ref().is_some_and(|timings| !timings.cover(configs(), &[1]));
        if threads == 1 || work.is_empty() || (work.len() == 1 && !missing) {
            return Ok(());
        }
        let vocabulary = corpus.alphabet.len();
        let mut kinds: Vec<Kind<'_>> = Vec::new();
        let mut kind_of = Vec::new();
        let mut known = BTreeMap::new();
        for config in configs() {
            let kind = *known.entry(Timings::key(config)).or_insert(kinds.len());
            if kind == kinds.len() {
                let (model, flop) = (config.model(vocabulary)?, flop_per_step(config, vocabulary)?);
                kinds.push(Kind { config, model, flop, steps: 0.0 });
            }
            kind_of.push(kind);
        }
        for Work { number, steps, .. } in work {
            kinds[kind_of[self.trials[*number].cell]].steps += *steps as f64;
        }
        let ways = match engines.trials_at_once {
            // Nothing to choose, but the cost is to be known.
            Some(_) => worthwhile(&kinds, &[1]),
            None => worthwhile(&kinds, ways),
        };
        let known = self.timings_of_this_machine().is_some_and(|timings| timings.cover(configs(), &ways));
        let most = ways.last().copied().unwrap_or(0) as u128;
        let fit = |kind: &Kind<'_>| {
            engines.available.is_none_or(|there| most * (engines.memory)(&kind.model, kind.config) <= there)
        };
        if ways.is_empty() || known || !kinds.iter().all(fit) {
            return Ok(());
        }
        let mut tell = |done, of| observe(&StudyEvent::Timing { done, of });
        if let Some(timings) = measure(corpus, &kinds, &ways, threads, engines, interrupt, &mut tell) {
            timings.write(folder)?;
            self.timings = Some(timings);
        }
        Ok(())
    }

    /// What was measured on this machine with as many threads.
    fn timings_of_this_machine(&self) -> Option<&Timings> {
        let here =
            |timings: &&Timings| timings.threads == self.spec.threads && timings.machine == Machine::this();
        self.timings.as_ref().filter(here)
    }

    /// How the trials run, out of `ways`, and the time that is expected of them.
    fn plan(
        &self,
        work: &[Work],
        ways: &[usize],
        engines: &Engines<'_>,
        vocabulary: usize,
    ) -> Result<(Plan, Outlook), StudyError> {
        let of = |work: &Work| &self.cells[self.trials[work.number].cell].config;
        let timings =
            self.timings_of_this_machine().filter(|timings| timings.cover(work.iter().map(of), &[1]));
        let mut trials = Vec::new();
        for work in work {
            let config = of(work);
            let windows = self.spec.protocol.evaluated_windows_per_step(config);
            // A step and its share of the evaluations.
            let with_evaluations = 1.0 + windows / config.batch_size as f64 / EVALUATION_SPEED;
            let pace = match timings.and_then(|timings| timings.of(config)) {
                Some(timing) => Pace::measured(timing.points()),
                None => Pace::guessed(flop_per_step(config, vocabulary)?),
            };
            trials.push((work.number, work.steps as f64, pace.times(with_evaluations)));
        }
        let forecasts: Vec<Forecast> = ways
            .iter()
            .filter(|way| timings.is_some_and(|timings| timings.cover(work.iter().map(of), &[**way])))
            .map(|&way| Forecast {
                trials_at_once: way,
                seconds: seconds_until_done(trials.iter().map(|(_, steps, pace)| (*steps, pace)), way),
            })
            .collect();
        let most = ways.last().copied().unwrap_or(1);
        let soonest = forecasts.iter().min_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let trials_at_once = match soonest {
            // A choice needs two.
            Some(soonest) if forecasts.len() > 1 && engines.trials_at_once.is_none() => {
                soonest.trials_at_once
            }
            _ => most,
        };
        let outlook = Outlook::new(trials, trials_at_once, timings.is_some());
        Ok((Plan { trials_at_once, threads: self.spec.threads, forecasts }, outlook))
    }
}

/// Floating-point operations of a training step, by the field's usual count.
fn flop_per_step(config: &Config, vocabulary: usize) -> Result<f64, StudyError> {
    let tokens = config.batch_size * config.sequence_length;
    Ok(config.model(vocabulary)?.training_flop(tokens, config.sequence_length))
}

fn run_trial(
    corpus: &Corpus,
    study: &Study,
    number: usize,
    folder: &Path,
    engines: &Engines<'_>,
    place: Place<'_>,
    tell: &mut dyn FnMut(&Event),
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
    let mut company = Company::new(&record, place);
    company.note(&mut record);
    create_folder(&trial_folder).map_err(|source| StudyError::Io { path: trial_folder.clone(), source })?;
    record.write(&trial_folder)?;

    let threads = place.threads().load(Ordering::Relaxed);
    let mut engine = match (engines.make)(cell.config.model(corpus.alphabet.len())?, &cell.config, threads) {
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
    let control = Control { stop: &place.stop(), threads: Some(place.threads()) };
    let outcome = run(corpus, engine.as_mut(), &run_spec, &control, &mut |event| {
        company.note(&mut record);
        if let Event::Evaluated(point) = event {
            let is_early = spec.protocol == Protocol::Standard && early_step == Some(point.step);
            record.take_in(point, is_early);
            if is_early || written.elapsed() >= RECORD_INTERVAL {
                written = Instant::now();
                // A disk that is full now is full for the next checkpoint too, which ends the run.
                failed_writing = record.write(&trial_folder).err();
            }
        }
        tell(event);
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

/// Means over a trial's time of how many threads it had and how many trials were at work.
struct Company<'a> {
    place: Place<'a>,
    since: Instant,
    /// Seconds seen; before this process, those of training.
    seconds: f64,
    thread_seconds: f64,
    trial_seconds: f64,
}

impl<'a> Company<'a> {
    fn new(record: &TrialRecord, place: Place<'a>) -> Self {
        let seconds = if record.threads.is_some() { record.train_seconds } else { 0.0 };
        Self {
            place,
            since: Instant::now(),
            seconds,
            thread_seconds: seconds * record.threads.unwrap_or(0.0),
            trial_seconds: seconds * record.trials_at_once.unwrap_or(0.0),
        }
    }

    /// Takes in the time that has gone by since it was last called.
    fn note(&mut self, record: &mut TrialRecord) {
        let seconds = self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
        self.seconds += seconds;
        self.thread_seconds += seconds * self.place.threads().load(Ordering::Relaxed) as f64;
        self.trial_seconds += seconds * self.place.at_once() as f64;
        let mean =
            |sum: f64| Some((100.0 * sum / self.seconds).round() / 100.0).filter(|mean| mean.is_finite());
        record.threads = mean(self.thread_seconds);
        record.trials_at_once = mean(self.trial_seconds);
    }
}
