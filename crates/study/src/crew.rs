//! The workers of a process: which trial each has, and on how many threads.
//!
//! A worker claims a trial, trains it to its end, and claims another. When there is none for it, its threads go to those
//! still at work, who look between two steps how many they have. Nothing else is shared: a trial's result depends
//! neither on its worker nor on its neighbours.
//!
//! A worker that fails raises the flag that stops the others at their next step, each with a checkpoint; if only its trial cannot go on,
//! because its files are damaged, it claims another one. What
//! the workers have to tell goes through one channel to the thread that called them, so whoever watches a study
//! is called from one thread, in order.

use crate::timings::share;
use crate::worker::Task;
use crate::{Params, StudyError, TrialRecord};
use diapason_training::Event;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two looks for a trial, where there was none.
const PAUSE: Duration = Duration::from_secs(1);

/// Time between two looks at the flags, and longest silence of a crew.
const TICK: Duration = Duration::from_millis(100);

/// What a worker tells.
pub(crate) enum News {
    /// It has taken this trial, and trains it up to that step now; after that, so many steps are expected of it.
    Taken { number: usize, params: Params, seed: u64, until: u64, later: f64 },
    /// Something happened inside the trial.
    Training(usize, Event),
    /// The trial is over, or has been stopped, or could not go on; none: somebody else has it.
    Left(usize, Box<Result<Option<Left>, StudyError>>),
    /// There is nothing for it now; so many trials are with others.
    Waiting(u64),
    /// It can take no more trials.
    Stopped(StudyError),
    /// Nothing has happened for a while.
    Tick,
}

/// A trial that a worker has let go.
pub(crate) struct Left {
    pub(crate) record: TrialRecord,
    /// Whether it waits at a rung.
    pub(crate) waits: bool,
}

/// What there is for a worker.
pub(crate) enum Next {
    Trial(Box<Task>),
    /// Nothing now: so many trials are with others, who may leave them.
    Wait(u64),
    /// Nothing any more.
    Nothing,
}

/// Finds a worker a trial.
pub(crate) type Take<'a> = dyn Fn() -> Result<Next, StudyError> + Sync + 'a;

/// Trains the trial at that place, and tells what happens.
pub(crate) type Train<'a> =
    dyn Fn(Task, Place<'_>, &mut dyn FnMut(&Event)) -> Result<Option<Left>, StudyError> + Sync + 'a;

/// What the workers share.
pub(crate) struct Crew<'a> {
    cores: Cores,
    /// Stops everybody: the caller's flag, and the one that a worker raises when it fails.
    interrupt: &'a AtomicBool,
    failed: AtomicBool,
    /// Trials that were found. Where there was one, there may be more.
    found: AtomicUsize,
}

/// The threads of the study, shared out among the workers with a trial.
struct Cores {
    threads: usize,
    shares: Vec<AtomicUsize>,
    /// Which workers have a trial or are about to take one.
    at_work: Mutex<Vec<bool>>,
    count: AtomicUsize,
}

impl Cores {
    fn new(threads: usize, workers: usize) -> Self {
        let cores = Self {
            threads,
            shares: (0..workers).map(|_| AtomicUsize::new(1)).collect(),
            at_work: Mutex::new(vec![true; workers]),
            count: AtomicUsize::new(workers),
        };
        cores.deal(&vec![true; workers]);
        cores
    }

    /// Takes a worker's threads for the others.
    fn leave(&self, worker: usize) {
        self.set(worker, false);
    }

    /// Gives it its share again.
    fn join(&self, worker: usize) {
        self.set(worker, true);
    }

    fn set(&self, worker: usize, is_at_work: bool) {
        let mut at_work = self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        if at_work[worker] != is_at_work {
            at_work[worker] = is_at_work;
            self.deal(&at_work);
        }
    }

    fn deal(&self, at_work: &[bool]) {
        let shares = || self.shares.iter().zip(at_work).filter(|(_, at_work)| **at_work);
        let count = shares().count();
        for (index, (threads, _)) in shares().enumerate() {
            threads.store(share(self.threads, count, index), Ordering::Relaxed);
        }
        self.count.store(count, Ordering::Relaxed);
    }
}

/// What a worker sees of its crew.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    crew: &'a Crew<'a>,
    worker: usize,
}

