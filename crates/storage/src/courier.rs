//! The courier: a thread that has the database connection, so that a training step never waits for a database.
//!
//! Whoever trains drops what there is to say (a validation loss, an attribute, a step that is safe) and goes on; the
//! courier carries it when it can, together with the heartbeats of all trials that the process holds. While the
//! database cannot be reached, what there is to say is kept and training goes on. What must be known before going on
//! (a claim, the end of a trial) is asked of the courier and waited for.
//!
//! Two different things can go wrong, and are told apart:
//! - The lease is *lost*: [`Held::is_lost`]. Somebody else has the trial. Stop; write nothing more.
//! - The lease is *uncertain*: not [`Held::is_certain`]. The database has not confirmed it for as long as it lasts, so
//!   somebody else may have the trial. Train on, but write no checkpoint over a shared one until it is certain again.

use crate::claim::{Lease, Policy};
use crate::storage::Storage;
use crate::work::{Finished, Outcome, Record};
use crate::{Result, StorageError};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Shortest time between two deliveries that nobody waits for.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest pause between two tries to deliver.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Carries words to the database on a thread of its own.
#[derive(Debug)]
pub struct Courier {
    errands: Sender<Errand>,
    thread: Option<JoinHandle<()>>,
    policy: Policy,
}

/// A trial that this process holds. Dropped without an end, it is let go: another worker may go on with it.
#[derive(Debug)]
pub struct Held {
    errands: Sender<Errand>,
    lease: Lease,
    standing: Arc<Standing>,
    policy: Policy,
    ended: bool,
}

/// What the courier knows of a lease.
#[derive(Debug, Default)]
struct Standing {
    lost: Arc<AtomicBool>,
    /// When the database last confirmed it: milliseconds of [`now`], taken *before* it was asked.
    confirmed: AtomicU64,
}

type Job = Box<dyn FnOnce(&mut Storage) + Send>;
/// Gets what was said of the trial; whether the trial is no longer held after it.
type LastJob = Box<dyn FnOnce(&mut Storage, &mut Record) -> bool + Send>;

enum Errand {
    Hold(Lease, Arc<Standing>),
    Tell(Lease, Record),
    /// What to do with the trial for good, with all that was told before.
    End(Lease, LastJob),
    Do(Job),
}

impl std::fmt::Debug for Errand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Errand")
    }
}

/// Milliseconds on a clock that never goes back.
fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}

impl Courier {
    /// Starts the thread. Its patience for what is waited for is the storage's.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(storage: Storage, policy: Policy) -> io::Result<Self> {
        let (errands, inbox) = channel();
        let route = Route { storage, policy, trials: BTreeMap::new(), beat_at: Instant::now(), failures: 0 };
        let thread =
            std::thread::Builder::new().name("courier".to_string()).spawn(move || route.run(&inbox))?;
        Ok(Self { errands, thread: Some(thread), policy })
    }

    /// Does something with the storage on the courier's thread, and waits for it.
    ///
    /// # Errors
    /// Those of `job`.
    pub fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Storage) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, wait) = channel();
        let errand = Errand::Do(Box::new(move |storage: &mut Storage| {
            // Nobody waits any more? Then nobody needs the answer.
            let _ = answer.send(job(storage));
        }));
        self.errands.send(errand).map_err(|_| gone())?;
        wait.recv().map_err(|_| gone())?
    }

    /// Takes care of a lease that was just claimed: its heartbeats begin.
    pub fn hold(&self, lease: Lease) -> Held {
        let standing = Arc::new(Standing::default());
        standing.confirmed.store(now(), Ordering::Relaxed);
        // A courier that is gone shows at the first thing that is waited for.
        let _ = self.errands.send(Errand::Hold(lease.clone(), Arc::clone(&standing)));
        Held { errands: self.errands.clone(), lease, standing, policy: self.policy, ended: false }
    }
}

