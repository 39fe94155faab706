//! Work items: what is still to do, and who does it.
//!
//! Optuna knows trials; it does not know that a cell of a grid must *succeed once*. So each cell with a seed is a row
//! of `diapason_items` under a key that is unique in its study. The row points at the trial that carries it out, and
//! says where it stands:
//!
//! | state   | meaning                                                   | its trial |
//! |---------|-----------------------------------------------------------|-----------|
//! | READY   | whoever comes may claim it                                | WAITING, or RUNNING if it was begun and let go |
//! | HELD    | a worker has a lease on it                                | RUNNING, with a heartbeat |
//! | RUNG    | read at a rung, waits for a decision                      | RUNNING, without a heartbeat |
//! | DONE    | has a result                                              | COMPLETE |
//! | PRUNED  | lost a comparison                                         | PRUNED |
//! | FAILED  | failed as often as it may                                 | FAIL |
//! | AWAY    | another program took the trial                            | that program's affair |
//! | FOREIGN | another program enqueued it, and nobody here can tell what it is | WAITING |
//!
//! A claim is a compare-and-set in one transaction: one winner, lowest item first. The winner has a lease, which is a
//! name that nobody else has (see [`crate::token`]) and an end on the database's clock. Every write of the owner
//! carries the name and changes nothing if the row has another by now: a worker that was only slow cannot spoil what
//! its successor does. A lease whose time is over, or whose process is gone, is given to the next who asks, with
//! the same trial, which goes on from the step that was last made safe.
//!
//! A failure that was *reported* ends the trial, and a new one under a new number is enqueued for the same item, with
//! Optuna's own attributes `failed_trial` and `retry_history`. Both are bounded: failures by [`Policy::retries`],
//! workers lost one after the other without any progress by [`Policy::losses`].
//!
//! Locks are taken in one order everywhere, study, item, trial, so two workers never wait for one another. (A study
//! that is deleted under a worker's hands is the exception; the database ends one of the two, which tries again.)

use crate::database::{Row, Statements, Value, insert_all};
use crate::encode::{self, Distribution, TrialState};
use crate::storage::{Attributes, Storage, StudyId, lock_study};
use crate::trials::{self, Trial};
use crate::worker::Process;
use crate::{Result, StorageError, Worker, token};
use serde::Serialize;
use serde_json::{Map, Value as Json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

/// A work item, as the database numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ItemId(pub(crate) i64);

/// Where an item stands; see the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum ItemState {
    Ready,
    Held,
    Rung,
    Done,
    Pruned,
    Failed,
    Away,
    Foreign,
}

impl ItemState {
    const ALL: [Self; 8] = [
        Self::Ready,
        Self::Held,
        Self::Rung,
        Self::Done,
        Self::Pruned,
        Self::Failed,
        Self::Away,
        Self::Foreign,
    ];

    /// The name, as in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "READY",
            Self::Held => "HELD",
            Self::Rung => "RUNG",
            Self::Done => "DONE",
            Self::Pruned => "PRUNED",
            Self::Failed => "FAILED",
            Self::Away => "AWAY",
            Self::Foreign => "FOREIGN",
        }
    }

    fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name).ok_or_else(|| StorageError::Content {
            what: format!("a work item in state `{}`", crate::printable(name)),
        })
    }
}

/// A work item.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Item {
    /// Its id.
    #[serde(skip)]
    pub id: ItemId,
    /// What it is: unique in the study.
    pub key: String,
    /// The trial that carries it out.
    #[serde(skip)]
    pub trial: i64,
    /// Where it stands.
    pub state: ItemState,
    /// The rung that it waits at or was promoted from.
    pub rung: Option<i64>,
    /// The step that a successor can go on from.
    pub step: u64,
    /// Failures so far.
    pub failures: i64,
    /// Workers lost since there was any progress.
    pub losses: i64,
    /// How often it was claimed.
    pub claims: i64,
    /// The arithmetic that it was begun with.
    pub engine: Option<String>,
    /// Who has it, or had it last.
    pub owner: Option<String>,
    /// Seconds until the lease is over; negative: since. Only of an item that is held.
    pub lease_left: Option<f64>,
    #[serde(skip)]
    step_at_claim: i64,
    #[serde(skip)]
    token: Option<String>,
    #[serde(skip)]
    process: Option<Process>,
}

pub(crate) const ITEM_COLUMNS: &str = "item_id, item_key, trial_id, state, rung, step, failures, losses, claims, \
     engine, owner, lease_until - {clock}, step_at_claim, token, place, pid, pid_started";

impl Item {
    /// Reads [`ITEM_COLUMNS`], which begin at column `at`.
    pub(crate) fn read(row: &Row, at: usize) -> Result<Self> {
        let text = |column| row.optional_text(at + column).map(|text| text.map(str::to_string));
        let process = match (row.optional_int(at + 15)?, row.optional_int(at + 16)?) {
            (Some(pid), started) => u32::try_from(pid).ok().map(|pid| (pid, started.unwrap_or(0))),
            _ => None,
        };
        let state = ItemState::from_name(row.text(at + 3)?)?;
        let place = text(14)?;
        Ok(Self {
            id: ItemId(row.int(at)?),
            key: row.text(at + 1)?.to_string(),
            trial: row.int(at + 2)?,
            state,
            rung: row.optional_int(at + 4)?,
            step: row.int(at + 5)?.unsigned_abs(),
            failures: row.int(at + 6)?,
            losses: row.int(at + 7)?,
            claims: row.int(at + 8)?,
            engine: text(9)?,
            owner: text(10)?,
            lease_left: row.optional_real(at + 11)?.filter(|_| state == ItemState::Held),
            step_at_claim: row.int(at + 12)?,
            token: text(13)?,
            process: process.map(|(pid, started)| Process { place, pid, started: started.unsigned_abs() }),
        })
    }
}

/// How patient a study is with its workers. The same for all of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// How long a worker may be silent before its work is given to another.
    pub lease: Duration,
    /// How often a trial that failed is tried again.
    pub retries: u32,
    /// How many workers may be lost with one item, one after the other, without a step of progress.
    pub losses: u32,
}

