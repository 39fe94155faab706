//! PostgreSQL: the coordination layer for many machines.
//!
//! - A transaction is run again when it lost a race (serialisation failure, deadlock), and the connection is made
//!   anew when it broke: a restarted server or a network cut of minutes is waited out, as long as the caller has
//!   patience.
//! - A peer that vanished without a word is noticed by TCP keepalives; a statement that hangs, a lock that is not
//!   given, and a transaction whose client has vanished are ended by the server, within the times set below.
//! - The session keeps the server's time zone. Optuna's heartbeats are naive times of the session's zone; a driver
//!   that sets UTC makes Python declare live trials dead on every server that is not in UTC.
//! - Optuna's enums travel as their labels: the driver needs no types for them.

use crate::database::{Access, Database, Dialect, Row, Statements, Value, Wait};
use crate::error::one_line;
use crate::url::{Server, SslMode};
use crate::{Result, StorageError, tls};
use bytes::BytesMut;
use postgres::config::{SslMode as DriverMode, TargetSessionAttrs};
use postgres::error::SqlState;
use postgres::types::{FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};
use postgres::{Client, Config, Statement};
use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;
use tokio_postgres_rustls::MakeRustlsConnect;

/// What every session begins with. A finished trial is a promise: a server that would answer before its log is on
/// the disk is told not to.
const SESSION: &str = "
    SET statement_timeout = '120s';
    SET lock_timeout = '30s';
    SET idle_in_transaction_session_timeout = '60s';
    SET datestyle = 'ISO, MDY';
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
";

/// Prepared statements kept per connection.
const STATEMENTS: usize = 200;

pub(crate) struct Postgres {
    config: Config,
    tls: MakeRustlsConnect,
    place: String,
    session: Option<Session>,
}

struct Session {
    client: Client,
    statements: HashMap<String, Statement>,
    place: String,
}

impl Postgres {
    /// A server that has not been spoken to yet.
    ///
    /// # Errors
    /// Certificates that cannot be read.
    pub(crate) fn new(server: &Server) -> Result<Self> {
        let mut config = Config::new();
        for (host, port) in &server.hosts {
            config.host(host).port(*port);
        }
        // On a socket of this machine there is nobody to listen, and no TLS.
        let sockets = server.hosts.iter().all(|(host, _)| host.starts_with('/'));
        config
            .user(&server.user)
            .dbname(&server.database)
            .application_name(&server.application_name)
            .connect_timeout(server.connect_timeout)
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(30))
            .ssl_mode(match server.tls.mode {
                _ if sockets => DriverMode::Disable,
                SslMode::Disable => DriverMode::Disable,
                SslMode::Prefer => DriverMode::Prefer,
                SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => DriverMode::Require,
            });
        if let Some(password) = &server.password {
            config.password(password.reveal());
        }
        if let Some(options) = &server.options {
            config.options(options);
        }
        if server.read_write {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        Ok(Self { config, tls: tls::connector(server)?, place: server.to_string(), session: None })
    }

    /// The session, made if there is none.
    fn session(&mut self) -> Result<&mut Session> {
        if self.session.as_ref().is_some_and(|session| session.client.is_closed()) {
            self.session = None;
        }
        match &mut self.session {
            Some(session) => Ok(session),
            none => {
                let connect = || {
                    let mut client = self.config.connect(self.tls.clone())?;
                    client.batch_execute(SESSION)?;
                    Ok(client)
                };
                let client = connect().map_err(|error| failure(&error, &self.place))?;
                Ok(none.insert(Session { client, statements: HashMap::new(), place: self.place.clone() }))
            }
        }
    }

    fn once(
        &mut self,
        access: Access,
        work: &mut dyn FnMut(&mut dyn Statements) -> Result<()>,
    ) -> Result<()> {
        let session = self.session()?;
        session.batch(match access {
            Access::Write => "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
            // What belongs together is read from one state.
            Access::Read => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        })?;
        let done = work(session).and_then(|()| session.batch("COMMIT"));
        if done.is_err() && session.batch("ROLLBACK").is_err() {
            self.session = None;
        }
        done
    }
}

impl Database for Postgres {
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
        self.place.clone()
    }
}

