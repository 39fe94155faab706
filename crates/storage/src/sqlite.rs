//! SQLite: one file, nothing to start, the processes of one machine.
//!
//! - WAL, so that readers (a dashboard, `study show`) and the one writer do not stop one another.
//! - Every writing transaction begins with `BEGIN IMMEDIATE`: it waits for the lock once, at its start, and can
//!   never find out half-way that somebody else has written. Transactions are milliseconds long.
//! - `synchronous = FULL`. In WAL mode `NORMAL` would keep the file sound after a power loss too, but may forget the
//!   last commits, and here a commit is a promise: a finished trial is not run again, and whoever has read that a
//!   trial is his has it. One flush per commit is a few milliseconds against minutes of training. (`fullfsync` asks
//!   for the same on macOS, where a plain flush does not reach the medium.)
//! - Who only looks converts nothing, and writes nothing; a database in a folder that may only be read is read as it
//!   stands.
//! - A killed process leaves a WAL that the next one replays up to its last commit.

use crate::database::{Access, Database, Dialect, Row, Statements, Value, Wait};
use crate::error::one_line;
use crate::{Opening, Result, StorageError, filesystem};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, ToSql, params_from_iter};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long SQLite itself waits for a lock before the transaction is tried anew.
const BUSY: Duration = Duration::from_secs(10);

pub(crate) struct Sqlite {
    connection: Connection,
    path: PathBuf,
}

impl Sqlite {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// There is no file and none was to be made; a network file system; not a database.
    pub(crate) fn open(path: &Path, opening: Opening) -> Result<(Self, Option<&'static str>)> {
        if opening != Opening::Create && !path.is_file() {
            return Err(StorageError::NoDatabase { place: path.display().to_string() });
        }
        let warning = filesystem::check(path)?;
        let failed = |error| failure(&error, path);
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        flags.set(OpenFlags::SQLITE_OPEN_CREATE, opening == Opening::Create);
        let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        if opening == Opening::Read {
            if cannot_be_shared(&connection, path) {
                connection = Connection::open_with_flags(
                    as_it_stands(path),
                    OpenFlags::SQLITE_OPEN_READ_ONLY
                        | OpenFlags::SQLITE_OPEN_NO_MUTEX
                        | OpenFlags::SQLITE_OPEN_URI,
                )
                .map_err(failed)?;
            }
            connection.execute_batch("PRAGMA query_only = 1").map_err(failed)?;
        } else if !connection.is_readonly("main").map_err(failed)? {
            let mode: String =
                connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(failed)?;
            if !mode.eq_ignore_ascii_case("wal") {
                return Err(StorageError::Incompatible {
                    place: path.display().to_string(),
                    what: format!(
                        "its journal stays in mode {mode}, and WAL is needed: this file system does not offer it"
                    ),
                });
            }
        }
        connection.set_prepared_statement_cache_capacity(128);
        connection
            .execute_batch(
                "PRAGMA synchronous = FULL; PRAGMA fullfsync = 1; PRAGMA checkpoint_fullfsync = 1;
                 PRAGMA foreign_keys = 1; PRAGMA trusted_schema = 0;",
            )
            .map_err(failed)?;
        Ok((Self { connection, path: path.to_path_buf() }, warning))
    }

    fn once(
        &mut self,
        access: Access,
        work: &mut dyn FnMut(&mut dyn Statements) -> Result<()>,
    ) -> Result<()> {
        self.batch(if access == Access::Write { "BEGIN IMMEDIATE" } else { "BEGIN" })?;
        let done = work(self).and_then(|()| self.batch("COMMIT"));
        if done.is_err() && !self.connection.is_autocommit() {
            // What was wrong is known already.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        done
    }
}

impl Database for Sqlite {
    fn transaction(
        &mut self,
        access: Access,
        wait: &mut Wait<'_>,
        work: &mut dyn FnMut(&mut dyn Statements) -> Result<()>,
    ) -> Result<()> {
        loop {
            match self.once(access, work) {
                Ok(()) => return Ok(()),
                Err(error) => wait.after(error)?,
            }
        }
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

impl Statements for Sqlite {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64> {
        let run = || {
            let mut statement = self.connection.prepare_cached(&numbered(sql))?;
            statement.execute(params_from_iter(parameters))
        };
        run().map(|rows| rows as u64).map_err(|error| failure(&error, &self.path))
    }

    fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>> {
        let run = || {
            let mut statement = self.connection.prepare_cached(&numbered(sql))?;
            let columns = statement.column_count();
            let rows = statement.query_map(params_from_iter(parameters), |row| {
                (0..columns)
                    .map(|column| Ok(value(row.get_ref(column)?)))
                    .collect::<rusqlite::Result<_>>()
                    .map(Row)
            })?;
            rows.collect::<rusqlite::Result<Vec<Row>>>()
        };
        run().map_err(|error| failure(&error, &self.path))
    }

    fn batch(&mut self, sql: &str) -> Result<()> {
        self.connection.execute_batch(&Dialect::Sqlite.fill(sql)).map_err(|error| failure(&error, &self.path))
    }
}

/// Whether the readers of a WAL database cannot have the file that they share, since its folder may only be read, and
/// nobody has left anything beside the database.
fn cannot_be_shared(connection: &Connection, path: &Path) -> bool {
    let looked = connection.query_row("PRAGMA schema_version", [], |_| Ok(()));
    let refused = match looked {
        Err(error) => {
            matches!(error.sqlite_error_code(), Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen))
        }
        Ok(()) => false,
    };
    let nothing_beside = ["-wal", "-journal"].iter().all(|end| {
        let mut beside = path.as_os_str().to_owned();
        beside.push(end);
        std::fs::metadata(beside).map_or(true, |found| found.len() == 0)
    });
    refused && nothing_beside
}

/// The file as a URI that promises that nobody changes it: it is read without locks.
fn as_it_stands(path: &Path) -> String {
    let name = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    format!("file:{name}?immutable=1")
}

/// `$1` is a name to SQLite and `?1` a number.
fn numbered(sql: &str) -> String {
    Dialect::Sqlite.fill(sql).replace('$', "?")
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::Int(value),
        ValueRef::Real(value) => Value::Real(value),
        // Other programs may have stored anything.
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            Value::Text(String::from_utf8_lossy(bytes).into_owned())
        }
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(value) => ValueRef::Integer(*value),
            Self::Real(value) => ValueRef::Real(*value),
            Self::Text(value) => ValueRef::Text(value.as_bytes()),
        }))
    }
}

/// Locks are waited for; everything else is told.
fn failure(error: &rusqlite::Error, path: &Path) -> StorageError {
    let place = path.display().to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            StorageError::Unreachable { place, cause: "another program keeps it locked".to_string() }
        }
        Some(ErrorCode::NotADatabase) => {
            StorageError::Damaged { place, what: "it is not a SQLite database".to_string() }
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            StorageError::Damaged { place, what: one_line(&error.to_string()) }
        }
        _ => StorageError::Database { place, cause: one_line(&error.to_string()) },
    }
}