impl Default for Policy {
    /// A minute; twice; five.
    fn default() -> Self {
        Self { lease: Duration::from_secs(60), retries: 2, losses: 5 }
    }
}

/// A parameter of a trial that is enqueued.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Json,
    /// What else it could be.
    pub distribution: Distribution,
}

/// A trial to be enqueued.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTrial {
    /// What it is: unique in the study, and the same whenever the same thing is asked for.
    pub key: String,
    /// Its parameters, in the order in which they are declared.
    pub params: Vec<Param>,
    /// What is known of it from the beginning.
    pub user_attributes: Vec<(String, Json)>,
}

/// What [`Storage::enqueue`] and [`Storage::adopt`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Enqueued {
    /// Items that are new.
    pub added: usize,
    /// Items that were there; of `adopt`, trials that nobody here can carry out.
    pub known: usize,
}

/// A trial that another program enqueued.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// Its number.
    pub number: i64,
    /// What it should be carried out with.
    pub fixed_params: Map<String, Json>,
    /// What was noted with it.
    pub user_attributes: Map<String, Json>,
}

/// A worker's right to an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub(crate) study: StudyId,
    pub(crate) item: ItemId,
    pub(crate) token: String,
    pub(crate) key: String,
}

impl Lease {
    /// The item's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The item.
    pub fn item(&self) -> ItemId {
        self.item
    }
}

/// How a worker came by an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// Nobody had begun it.
    New,
    /// It was begun and let go: interrupted, promoted from a rung, or failed.
    Continued,
    /// From a worker that has fallen silent.
    TakenOver {
        /// Its name.
        owner: String,
        /// Whether its process is known to be gone; else its lease was over.
        dead: bool,
    },
}

/// An item that a worker has.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The right to it.
    pub lease: Lease,
    /// How it was come by.
    pub how: How,
    /// The step to go on from, if the checkpoint can be found.
    pub step: u64,
    /// The rung that it was promoted from.
    pub rung: Option<i64>,
    /// How often it failed before.
    pub failures: i64,
    /// The arithmetic that it was begun with, if it is another than the worker's.
    pub other_engine: Option<String>,
    /// The trial: number, parameters, attributes; not what was reported on the way.
    pub trial: Trial,
}

/// The answer to a claim.
#[derive(Clone, Debug, PartialEq)]
pub enum Claimed {
    /// Here it is.
    Work(Box<Claim>),
    /// There is nothing for this worker now. What others hold, and what waits at rungs, may become claimable.
    Nothing {
        /// Items in each state.
        counts: ItemCounts,
        /// Items that could be had but for the arithmetic that they were begun with.
        other_engine: u64,
    },
}

/// Items in each state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ItemCounts(BTreeMap<ItemState, u64>);

impl ItemCounts {
    /// How many are in this state.
    pub fn of(&self, state: ItemState) -> u64 {
        self.0.get(&state).copied().unwrap_or(0)
    }

    /// How many there are.
    pub fn all(&self) -> u64 {
        self.0.values().sum()
    }

    /// Whether somebody here has, or will have, something to do.
    pub fn is_unfinished(&self) -> bool {
        [ItemState::Ready, ItemState::Held, ItemState::Rung].into_iter().any(|state| self.of(state) > 0)
    }
}

/// What a worker has to say of its trial. Later words on the same thing take the place of earlier ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    step: Option<u64>,
    values: BTreeMap<u64, f64>,
    attributes: BTreeMap<String, Json>,
}

impl Record {
    /// Nothing to say.
    pub fn new() -> Self {
        Self::default()
    }

    /// A value at a step, NaN and infinities too.
    pub fn value(mut self, step: u64, value: f64) -> Self {
        self.values.insert(step, value);
        self
    }

    /// An attribute that people see.
    pub fn attribute(mut self, key: impl Into<String>, value: impl Into<Json>) -> Self {
        self.attributes.insert(key.into(), value.into());
        self
    }

    /// A checkpoint of this step is safe: whoever takes the trial over can go on from there.
    pub fn safe_step(mut self, step: u64) -> Self {
        self.step = Some(step);
        self
    }

    /// Adds what was said later.
    pub(crate) fn merge(&mut self, later: Self) {
        self.step = later.step.or(self.step);
        self.values.extend(later.values);
        self.attributes.extend(later.attributes);
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How a trial ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// With this value. NaN is no value: such a trial fails and is not tried again.
    Complete(f64),
    /// It lost a comparison. Its value is, as in Optuna, the last that it reported.
    Pruned,
    /// It could not go on.
    Failed {
        /// Why, in one line.
        reason: String,
        /// Whether the same trial could succeed if it is tried again.
        retry: bool,
    },
}

/// What became of the item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// It has its result.
    Done,
    /// It lost.
    Pruned,
    /// It failed, and is tried again under this number.
    Retried {
        /// The number of the new trial.
        number: i64,
    },
    /// It failed for good.
    Failed,
}

/// What to do with an item that waits at a rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It goes on.
    Promote,
    /// It ends here.
    Prune,
}

/// User attribute with the reason of a failure.
pub const FAIL_REASON: &str = "fail_reason";
/// System attribute of a trial that goes on where a complete one ended: the number of that one.
pub const EXTENDS: &str = "diapason:extends";

impl Storage {
    /// Enqueues every trial whose key the study does not have yet, all in one transaction: as WAITING trials with
    /// parameters and `fixed_params`, so that Optuna shows them, and a Python worker could carry them out.
    ///
    /// # Errors
    /// Names and values that Optuna has no room for; a parameter whose kind differs from what the study has. Nothing
    /// is enqueued then.
    pub fn enqueue(&mut self, study: StudyId, trials: &[NewTrial]) -> Result<Enqueued> {
        let mut keys = HashSet::with_capacity(trials.len());
        for trial in trials {
            check(trial)?;
            if !keys.insert(trial.key.as_str()) {
                return Err(StorageError::Refused {
                    what: format!("two trials of the key `{}`", crate::printable(&trial.key)),
                });
            }
        }
        self.write(|on| {
            lock_study(on, study)?;
            check_distributions(on, study, trials)?;
            let known =
                on.query("SELECT item_key FROM diapason_items WHERE study_id = $1", &[study.0.into()])?;
            let known: HashSet<&str> = known.iter().map(|row| row.text(0)).collect::<Result<_>>()?;
            let new: Vec<&NewTrial> =
                trials.iter().filter(|trial| !known.contains(trial.key.as_str())).collect();
            let mut number = next_number(on, study)?;
            // Some thousand rows at a time, so that a large grid does not need large memory.
            for chunk in new.chunks(1000) {
                insert_trials(on, study, number, chunk)?;
                number += chunk.len() as i64;
            }
            Ok(Enqueued { added: new.len(), known: trials.len() - new.len() })
        })
    }

