//! Databases to test on: a SQLite file, and a PostgreSQL server that the tests start themselves.
//!
//! The server lives in a temporary folder, on a port of its own of the loopback, with settings that make trouble on
//! purpose: a time zone far from UTC, another style of dates, transactions that may be refused. It ends with the test
//! program, however that ends: a shell beside it waits for the pipe to this process to close.

#![allow(dead_code)]

use diapason_storage::{Opening, Storage, StorageUrl};
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Set this to leave the tests on PostgreSQL out.
pub(crate) const SKIP: &str = "DIAPASON_SKIP_POSTGRES_TESTS";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// An empty database.
pub(crate) struct Fixture {
    pub(crate) kind: Kind,
    pub(crate) url: String,
    folder: tempfile::TempDir,
}

impl Fixture {
    /// None: the tests of this kind are left out.
    pub(crate) fn new(kind: Kind) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let url = match kind {
            Kind::Sqlite => format!("sqlite:///{}", folder.path().join("study.db").display()),
            Kind::Postgres => Server::shared()?.new_database(),
        };
        Some(Self { kind, url, folder })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn storage_url(&self) -> StorageUrl {
        StorageUrl::parse(&self.url).unwrap()
    }

    pub(crate) fn open(&self) -> Storage {
        Storage::open(&self.storage_url(), Opening::Create).unwrap()
    }

    /// Statements behind the program's back, as another program makes them.
    pub(crate) fn sql(&self, statements: &str) {
        match self.kind {
            Kind::Sqlite => self.sqlite().execute_batch(statements).unwrap(),
            Kind::Postgres => self.postgres().batch_execute(statements).unwrap(),
        }
    }

    /// One number.
    pub(crate) fn number(&self, query: &str) -> i64 {
        match self.kind {
            Kind::Sqlite => self.sqlite().query_row(query, [], |row| row.get(0)).unwrap(),
            Kind::Postgres => {
                let wrapped = format!("SELECT CAST(({query}) AS BIGINT)");
                self.postgres().query_one(&wrapped, &[]).unwrap().get(0)
            }
        }
    }

    fn sqlite(&self) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(self.folder.path().join("study.db")).unwrap();
        connection.busy_timeout(Duration::from_secs(60)).unwrap();
        // As Python has it.
        connection.execute_batch("PRAGMA foreign_keys = 0").unwrap();
        connection
    }

    pub(crate) fn postgres(&self) -> postgres::Client {
        postgres::Client::connect(&self.url, postgres::NoTls).unwrap()
    }
}

/// A PostgreSQL server.
pub(crate) struct Server {
    pub(crate) folder: PathBuf,
    pub(crate) port: u16,
    programs: PathBuf,
    /// Whom the server runs as, if we are root.
    user: Option<(u32, u32)>,
    /// Ends the server when its input closes.
    watcher: Child,
}

/// The password of `guarded`, a user who needs one.
pub(crate) const PASSWORD: &str = "p@ss:w/rd";

