//! Commands that can be typed again.
//!
//! The program ends by saying what to type next, and after an interruption what resumes. Such a line is only
//! worth printing if it can be pasted as it stands, whatever spaces and quotes the file names have.

use std::ffi::{OsStr, OsString};

/// The command that started this process, word by word.
pub(crate) fn this_command() -> Vec<OsString> {
    std::env::args_os().collect()
}

/// The word by which this program was called, to begin other commands with.
pub(crate) fn program() -> OsString {
    std::env::args_os().next().unwrap_or_else(|| "diapason".into())
}

/// Joins words into one line for a POSIX shell.
pub(crate) fn line<W: AsRef<OsStr>>(words: &[W]) -> String {
    words.iter().map(|word| quoted(&word.as_ref().to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// One word as a POSIX shell reads it: bare if nothing in it is special, else in single quotes.
fn quoted(word: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "_-./=,:@%+".contains(c);
    if !word.is_empty() && word.chars().all(bare) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_the_words_back() {
        let words =
            ["train", "", "a b", "it's", "$HOME", "`x`", "d_model=256", "--out", "ü", "*", "a\nb", "\\", "~"];
        let output = std::process::Command::new("sh")
            .arg("-c")
            .arg(format!("for word in {}; do printf '%s\\0' \"$word\"; done", line(&words)))
            .output()
            .unwrap();
        let read = String::from_utf8(output.stdout).unwrap();
        assert_eq!(read.split_terminator('\0').collect::<Vec<_>>(), words);
    }

    #[test]
    fn plain_words_stay_plain() {
        assert_eq!(line(&["diapason", "train", "--set", "d_model=256"]), "diapason train --set d_model=256");
    }
}
