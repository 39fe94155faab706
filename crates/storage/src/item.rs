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
//! Optuna's own attributes `failed_trial` and `retry_history`. Both are bounded: failures by [`crate::Policy::retries`],
//! workers lost one after the other without any progress by [`crate::Policy::losses`].
//!
//! Locks are taken in one order everywhere, study, item, trial, so two workers never wait for one another. (A study
//! that is deleted under a worker's hands is the exception; the database ends one of the two, which tries again.)

use crate::database::{Row, Statements};
use crate::encode;
use crate::storage::{Storage, StudyId};
use crate::worker::Process;
use crate::{Result, StorageError};
use serde::Serialize;
use std::collections::BTreeMap;

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
    pub(crate) step_at_claim: i64,
    #[serde(skip)]
    pub(crate) token: Option<String>,
    #[serde(skip)]
    pub(crate) process: Option<Process>,
}

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

pub(crate) const ITEM_COLUMNS: &str = "item_id, item_key, trial_id, state, rung, step, failures, losses, claims, \
     engine, owner, lease_until - {clock}, step_at_claim, token, place, pid, pid_started";

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

impl Storage {
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

    /// The item of that key.
    ///
    /// # Errors
    /// The database's.
    pub fn item(&mut self, study: StudyId, key: &str) -> Result<Option<Item>> {
        if !self.has_items() {
            return Ok(None);
        }
        let sql = format!("SELECT {ITEM_COLUMNS} FROM diapason_items WHERE study_id = $1 AND item_key = $2");
        self.read(|on| {
            on.query(&sql, &[study.0.into(), key.into()])?.first().map(|row| Item::read(row, 0)).transpose()
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

    /// How many items have their result, and what their trials reported at a step: what a trial is compared with while it
    /// runs.
    ///
    /// # Errors
    /// The database's.
    pub fn complete_values_at(&mut self, study: StudyId, step: u64) -> Result<(usize, Vec<f64>)> {
        let step = encode::step(step)?;
        self.read(|on| {
            let complete = on.query(
                "SELECT COUNT(*) FROM diapason_items WHERE study_id = $1 AND state = 'DONE'",
                &[study.0.into()],
            )?;
            let complete = complete.first().map_or(Ok(0), |row| row.int(0))?;
            let rows = on.query(
                "SELECT v.intermediate_value, CAST(v.intermediate_value_type AS TEXT)
                 FROM diapason_items i JOIN trial_intermediate_values v ON v.trial_id = i.trial_id
                 WHERE i.study_id = $1 AND i.state = 'DONE' AND v.step = $2 ORDER BY i.item_id",
                &[study.0.into(), step.into()],
            )?;
            let value = |row: &Row| encode::number(row.optional_real(0)?, row.text(1)?);
            Ok((complete.unsigned_abs() as usize, rows.iter().map(value).collect::<Result<_>>()?))
        })
    }
}

pub(crate) fn counts(on: &mut dyn Statements, study: StudyId) -> Result<ItemCounts> {
    let rows = on.query(
        "SELECT state, COUNT(*) FROM diapason_items WHERE study_id = $1 GROUP BY state",
        &[study.0.into()],
    )?;
    rows.iter()
        .map(|row| Ok((ItemState::from_name(row.text(0)?)?, row.int(1)?.unsigned_abs())))
        .collect::<Result<_>>()
        .map(ItemCounts)
}

pub(crate) fn lock_item(on: &mut dyn Statements, id: ItemId) -> Result<Option<Item>> {
    let sql = format!("SELECT {ITEM_COLUMNS} FROM diapason_items WHERE item_id = $1 {{for_update}}");
    on.query(&sql, &[id.0.into()])?.first().map(|row| Item::read(row, 0)).transpose()
}

pub(crate) fn set_item(on: &mut dyn Statements, id: ItemId, state: ItemState) -> Result<()> {
    on.execute(
        "UPDATE diapason_items SET state = $2 WHERE item_id = $1",
        &[id.0.into(), state.name().into()],
    )?;
    Ok(())
}
