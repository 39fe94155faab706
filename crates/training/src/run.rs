//! The loop of a run.
//!
//! Around the loop stands the promise that a run is a function of (corpus, configuration, seed, engine): it
//! can be killed anywhere and taken up again, and comes to the same bits. Three things keep it. Random
//! numbers have addresses, so a step needs its number alone. All decisions (evaluate, stop, best) are
//! functions of the step and the curve ([`crate::schedule`]), so there are no counters to lose. And a
//! checkpoint is written whenever an evaluation is the best so far, before `best.safetensors` is: the best
//! weights never come from a step that the history does not know.
//!
//! One kind of run cannot keep it: a budget of time. Such a run ends on the minute, so its schedule is a function of the time spent
//! (which is in the checkpoint, so that it can be interrupted), and time is not the same twice.

mod resume;

use crate::checkpoint::{self, Header, Progress};
use crate::schedule::Schedule;
use crate::time::{Guess, TimeSpent};
use crate::{
    Checkpoint, CheckpointError, Config, CurvePoint, FolderLock, LockError, Protocol, Reading, SeedRule,
    SpanReading, Spans, TrainingError, create_folder, curve, evaluate, evaluate_spans, files, updates,
};
use diapason_corpus::Corpus;
use diapason_corpus::windows::{Windows, training_windows};
use diapason_engine::{Batch, Engine};
use diapason_model::initialise_into;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a folder is waited for that another process is just writing into.
const FOLDER_PATIENCE: Duration = Duration::from_secs(60);

/// Time between two tries to get it.
const FOLDER_PAUSE: Duration = Duration::from_millis(20);

/// Name of the file in a run's folder that holds everything: weights, optimizer, history.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// Name of the file with the weights of the best evaluation.
pub const BEST: &str = "best.safetensors";
/// Name of the file with the evaluations.
pub const CURVE: &str = "curve.csv";

/// What to run and where.
#[derive(Clone, Debug)]
pub struct RunSpec {
    /// What to compute.
    pub config: Config,
    /// Seed of weights and windows.
    pub seed: u64,
    /// How to evaluate.
    pub protocol: Protocol,
    /// The step of the early read-out; none: no early read-out. `Protocol::AsSeed` finds its own.
    pub early_step: Option<u64>,
    /// Where the files go; made if absent.
    pub folder: PathBuf,
    /// Go on from the folder's checkpoint, if there is one. Otherwise a checkpoint there is an error.
    pub resume: bool,
    /// Start from the weights in this file, not from random ones. A run that goes on needs it no more; given all
    /// the same, it must hold the weights that the run started from.
    pub init: Option<PathBuf>,
    /// Go on from a checkpoint that another arithmetic computed; the run is then marked.
    pub allow_other_engine: bool,
    /// End after so many seconds, evaluations and checkpoints included, instead of after `steps`: schedules follow the time.
    /// Under the standard protocol only.
    pub time_budget: Option<f64>,
}

impl RunSpec {
    /// A standard run from the beginning, without an early read-out.
    pub fn new(config: Config, seed: u64, folder: impl Into<PathBuf>) -> Self {
        Self {
            config,
            seed,
            protocol: Protocol::Standard,
            early_step: None,
            folder: folder.into(),
            resume: false,
            init: None,
            allow_other_engine: false,
            time_budget: None,
        }
    }
}

/// Says of the evaluations so far whether a run ends.
pub type Ends<'a> = dyn Fn(&[CurvePoint]) -> bool + 'a;

/// What may be asked of a run while it goes on. It looks here between steps.
#[derive(Clone, Copy, Default)]
pub struct Control<'a> {
    /// Stop, with a checkpoint, as soon as one of these is true.
    pub stop: &'a [&'a AtomicBool],
    /// On how many threads to compute; none: on as many as the engine was made for. No result depends on it.
    pub threads: Option<&'a AtomicUsize>,
    /// Stop, with a checkpoint, once this step is done and evaluated if it is one to be evaluated; none: go on to the end.
    pub until: Option<u64>,
    /// Asked after each evaluation but the last, with all of them so far: whether the run is to stop there, with a checkpoint.
    /// Asked again if the run goes on from there later.
    pub ends: Option<&'a Ends<'a>>,
    /// Asked before the folder's checkpoint or best weights are written, if somebody else may have been given the run
    /// meanwhile; after a no they are left as they are. What is there also stays if it is of a later step.
    pub fence: Option<&'a dyn Fn(Occasion) -> bool>,
}

