//! Where a study is kept: a folder with its checkpoints, and a database with everything else.
//!
//! The database is an Optuna study ([`diapason_storage`]): SQLite in the study's own folder, or a server that many
//! machines share. One attribute of it holds the specification, so that a worker needs no more than the address; the
//! `study.toml` in the folder is a copy for people, and what a study is begun anew from should its database be lost.

use crate::{STUDY_FILE, StudyError, StudySpec};
use diapason_storage::{Attributes, Opening, Storage, StorageError, StorageUrl, StudyId, printable};
use serde_json::Value as Json;
use std::path::{Path, PathBuf};

/// Name of the file with a study's database, in its folder.
pub const DATABASE_FILE: &str = "study.db";

/// The study's attribute that holds its specification.
pub(crate) const SPEC: &str = "diapason:spec";

/// Where a study is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Home {
    /// The folder of its checkpoints.
    pub folder: PathBuf,
    /// Its database.
    pub storage: StorageUrl,
    /// Its name there; none: the only one, which is what the database of a study's own folder holds.
    pub name: Option<String>,
}

/// A study that was found in a database.
pub(crate) struct Found {
    pub(crate) storage: Storage,
    pub(crate) id: StudyId,
    pub(crate) name: String,
    /// None of a study that another program made.
    pub(crate) spec: Option<StudySpec>,
}

impl Home {
    /// A study that lives in its folder alone.
    pub fn local(folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        Self { storage: StorageUrl::Sqlite(folder.join(DATABASE_FILE)), folder, name: None }
    }

    /// Whether the database lies in the folder.
    pub fn is_local(&self) -> bool {
        matches!(&self.storage, StorageUrl::Sqlite(path) if path.parent() == Some(self.folder.as_path()))
    }

    /// The error of there being no study here.
    pub(crate) fn no_study(&self) -> StudyError {
        let place = match &self.name {
            Some(name) => format!("{} by the name of `{}`", self.storage, printable(name)),
            None => self.storage.to_string(),
        };
        StudyError::NoStudy { place }
    }

    /// What the study was asked for.
    ///
    /// # Errors
    /// There is no study, it is one of another program, or the database cannot be read.
    pub fn spec(&self) -> Result<StudySpec, StudyError> {
        let found = self.find(Opening::Read)?.ok_or_else(|| self.no_study())?;
        found.spec.ok_or(StudyError::NotOurs { name: found.name })
    }

    /// The study in the database; none if there is no database, or no such study in it. Nothing is written.
    pub(crate) fn find(&self, opening: Opening) -> Result<Option<Found>, StudyError> {
        if let StorageUrl::Sqlite(path) = &self.storage
            && !path.exists()
        {
            return Ok(None);
        }
        let mut storage = match Storage::open(&self.storage, opening) {
            Ok(storage) => storage,
            Err(StorageError::NoDatabase { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let (id, name) = match &self.name {
            Some(name) => match storage.study(name) {
                Ok(id) => (id, name.clone()),
                Err(StorageError::NoStudy { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            },
            None => {
                let mut studies = storage.studies()?;
                match (studies.pop(), studies.len()) {
                    (None, _) => return Ok(None),
                    (Some(study), 0) => (study.id, study.name),
                    (Some(_), others) => {
                        return Err(StudyError::WhichStudy { place: storage.place(), studies: others + 1 });
                    }
                }
            }
        };
        let spec = spec_of(&mut storage, id)?;
        Ok(Some(Found { storage, id, name, spec }))
    }

    /// The specification by which the study was begun: that of the database, else the copy in the folder.
    pub(crate) fn begun_with(&self, found: Option<&Found>) -> Result<Option<StudySpec>, StudyError> {
        match found.and_then(|found| found.spec.clone()) {
            Some(spec) => Ok(Some(spec)),
            // Another's folder, if the database is elsewhere.
            None if self.is_local() && found.is_none() => StudySpec::read(&self.folder),
            None => Ok(None),
        }
    }
}

/// The specification in the database; none in a study of another program.
pub(crate) fn spec_of(storage: &mut Storage, id: StudyId) -> Result<Option<StudySpec>, StudyError> {
    let attributes = storage.study_attributes(id, Attributes::User)?;
    let Some((_, value)) = attributes.into_iter().find(|(key, _)| key == SPEC) else { return Ok(None) };
    serde_json::from_value(value).map(Some).map_err(|error| StudyError::File {
        path: PathBuf::from(storage.place()),
        message: format!("{SPEC}: {error}"),
    })
}

/// The specification as an attribute.
pub(crate) fn attribute(spec: &StudySpec) -> Result<Json, StudyError> {
    serde_json::to_value(spec)
        .map_err(|error| StudyError::File { path: Path::new(STUDY_FILE).into(), message: error.to_string() })
}
