//! Fetching text8 from its home.
//!
//! A download of 31 MB meets every failure that a network has. So what has arrived is kept in a `.part` file,
//! and a cut connection, or a later run, goes on from there; a server that cannot do that starts again. Nothing
//! gets the archive's name before its SHA-256 is right, and nothing the text's name before its MD5 is. A lock
//! file keeps two processes from writing at once: the second waits, and finds the work done.
//!
//! The archive stays in the folder beside the text; a person without a network can put it there by hand.

use crate::corpus::hex;
use crate::{CorpusError, Progress, files};
use md5::Md5;
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::http::{Response, StatusCode};

/// Failed attempts in a row, none of which brought anything new, after which a download is given up.
const BARREN_ATTEMPTS: u32 = 4;

/// Attempts after which it is given up even so: a server that sends a byte and hangs up would else keep us
/// for ever.
const ALL_ATTEMPTS: u32 = 100;

/// Bytes read at a time.
const PIECE: usize = 1 << 16;

/// A text in a zip archive on a server, with all that makes sure that it is the right one.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Name of the text, in the archive and in the cache folder.
    pub name: String,
    /// Address of the archive, http.
    pub url: String,
    /// Size of the archive.
    pub archive_bytes: u64,
    /// SHA-256 of the archive, lower-case hexadecimal.
    pub archive_sha256: String,
    /// Size of the text.
    pub text_bytes: u64,
    /// MD5 of the text, lower-case hexadecimal.
    pub text_md5: String,
    /// Wait before the second attempt; it doubles as long as attempts bring nothing.
    pub pause: Duration,
    /// How long a connection may be silent before it counts as cut.
    pub silence: Duration,
}

impl Remote {
    /// The first 10^8 bytes of the English Wikipedia of 2006, cleaned by Matt Mahoney. The environment
    /// variable `DIAPASON_TEXT8_URL` names a mirror.
    pub fn text8() -> Self {
        let url = std::env::var("DIAPASON_TEXT8_URL").ok().filter(|url| !url.is_empty());
        Self {
            name: "text8".into(),
            url: url.unwrap_or_else(|| "http://mattmahoney.net/dc/text8.zip".into()),
            archive_bytes: 31_344_016,
            archive_sha256: "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232".into(),
            text_bytes: 100_000_000,
            text_md5: "3bea1919949baf155f99411df5fada7e".into(),
            pause: Duration::from_secs(1),
            silence: Duration::from_secs(30),
        }
    }
}

/// The folder for downloads: `$DIAPASON_CACHE`, or `$XDG_CACHE_HOME/diapason`, or `~/.cache/diapason`.
///
/// # Errors
///
/// None of them is set.
pub fn cache_folder() -> Result<PathBuf, CorpusError> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("DIAPASON_CACHE")
        // The XDG specification wants relative paths to be ignored.
        .or_else(|| set("XDG_CACHE_HOME").filter(|path| path.is_absolute()).map(|path| path.join("diapason")))
        .or_else(|| set("HOME").map(|path| path.join(".cache/diapason")))
        .ok_or(CorpusError::NoCache)
}