impl<'a> Place<'a> {
    /// The flags that stop the worker's trial.
    pub(crate) fn stop(&self) -> [&'a AtomicBool; 2] {
        [self.crew.interrupt, &self.crew.failed]
    }

    /// The threads that the worker's trial may use at the moment.
    pub(crate) fn threads(&self) -> &'a AtomicUsize {
        &self.crew.cores.shares[self.worker]
    }

    /// How many trials are at work at the moment, this one included.
    pub(crate) fn at_once(&self) -> usize {
        self.crew.cores.count.load(Ordering::Relaxed)
    }

    fn is_stopped(&self) -> bool {
        self.stop().iter().any(|flag| flag.load(Ordering::Relaxed))
    }

    /// Waits before the next look for a trial.
    fn pause(&self) {
        let until = Instant::now() + PAUSE;
        let found = || self.crew.found.load(Ordering::Relaxed);
        let before = found();
        while Instant::now() < until && !self.is_stopped() && found() == before {
            std::thread::sleep(TICK);
        }
    }
}

/// Has `workers` workers on `threads` threads in all train the trials that `take` finds, and tells `hear` what they
/// tell. `train` trains one trial.
///
/// # Panics
/// When `take`, `train` or `hear` does; all other workers have stopped by then.
pub(crate) fn work(
    workers: usize,
    threads: usize,
    interrupt: &AtomicBool,
    take: &Take<'_>,
    train: &Train<'_>,
    hear: &mut dyn FnMut(News),
) {
    let crew = Crew {
        cores: Cores::new(threads, workers),
        interrupt,
        failed: AtomicBool::new(false),
        found: AtomicUsize::new(0),
    };
    let crew = &crew;
    std::thread::scope(|scope| {
        let (tell, news) = channel();
        let handles: Vec<_> = (0..workers)
            .filter_map(|worker| {
                let tell = tell.clone();
                let begin = move || at_work(Place { crew, worker }, take, train, &tell);
                if worker == 0 {
                    return Some(scope.spawn(begin));
                }
                // A system that refuses a thread gets fewer workers: results do not depend on it.
                let handle = std::thread::Builder::new().spawn_scoped(scope, begin).ok();
                if handle.is_none() {
                    crew.cores.leave(worker);
                }
                handle
            })
            .collect();
        drop(tell);
        let stop = RaisedOnPanic(&crew.failed);
        loop {
            match news.recv_timeout(TICK) {
                Ok(news) => hear(news),
                Err(RecvTimeoutError::Timeout) => hear(News::Tick),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        drop(stop);
        for handle in handles {
            if let Err(panic) = handle.join() {
                resume_unwind(panic);
            }
        }
    });
}

fn at_work(place: Place<'_>, take: &Take<'_>, train: &Train<'_>, tell: &Sender<News>) {
    let crew = place.crew;
    let stop = RaisedOnPanic(&crew.failed);
    // Nobody listens any more only if the listener has panicked, and then the flag is up.
    let say = |news| _ = tell.send(news);
    while !place.is_stopped() {
        match take() {
            Ok(Next::Trial(task)) => {
                crew.found.fetch_add(1, Ordering::Relaxed);
                crew.cores.join(place.worker);
                let Task { number, until, later, .. } = *task;
                say(News::Taken { number, params: task.cell.params.clone(), seed: task.seed, until, later });
                let result = train(*task, place, &mut |event| say(News::Training(number, event.clone())));
                if result.as_ref().is_err_and(|error| !error.is_of_one_trial()) {
                    crew.failed.store(true, Ordering::Relaxed);
                }
                say(News::Left(number, Box::new(result)));
            }
            Ok(Next::Wait(others)) => {
                crew.cores.leave(place.worker);
                say(News::Waiting(others));
                place.pause();
            }
            Ok(Next::Nothing) => break,
            Err(error) => {
                crew.failed.store(true, Ordering::Relaxed);
                say(News::Stopped(error));
            }
        }
    }
    crew.cores.leave(place.worker);
    drop(stop);
}

/// Raises a flag when the thread panics: the others shall not go on for hours before the panic is seen.
struct RaisedOnPanic<'a>(&'a AtomicBool);

impl Drop for RaisedOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}