    /// Makes work items for the WAITING trials that another program enqueued. `recognise` says what such a trial is;
    /// what it does not recognise, or what the study has already, is marked as foreign and left alone. It is asked
    /// again if the transaction has to be run again.
    ///
    /// # Errors
    /// As [`Storage::enqueue`].
    pub fn adopt(
        &mut self,
        study: StudyId,
        mut recognise: impl FnMut(&Waiting) -> Option<NewTrial>,
    ) -> Result<Enqueued> {
        let strays = "SELECT t.trial_id FROM trials t WHERE t.study_id = $1 AND t.state = 'WAITING'
             AND NOT EXISTS (SELECT 1 FROM diapason_items i WHERE i.trial_id = t.trial_id) ORDER BY t.number";
        if self.read(|on| on.query(strays, &[study.0.into()]))?.is_empty() {
            return Ok(Enqueued::default());
        }
        self.write(|on| {
            lock_study(on, study)?;
            let mut done = Enqueued::default();
            for row in on.query(strays, &[study.0.into()])? {
                let trial = trials::by_id(on, row.int(0)?)?;
                let fixed = match trial.system_attributes.get("fixed_params") {
                    Some(Json::Object(fixed)) => fixed.clone(),
                    _ => trial.params.clone(),
                };
                let waiting = Waiting {
                    number: trial.number,
                    fixed_params: fixed,
                    user_attributes: trial.user_attributes.clone(),
                };
                let own = match recognise(&waiting) {
                    Some(new) => {
                        check(&new)?;
                        adopt_as(on, study, &trial, &new)?
                    }
                    None => false,
                };
                if own {
                    done.added += 1;
                } else {
                    insert_item(on, study, &format!("foreign:{}", trial.id), trial.id, ItemState::Foreign)?;
                    done.known += 1;
                }
            }
            Ok(done)
        })
    }

    /// Reopens items that have their result, since more steps are wanted now: a new trial takes over parameters,
    /// attributes and what was reported, and goes on from the old one's checkpoint. How many were reopened.
    ///
    /// # Errors
    /// The database's.
    pub fn extend(&mut self, study: StudyId, items: &[ItemId]) -> Result<usize> {
        let mut items = items.to_vec();
        items.sort_unstable();
        self.write(|on| {
            lock_study(on, study)?;
            let mut reopened = 0;
            for id in &items {
                let Some(item) = lock_item(on, *id)?.filter(|item| item.state == ItemState::Done) else {
                    continue;
                };
                let (trial, _) = successor(on, study, item.trial, true)?;
                on.execute(
                    "UPDATE diapason_items SET state = 'READY', trial_id = $2, losses = 0 WHERE item_id = $1",
                    &[id.0.into(), trial.into()],
                )?;
                reopened += 1;
            }
            Ok(reopened)
        })
    }

    /// Gives the worker the first item that can be had: one of a worker that has fallen silent, else one that is
    /// ready.
    ///
    /// # Errors
    /// The database's.
    pub fn claim(&mut self, study: StudyId, worker: &Worker, policy: &Policy) -> Result<Claimed> {
        encode::name("engine id", &worker.engine)?;
        let token = token::draw();
        let mut given: Option<How> = None;
        self.write(|on| {
            let hand = Hand { study, worker, policy, token: &token };
            // The transaction may have been committed and its answer lost.
            if let Some(how) = given.clone()
                && let Some(item) = held_under(on, study, &token)?
            {
                return hand.claim(on, &item, how, None).map(|claim| Claimed::Work(Box::new(claim)));
            }
            let found = hand.search(on)?;
            if let Claimed::Work(claim) = &found {
                given = Some(claim.how.clone());
            }
            Ok(found)
        })
    }

    /// Writes what the worker has to say, and renews its lease and Optuna's heartbeat.
    ///
    /// # Errors
    /// [`StorageError::LeaseLost`]: somebody else has the trial, or has ended it. Nothing was written.
    pub fn record(&mut self, lease: &Lease, record: &Record, policy: &Policy) -> Result<()> {
        let kept = self.record_all(&[(lease, record)], policy)?;
        if kept == [true] { Ok(()) } else { Err(StorageError::LeaseLost { key: lease.key.clone() }) }
    }

    /// [`Storage::record`] for several trials in one transaction. Which of the leases still hold: of the others
    /// nothing was written.
    ///
    /// # Errors
    /// The database's.
    pub fn record_all(&mut self, records: &[(&Lease, &Record)], policy: &Policy) -> Result<Vec<bool>> {
        // Locks are taken in one order.
        let mut order: Vec<usize> = (0..records.len()).collect();
        order.sort_by_key(|&index| records[index].0.item);
        self.write(|on| {
            let mut kept = vec![false; records.len()];
            for &index in &order {
                let (lease, record) = records[index];
                let rows = on.query(
                    "UPDATE diapason_items SET lease_until = {clock} + $3, step = COALESCE($4, step)
                     WHERE item_id = $1 AND token = $2 AND state = 'HELD' AND EXISTS
                         (SELECT 1 FROM trials t WHERE t.trial_id = diapason_items.trial_id AND t.state = 'RUNNING')
                     RETURNING trial_id",
                    &[
                        lease.item.0.into(),
                        lease.token.as_str().into(),
                        policy.lease.as_secs_f64().into(),
                        record.step.map(|step| step as i64).into(),
                    ],
                )?;
                if let Some(row) = rows.first() {
                    let trial = row.int(0)?;
                    beat(on, trial)?;
                    write_record(on, trial, record)?;
                    kept[index] = true;
                }
            }
            Ok(kept)
        })
    }

