//! The tables: Optuna's, to the letter, and ours beside them.
//!
//! Optuna's schema has been the same from 3.2 to 5.0 (schema version 12, alembic revision `v3.2.0.a`). It is made
//! here if it is absent and taken as it is if Python made it; any other revision is refused, and a column of Optuna's
//! is never touched. What Optuna has no word for lies in tables whose names begin with `diapason_`, which Optuna
//! and its dashboard do not look at: work items, and measured costs. Two indexes of ours on Optuna's `trials` make a
//! page of a study of 100,000 trials as fast as a page of ten.

use crate::database::{Access, Database, Dialect, Statements, Wait};
use crate::{Result, StorageError};

/// Optuna's alembic revision.
const REVISION: &str = "v3.2.0.a";
/// Optuna's number for the same thing.
const SCHEMA_VERSION: i64 = 12;
/// Version of our own tables.
const VERSION: i64 = 1;

/// Names of types in Optuna's tables, and what they are on SQLite and on PostgreSQL.
const TYPES: [(&str, &str, &str); 5] = [
    ("{direction}", "VARCHAR(8)", "studydirection"),
    ("{state}", "VARCHAR(8)", "trialstate"),
    ("{value_type}", "VARCHAR(7)", "trialvaluetype"),
    ("{intermediate_type}", "VARCHAR(7)", "trialintermediatevaluetype"),
    ("{datetime}", "DATETIME", "TIMESTAMP WITHOUT TIME ZONE"),
];

/// The enums of PostgreSQL.
const ENUMS: [(&str, &str); 4] = [
    ("studydirection", "'NOT_SET', 'MINIMIZE', 'MAXIMIZE'"),
    ("trialstate", "'RUNNING', 'COMPLETE', 'PRUNED', 'FAIL', 'WAITING'"),
    ("trialvaluetype", "'FINITE', 'INF_POS', 'INF_NEG'"),
    ("trialintermediatevaluetype", "'FINITE', 'INF_POS', 'INF_NEG', 'NAN'"),
];

const OPTUNA: &str = r#"
    CREATE TABLE IF NOT EXISTS studies (study_id {id}, study_name VARCHAR(512) NOT NULL, PRIMARY KEY (study_id));
    CREATE UNIQUE INDEX IF NOT EXISTS ix_studies_study_name ON studies (study_name);
    CREATE TABLE IF NOT EXISTS version_info (version_info_id {id}, schema_version INTEGER,
        library_version VARCHAR(256), PRIMARY KEY (version_info_id), CHECK (version_info_id = 1));
    CREATE TABLE IF NOT EXISTS study_directions (study_direction_id {id}, direction {direction} NOT NULL,
        study_id INTEGER NOT NULL, objective INTEGER NOT NULL, PRIMARY KEY (study_direction_id),
        UNIQUE (study_id, objective), FOREIGN KEY(study_id) REFERENCES studies (study_id));
    CREATE TABLE IF NOT EXISTS study_user_attributes (study_user_attribute_id {id}, study_id INTEGER,
        "key" VARCHAR(512), value_json TEXT, PRIMARY KEY (study_user_attribute_id), UNIQUE (study_id, "key"),
        FOREIGN KEY(study_id) REFERENCES studies (study_id));
    CREATE TABLE IF NOT EXISTS study_system_attributes (study_system_attribute_id {id}, study_id INTEGER,
        "key" VARCHAR(512), value_json TEXT, PRIMARY KEY (study_system_attribute_id), UNIQUE (study_id, "key"),
        FOREIGN KEY(study_id) REFERENCES studies (study_id));
    CREATE TABLE IF NOT EXISTS trials (trial_id {id}, number INTEGER, study_id INTEGER, state {state} NOT NULL,
        datetime_start {datetime}, datetime_complete {datetime}, PRIMARY KEY (trial_id),
        FOREIGN KEY(study_id) REFERENCES studies (study_id));
    CREATE INDEX IF NOT EXISTS ix_trials_study_id ON trials (study_id);
    CREATE TABLE IF NOT EXISTS trial_user_attributes (trial_user_attribute_id {id}, trial_id INTEGER,
        "key" VARCHAR(512), value_json TEXT, PRIMARY KEY (trial_user_attribute_id), UNIQUE (trial_id, "key"),
        FOREIGN KEY(trial_id) REFERENCES trials (trial_id));
    CREATE TABLE IF NOT EXISTS trial_system_attributes (trial_system_attribute_id {id}, trial_id INTEGER,
        "key" VARCHAR(512), value_json TEXT, PRIMARY KEY (trial_system_attribute_id), UNIQUE (trial_id, "key"),
        FOREIGN KEY(trial_id) REFERENCES trials (trial_id));
    CREATE TABLE IF NOT EXISTS trial_params (param_id {id}, trial_id INTEGER, param_name VARCHAR(512),
        param_value {double}, distribution_json TEXT, PRIMARY KEY (param_id), UNIQUE (trial_id, param_name),
        FOREIGN KEY(trial_id) REFERENCES trials (trial_id));
    CREATE TABLE IF NOT EXISTS trial_values (trial_value_id {id}, trial_id INTEGER NOT NULL,
        objective INTEGER NOT NULL, value {double}, value_type {value_type} NOT NULL, PRIMARY KEY (trial_value_id),
        UNIQUE (trial_id, objective), FOREIGN KEY(trial_id) REFERENCES trials (trial_id));
    CREATE TABLE IF NOT EXISTS trial_intermediate_values (trial_intermediate_value_id {id},
        trial_id INTEGER NOT NULL, step INTEGER NOT NULL, intermediate_value {double},
        intermediate_value_type {intermediate_type} NOT NULL, PRIMARY KEY (trial_intermediate_value_id),
        UNIQUE (trial_id, step), FOREIGN KEY(trial_id) REFERENCES trials (trial_id));
    CREATE TABLE IF NOT EXISTS trial_heartbeats (trial_heartbeat_id {id}, trial_id INTEGER NOT NULL,
        heartbeat {datetime} NOT NULL, PRIMARY KEY (trial_heartbeat_id), UNIQUE (trial_id),
        FOREIGN KEY(trial_id) REFERENCES trials (trial_id));
    CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL,
        CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num));
