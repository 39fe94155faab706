//! A worker: how a process comes by a trial, trains it, and brings it to its end.
//!
//! Trials are claimed from the study's database, one winner each, by any number of processes ([`diapason_storage`] has
//! the rules). While a trial is trained its lease is kept alive by the courier's thread, and what there is to say goes
//! out with it, so that no step waits for the database. A worker that has lost its trial to another stops, and
//! leaves the trial's files as they are: before each checkpoint it looks whether the lease is certain, and before its
//! last one it asks.

use crate::crew::{Left, Next, Place};
use crate::director::advance;
use crate::home::spec_of;
use crate::run::left_alone;
use crate::rungs::Ladders;
use crate::trial::{PRUNE_REASON, SPANS, bracket, recognise, record};
use crate::{Cell, Rule, Study, StudyError, StudySpec, TrialRecord, TrialState};
use diapason_corpus::Corpus;
use diapason_engine::{Engine, EngineError};
use diapason_model::ModelConfig;
use diapason_storage::{
    Claim, Claimed, Courier, Held, How, ItemCounts, ItemState, Outcome, Policy, Record, StorageError,
    StudyId, Worker, printable,
};
use diapason_training::{
    CHECKPOINT, Config, Control, CurvePoint, Event, Occasion, Protocol, Reading, RunOutcome, RunSpec,
    create_folder, run,
};
use serde_json::{Map, Value as Json};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Shortest time between two accounts of a trial's attributes while it runs.
const ACCOUNT_INTERVAL: Duration = Duration::from_secs(1);

/// An engine, or why there is none.
pub type MadeEngine = Result<Box<dyn Engine>, EngineError>;

/// What a process has to work with, and how it works.
#[derive(Clone)]
pub struct Engines<'a> {
    /// Bytes that an engine for this configuration allocates, on all threads. Asked for every cell that has work left
    /// before the first trial starts.
    pub memory: &'a (dyn Fn(&ModelConfig, &Config) -> u128 + Sync),
    /// Bytes that there are; none where the system does not say.
    pub available: Option<u128>,
    /// The arithmetic of the engines.
    pub id: String,
    /// An engine for this configuration on so many threads. Its parameters are overwritten before the first step.
    pub make: &'a (dyn Fn(ModelConfig, &Config, usize) -> MadeEngine + Sync),
    /// Whether a trial that an engine of another arithmetic began may be gone on with; it is then marked.
    pub allow_other: bool,
    /// Threads in all. They change no result.
    pub threads: usize,
    /// How many trials run at once, each on its share of the threads; none: whatever ends the study soonest.
    pub trials_at_once: Option<usize>,
    /// How long this process may be silent before its trials are given to another.
    pub lease: Duration,
    /// Whether to wait for trials that others have, which they may leave: else the process is done when there is
    /// nothing to claim.
    pub wait: bool,
}

/// A trial that this process has.
pub(crate) struct Task {
    /// Its number in the study.
    pub(crate) number: usize,
    pub(crate) cell: Cell,
    pub(crate) seed: u64,
    /// Its folder, relative to the study's.
    folder: PathBuf,
    /// The study's, when it was claimed.
    spec: StudySpec,
    /// The step to which it is to be trained now.
    pub(crate) until: u64,
    /// Steps that are expected of it after that, on average.
    pub(crate) later: f64,
    /// The rung that it is then at; none: its end.
    rung: Option<u32>,
    claim: Claim,
    held: Held,
}

