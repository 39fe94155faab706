//! A database with studies in it.

use crate::database::{Access, Database, Dialect, Statements, Value, Wait, insert_all};
use crate::encode::{self, Direction};
use crate::postgres::Postgres;
use crate::schema::{self, Present};
use crate::sqlite::Sqlite;
use crate::{Result, StorageError, StorageUrl};
use serde_json::Value as Json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest pause between two tries to reach a database.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A study, as the database numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StudyId(pub(crate) i64);

/// What is known of a study without looking at its trials.
#[derive(Clone, Debug, PartialEq)]
pub struct StudySummary {
    /// Its id.
    pub id: StudyId,
    /// Its name, which anybody may have chosen: show it through [`crate::printable`].
    pub name: String,
    /// One per objective.
    pub directions: Vec<Direction>,
    /// Number of trials.
    pub trials: u64,
    /// Best finite value of a complete trial; only with one objective.
    pub best: Option<f64>,
    /// When the first trial began.
    pub begun: Option<String>,
}

/// Which attributes of a study.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attributes {
    /// Those that people and programs set, and that dashboards show.
    User,
    /// Those that Optuna and its kin keep for themselves.
    System,
}

/// What a database may be opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// To look into what is there: nothing is made, nothing is written.
    Read,
    /// To work on a database that is there.
    Write,
    /// To work, on a new database if there is none.
    Create,
}

/// Whom to tell of failures.
type Tell = Box<dyn FnMut(&StorageError) + Send>;

/// An open database. Every method is one transaction, unless it says otherwise.
pub struct Storage {
    database: Box<dyn Database>,
    present: Present,
    warning: Option<&'static str>,
    patience: Duration,
    give_up: Option<Arc<AtomicBool>>,
    outage: Option<Tell>,
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Storage").field(&self.database.place()).finish()
    }
}

impl Storage {
    /// Opens the database at `url`. What cannot be reached is an error at once, since it may be a slip of the
    /// keyboard; after that, [`Storage::set_patience`] holds.
    ///
    /// # Errors
    /// There is none, it cannot be reached or used, or it lies on a network file system.
    pub fn open(url: &StorageUrl, opening: Opening) -> Result<Self> {
        let (database, warning): (Box<dyn Database>, _) = match url {
            StorageUrl::Sqlite(path) => {
                let (sqlite, warning) = Sqlite::open(path, opening)?;
                (Box::new(sqlite), warning)
            }
            StorageUrl::Postgres(server) => (Box::new(Postgres::new(server)?), None),
        };
        let mut storage = Self {
            database,
            present: Present::NOTHING,
            warning,
            patience: Duration::ZERO,
            give_up: None,
            outage: None,
        };
        storage.present = storage.wait(|database, wait| schema::inspect(database, wait))?;
        if !storage.present.optuna && opening != Opening::Create {
            return Err(StorageError::NoDatabase { place: storage.place() });
        }
        if opening != Opening::Read {
            storage.wait(|database, wait| schema::create(database, wait))?;
            storage.present = Present::ALL;
        }
        storage.patience = Duration::from_secs(60);
        Ok(storage)
    }

    /// A storage on another kind of database.
    #[cfg(test)]
    pub(crate) fn on(database: Box<dyn Database>) -> Result<Self> {
        let mut storage = Self {
            database,
            present: Present::ALL,
            warning: None,
            patience: Duration::from_secs(60),
            give_up: None,
            outage: None,
        };
        storage.wait(|database, wait| schema::create(database, wait))?;
        Ok(storage)
    }

