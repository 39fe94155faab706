//! What becomes of an item that a worker has: everything that its owner writes.
//!
//! Every function that takes a [`Lease`] looks first whether it still holds, in the same transaction and with the row
//! locked: who has lost it changes nothing. What belongs to a trial is written before its final state, since Optuna
//! never looks at a finished trial again.

use crate::claim::{Lease, Policy};
use crate::database::{Statements, Value, insert_all};
use crate::encode::{self, TrialState};
use crate::enqueue::next_number;
use crate::item::{Item, ItemId, ItemState, lock_item, set_item};
use crate::storage::{Attributes, Storage, StudyId, lock_study};
use crate::{Result, StorageError, trials};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// What a worker has to say of its trial. Later words on the same thing take the place of earlier ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    step: Option<u64>,
    values: BTreeMap<u64, f64>,
    attributes: BTreeMap<String, Json>,
    system_attributes: BTreeMap<String, Json>,
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

    /// An attribute for programs, which dashboards do not show.
    pub fn system_attribute(mut self, key: impl Into<String>, value: impl Into<Json>) -> Self {
        self.system_attributes.insert(key.into(), value.into());
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
        self.system_attributes.extend(later.system_attributes);
    }

    /// Whether the database has room for all of it.
    pub(crate) fn check(&self) -> Result<()> {
        self.values.keys().try_for_each(|&step| encode::step(step).map(|_| ()))?;
        let mut keys = self.attributes.keys().chain(self.system_attributes.keys());
        keys.try_for_each(|key| encode::name("attribute", key).map(|_| ()))
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

/// System attribute of a trial with what it reported at a rung; rungs count from 0.
pub fn completed_rung(rung: u32) -> String {
    format!("completed_rung_{rung}")
}

/// System attribute of a trial that goes on where a complete one ended: the number of that one.
pub const EXTENDS: &str = "diapason:extends";

impl Storage {
    /// Reopens items that have their result, since more steps are wanted now: a new trial takes over parameters,
    /// attributes and what was reported, and goes on from the old one's checkpoint. How many were reopened.
    ///
    /// # Errors
    /// The database's.
    pub fn extend(&mut self, study: StudyId, items: &[ItemId]) -> Result<usize> {
        self.reopen(study, items, ItemState::Done)
    }

    fn reopen(&mut self, study: StudyId, items: &[ItemId], from: ItemState) -> Result<usize> {
        let mut items = items.to_vec();
        items.sort_unstable();
        let mut before = None;
        self.write(|on| {
            lock_study(on, study)?;
            let mut reopened = 0;
            for id in &items {
                let Some(item) = lock_item(on, *id)?.filter(|item| item.state == from) else { continue };
                let (trial, _) = successor(on, study, item.trial, from == ItemState::Done)?;
                on.execute(
                    "UPDATE diapason_items SET state = 'READY', trial_id = $2, failures = 0, losses = 0
                     WHERE item_id = $1",
                    &[id.0.into(), trial.into()],
                )?;
                reopened += 1;
            }
            // Run a second time, it finds done what it did.
            Ok(*before.get_or_insert(reopened))
        })
    }

    /// Gives items that failed for good another chance, under new trials: what was wrong has been mended. How many.
    ///
    /// # Errors
    /// The database's.
    pub fn try_again(&mut self, study: StudyId, items: &[ItemId]) -> Result<usize> {
        self.reopen(study, items, ItemState::Failed)
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

    /// Leaves the trial at a rung until [`Storage::decide`]. Its last value becomes the system attribute
    /// `completed_rung_N`, as Optuna's pruner writes it.
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
            if let (Some(rung), Some(value)) = (rung, last_value(on, item.trial)?) {
                let (key, value) = (completed_rung(rung), Json::from(value));
                set_attributes(on, Attributes::System, item.trial, std::iter::once((&key, &value)))?;
            }
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

    /// Carries out decisions on items that wait at `rung`, in one transaction with the attribute of the study that says
    /// what they were made from. An item that does not wait there any more is left as it is: any number of workers may
    /// decide the same. If another decision is stored under that name, it holds, and nothing is carried out. How many
    /// were carried out.
    ///
    /// # Errors
    /// The database's.
    pub fn decide(
        &mut self,
        study: StudyId,
        rung: u32,
        decisions: &[(ItemId, Decision)],
        reason: Option<&(String, Json)>,
    ) -> Result<usize> {
        let mut decisions = decisions.to_vec();
        decisions.sort_by_key(|(item, _)| *item);
        if let Some((key, _)) = reason {
            encode::name("attribute", key)?;
        }
        let mut before = None;
        self.write(|on| {
            lock_study(on, study)?;
            if let Some((key, value)) = reason {
                let value = encode::json_text(value);
                on.execute(
                    r#"INSERT INTO study_user_attributes (study_id, "key", value_json) VALUES ($1, $2, $3)
                       ON CONFLICT (study_id, "key") DO NOTHING"#,
                    &[study.0.into(), key.as_str().into(), value.as_str().into()],
                )?;
                let stored = on.query(
                    r#"SELECT value_json FROM study_user_attributes WHERE study_id = $1 AND "key" = $2"#,
                    &[study.0.into(), key.as_str().into()],
                )?;
                let stored = stored.first().map(|row| row.optional_text(0)).transpose()?.flatten();
                if stored != Some(value.as_str()) {
                    return Ok(0);
                }
            }
            let mut carried_out = 0;
            for (id, decision) in &decisions {
                let waits = |item: &Item| item.state == ItemState::Rung && item.rung == Some(i64::from(rung));
                let Some(item) = lock_item(on, *id)?.filter(waits) else { continue };
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
            // Run a second time, it finds done what it did.
            Ok(*before.get_or_insert(carried_out))
        })
    }
}

/// The item, locked, if the lease still holds and nobody else has ended the trial.
fn fenced(on: &mut dyn Statements, lease: &Lease) -> Result<Option<Item>> {
    let Some(item) = lock_item(on, lease.item)? else { return Ok(None) };
    let ours = item.state == ItemState::Held && item.token.as_deref() == Some(&lease.token);
    if ours && trial_state(on, item.trial)? == TrialState::Running { Ok(Some(item)) } else { Ok(None) }
}

/// The state of a trial, whose row is locked.
pub(crate) fn trial_state(on: &mut dyn Statements, trial: i64) -> Result<TrialState> {
    let rows =
        on.query("SELECT CAST(state AS TEXT) FROM trials WHERE trial_id = $1 {for_update}", &[trial.into()])?;
    let row =
        rows.first().ok_or_else(|| StorageError::Content { what: format!("no trial of id {trial}") })?;
    TrialState::from_name(row.text(0)?)
}

/// Optuna's heartbeat, for Python workers that look for the dead.
pub(crate) fn beat(on: &mut dyn Statements, trial: i64) -> Result<()> {
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
    set_attributes(on, Attributes::User, trial, record.attributes.iter())?;
    set_attributes(on, Attributes::System, trial, record.system_attributes.iter())
}

pub(crate) fn set_attributes<'a>(
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
    let last = last_value(on, trial)?;
    end_trial(on, trial, TrialState::Pruned, last)
}

/// The last value that a trial reported.
fn last_value(on: &mut dyn Statements, trial: i64) -> Result<Option<f64>> {
    let rows = on.query(
        "SELECT intermediate_value, CAST(intermediate_value_type AS TEXT) FROM trial_intermediate_values
         WHERE trial_id = $1 ORDER BY step DESC LIMIT 1",
        &[trial.into()],
    )?;
    rows.first().map(|row| encode::number(row.optional_real(0)?, row.text(1)?)).transpose()
}

/// Ends a trial as failed, and enqueues it again if that is allowed.
pub(crate) fn fail(
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
pub(crate) fn fail_again(
    on: &mut dyn Statements,
    study: StudyId,
    item: &Item,
    policy: &Policy,
) -> Result<Finished> {
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