/// Where the workers of a process work.
pub(crate) struct Site<'a> {
    corpus: &'a Corpus,
    study: &'a Study,
    /// Places of the trials, by the keys of their work items.
    places: HashMap<String, usize>,
    folder: &'a Path,
    engines: &'a Engines<'a>,
    pub(crate) courier: Courier,
    id: StudyId,
    worker: Worker,
    policy: Policy,
    /// The study as it was when something was claimed that `study` does not have.
    newest: Mutex<Option<Study>>,
    /// What there is to say that is about no trial.
    notes: Mutex<Vec<String>>,
    /// What is expected of trials since rungs were last looked at.
    ahead: Mutex<Vec<(usize, f64)>>,
    /// Trials whose files are damaged. Held until the others are done, so that nobody claims them meanwhile: a study never decides
    /// without them.
    aside: Mutex<Vec<Held>>,
    /// Whether the study has trials by now that it did not have: everybody leaves, and begins anew with all of them.
    grown: AtomicBool,
}

impl<'a> Site<'a> {
    pub(crate) fn new(
        corpus: &'a Corpus,
        study: &'a Study,
        id: StudyId,
        folder: &'a Path,
        engines: &'a Engines<'a>,
        courier: Courier,
        policy: Policy,
    ) -> Self {
        let place = |trial: &crate::Trial| Some((trial.stored.as_ref()?.key.clone(), trial.number));
        let places = study.trials.iter().filter_map(place).collect();
        let mut worker = Worker::this_process(engines.id.clone());
        worker.allow_other_engine = engines.allow_other;
        Self {
            corpus,
            study,
            places,
            folder,
            engines,
            courier,
            id,
            worker,
            policy,
            newest: Mutex::default(),
            notes: Mutex::default(),
            ahead: Mutex::default(),
            aside: Mutex::default(),
            grown: AtomicBool::new(false),
        }
    }

    /// Whether there are more trials than the study had when work on it began.
    pub(crate) fn has_grown(&self) -> bool {
        self.grown.load(Ordering::Relaxed)
    }

