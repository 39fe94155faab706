//! One process per folder.
//!
//! Two runs that write into one folder would destroy each other's checkpoints. The lock is the operating
//! system's own, advisory and tied to an open file: it ends with the process, however that ends, so there is
//! no stale lock to clear away. The file `.lock` stays behind; what it says (the holder's process id) only
//! serves the message.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Holds a folder for this process until dropped.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

/// Why a folder cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{} is in use by {holder}", folder.display())]
    Held {
        /// The folder.
        folder: PathBuf,
        /// Who, as far as is known: `process 1234`.
        holder: String,
    },
    /// The file system refuses.
    #[error("cannot lock {}: {source}", folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl LockError {
    /// What to do about it, if that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Held { .. } => Some("wait for it to end, stop it, or choose another folder".to_string()),
            Self::Io { .. } => None,
        }
    }
}

impl FolderLock {
    /// Takes `folder`, which must exist, without waiting.
    ///
    /// # Errors
    /// Another process has it, or the lock file cannot be made.
    pub fn acquire(folder: &Path) -> Result<Self, LockError> {
        let io = |source| LockError::Io { folder: folder.to_path_buf(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join(".lock"))
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                // Small, and unreadable on systems where a lock keeps readers out.
                let mut text = String::new();
                let _ = (&file).take(64).read_to_string(&mut text);
                let holder = match text.trim().parse::<u32>() {
                    Ok(pid) => format!("process {pid}"),
                    Err(_) => "another process".to_string(),
                };
                return Err(LockError::Held { folder: folder.to_path_buf(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        // The id is a courtesy: a full disk must not keep a run from being resumed, or read.
        let _ = file.set_len(0);
        let _ = file.rewind();
        let _ = writeln!(file, "{}", std::process::id());
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_holder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let lock = FolderLock::acquire(folder.path()).unwrap();
        let error = FolderLock::acquire(folder.path()).unwrap_err();
        assert!(
            error.to_string().ends_with(&format!("is in use by process {}", std::process::id())),
            "{error}"
        );
        assert!(error.hint().is_some());
        drop(lock);
        FolderLock::acquire(folder.path()).unwrap();
        assert!(matches!(FolderLock::acquire(&folder.path().join("absent")), Err(LockError::Io { .. })));
    }
}
