//! `study delete`.

use super::words::{cut, lease};
use super::{Found, STUDIES, find, open};
use crate::args::DeleteStudy;
use crate::failure::{Failure, note};
use diapason_report::{HTML_FILE, JSON_FILE, REPORT_FILE, RESULTS_FILE};
use diapason_storage::{ItemState, Opening, PAGE, StorageUrl, printable};
use diapason_study::{DATABASE_FILE, STUDY_FILE};
use diapason_training::{BEST, CHECKPOINT, CURVE};
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Component, Path, PathBuf};

/// Folder of the trials in a study's folder.
const TRIALS: &str = "trials";

pub(super) fn delete(args: &DeleteStudy) -> Result<(), Failure> {
    let mut found = find(&args.database, Some(&args.name), Opening::Read)?;
    let summary = found.summary()?;
    let name = printable(&found.name).into_owned();
    if !args.force {
        refuse_if_held(&mut found, &name)?;
    }
    let others = found.storage.studies()?.len() - 1;
    let files = if args.files { files_of(&found.url, &found.name, others)? } else { Files::default() };
    note(&format!(
        "this deletes the study `{name}` with its {} trials from {}",
        summary.trials,
        printable(&found.url.to_string())
    ));
    // What SQLite keeps beside the database goes without saying, and so does what a killed writer left.
    let goes_without_saying = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with("-wal") || name.ends_with("-shm") || name.starts_with('.')
    };
    for path in files.own.iter().filter(|path| !goes_without_saying(path)) {
        note(&format!("and {}", path.display()));
    }
    if let Some(trials) = files.folders.last() {
        note(&format!("and the checkpoints and curves in {}", trials.display()));
    }
    for path in files.others.iter().take(OTHERS_SHOWN) {
        note(&format!("{} stays: `tune` did not write it", printable(&path.to_string_lossy())));
    }
    if files.others.len() > OTHERS_SHOWN {
        note(&format!("so do {} more", files.others.len() - OTHERS_SHOWN));
    }
    if !args.yes && !confirmed()? {
        return Err(Failure::failed("nothing was deleted"));
    }
    // What looks writes nothing; what deletes needs all tables.
    let Found { url, storage, .. } = found;
    drop(storage);
    let mut storage = open(&url, Opening::Write)?;
    storage.delete_study(&summary.name)?;
    drop(storage);
    for path in files.own.iter().chain(&files.of_trials) {
        remove(path).map_err(|error| Failure::file("delete", path, &error))?;
    }
    for folder in files.folders.iter().chain(&files.folder) {
        // Something of the user's own may be in it: then it stays.
        let _ = fs::remove_dir(folder);
    }
    note(&format!("deleted `{name}`"));
    Ok(())
}

/// Somebody works on it.
fn refuse_if_held(found: &mut Found, name: &str) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let items = found.storage.items(found.id, Some(ItemState::Held), after, PAGE)?;
        let Some(last) = items.last() else { return Ok(()) };
        after = Some(last.id);
        if let Some(item) = items.iter().find(|item| item.lease_left.is_some_and(|left| left >= 0.0)) {
            let owner = item.owner.as_deref().map_or_else(|| "somebody".to_string(), |owner| cut(owner, 60));
            return Err(Failure::failed(format!("{owner} is working on `{name}`")).with_hint(format!(
                "end its workers first; the lease of one that is gone ends by itself ({}); --force deletes it all the same",
                lease(item)
            )));
        }
    }
}

/// How many of the files that stay are named.
const OTHERS_SHOWN: usize = 5;

/// What is in the folder of a study.
#[derive(Default)]
struct Files {
    /// The study's folder.
    folder: Option<PathBuf>,
    /// Files in it that the program writes.
    own: Vec<PathBuf>,
    /// Such files of its trials.
    of_trials: Vec<PathBuf>,
    /// Folders of the trials, each after those in it; the last is the folder of them all.
    folders: Vec<PathBuf>,
    /// All the rest: somebody put it there, and it stays.
    others: Vec<PathBuf>,
}