    /// Steps that are expected of trials by now, by number, if that has changed.
    pub(crate) fn ahead(&self) -> Vec<(usize, f64)> {
        std::mem::take(&mut self.ahead.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets those go that were put aside.
    pub(crate) fn release_aside(&self) {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What there is to say that is about no trial, once.
    pub(crate) fn notes(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The next trial for one of this process's workers. Everything that decides who trains what is behind this.
    pub(crate) fn take(&self) -> Result<Next, StudyError> {
        let asynchronous = self.study.spec.rule.rungs().is_some_and(|rungs| rungs.asynchronous);
        loop {
            if self.has_grown() {
                return Ok(Next::Nothing);
            }
            if asynchronous {
                self.advance()?;
            }
            let (id, worker, policy) = (self.id, self.worker.clone(), self.policy);
            let claimed = self.courier.call(move |storage| {
                let claimed = storage.claim(id, &worker, &policy)?;
                let spec = if matches!(claimed, Claimed::Work(_)) { spec_of(storage, id) } else { Ok(None) };
                Ok((claimed, spec))
            });
            let (claimed, spec) = match claimed {
                Err(StorageError::Interrupted { .. }) => return Ok(Next::Nothing),
                claimed => claimed?,
            };
            let (counts, other_engine) = match claimed {
                Claimed::Work(claim) => match self.task(*claim, spec?)? {
                    Some(task) => return Ok(Next::Trial(Box::new(task))),
                    None => continue,
                },
                Claimed::Nothing { counts, other_engine } => (counts, other_engine),
            };
            if self.adopt()? > 0 || self.advance()? {
                continue;
            }
            if !counts.is_unfinished() && self.study.spec.has_rounds() {
                // Another may have made a round between the two looks.
                match self.courier.call(move |storage| storage.item_counts(id)) {
                    Err(StorageError::Interrupted { .. }) => return Ok(Next::Nothing),
                    now if now.as_ref().is_ok_and(ItemCounts::is_unfinished) => continue,
                    now => now?,
                };
            }
            let aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
            let held = counts.of(ItemState::Held).saturating_sub(aside);
            return match () {
                () if other_engine > 0 && held <= other_engine => {
                    Err(StudyError::OtherEngine { trials: other_engine, engine: self.worker.engine.clone() })
                }
                // What is left waits for those that are damaged.
                () if aside > 0 && held == 0 => Ok(Next::Nothing),
                () if counts.is_unfinished() && self.engines.wait => Ok(Next::Wait(held)),
                () => Ok(Next::Nothing),
            };
        }
    }

    /// Decides what waits at rungs, if it can be decided; whether there may be something to claim now.
    fn advance(&self) -> Result<bool, StudyError> {
        let spec = &self.study.spec;
        if !spec.has_rounds() {
            return Ok(false);
        }
        let (id, vocabulary, folder) = (self.id, self.corpus.alphabet.len(), self.folder.to_path_buf());
        let spec = spec.clone();
        let advanced =
            match self.courier.call(move |storage| Ok(advance(storage, id, &spec, vocabulary, &folder)))? {
                Err(StudyError::Storage(StorageError::Interrupted { .. })) => return Ok(false),
                advanced => advanced?,
            };
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).extend(advanced.notes);
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = advanced.ahead;
        self.grown.fetch_or(advanced.grown, Ordering::Relaxed);
        Ok(advanced.changed)
    }

    /// Makes work of the trials that other programs enqueued since; how many.
    fn adopt(&self) -> Result<usize, StudyError> {
        let (id, spec, vocabulary) = (self.id, self.study.spec.clone(), self.corpus.alphabet.len());
        let adopted = self
            .courier
            .call(move |storage| storage.adopt(id, |waiting| recognise(waiting, &spec, vocabulary)))?;
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).extend(left_alone(adopted.known));
        Ok(adopted.added)
    }

    /// What a claimed item is; none if it was nothing of this study, and has been ended. `spec` is the study's as it is
    /// now: somebody may have given it more steps.
    fn task(&self, claim: Claim, spec: Option<StudySpec>) -> Result<Option<Task>, StudyError> {
        let mut held = self.courier.hold(claim.lease.clone());
        let spec = spec.unwrap_or_else(|| self.study.spec.clone());
        let known = self.places.get(claim.lease.key()).copied();
        let trial = match known.filter(|_| spec == self.study.spec) {
            Some(place) => Some(of(self.study, place)),
            None => self.newest(spec.clone(), claim.lease.key())?,
        };
        let Some(Found { number, cell, seed, folder }) = trial else {
            let reason = "another trial of the study is the same".to_string();
            return match held.finish(Record::new(), Outcome::Failed { reason, retry: false }) {
                Ok(_) | Err(StorageError::LeaseLost { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            };
        };
        let (mut until, mut rung, mut later) = (cell.config.steps, None, 0.0);
        if let Some((ladders, bracket)) = Ladders::of(&spec).zip(bracket(&claim.trial.system_attributes))
            && let Some((next, step)) = ladders.next(bracket, claim.rung)
        {
            (until, rung) = (step, Some(next));
            let here = known.and_then(|place| self.study.ahead(&self.study.trials[place]));
            later = here.map_or(0.0, |ahead| (ahead - step.saturating_sub(claim.step) as f64).max(0.0));
        }
        Ok(Some(Task { number, cell, seed, folder, spec, until, later, rung, claim, held }))
    }

    /// The trial of that item in the study as it is now.
    fn newest(&self, spec: StudySpec, key: &str) -> Result<Option<Found>, StudyError> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let find = |study: &Study| {
            let has_key =
                |trial: &crate::Trial| trial.stored.as_ref().is_some_and(|stored| stored.key == key);
            Some(of(study, study.trials.iter().position(has_key)?))
        };
        let found = newest.as_ref().filter(|study| study.spec == spec).and_then(find);
        if found.is_some() {
            return Ok(found);
        }
        let (id, vocabulary, folder) = (self.id, self.corpus.alphabet.len(), self.folder.to_path_buf());
        let study =
            self.courier.call(move |storage| Ok(Study::load(storage, id, spec, vocabulary, &folder)))??;
        Ok(find(newest.insert(study)))
    }

    /// Trains a trial; what came of it, or nothing if somebody else has it by now.
    pub(crate) fn train(
        &self,
        task: Task,
        place: Place<'_>,
        tell: &mut dyn FnMut(&Event),
    ) -> Result<Option<Left>, StudyError> {
        let Task { number, cell, seed, folder, spec, until, rung, claim, mut held, .. } = task;
        let folder = self.folder.join(folder);
        let vocabulary = self.corpus.alphabet.len();
        let mut known = record(
            (&claim.trial.user_attributes, claim.trial.system_attributes.get(SPANS)),
            &cell,
            ItemState::Held,
            claim.trial.number,
        )?;
        let has_checkpoint = folder.join(CHECKPOINT).exists();
        if !has_checkpoint && (claim.step > 0 || known.is_some()) {
            let lease = claim.lease.clone();
            match self.courier.call(move |storage| storage.restart(&lease)) {
                Err(StorageError::LeaseLost { .. }) => return Ok(None),
                done => done?,
            }
            known = None;
        }
        if let Some(text) = how_it_came(&claim, has_checkpoint, &folder) {
            tell(&Event::Note(text));
        }
        let begun = TrialRecord::begun(&cell, seed, vocabulary, &self.corpus.digest)?;
        // What is known of an interrupted trial stays until there is news of it.
        let mut record = TrialRecord {
            state: TrialState::Running,
            failure: None,
            config: cell.config.clone(),
            ..known.unwrap_or(begun)
        };
        let before = std::mem::replace(&mut record.engine, self.engines.id.clone());
        if record.steps > 0 && before != record.engine && !record.other_engines.contains(&before) {
            record.other_engines.push(before);
        }
        let mut company = Company::new(&record, place);
        company.note(&mut record);
        let mut account =
            Account { said: claim.trial.user_attributes.clone(), spans: Vec::new(), at: Instant::now() };
        held.tell(account.of(&record))?;

        create_folder(&folder).map_err(|source| StudyError::Io { path: folder.clone(), source })?;
        let threads = place.threads().load(Ordering::Relaxed);
        let mut engine = match (self.engines.make)(cell.config.model(vocabulary)?, &cell.config, threads) {
            Ok(engine) => engine,
            Err(error) => {
                record.fail(error.to_string());
                let outcome = Outcome::Failed { reason: error.to_string(), retry: true };
                return ended(held.finish(account.of(&record), outcome).map(drop), record);
            }
        };
        let early_step = spec.early_step(&cell.config);
        let run_spec = RunSpec {
            protocol: spec.protocol,
            early_step,
            resume: true,
            allow_other_engine: self.engines.allow_other,
            ..RunSpec::new(cell.config.clone(), seed, &folder)
        };
        let lost = held.lost();
        let [interrupt, failed] = place.stop();
        let stop = [interrupt, failed, &*lost];
        let fence = |occasion| match occasion {
            Occasion::Passing => held.is_certain(),
            Occasion::Best => !held.is_lost(),
            // A database that cannot be reached for so long is no reason to lose what was trained.
            Occasion::Last => !matches!(held.confirm(), Err(StorageError::LeaseLost { .. })),
        };
        // Why a comparison ends the trial on the way.
        let behind = RefCell::new(None);
        let ends = |curve: &[CurvePoint]| {
            let why = self.falls_behind(&spec, cell.config.steps, curve);
            let ends = why.is_some();
            *behind.borrow_mut() = why;
            ends
        };
        let control = Control {
            stop: &stop,
            ends: Some(&ends),
            threads: Some(place.threads()),
            until: rung.map(|_| until),
            fence: Some(&fence),
        };
        let mut observe = |event: &Event| {
            company.note(&mut record);
            let news = match event {
                Event::Spans(reading) => {
                    record.spans.retain(|there| there.step < reading.step);
                    record.spans.push(reading.clone());
                    None
                }
                Event::Evaluated(point) => {
                    let is_early = spec.protocol == Protocol::Standard && early_step == Some(point.step);
                    record.take_in(point, is_early);
                    let words =
                        if is_early || account.is_due() { account.of(&record) } else { Record::new() };
                    Some(words.value(point.step, point.validation_loss))
                }
                Event::Checkpoint { step } => Some(Record::new().safe_step(*step)),
                _ => None,
            };
            if let Some(news) = news {
                // Steps and attributes of a record are always such that the database has room for them.
                _ = held.tell(news);
            }
            tell(event);
        };
        let outcome = run(self.corpus, engine.as_mut(), &run_spec, &control, &mut observe);
        drop(engine);
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(_) if held.is_lost() => return Ok(None),
            // Not this trial's failure but something to be mended: without it the verdict would be about other cells.
            Err(error) => {
                let (params, folder) = (cell.params.clone(), folder.into_boxed_path());
                let error = StudyError::Trial { number, params, seed, folder, error: Box::new(error) };
                if error.is_of_one_trial() {
                    self.aside.lock().unwrap_or_else(PoisonError::into_inner).push(held);
                } else {
                    _ = held.release(Record::new());
                }
                return Err(error);
            }
        };
        record.finish(&outcome);
        if held.is_lost() {
            return Ok(None);
        }
        let words = every_value(account.of(&record), &outcome);
        if let (TrialState::Running, Some(why)) = (record.state, behind.take()) {
            record.state = TrialState::Pruned;
            let words = words.attribute(PRUNE_REASON, why).safe_step(outcome.steps);
            return ended(held.finish(words, Outcome::Pruned).map(drop), record);
        }
        match (&record.state, &record.failure) {
            (TrialState::Complete, _) => {
                let reading = match spec.protocol {
                    Protocol::AsSeed => record.last,
                    Protocol::Standard => record.best,
                };
                let value = reading.map_or(f64::NAN, |reading| reading.validation_loss);
                ended(held.finish(words, Outcome::Complete(value)).map(drop), record)
            }
            (TrialState::Fail, failure) => {
                let reason = failure.as_ref().map_or("failed".to_string(), |failure| failure.message.clone());
                ended(held.finish(words, Outcome::Failed { reason, retry: false }).map(drop), record)
            }
            (TrialState::Running | TrialState::Pruned, _) => {
                // Interrupted in the very evaluation that was to be compared, it has to be gone on with.
                let read = outcome.curve.iter().any(|point| point.step == until);
                if let Some(rung) = rung.filter(|_| read) {
                    return match held.park(words.safe_step(outcome.steps), rung) {
                        Ok(()) => Ok(Some(Left { record, waits: true })),
                        Err(StorageError::LeaseLost { .. }) => Ok(None),
                        // Whoever goes on with it has nothing to train, and leaves it here.
                        Err(_) => Ok(Some(Left { record, waits: false })),
                    };
                }
                match held.release(words.safe_step(outcome.steps)) {
                    Err(StorageError::LeaseLost { .. }) => Ok(None),
                    // The checkpoint is safe: whoever comes next finds this process gone, and goes on from there.
                    Ok(()) | Err(_) => Ok(Some(Left { record, waits: false })),
                }
            }
        }
    }
}

impl Site<'_> {
    /// Why the median rule ends a trial after the last evaluation of `curve`.
    fn falls_behind(&self, spec: &StudySpec, steps: u64, curve: &[CurvePoint]) -> Option<String> {
        let (Rule::Median(median), Some(last)) = (spec.rule, curve.last()) else { return None };
        let (id, step) = (self.id, last.step);
        // A database that is away is no reason to end anything.
        let (complete, others) =
            self.courier.call(move |storage| storage.complete_values_at(id, step)).ok()?;
        let best = curve.iter().map(|point| point.validation_loss).fold(f64::INFINITY, f64::min);
        median.falls_behind((step, steps), best, complete, &others)
    }
}

/// A trial of a study.
struct Found {
    number: usize,
    cell: Cell,
    seed: u64,
    folder: PathBuf,
}

/// The trial at that place.
fn of(study: &Study, place: usize) -> Found {
    let trial = &study.trials[place];
    let (cell, folder) = (study.cells[trial.cell].clone(), trial.folder.clone());
    Found { number: trial.number, cell, seed: trial.seed, folder }
}

/// What came of a trial's last word.
fn ended(done: Result<(), StorageError>, mut record: TrialRecord) -> Result<Option<Left>, StudyError> {
    match done {
        Ok(()) => Ok(Some(Left { record, waits: false })),
        Err(StorageError::LeaseLost { .. }) => Ok(None),
        // The database is away, and nobody wants to wait for it: its checkpoint will say the same once more.
        Err(StorageError::Interrupted { .. }) => {
            record.state = TrialState::Running;
            Ok(Some(Left { record, waits: false }))
        }
        Err(error) => Err(error.into()),
    }
}

/// What to say of a trial that was not simply begun.
fn how_it_came(claim: &Claim, has_checkpoint: bool, folder: &Path) -> Option<String> {
    let from = match (has_checkpoint, claim.step) {
        (true, _) => "it goes on from its last checkpoint".to_string(),
        (false, 0) => "it begins at step 0".to_string(),
        (false, step) => {
            format!("its checkpoint of step {step} is not in {}: it begins again at step 0", folder.display())
        }
    };
    match &claim.how {
        How::TakenOver { owner, dead } => {
            let why = if *dead { "whose process is gone" } else { "which has fallen silent" };
            Some(format!("taken over from {}, {why}: {from}", printable(owner)))
        }
        How::New | How::Continued if !has_checkpoint && claim.step > 0 => Some(from),
        How::New | How::Continued => None,
    }
}

/// All evaluations: some may have been made just before a worker was killed, who did not come to tell.
fn every_value(words: Record, outcome: &RunOutcome) -> Record {
    outcome.curve.iter().fold(words, |words, point| words.value(point.step, point.validation_loss))
}

/// What the database has been told of a trial.
struct Account {
    said: Map<String, Json>,
    /// Steps whose losses per span it has been told.
    spans: Vec<u64>,
    at: Instant,
}

impl Account {
    fn is_due(&self) -> bool {
        self.at.elapsed() >= ACCOUNT_INTERVAL
    }