    /// Forgets what the trial reported: it begins anew, since no checkpoint of it can be found, or since another
    /// arithmetic computes it now.
    ///
    /// # Errors
    /// [`StorageError::LeaseLost`].
    pub fn restart(&mut self, lease: &Lease) -> Result<()> {
        self.write(|on| {
            let item =
                fenced(on, lease)?.ok_or_else(|| StorageError::LeaseLost { key: lease.key.clone() })?;
            on.execute("DELETE FROM trial_intermediate_values WHERE trial_id = $1", &[item.trial.into()])?;
            on.execute(
                "UPDATE diapason_items SET step = 0, step_at_claim = 0 WHERE item_id = $1",
                &[lease.item.0.into()],
            )?;
            Ok(())
        })
    }

    /// Ends the trial: what the worker has to say, the value and the state, in one transaction.
    ///
    /// # Errors
    /// [`StorageError::LeaseLost`]: somebody else has the trial, or has ended it. Nothing was written.
    pub fn finish(
        &mut self,
        lease: &Lease,
        record: &Record,
        outcome: &Outcome,
        policy: &Policy,
    ) -> Result<Finished> {
        let outcome = match outcome {
            Outcome::Complete(value) if value.is_nan() => {
                Outcome::Failed { reason: "its value is NaN".to_string(), retry: false }
            }
            outcome => outcome.clone(),
        };
        let mut before = None;
        self.write(|on| {
            let item = match (fenced(on, lease)?, before) {
                (Some(item), _) => item,
                // It was committed, and its answer was lost.
                (None, Some(finished)) => return Ok(finished),
                (None, None) => return Err(StorageError::LeaseLost { key: lease.key.clone() }),
            };
            write_record(on, item.trial, record)?;
            let finished = match &outcome {
                Outcome::Complete(value) => {
                    end_trial(on, item.trial, TrialState::Complete, Some(*value))?;
                    set_item(on, item.id, ItemState::Done)?;
                    Finished::Done
                }
                Outcome::Pruned => {
                    prune(on, item.trial)?;
                    set_item(on, item.id, ItemState::Pruned)?;
                    Finished::Pruned
                }
                Outcome::Failed { reason, retry } => fail(on, lease.study, &item, reason, *retry, policy)?,
            };
            before = Some(finished);
            Ok(finished)
        })
    }

    /// Lets the trial go, so that another worker, or this one later, goes on with it.
    ///
    /// # Errors
    /// [`StorageError::LeaseLost`].
    pub fn release(&mut self, lease: &Lease, record: &Record) -> Result<()> {
        self.let_go(lease, record, ItemState::Ready, None)
    }

    /// Leaves the trial at a rung until [`Storage::decide`].
    ///
    /// # Errors
    /// [`StorageError::LeaseLost`].
    pub fn park(&mut self, lease: &Lease, record: &Record, rung: u32) -> Result<()> {
        self.let_go(lease, record, ItemState::Rung, Some(rung))
    }

    fn let_go(&mut self, lease: &Lease, record: &Record, state: ItemState, rung: Option<u32>) -> Result<()> {
        let mut before = false;
        self.write(|on| {
            let Some(item) = fenced(on, lease)? else {
                return if before { Ok(()) } else { Err(StorageError::LeaseLost { key: lease.key.clone() }) };
            };
            write_record(on, item.trial, record)?;
            on.execute("DELETE FROM trial_heartbeats WHERE trial_id = $1", &[item.trial.into()])?;
            on.execute(
                "UPDATE diapason_items SET state = $2, rung = COALESCE($3, rung), step = COALESCE($4, step), losses = 0
                 WHERE item_id = $1",
                &[
                    item.id.0.into(),
                    state.name().into(),
                    rung.map(i64::from).into(),
                    record.step.map(|step| step as i64).into(),
                ],
            )?;
            before = true;
            Ok(())
        })
    }

    /// Carries out decisions on items that wait at a rung, in one transaction with the attributes that say what they
    /// were made from. An item that does not wait at a rung any more is left as it is: any number of workers may decide
    /// the same. How many were carried out.
    ///
    /// # Errors
    /// The database's.
    pub fn decide(
        &mut self,
        study: StudyId,
        decisions: &[(ItemId, Decision)],
        attributes: &[(String, Json)],
    ) -> Result<usize> {
        let mut decisions = decisions.to_vec();
        decisions.sort_by_key(|(item, _)| *item);
        self.write(|on| {
            let mut carried_out = 0;
            for (id, decision) in &decisions {
                let Some(item) = lock_item(on, *id)?.filter(|item| item.state == ItemState::Rung) else {
                    continue;
                };
                match decision {
                    Decision::Promote => set_item(on, *id, ItemState::Ready)?,
                    Decision::Prune => {
                        // Somebody may have ended it from a dashboard.
                        if trial_state(on, item.trial)? == TrialState::Running {
                            prune(on, item.trial)?;
                        }
                        set_item(on, *id, ItemState::Pruned)?;
                    }
                }
                carried_out += 1;
            }
            for (key, value) in attributes {
                encode::name("attribute", key)?;
                let row = vec![study.0.into(), key.as_str().into(), encode::json_text(value).into()];
                let replace =
                    r#"ON CONFLICT (study_id, "key") DO UPDATE SET value_json = excluded.value_json"#;
                insert_all(
                    on,
                    r#"study_user_attributes (study_id, "key", value_json)"#,
                    "(?, ?, ?)",
                    replace,
                    &[row],
                )?;
            }
            Ok(carried_out)
        })
    }

    /// Work items of a study, in the order in which they are claimed: at most `limit` after `after`.
    ///
    /// # Errors
    /// The database's.
    pub fn items(
        &mut self,
        study: StudyId,
        state: Option<ItemState>,
        after: Option<ItemId>,
        limit: usize,
    ) -> Result<Vec<Item>> {
        if !self.has_items() {
            return Ok(Vec::new());
        }
        let filter = state.map_or(String::new(), |state| format!("AND state = '{}'", state.name()));
        let sql = format!(
            "SELECT {ITEM_COLUMNS} FROM diapason_items WHERE study_id = $1 {filter} AND item_id > $2
             ORDER BY item_id LIMIT $3"
        );
        let after = after.map_or(0, |item| item.0);
        self.read(|on| {
            let rows = on.query(&sql, &[study.0.into(), after.into(), (limit as i64).into()])?;
            rows.iter().map(|row| Item::read(row, 0)).collect()
        })
    }

