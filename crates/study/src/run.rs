//! Going through the trials of a study.
//!
//! Everything that can be refused is refused before the first step: other settings than the study began with,
//! impossible cells, too little memory for any one of them. Then the configurations' steps are timed
//! ([`crate::timings`]), which tells what each costs and whether trials run side by side or one at a time on all
//! threads ([`crate::pace`]), and workers claim the trials ([`crate::crew`], [`crate::worker`]). After that a study
//! does not give up: a trial that diverges is recorded and the next one begins. A study that was killed is continued by
//! the same call: finished trials are left alone, the interrupted ones go on from their checkpoints. Any number of
//! processes may work on a study at once.
//!
//! Trials are claimed in the order of their numbers: every cell with the first seed, then every cell with the second, so
//! that a study that is cut short has compared all cells with fewer seeds, not some cells with all. No result
//! depends on the order, on the number of trials at once, or on the threads.

use crate::budget;
use crate::crew::{self, Left, News};
use crate::director::{self, advance};
use crate::home::{self, Found, SPEC, spec_of};
use crate::pace::{Outlook, Pace, seconds_until_done};
use crate::timings::{Benches, Kind, Machine, TURNS, Timings, measure, worthwhile};
use crate::trial::{StoredTrial, recognise};
use crate::worker::Site;
use crate::{
    Cell, Engines, Home, Params, Study, StudyError, StudySpec, Trial, TrialRecord, TrialState, Until,
};
use diapason_corpus::Corpus;
use diapason_engine::EngineError;
use diapason_storage::{
    Attributes, Courier, Direction, ItemId, ItemState, NewTrial, Opening, Policy, Storage, StorageError,
    StudyId,
};
use diapason_training::{Config, Event, create_folder};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a database that cannot be reached is waited for: long enough for a server to be restarted.
const PATIENCE: Duration = Duration::from_secs(600);

/// Shortest time between two warnings that it cannot be reached.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Shortest time between two estimates of the time left.
const ESTIMATE_INTERVAL: Duration = Duration::from_secs(1);

/// How much faster a character is evaluated than trained on: forward of forward and backward.
const EVALUATION_SPEED: f64 = 3.0;

/// What a trial still has to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Number of the trial.
    pub number: usize,
    /// Steps left, if patience does not end it. Of a trial that is compared at rungs: on average, if each rung keeps as
    /// many as it may.
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
    /// All checks are passed. Sent once, before the first engine is made; not if there is nothing to train.
    Memory {
        /// Bytes that the engines will take at their most.
        engines: u128,
    },
    /// The configurations' steps are being timed.
    Timing {
        /// Turns done.
        done: usize,
        /// Turns in all, at least.
        of: usize,
    },
    /// Training begins.
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
        /// What is known of it; none if somebody else has it by now.
        record: Option<&'a TrialRecord>,
    },
    /// A trial cannot go on, because its files are damaged. The others are trained first.
    TrialPutAside {
        /// Its number.
        number: usize,
        /// Why.
        error: &'a StudyError,
    },
    /// A trial was read at a rung, and waits there for a decision.
    TrialWaits {
        /// Its number.
        number: usize,
        /// What is known of it.
        record: &'a TrialRecord,
    },
    /// Rungs were looked at: so many trials are over by now.
    Over {
        /// How many.
        trials: usize,
    },
    /// There is nothing to do for now: what is left is with other workers.
    Waiting {
        /// How many trials they have.
        others: u64,
    },
    /// Something the user should know.
    Note {
        /// What.
        text: String,
    },
}