/// Makes sure that the text of `remote` is in the folder `cache`, and returns its path. Downloads and unpacks
/// only what is not there or not right.
///
/// # Errors
///
/// The network fails for good, the server has another file, or the folder cannot be written.
pub fn fetch(
    remote: &Remote,
    cache: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<PathBuf, CorpusError> {
    let fetch = Fetch {
        remote,
        text: cache.join(&remote.name),
        archive: cache.join(format!("{}.zip", remote.name)),
        part: cache.join(format!("{}.zip.part", remote.name)),
    };
    if fetch.text_is_right(progress)? {
        return Ok(fetch.text);
    }
    fs::create_dir_all(cache).map_err(|source| CorpusError::io("create", cache, source))?;
    // Released when the file is closed, also by a kill.
    let _lock = lock(&cache.join(format!("{}.lock", remote.name)), progress)?;
    // Another process may have been at it.
    if fetch.text_is_right(progress)? {
        return Ok(fetch.text);
    }
    if !fetch.archive_is_right(progress)? {
        fetch.download(progress)?;
    }
    fetch.unpack(progress)?;
    Ok(fetch.text)
}

/// Waits for the lock on the file at `path`.
fn lock(path: &Path, progress: &mut dyn FnMut(Progress)) -> Result<File, CorpusError> {
    let failed = |source| CorpusError::io("lock", path, source);
    let file = OpenOptions::new().create(true).append(true).open(path);
    let file = file.map_err(|source| CorpusError::io("create", path, source))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(fs::TryLockError::WouldBlock) => {}
        // Some network file systems have no locks. Two writers may then spoil each other's download, which
        // its digest tells.
        Err(fs::TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => return Ok(file),
        Err(fs::TryLockError::Error(source)) => return Err(failed(source)),
    }
    progress(Progress { what: "waiting for another process", done: 0, total: None });
    loop {
        match file.lock() {
            Ok(()) => return Ok(file),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(failed(source)),
        }
    }
}

/// How one attempt at a download failed.
enum Failure {
    /// Another attempt may help.
    Cut(String),
    /// None will.
    Final(CorpusError),
}

/// One text on its way.
struct Fetch<'a> {
    remote: &'a Remote,
    text: PathBuf,
    archive: PathBuf,
    part: PathBuf,
}

