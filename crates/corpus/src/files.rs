//! Files that are either old or new, never half.
//!
//! A process can be killed and a disk can fill up at any moment, and a half-written corpus or checkpoint looks
//! like a whole one. So a file is written as `.NAME.tmp` in the same folder, flushed to the disk, and renamed.
//! The temporary name is fixed: what a killed process leaves behind is one file, which the next try replaces.

use crate::CorpusError;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// What errors call a writer whose name they do not know.
pub(crate) const OUTPUT: &str = "the output";

/// The error of a writer whose name is not known.
pub(crate) fn output_failed(source: io::Error) -> CorpusError {
    CorpusError::Io { action: "write", path: OUTPUT.to_owned(), source }
}

/// Replaces the file at `path` by what `content` writes, or leaves it as it was: after an error, a kill or a
/// power cut the file is the old one or the new one. A symbolic link is followed; what is not a plain file (a
/// pipe, `/dev/stdout`) is written to directly. Of several writers at the same time one comes after the other.
///
/// # Errors
///
/// The first of `content` or of the file system. Neither knows `path` by itself: the caller adds it.
pub fn write_atomically<T, E: From<io::Error>>(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<T, E> {
    let target = match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err(io::Error::other("it is a folder").into()),
        Ok(found) if !found.is_file() => {
            let mut file = OpenOptions::new().write(true).open(path)?;
            let value = content(&mut file)?;
            file.flush()?;
            return Ok(value);
        }
        Ok(_) => fs::canonicalize(path)?,
        Err(_) => path.to_owned(),
    };
    let name = target
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it is not the name of a file"))?;
    let mut temporary_name = OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(".tmp");
    let temporary = folder_of(&target).join(temporary_name);
    let file = alone(&temporary)?;
    let written = write_through(&file, content).and_then(|value| {
        fs::rename(&temporary, &target)?;
        Ok(value)
    });
    if written.is_err() {
        // The error that matters is the first one.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    // The next writer may begin.
    drop(file);
    sync_folder(folder_of(&target))?;
    written
}

/// The file at `path`, empty, for this writer alone until it is closed. It has one name, so that what a killed writer
/// leaves behind is used again by the next.
fn alone(path: &Path) -> io::Result<File> {
    loop {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        // Where there are no locks there are no other writers to be had.
        let is_locked = file.lock().is_ok();
        // Whoever had it before has renamed it meanwhile: then this is no longer the temporary file but the result.
        if !is_locked || is_at(&file, path) {
            file.set_len(0)?;
            return Ok(file);
        }
    }
}

/// Whether `path` is the name of this open file.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Elsewhere an open file cannot be renamed.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

/// Writes a file as far as the disk.
fn write_through<T, E: From<io::Error>>(
    file: &File,
    content: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<T, E> {
    let mut out = BufWriter::with_capacity(1 << 18, file);
    let value = content(&mut out)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(value)
}

/// The folder that `path` lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes a renamed file survive a power cut. Only Unix can open folders.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}
