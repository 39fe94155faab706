//! Names, attributes and paths from a database are data.
//!
//! Whoever can write to a shared database can put anything into it: escape sequences that rewrite a terminal,
//! text that reads backwards, a checkpoint path of `/etc/passwd`. What is shown goes through [`printable`], what
//! is opened through [`inside`].

use crate::StorageError;
use std::borrow::Cow;
use std::fmt::Write;
use std::path::{Component, Path, PathBuf};

/// The text with everything that a terminal would obey, or hide, written as `\u{1b}`.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unprintable(c) {
            // Writing into a string cannot fail.
            let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// Control characters, line and paragraph separators, marks that change the direction of text or have no width.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The file in `folder` that a path from a database names.
///
/// # Errors
/// The path is absolute, empty, leads upwards, or leads out of the folder through a symbolic link.
pub fn inside(folder: &Path, stored: &str) -> Result<PathBuf, StorageError> {
    let refuse = |why| StorageError::Path { path: stored.to_string(), why };
    if stored.is_empty() {
        return Err(refuse("is empty"));
    }
    // A drive, a share or a stream on a system that has them; the same text must mean the same everywhere.
    if stored.contains(['\\', ':', '\0']) {
        return Err(refuse("holds a character that paths of a study do not have"));
    }
    let mut path = folder.to_path_buf();
    let mut named = false;
    for component in Path::new(stored).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::CurDir => continue,
            Component::ParentDir => return Err(refuse("leads upwards")),
            Component::RootDir | Component::Prefix(_) => return Err(refuse("is not relative")),
        }
        named = true;
    }
    if !named {
        return Err(refuse("names no file"));
    }
    // What exists of it may contain links; what does not exist cannot.
    if let Ok(root) = folder.canonicalize() {
        for above in path.ancestors().take_while(|above| above.starts_with(folder)) {
            match above.canonicalize() {
                Ok(real) if real.starts_with(&root) => break,
                Ok(_) => return Err(refuse("leads out of the study's folder through a link")),
                // A link to nothing would be followed by whoever makes the file.
                Err(_) if above.is_symlink() => return Err(refuse("goes through a broken link")),
                Err(_) => {}
            }
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_written_out() {
        assert!(matches!(printable("größe 幅 🎵"), Cow::Borrowed(_)));
        assert_eq!(printable("a\x1b[2Jb\nc\u{202e}d\u{7f}"), "a\\u{1b}[2Jb\\u{a}c\\u{202e}d\\u{7f}");
    }

    #[test]
    fn paths_stay_inside() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("study");
        std::fs::create_dir_all(folder.join("trials/a")).unwrap();
        let why = |stored: &str| match inside(&folder, stored) {
            Err(StorageError::Path { why, .. }) => why,
            other => panic!("{stored}: {other:?}"),
        };
        for good in
            ["trials/a/checkpoint.safetensors", "./trials/b/c/d", "x", "trials//a", "d_model=256,n=8/ü"]
        {
            let path = inside(&folder, good).unwrap();
            assert!(path.starts_with(&folder), "{good}");
        }
        assert_eq!(why(""), "is empty");
        assert_eq!(why("."), "names no file");
        assert_eq!(why("/etc/passwd"), "is not relative");
        assert_eq!(why("trials/../../x"), "leads upwards");
        assert_eq!(why(".."), "leads upwards");
        for odd in ["C:\\x", "C:x", "a\\..\\b", "a\0b", "\\\\host\\share"] {
            assert_eq!(why(odd), "holds a character that paths of a study do not have", "{odd:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_do_not_lead_out() {
        use std::os::unix::fs::symlink;
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("study");
        std::fs::create_dir_all(folder.join("trials")).unwrap();
        symlink("/etc", folder.join("etc")).unwrap();
        symlink(outer.path().join("absent"), folder.join("broken")).unwrap();
        symlink(folder.join("trials"), folder.join("within")).unwrap();
        assert!(inside(&folder, "etc/passwd").is_err());
        assert!(inside(&folder, "etc").is_err());
        assert!(inside(&folder, "broken").is_err());
        assert!(inside(&folder, "within/checkpoint").is_ok());
        // The folder itself may be reached by a link.
        symlink(&folder, outer.path().join("link")).unwrap();
        assert!(inside(&outer.path().join("link"), "trials/x").is_ok());
    }
}
