//! Claiming: how a worker comes by work.
//!
//! One transaction looks for the first item that can be had and takes it. On PostgreSQL, rows that somebody else is
//! just taking are skipped, so that sixty-four workers who come at once do not stand in line; on SQLite there is one
//! writer at a time anyway.

use crate::database::{Statements, Value};
use crate::encode::{self, TrialState};
use crate::item::{ITEM_COLUMNS, Item, ItemCounts, ItemId, ItemState, counts, lock_item, set_item};
use crate::storage::{Storage, StudyId};
use crate::trials::{self, Trial};
use crate::work::{Finished, beat, fail, fail_again, trial_state};
use crate::{Result, StorageError, Worker, token};
use std::time::Duration;

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
    /// A minute; twice; ten.
    fn default() -> Self {
        Self { lease: Duration::from_secs(60), retries: 2, losses: 10 }
    }
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

impl Storage {
    /// Gives the worker the first item that can be had: one of a worker that has fallen silent, else one that is
    /// ready.
    ///
    /// # Errors
    /// The database's.
    pub fn claim(&mut self, study: StudyId, worker: &Worker, policy: &Policy) -> Result<Claimed> {
        encode::name("engine id", &worker.engine)?;
        encode::name("worker", &worker.name)?;
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
        for row in on.query(&held, std::slice::from_ref(&study))? {
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
            std::slice::from_ref(&study),
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

fn held_under(on: &mut dyn Statements, study: StudyId, token: &str) -> Result<Option<Item>> {
    let sql = format!(
        "SELECT {ITEM_COLUMNS} FROM diapason_items WHERE study_id = $1 AND state = 'HELD' AND token = $2"
    );
    on.query(&sql, &[study.0.into(), token.into()])?.first().map(|row| Item::read(row, 0)).transpose()
}
