//! The seam between what is stored and where: one trait, two implementations.
//!
//! The statements are written once, in SQL that SQLite and PostgreSQL both speak; what they say differently (the
//! clock, row locks, key columns) stands in braces and is filled in by [`Dialect`]. So the two databases cannot
//! drift apart, and an implementation is only this: run a piece of work as one transaction, and run it again when
//! the connection or the lock that it needed was not to be had.
//!
//! Work can therefore run twice, also when its first run was committed and only the answer was lost. Everything in
//! this crate that writes is made so that the second run finds that out.

use crate::{Result, StorageError};
use std::borrow::Cow;

/// A value on its way into or out of a column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Int(i64),
    Real(f64),
    Text(String),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_string())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// One row of an answer.
#[derive(Debug)]
pub(crate) struct Row(pub(crate) Vec<Value>);

impl Row {
    fn wrong(&self, column: usize, wanted: &str) -> StorageError {
        let what = format!("{:?} in a column of {wanted}", self.0.get(column));
        StorageError::Content { what: crate::error::one_line(&what) }
    }

    pub(crate) fn int(&self, column: usize) -> Result<i64> {
        self.optional_int(column)?.ok_or_else(|| self.wrong(column, "integers"))
    }

    pub(crate) fn optional_int(&self, column: usize) -> Result<Option<i64>> {
        match self.0.get(column) {
            Some(Value::Int(value)) => Ok(Some(*value)),
            Some(Value::Null) => Ok(None),
            _ => Err(self.wrong(column, "integers")),
        }
    }

    pub(crate) fn real(&self, column: usize) -> Result<f64> {
        self.optional_real(column)?.ok_or_else(|| self.wrong(column, "numbers"))
    }

    pub(crate) fn optional_real(&self, column: usize) -> Result<Option<f64>> {
        match self.0.get(column) {
            Some(Value::Real(value)) => Ok(Some(*value)),
            Some(Value::Int(value)) => Ok(Some(*value as f64)),
            Some(Value::Null) => Ok(None),
            _ => Err(self.wrong(column, "numbers")),
        }
    }

    pub(crate) fn text(&self, column: usize) -> Result<&str> {
        self.optional_text(column)?.ok_or_else(|| self.wrong(column, "text"))
    }

    pub(crate) fn optional_text(&self, column: usize) -> Result<Option<&str>> {
        match self.0.get(column) {
            Some(Value::Text(value)) => Ok(Some(value)),
            Some(Value::Null) => Ok(None),
            _ => Err(self.wrong(column, "text")),
        }
    }
}

/// Which words of SQL the two databases do not share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// What stands for each word in braces. All times are the database's own.
    const WORDS: [(&'static str, &'static str, &'static str); 7] = [
        // Naive UTC with six digits: what Optuna 5 stores, and what SQLAlchemy parses.
        ("{utc_now}", "strftime('%Y-%m-%d %H:%M:%f000', 'now')", "timezone('UTC', clock_timestamp())"),
        // Optuna's heartbeats are its `func.now()`: on PostgreSQL in the time zone of the session.
        ("{session_now}", "CURRENT_TIMESTAMP", "CAST(clock_timestamp() AS TIMESTAMP)"),
        // Seconds, for leases.
        (
            "{clock}",
            "unixepoch('now', 'subsec')",
            "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)",
        ),
        // SQLite has one writer at a time.
        ("{for_update}", "", "FOR UPDATE"),
        ("{skip_locked}", "", "FOR UPDATE SKIP LOCKED"),
        ("{id}", "INTEGER NOT NULL", "SERIAL NOT NULL"),
        ("{double}", "FLOAT", "FLOAT(53)"),
    ];

    /// The statement with its words filled in.
    pub(crate) fn fill<'a>(self, sql: &'a str) -> Cow<'a, str> {
        if !sql.contains('{') {
            return Cow::Borrowed(sql);
        }
        let mut text = sql.to_string();
        for (word, sqlite, postgres) in Self::WORDS {
            text = text.replace(word, if self == Self::Sqlite { sqlite } else { postgres });
        }
        Cow::Owned(text)
    }
}

/// Statements inside a transaction. Parameters are `$1`, `$2`, ...
pub(crate) trait Statements {
    fn dialect(&self) -> Dialect;

    /// Runs a statement; how many rows it changed.
    fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64>;

    /// Runs a statement that answers with rows.
    fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>>;

    /// Runs statements without parameters, separated by semicolons.
    fn batch(&mut self, sql: &str) -> Result<()>;
}

/// Whether a transaction writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// A database that runs work in transactions.
pub(crate) trait Database: Send {
    /// Runs `work` as one transaction, and again (see the module) while that has any hope and time is left.
    fn transaction(
        &mut self,
        access: Access,
        wait: &mut Wait<'_>,
        work: &mut dyn FnMut(&mut dyn Statements) -> Result<()>,
    ) -> Result<()>;

    /// Where it is, without a password.
    fn place(&self) -> String;
}

/// How long to wait for a database that cannot be reached, and whom to tell.
pub(crate) struct Wait<'a> {
    next: &'a mut dyn FnMut(StorageError, u32) -> Result<()>,
    tries: u32,
}

impl<'a> Wait<'a> {
    /// `next` sleeps before another try and returns, or gives the error with which to end.
    pub(crate) fn new(next: &'a mut dyn FnMut(StorageError, u32) -> Result<()>) -> Self {
        Self { next, tries: 0 }
    }

    /// After a failure: returns when it is time to try again.
    pub(crate) fn after(&mut self, error: StorageError) -> Result<()> {
        if !error.is_transient() {
            return Err(error);
        }
        self.tries += 1;
        (self.next)(error, self.tries)
    }
}

/// The most rows that one INSERT takes. SQLite allows 32,766 parameters in a statement, PostgreSQL 65,535.
const ROWS: usize = 500;

/// Inserts rows with as few statements as possible: over a network each costs a round trip. `columns` as in SQL;
/// `row` is one row of VALUES with a `?` for each parameter; `answer` is what follows VALUES.
pub(crate) fn insert_all(
    on: &mut dyn Statements,
    into: &str,
    row: &str,
    answer: &str,
    rows: &[Vec<Value>],
) -> Result<Vec<Row>> {
    let mut answers = Vec::new();
    for chunk in rows.chunks(ROWS) {
        let mut sql = format!("INSERT INTO {into} VALUES ");
        let mut number = 0;
        for index in 0..chunk.len() {
            sql.push_str(if index > 0 { ", " } else { "" });
            for (place, part) in row.split('?').enumerate() {
                if place > 0 {
                    number += 1;
                    sql.push_str(&format!("${number}"));
                }
                sql.push_str(part);
            }
        }
        sql.push(' ');
        sql.push_str(answer);
        let parameters: Vec<Value> = chunk.iter().flatten().cloned().collect();
        if answer.contains("RETURNING") {
            answers.extend(on.query(&sql, &parameters)?);
        } else {
            on.execute(&sql, &parameters)?;
        }
    }
    Ok(answers)
}

/// `($1, $2, ...)` for `count` parameters after the first `skip`.
pub(crate) fn placeholders(skip: usize, count: usize) -> String {
    let names: Vec<String> = (skip + 1..=skip + count).map(|n| format!("${n}")).collect();
    format!("({})", names.join(", "))
}