"#;

/// One row of `diapason_items` is one cell with one seed: see [`crate::item`].
const OURS: &str = "
    CREATE TABLE IF NOT EXISTS diapason_version (version INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS diapason_items (
        item_id {id},
        study_id INTEGER NOT NULL REFERENCES studies (study_id) ON DELETE CASCADE,
        item_key VARCHAR(512) NOT NULL,
        trial_id INTEGER NOT NULL UNIQUE REFERENCES trials (trial_id) ON DELETE CASCADE,
        state VARCHAR(8) NOT NULL,
        rung INTEGER,
        step BIGINT NOT NULL DEFAULT 0,
        failures INTEGER NOT NULL DEFAULT 0,
        losses INTEGER NOT NULL DEFAULT 0,
        claims INTEGER NOT NULL DEFAULT 0,
        step_at_claim BIGINT NOT NULL DEFAULT 0,
        engine VARCHAR(512),
        token VARCHAR(64),
        owner TEXT,
        place TEXT,
        pid BIGINT,
        pid_started BIGINT,
        lease_until {double},
        PRIMARY KEY (item_id),
        UNIQUE (study_id, item_key)
    );
    CREATE INDEX IF NOT EXISTS diapason_items_state ON diapason_items (study_id, state, item_id);
    CREATE TABLE IF NOT EXISTS diapason_costs (
        study_id INTEGER NOT NULL REFERENCES studies (study_id) ON DELETE CASCADE,
        machine VARCHAR(512) NOT NULL,
        cell VARCHAR(512) NOT NULL,
        seconds_per_step {double} NOT NULL,
        detail_json TEXT NOT NULL,
        PRIMARY KEY (study_id, machine, cell)
    );
";

/// Python Optuna does not enforce foreign keys on SQLite, and ids are used again after a study is deleted there: a
/// new study must not inherit the items of a deleted one.
const SQLITE_ONLY: &str = "
    CREATE TRIGGER IF NOT EXISTS diapason_forget AFTER DELETE ON studies BEGIN
        DELETE FROM diapason_items WHERE study_id = OLD.study_id;
        DELETE FROM diapason_costs WHERE study_id = OLD.study_id;
    END;
";

/// Made if we may: on a database that somebody else owns, everything works without them, only slower.
const INDEXES: &str = "
    CREATE INDEX IF NOT EXISTS diapason_trials_number ON trials (study_id, number);
    CREATE INDEX IF NOT EXISTS diapason_trials_state ON trials (study_id, state, number);
";

/// What is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Present {
    pub(crate) optuna: bool,
    pub(crate) ours: bool,
    /// Whether nothing is missing, as after Python was interrupted while it made its tables.
    whole: bool,
}

impl Present {
    pub(crate) const NOTHING: Self = Self { optuna: false, ours: false, whole: false };
    pub(crate) const ALL: Self = Self { optuna: true, ours: true, whole: true };
}