/// Why a file of a run is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// It is time. It may as well be done a little later; training goes on meanwhile.
    Passing,
    /// An evaluation was the best so far: its weights are gone with the next step.
    Best,
    /// The run ends here.
    Last,
}

impl Control<'_> {
    fn stops(&self) -> bool {
        self.stop.iter().any(|flag| flag.load(Ordering::Relaxed))
    }
}

/// What a run tells while it goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The run begins, or goes on, at `step`.
    Started {
        /// Updates done.
        step: u64,
        /// Updates in all; of a run with a budget of time an estimate, 0 before the first.
        steps: u64,
        /// Number of parameters.
        parameters: usize,
        /// Evaluations that lie ahead, if nothing ends the run before its last step.
        evaluations: u64,
    },
    /// A step was done; sent at most ten times a second.
    Step {
        /// Updates done.
        step: u64,
        /// Updates in all.
        steps: u64,
        /// Training loss of the last step, nats.
        loss: f64,
        /// Positions a second since the previous `Step`, evaluation and checkpoints not counted.
        tokens_per_second: f64,
    },
    /// An evaluation is under way.
    Evaluating {
        /// Updates done.
        step: u64,
        /// Characters done.
        done: u64,
        /// Characters in all.
        characters: u64,
    },
    /// The losses per span of the evaluation that is told next. Not under the notebook's protocol, which predicts other
    /// characters each time.
    Spans(SpanReading),
    /// An evaluation is done.
    Evaluated(CurvePoint),
    /// A checkpoint was written.
    Checkpoint {
        /// Updates done.
        step: u64,
    },
    /// Something the user should know.
    Note(String),
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum RunState {
    /// All steps done.
    Complete,
    /// Patience ended it.
    StoppedEarly,
    /// The loss was no longer a number. Final: the same run would diverge again.
    Diverged {
        /// The update whose loss was not finite, or after which the validation loss was not.
        step: u64,
        /// The last training loss that was a number, nats.
        last_finite_loss: Option<f64>,
    },
    /// Asked to stop; a checkpoint is there.
    Interrupted {
        /// Updates done.
        step: u64,
    },
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq)]
pub struct RunOutcome {
    /// How it ended.
    pub state: RunState,
    /// Updates done.
    pub steps: u64,
    /// The early reading, if it was asked for and reached.
    pub early: Option<Reading>,
    /// The last reading; none before the first evaluation.
    pub last: Option<Reading>,
    /// The reading with the lowest validation loss, the first of equals; its weights are in [`BEST`].
    pub best: Option<Reading>,
    /// What the notebook would have recorded; only for `Protocol::AsSeed`.
    pub seed_rule: Option<SeedRule>,
    /// Seconds in training steps (drawing windows, forward, backward, update), over all segments whose steps
    /// survive. Evaluations and checkpoints do not count.
    pub train_seconds: f64,
    /// Positions trained on per such second.
    pub tokens_per_second: f64,
    /// Number of parameters.
    pub parameters: usize,
    /// Every evaluation.
    pub curve: Vec<CurvePoint>,
    /// Losses per span at the early reading, the best and the last, by step; none under the notebook's protocol.
    pub spans: Vec<SpanReading>,
}

