//! What can go wrong with a text.
//!
//! Most failures of a first run are failures of its text: a capital letter, a byte of another encoding, a file
//! that is too short, a download that breaks. Each variant says in one line what was wrong and where;
//! [`CorpusError::hint`] says what to do about it, in the words of the command line.

use crate::files::{OUTPUT, output_failed};
use crate::{AlphabetKind, Split};
use std::io;

/// Why a text cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CorpusError {
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried: "read", "write", "create".
        action: &'static str,
        /// The file or folder.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// There is no such file, and no such named corpus.
    #[error("there is no corpus `{name}`: no such file")]
    Missing {
        /// What was asked for.
        name: String,
    },
    /// A name that begins with `builtin:` and is not understood.
    #[error("unknown built-in corpus `{name}`: {problem}")]
    Builtin {
        /// What was asked for.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file that is a packed archive and not a text.
    #[error("{name} is packed ({format}), not a text")]
    Packed {
        /// The file.
        name: String,
        /// The archive's format.
        format: &'static str,
    },
    /// A character that the alphabet does not have.
    #[error("{name} has {character} at byte {offset} (line {line}), which is not in the {kind} alphabet")]
    Character {
        /// The text.
        name: String,
        /// The character, readable.
        character: String,
        /// Its place in bytes, from 0.
        offset: usize,
        /// Its line, from 1.
        line: usize,
        /// The alphabet.
        kind: AlphabetKind,
        /// Whether it is a newline that ends the text.
        final_newline: bool,
    },
    /// Bytes that are not UTF-8, where characters are wanted.
    #[error("{name} is not UTF-8: byte 0x{byte:02X} at {offset} (line {line})")]
    NotUtf8 {
        /// The text.
        name: String,
        /// The first byte of the invalid sequence.
        byte: u8,
        /// Its place in bytes, from 0.
        offset: usize,
        /// Its line, from 1.
        line: usize,
    },
    /// More different characters than a byte can number.
    #[error("{name} has more than 256 different characters")]
    TooManyCharacters {
        /// The text.
        name: String,
    },
    /// An id that the alphabet does not have.
    #[error("{name} has id {id} at position {offset}; the {kind} alphabet has ids 0 to {}", vocabulary - 1)]
    Id {
        /// The text.
        name: String,
        /// The id.
        id: u8,
        /// Its place, from 0.
        offset: usize,
        /// Number of ids of the alphabet.
        vocabulary: usize,
        /// The alphabet.
        kind: AlphabetKind,
    },
    /// A description of an alphabet that cannot be read.
    #[error("`{form}` does not describe an alphabet: {problem}")]
    AlphabetForm {
        /// The description.
        form: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A `.npy` file that is broken or holds something else than ids.
    #[error("{name}: {problem}")]
    Npy {
        /// The file.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An option that needs characters, for a file of ids.
    #[error("{name} holds ids, not characters: {option} cannot be applied to it")]
    NeedsText {
        /// The file.
        name: String,
        /// The option.
        option: &'static str,
    },
    /// No text at all.
    #[error("{name} is empty")]
    Empty {
        /// The text.
        name: String,
    },
    /// A text of which `--normalize` leaves nothing.
    #[error("{name} has no letter a-z and no digit: --normalize leaves nothing of it")]
    NothingLeft {
        /// The text.
        name: String,
    },
    /// Splits that do not fit into the text.
    #[error("{name} has {characters} characters: {problem}")]
    Splits {
        /// The text.
        name: String,
        /// Its length.
        characters: usize,
        /// What does not fit.
        problem: String,
    },
    /// A split that is shorter than one window.
    #[error(
        "the {split} split has {characters} characters; sequence_length {sequence_length} needs at least {}",
        sequence_length.saturating_add(1)
    )]
    TooShort {
        /// The split.
        split: Split,
        /// Its length.
        characters: usize,
        /// T.
        sequence_length: usize,
    },
    /// A text that does not fit into memory.
    #[error("{name} needs {needed_gib:.1} GiB of memory, and this machine has {available_gib:.1} GiB")]
    Memory {
        /// The text.
        name: String,
        /// What it needs.
        needed_gib: f64,
        /// What there is.
        available_gib: f64,
    },
    /// A text of unknown length that goes on and on.
    #[error(
        "{name} does not say how long it is, and does not end within {most_gib:.1} GiB, half of the memory that is left"
    )]
    Endless {
        /// The text.
        name: String,
        /// What was allowed.
        most_gib: f64,
    },
    /// There is no place for downloads.
    #[error("no folder for downloads: HOME is not set")]
    NoCache,
    /// A download that failed.
    #[error("cannot download {url}: {problem}")]
    Download {
        /// The address.
        url: String,
        /// What happened.
        problem: String,
        /// Where the file can be put by hand.
        archive: String,
    },
    /// A download of another size or content than expected; it has been removed.
    #[error("{url} is not the file it should be: {problem}")]
    WrongFile {
        /// The address, or the file.
        url: String,
        /// What differs.
        problem: String,
        /// Where the file can be put by hand.
        archive: String,
    },
}