/// Looks at what is there, and refuses what is not understood.
pub(crate) fn inspect(database: &mut dyn Database, wait: &mut Wait<'_>) -> Result<Present> {
    let place = database.place();
    let mut present = Present::NOTHING;
    database.transaction(Access::Read, wait, &mut |on| {
        present = look(on, &place)?;
        Ok(())
    })?;
    Ok(present)
}

/// Makes what is not there. Any number of programs may do so at once.
pub(crate) fn create(database: &mut dyn Database, wait: &mut Wait<'_>) -> Result<()> {
    if inspect(database, wait)? == Present::ALL {
        return Ok(());
    }
    let place = database.place();
    database.transaction(Access::Write, wait, &mut |on| {
        if on.dialect() == Dialect::Postgres {
            // One at a time: IF NOT EXISTS alone loses races. The number is this program's own.
            on.batch("SELECT pg_advisory_xact_lock(5927346120417)")?;
            for (name, values) in ENUMS {
                let there = on.query(
                    "SELECT 1 FROM pg_catalog.pg_type WHERE typname = $1 AND pg_catalog.pg_type_is_visible(oid)",
                    &[name.into()],
                )?;
                if there.is_empty() {
                    on.batch(&format!("CREATE TYPE {name} AS ENUM ({values})"))?;
                }
            }
        }
        let mut tables = OPTUNA.to_string();
        for (word, sqlite, postgres) in TYPES {
            tables = tables.replace(word, if on.dialect() == Dialect::Sqlite { sqlite } else { postgres });
        }
        on.batch(&tables)?;
        if on.query("SELECT 1 FROM version_info", &[])?.is_empty() {
            let program = format!("diapason {}", env!("CARGO_PKG_VERSION"));
            on.execute(
                "INSERT INTO version_info (version_info_id, schema_version, library_version) VALUES (1, $1, $2)",
                &[SCHEMA_VERSION.into(), program.into()],
            )?;
        }
        if on.query("SELECT 1 FROM alembic_version", &[])?.is_empty() {
            on.execute("INSERT INTO alembic_version (version_num) VALUES ($1)", &[REVISION.into()])?;
        }
        on.batch(OURS)?;
        if on.query("SELECT 1 FROM diapason_version", &[])?.is_empty() {
            on.execute("INSERT INTO diapason_version (version) VALUES ($1)", &[VERSION.into()])?;
        }
        if on.dialect() == Dialect::Sqlite {
            on.batch(SQLITE_ONLY)?;
        }
        look(on, &place).map(|_| ())
    })?;
    match database.transaction(Access::Write, wait, &mut |on| on.batch(INDEXES)) {
        Ok(()) | Err(StorageError::Database { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn look(on: &mut dyn Statements, place: &str) -> Result<Present> {
    let refuse = |what: String| Err(StorageError::Incompatible { place: place.to_string(), what });
    let shown = |text: Option<&str>| crate::error::one_line(text.unwrap_or("nothing"));
    let optuna = has_table(on, "studies")?;
    let mut whole = optuna;
    if !has_table(on, "alembic_version")? {
        whole = false;
    } else {
        let rows = on.query("SELECT version_num FROM alembic_version", &[])?;
        whole &= !rows.is_empty();
        for row in rows {
            let found = row.optional_text(0)?;
            if found != Some(REVISION) {
                return refuse(format!(
                    "its schema is Optuna's revision {}, and this program knows {REVISION}",
                    shown(found)
                ));
            }
        }
    }
    if !has_table(on, "version_info")? {
        whole = false;
    } else {
        let rows = on.query("SELECT schema_version FROM version_info", &[])?;
        whole &= !rows.is_empty();
        for row in rows {
            let found = row.optional_int(0)?;
            if found != Some(SCHEMA_VERSION) {
                return refuse(format!(
                    "its schema is Optuna's version {}, and this program knows {SCHEMA_VERSION}",
                    found.unwrap_or_default()
                ));
            }
        }
    }
    let ours = has_table(on, "diapason_version")?;
    if ours {
        for row in on.query("SELECT version FROM diapason_version", &[])? {
            let found = row.int(0)?;
            if found != VERSION {
                return refuse(format!(
                    "its work items are of version {found}, and this program knows {VERSION}"
                ));
            }
        }
    }
    Ok(Present { optuna, ours, whole: whole && ours })
}

fn has_table(on: &mut dyn Statements, name: &str) -> Result<bool> {
    let sql = match on.dialect() {
        Dialect::Sqlite => "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = $1",
        Dialect::Postgres => {
            "SELECT 1 FROM pg_catalog.pg_class WHERE relname = $1 AND relkind IN ('r', 'p') AND pg_catalog.pg_table_is_visible(oid)"
        }
    };
    Ok(!on.query(sql, &[name.into()])?.is_empty())
}
