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
/// pipe, `/dev/stdout`) is written to directly. Two writers of one path at the same time are not provided for.
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
    let written = write_through(&temporary, content).and_then(|value| {
        fs::rename(&temporary, &target)?;
        Ok(value)
    });
    if written.is_err() {
        // The error that matters is the first one.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    sync_folder(folder_of(&target))?;
    written
}

/// Writes a file as far as the disk.
fn write_through<T, E: From<io::Error>>(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> Result<T, E>,
) -> Result<T, E> {
    let mut out = BufWriter::with_capacity(1 << 18, File::create(path)?);
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
