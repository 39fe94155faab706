//! Downloads from a server on this machine that does what servers and networks do.

use diapason_corpus::fetch::{Remote, cache_folder, fetch};
use diapason_corpus::{CorpusError, Progress};
use diapason_random::{Purpose, Stream};
use md5::Md5;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{BufRead, BufReader, Cursor, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use zip::write::SimpleFileOptions;

/// What the server does with one request.
enum Answer {
    /// Sends these bytes and hangs up.
    Send(Vec<u8>),
    /// Sends these bytes, says nothing for a while, and hangs up.
    Stall(Vec<u8>, Duration),
}

/// A server with one page; each request is answered by `answer`, from its number (from 0) and the first byte
/// that it asks for. The thread ends with the test process.
struct Server {
    url: String,
    /// First bytes asked for, in the order of requests.
    asked: Arc<Mutex<Vec<Option<usize>>>>,
}

impl Server {
    fn new(answer: impl Fn(usize, Option<usize>) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/text.zip", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, log, answer) = (stream.unwrap(), Arc::clone(&log), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let Some(from) = request(&stream) else { return };
                    let number = {
                        let mut log = log.lock().unwrap();
                        log.push(from);
                        log.len() - 1
                    };
                    let (bytes, time) = match answer(number, from) {
                        Answer::Send(bytes) => (bytes, Duration::ZERO),
                        Answer::Stall(bytes, time) => (bytes, time),
                    };
                    // The client may hang up first; that is its right.
                    drop(stream.write_all(&bytes));
                    std::thread::sleep(time);
                });
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> Vec<Option<usize>> {
        self.asked.lock().unwrap().clone()
    }
}

/// Reads a request; the first byte of its range, if it has one. `None` if it is no request.
fn request(stream: &TcpStream) -> Option<Option<usize>> {
    let mut lines = BufReader::new(stream).lines();
    assert_eq!(lines.next()?.ok()?, "GET /text.zip HTTP/1.1");
    let mut from = None;
    for line in lines {
        let line = line.ok()?.to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = Some(range.strip_suffix('-').unwrap().parse().unwrap());
        }
    }
    Some(from)
}

fn head(status: &str, headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n").into_bytes()
}

/// The answer of a good server that is cut after `limit` bytes of body.
fn good(file: &[u8], from: Option<usize>, limit: usize) -> Answer {
    let start = from.unwrap_or(0);
    let rest = &file[start..];
    let mut answer = match from {
        None => head("200 OK", &format!("Content-Length: {}\r\n", file.len())),
        Some(_) => {
            let (last, size) = (file.len() - 1, file.len());
            let headers =
                format!("Content-Length: {}\r\nContent-Range: bytes {start}-{last}/{size}\r\n", rest.len());
            head("206 Partial Content", &headers)
        }
    };
    answer.extend(&rest[..rest.len().min(limit)]);
    Answer::Send(answer)
}

fn status(status: &str, headers: &str, body: &[u8]) -> Answer {
    let mut answer = head(status, headers);
    answer.extend(body);
    Answer::Send(answer)
}

fn text() -> Vec<u8> {
    let stream = Stream::new(5, Purpose::Test, 0);
    (0..200_000).map(|i| b"abcdefghijklmnopqrstuvwxyz "[stream.below(i, 27) as usize]).collect()
}

fn zipped(name: &str, text: &[u8]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    archive.start_file(name, SimpleFileOptions::default()).unwrap();
    archive.write_all(text).unwrap();
    archive.finish().unwrap().into_inner()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn remote(url: &str, archive: &[u8], text: &[u8]) -> Remote {
    Remote {
        name: "text".into(),
        url: url.into(),
        archive_bytes: archive.len() as u64,
        archive_sha256: hex(&Sha256::digest(archive)),
        text_bytes: text.len() as u64,
        text_md5: hex(&Md5::digest(text)),
        pause: Duration::from_millis(1),
        silence: Duration::from_secs(20),
    }
}

/// A text, its archive, and an empty cache.
struct Case {
    text: Vec<u8>,
    archive: Vec<u8>,
    folder: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let text = text();
        let archive = zipped("text", &text);
        assert!(archive.len() > 100_000);
        Self { text, archive, folder: tempfile::tempdir().unwrap() }
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("deep/cache")
    }

    fn put(&self, name: &str, content: &[u8]) {
        fs::create_dir_all(self.cache()).unwrap();
        fs::write(self.cache().join(name), content).unwrap();
    }

    /// Names in the cache, without the lock file.
    fn names(&self) -> Vec<String> {
        let names =
            fs::read_dir(self.cache()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name != "text.lock").collect();
        names.sort();
        names
    }

    fn fetch(&self, server: &Server) -> Result<PathBuf, CorpusError> {
        fetch(&remote(&server.url, &self.archive, &self.text), &self.cache(), &mut |_| {})
    }

    fn check(&self, path: &Path) {
        assert_eq!(path, self.cache().join("text"));
        assert!(fs::read(path).unwrap() == self.text);
        assert_eq!(self.names(), ["text", "text.zip"]);
    }
}