impl Drop for Courier {
    /// Waits until everything that was said has been tried once.
    fn drop(&mut self) {
        let (closed, _) = channel();
        self.errands = closed;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Held {
    /// The right to the trial.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Says something, and does not wait.
    ///
    /// # Errors
    /// Something that the database has no room for.
    pub fn tell(&self, record: Record) -> Result<()> {
        // One that is refused later would hold up all the others.
        record.check()?;
        // A courier that is gone shows at the first thing that is waited for.
        let _ = self.errands.send(Errand::Tell(self.lease.clone(), record));
        Ok(())
    }

    /// Whether somebody else has the trial.
    pub fn is_lost(&self) -> bool {
        self.standing.lost.load(Ordering::Relaxed)
    }

    /// The flag behind [`Held::is_lost`], for whoever can be interrupted by one.
    pub fn lost(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.standing.lost)
    }

    /// Whether nobody else can have the trial: the database has confirmed the lease within the time that it lasts.
    /// Never waits.
    pub fn is_certain(&self) -> bool {
        let since = now().saturating_sub(self.standing.confirmed.load(Ordering::Relaxed));
        !self.is_lost() && Duration::from_millis(since) < self.policy.lease
    }

    /// Asks the database whether the lease holds, delivering what was said on the way. Waits.
    ///
    /// # Errors
    /// [`StorageError::LeaseLost`], or that the database cannot be reached.
    pub fn confirm(&self) -> Result<()> {
        let (lease, policy) = (self.lease.clone(), self.policy);
        let asked = now();
        let confirmed = self.end(move |storage, record| storage.record(&lease, record, &policy), false);
        match confirmed {
            Ok(()) => self.standing.confirmed.store(asked, Ordering::Relaxed),
            Err(StorageError::LeaseLost { .. }) => self.standing.lost.store(true, Ordering::Relaxed),
            Err(_) => {}
        }
        confirmed
    }

    /// Ends the trial, with all that was said before. Waits. After an error other than a lost lease it can be tried
    /// again.
    ///
    /// # Errors
    /// [`StorageError::LeaseLost`], or that the database cannot be reached.
    pub fn finish(&mut self, record: Record, outcome: Outcome) -> Result<Finished> {
        let (lease, policy) = (self.lease.clone(), self.policy);
        self.last(record, move |storage, record| storage.finish(&lease, record, &outcome, &policy))
    }

    /// Lets the trial go, with all that was said before. Waits.
    ///
    /// # Errors
    /// As [`Held::finish`].
    pub fn release(&mut self, record: Record) -> Result<()> {
        let lease = self.lease.clone();
        self.last(record, move |storage, record| storage.release(&lease, record))
    }

    /// Leaves the trial at a rung, with all that was said before. Waits.
    ///
    /// # Errors
    /// As [`Held::finish`].
    pub fn park(&mut self, record: Record, rung: u32) -> Result<()> {
        let lease = self.lease.clone();
        self.last(record, move |storage, record| storage.park(&lease, record, rung))
    }

    fn last<T: Send + 'static>(
        &mut self,
        record: Record,
        job: impl FnOnce(&mut Storage, &Record) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.tell(record)?;
        let done = self.end(job, true);
        match &done {
            Ok(_) => self.ended = true,
            Err(StorageError::LeaseLost { .. }) => {
                self.ended = true;
                self.standing.lost.store(true, Ordering::Relaxed);
            }
            Err(_) => {}
        }
        done
    }

    /// Runs `job` with all that was said. It counts as delivered if the job succeeds; `for_good`: the trial is then
    /// no longer held.
    fn end<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Storage, &Record) -> Result<T> + Send + 'static,
        for_good: bool,
    ) -> Result<T> {
        let (answer, wait) = channel();
        let errand = Box::new(move |storage: &mut Storage, record: &mut Record| {
            let done = job(storage, record);
            if done.is_ok() {
                *record = Record::new();
            }
            let over = matches!(done, Err(StorageError::LeaseLost { .. })) || (for_good && done.is_ok());
            let _ = answer.send(done);
            over
        });
        self.errands.send(Errand::End(self.lease.clone(), errand)).map_err(|_| gone())?;
        wait.recv().map_err(|_| gone())?
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.ended {
            let lease = self.lease.clone();
            let errand = Box::new(move |storage: &mut Storage, record: &mut Record| {
                // If this fails, the lease runs out by itself.
                let _ = storage.release(&lease, record);
                true
            });
            let _ = self.errands.send(Errand::End(self.lease.clone(), errand));
        }
    }
}