    /// How many items are in each state.
    ///
    /// # Errors
    /// The database's.
    pub fn item_counts(&mut self, study: StudyId) -> Result<ItemCounts> {
        if !self.has_items() {
            return Ok(ItemCounts::default());
        }
        self.read(|on| counts(on, study))
    }

    /// What the current trial of every item reported at a step: what rungs are decided on.
    ///
    /// # Errors
    /// The database's.
    pub fn values_at(&mut self, study: StudyId, step: u64) -> Result<Vec<(ItemId, f64)>> {
        let step = encode::step(step)?;
        self.read(|on| {
            let rows = on.query(
                "SELECT i.item_id, v.intermediate_value, CAST(v.intermediate_value_type AS TEXT)
                 FROM diapason_items i JOIN trial_intermediate_values v ON v.trial_id = i.trial_id
                 WHERE i.study_id = $1 AND v.step = $2 ORDER BY i.item_id",
                &[study.0.into(), step.into()],
            )?;
            rows.iter()
                .map(|row| Ok((ItemId(row.int(0)?), encode::number(row.optional_real(1)?, row.text(2)?)?)))
                .collect()
        })
    }
}

/// A worker who reaches for an item.
struct Hand<'a> {
    study: StudyId,
    worker: &'a Worker,
    policy: &'a Policy,
    token: &'a str,
}

impl Hand<'_> {
    fn search(&self, on: &mut dyn Statements) -> Result<Claimed> {
        let study: Value = self.study.0.into();
        let mut other_engine = 0;
        let here = self.worker.process.place.as_deref();
        // What a silent worker left behind has waited longest.
        let held = format!(
            "SELECT {ITEM_COLUMNS} FROM diapason_items WHERE study_id = $1 AND state = 'HELD' ORDER BY item_id"
        );
        for row in on.query(&held, &[study.clone()])? {
            let item = Item::read(&row, 0)?;
            let dead = item.process.as_ref().is_some_and(|process| process.is_dead(here));
            if !dead && item.lease_left.is_some_and(|left| left >= 0.0) {
                continue;
            }
            if !self.may_take(&item) {
                other_engine += 1;
                continue;
            }
            // The owner may have come back to life since, and another may have been quicker.
            let expired = if dead { "" } else { "AND lease_until < {clock}" };
            let taken = on.execute(
                &format!(
                    "UPDATE diapason_items SET token = $3 WHERE item_id = $1 AND state = 'HELD' AND token = $2 {expired}"
                ),
                &[item.id.0.into(), item.token.as_deref().into(), self.token.into()],
            )?;
            let how = How::TakenOver { owner: item.owner.clone().unwrap_or_default(), dead };
            if taken == 1
                && let Some(claim) = self.take(on, item, how)?
            {
                return Ok(Claimed::Work(Box::new(claim)));
            }
        }
        let engine = if self.worker.allow_other_engine { "" } else { "AND (engine IS NULL OR engine = $2)" };
        let ready = format!(
            "SELECT {ITEM_COLUMNS} FROM diapason_items WHERE study_id = $1 AND state = 'READY' {engine}
             ORDER BY item_id LIMIT 1 {{skip_locked}}"
        );
        let mut parameters = vec![study.clone()];
        if !self.worker.allow_other_engine {
            parameters.push(self.worker.engine.as_str().into());
        }
        while let Some(row) = on.query(&ready, &parameters)?.first() {
            let item = Item::read(row, 0)?;
            let how = if item.claims == 0 { How::New } else { How::Continued };
            if let Some(claim) = self.take(on, item, how)? {
                return Ok(Claimed::Work(Box::new(claim)));
            }
        }
        // What another program took, and did not bring to a good end, is ours again.
        let away = on.query(
            "SELECT i.item_id FROM diapason_items i JOIN trials t ON t.trial_id = i.trial_id
             WHERE i.study_id = $1 AND i.state = 'AWAY' AND t.state IN ('FAIL', 'COMPLETE', 'PRUNED')
             ORDER BY i.item_id",
            &[study.clone()],
        )?;
        for row in away {
            let item = lock_item(on, ItemId(row.int(0)?))?.filter(|item| item.state == ItemState::Away);
            if let Some(item) = item
                && let Some(claim) = self.take(on, item, How::Continued)?
            {
                return Ok(Claimed::Work(Box::new(claim)));
            }
        }
        if !self.worker.allow_other_engine {
            let rows = on.query(
                "SELECT COUNT(*) FROM diapason_items WHERE study_id = $1 AND state = 'READY' AND engine <> $2",
                &[study, self.worker.engine.as_str().into()],
            )?;
            other_engine += rows.first().map_or(Ok(0), |row| row.int(0))?.unsigned_abs();
        }
        Ok(Claimed::Nothing { counts: counts(on, self.study)?, other_engine })
    }

    fn may_take(&self, item: &Item) -> bool {
        self.worker.allow_other_engine
            || item.engine.as_ref().is_none_or(|engine| *engine == self.worker.engine)
    }

    /// Takes an item whose row is locked. `None`: it turned out to be settled, or no longer ours.
    fn take(&self, on: &mut dyn Statements, mut item: Item, how: How) -> Result<Option<Claim>> {
        let mut state = trial_state(on, item.trial)?;
        if state == TrialState::Fail {
            // Somebody else ended it: Optuna's heartbeat check, or a person.
            match fail_again(on, self.study, &item, self.policy)? {
                Finished::Retried { .. } => {
                    item = lock_item(on, item.id)?
                        .ok_or_else(|| StorageError::Content { what: "an item that vanished".to_string() })?;
                    state = TrialState::Waiting;
                }
                _ => return Ok(None),
            }
        }
        match state {
            TrialState::Complete => return set_item(on, item.id, ItemState::Done).map(|()| None),
            TrialState::Pruned => return set_item(on, item.id, ItemState::Pruned).map(|()| None),
            TrialState::Running if item.claims == 0 => {
                return set_item(on, item.id, ItemState::Away).map(|()| None);
            }
            TrialState::Running | TrialState::Waiting | TrialState::Fail => {}
        }
        let mut losses = item.losses;
        if matches!(how, How::TakenOver { .. }) {
            losses = if item.step > item.step_at_claim.unsigned_abs() { 0 } else { losses + 1 };
            if losses > i64::from(self.policy.losses) {
                let reason =
                    format!("{losses} workers were lost with it, one after the other, at step {}", item.step);
                fail(on, self.study, &item, &reason, false, self.policy)?;
                return Ok(None);
            }
        }
        if state == TrialState::Waiting {
            let begun = on.execute(
                "UPDATE trials SET state = 'RUNNING', datetime_start = {utc_now} WHERE trial_id = $1 AND state = 'WAITING'",
                &[item.trial.into()],
            )?;
            if begun != 1 {
                return set_item(on, item.id, ItemState::Away).map(|()| None);
            }
        }
        let process = &self.worker.process;
        on.execute(
            "UPDATE diapason_items SET state = 'HELD', token = $2, owner = $3, place = $4, pid = $5, pid_started = $6,
                 engine = $7, lease_until = {clock} + $8, losses = $9, claims = claims + 1, step_at_claim = step
             WHERE item_id = $1",
            &[
                item.id.0.into(),
                self.token.into(),
                self.worker.name.as_str().into(),
                process.place.as_deref().into(),
                i64::from(process.pid).into(),
                (process.started as i64).into(),
                self.worker.engine.as_str().into(),
                self.policy.lease.as_secs_f64().into(),
                losses.into(),
            ],
        )?;
        beat(on, item.trial)?;
        let other = item.engine.clone().filter(|engine| *engine != self.worker.engine);
        self.claim(on, &item, how, other).map(Some)
    }

    fn claim(&self, on: &mut dyn Statements, item: &Item, how: How, other: Option<String>) -> Result<Claim> {
        Ok(Claim {
            lease: Lease {
                study: self.study,
                item: item.id,
                token: self.token.to_string(),
                key: item.key.clone(),
            },
            how,
            step: item.step,
            rung: item.rung,
            failures: item.failures,
            other_engine: other,
            trial: trials::by_id(on, item.trial)?,
        })
    }
}