impl Session {
    fn prepared(&mut self, sql: &str) -> std::result::Result<Statement, postgres::Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(&Dialect::Postgres.fill(sql))?;
        if self.statements.len() >= STATEMENTS {
            self.statements.clear();
        }
        self.statements.insert(sql.to_string(), statement.clone());
        Ok(statement)
    }
}

impl Statements for Session {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64> {
        let mut run = || {
            let statement = self.prepared(sql)?;
            self.client.execute(&statement, &references(parameters))
        };
        run().map_err(|error| failure(&error, &self.place))
    }

    fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>> {
        let mut run = || -> std::result::Result<Vec<Row>, postgres::Error> {
            let statement = self.prepared(sql)?;
            let rows = self.client.query(&statement, &references(parameters))?;
            rows.iter()
                .map(|row| {
                    (0..row.len())
                        .map(|column| row.try_get(column))
                        .collect::<std::result::Result<_, _>>()
                        .map(Row)
                })
                .collect()
        };
        run().map_err(|error| failure(&error, &self.place))
    }

    fn batch(&mut self, sql: &str) -> Result<()> {
        self.client.batch_execute(&Dialect::Postgres.fill(sql)).map_err(|error| failure(&error, &self.place))
    }
}

fn references(parameters: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    parameters.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

impl ToSql for Value {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn Error + Sync + Send>> {
        match (self, ty) {
            (Self::Null, _) => Ok(IsNull::Yes),
            (Self::Int(value), &Type::INT4) => i32::try_from(*value)?.to_sql(ty, out),
            (Self::Int(value), &Type::INT2) => i16::try_from(*value)?.to_sql(ty, out),
            (Self::Int(value), &Type::FLOAT8) => (*value as f64).to_sql(ty, out),
            (Self::Int(value), _) => value.to_sql_checked(ty, out),
            (Self::Real(value), _) => value.to_sql_checked(ty, out),
            // An enum travels as its label.
            (Self::Text(value), _) if matches!(ty.kind(), Kind::Enum(_)) => value.to_sql(ty, out),
            (Self::Text(value), _) => value.to_sql_checked(ty, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Value {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> std::result::Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(match *ty {
            Type::INT8 => Self::Int(i64::from_sql(ty, raw)?),
            Type::INT4 => Self::Int(i32::from_sql(ty, raw)?.into()),
            Type::INT2 => Self::Int(i16::from_sql(ty, raw)?.into()),
            Type::BOOL => Self::Int(bool::from_sql(ty, raw)?.into()),
            Type::FLOAT8 => Self::Real(f64::from_sql(ty, raw)?),
            Type::FLOAT4 => Self::Real(f32::from_sql(ty, raw)?.into()),
            _ => Self::Text(String::from_sql(ty, raw)?),
        })
    }

    fn from_sql_null(_: &Type) -> std::result::Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self::Null)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// What passes by itself is `Unreachable`; everything else is told.
fn failure(error: &postgres::Error, place: &str) -> StorageError {
    let place = place.to_string();
    if let Some(told) = error.as_db_error() {
        let cause = one_line(&format!("{} ({})", told.message(), told.code().code()));
        return if passes(told.code()) {
            StorageError::Unreachable { place, cause }
        } else {
            StorageError::Database { place, cause }
        };
    }
    let mut causes = vec![error.to_string()];
    let mut transient = error.is_closed();
    let mut source = error.source();
    while let Some(cause) = source {
        // An error of the operating system passes, unless it wraps what TLS has to say.
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            transient |= !io.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
        }
        let text = cause.to_string();
        if causes.last() != Some(&text) {
            causes.push(text);
        }
        source = cause.source();
    }
    let cause = one_line(&causes.join(": "));
    if transient {
        StorageError::Unreachable { place, cause }
    } else {
        StorageError::Database { place, cause }
    }
}

/// Whether the server may well say something else in a moment.
fn passes(code: &SqlState) -> bool {
    let transient = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::QUERY_CANCELED,
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::TOO_MANY_CONNECTIONS,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        // After a fail-over, until the new primary is there.
        SqlState::READ_ONLY_SQL_TRANSACTION,
    ];
    transient.contains(code) || code.code().starts_with("08")
}