    /// How long a database that cannot be reached, or is locked, is waited for. A minute, unless set. A worker waits
    /// long enough for a server to be restarted.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Does something that has no patience.
    pub(crate) fn once<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let patience = std::mem::take(&mut self.patience);
        let done = work(self);
        self.patience = patience;
        done
    }

    /// Ends any wait for the database when the flag becomes true.
    pub fn give_up_when(&mut self, flag: Arc<AtomicBool>) {
        self.give_up = Some(flag);
    }

    /// Is told of every failure after which the database is tried again.
    pub fn on_outage(&mut self, tell: impl FnMut(&StorageError) + Send + 'static) {
        self.outage = Some(Box::new(tell));
    }

    /// What the user should know about where the database lies.
    pub fn warning(&self) -> Option<&'static str> {
        self.warning
    }

    /// Where it is, without a password.
    pub fn place(&self) -> String {
        self.database.place()
    }

    /// Whether our own tables are there. Only a database that Python made, opened to be read, has none.
    pub(crate) fn has_items(&self) -> bool {
        self.present.ours
    }

    fn wait<T>(&mut self, run: impl FnOnce(&mut dyn Database, &mut Wait<'_>) -> Result<T>) -> Result<T> {
        let patience = self.patience;
        // From the first failure on: a process that was stopped in the midst of its work has lost no patience.
        let mut until = None;
        let Self { database, give_up, outage, .. } = self;
        let place = database.place();
        let stopped = || give_up.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed));
        let mut next = |error: StorageError, tries: u32| {
            let until = *until.get_or_insert_with(|| Instant::now() + patience);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(error);
            }
            if let Some(tell) = outage {
                tell(&error);
            }
            let pause = pause(tries).min(left);
            let end = Instant::now() + pause;
            loop {
                if stopped() {
                    return Err(StorageError::Interrupted { place: place.clone() });
                }
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(());
                }
                std::thread::sleep(left.min(Duration::from_millis(100)));
            }
        };
        run(database.as_mut(), &mut Wait::new(&mut next))
    }

    /// Runs work that writes as one transaction.
    pub(crate) fn write<T>(&mut self, mut work: impl FnMut(&mut dyn Statements) -> Result<T>) -> Result<T> {
        self.transaction(Access::Write, &mut work)
    }

    /// Runs work that reads as one transaction.
    pub(crate) fn read<T>(&mut self, mut work: impl FnMut(&mut dyn Statements) -> Result<T>) -> Result<T> {
        self.transaction(Access::Read, &mut work)
    }

    fn transaction<T>(
        &mut self,
        access: Access,
        work: &mut dyn FnMut(&mut dyn Statements) -> Result<T>,
    ) -> Result<T> {
        let mut answer = None;
        self.wait(|database, wait| {
            database.transaction(access, wait, &mut |on| {
                answer = Some(work(on)?);
                Ok(())
            })
        })?;
        answer.ok_or_else(|| StorageError::Content { what: "no answer".to_string() })
    }

    /// After many rows were inserted: PostgreSQL plans with what it knew of its tables, and would read them whole until
    /// it looks at them again by itself, a minute later. Whose tables they are not is warned by the server and goes on.
    pub(crate) fn look_again(&mut self) -> Result<()> {
        self.write(|on| match on.dialect() {
            Dialect::Sqlite => Ok(()),
            Dialect::Postgres => on.batch(
                "ANALYZE trials, trial_params, trial_user_attributes, trial_system_attributes, diapason_items",
            ),
        })
    }

    /// Makes a study, or finds it: any number of workers may begin one at once. Its attributes are set with it, in
    /// the same transaction, unless it was there.
    ///
    /// # Errors
    /// A name that is empty or too long; a study of that name with another direction.
    pub fn create_study(
        &mut self,
        name: &str,
        direction: Direction,
        attributes: &[(Attributes, String, Json)],
    ) -> Result<StudyId> {
        encode::name("study name", name)?;
        for (_, key, _) in attributes {
            encode::name("attribute", key)?;
        }
        self.write(|on| {
            // The name is unique: whoever comes second waits for the first and then finds the study.
            let made = on.query(
                "INSERT INTO studies (study_name) VALUES ($1) ON CONFLICT (study_name) DO NOTHING RETURNING study_id",
                &[name.into()],
            )?;
            let Some(row) = made.first() else {
                let id = find(on, name)?.ok_or_else(|| StorageError::NoStudy { name: name.to_string() })?;
                return match directions(on, id)?.as_slice() {
                    [found] if *found == direction => Ok(id),
                    _ => Err(StorageError::StudyExists { name: name.to_string() }),
                };
            };
            let id = StudyId(row.int(0)?);
            on.execute(
                &format!(
                    "INSERT INTO study_directions (direction, study_id, objective) VALUES ('{}', $1, 0)",
                    direction.name()
                ),
                &[id.0.into()],
            )?;
            for (kind, key, value) in attributes {
                set_attribute(on, id, *kind, key, value)?;
            }
            Ok(id)
        })
    }

    /// The study of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn study(&mut self, name: &str) -> Result<StudyId> {
        self.read(|on| find(on, name))?.ok_or_else(|| StorageError::NoStudy { name: name.to_string() })
    }

    /// Every study, in the order in which they were made.
    ///
    /// # Errors
    /// The database's.
    pub fn studies(&mut self) -> Result<Vec<StudySummary>> {
        self.read(|on| {
            let rows = on.query("SELECT study_id, study_name FROM studies ORDER BY study_id", &[])?;
            rows.iter().map(|row| summary(on, StudyId(row.int(0)?), row.text(1)?)).collect()
        })
    }

    /// Deletes a study with all that belongs to it.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn delete_study(&mut self, name: &str) -> Result<()> {
        self.write(|on| {
            let id = find(on, name)?.ok_or_else(|| StorageError::NoStudy { name: name.to_string() })?;
            lock_study(on, id)?;
            let study: [Value; 1] = [id.0.into()];
            // What refers to a row goes before the row.
            on.execute("DELETE FROM diapason_items WHERE study_id = $1", &study)?;
            on.execute("DELETE FROM diapason_costs WHERE study_id = $1", &study)?;
            for table in [
                "trial_heartbeats",
                "trial_intermediate_values",
                "trial_values",
                "trial_params",
                "trial_system_attributes",
                "trial_user_attributes",
            ] {
                on.execute(
                    &format!("DELETE FROM {table} WHERE trial_id IN (SELECT trial_id FROM trials WHERE study_id = $1)"),
                    &study,
                )?;
            }
            for table in
                ["trials", "study_directions", "study_user_attributes", "study_system_attributes", "studies"]
            {
                on.execute(&format!("DELETE FROM {table} WHERE study_id = $1"), &study)?;
            }
            Ok(())
        })
    }

    /// The attributes of a study, in the order of their keys.
    ///
    /// # Errors
    /// The database's.
    pub fn study_attributes(&mut self, study: StudyId, kind: Attributes) -> Result<Vec<(String, Json)>> {
        let sql =
            format!(r#"SELECT "key", value_json FROM {} WHERE study_id = $1 ORDER BY "key""#, kind.table());
        self.read(|on| {
            let rows = on.query(&sql, &[study.0.into()])?;
            rows.iter()
                .map(|row| {
                    Ok((row.text(0)?.to_string(), encode::attribute(row.optional_text(1)?.unwrap_or("null"))))
                })
                .collect()
        })
    }

    /// Sets attributes of a study, all or none.
    ///
    /// # Errors
    /// A key that is empty or too long.
    pub fn set_study_attributes(
        &mut self,
        study: StudyId,
        kind: Attributes,
        attributes: &[(String, Json)],
    ) -> Result<()> {
        for (key, _) in attributes {
            encode::name("attribute", key)?;
        }
        self.write(|on| {
            attributes.iter().try_for_each(|(key, value)| set_attribute(on, study, kind, key, value))
        })
    }

    /// Sets what a step of a cell costs on a machine. The last word counts.
    ///
    /// # Errors
    /// Names that are too long; a time that is no number.
    pub fn set_cost(&mut self, study: StudyId, cost: &Cost) -> Result<()> {
        encode::name("machine", &cost.machine)?;
        encode::name("cell", &cost.cell)?;
        if !cost.seconds_per_step.is_finite() {
            return Err(StorageError::Refused { what: "a cost that is no number".to_string() });
        }
        self.write(|on| {
            on.execute(
                "INSERT INTO diapason_costs (study_id, machine, cell, seconds_per_step, detail_json)
                 VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (study_id, machine, cell) DO UPDATE
                 SET seconds_per_step = excluded.seconds_per_step, detail_json = excluded.detail_json",
                &[
                    study.0.into(),
                    cost.machine.as_str().into(),
                    cost.cell.as_str().into(),
                    cost.seconds_per_step.into(),
                    encode::json_text(&cost.detail).into(),
                ],
            )?;
            Ok(())
        })
    }

    /// All measured costs of a study, by machine and cell.
    ///
    /// # Errors
    /// The database's.
    pub fn costs(&mut self, study: StudyId) -> Result<Vec<Cost>> {
        if !self.has_items() {
            return Ok(Vec::new());
        }
        self.read(|on| {
            let rows = on.query(
                "SELECT machine, cell, seconds_per_step, detail_json FROM diapason_costs
                 WHERE study_id = $1 ORDER BY machine, cell",
                &[study.0.into()],
            )?;
            rows.iter()
                .map(|row| {
                    Ok(Cost {
                        machine: row.text(0)?.to_string(),
                        cell: row.text(1)?.to_string(),
                        seconds_per_step: row.real(2)?,
                        detail: encode::attribute(row.text(3)?),
                    })
                })
                .collect()
        })
    }
}