/// Trains one model; see [`RunSpec`] for what and [`RunOutcome`] for what comes back.
///
/// The engine's state is overwritten: with initial weights drawn from the seed, with those of `spec.init`, or
/// with the checkpoint's. Update n draws its windows at step n - 1 of the seed's training stream.
///
/// # Errors
/// Anything that keeps the run from starting or going on. A loss that is not finite is no error but an
/// outcome, and so is an interruption.
pub fn run(
    corpus: &Corpus,
    engine: &mut dyn Engine,
    spec: &RunSpec,
    control: &Control<'_>,
    observe: &mut dyn FnMut(&Event),
) -> Result<RunOutcome, TrainingError> {
    let vocabulary = corpus.alphabet.len();
    let config = spec.config.clone().validated(vocabulary)?;
    corpus.require(config.sequence_length)?;
    let text = training_text(corpus, &config);
    if text.len() <= config.sequence_length {
        return Err(TrainingError::TooLittleText {
            train_fraction: config.train_fraction,
            left: text.len(),
            needed: config.sequence_length + 1,
        });
    }
    if config.model(vocabulary)? != *engine.model() {
        return Err(TrainingError::OtherModel);
    }
    if spec.protocol == Protocol::Standard
        && let Some(early_step) = spec.early_step
        && !(1..=config.steps).contains(&early_step)
    {
        return Err(TrainingError::EarlyStep { early_step, steps: config.steps });
    }
    let (model, alphabet) = (*engine.model(), corpus.alphabet.to_string_form());
    // Weights that cannot be used are refused before a folder is made.
    let mut init =
        if spec.folder.join(CHECKPOINT).exists() { None } else { Some(begin(engine, spec, &alphabet)?) };
    create_folder(&spec.folder)
        .map_err(|source| TrainingError::Write { path: spec.folder.clone(), source })?;
    // A run behind a fence takes the folder only while it writes: whoever has been given the run of a process that
    // hangs shall not wait for that process.
    let _lock = match control.fence {
        None => Some(FolderLock::acquire(&spec.folder)?),
        Some(_) => None,
    };

    let there = spec.folder.join(CHECKPOINT).exists();
    if there && !spec.resume {
        return Err(TrainingError::AlreadyThere { folder: spec.folder.clone() });
    }
    if !there && spec.folder.join(BEST).exists() {
        return Err(TrainingError::WeightsAlone { folder: spec.folder.clone() });
    }
    let (schedule, config) = scheduled(spec, config, None);
    let mut run = Run {
        corpus,
        spec,
        schedule,
        header: Header {
            model,
            config,
            protocol: spec.protocol,
            alphabet: alphabet.clone(),
            corpus_name: corpus.name.clone(),
            corpus_digest: corpus.digest.clone(),
            corpus_request: corpus.request.clone(),
            seed: spec.seed,
            step: 0,
            engine: engine.id().to_string(),
            progress: Progress {
                state: RunState::Interrupted { step: 0 },
                curve: Vec::new(),
                spans: Vec::new(),
                loss_sum: 0.0,
                loss_count: 0,
                last_finite_loss: None,
                train_seconds: 0.0,
                characters: 0,
                averaged: 0,
                time: spec.time_budget.map(TimeSpent::nothing_of),
                init: None,
                other_engines: Vec::new(),
            },
        },
        engine,
        control: *control,
        threads: None,
        observe,
        unsaved: true,
        saved_at: Instant::now(),
        clock: Instant::now(),
        step_seconds: 0.0,
    };
    if there {
        run.resume()?;
    } else {
        // Another process may have had the folder, and cleared it, before the lock was taken.
        if init.is_none() {
            init = Some(begin(run.engine, spec, &alphabet)?);
        }
        run.header.progress.init = init.flatten();
    }
    run.started();
    // The first checkpoint is written at once: a folder that cannot be written to should fail now, not after
    // a minute.
    run.write(Occasion::Best, |run| {
        if run.unsaved {
            run.save()?;
        }
        run.write_curve()
    })?;
    let state = run.go_on()?;
    run.unsaved |= state != run.header.progress.state;
    run.header.progress.state = state;
    if run.unsaved {
        run.write(Occasion::Last, Run::save)?;
    }
    Ok(run.outcome())
}

/// Bytes that a run takes beside its engine and its text: windows, scores, and what files are written through.
pub fn memory_needed(config: &Config, protocol: Protocol) -> usize {
    /// A checkpoint's header, and the buffers on its way to the disk, about.
    const FILES: usize = 1 << 19;
    let training = 2 * config.batch_size * config.sequence_length;
    let scores = evaluate::scored_at_a_time(config.sequence_length) * size_of::<(f32, bool)>();
    training + scores + Schedule::new(config, protocol, 0, None).window_bytes() + FILES
}

