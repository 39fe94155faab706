//! One process per folder.

use std::fs::File;
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
        source: std::io::Error,
    },
}
