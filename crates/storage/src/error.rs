//! What can go wrong between a program and its database.
//!
//! Two cases must never be taken for one another: the *lease* is lost (somebody else has the trial, stop working
//! on it), and the *connection* is lost (nobody knows, go on and try again). So they are two variants, and
//! nothing else in the crate decides which of them an error is.

use std::ffi::OsString;
use std::path::PathBuf;

/// Why something could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A storage URL, or a `PG*` variable, that cannot be meant. Never repeats the text that was typed, which may
    /// hold a password.
    #[error("storage URL: {0}")]
    Url(String),
    /// A database file on a file system where SQLite's locks do not work.
    #[error("{} is on a network file system ({kind}), where SQLite would corrupt it", path.display())]
    NetworkFileSystem {
        /// The file.
        path: PathBuf,
        /// What file system it is.
        kind: &'static str,
    },
    /// There is no database at this place.
    #[error("there is no study database at {place}")]
    NoDatabase {
        /// Where, without a password.
        place: String,
    },
    /// A database that this program, or Optuna of today, does not understand.
    #[error("the database at {place} cannot be used: {what}")]
    Incompatible {
        /// Where, without a password.
        place: String,
        /// What is not as it should be.
        what: String,
    },
    /// A database file whose content makes no sense.
    #[error("the database {place} cannot be read: {what}")]
    Damaged {
        /// The file.
        place: String,
        /// SQLite's words, in one line.
        what: String,
    },
    /// The database cannot be reached, or is too busy to answer, for longer than one was ready to wait.
    #[error("cannot reach the database at {place}: {cause}")]
    Unreachable {
        /// Where, without a password.
        place: String,
        /// The last reason.
        cause: String,
    },
    /// The database refuses: no permission, disk full, damaged.
    #[error("the database at {place} refused: {cause}")]
    Database {
        /// Where, without a password.
        place: String,
        /// Its words, in one line.
        cause: String,
    },
    /// There is no study of that name.
    #[error("there is no study `{}`", crate::printable(name))]
    NoStudy {
        /// The name.
        name: String,
    },
    /// There already is a study of that name, and it is another.
    #[error("there already is a study `{}`", crate::printable(name))]
    StudyExists {
        /// The name.
        name: String,
    },
    /// Somebody else has the trial, or it is finished: whoever gets this must stop working on it.
    #[error("the trial `{}` is no longer this worker's", crate::printable(key))]
    LeaseLost {
        /// Key of the work item.
        key: String,
    },
    /// Something that the schema has no room for.
    #[error("cannot store {what}")]
    Refused {
        /// What, and why not.
        what: String,
    },
    /// Something in the database that is not as Optuna writes it.
    #[error("the database holds {what}")]
    Content {
        /// What, and where.
        what: String,
    },
    /// A path in the database that leads out of the study's folder.
    #[error("the path `{}` from the database {why}", crate::printable(path))]
    Path {
        /// The path as stored.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The wait for the database was interrupted.
    #[error("interrupted while waiting for the database at {place}")]
    Interrupted {
        /// Where, without a password.
        place: String,
    },
}

/// Shorthand of this crate.
pub(crate) type Result<T, E = StorageError> = std::result::Result<T, E>;

impl StorageError {
    /// What to do about it, if that is known.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Url(_) => {
                "as in studies/quick, sqlite:///folder/study.db or postgresql://USER@HOST/DATABASE; a password goes into PGPASSWORD or ~/.pgpass"
            }
            Self::NetworkFileSystem { .. } => {
                "put the study on a local disk, or share it through PostgreSQL: --storage postgresql://USER@HOST/DATABASE"
            }
            Self::NoDatabase { .. } => "`tune` makes one; check the path",
            Self::Incompatible { what, .. } if what.contains("journal") => {
                "put the study on a local disk, or share it through PostgreSQL"
            }
            Self::Incompatible { what, .. } if what.contains("work items") => {
                "use the version of diapason that wrote it, or a newer one"
            }
            Self::Incompatible { .. } => {
                "`optuna storage upgrade` brings an older database to the revision of Optuna 3.2 to 5.0"
            }
            Self::Damaged { what, .. } if what.contains("not a SQLite") => {
                "--storage takes a study's folder, its study.db, or a URL; if this was a study's database, put a copy of it back, or move it away with its -wal file: `tune` then makes a new one from study.toml and the checkpoints"
            }
            Self::Damaged { .. } => {
                "put a copy of it back; or move it away with its -wal file: `tune` then makes a new one, and goes on from study.toml and the checkpoints beside it"
            }
            Self::Unreachable { .. } => {
                "nothing is lost: checkpoints are on the disk; start again when the database is there"
            }
            Self::NoStudy { .. } => "`diapason study list` names those that are there",
            Self::StudyExists { .. } => "choose another name, or continue that study with its own settings",
            Self::Database { cause, .. } if cause.contains("password missing") => {
                return Some(password_hint(&|name| std::env::var_os(name)));
            }
            Self::Path { .. } => "whoever can write to the database wrote this; it is not followed",
            _ => return None,
        };
        Some(text.to_string())
    }

    /// Whether the same thing may work a moment later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// Where a password goes, and why the one that is there may not have been taken.
fn password_hint(variable: &dyn Fn(&str) -> Option<OsString>) -> String {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let file = set("PGPASSFILE").or_else(|| set("HOME").map(|home| home.join(".pgpass")));
    if let Some(file) = file.filter(|file| file.exists()) {
        let shown = file.display().to_string();
        let shown = crate::printable(&shown);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            if file.metadata().is_ok_and(|found| found.permissions().mode() & 0o077 != 0) {
                return format!(
                    "{shown} is ignored, since others can read it: `chmod 600` makes it theirs no more"
                );
            }
        }
        return format!("{shown} has no line for this host, port, database and user");
    }
    "a password goes into PGPASSWORD or ~/.pgpass".to_string()
}

/// A message of a library in one line.
pub(crate) fn one_line(text: &str) -> String {
    crate::printable(&text.split_whitespace().collect::<Vec<_>>().join(" ")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_password_file_that_is_not_taken_says_why() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let hint = || password_hint(&|name| (name == "HOME").then(|| folder.path().as_os_str().to_owned()));
        assert!(hint().starts_with("a password goes into"), "{}", hint());
        let file = folder.path().join(".pgpass");
        for (mode, part) in [(0o644, "others can read it"), (0o600, "no line for")] {
            std::fs::write(&file, "").unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(hint().contains(part) && hint().contains(".pgpass"), "{}", hint());
        }
    }
}
