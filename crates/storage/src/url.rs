//! Where a study lives: `--storage`, `DIAPASON_STORAGE`, and the `PG*` variables that every PostgreSQL client obeys.
//!
//! A password enters here and leaves only towards the server. It is kept in a type that prints as stars, errors
//! never repeat the URL that was typed, and [`StorageUrl`]'s `Display` is safe to write into files, reports and
//! resume commands.

use crate::{Result, StorageError};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a study lives.
#[derive(Clone, Debug, PartialEq)]
pub enum StorageUrl {
    /// A file on this machine.
    Sqlite(PathBuf),
    /// A server for many machines.
    Postgres(Box<Server>),
}

/// A PostgreSQL server, with everything that was left out of the URL filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Hosts in the order in which they are tried; a folder is that of a Unix socket.
    pub(crate) hosts: Vec<(String, u16)>,
    pub(crate) user: String,
    pub(crate) password: Option<Secret>,
    pub(crate) database: String,
    pub(crate) tls: Tls,
    pub(crate) connect_timeout: Duration,
    pub(crate) application_name: String,
    pub(crate) options: Option<String>,
    /// Whether a server that only reads is passed over.
    pub(crate) read_write: bool,
}

/// How the connection is protected, in libpq's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SslMode {
    /// In the clear.
    Disable,
    /// Encrypted if the server offers it.
    #[default]
    Prefer,
    /// Encrypted; anybody may be at the other end (with a root certificate given, as `verify-ca`).
    Require,
    /// Encrypted, and the server's certificate is signed by one of the roots.
    VerifyCa,
    /// The same, and it is for this host.
    VerifyFull,
}

/// What TLS needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tls {
    pub(crate) mode: SslMode,
    /// File of root certificates; none: `~/.postgresql/root.crt` if it is there, else those of the system.
    pub(crate) roots: Option<PathBuf>,
    /// Files of the client's own certificate and key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
}

/// A password. Prints as stars.
#[derive(Clone, PartialEq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl SslMode {
    const ALL: [(&'static str, Self); 5] = [
        ("disable", Self::Disable),
        ("prefer", Self::Prefer),
        ("require", Self::Require),
        ("verify-ca", Self::VerifyCa),
        ("verify-full", Self::VerifyFull),
    ];

    fn parse(text: &str) -> Result<Self> {
        Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, mode)| *mode).ok_or_else(|| {
            refuse(format!(
                "sslmode must be one of disable, prefer, require, verify-ca, verify-full, not `{}`",
                crate::printable(text)
            ))
        })
    }

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, mode)| *mode == self).map_or("prefer", |(name, _)| name)
    }
}

fn refuse(what: impl Into<String>) -> StorageError {
    StorageError::Url(what.into())
}

