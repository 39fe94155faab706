//! Where a study's database is: one answer for every command that asks.
//!
//! `--storage` counts first, then `DIAPASON_STORAGE`, then the folder of the study. What is typed may be a URL, as
//! Optuna has it, or a path: of a database file, or of a folder that has a `study.db`. A text that looks like a URL is
//! never taken for a path: it may hold a password, and paths are repeated in messages.

use crate::failure::{Failure, note};
use diapason_storage::{Opening, Storage, StorageError, StorageUrl};
use diapason_study::DATABASE_FILE;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a server is waited for that cannot be reached when the program starts.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// The variable that `--storage` can be left to.
pub(crate) const VARIABLE: &str = "DIAPASON_STORAGE";

/// The database of the study that has, or would have, this folder: what `--storage` says, else `DIAPASON_STORAGE`,
/// else the folder's own. Nothing is looked for but folders in place of files.
pub(crate) fn place(storage: Option<&str>, folder: &Path) -> Result<StorageUrl, Failure> {
    Ok(given(storage)?.unwrap_or_else(|| StorageUrl::Sqlite(folder.join(DATABASE_FILE))))
}

/// The database that `--storage` or `DIAPASON_STORAGE` names, if one of them does.
pub(crate) fn given(storage: Option<&str>) -> Result<Option<StorageUrl>, Failure> {
    if let Some(text) = storage {
        return named(text).map(Some);
    }
    match std::env::var(VARIABLE) {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => named(&text).map(Some).map_err(|failure| failure.in_file(Path::new(VARIABLE))),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(Failure::usage(format!("{VARIABLE} is not UTF-8"))),
    }
}

/// Waits for a server that cannot be reached at the moment: workers are started by machines, and a database may just be
/// restarted. Says so at once, since it may be a slip of the keyboard.
pub(crate) fn reach(url: &StorageUrl) -> Result<(), Failure> {
    let until = Instant::now() + PATIENCE;
    let mut said = false;
    loop {
        match Storage::open(url, Opening::Read) {
            Err(error) if error.is_transient() && Instant::now() < until => {
                if !std::mem::replace(&mut said, true) {
                    note(&format!("{error}; trying again for {} seconds", PATIENCE.as_secs()));
                }
                std::thread::sleep(PAUSE);
            }
            // Whatever else it is, whoever opens it for something will find out.
            Err(error) if error.is_transient() => return Err(error.into()),
            _ => return Ok(()),
        }
    }
}

/// Takes the password out of this process's command line, where everybody on the machine can read it: the program
/// starts itself again without it. From then on it is in the environment, which only its owner can read, and in nothing
/// that is printed.
pub(crate) fn hide_password() -> Result<(), Failure> {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    let mut password = None;
    for at in 1..words.len() {
        let Some(word) = words[at].to_str() else { continue };
        let (before, url) = match word.strip_prefix("--storage=") {
            Some(url) => ("--storage=", url),
            None if words[at - 1] == "--storage" => ("", word),
            None => continue,
        };
        if let Some((shown, secret)) = StorageUrl::split_password(url) {
            words[at] = format!("{before}{shown}").into();
            password = Some(secret);
        }
    }
    match password {
        Some(password) => start_again(&words, &password),
        None => Ok(()),
    }
}

#[cfg(unix)]
fn start_again(words: &[OsString], password: &str) -> Result<(), Failure> {
    use std::os::unix::process::CommandExt;
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from(&words[0]));
    let error = std::process::Command::new(program)
        .arg0(&words[0])
        .args(&words[1..])
        .env("PGPASSWORD", password)
        .exec();
    Err(Failure::failed(format!("cannot take the password out of the list of processes: {error}"))
        .with_hint("give it in PGPASSWORD or ~/.pgpass instead"))
}

#[cfg(not(unix))]
fn start_again(_: &[OsString], _: &str) -> Result<(), Failure> {
    Err(Failure::usage("--storage holds a password, which other users could read")
        .with_hint("give it in PGPASSWORD or ~/.pgpass instead"))
}

/// A URL, or the path of a file or folder.
fn named(text: &str) -> Result<StorageUrl, Failure> {
    if let Some(what) = match text.trim() {
        "" => Some("it is empty"),
        ":memory:" => Some("a study needs a file, and :memory: is none"),
        _ => None,
    } {
        return Err(Failure::from(StorageError::Url(what.to_string())).typed());
    }
    if is_url(text) {
        return StorageUrl::parse(text).map_err(|error| Failure::from(error).typed());
    }
    let path = PathBuf::from(text);
    Ok(StorageUrl::Sqlite(if path.is_dir() || text.ends_with('/') { path.join(DATABASE_FILE) } else { path }))
}

/// Whether the text is meant as a URL: a word and a colon stand before everything else. (`C:\study.db` is a path; so is
/// a file `a:b`, as `./a:b`.)
fn is_url(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, rest)| {
        let drive = scheme.len() == 1 && rest.starts_with(['\\', '/']) && !rest.starts_with("//");
        !drive && !scheme.contains(['/', '\\', '.'])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match named(text) {
            Ok(url) => url.to_string(),
            Err(failure) => format!("{failure:?}"),
        }
    }

    #[test]
    fn urls_and_paths() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().to_str().unwrap();
        assert_eq!(shown("sqlite:///a/b.db"), "sqlite:///a/b.db");
        assert_eq!(shown("a/b.db"), "sqlite:///a/b.db");
        assert_eq!(shown("./a:b"), "sqlite:///./a:b");
        assert_eq!(shown("C:\\b.db"), "sqlite:///C:\\b.db");
        assert_eq!(shown("not/there/"), "sqlite:///not/there/study.db");
        assert_eq!(shown(name), format!("sqlite:///{name}/study.db"));
        assert_eq!(shown("postgresql://u:hunter2@h:1/d"), "postgresql://u@h:1/d");
        // Slips of the keyboard are not repeated, and make no file of that name.
        for slip in ["", " ", ":memory:"] {
            let shown = shown(slip);
            assert!(shown.starts_with("Usage") && !shown.contains("://` in it"), "{shown}");
        }
        for slip in ["postgresql:/u:hunter2@h/d", "u:hunter2@h/d", "mysql://u:hunter2@h/d"] {
            let shown = shown(slip);
            assert!(shown.starts_with("Usage") && !shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn the_folder_is_the_last_resort() {
        let url = place(Some("x.db"), Path::new("studies/a")).unwrap();
        assert_eq!(url.to_string(), "sqlite:///x.db");
        if std::env::var_os(VARIABLE).is_none() {
            let url = place(None, Path::new("studies/a")).unwrap();
            assert_eq!(url.to_string(), "sqlite:///studies/a/study.db");
        }
    }
}