/// What one step of a cell costs on a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// The machine's name.
    pub machine: String,
    /// The cell's name.
    pub cell: String,
    /// Seconds.
    pub seconds_per_step: f64,
    /// How it was measured.
    pub detail: Json,
}

impl Attributes {
    fn table(self) -> &'static str {
        match self {
            Self::User => "study_user_attributes",
            Self::System => "study_system_attributes",
        }
    }
}

/// Between tries: longer each time, and not the same for all workers that lost the same server.
fn pause(tries: u32) -> Duration {
    let full = Duration::from_millis(20) * 2u32.saturating_pow(tries.min(10));
    let spread = crate::token::random() % 1000;
    full.min(LONGEST_PAUSE).mul_f64(0.5 + spread as f64 / 2000.0)
}

fn find(on: &mut dyn Statements, name: &str) -> Result<Option<StudyId>> {
    let rows = on.query("SELECT study_id FROM studies WHERE study_name = $1", &[name.into()])?;
    rows.first().map(|row| row.int(0).map(StudyId)).transpose()
}

fn directions(on: &mut dyn Statements, id: StudyId) -> Result<Vec<Direction>> {
    let rows = on.query(
        "SELECT CAST(direction AS TEXT) FROM study_directions WHERE study_id = $1 ORDER BY objective",
        &[id.0.into()],
    )?;
    rows.iter().map(|row| Direction::from_name(row.text(0)?)).collect()
}

