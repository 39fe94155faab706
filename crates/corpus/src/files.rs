//! Files that are either whole or not there.
//!
//! A process can be killed and a disk can fill up at any moment, and a half-written corpus looks like a corpus.
//! So a file is written under a temporary name in the same folder, flushed to the disk, and renamed.

use crate::CorpusError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// What errors call a writer whose name they do not know.
pub(crate) const OUTPUT: &str = "the output";

/// The error of a writer whose name is not known.
pub(crate) fn output_failed(source: io::Error) -> CorpusError {
    CorpusError::Io { action: "write", path: OUTPUT.to_owned(), source }
}

/// Writes the file at `path` by `content`, atomically: after an error, or a kill, what was there before is
/// still there. A symbolic link is followed; what is not a plain file (a pipe, `/dev/stdout`) is written to
/// directly.
///
/// # Errors
///
/// Those of `content`, and those of the file system. Where `content` says that it could not write "the output",
/// the error names `path`.
pub fn write_atomically<T>(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> Result<T, CorpusError>,
) -> Result<T, CorpusError> {
    let failed = |source| CorpusError::io("write", path, source);
    let named = |error| match error {
        CorpusError::Io { path, source, .. } if path == OUTPUT => failed(source),
        error => error,
    };
    let target = match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err(failed(io::Error::other("it is a folder"))),
        Ok(found) if !found.is_file() => {
            let mut file = OpenOptions::new().write(true).open(path).map_err(failed)?;
            let value = content(&mut file).map_err(named)?;
            file.flush().map_err(failed)?;
            return Ok(value);
        }
        Ok(_) => fs::canonicalize(path).map_err(failed)?,
        Err(_) => path.to_owned(),
    };
    let folder = folder_of(&target);
    let mut file = temporary_in(folder).map_err(failed)?;
    let mut writer = BufWriter::with_capacity(1 << 16, file.as_file_mut());
    let value = content(&mut writer).map_err(named)?;
    writer.flush().map_err(failed)?;
    drop(writer);
    persist(file, &target).map_err(failed)?;
    Ok(value)
}

/// The folder that `path` lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A file that vanishes unless it is persisted, with the permissions of any new file.
pub(crate) fn temporary_in(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".diapason-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Less the user's mask; the default would hide the file from everybody else.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

/// Flushes `file` to the disk and gives it its name.
pub(crate) fn persist(file: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(folder_of(path))
}

/// Makes a renamed file survive a power cut. Only Unix can open folders.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}