impl StorageUrl {
    /// Reads a URL: `sqlite:///relative.db`, `sqlite:////absolute.db` (as SQLAlchemy has it), or
    /// `postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full`. What is left out comes from `PGHOST`,
    /// `PGPORT`, `PGUSER`, `PGPASSWORD`, `PGPASSFILE` (`~/.pgpass`), `PGDATABASE`, `PGSSLMODE`, `PGSSLROOTCERT`,
    /// `PGSSLCERT`, `PGSSLKEY`, `PGCONNECT_TIMEOUT`, `PGOPTIONS`, `PGTARGETSESSIONATTRS`.
    ///
    /// # Errors
    /// Text that is no such URL, or variables that cannot be meant. The message never holds the password.
    pub fn parse(url: &str) -> Result<Self> {
        Self::parse_with(url, &|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// The URL without the password that it holds, and that password; none if it holds none, or is no URL. For
    /// whoever must not leave it where others can read it, as in the list of processes.
    pub fn split_password(url: &str) -> Option<(String, String)> {
        match Self::parse_with(url, &|name| (name == "PGPASSFILE").then(|| "/dev/null".to_string())) {
            Ok(Self::Postgres(server)) => {
                let password = server.password.as_ref()?.reveal().to_string();
                Some((server.to_string(), password))
            }
            _ => None,
        }
    }

    fn parse_with(url: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(refuse("there is no `://` in it"));
        };
        // SQLAlchemy names a driver after a plus, and Python users copy what they have.
        let scheme = scheme.split('+').next().unwrap_or_default();
        match scheme {
            "sqlite" => {
                let path = rest.strip_prefix('/').ok_or_else(|| {
                    refuse("a SQLite file has three slashes before a relative path and four before an absolute one")
                })?;
                let path = path.split('?').next().unwrap_or_default();
                if path.is_empty() || path == ":memory:" {
                    return Err(refuse("a study needs a file, which is missing after sqlite:///"));
                }
                Ok(Self::Sqlite(PathBuf::from(path)))
            }
            "postgresql" | "postgres" => {
                Server::parse(rest, variable).map(|server| Self::Postgres(Box::new(server)))
            }
            _ => Err(refuse("it must begin with sqlite:/// or postgresql://")),
        }
    }
}

/// The URL without the password: safe to show and to store.
impl fmt::Display for StorageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:///{}", path.display()),
            Self::Postgres(server) => server.fmt(f),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> = self
            .hosts
            .iter()
            .map(|(host, port)| {
                // An IPv6 address has colons of its own.
                if host.contains(':') {
                    format!("[{host}]:{port}")
                } else {
                    format!("{}:{port}", encode(host))
                }
            })
            .collect();
        write!(f, "postgresql://{}@{}/{}", encode(&self.user), hosts.join(","), encode(&self.database))?;
        let mut separator = '?';
        let mut parameter = |name: &str, value: &str| {
            let written = write!(f, "{separator}{name}={}", encode(value));
            separator = '&';
            written
        };
        if self.tls.mode != SslMode::default() {
            parameter("sslmode", self.tls.mode.name())?;
        }
        if let Some(path) = &self.tls.roots {
            parameter("sslrootcert", &path.to_string_lossy())?;
        }
        if let Some((certificate, key)) = &self.tls.identity {
            parameter("sslcert", &certificate.to_string_lossy())?;
            parameter("sslkey", &key.to_string_lossy())?;
        }
        if let Some(options) = &self.options {
            parameter("options", options)?;
        }
        if self.read_write {
            parameter("target_session_attrs", "read-write")?;
        }
        Ok(())
    }
}

impl Server {
    fn parse(rest: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if query.contains('#') || rest.contains('#') {
            return Err(refuse("a `#` must be written as %23"));
        }
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        // A password may hold an @ that somebody forgot to encode; a host cannot.
        let (credentials, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = match credentials.split_once(':') {
            Some((user, password)) => (decode(user)?, Some(Secret(decode(password)?))),
            None => (decode(credentials)?, None),
        };
        let (mut user, mut password, mut database) = (some(user), password, some(decode(database)?));
        let (mut host_text, mut port_text) = (some(hosts.to_string()), None);
        let mut separate_hosts = None;
        let mut values = Parameters::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| refuse("a parameter has no `=`"))?;
            let value = some(decode(value)?);
            match name {
                "host" | "hostaddr" => separate_hosts = value,
                "port" => port_text = value,
                "user" => user = value,
                "password" => password = value.map(Secret),
                "dbname" => database = value,
                _ => values.set(name, value)?,
            }
        }
        values.fill_from(variable)?;
        let default_port = match port_text.or_else(|| variable("PGPORT")) {
            Some(text) => port(&text)?,
            None => 5432,
        };
        if separate_hosts.is_some() {
            host_text = separate_hosts;
        }
        let hosts = match host_text.or_else(|| variable("PGHOST").or_else(|| variable("PGHOSTADDR"))) {
            Some(text) => {
                text.split(',').map(|host| host_and_port(host, default_port)).collect::<Result<Vec<_>>>()?
            }
            None => vec![(default_host(), default_port)],
        };
        let user = user
            .or_else(|| variable("PGUSER"))
            .or_else(|| variable("USER"))
            .or_else(|| variable("LOGNAME"))
            .ok_or_else(|| refuse("there is no user name in it, nor in PGUSER"))?;
        let database = database.or_else(|| variable("PGDATABASE")).unwrap_or_else(|| user.clone());
        let password = password.or_else(|| variable("PGPASSWORD").map(Secret));
        let password = match password {
            None => from_password_file(variable, &hosts, &database, &user),
            password => password,
        };
        let mode = values.sslmode.as_deref().map(SslMode::parse).transpose()?.unwrap_or_default();
        let identity = match (values.sslcert, values.sslkey) {
            (Some(certificate), Some(key)) => Some((PathBuf::from(certificate), PathBuf::from(key))),
            (None, None) => None,
            _ => return Err(refuse("sslcert and sslkey are only of use together")),
        };
        let connect_timeout = match values.connect_timeout {
            Some(text) => text.parse().ok().filter(|s| (1..=600).contains(s)).ok_or_else(|| {
                refuse("connect_timeout must be a whole number of seconds between 1 and 600")
            })?,
            None => 10,
        };
        Ok(Self {
            hosts,
            user,
            password,
            database,
            tls: Tls {
                mode,
                roots: values.sslrootcert.filter(|path| path != "system").map(PathBuf::from),
                identity,
            },
            connect_timeout: Duration::from_secs(connect_timeout),
            application_name: values.application_name.unwrap_or_else(|| "diapason".to_string()),
            options: values.options,
            read_write: match values.target_session_attrs.as_deref() {
                None | Some("any") => false,
                Some("read-write" | "primary") => true,
                Some(_) => return Err(refuse("target_session_attrs must be any or read-write")),
            },
        })
    }
}