impl Server {
    /// The server of this test program; none if tests on PostgreSQL are left out.
    pub(crate) fn shared() -> Option<&'static Self> {
        static SERVER: OnceLock<Option<Server>> = OnceLock::new();
        SERVER.get_or_init(Self::start).as_ref()
    }

    /// A server of one's own.
    pub(crate) fn start() -> Option<Self> {
        if std::env::var_os(SKIP).is_some() {
            return None;
        }
        let programs = programs();
        let folder = tempfile::Builder::new().prefix("diapason-pg").tempdir().unwrap().keep();
        let user = nobody_if_root();
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(&folder, Some(uid), Some(gid)).unwrap();
        }
        let mut watcher = as_user(user, "sh");
        watcher
            .args(["-c", r#"read gone; "$1/pg_ctl" -D "$2/data" -m immediate stop; rm -rf "$2""#, "sh"])
            .args([&programs, &folder])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Self { port, programs, user, watcher: watcher.spawn().unwrap(), folder };
        server.prepare();
        Some(server)
    }

    fn prepare(&self) {
        let data = self.folder.join("data");
        let run = |command: &mut Command| {
            let done = command.stdin(Stdio::null()).output().unwrap();
            assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
        };
        run(self.command("initdb").arg("-D").arg(&data).args([
            "-U",
            "tester",
            "-A",
            "trust",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale=C",
        ]));
        self.make_certificates();
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\nfsync = off\n\
             max_connections = 200\nshared_buffers = 32MB\ntimezone = 'Pacific/Kiritimati'\ndatestyle = 'German'\n\
             default_transaction_isolation = 'serializable'\nsynchronous_commit = off\n\
             ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'\npassword_encryption = 'scram-sha-256'\n",
            self.port,
            self.folder.display(),
            self.folder.join("server.crt").display(),
            self.folder.join("server.key").display(),
        );
        let append = |name: &str, text: &str| {
            let mut file = fs::OpenOptions::new().append(true).open(data.join(name)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        append("postgresql.conf", &settings);
        // The first line that fits counts.
        let rules = "hostssl all guarded 127.0.0.1/32 scram-sha-256\nhost all guarded 0.0.0.0/0 reject\n";
        let old = fs::read_to_string(data.join("pg_hba.conf")).unwrap();
        fs::write(data.join("pg_hba.conf"), format!("{rules}{old}")).unwrap();
        self.control("start");
        let mut client = postgres::Client::connect(&self.url("postgres"), postgres::NoTls).unwrap();
        client.batch_execute(&format!("CREATE ROLE guarded LOGIN SUPERUSER PASSWORD '{PASSWORD}'")).unwrap();
    }

    /// A root, a certificate for `localhost` signed by it, and a root that signed nothing.
    fn make_certificates(&self) {
        let script = r#"
            cd "$1"
            new="openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
            $new -keyout ca.key -out ca.crt -subj /CN=root
            $new -keyout other.key -out other.crt -subj /CN=other
            $new -keyout server.key -out server.crt -subj /CN=localhost -addext subjectAltName=DNS:localhost \
                -addext basicConstraints=critical,CA:FALSE -CA ca.crt -CAkey ca.key || {
                # Before OpenSSL 3
                openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout server.key -out server.csr -subj /CN=localhost
                printf 'subjectAltName=DNS:localhost\n' > ext
                openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out server.crt
            }
            chmod 600 server.key
        "#;
        let mut command = as_user(self.user, "sh");
        let done = command.args(["-c", script, "sh"]).arg(&self.folder).output().unwrap();
        assert!(
            self.folder.join("server.crt").is_file(),
            "no certificates (is openssl installed?): {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }

    fn command(&self, program: &str) -> Command {
        as_user(self.user, self.programs.join(program).to_str().unwrap())
    }

    /// `start`, `stop` or `restart`, without mercy for whoever is connected.
    pub(crate) fn control(&self, what: &str) {
        let log = self.folder.join("log");
        let status = self
            .command("pg_ctl")
            .arg("-D")
            .arg(self.folder.join("data"))
            .arg("-l")
            .arg(&log)
            .args(["-w", "-t", "300", "-s"])
            .args(if what == "start" { &[][..] } else { &["-m", "immediate"] })
            .arg(what)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{what}: {}", fs::read_to_string(log).unwrap_or_default());
    }

    /// Over the socket.
    pub(crate) fn url(&self, database: &str) -> String {
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgresql://tester@{folder}:{}/{database}", self.port)
    }

    /// Makes a database; its URL.
    pub(crate) fn new_database(&self) -> String {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", COUNTER.fetch_add(1, Ordering::Relaxed));
        let mut client = postgres::Client::connect(&self.url("postgres"), postgres::NoTls).unwrap();
        client.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
        // Over the loopback, as from another machine.
        format!("postgresql://tester@127.0.0.1:{}/{name}?sslmode=disable", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        let _ = self.watcher.wait();
    }
}

/// Where the server's programs are.
fn programs() -> PathBuf {
    let mut found: Vec<PathBuf> = Vec::new();
    if let Ok(versions) = fs::read_dir("/usr/lib/postgresql") {
        found.extend(versions.filter_map(|entry| Some(entry.ok()?.path().join("bin"))));
        found.sort();
    }
    if let Some(path) = std::env::var_os("PATH") {
        found.splice(0..0, std::env::split_paths(&path));
    }
    let whole = |folder: &&PathBuf| ["initdb", "pg_ctl", "postgres"].iter().all(|p| folder.join(p).is_file());
    found.iter().rev().find(whole).cloned().unwrap_or_else(|| {
        panic!(
            "no PostgreSQL server is installed, which these tests start: apt-get install postgresql, or set {SKIP}=1"
        )
    })
}

/// PostgreSQL refuses to run as root.
fn nobody_if_root() -> Option<(u32, u32)> {
    let id = |option: &str| {
        let out = Command::new("id").arg(option).output().unwrap().stdout;
        String::from_utf8(out).unwrap().trim().parse::<u32>().unwrap()
    };
    (id("-u") == 0).then_some((65534, 65534))
}

fn as_user(user: Option<(u32, u32)>, program: &str) -> Command {
    match user {
        None => Command::new(program),
        Some((uid, gid)) => {
            let mut command = Command::new("setpriv");
            command.args([&format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups", program]);
            command
        }
    }
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        // Generous: machines that run tests are busy, and may be paused.
        assert!(start.elapsed() < Duration::from_secs(300), "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