/// Begins, or continues, the study at `home`, and works on it until it is finished. Stops at the next step when
/// `interrupt` becomes true; the study that comes back then says so.
///
/// # Errors
/// Everything that keeps the study as a whole from starting or going on. Nothing has been written if it is a
/// setting that is refused. If a trial cannot go on because a disk is full, the others are stopped with a checkpoint each; if its own
/// files are damaged, they are trained as far as they can be without it first.
pub fn run_study(
    corpus: &Corpus,
    spec: &StudySpec,
    home: &Home,
    engines: &Engines<'_>,
    interrupt: &AtomicBool,
    observe: &mut dyn FnMut(&StudyEvent<'_>),
) -> Result<Study, StudyError> {
    let vocabulary = corpus.alphabet.len();
    // The engines that timing took, if a budget of time had it done before the study began.
    let mut told = false;
    let (study, mut storage, id) = loop {
        // Refused before anything is written.
        let found = home.find(Opening::Read)?;
        let begun_with = home.begun_with(found.as_ref())?;
        let (mut spec, cells) = match &begun_with {
            Some(before) => spec.clone().continued(before, &home.folder, vocabulary)?,
            None => spec.clone().completed(vocabulary)?,
        };
        let mut study = match found {
            Some(Found { mut storage, id, name, .. }) => {
                spec.name = name;
                Study::load(&mut storage, id, spec, vocabulary, &home.folder)?
            }
            None => {
                spec.name = home.name.clone().unwrap_or(spec.name);
                Study::new(spec, cells, &home.folder, vocabulary)?
            }
        };
        // Studies in one database that shared a folder would take one another's checkpoints for their own. (A copy that
        // cannot be read says nothing, and is written anew.)
        if let Ok(Some(there)) = StudySpec::read(&home.folder)
            && there.name != study.spec.name
        {
            return Err(StudyError::OtherStudy { folder: home.folder.clone(), name: there.name });
        }
        let (ways, needed) = study.ways(&study.work(vocabulary)?, corpus, engines)?;
        let mut timings = None;
        if let Some(budget) = study.spec.budget.filter(|_| study.spec.is_to_be_timed()) {
            if !told {
                let way = ways.last().copied().unwrap_or(1);
                let benches = Benches::of(&study.kinds(vocabulary)?.0, &ways, engines).bytes;
                observe(&StudyEvent::Memory { engines: most_at_once(&needed, way).max(benches) });
                told = true;
            }
            let mut tell = |done, of| observe(&StudyEvent::Timing { done, of });
            let Some(timed) = study.time_kinds(budget, &ways, corpus, engines, interrupt, &mut tell)? else {
                study.interrupted = true;
                return Ok(study);
            };
            if let Some(text) = budget::disturbed(&timed) {
                observe(&StudyEvent::Note { text });
            }
            let spec = StudySpec { ms_per_step: budget::times(&timed), ..study.spec };
            let (spec, cells) = spec.completed(vocabulary)?;
            study = Study::new(spec, cells, &home.folder, vocabulary)?;
            timings = Some(timed);
        }

        create_folder(&home.folder).map_err(|source| StudyError::Io { path: home.folder.clone(), source })?;
        let mut storage = home.open(Opening::Create)?;
        let attribute = home::attribute(&study.spec)?;
        let attributes = [
            (Attributes::User, SPEC.to_string(), attribute.clone()),
            // What Optuna's plots and dashboards write at the axis.
            (Attributes::System, "study:metric_names".to_string(), serde_json::json!(["validation_loss"])),
        ];
        let id = storage.create_study(&study.spec.name, Direction::Minimize, &attributes)?;
        let there = spec_of(&mut storage, id)?;
        // Another process may have begun the same study at the same moment, with other settings.
        if there.is_some() && there != begun_with && there.as_ref() != Some(&study.spec) {
            continue;
        }
        if there.as_ref() != Some(&study.spec) {
            storage.set_study_attributes(id, Attributes::User, &[(SPEC.to_string(), attribute)])?;
        }
        study.spec.write(&home.folder)?;
        if let Some(timings) = timings {
            // The study's costs go by the times that its steps come of.
            timings.write(&mut storage, id)?;
        }
        study.enqueue(&mut storage, id)?;
        study.reopen(&mut storage, id)?;
        break (study, storage, id);
    };
    let spec = study.spec.clone();
    adopt(&mut storage, id, &spec, vocabulary, observe)?;
    let study = Study::load(&mut storage, id, spec, vocabulary, &home.folder)?;
    let mut once = |event: &StudyEvent<'_>| {
        let said = told && matches!(event, StudyEvent::Memory { .. });
        told &= !said;
        if !said {
            observe(event);
        }
    };
    work_to_the_end(corpus, study, storage, id, home, engines, interrupt, &mut once)
}