/// Parameters after the `?` that are no part of the address.
#[derive(Default)]
struct Parameters {
    sslmode: Option<String>,
    sslrootcert: Option<String>,
    sslcert: Option<String>,
    sslkey: Option<String>,
    connect_timeout: Option<String>,
    application_name: Option<String>,
    options: Option<String>,
    target_session_attrs: Option<String>,
}

impl Parameters {
    fn slot(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name {
            "sslmode" => &mut self.sslmode,
            "sslrootcert" => &mut self.sslrootcert,
            "sslcert" => &mut self.sslcert,
            "sslkey" => &mut self.sslkey,
            "connect_timeout" => &mut self.connect_timeout,
            "application_name" => &mut self.application_name,
            "options" => &mut self.options,
            "target_session_attrs" => &mut self.target_session_attrs,
            _ => return None,
        })
    }

    fn set(&mut self, name: &str, value: Option<String>) -> Result<()> {
        let shown = crate::printable(name).into_owned();
        *self.slot(name).ok_or_else(|| refuse(format!("`{shown}` is no parameter that is known")))? = value;
        Ok(())
    }

    fn fill_from(&mut self, variable: &dyn Fn(&str) -> Option<String>) -> Result<()> {
        for (name, source) in [
            ("sslmode", "PGSSLMODE"),
            ("sslrootcert", "PGSSLROOTCERT"),
            ("sslcert", "PGSSLCERT"),
            ("sslkey", "PGSSLKEY"),
            ("connect_timeout", "PGCONNECT_TIMEOUT"),
            ("application_name", "PGAPPNAME"),
            ("options", "PGOPTIONS"),
            ("target_session_attrs", "PGTARGETSESSIONATTRS"),
        ] {
            if let Some(slot) = self.slot(name)
                && slot.is_none()
            {
                *slot = variable(source);
            }
        }
        if variable("PGSERVICE").is_some() {
            return Err(refuse(
                "PGSERVICE is set, and service files are not read: write the server into the URL",
            ));
        }
        Ok(())
    }
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn port(text: &str) -> Result<u16> {
    text.parse()
        .ok()
        .filter(|&port| port > 0)
        .ok_or_else(|| refuse("the port must be a number from 1 to 65535"))
}

/// `db.example.org:5433`, `[::1]:5433`, `/var/run/postgresql`.
fn host_and_port(text: &str, default_port: u16) -> Result<(String, u16)> {
    // The colon is looked for before %3A becomes one, and %2Ftmp may have a port after it.
    let (host, port_text) = if text.starts_with('/') {
        (text, None)
    } else if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or_else(|| refuse("a `[` before the host has no `]`"))?;
        (host, after.strip_prefix(':'))
    } else if text.matches(':').count() > 1 {
        (text, None)
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.is_empty() {
        return Err(refuse("a host is missing"));
    }
    let port = match port_text {
        Some(text) => port(text)?,
        None => default_port,
    };
    Ok((decode(host)?, port))
}

/// Where a server on this machine listens, as libpq built by distributions has it.
fn default_host() -> String {
    let folder = "/var/run/postgresql";
    if cfg!(unix) && Path::new(folder).is_dir() { folder.to_string() } else { "localhost".to_string() }
}