fn good_server(case: &Case) -> Server {
    let archive = case.archive.clone();
    Server::new(move |_, from| good(&archive, from, usize::MAX))
}

#[test]
fn a_good_server_is_asked_once() {
    let case = Case::new();
    let server = good_server(&case);
    let mut reports: Vec<Progress> = Vec::new();
    let remote = remote(&server.url, &case.archive, &case.text);
    let path = fetch(&remote, &case.cache(), &mut |p| reports.push(p)).unwrap();
    case.check(&path);
    for (what, bytes) in [("downloading", case.archive.len()), ("unpacking", case.text.len())] {
        let last = reports.iter().rfind(|p| p.what == what).unwrap();
        assert_eq!((last.done, last.total), (bytes as u64, Some(bytes as u64)), "{what}");
    }
    case.check(&case.fetch(&server).unwrap());
    assert_eq!(server.asked(), [None]);
}

#[test]
fn a_connection_that_is_cut_goes_on_where_it_was() {
    let case = Case::new();
    let archive = case.archive.clone();
    let server = Server::new(move |number, from| match number {
        // Nothing at all, now and then.
        2 | 4 => Answer::Send(Vec::new()),
        3 => good(&archive, from, 0),
        _ => good(&archive, from, 20_000),
    });
    case.check(&case.fetch(&server).unwrap());
    let asked = server.asked();
    assert_eq!(asked[..5], [None, Some(20_000), Some(40_000), Some(40_000), Some(40_000)]);
    assert_eq!(asked[5..7], [Some(40_000), Some(60_000)]);
    assert_eq!(asked.len(), case.archive.len().div_ceil(20_000) + 3);
}

#[test]
fn a_later_run_goes_on_too() {
    let case = Case::new();
    case.put("text.zip.part", &case.archive[..50_000]);
    let server = good_server(&case);
    case.check(&case.fetch(&server).unwrap());
    assert_eq!(server.asked(), [Some(50_000)]);
}

#[test]
fn a_complete_part_needs_no_server() {
    let case = Case::new();
    case.put("text.zip.part", &case.archive);
    let server = good_server(&case);
    case.check(&case.fetch(&server).unwrap());
    assert_eq!(server.asked(), []);
}

#[test]
fn a_damaged_beginning_is_fetched_again() {
    let case = Case::new();
    // As a power cut may leave it.
    case.put("text.zip.part", &[0; 50_000]);
    let server = good_server(&case);
    case.check(&case.fetch(&server).unwrap());
    assert_eq!(server.asked(), [Some(50_000), None]);
    // And one that is longer than the whole.
    let case = Case::new();
    case.put("text.zip.part", &vec![0; case.archive.len() + 1]);
    let server = good_server(&case);
    case.check(&case.fetch(&server).unwrap());
    assert_eq!(server.asked(), [None]);
}

#[test]
fn a_server_without_ranges_starts_again() {
    let case = Case::new();
    let archive = case.archive.clone();
    let server =
        Server::new(move |number, _| good(&archive, None, if number < 2 { 30_000 } else { usize::MAX }));
    case.check(&case.fetch(&server).unwrap());
    assert_eq!(server.asked(), [None, Some(30_000), Some(30_000)]);
}