impl Files {
    /// Looks through `trials/CELL/seed-N` at this depth below `trials`. Links are not followed.
    fn look_into(&mut self, folder: PathBuf, depth: usize) -> io::Result<()> {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let name = entry.file_name().to_string_lossy().into_owned();
            if depth == 2
                && !kind.is_dir()
                && (name == ".lock" || is_one_of(&name, &[CHECKPOINT, BEST, CURVE]))
            {
                self.of_trials.push(path);
            } else if kind.is_dir() && (depth == 0 || (depth == 1 && name.starts_with("seed-"))) {
                self.look_into(path, depth + 1)?;
            } else {
                self.others.push(path);
            }
        }
        self.folders.push(folder);
        Ok(())
    }
}

/// Whether a file has one of these names, or the name under which such a file is written until it is whole.
fn is_one_of(file: &str, names: &[&str]) -> bool {
    let whole = file.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp")).unwrap_or(file);
    names.contains(&whole)
}

/// The files of a study that are there, all in one folder. Their names are the program's own, none is from the
/// database.
fn files_of(url: &StorageUrl, name: &str, others: usize) -> Result<Files, Failure> {
    let folder = match url {
        StorageUrl::Sqlite(path) => path.parent().map(Path::to_path_buf).unwrap_or_default(),
        StorageUrl::Postgres(_) => {
            let mut parts = Path::new(name).components();
            match (parts.next(), parts.next()) {
                (Some(Component::Normal(part)), None) => Path::new(STUDIES).join(part),
                _ => {
                    return Err(Failure::failed(
                        "the study's name is no name of a folder: its files are not known",
                    ));
                }
            }
        }
    };
    if !folder.join(STUDY_FILE).is_file() {
        return Err(Failure::failed(format!(
            "there is no {STUDY_FILE} in {}: this is not the folder of a study",
            if folder.as_os_str().is_empty() { Path::new(".") } else { &folder }.display()
        ))
        .with_hint("leave --files out, and delete by hand what you do not need"));
    }
    let mut names = vec![STUDY_FILE, REPORT_FILE, HTML_FILE, JSON_FILE, RESULTS_FILE];
    let database: Vec<String> =
        ["", "-wal", "-shm"].iter().map(|end| format!("{DATABASE_FILE}{end}")).collect();
    match url {
        StorageUrl::Sqlite(path) if others > 0 => {
            return Err(Failure::failed(format!(
                "{} has {others} other studies: whose files are in its folder is not known",
                path.display()
            ))
            .with_hint("leave --files out, and delete by hand what you do not need"));
        }
        StorageUrl::Sqlite(path) if path.file_name().is_some_and(|file| file == DATABASE_FILE) => {
            names.extend(database.iter().map(String::as_str));
        }
        _ => {}
    }
    let mut files = Files::default();
    let mut look = || -> io::Result<()> {
        let here = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
        for entry in fs::read_dir(here)? {
            let entry = entry?;
            let (file, kind) = (entry.file_name(), entry.file_type()?);
            let path = folder.join(&file);
            if !kind.is_dir() && is_one_of(&file.to_string_lossy(), &names) {
                files.own.push(path);
            } else if kind.is_dir() && file == TRIALS {
                files.look_into(path, 0)?;
            } else {
                files.others.push(path);
            }
        }
        Ok(())
    };
    look().map_err(|error| Failure::file("look into", &folder, &error))?;
    for paths in [&mut files.own, &mut files.of_trials, &mut files.others] {
        paths.sort();
    }
    files.folder = Some(folder);
    Ok(files)
}

/// Deletes a file or a link.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        // SQLite takes its own two files away when it closes the database.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Asks at the terminal.
fn confirmed() -> Result<bool, Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(
            Failure::usage("there is no terminal to ask at").with_hint("--yes deletes without asking")
        );
    }
    let mut out = io::stderr().lock();
    write!(out, "Delete it? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .map_err(|e| Failure::failed(format!("cannot read the answer: {e}")))?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
