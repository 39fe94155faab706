//! The workers of a study: which trial each takes, and on how many threads.
//!
//! A worker takes the next trial that nobody has taken, trains it to its end, and takes another. When none is left,
//! its threads go to those still at work, who look between two steps how many they have. Nothing else is
//! shared: a trial's result depends neither on its worker nor on its neighbours.
//!
//! A worker that fails raises the flag that stops the others at their next step, each with a checkpoint. What
//! the workers have to tell goes through one channel to the thread that called them, so whoever watches a study
//! is called from one thread, in order.

use crate::timings::share;
use crate::{StudyError, TrialRecord};
use diapason_training::Event;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};

/// What a worker tells.
pub(crate) enum News {
    /// It has taken this trial.
    Taken(usize),
    /// Something happened inside the trial.
    Training(usize, Event),
    /// The trial is over, or has been stopped, or could not go on.
    Left(usize, Box<Result<TrialRecord, StudyError>>),
}

/// Trains the trial of that number at that place, and tells what happens.
pub(crate) type Train<'a> =
    dyn Fn(usize, Place<'_>, &mut dyn FnMut(&Event)) -> Result<TrialRecord, StudyError> + Sync + 'a;

/// What the workers share.
pub(crate) struct Crew<'a> {
    /// Trials that nobody has taken.
    waiting: Mutex<std::vec::IntoIter<usize>>,
    cores: Cores,
    /// Stops everybody: the caller's flag, and the one that a worker raises when it fails.
    interrupt: &'a AtomicBool,
    failed: AtomicBool,
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
        let mut at_work = self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        at_work[worker] = false;
        self.deal(&at_work);
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

    /// The next trial for this worker. Everything that decides who trains what is here.
    fn take(&self) -> Option<usize> {
        if self.stop().iter().any(|flag| flag.load(Ordering::Relaxed)) {
            return None;
        }
        self.crew.waiting.lock().unwrap_or_else(PoisonError::into_inner).next()
    }
}

/// Has `trials` trained by `workers` workers on `threads` threads in all, and tells `hear` what they tell. `train`
/// trains one trial.
///
/// # Panics
/// When `train` or `hear` does; all other workers have stopped by then.
pub(crate) fn work(
    trials: Vec<usize>,
    workers: usize,
    threads: usize,
    interrupt: &AtomicBool,
    train: &Train<'_>,
    hear: &mut dyn FnMut(News),
) {
    let workers = workers.clamp(1, trials.len().max(1));
    let crew = Crew {
        waiting: Mutex::new(trials.into_iter()),
        cores: Cores::new(threads, workers),
        interrupt,
        failed: AtomicBool::new(false),
    };
    let crew = &crew;
    std::thread::scope(|scope| {
        let (tell, news) = channel();
        let handles: Vec<_> = (0..workers)
            .filter_map(|worker| {
                let tell = tell.clone();
                let begin = move || at_work(Place { crew, worker }, train, &tell);
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
        for news in news {
            hear(news);
        }
        drop(stop);
        for handle in handles {
            if let Err(panic) = handle.join() {
                resume_unwind(panic);
            }
        }
    });
}

fn at_work(place: Place<'_>, train: &Train<'_>, tell: &Sender<News>) {
    let crew = place.crew;
    let stop = RaisedOnPanic(&crew.failed);
    // Nobody listens any more only if the listener has panicked, and then the flag is up.
    let say = |news| _ = tell.send(news);
    while let Some(number) = place.take() {
        say(News::Taken(number));
        let result = train(number, place, &mut |event| say(News::Training(number, event.clone())));
        if result.is_err() {
            crew.failed.store(true, Ordering::Relaxed);
        }
        say(News::Left(number, Box::new(result)));
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
