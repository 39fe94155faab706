//! `study`: list, show, export, delete.
//!
//! A study belongs to whoever can write to its database, and so does every name, value and attribute in it. So what
//! is printed goes through [`printable`], what becomes a cell of a spreadsheet through [`words::cell`], and no path from a
//! database is opened. Nothing but `delete` writes.

mod delete;
mod export;
mod list;
mod show;
mod words;

pub(super) use words::Table;

use crate::args::{Database, Study};
use crate::failure::{Failure, note};
use crate::{shell, storage};
use diapason_storage::{Opening, Storage, StorageError, StorageUrl, StudyId, StudySummary, printable};
use diapason_study::DATABASE_FILE;
use std::fs;
use std::path::{Path, PathBuf};

/// Folder of the folders of studies, as `tune` makes it.
pub(super) const STUDIES: &str = "studies";

pub(crate) fn run(command: Study) -> Result<(), Failure> {
    match command {
        Study::List(args) => list::list(&args),
        Study::Show(args) => show::show(&args),
        Study::Export(args) => export::export(&args),
        Study::Delete(args) => delete::delete(&args),
    }
}

/// A study in an open database.
pub(super) struct Found {
    storage: Storage,
    pub(super) url: StorageUrl,
    id: StudyId,
    pub(super) name: String,
}

impl Found {
    /// What is known of it without looking at its trials.
    fn summary(&mut self) -> Result<StudySummary, Failure> {
        let all = self.storage.studies()?;
        all.into_iter()
            .find(|study| study.id == self.id)
            .ok_or_else(|| StorageError::NoStudy { name: self.name.clone() }.into())
    }
}

fn open(url: &StorageUrl, opening: Opening) -> Result<Storage, Failure> {
    let storage = Storage::open(url, opening).map_err(|error| match error {
        // Nobody is training here.
        StorageError::Unreachable { .. } => Failure::failed(error.to_string()).with_hint(match url {
            StorageUrl::Postgres(_) => "does the server run, at this host and port?",
            StorageUrl::Sqlite(_) => "try again in a moment",
        }),
        error => error.into(),
    })?;
    if let Some(warning) = storage.warning() {
        note(&format!("warning: {}: {warning}", storage.place()));
    }
    Ok(storage)
}

/// The study that was named, or the only one there is.
pub(super) fn find(args: &Database, name: Option<&str>, opening: Opening) -> Result<Found, Failure> {
    if let Some(url) = storage::given(args.storage.as_deref())? {
        let storage = open(&url, opening)?;
        return choose(storage, url, name, name.is_none(), args);
    }
    let Some(name) = name else {
        return Err(Failure::usage("NAME is missing").with_hint("`diapason study list` names the studies"));
    };
    let folder = [Path::new(STUDIES).join(name), PathBuf::from(name)]
        .into_iter()
        .find(|folder| folder.join(DATABASE_FILE).is_file())
        .ok_or_else(|| unknown(name, &folders(Path::new(STUDIES)), args))?;
    let url = storage::place(None, &folder)?;
    let storage = open(&url, opening)?;
    let last = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    // The folder of a study has one study, whatever that is called.
    choose(storage, url, last.as_deref(), true, args)
}

/// The study of that name in a database; or its only one, if that will do.
fn choose(
    mut storage: Storage,
    url: StorageUrl,
    name: Option<&str>,
    or_only: bool,
    args: &Database,
) -> Result<Found, Failure> {
    if let Some(name) = name {
        match storage.study(name) {
            Ok(id) => return Ok(Found { storage, url, id, name: name.to_string() }),
            Err(StorageError::NoStudy { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let all = storage.studies()?;
    match (all.as_slice(), name) {
        ([only], _) if or_only => {
            let (id, name) = (only.id, only.name.clone());
            Ok(Found { storage, url, id, name })
        }
        (all, Some(name)) => {
            Err(unknown(name, &all.iter().map(|study| study.name.clone()).collect::<Vec<_>>(), args))
        }
        ([], None) => Err(Failure::failed(format!("there is no study in {url}"))),
        (all, None) => Err(Failure::usage(format!("NAME is missing: {} studies are in {url}", all.len()))
            .with_hint(format!("`{}` names them", list_command(args)))),
    }
}

/// No study of that name; perhaps one of these was meant.
fn unknown(name: &str, known: &[String], args: &Database) -> Failure {
    let near = known
        .iter()
        .map(|known| (strsim::jaro_winkler(&known.to_lowercase(), &name.to_lowercase()), known))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(near, _)| *near > 0.8);
    let failure = Failure::from(StorageError::NoStudy { name: name.to_string() });
    match near {
        Some((_, near)) => failure.with_hint(format!("did you mean `{}`?", printable(near))),
        None => failure.with_hint(format!("`{}` names those that are there", list_command(args))),
    }
}

/// The command that lists the studies of this database. (A password that was typed is no longer in the words.)
fn list_command(args: &Database) -> String {
    let mut words = vec!["diapason", "study", "list"];
    let typed = args.storage.as_deref().filter(|typed| StorageUrl::split_password(typed).is_none());
    if let Some(typed) = typed {
        words.extend(["--storage", typed]);
    }
    shell::line(&words)
}

/// Names of the folders in `studies` that have a database, in alphabetical order.
fn folders(studies: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(studies) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| studies.join(name).join(DATABASE_FILE).is_file())
        .collect();
    names.sort();
    names
}