fn summary(on: &mut dyn Statements, id: StudyId, name: &str) -> Result<StudySummary> {
    let directions = directions(on, id)?;
    let study: [Value; 1] = [id.0.into()];
    let trials = on.query(
        "SELECT COUNT(*), CAST(MIN(datetime_start) AS TEXT) FROM trials WHERE study_id = $1",
        &study,
    )?;
    let best = match directions.as_slice() {
        [direction] => {
            let of = if *direction == Direction::Maximize { "MAX" } else { "MIN" };
            on.query(
                &format!(
                    "SELECT {of}(v.value) FROM trial_values v JOIN trials t ON t.trial_id = v.trial_id
                     WHERE t.study_id = $1 AND t.state = 'COMPLETE' AND v.objective = 0 AND v.value_type = 'FINITE'"
                ),
                &study,
            )?
        }
        _ => Vec::new(),
    };
    let (count, begun) = match trials.first() {
        Some(row) => (row.int(0)?, row.optional_text(1)?.map(encode::time)),
        None => (0, None),
    };
    Ok(StudySummary {
        id,
        name: name.to_string(),
        directions,
        trials: count.unsigned_abs(),
        best: best.first().map(|row| row.optional_real(0)).transpose()?.flatten(),
        begun,
    })
}

/// Whoever makes trials holds the row of their study: the numbers of trials are counted, and nothing else keeps two
/// writers from counting the same. Python does the same.
pub(crate) fn lock_study(on: &mut dyn Statements, id: StudyId) -> Result<()> {
    let rows = on.query("SELECT study_id FROM studies WHERE study_id = $1 {for_update}", &[id.0.into()])?;
    if rows.is_empty() {
        return Err(StorageError::Content { what: format!("no study of id {} any more", id.0) });
    }
    Ok(())
}

fn set_attribute(
    on: &mut dyn Statements,
    id: StudyId,
    kind: Attributes,
    key: &str,
    value: &Json,
) -> Result<()> {
    let into = format!(r#"{} (study_id, "key", value_json)"#, kind.table());
    let row = vec![id.0.into(), key.into(), encode::json_text(value).into()];
    let replace = r#"ON CONFLICT (study_id, "key") DO UPDATE SET value_json = excluded.value_json"#;
    insert_all(on, &into, "(?, ?, ?)", replace, &[row])?;
    Ok(())
}