fn counts(on: &mut dyn Statements, study: StudyId) -> Result<ItemCounts> {
    let rows = on.query(
        "SELECT state, COUNT(*) FROM diapason_items WHERE study_id = $1 GROUP BY state",
        &[study.0.into()],
    )?;
    rows.iter()
        .map(|row| Ok((ItemState::from_name(row.text(0)?)?, row.int(1)?.unsigned_abs())))
        .collect::<Result<_>>()
        .map(ItemCounts)
}

fn lock_item(on: &mut dyn Statements, id: ItemId) -> Result<Option<Item>> {
    let sql = format!("SELECT {ITEM_COLUMNS} FROM diapason_items WHERE item_id = $1 {{for_update}}");
    on.query(&sql, &[id.0.into()])?.first().map(|row| Item::read(row, 0)).transpose()
}

fn held_under(on: &mut dyn Statements, study: StudyId, token: &str) -> Result<Option<Item>> {
    let sql = format!(
        "SELECT {ITEM_COLUMNS} FROM diapason_items WHERE study_id = $1 AND state = 'HELD' AND token = $2"
    );
    on.query(&sql, &[study.0.into(), token.into()])?.first().map(|row| Item::read(row, 0)).transpose()
}

/// The item, locked, if the lease still holds and nobody else has ended the trial.
fn fenced(on: &mut dyn Statements, lease: &Lease) -> Result<Option<Item>> {
    let Some(item) = lock_item(on, lease.item)? else { return Ok(None) };
    let ours = item.state == ItemState::Held && item.token.as_deref() == Some(&lease.token);
    if ours && trial_state(on, item.trial)? == TrialState::Running { Ok(Some(item)) } else { Ok(None) }
}

/// The state of a trial, whose row is locked.
fn trial_state(on: &mut dyn Statements, trial: i64) -> Result<TrialState> {
    let rows =
        on.query("SELECT CAST(state AS TEXT) FROM trials WHERE trial_id = $1 {for_update}", &[trial.into()])?;
    let row =
        rows.first().ok_or_else(|| StorageError::Content { what: format!("no trial of id {trial}") })?;
    TrialState::from_name(row.text(0)?)
}

fn set_item(on: &mut dyn Statements, id: ItemId, state: ItemState) -> Result<()> {
    on.execute(
        "UPDATE diapason_items SET state = $2 WHERE item_id = $1",
        &[id.0.into(), state.name().into()],
    )?;
    Ok(())
}

/// Optuna's heartbeat, for Python workers that look for the dead.
fn beat(on: &mut dyn Statements, trial: i64) -> Result<()> {
    on.execute(
        "INSERT INTO trial_heartbeats (trial_id, heartbeat) VALUES ($1, {session_now})
         ON CONFLICT (trial_id) DO UPDATE SET heartbeat = excluded.heartbeat",
        &[trial.into()],
    )?;
    Ok(())
}

fn write_record(on: &mut dyn Statements, trial: i64, record: &Record) -> Result<()> {
    let mut values = Vec::with_capacity(record.values.len());
    for (&step, &x) in &record.values {
        let (value, kind) = encode::intermediate(x);
        values.push(vec![trial.into(), encode::step(step)?.into(), value.into(), kind.into()]);
    }
    insert_all(
        on,
        "trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)",
        "(?, ?, ?, ?)",
        "ON CONFLICT (trial_id, step) DO UPDATE SET intermediate_value = excluded.intermediate_value,
         intermediate_value_type = excluded.intermediate_value_type",
        &values,
    )?;
    set_attributes(on, Attributes::User, trial, record.attributes.iter())
}