impl Fetch<'_> {
    fn text_is_right(&self, progress: &mut dyn FnMut(Progress)) -> Result<bool, CorpusError> {
        let right = digest_of::<Md5>(&self.text, self.remote.text_bytes, progress)?;
        Ok(right.as_ref() == Some(&self.remote.text_md5))
    }

    fn archive_is_right(&self, progress: &mut dyn FnMut(Progress)) -> Result<bool, CorpusError> {
        let right = digest_of::<Sha256>(&self.archive, self.remote.archive_bytes, progress)?;
        Ok(right.as_ref() == Some(&self.remote.archive_sha256))
    }

    /// Brings the archive, checked, under its name.
    fn download(&self, progress: &mut dyn FnMut(Progress)) -> Result<(), CorpusError> {
        let mut resumed = self.download_part(progress)?;
        loop {
            let digest = digest_of::<Sha256>(&self.part, self.remote.archive_bytes, progress)?;
            if digest.as_ref() == Some(&self.remote.archive_sha256) {
                break;
            }
            self.remove_part();
            if !resumed {
                let digest = digest.unwrap_or_else(|| "another size".into());
                return Err(self.wrong_file(format!(
                    "its SHA-256 is {digest}, not {}; it has been removed",
                    self.remote.archive_sha256
                )));
            }
            // The beginning was of an earlier day, when a power cut may have damaged it. Once more, whole.
            resumed = false;
            self.download_part(progress)?;
        }
        fs::rename(&self.part, &self.archive)
            .and_then(|()| files::sync_folder(files::folder_of(&self.archive)))
            .map_err(|source| CorpusError::io("create", &self.archive, source))
    }

    /// Fills the part file; says whether it went on from an earlier beginning.
    fn download_part(&self, progress: &mut dyn FnMut(Progress)) -> Result<bool, CorpusError> {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.part)
            .map_err(|source| CorpusError::io("create", &self.part, source))?;
        let beginning = file.metadata().map_or(0, |metadata| metadata.len());
        let (mut most, mut barren, mut attempts) = (beginning, 0, 0);
        let agent = self.agent();
        loop {
            let problem = match self.attempt(&agent, &mut file, progress) {
                Ok(()) => break,
                Err(Failure::Final(error)) => {
                    // A good beginning outlives a server that has lost the file, and nothing else.
                    let good = matches!(error, CorpusError::Download { .. });
                    if !good || is_empty(&file) {
                        self.remove_part();
                    }
                    return Err(error);
                }
                Err(Failure::Cut(problem)) => problem,
            };
            let there = file.metadata().map_or(0, |metadata| metadata.len());
            // A server that cannot resume and is always cut at the same place brings nothing new.
            barren = if there > most { 0 } else { barren + 1 };
            most = most.max(there);
            attempts += 1;
            if barren >= BARREN_ATTEMPTS || attempts >= ALL_ATTEMPTS {
                if is_empty(&file) {
                    self.remove_part();
                }
                return Err(CorpusError::Download {
                    url: self.remote.url.clone(),
                    problem: format!("{problem} (after {attempts} attempts)"),
                    archive: self.archive.display().to_string(),
                });
            }
            let total = Some(self.remote.archive_bytes);
            progress(Progress { what: "waiting to try again", done: there, total });
            std::thread::sleep(self.remote.pause * (1 << barren));
        }
        file.sync_all().map_err(|source| CorpusError::io("write", &self.part, source))?;
        Ok(beginning > 0)
    }

    fn agent(&self) -> ureq::Agent {
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("diapason/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(self.remote.silence))
            .timeout_recv_response(Some(self.remote.silence))
            .timeout_per_read(Some(self.remote.silence));
        let host = self.remote.url.split("://").nth(1).unwrap_or_default();
        if host.starts_with("127.0.0.1") || host.starts_with("localhost") {
            // No proxy can reach this machine's own addresses.
            config = config.proxy(None);
        }
        config.build().into()
    }

    /// One request, and as much of the answer as arrives.
    fn attempt(
        &self,
        agent: &ureq::Agent,
        file: &mut File,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Failure> {
        let total = self.remote.archive_bytes;
        let write_failed = |source| Failure::Final(CorpusError::io("write", &self.part, source));
        let mut there = file.metadata().map_err(write_failed)?.len();
        if there > total {
            file.set_len(0).map_err(write_failed)?;
            there = 0;
        }
        if there == total {
            return Ok(());
        }
        let mut request = agent.get(&self.remote.url);
        if there > 0 {
            request = request.header("Range", format!("bytes={there}-"));
        }
        let response = request.call().map_err(|error| self.failure(&error))?;
        let start = self.check_answer(&response, there)?;
        if start != there {
            file.set_len(start).map_err(write_failed)?;
            there = start;
        }
        let mut body = response.into_body().into_reader();
        let mut piece = vec![0; PIECE];
        loop {
            progress(Progress { what: "downloading", done: there, total: Some(total) });
            let n = match body.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::Cut(format!("the connection broke: {error}"))),
            };
            there += n as u64;
            if there > total {
                return Err(self.wrong_size("more"));
            }
            file.write_all(&piece[..n]).map_err(write_failed)?;
        }
        if there < total {
            return Err(Failure::Cut(format!("the connection ended after {there} of {total} bytes")));
        }
        Ok(())
    }

    /// Where in the archive the answer's body begins: at `there`, as asked, or at 0.
    fn check_answer(&self, response: &Response<ureq::Body>, there: u64) -> Result<u64, Failure> {
        let total = self.remote.archive_bytes;
        let status = response.status();
        match status {
            StatusCode::OK => match response.body().content_length() {
                Some(length) if length != total => Err(self.wrong_size(&length.to_string())),
                _ => Ok(0),
            },
            StatusCode::PARTIAL_CONTENT => {
                let range = response.headers().get("content-range").and_then(|value| value.to_str().ok());
                let (from, whole) = range.and_then(content_range).unwrap_or((u64::MAX, None));
                match whole {
                    Some(whole) if whole != total => Err(self.wrong_size(&whole.to_string())),
                    _ if from == there => Ok(there),
                    _ => Err(self.give_up(format!(
                        "the server sent `{}`, which was not asked for",
                        range.unwrap_or("no range")
                    ))),
                }
            }
            // A part that the server cannot go on from.
            StatusCode::RANGE_NOT_SATISFIABLE => Err(self.wrong_size("fewer")),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                Err(Failure::Cut(format!("the server answered {status}")))
            }
            _ if status.is_server_error() => Err(Failure::Cut(format!("the server answered {status}"))),
            _ => Err(self.give_up(format!("the server answered {status}"))),
        }
    }

    /// What an error of the HTTP client means.
    fn failure(&self, error: &ureq::Error) -> Failure {
        use ureq::Error;
        match error {
            Error::Io(_)
            | Error::Timeout(_)
            | Error::HostNotFound
            | Error::ConnectionFailed
            | Error::ConnectProxyFailed(_)
            | Error::Protocol(_) => Failure::Cut(error.to_string()),
            Error::TlsRequired => self.give_up("the address leads to https, which is not built in".into()),
            _ => self.give_up(error.to_string()),
        }
    }

    fn give_up(&self, problem: String) -> Failure {
        Failure::Final(CorpusError::Download {
            url: self.remote.url.clone(),
            problem,
            archive: self.archive.display().to_string(),
        })
    }

    fn wrong_size(&self, found: &str) -> Failure {
        Failure::Final(self.wrong_file(format!("it has {found} bytes, not {}", self.remote.archive_bytes)))
    }

    fn wrong_file(&self, problem: String) -> CorpusError {
        CorpusError::WrongFile {
            url: self.remote.url.clone(),
            problem,
            archive: self.archive.display().to_string(),
        }
    }

    /// What is no use to a later run goes; that it cannot be removed is no news beside the first error.
    fn remove_part(&self) {
        let _ = fs::remove_file(&self.part);
    }

    /// Unpacks the text from the archive, checked, under its name.
    fn unpack(&self, progress: &mut dyn FnMut(Progress)) -> Result<(), CorpusError> {
        let total = self.remote.text_bytes;
        let read_failed = |source| CorpusError::io("read", &self.archive, source);
        let wrong = |problem: String| CorpusError::WrongFile {
            url: self.archive.display().to_string(),
            problem,
            archive: self.archive.display().to_string(),
        };
        let file = File::open(&self.archive).map_err(read_failed)?;
        let mut archive =
            zip::ZipArchive::new(io::BufReader::new(file)).map_err(|error| wrong(error.to_string()))?;
        let entry = archive.by_name(&self.remote.name).map_err(|error| wrong(error.to_string()))?;
        // One byte more than there should be is enough to know, however large a bomb claims to be.
        let mut entry = entry.take(total + 1);
        files::write_atomically(&self.text, |output| {
            let mut hash = Md5::new();
            let mut piece = vec![0; PIECE];
            let mut done = 0;
            loop {
                let n = entry.read(&mut piece).map_err(|error| wrong(error.to_string()))?;
                if n == 0 {
                    break;
                }
                hash.update(&piece[..n]);
                output.write_all(&piece[..n])?;
                done += n as u64;
                progress(Progress { what: "unpacking", done, total: Some(total) });
            }
            if done != total {
                let found = if done > total { "more".into() } else { done.to_string() };
                return Err(wrong(format!("its text has {found} bytes, not {total}")));
            }
            let md5 = hex(&hash.finalize());
            if md5 != self.remote.text_md5 {
                return Err(wrong(format!("the MD5 of its text is {md5}, not {}", self.remote.text_md5)));
            }
            Ok(())
        })
        .map_err(|error: CorpusError| error.with_output(&self.text))
    }
}