#[test]
fn a_server_that_never_gets_further_is_given_up() {
    let case = Case::new();
    let archive = case.archive.clone();
    let server = Server::new(move |_, _| good(&archive, None, 30_000));
    let error = case.fetch(&server).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("cannot download http://127.0.0.1"), "{message}");
    assert!(message.contains("after 5 attempts"), "{message}");
    let by_hand = case.cache().join("text.zip").display().to_string();
    assert!(error.hint().unwrap().contains(&by_hand));
    assert_eq!(server.asked().len(), 5);
    // The beginning is kept for a better day.
    assert_eq!(case.names(), ["text.zip.part"]);
    case.check(&case.fetch(&good_server(&case)).unwrap());
}

#[test]
fn a_busy_server_is_asked_again() {
    let case = Case::new();
    let archive = case.archive.clone();
    let server = Server::new(move |number, from| match number {
        0 => status("503 Service Unavailable", "Content-Length: 4\r\n", b"busy"),
        1 => status("429 Too Many Requests", "Content-Length: 0\r\n", b""),
        _ => good(&archive, from, usize::MAX),
    });
    case.check(&case.fetch(&server).unwrap());
    assert_eq!(server.asked(), [None; 3]);
}

/// Fetches what cannot be had; the message, and the number of requests. Nothing may remain.
fn refused(answer: impl Fn(&[u8]) -> Answer + Send + Sync + 'static) -> (String, usize) {
    let case = Case::new();
    let archive = case.archive.clone();
    let server = Server::new(move |_, _| answer(&archive));
    let error = case.fetch(&server).unwrap_err();
    assert!(error.hint().is_some());
    assert_eq!(case.names(), [""; 0]);
    (error.to_string(), server.asked().len())
}

#[test]
fn a_missing_file() {
    let (message, requests) = refused(|_| status("404 Not Found", "Content-Length: 4\r\n", b"gone"));
    assert!(message.ends_with("the server answered 404 Not Found"), "{message}");
    assert_eq!(requests, 1);
    // What was there of it stays.
    let case = Case::new();
    case.put("text.zip.part", &case.archive[..10]);
    let server = Server::new(|_, _| status("404 Not Found", "Content-Length: 0\r\n", b""));
    case.fetch(&server).unwrap_err();
    assert_eq!(case.names(), ["text.zip.part"]);
}

#[test]
fn garbage_of_the_right_size() {
    let (message, requests) = refused(|archive| good(&vec![7; archive.len()], None, usize::MAX));
    assert!(message.contains("is not the file it should be: its SHA-256 is "), "{message}");
    assert!(message.ends_with("it has been removed"), "{message}");
    assert_eq!(requests, 1);
}

#[test]
fn a_file_of_another_size() {
    let (message, requests) = refused(|_| status("200 OK", "Content-Length: 11\r\n", b"<html>sorry"));
    assert!(message.contains("is not the file it should be: it has 11 bytes, not "), "{message}");
    assert_eq!(requests, 1);
    // Without a length, the end of the connection is the end of the file.
    let (message, requests) = refused(|archive| status("200 OK", "", &vec![7; archive.len() + 100_000]));
    assert!(message.contains("it has more bytes, not "), "{message}");
    assert_eq!(requests, 1);
    let (message, _) = refused(|archive| {
        let range = format!("Content-Range: bytes 0-9/{}\r\nContent-Length: 10\r\n", archive.len() + 1);
        status("206 Partial Content", &range, &archive[..10])
    });
    assert!(message.contains("is not the file it should be"), "{message}");
}

#[test]
fn a_range_that_was_not_asked_for() {
    let (message, requests) = refused(|archive| {
        let range = format!("Content-Range: bytes 5-9/{}\r\nContent-Length: 5\r\n", archive.len());
        status("206 Partial Content", &range, &archive[5..10])
    });
    assert!(message.contains("`bytes 5-9/"), "{message}");
    assert_eq!(requests, 1);
}