/// Works on the study at `home`, which somebody has begun, until it is finished.
///
/// # Errors
/// As [`run_study`]; there is no such study; `corpus` is not its text.
pub fn join_study(
    corpus: &Corpus,
    home: &Home,
    engines: &Engines<'_>,
    interrupt: &AtomicBool,
    observe: &mut dyn FnMut(&StudyEvent<'_>),
) -> Result<Study, StudyError> {
    let vocabulary = corpus.alphabet.len();
    let Some(Found { mut storage, id, name, spec }) = home.find(Opening::Write)? else {
        return Err(home.no_study());
    };
    let spec = spec.ok_or(StudyError::NotOurs { name })?;
    spec.check_corpus(corpus, &home.folder)?;
    adopt(&mut storage, id, &spec, vocabulary, observe)?;
    let mut study = Study::load(&mut storage, id, spec, vocabulary, &home.folder)?;
    if study.trials.iter().any(|trial| trial.stored.is_none()) {
        // Whoever began it has not come so far yet, or no further.
        study.enqueue(&mut storage, id)?;
        study = Study::load(&mut storage, id, study.spec, vocabulary, &home.folder)?;
    }
    create_folder(&home.folder).map_err(|source| StudyError::Io { path: home.folder.clone(), source })?;
    work_to_the_end(corpus, study, storage, id, home, engines, interrupt, observe)
}

/// Works on a study until every trial is as long as it is wanted. One that another worker had when the study was given
/// more steps ends where that worker thought that it ends; then it goes on.
fn work_to_the_end(
    corpus: &Corpus,
    mut study: Study,
    mut storage: Storage,
    id: StudyId,
    home: &Home,
    engines: &Engines<'_>,
    interrupt: &AtomicBool,
    observe: &mut dyn FnMut(&StudyEvent<'_>),
) -> Result<Study, StudyError> {
    let mut before = None;
    let vocabulary = corpus.alphabet.len();
    loop {
        let advanced = advance(&mut storage, id, &study.spec, vocabulary, &home.folder)?;
        for text in advanced.notes {
            observe(&StudyEvent::Note { text });
        }
        if advanced.changed {
            study = Study::load(&mut storage, id, study.spec, vocabulary, &home.folder)?;
        }
        let trials = study.trials.len();
        let grown;
        (study, grown) = work_on(corpus, study, storage, id, home, engines, interrupt, observe)?;
        if interrupt.load(Ordering::Relaxed) {
            return Ok(study);
        }
        let shorter = study.shorter();
        // What does not get longer by being tried again is left.
        let extends = !shorter.is_empty() && before.as_ref() != Some(&shorter);
        let more = extends || grown && study.trials.len() > trials;
        if !more {
            if let Some(Until::Open(why)) = study.until_decided() {
                observe(&StudyEvent::Note { text: format!("no more seeds: {why}") });
            }
            return Ok(study);
        }
        storage = home.open(Opening::Write)?;
        if extends {
            storage.extend(id, &shorter.iter().map(|(item, _)| *item).collect::<Vec<_>>())?;
            before = Some(shorter);
        }
        study = Study::load(&mut storage, id, study.spec, vocabulary, &home.folder)?;
    }
}

/// Makes work of the trials that other programs enqueued.
fn adopt(
    storage: &mut Storage,
    id: StudyId,
    spec: &StudySpec,
    vocabulary: usize,
    observe: &mut dyn FnMut(&StudyEvent<'_>),
) -> Result<(), StudyError> {
    let adopted = storage.adopt(id, |waiting| recognise(waiting, spec, vocabulary))?;
    if let Some(text) = left_alone(adopted.known) {
        observe(&StudyEvent::Note { text });
    }
    Ok(())
}

/// What to say of trials that other programs enqueued and that are no work here.
pub(crate) fn left_alone(trials: usize) -> Option<String> {
    let (which, has) = match trials {
        0 => return None,
        1 => ("1 enqueued trial cannot be trained here and is left alone".to_string(), "it has"),
        n => (format!("{n} enqueued trials cannot be trained here and are left alone"), "they have"),
    };
    Some(format!("{which}: {has} unknown keys or impossible values, or the study has the same already"))
}

/// Works on the trials that there are; also returns whether there are more by now.
fn work_on(
    corpus: &Corpus,
    mut study: Study,
    mut storage: Storage,
    id: StudyId,
    home: &Home,
    engines: &Engines<'_>,
    interrupt: &AtomicBool,
    observe: &mut dyn FnMut(&StudyEvent<'_>),
) -> Result<(Study, bool), StudyError> {
    let vocabulary = corpus.alphabet.len();
    if let Some(warning) = storage.warning() {
        observe(&StudyEvent::Note { text: warning.to_string() });
    }
    let work = study.work(vocabulary)?;
    let (ways, needed) = study.ways(&work, corpus, engines)?;
    let mut said = work.is_empty();
    study.time(&work, &ways, corpus, (&mut storage, id), engines, interrupt, &mut |event| {
        if let (StudyEvent::Memory { engines }, Some(way)) = (event, ways.last()) {
            said = true;
            let engines = most_at_once(&needed, *way).max(*engines);
            return observe(&StudyEvent::Memory { engines });
        }
        observe(event);
    })?;
    if interrupt.load(Ordering::Relaxed) && !work.is_empty() {
        study.interrupted = true;
        return Ok((study, false));
    }
    let (plan, mut outlook) = study.plan(&work, &ways, engines, vocabulary)?;
    if !said {
        observe(&StudyEvent::Memory { engines: most_at_once(&needed, plan.trials_at_once) });
    }
    for text in study.budget_in_steps().into_iter().chain(study.outline()) {
        observe(&StudyEvent::Note { text });
    }
    observe(&StudyEvent::Planned { trials: study.trials.len(), work: &work, plan: &plan });
    if work.is_empty() {
        return Ok((study, false));
    }

    let outages = Arc::new(Mutex::new(None));
    let give_up = Arc::new(AtomicBool::new(false));
    storage.set_patience(PATIENCE);
    storage.give_up_when(Arc::clone(&give_up));
    storage.on_outage({
        let outages = Arc::clone(&outages);
        move |error| *outages.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string())
    });
    let policy = Policy { lease: engines.lease, ..Policy::default() };
    let courier = Courier::start(storage, policy)
        .map_err(|source| StudyError::Io { path: home.folder.clone(), source })?;
    let site = Site::new(corpus, &study, id, &home.folder, engines, courier, policy);
    let mut seen = Seen { begun: Instant::now(), estimated: None, warned: None, taken: BTreeSet::new() };
    let (mut at_work, mut waiting, mut failed) = (0usize, None, None);
    // Of the trials at work: to which step they are trained now, and how many more are expected of them after that.
    let mut goals: BTreeMap<usize, (u64, f64)> = BTreeMap::new();
    crew::work(
        plan.trials_at_once,
        plan.threads,
        interrupt,
        &|| site.take(),
        &|task, place, tell| site.train(task, place, tell),
        &mut |news| {
            if interrupt.load(Ordering::Relaxed) {
                give_up.store(true, Ordering::Relaxed);
            }
            let outage = outages.lock().unwrap_or_else(PoisonError::into_inner).take();
            for text in outage.and_then(|error| seen.outage(error)).into_iter().chain(site.notes()) {
                observe(&StudyEvent::Note { text });
            }
            let ahead = site.ahead();
            if !ahead.is_empty() {
                outlook.expect(&ahead);
                observe(&StudyEvent::Over { trials: study.trials.len().saturating_sub(ahead.len()) });
            }
            match news {
                News::Taken { number, params, seed, until, later } => {
                    (at_work, waiting) = (at_work + 1, None);
                    goals.insert(number, (until, later));
                    seen.took(number, &work, &mut outlook);
                    // Others may have been added since.
                    let trials = study.trials.len().max(number + 1);
                    observe(&StudyEvent::TrialStarted { number, trials, params: &params, seed });
                }
                News::Training(number, event) => {
                    if let Event::Started { step, .. } | Event::Step { step, .. } = event
                        && let Some((until, later)) = goals.get(&number)
                    {
                        outlook.at(number, until.saturating_sub(step) as f64 + later);
                    }
                    if seen.estimated.is_none_or(|at| at.elapsed() >= ESTIMATE_INTERVAL) {
                        seen.estimated = Some(Instant::now());
                        if let Some(seconds) = outlook.left(seen.begun.elapsed().as_secs_f64()) {
                            observe(&StudyEvent::TimeLeft { seconds });
                        }
                    }
                    observe(&StudyEvent::Training { number, event: &event });
                }
                News::Left(number, result) => {
                    at_work = at_work.saturating_sub(1);
                    match *result {
                        Ok(Some(Left { record, waits: true })) => {
                            outlook.at(number, goals.get(&number).map_or(0.0, |(_, later)| *later));
                            observe(&StudyEvent::TrialWaits { number, record: &record });
                        }
                        Ok(left) => {
                            let record = left.map(|left| left.record);
                            if record.as_ref().is_none_or(|record| record.state != TrialState::Running) {
                                outlook.over(number);
                            }
                            observe(&StudyEvent::TrialFinished { number, record: record.as_ref() });
                        }
                        // What stopped the study is what is reported; a full disk stops more than one trial.
                        Err(error) => {
                            if error.is_of_one_trial() {
                                outlook.over(number);
                                observe(&StudyEvent::TrialPutAside { number, error: &error });
                            }
                            failed = failed.take().or(Some(error));
                        }
                    }
                }
                News::Waiting(others) => {
                    if at_work == 0 && waiting != Some(others) {
                        waiting = Some(others);
                        observe(&StudyEvent::Waiting { others });
                    }
                }
                News::Stopped(error) => failed = failed.take().or(Some(error)),
                News::Tick => {}
            }
        },
    );
    site.release_aside();
    // What the last to leave had to say.
    for text in site.notes() {
        observe(&StudyEvent::Note { text });
    }
    // A database that is away, and nobody who wants to wait for it: that is an interruption. What is damaged has been told, and will be again.
    let nobody_waits = |error: &StudyError| {
        let is_away = matches!(
            error,
            StudyError::Storage(StorageError::Interrupted { .. } | StorageError::Unreachable { .. })
        );
        interrupt.load(Ordering::Relaxed) && (is_away || error.is_of_one_trial())
    };
    if let Some(error) = failed.filter(|error| !nobody_waits(error)) {
        return Err(error);
    }
    let (spec, folder) = (study.spec.clone(), home.folder.clone());
    let now = site.courier.call(move |storage| {
        let spec = spec_of(storage, id).ok().flatten().unwrap_or(spec);
        Ok(Study::load(storage, id, spec, vocabulary, &folder))
    });
    let grown = site.has_grown();
    drop(site);
    let mut study = match now.map_err(StudyError::from).and_then(|now| now) {
        Ok(now) => now,
        Err(error) if nobody_waits(&error) => {
            study.interrupted = true;
            return Ok((study, false));
        }
        Err(error) => return Err(error),
    };
    let unfinished =
        study.trials.iter().any(|trial| !study.is_over(trial)) || !director::next(&study)?.is_empty();
    study.interrupted = unfinished && interrupt.load(Ordering::Relaxed);
    Ok((study, grown))
}

/// What has been seen of the work so far.
struct Seen {
    begun: Instant,
    estimated: Option<Instant>,
    warned: Option<Instant>,
    /// Trials that this process has, or has had.
    taken: BTreeSet<usize>,
}

impl Seen {
    /// This process has a trial. Trials are claimed in order: those before it that it has not had are with others.
    fn took(&mut self, number: usize, work: &[Work], outlook: &mut Outlook) {
        self.taken.insert(number);
        for Work { number: before, .. } in work.iter().take_while(|work| work.number < number) {
            if self.taken.insert(*before) {
                outlook.over(*before);
            }
        }
    }

    /// What to say of a database that cannot be reached: once in a while.
    fn outage(&mut self, error: String) -> Option<String> {
        if self.warned.is_some_and(|at| at.elapsed() < WARNING_INTERVAL) {
            return None;
        }
        self.warned = Some(Instant::now());
        Some(format!("{error}; trying again for {} minutes", PATIENCE.as_secs() / 60))
    }
}

impl Study {
    /// Brings the trials into the database that it does not have. Any number of workers may do so at once.
    fn enqueue(&self, storage: &mut Storage, id: StudyId) -> Result<(), StudyError> {
        let new = self.trials.iter().filter(|trial| trial.stored.is_none());
        let new: Vec<NewTrial> = new
            .map(|trial| {
                let sample = self.spec.search.is_some().then_some(trial.cell);
                trial.new_trial(&self.cells[trial.cell], &self.spec, sample)
            })
            .collect::<Result<_, _>>()?;
        if !new.is_empty() {
            storage.enqueue(id, &new)?;
        }
        Ok(())
    }

    /// Gives trials that are done their further steps, and those that failed by something that may have been mended since
    /// another try.
    fn reopen(&self, storage: &mut Storage, id: StudyId) -> Result<(), StudyError> {
        let (mut longer, mut failed) = (Vec::new(), Vec::new());
        for (trial, stored, _) in self.unfinished() {
            match stored.state {
                // What was lost with a rung's decision is not mended by another try.
                ItemState::Failed if self.is_dropped(trial) => {}
                ItemState::Done => longer.push(stored.item),
                ItemState::Failed => failed.push(stored.item),
                _ => {}
            }
        }
        storage.extend(id, &longer)?;
        storage.try_again(id, &failed)?;
        Ok(())
    }

    /// Trials in the database that are begun and not finished, with the steps that they have.
    fn unfinished(&self) -> impl Iterator<Item = (&Trial, &StoredTrial, u64)> {
        self.trials.iter().filter_map(|trial| {
            let (stored, record) = (trial.stored.as_ref()?, trial.record.as_ref()?);
            let is_finished = record.is_finished(self.cells[trial.cell].config.steps);
            (!is_finished).then_some((trial, stored, record.steps))
        })
    }

    /// Trials that are done after fewer steps than are wanted, with the steps that they have.
    fn shorter(&self) -> Vec<(ItemId, u64)> {
        let done = self.unfinished().filter(|(_, stored, _)| stored.state == ItemState::Done);
        done.map(|(_, stored, steps)| (stored.item, steps)).collect()
    }

    /// Every trial that is not finished with what is left to do, in order, for a text of `vocabulary` symbols.
    ///
    /// # Errors
    /// A configuration that makes no model.
    pub fn work(&self, vocabulary: usize) -> Result<Vec<Work>, StudyError> {
        let mut work = Vec::new();
        for trial in &self.trials {
            let config = &self.cells[trial.cell].config;
            let Some(ahead) = self.ahead(trial) else { continue };
            let steps = ahead.round() as u64;
            let done = config.steps.saturating_sub(steps);
            let full = config.full_batches(config.steps) - config.full_batches(done);
            let flop = full * flop_per_step(config, vocabulary)?;
            work.push(Work { number: trial.number, steps, flop });
        }
        Ok(work)
    }

    /// The numbers of trials at once that come into question for `work`: those asked for, or 1, 2, 4, ... up to the
    /// number of threads, trials and engines that fit into memory. And the bytes that each trial's engine takes, the
    /// largest first.
    ///
    /// # Errors
    /// A cell that cannot be trained on this text or this machine; more trials at once than fit.
    fn ways(
        &self,
        work: &[Work],
        corpus: &Corpus,
        engines: &Engines<'_>,
    ) -> Result<(Vec<usize>, Vec<u128>), StudyError> {
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
            enough(most_at_once(&needed, at_once))
                .map_err(|error| StudyError::AtOnce { trials: at_once, error })?;
            return Ok((vec![at_once], needed));
        }
        let most = engines.threads.min(trials);
        let largest = needed.first().copied().unwrap_or(0);
        let mut ways: Vec<usize> =
            std::iter::successors(Some(1), |way| Some(2 * way)).take_while(|way| *way < most).collect();
        ways.push(most.max(1));
        ways.retain(|way| *way == 1 || enough(*way as u128 * largest).is_ok());
        Ok((ways, needed))
    }

    /// The kinds of steps that the cells have, and which kind each cell's is; none is to be trained yet.
    pub(crate) fn kinds(&self, vocabulary: usize) -> Result<(Vec<Kind<'_>>, Vec<usize>), StudyError> {
        let mut kinds: Vec<Kind<'_>> = Vec::new();
        let mut kind_of = Vec::new();
        let mut known = BTreeMap::new();
        for config in self.cells.iter().map(|cell| &cell.config) {
            let kind = *known.entry(Timings::key(config)).or_insert(kinds.len());
            if kind == kinds.len() {
                let (model, flop) = (config.model(vocabulary)?, flop_per_step(config, vocabulary)?);
                kinds.push(Kind { config, model, flop, steps: 0.0 });
            }
            kind_of.push(kind);
        }
        Ok((kinds, kind_of))
    }

    /// Times the steps of all configurations, unless that is known or not worth its time.
    fn time(
        &mut self,
        work: &[Work],
        ways: &[usize],
        corpus: &Corpus,
        (storage, id): (&mut Storage, StudyId),
        engines: &Engines<'_>,
        interrupt: &AtomicBool,
        observe: &mut dyn FnMut(&StudyEvent<'_>),
    ) -> Result<(), StudyError> {
        let configs = || self.cells.iter().map(|cell| &cell.config);
        let threads = engines.threads;
        // One trial alone has nothing to compare; but if the others' times are known, its own is missing.
        let missing =
            !self.timings.is_empty() && !self.timings.iter().any(|timings| timings.cover(configs(), &[1]));
        if work.is_empty() || (work.len() == 1 && !missing) {
            return Ok(());
        }
        let (mut kinds, kind_of) = self.kinds(corpus.alphabet.len())?;
        for Work { number, steps, .. } in work {
            kinds[kind_of[self.trials[*number].cell]].steps += *steps as f64;
        }
        let ways = match engines.trials_at_once {
            // Nothing to choose, but the cost is to be known.
            Some(_) => worthwhile(&kinds, &[1]),
            None => worthwhile(&kinds, ways),
        };
        let known =
            self.timings_of_this_machine(engines).is_some_and(|timings| timings.cover(configs(), &ways));
        let most = ways.last().copied().unwrap_or(0);
        if ways.is_empty() || known || !Benches::fit(&kinds, most, engines) {
            return Ok(());
        }
        observe(&StudyEvent::Memory { engines: Benches::of(&kinds, &ways, engines).bytes });
        let mut tell = |done, of| observe(&StudyEvent::Timing { done, of });
        if let Some(timings) = measure(corpus, &kinds, &ways, threads, TURNS, engines, interrupt, &mut tell) {
            timings.write(storage, id)?;
            self.timings = Timings::read(storage, id)?;
        }
        Ok(())
    }

    /// What was measured on this machine with as many threads and the same engine.
    fn timings_of_this_machine(&self, engines: &Engines<'_>) -> Option<&Timings> {
        let machine = Machine::this();
        self.timings.iter().find(|timings| {
            (timings.threads, &timings.engine, &timings.machine) == (engines.threads, &engines.id, &machine)
        })
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
            self.timings_of_this_machine(engines).filter(|timings| timings.cover(work.iter().map(of), &[1]));
        let mut trials = Vec::new();
        for work in work {
            let config = of(work);
            let characters = self.spec.protocol.evaluated_characters_per_step(config);
            let tokens = (config.batch_size * config.sequence_length) as f64;
            // A step, on average over the run, and its share of the evaluations.
            let step = config.full_batches(config.steps) / config.steps as f64;
            let with_evaluations = step + characters / tokens / EVALUATION_SPEED;
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
        Ok((Plan { trials_at_once, threads: engines.threads, forecasts }, outlook))
    }
}

/// Bytes of the `trials` largest engines; `needed` is sorted, the largest first.
fn most_at_once(needed: &[u128], trials: usize) -> u128 {
    needed.iter().take(trials).sum()
}

/// Floating-point operations of a training step on a full batch, by the field's usual count.
fn flop_per_step(config: &Config, vocabulary: usize) -> Result<f64, StudyError> {
    let tokens = config.batch_size * config.sequence_length;
    Ok(config.model(vocabulary)?.training_flop(tokens, config.sequence_length))
}
