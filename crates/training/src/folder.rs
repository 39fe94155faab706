//! Folders that stay.
//!
//! A file that is safely on the disk is of no use if the folder that it lies in has not reached it. So a folder
//! that is made is flushed into the one above.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Makes the folder at `path` with all that lead to it, and flushes every folder that got a new one.
///
/// # Errors
/// The first failure of the file system.
pub fn create_folder(path: &Path) -> io::Result<()> {
    let made: Vec<&Path> =
        path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists()).collect();
    fs::create_dir_all(path)?;
    for folder in made {
        let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
        // Only a Unix folder can be opened and flushed.
        if cfg!(unix) {
            File::open(above.unwrap_or(Path::new(".")))?.sync_all()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_made_with_those_that_lead_to_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/../b/c");
        assert!(create_folder(&path).is_ok() && create_folder(&path).is_ok());
        assert!(path.is_dir());
        fs::write(path.join("file"), b"").unwrap();
        assert!(create_folder(&path.join("file/d")).is_err());
        assert!(create_folder(&path.join("file")).is_err());
        create_folder(Path::new("/")).unwrap();
    }
}
