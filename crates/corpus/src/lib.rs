//! Text: where it comes from, which characters it has, how it is split, and the windows that a model reads.
//!
//! From a name to windows, a text goes through these modules:
//!
//! 1. [`Corpus::open`] takes a [`CorpusRequest`]: a file, `text8` (which [`fetch`] brings), or `builtin:english`
//!    (which [`english`] generates);
//! 2. [`normalize`] turns any text into a-z and spaces, if asked to;
//! 3. an [`Alphabet`] turns characters into ids, one byte each, in the buffer that they were read into;
//! 4. a [`SplitRequest`] says which part trains, validates and tests;
//! 5. [`windows`] cuts batches from a split.
//!
//! [`ngrams`] says what counting alone predicts. [`npy`] reads and writes ids as NumPy does; [`convert`] is the work of the `corpus` commands.

mod alphabet;
pub mod convert;
mod corpus;
pub mod english;
mod error;
pub mod fetch;
pub mod files;
pub mod ngrams;
pub mod normalize;
pub mod npy;
mod read;
mod splits;
pub mod windows;

pub use alphabet::{Alphabet, AlphabetKind};
pub use corpus::{BUILTIN_CHARACTERS, Corpus, CorpusInfo, CorpusRequest, SymbolCount, hex};
pub use error::CorpusError;
pub use files::write_atomically;
pub use normalize::{Normalizer, normalize_text};
pub use splits::{Split, SplitRequest};
pub use windows::{Windows, random_windows, training_windows};

/// How far a long task has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The task: "downloading", "checking", "unpacking", "reading", "normalizing", "generating", ...
    pub what: &'static str,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all, if known.
    pub total: Option<u64>,
}