/// The part of the training text that a run draws its windows from.
pub(crate) fn training_text<'a>(corpus: &'a Corpus, config: &Config) -> &'a [u8] {
    let text = corpus.train();
    let part = (text.len() as f64 * config.train_fraction).round() as usize;
    &text[..part.min(text.len())]
}

/// Gives the engine what a run starts from: the weights of a file, or random ones, and moments of zero. Returns the
/// digest of the weights, if they are a file's.
fn begin(engine: &mut dyn Engine, spec: &RunSpec, alphabet: &str) -> Result<Option<String>, CheckpointError> {
    let model = *engine.model();
    let mut read = Ok(());
    engine.keep_average(spec.config.updating().averages);
    engine.with_state(&mut |state| {
        match &spec.init {
            Some(path) => read = checkpoint::read_weights(path, &model, alphabet, state.parameters),
            None => initialise_into(&model, spec.seed, state.parameters),
        }
        state.first_moment.fill(0.0);
        state.second_moment.fill(0.0);
        state.average.fill(0.0);
    });
    read?;
    Ok(spec.init.as_ref().map(|_| checkpoint::digest_of(engine.state().parameters)))
}

/// A run under way.
struct Run<'a> {
    corpus: &'a Corpus,
    engine: &'a mut dyn Engine,
    spec: &'a RunSpec,
    schedule: Schedule,
    control: Control<'a>,
    /// What `control` asked for last.
    threads: Option<usize>,
    observe: &'a mut dyn FnMut(&Event),
    /// What the next checkpoint says.
    header: Header,
    /// Whether the last checkpoint says less.
    unsaved: bool,
    saved_at: Instant,
    /// Up to when the time spent has been counted, if there is a budget of it.
    clock: Instant,
    /// Seconds of the last step.
    step_seconds: f64,
}