/// The password of the first line that fits: `host:port:database:user:password`, each a `*` or the value.
fn from_password_file(
    variable: &dyn Fn(&str) -> Option<String>,
    hosts: &[(String, u16)],
    database: &str,
    user: &str,
) -> Option<Secret> {
    let path = variable("PGPASSFILE")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".pgpass")))?;
    // As libpq: a file that others can read is no place for a password, and is not used.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if path.metadata().ok()?.permissions().mode() & 0o077 != 0 {
            return None;
        }
    }
    let text = std::fs::read_to_string(path).ok()?;
    let (host, port) = hosts.first()?;
    // A socket is `localhost` in this file.
    let host = if host.starts_with('/') { "localhost" } else { host };
    let wanted = [host, &port.to_string(), database, user];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = password_fields(line);
        let (password, fields) = fields.split_last()?;
        let fits = fields.len() == 4
            && fields.iter().zip(wanted).all(|(field, wanted)| field == "*" || field == wanted);
        fits.then(|| Secret(password.clone()))
    })
}

/// Fields between colons, a backslash before one that belongs to a field.
fn password_fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match (c, fields.last_mut()) {
            (':', _) => fields.push(String::new()),
            ('\\', Some(field)) => field.extend(characters.next()),
            (c, Some(field)) => field.push(c),
            (_, None) => {}
        }
    }
    fields
}

/// `%20` to a space.
fn decode(text: &str) -> Result<String> {
    let bad = || refuse("a % is not followed by two hexadecimal digits (a % itself is %25)");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).ok_or_else(bad);
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            bytes.push((16 * high + low) as u8);
        } else {
            bytes.push(byte);
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| refuse("it is not UTF-8"))?;
    if text.contains('\0') {
        return Err(refuse("it holds a zero byte"));
    }
    Ok(text)
}