fn gone() -> StorageError {
    StorageError::Interrupted { place: "a courier that has ended".to_string() }
}

/// The courier's side of things.
struct Route {
    storage: Storage,
    policy: Policy,
    /// What is held, by item, with what has not been delivered.
    trials: BTreeMap<i64, Parcel>,
    /// When the next delivery is due, at the latest.
    beat_at: Instant,
    /// Deliveries that failed since one succeeded.
    failures: u32,
}

struct Parcel {
    lease: Lease,
    standing: Arc<Standing>,
    record: Record,
}

impl Route {
    fn run(mut self, inbox: &Receiver<Errand>) {
        let mut delivered = Instant::now();
        loop {
            let waiting = self.trials.values().any(|parcel| !parcel.record.is_empty());
            let due = if waiting && self.failures == 0 {
                (delivered + PAUSE).min(self.beat_at)
            } else {
                self.beat_at
            };
            let wait = match due.saturating_duration_since(Instant::now()) {
                _ if self.trials.is_empty() => Duration::from_secs(3600),
                // However many errands there are, heartbeats have their turn.
                Duration::ZERO => {
                    self.deliver();
                    delivered = Instant::now();
                    continue;
                }
                wait => wait,
            };
            match inbox.recv_timeout(wait) {
                Ok(errand) => self.take(errand),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if self.trials.values().any(|parcel| !parcel.record.is_empty()) {
            self.deliver();
        }
    }

    fn take(&mut self, errand: Errand) {
        match errand {
            Errand::Hold(lease, standing) => {
                if self.trials.is_empty() {
                    self.beat_at = Instant::now() + self.interval();
                }
                self.trials.insert(lease.item.0, Parcel { lease, standing, record: Record::new() });
            }
            Errand::Tell(lease, record) => {
                if let Some(parcel) = self.parcel(&lease) {
                    parcel.record.merge(record);
                }
            }
            Errand::End(lease, job) => {
                let mut record = Record::new();
                if let Some(parcel) = self.parcel(&lease) {
                    record = std::mem::take(&mut parcel.record);
                }
                let over = job(&mut self.storage, &mut record);
                if let Some(parcel) = self.parcel(&lease) {
                    parcel.record = record;
                    if over {
                        self.trials.remove(&lease.item.0);
                    }
                }
            }
            Errand::Do(job) => job(&mut self.storage),
        }
    }

    /// The parcel of this very lease: the item may have been let go and claimed again.
    fn parcel(&mut self, lease: &Lease) -> Option<&mut Parcel> {
        self.trials.get_mut(&lease.item.0).filter(|parcel| parcel.lease == *lease)
    }

    /// Heartbeats, a few within the time of a lease.
    fn interval(&self) -> Duration {
        self.policy.lease / 4
    }

    /// Delivers everything, with a heartbeat for every trial. Tries once: what is waited for has its turn too.
    fn deliver(&mut self) {
        let asked = now();
        let records: Vec<(&Lease, &Record)> =
            self.trials.values().map(|parcel| (&parcel.lease, &parcel.record)).collect();
        match self.storage.once(|storage| storage.record_all(&records, &self.policy)) {
            Ok(kept) => {
                self.failures = 0;
                self.beat_at = Instant::now() + self.interval();
                for (parcel, kept) in self.trials.values_mut().zip(&kept) {
                    parcel.record = Record::new();
                    if *kept {
                        parcel.standing.confirmed.store(asked, Ordering::Relaxed);
                    } else {
                        parcel.standing.lost.store(true, Ordering::Relaxed);
                    }
                }
                let mut kept = kept.into_iter();
                self.trials.retain(|_, _| kept.next().unwrap_or(true));
            }
            // Whatever it was, a full disk too: it is kept and tried again, and who waits for an answer is told.
            Err(_) => {
                self.failures += 1;
                let pause = PAUSE * 2u32.saturating_pow(self.failures.min(10));
                self.beat_at = Instant::now() + pause.min(LONGEST_PAUSE).min(self.interval());
            }
        }
    }
}