impl Run<'_> {
    /// Of the losses per span, those of the readings are kept.
    fn keep_spans_of_readings(&mut self) {
        let early = self.spec.early_step;
        let Progress { curve, spans, .. } = &mut self.header.progress;
        let [best, last] = [curve::best(curve), curve.last()].map(|point| point.map(|point| point.step));
        spans.retain(|reading| [early, best, last].contains(&Some(reading.step)));
    }

    fn started(&mut self) {
        let missing = u64::from(self.evaluation_is_missing());
        let steps = self.steps();
        (self.observe)(&Event::Started {
            step: self.header.step,
            steps,
            parameters: self.header.model.parameters(),
            evaluations: self.schedule.ahead(self.header.step) + missing,
        });
    }

    /// Steps, evaluations and checkpoints until something ends the run.
    fn go_on(&mut self) -> Result<RunState, TrainingError> {
        match self.header.progress.state {
            diverged @ RunState::Diverged { .. } => return Ok(diverged),
            RunState::Complete if self.spec.time_budget.is_some() => return Ok(RunState::Complete),
            _ => {}
        }
        let mut windows = Windows::default();
        let mut told = Told { at: Instant::now(), tokens: 0, seconds: 0.0 };
        loop {
            let step = self.header.step;
            self.take_threads();
            self.spend();
            if self.evaluation_is_missing()
                && let Some(ended) = self.evaluate()?
            {
                return Ok(ended);
            }
            if self.is_over() {
                return Ok(RunState::Complete);
            }
            let curve = &self.header.progress.curve;
            if curve.last().is_some_and(|point| point.step == step) {
                if self.schedule.out_of_patience(curve) {
                    return Ok(RunState::StoppedEarly);
                }
                if self.control.ends.is_some_and(|ends| ends(curve)) {
                    return Ok(RunState::Interrupted { step });
                }
            }
            if self.control.stops() || self.control.until.is_some_and(|until| step >= until) {
                return Ok(RunState::Interrupted { step });
            }
            if self.unsaved
                && self.saved_at.elapsed() >= Duration::from_secs(self.header.config.checkpoint_seconds)
            {
                self.write(Occasion::Passing, Self::save)?;
            }
            if let Some(diverged) = self.step(&mut windows, &mut told) {
                return Ok(diverged);
            }
        }
    }

    /// One update. Returns how the run ended if its loss is no number.
    fn step(&mut self, windows: &mut Windows, told: &mut Told) -> Option<RunState> {
        let config = &self.header.config;
        let number = self.header.step + 1;
        let done = self.done();
        let update = updates::update(config, number, done, self.header.progress.averaged);
        let started = Instant::now();
        training_windows(
            training_text(self.corpus, config),
            self.spec.seed,
            self.header.step,
            updates::batch_size(config, done),
            config.sequence_length,
            windows,
        );
        let batch = Batch {
            inputs: &windows.inputs,
            targets: &windows.targets,
            sequence_length: windows.sequence_length,
        };
        self.engine.draw_masks(self.spec.seed, number);
        let loss = self.engine.step(batch, &update).loss;
        let seconds = started.elapsed().as_secs_f64();

        self.unsaved = true;
        self.step_seconds = seconds;
        self.header.step = number;
        let progress = &mut self.header.progress;
        progress.train_seconds += seconds;
        progress.characters += windows.inputs.len() as u64;
        progress.averaged += u64::from(update.average > 0.0);
        if let Some(time) = &mut progress.time {
            time.done = done;
        }
        if !loss.is_finite() {
            return Some(RunState::Diverged { step: number, last_finite_loss: progress.last_finite_loss });
        }
        progress.state = RunState::Interrupted { step: number };
        progress.last_finite_loss = Some(loss);
        progress.loss_sum += loss;
        progress.loss_count += 1;

        told.tokens += windows.inputs.len();
        told.seconds += seconds;
        if told.at.elapsed() >= Told::PAUSE || self.is_over() {
            let steps = self.steps();
            (self.observe)(&Event::Step {
                step: number,
                steps,
                loss,
                tokens_per_second: rate(told.tokens as f64, told.seconds),
            });
            *told = Told { at: Instant::now(), tokens: 0, seconds: 0.0 };
        }
        None
    }

    /// Whether the run stands at an evaluation that has not been made.
    fn evaluation_is_missing(&self) -> bool {
        let step = self.header.step;
        let due = match &self.header.progress.time {
            None => self.schedule.is_due(step),
            Some(time) => step > 0 && (self.is_over() || self.is_due_in_time(time)),
        };
        due && self.header.progress.curve.last().is_none_or(|point| point.step < step)
    }

    /// Whether a run with a budget of time is to be evaluated on its way.
    fn is_due_in_time(&self, time: &TimeSpent) -> bool {
        match self.header.config.eval_every {
            0 => time.is_evaluation_due(self.guess()),
            every => self.header.step.is_multiple_of(every),
        }
    }

    /// What a run with a budget of time takes its next step and its first evaluation to need: what the last step did, and half of what
    /// training on as many characters would.
    fn guess(&self) -> Guess {
        let Header { config, progress, .. } = &self.header;
        let training = progress.train_seconds / progress.characters.max(1) as f64;
        let characters = config.validation_characters.min(self.corpus.validation().len());
        Guess { step: self.step_seconds, evaluation: 0.5 * training * characters as f64 }
    }

    /// Counts the time since the last call, if there is a budget of it.
    fn spend(&mut self) {
        let now = Instant::now();
        if let Some(time) = &mut self.header.progress.time {
            time.seconds += now.duration_since(self.clock).as_secs_f64();
        }
        self.clock = now;
    }

    /// Whether no step follows: all are done, or another one and the last evaluation would not end in time.
    fn is_over(&self) -> bool {
        let step = self.header.step;
        match &self.header.progress.time {
            None => step >= self.header.config.steps,
            // Random numbers are addressed by 32 bits of the step.
            Some(_) if step == 0 || step >= u64::from(u32::MAX) => step > 0,
            Some(time) => time.is_over(self.guess()),
        }
    }

    /// Share of the run that is over before the next update.
    fn done(&self) -> f64 {
        match &self.header.progress.time {
            None => self.header.config.done_before(self.header.step + 1),
            Some(time) => time.share(self.guess()),
        }
    }

    /// Updates in all; estimated, if time decides.
    fn steps(&self) -> u64 {
        if self.header.progress.time.is_none() {
            return self.header.config.steps;
        }
        let (step, done) = (self.header.step, self.done());
        if self.is_over() || done <= 0.0 { step } else { (step as f64 / done).round() as u64 }
    }

    /// Evaluates and notes the result. Returns how the run ended if it did.
    fn evaluate(&mut self) -> Result<Option<RunState>, TrainingError> {
        let (step, validation) = (self.header.step, self.corpus.validation());
        let (over, began) = (self.is_over(), self.header.progress.time.map(|time| time.seconds));
        let averaged = self.header.progress.averaged > 0;
        if averaged {
            self.engine.swap_average();
        }
        let config = &self.header.config;
        let (control, observe) = (self.control, &mut *self.observe);
        let mut progress = |done, characters| {
            observe(&Event::Evaluating { step, done, characters });
            // Once all characters are done there is nothing to save by breaking off.
            let stops = done < characters && control.stops();
            if stops { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let fresh = self.schedule.fresh_windows(validation, step);
        let evaluated = match &fresh {
            None => {
                // The text has been found long enough.
                let spans = Spans::new(validation.len(), config.validation_characters).unwrap_or_default();
                evaluate_spans(self.engine, validation, &spans, config.sequence_length, &mut progress)
                    .map(|(evaluation, losses)| (evaluation, Some(SpanReading { step, losses })))
            }
            Some(windows) => {
                let batch = Batch {
                    inputs: &windows.inputs,
                    targets: &windows.targets,
                    sequence_length: windows.sequence_length,
                };
                evaluate::evaluate_windows(self.engine, batch, &mut progress)
                    .map(|evaluation| (evaluation, None))
            }
        };
        if averaged {
            self.engine.swap_average();
        }
        let (evaluation, spans) = match evaluated {
            Ok(evaluated) => evaluated,
            Err(_interrupted) => return Ok(Some(RunState::Interrupted { step })),
        };
        self.unsaved = true;
        let progress = &mut self.header.progress;
        if !evaluation.loss.is_finite() {
            return Ok(Some(RunState::Diverged { step, last_finite_loss: progress.last_finite_loss }));
        }
        let point = CurvePoint {
            step,
            train_loss: progress.loss_sum / progress.loss_count.max(1) as f64,
            validation_loss: evaluation.loss,
            accuracy: evaluation.accuracy,
            accuracy_last: evaluation.accuracy_last,
            train_seconds: progress.train_seconds,
        };
        // If only the end of the run brings this evaluation, a longer run goes on with the sum.
        if self.schedule.is_due_in_longer_runs(step) {
            (progress.loss_sum, progress.loss_count) = (0.0, 0);
        }
        progress.curve.push(point);
        progress.spans.extend(spans.clone());
        if over {
            progress.state = RunState::Complete;
        }
        self.spend();
        if let Some((time, began)) = self.header.progress.time.as_mut().zip(began) {
            time.was_evaluated(began);
        }
        self.leave_out_foreign_evaluation();
        self.keep_spans_of_readings();
        let is_best = curve::best(&self.header.progress.curve).is_some_and(|best| best.step == step);
        self.write(Occasion::Best, |run| {
            if is_best {
                run.save()?;
                run.save_best()?;
            }
            run.write_curve()
        })?;
        if let Some(spans) = spans {
            (self.observe)(&Event::Spans(spans));
        }
        (self.observe)(&Event::Evaluated(point));
        Ok(None)
    }

    /// Gives the engine its share of the machine, if that has changed. What is remembered is the wish: a system may
    /// grant fewer threads.
    fn take_threads(&mut self) {
        let wish = self.control.threads.map(|threads| threads.load(Ordering::Relaxed));
        if self.threads != wish
            && let Some(threads) = wish
        {
            self.engine.set_threads(threads);
        }
        self.threads = wish;
    }

    /// Writes `what` into the folder, if that is still this run's to write to.
    ///
    /// Equal runs come to equal files, so a file of a later step can only be what another has made of this run: it
    /// stays. The look and the writing are one thing to every other process: one that was stopped between the two has
    /// the folder meanwhile.
    fn write(
        &mut self,
        occasion: Occasion,
        what: impl FnOnce(&mut Self) -> Result<(), TrainingError>,
    ) -> Result<(), TrainingError> {
        let Some(fence) = self.control.fence else { return what(self) };
        // This may take a while, for which the folder is not to be kept from others.
        if !fence(occasion) {
            return Ok(());
        }
        let Some(_lock) = self.turn(occasion)? else { return Ok(()) };
        for name in [CHECKPOINT, BEST] {
            let Ok(there) = Checkpoint::read_header(&self.spec.folder.join(name)) else { continue };
            // Of another study, which began at the same moment.
            if self.is_other_run(&there) {
                self.check_same_run(&there)?;
            }
            if there.step > self.header.step {
                return Ok(());
            }
        }
        what(self)
    }

    /// The folder, for as long as it takes to write; none if it is not worth waiting for.
    fn turn(&self, occasion: Occasion) -> Result<Option<FolderLock>, TrainingError> {
        let until = Instant::now() + FOLDER_PATIENCE;
        loop {
            let held = match FolderLock::acquire(&self.spec.folder) {
                Ok(lock) => return Ok(Some(lock)),
                Err(held @ LockError::Held { .. }) => held,
                Err(error) => return Err(error.into()),
            };
            // What is not written now is computed again by whoever goes on.
            if occasion == Occasion::Passing || self.control.stops() {
                return Ok(None);
            }
            if Instant::now() >= until {
                return Err(held.into());
            }
            std::thread::sleep(FOLDER_PAUSE);
        }
    }

    /// Writes the checkpoint.
    fn save(&mut self) -> Result<(), TrainingError> {
        let state = self.engine.state();
        let moments = Some([state.first_moment, state.second_moment]);
        let average = Some(state.average).filter(|average| !average.is_empty());
        checkpoint::write(
            &self.spec.folder.join(CHECKPOINT),
            &self.header,
            state.parameters,
            moments,
            average,
        )?;
        self.unsaved = false;
        self.saved_at = Instant::now();
        (self.observe)(&Event::Checkpoint { step: self.header.step });
        Ok(())
    }

    /// Writes the weights that were evaluated as the best ones.
    fn save_best(&self) -> Result<(), TrainingError> {
        let state = self.engine.state();
        let weights = if self.header.progress.averaged > 0 { state.average } else { state.parameters };
        Ok(checkpoint::write(&self.spec.folder.join(BEST), &self.header, weights, None, None)?)
    }

    fn write_curve(&self) -> Result<(), TrainingError> {
        let path = self.spec.folder.join(CURVE);
        let text = curve::csv(&self.header.progress.curve);
        files::write_atomically(&path, |out| out.write_all(text.as_bytes()))
            .map_err(|source| TrainingError::Write { path, source })
    }

    fn outcome(self) -> RunOutcome {
        let Header { step, progress, model, .. } = self.header;
        let over = progress.state == RunState::Complete;
        RunOutcome {
            state: progress.state,
            steps: step,
            early: self.schedule.early(&progress.curve, over),
            last: progress.curve.last().map(Reading::from),
            best: curve::best(&progress.curve).map(Reading::from),
            seed_rule: self.schedule.seed_rule(&progress.curve, over),
            train_seconds: progress.train_seconds,
            tokens_per_second: rate(progress.characters as f64, progress.train_seconds),
            parameters: model.parameters(),
            curve: progress.curve,
            spans: progress.spans,
        }
    }
}

/// The schedule of a run, and its configuration with the steps between evaluations written out: a twentieth of
/// the steps means those that the run began with, also when it goes on with more. The notebook's protocol knows
/// another interval.
fn scheduled(spec: &RunSpec, mut config: Config, old: Option<&Header>) -> (Schedule, Config) {
    if config.eval_every == 0 && spec.protocol == Protocol::Standard && spec.time_budget.is_none() {
        let began_with = old.map_or(&config, |old| &old.config);
        config.eval_every = began_with.steps_between_evaluations();
    }
    let schedule = Schedule::new(&config, spec.protocol, spec.seed, spec.early_step);
    (if spec.time_budget.is_some() { schedule.timed() } else { schedule }, config)
}

/// What has been done since the last `Event::Step`.
struct Told {
    at: Instant,
    tokens: usize,
    seconds: f64,
}

impl Told {
    const PAUSE: Duration = Duration::from_millis(100);
}

fn rate(tokens: f64, seconds: f64) -> f64 {
    if seconds > 0.0 { tokens / seconds } else { 0.0 }
}