#[test]
fn no_http_at_all() {
    let (message, _) = refused(|_| Answer::Send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n\r\n".to_vec()));
    assert!(message.contains("cannot download"), "{message}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let headers = format!("Location: https://{}/\r\nContent-Length: 0\r\n", listener.local_addr().unwrap());
    let (message, requests) = refused(move |_| status("301 Moved", &headers, b""));
    assert!(message.ends_with("the address leads to https, which is not built in"), "{message}");
    assert_eq!(requests, 1);
}

#[test]
fn a_silent_server() {
    let case = Case::new();
    let server = Server::new(|_, _| Answer::Stall(Vec::new(), Duration::from_secs(2)));
    let remote =
        Remote { silence: Duration::from_millis(50), ..remote(&server.url, &case.archive, &case.text) };
    let message = fetch(&remote, &case.cache(), &mut |_| {}).unwrap_err().to_string();
    assert!(message.contains("timeout"), "{message}");
    assert_eq!(case.names(), [""; 0]);
}

#[test]
fn a_server_that_falls_silent() {
    let case = Case::new();
    let archive = case.archive.clone();
    let server = Server::new(move |number, from| match (number, good(&archive, from, 30_000)) {
        (0, Answer::Send(bytes)) => Answer::Stall(bytes, Duration::from_secs(10)),
        _ => good(&archive, from, usize::MAX),
    });
    let remote =
        Remote { silence: Duration::from_millis(500), ..remote(&server.url, &case.archive, &case.text) };
    case.check(&fetch(&remote, &case.cache(), &mut |_| {}).unwrap());
    assert_eq!(server.asked(), [None, Some(30_000)]);
}

#[test]
fn no_server() {
    let case = Case::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let remote = remote(&format!("http://127.0.0.1:{port}/text.zip"), &case.archive, &case.text);
    let message = fetch(&remote, &case.cache(), &mut |_| {}).unwrap_err().to_string();
    assert!(message.contains("after 4 attempts"), "{message}");
    assert_eq!(case.names(), [""; 0]);
}

#[test]
fn an_archive_put_there_by_hand() {
    let case = Case::new();
    case.put("text.zip", &case.archive);
    let server = good_server(&case);
    case.check(&case.fetch(&server).unwrap());
    // A text that was damaged is unpacked again, a damaged archive fetched again.
    case.put("text", &vec![b'x'; case.text.len()]);
    case.check(&case.fetch(&server).unwrap());
    assert_eq!(server.asked(), []);
    case.put("text", b"");
    case.put("text.zip", &vec![b'x'; case.archive.len()]);
    case.check(&case.fetch(&server).unwrap());
    assert_eq!(server.asked(), [None]);
}

#[test]
fn a_wrong_text_in_the_archive() {
    let archives: [(Vec<u8>, &str); 5] = [
        (zipped("text", &text()[..1000]), "its text has 1000 bytes, not 200000"),
        (zipped("text", &[b'x'; 200_001]), "its text has more bytes, not 200000"),
        (zipped("text", &[b'x'; 200_000]), "the MD5 of its text is "),
        (zipped("another", &text()), "not found"),
        (b"not a zip archive".to_vec(), ""),
    ];
    for (archive, problem) in archives {
        let case = Case::new();
        let case = Case { archive, ..case };
        let error = case.fetch(&good_server(&case)).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("is not the file it should be") && message.contains(problem), "{message}");
        assert_eq!(case.names(), ["text.zip"]);
    }
}

#[test]
fn several_at_once_download_once() {
    let case = Case::new();
    let archive = case.archive.clone();
    let server = Server::new(move |_, from| {
        std::thread::sleep(Duration::from_millis(20));
        good(&archive, from, 30_000)
    });
    std::thread::scope(|scope| {
        // Each opens the lock file for itself, as processes do.
        let fetches: Vec<_> = (0..4).map(|_| scope.spawn(|| case.fetch(&server))).collect();
        for fetch in fetches {
            case.check(&fetch.join().unwrap().unwrap());
        }
    });
    assert_eq!(server.asked().len(), case.archive.len().div_ceil(30_000));
}

#[test]
fn a_cache_that_cannot_be_written() {
    let case = Case::new();
    fs::write(case.folder.path().join("deep"), "a file").unwrap();
    let message = case.fetch(&good_server(&case)).unwrap_err().to_string();
    assert!(message.starts_with("cannot create ") || message.starts_with("cannot read "), "{message}");
}

#[test]
fn text8_is_what_it_always_was() {
    let text8 = Remote::text8();
    assert_eq!((text8.archive_bytes, text8.text_bytes), (31_344_016, 100_000_000));
    assert_eq!(text8.archive_sha256.len(), 64);
    assert_eq!(text8.text_md5.len(), 32);
    assert!(cache_folder().is_ok_and(|path| !path.as_os_str().is_empty()));
}