fn set_attributes<'a>(
    on: &mut dyn Statements,
    kind: Attributes,
    trial: i64,
    attributes: impl Iterator<Item = (&'a String, &'a Json)>,
) -> Result<()> {
    let mut rows: Vec<Vec<Value>> = Vec::new();
    for (key, value) in attributes {
        encode::name("attribute", key)?;
        rows.push(vec![trial.into(), key.as_str().into(), encode::json_text(value).into()]);
    }
    let table = if kind == Attributes::User { "trial_user_attributes" } else { "trial_system_attributes" };
    let replace = r#"ON CONFLICT (trial_id, "key") DO UPDATE SET value_json = excluded.value_json"#;
    insert_all(on, &format!(r#"{table} (trial_id, "key", value_json)"#), "(?, ?, ?)", replace, &rows)?;
    Ok(())
}

/// Ends a trial. What belongs to it must have been written: Optuna never looks at it again.
fn end_trial(on: &mut dyn Statements, trial: i64, state: TrialState, value: Option<f64>) -> Result<()> {
    if let Some((value, kind)) = value.and_then(encode::value) {
        let row = vec![trial.into(), 0.into(), value.into(), kind.into()];
        insert_all(
            on,
            "trial_values (trial_id, objective, value, value_type)",
            "(?, ?, ?, ?)",
            "ON CONFLICT (trial_id, objective) DO UPDATE SET value = excluded.value, value_type = excluded.value_type",
            &[row],
        )?;
    }
    on.execute("DELETE FROM trial_heartbeats WHERE trial_id = $1", &[trial.into()])?;
    let ended = on.execute(
        &format!(
            "UPDATE trials SET state = '{}', datetime_complete = {{utc_now}},
                 datetime_start = COALESCE(datetime_start, {{utc_now}})
             WHERE trial_id = $1 AND state IN ('RUNNING', 'WAITING')",
            state.name()
        ),
        &[trial.into()],
    )?;
    if ended != 1 {
        return Err(StorageError::Content {
            what: format!("a trial of id {trial} that is finished already"),
        });
    }
    Ok(())
}

/// Ends a trial as pruned, with the value that Optuna gives it: the last reported, if it is a number.
fn prune(on: &mut dyn Statements, trial: i64) -> Result<()> {
    let rows = on.query(
        "SELECT intermediate_value, CAST(intermediate_value_type AS TEXT) FROM trial_intermediate_values
         WHERE trial_id = $1 ORDER BY step DESC LIMIT 1",
        &[trial.into()],
    )?;
    let last = rows.first().map(|row| encode::number(row.optional_real(0)?, row.text(1)?)).transpose()?;
    end_trial(on, trial, TrialState::Pruned, last)
}

/// Ends a trial as failed, and enqueues it again if that is allowed.
fn fail(
    on: &mut dyn Statements,
    study: StudyId,
    item: &Item,
    reason: &str,
    retry: bool,
    policy: &Policy,
) -> Result<Finished> {
    let reason = (FAIL_REASON.to_string(), Json::from(crate::error::one_line(reason)));
    set_attributes(on, Attributes::User, item.trial, std::iter::once((&reason.0, &reason.1)))?;
    end_trial(on, item.trial, TrialState::Fail, None)?;
    if retry {
        return fail_again(on, study, item, policy);
    }
    on.execute(
        "UPDATE diapason_items SET state = 'FAILED', failures = failures + 1 WHERE item_id = $1",
        &[item.id.0.into()],
    )?;
    Ok(Finished::Failed)
}

/// The trial of the item has failed: another takes its place, unless it has failed too often.
fn fail_again(on: &mut dyn Statements, study: StudyId, item: &Item, policy: &Policy) -> Result<Finished> {
    if item.failures >= i64::from(policy.retries) {
        on.execute(
            "UPDATE diapason_items SET state = 'FAILED', failures = failures + 1 WHERE item_id = $1",
            &[item.id.0.into()],
        )?;
        return Ok(Finished::Failed);
    }
    lock_study(on, study)?;
    let (trial, number) = successor(on, study, item.trial, false)?;
    on.execute(
        "UPDATE diapason_items SET state = 'READY', trial_id = $2, failures = failures + 1, losses = 0 WHERE item_id = $1",
        &[item.id.0.into(), trial.into()],
    )?;
    Ok(Finished::Retried { number })
}

/// A new WAITING trial with the parameters and attributes of another; its id and number. The study is locked.
fn successor(on: &mut dyn Statements, study: StudyId, old: i64, extends: bool) -> Result<(i64, i64)> {
    let before = trials::by_id(on, old)?;
    let number = next_number(on, study)?;
    let made = on.query(
        "INSERT INTO trials (number, study_id, state) VALUES ($1, $2, 'WAITING') RETURNING trial_id",
        &[number.into(), study.0.into()],
    )?;
    let new =
        made.first().ok_or_else(|| StorageError::Content { what: "no new trial".to_string() })?.int(0)?;
    let both: [Value; 2] = [new.into(), old.into()];
    on.execute(
        "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
         SELECT CAST($1 AS INTEGER), param_name, param_value, distribution_json
         FROM trial_params WHERE trial_id = $2 ORDER BY param_id",
        &both,
    )?;
    if extends {
        on.execute(
            "INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)
             SELECT CAST($1 AS INTEGER), step, intermediate_value, intermediate_value_type
             FROM trial_intermediate_values WHERE trial_id = $2 ORDER BY step",
            &both,
        )?;
    }
    let mut user = before.user_attributes;
    user.remove(FAIL_REASON);
    set_attributes(on, Attributes::User, new, user.iter())?;
    let mut system = before.system_attributes;
    if extends {
        system.insert(EXTENDS.to_string(), before.number.into());
    } else {
        // As Optuna's RetryHeartbeatStaleTrialCallback.
        system.entry("failed_trial").or_insert_with(|| before.number.into());
        let history = system.entry("retry_history").or_insert_with(|| Json::Array(Vec::new()));
        if let Json::Array(numbers) = history {
            numbers.push(before.number.into());
        }
    }
    set_attributes(on, Attributes::System, new, system.iter())?;
    Ok((new, number))
}

/// The number of the next trial: Optuna counts those before it. The study is locked.
fn next_number(on: &mut dyn Statements, study: StudyId) -> Result<i64> {
    let rows = on.query("SELECT COUNT(*) FROM trials WHERE study_id = $1", &[study.0.into()])?;
    rows.first().map_or(Ok(0), |row| row.int(0))
}

fn insert_item(
    on: &mut dyn Statements,
    study: StudyId,
    key: &str,
    trial: i64,
    state: ItemState,
) -> Result<bool> {
    let inserted = on.execute(
        "INSERT INTO diapason_items (study_id, item_key, trial_id, state) VALUES ($1, $2, $3, $4)
         ON CONFLICT (study_id, item_key) DO NOTHING",
        &[study.0.into(), key.into(), trial.into(), state.name().into()],
    )?;
    Ok(inserted == 1)
}

/// Makes an item of a trial that another program enqueued; false if the study has the key already.
fn adopt_as(on: &mut dyn Statements, study: StudyId, trial: &Trial, new: &NewTrial) -> Result<bool> {
    check_distributions(on, study, std::slice::from_ref(new))?;
    if !insert_item(on, study, &new.key, trial.id, ItemState::Ready)? {
        return Ok(false);
    }
    let mut rows = Vec::new();
    for param in new.params.iter().filter(|param| !trial.params.contains_key(&param.name)) {
        rows.push(param_row(trial.id, param)?);
    }
    insert_all(on, PARAM_COLUMNS, "(?, ?, ?, ?)", "", &rows)?;
    let attributes: BTreeMap<String, Json> = new.user_attributes.iter().cloned().collect();
    set_attributes(on, Attributes::User, trial.id, attributes.iter())?;
    Ok(true)
}

const PARAM_COLUMNS: &str = "trial_params (trial_id, param_name, param_value, distribution_json)";

fn param_row(trial: i64, param: &Param) -> Result<Vec<Value>> {
    let internal = param.distribution.internal(&param.value).ok_or_else(|| StorageError::Refused {
        what: format!(
            "{} = {}: it is none of {}",
            crate::printable(&param.name),
            crate::printable(&param.value.to_string()),
            crate::printable(&param.distribution.to_json())
        ),
    })?;
    Ok(vec![trial.into(), param.name.as_str().into(), internal.into(), param.distribution.to_json().into()])
}

/// Inserts trials with consecutive numbers from `number`.
fn insert_trials(on: &mut dyn Statements, study: StudyId, number: i64, new: &[&NewTrial]) -> Result<()> {
    let heads: Vec<Vec<Value>> =
        (0..new.len()).map(|i| vec![(number + i as i64).into(), study.0.into()]).collect();
    let made = insert_all(
        on,
        "trials (number, study_id, state)",
        "(?, ?, 'WAITING')",
        "RETURNING number, trial_id",
        &heads,
    )?;
    let ids: HashMap<i64, i64> =
        made.iter().map(|row| Ok((row.int(0)?, row.int(1)?))).collect::<Result<_>>()?;
    let (mut params, mut user, mut system, mut items) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (trial, number) in new.iter().zip(number..) {
        let id = *ids
            .get(&number)
            .ok_or_else(|| StorageError::Content { what: format!("no trial {number} after making it") })?;
        for param in &trial.params {
            params.push(param_row(id, param)?);
        }
        for (key, value) in &trial.user_attributes {
            user.push(vec![id.into(), key.as_str().into(), encode::json_text(value).into()]);
        }
        let fixed =
            encode::fixed_params(trial.params.iter().map(|param| (param.name.as_str(), &param.value)));
        system.push(vec![id.into(), encode::json_text(&fixed).into()]);
        items.push(vec![study.0.into(), trial.key.as_str().into(), id.into()]);
    }
    insert_all(on, PARAM_COLUMNS, "(?, ?, ?, ?)", "", &params)?;
    insert_all(on, r#"trial_user_attributes (trial_id, "key", value_json)"#, "(?, ?, ?)", "", &user)?;
    insert_all(
        on,
        r#"trial_system_attributes (trial_id, "key", value_json)"#,
        "(?, 'fixed_params', ?)",
        "",
        &system,
    )?;
    insert_all(on, "diapason_items (study_id, item_key, trial_id, state)", "(?, ?, ?, 'READY')", "", &items)?;
    Ok(())
}

/// What can be refused without a database.
fn check(trial: &NewTrial) -> Result<()> {
    encode::name("key", &trial.key)?;
    let mut names = HashSet::new();
    for param in &trial.params {
        encode::name("parameter", &param.name)?;
        if !names.insert(&param.name) {
            return Err(StorageError::Refused {
                what: format!("the parameter `{}` twice in one trial", crate::printable(&param.name)),
            });
        }
        param_row(0, param)?;
    }
    let mut keys = HashSet::new();
    for (key, _) in &trial.user_attributes {
        encode::name("attribute", key)?;
        if !keys.insert(key) {
            return Err(StorageError::Refused {
                what: format!("the attribute `{}` twice in one trial", crate::printable(key)),
            });
        }
    }
    Ok(())
}

/// A parameter has one kind of distribution in a study: Optuna refuses to read a study where it has two.
fn check_distributions(on: &mut dyn Statements, study: StudyId, trials: &[NewTrial]) -> Result<()> {
    let mut seen: HashMap<&str, Distribution> = HashMap::new();
    for param in trials.iter().flat_map(|trial| &trial.params) {
        let known = match seen.get(param.name.as_str()) {
            Some(known) => known.clone(),
            None => {
                let rows = on.query(
                    "SELECT p.distribution_json FROM trial_params p JOIN trials t ON t.trial_id = p.trial_id
                     WHERE t.study_id = $1 AND p.param_name = $2 LIMIT 1",
                    &[study.0.into(), param.name.as_str().into()],
                )?;
                match rows.first() {
                    Some(row) => Distribution::from_json(row.text(0)?)?,
                    None => param.distribution.clone(),
                }
            }
        };
        if known.widened(&param.distribution).is_none() {
            return Err(StorageError::Refused {
                what: format!(
                    "the parameter `{}` as {}: in this study it is {}, and Optuna allows one kind",
                    crate::printable(&param.name),
                    crate::printable(&param.distribution.to_json()),
                    crate::printable(&known.to_json())
                ),
            });
        }
        seen.insert(&param.name, known);
    }
    Ok(())
}