/// Everything but letters, digits and `-._~` as %XX.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn server(url: &str, variables: &[(&str, &str)]) -> Server {
        let variable = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_string())
        };
        match StorageUrl::parse_with(url, &variable) {
            Ok(StorageUrl::Postgres(server)) => *server,
            other => panic!("{url}: {other:?}"),
        }
    }

    fn error(url: &str) -> String {
        StorageUrl::parse_with(url, &|_| None).unwrap_err().to_string()
    }

    #[test]
    fn sqlite_as_sqlalchemy_has_it() {
        let path = |url: &str| match StorageUrl::parse(url) {
            Ok(StorageUrl::Sqlite(path)) => path,
            other => panic!("{other:?}"),
        };
        assert_eq!(path("sqlite:///a/study.db"), Path::new("a/study.db"));
        assert_eq!(path("sqlite:////tmp/study.db"), Path::new("/tmp/study.db"));
        assert_eq!(StorageUrl::Sqlite("/tmp/study.db".into()).to_string(), "sqlite:////tmp/study.db");
        assert!(error("sqlite://study.db").contains("three slashes"));
        assert!(error("sqlite:///").contains("needs a file"));
        assert!(error("sqlite:///:memory:").contains("needs a file"));
    }

    #[test]
    fn a_url_with_everything() {
        let full = server(
            "postgresql+psycopg2://anna:p%40ss%3A@db.example.org:5433,standby:5434/my%20studies\
             ?sslmode=verify-full&sslrootcert=/etc/ca.pem&connect_timeout=3&target_session_attrs=read-write",
            &[("PGPASSWORD", "other"), ("PGUSER", "other"), ("PGHOST", "other")],
        );
        assert_eq!(full.hosts, [("db.example.org".to_string(), 5433), ("standby".to_string(), 5434)]);
        assert_eq!((full.user.as_str(), full.database.as_str()), ("anna", "my studies"));
        assert_eq!(full.password.as_ref().unwrap().reveal(), "p@ss:");
        assert_eq!((full.tls.mode, full.connect_timeout), (SslMode::VerifyFull, Duration::from_secs(3)));
        let shown = full.to_string();
        assert_eq!(
            shown,
            "postgresql://anna@db.example.org:5433,standby:5434/my%20studies\
             ?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem&target_session_attrs=read-write"
        );
        let again = server(&shown, &[]);
        assert_eq!((&again.hosts, &again.tls, again.password), (&full.hosts, &full.tls, None));
    }

    #[test]
    fn what_is_left_out_comes_from_the_environment() {
        let variables = [
            ("PGHOST", "/run/sockets"),
            ("PGPORT", "6000"),
            ("PGUSER", "berta"),
            ("PGPASSWORD", "secret"),
            ("PGSSLMODE", "require"),
        ];
        let found = server("postgresql://", &variables);
        assert_eq!(found.hosts, [("/run/sockets".to_string(), 6000)]);
        assert_eq!((found.user.as_str(), found.database.as_str()), ("berta", "berta"));
        assert_eq!(found.password.as_ref().unwrap().reveal(), "secret");
        assert_eq!(found.tls.mode, SslMode::Require);
        let found = server("postgresql:///db?host=/tmp/x&user=carl", &variables);
        assert_eq!((found.hosts[0].0.as_str(), found.user.as_str()), ("/tmp/x", "carl"));
        let found = server("postgresql://[::1]:7000/db", &variables);
        assert_eq!(found.hosts, [("::1".to_string(), 7000)]);
        assert!(found.to_string().starts_with("postgresql://berta@[::1]:7000/db"));
        let found = server("postgresql://%2Frun%2Fx:7000/db", &variables);
        assert_eq!(found.hosts, [("/run/x".to_string(), 7000)]);
        assert_eq!(server(&found.to_string(), &[]).hosts, found.hosts);
        let found = server("postgresql://%2Frun%2Fx/db", &variables);
        assert_eq!(found.hosts, [("/run/x".to_string(), 6000)]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_without_repeating_it() {
        for (url, part) in [
            ("study.db", "`://`"),
            ("mysql://hunter2@h/d", "must begin with"),
            ("postgresql://u:hunter2@h:port/d", "port"),
            ("postgresql://u:hunter2%@h/d", "%25"),
            ("postgresql://u:hunter2@h/d?sslmode=allow", "sslmode"),
            ("postgresql://u:hunter2@h/d?sslcert=x", "together"),
            ("postgresql://u:hunter2@h/d?x=y", "no parameter"),
            ("postgresql://u:hunter2@h/d?connect_timeout=0", "connect_timeout"),
            ("postgresql://u:hunter2@[::1/d", "`]`"),
            ("postgresql://u:hunter2@/d?port=0", "port"),
            ("postgresql://u:hunt#er2@h/d", "%23"),
            ("postgresql://h/d", "user name"),
        ] {
            let message = error(url);
            assert!(message.contains(part) && !message.contains("hunt"), "{url}: {message}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_password_file_is_read_unless_others_can() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pass");
        std::fs::write(&path, "# a comment\nother:*:*:*:no\ndb:5432:*:anna:pa\\:ss\\\\word\n*:*:*:*:last\n")
            .unwrap();
        let set = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let file = path.to_str().unwrap();
        let password = |url: &str| server(url, &[("PGPASSFILE", file)]).password.map(|p| p.0);
        set(0o600);
        assert_eq!(password("postgresql://anna@db/x").as_deref(), Some("pa:ss\\word"));
        assert_eq!(password("postgresql://berta@db/x").as_deref(), Some("last"));
        set(0o640);
        assert_eq!(password("postgresql://anna@db/x"), None);
    }

    proptest! {
        #[test]
        fn passwords_are_shown_nowhere(password in "[a-zA-Z0-9@:/#? %ü]{6,20}") {
            prop_assume!(!"postgresql-user-host-database".contains(&password));
            let url = format!("postgresql://user:{}@host/database?sslmode=require", encode(&password));
            let server = server(&url, &[]);
            prop_assert_eq!(server.password.as_ref().unwrap().reveal(), &password);
            let mut shown = format!("{server} {server:?}");
            let url = StorageUrl::Postgres(Box::new(server));
            shown += &format!("{url} {url:?}");
            prop_assert!(!shown.contains(&password) && !shown.contains(&encode(&password)));
        }

        #[test]
        fn no_text_panics(text in ".{0,60}", rest in ".{0,60}") {
            let _ = StorageUrl::parse_with(&text, &|_| None);
            let _ = StorageUrl::parse_with(&format!("postgresql://{rest}"), &|_| None);
        }
    }
}