impl CorpusError {
    /// What the user can do about it, if there is something.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Missing { name } if name == "-" => {
                "standard input is /dev/stdin; a run can be resumed only from a text that is still there".to_owned()
            }
            Self::Missing { .. } => {
                "--corpus takes text8, builtin:english, or the path of a text or a .npy file".to_owned()
            }
            Self::Builtin { .. } => {
                "use builtin:english, builtin:english:CHARACTERS or builtin:english:CHARACTERS:SEED".to_owned()
            }
            Self::Packed { .. } => "unpack it first, and give the text that is in it".to_owned(),
            Self::Character { kind: AlphabetKind::Text8, final_newline: true, .. } => {
                "the text is clean but for the newline at its end, which editors add: remove it \
                 (`truncate -s -1 FILE`), or use --normalize"
                    .to_owned()
            }
            Self::Character { kind: AlphabetKind::Text8, .. } => {
                "--normalize turns any text into a-z and spaces; --alphabet auto keeps the text's own characters"
                    .to_owned()
            }
            Self::NotUtf8 { .. } => {
                "convert it (`iconv -f LATIN1 -t UTF-8`), or use --alphabet bytes or --normalize".to_owned()
            }
            Self::TooManyCharacters { .. } => "use --alphabet bytes or --normalize".to_owned(),
            Self::Id { kind: AlphabetKind::Text8, .. } => {
                "the ids of the text8 alphabet are a-z = 0-25 and space = 26; --alphabet bytes takes any".to_owned()
            }
            Self::Npy { .. } => {
                "save ids from Python with `numpy.save(path, ids.astype(numpy.uint8))`, one-dimensional".to_owned()
            }
            Self::NeedsText { option: "--alphabet auto", .. } => "use --alphabet text8 or bytes".to_owned(),
            Self::NeedsText { .. } => "give the text that it was made from".to_owned(),
            Self::NothingLeft { .. } => {
                "--alphabet auto keeps the text's own characters, --alphabet bytes takes any".to_owned()
            }
            Self::Splits { .. } => {
                "give a longer text, or smaller --train-chars, --validation-chars and --test-chars".to_owned()
            }
            Self::TooShort { .. } => "give a longer text, or a smaller sequence_length".to_owned(),
            Self::Memory { .. } => "give a shorter text".to_owned(),
            Self::Endless { .. } => {
                "does it end? If so, write it into a file first, whose length is known".to_owned()
            }
            Self::NoCache => "set DIAPASON_CACHE to a folder".to_owned(),
            Self::Download { archive, .. } => {
                format!("run the command again to go on, or download the file yourself to {archive}")
            }
            Self::WrongFile { archive, .. } => {
                format!(
                    "something between here and the server may have changed it; run the command again, \
                     or put the right file at {archive} yourself"
                )
            }
            _ => return None,
        };
        Some(hint)
    }

    /// The same error; where it says that "the output" could not be written, it names `path`.
    pub fn with_output(self, path: &std::path::Path) -> Self {
        match self {
            Self::Io { action, path: unnamed, source } if unnamed == OUTPUT => {
                Self::Io { action, path: path.display().to_string(), source }
            }
            error => error,
        }
    }

    /// An error of the operating system, with what was tried.
    pub(crate) fn io(action: &'static str, path: &std::path::Path, source: io::Error) -> Self {
        Self::Io { action, path: path.display().to_string(), source }
    }
}

/// For [`write_atomically`](crate::write_atomically): what it cannot do is to write the output.
impl From<io::Error> for CorpusError {
    fn from(source: io::Error) -> Self {
        output_failed(source)
    }
}