fn is_empty(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.len() == 0)
}

/// First byte and size of the whole from `bytes FIRST-LAST/SIZE`; the size may be `*`.
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, size) = value.trim().strip_prefix("bytes")?.trim().split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, size.trim().parse().ok()))
}

/// Digest of the file at `path`, in hexadecimal digits; `None` if there is none of `length` bytes.
fn digest_of<D: Digest>(
    path: &Path,
    length: u64,
    progress: &mut dyn FnMut(Progress),
) -> Result<Option<String>, CorpusError> {
    let failed = |source| CorpusError::io("read", path, source);
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    if file.seek(SeekFrom::End(0)).map_err(failed)? != length {
        return Ok(None);
    }
    file.rewind().map_err(failed)?;
    let mut hash = D::new();
    let mut piece = vec![0; 1 << 18];
    let mut done = 0;
    loop {
        let n = file.read(&mut piece).map_err(failed)?;
        if n == 0 {
            return Ok(Some(hex(&hash.finalize())));
        }
        hash.update(&piece[..n]);
        done += n as u64;
        progress(Progress { what: "checking", done, total: Some(length) });
    }
}

#[cfg(test)]
mod tests {
    use super::content_range;

    #[test]
    fn ranges() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(content_range("bytes */10"), None);
        assert_eq!(content_range("lines 5-9/10"), None);
        assert_eq!(content_range(""), None);
    }
}