    /// What is new.
    fn of(&mut self, record: &TrialRecord) -> Record {
        self.at = Instant::now();
        let mut words = Record::new();
        for (key, value) in record.attributes() {
            let before = self.said.get(&key);
            if before != Some(&value) && !(before.is_none() && value.is_null()) {
                words = words.attribute(key.clone(), value.clone());
                self.said.insert(key, value);
            }
        }
        let spans: Vec<u64> = record.spans.iter().map(|reading| reading.step).collect();
        if spans != self.spans
            && let Ok(value) = serde_json::to_value(&record.spans)
        {
            words = words.system_attribute(SPANS, value);
            self.spans = spans;
        }
        words
    }
}

impl TrialRecord {
    /// Takes in an evaluation while the trial runs.
    fn take_in(&mut self, point: &CurvePoint, is_early: bool) {
        let reading = Reading::from(point);
        self.steps = point.step;
        self.train_seconds = point.train_seconds;
        self.tokens_per_second =
            Some(self.config.characters(point.step) / point.train_seconds).filter(|speed| speed.is_finite());
        self.last = Some(reading);
        if self.best.is_none_or(|best| reading.validation_loss < best.validation_loss) {
            self.best = Some(reading);
        }
        if is_early {
            self.early = Some(reading);
        }
        let steps = [self.early, self.best, self.last].map(|reading| reading.map(|reading| reading.step));
        self.spans.retain(|reading| steps.contains(&Some(reading.step)));
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
