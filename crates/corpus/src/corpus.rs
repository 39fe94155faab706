//! Corpora: a text, opened, encoded and split.
//!
//! A run depends on its text as much as on its configuration, so a [`Corpus`] is one value that cannot change:
//! ids, one byte a character, in the one buffer that the text was read into; the alphabet that numbered them;
//! the three splits; and a digest over all of it, by which a run that continues knows its text again.

use crate::splits::Splits;
use crate::{Alphabet, AlphabetKind, CorpusError, Progress, Split, SplitRequest, english, fetch, read};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::path::PathBuf;

/// The length of `builtin:english` when none is given.
pub const BUILTIN_CHARACTERS: usize = 10_000_000;

/// Which text, and how it is to be read. Serialisable, so that a run can find its text again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CorpusRequest {
    /// `text8`; `builtin:english`, `builtin:english:CHARACTERS` or `builtin:english:CHARACTERS:SEED`; or the
    /// path of a text or a `.npy` file (`./text8` for a file of that name).
    pub corpus: String,
    /// A second file, which then is the test split; `corpus` gives train and validation.
    pub test_corpus: Option<PathBuf>,
    /// Which characters there are.
    pub alphabet: AlphabetKind,
    /// Whether the text is to be normalised by text8's rules first.
    pub normalize: bool,
    /// Sizes of the splits.
    pub split: SplitRequest,
}

impl Default for CorpusRequest {
    fn default() -> Self {
        Self::new("builtin:english")
    }
}

impl CorpusRequest {
    /// `corpus` by itself, in the text8 alphabet, as it is, split 80/10/10.
    pub fn new(corpus: &str) -> Self {
        Self {
            corpus: corpus.to_owned(),
            test_corpus: None,
            alphabet: AlphabetKind::Text8,
            normalize: false,
            split: SplitRequest::default(),
        }
    }
}

/// A text in ids, split in three.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// `text8`, `builtin:english`, or the file's name; with a test text, both, joined by ` + `.
    pub name: String,
    /// `sha256:` and 64 hexadecimal digits, over the alphabet and the three splits: what a run depends on.
    pub digest: String,
    /// The characters of the ids.
    pub alphabet: Alphabet,
    /// Nats per character that no model can go below; known for `builtin:english` only.
    pub entropy_rate: Option<f64>,
    /// What it was opened by, as it was asked for, so that a run can find its text again; none if it was made
    /// from parts.
    pub request: Option<CorpusRequest>,
    ids: Vec<u8>,
    splits: Splits,
}

impl Corpus {
    /// Opens the corpus of `request`: fetches, generates or reads it, encodes and splits it. Needs one byte a
    /// character (of the text as it is in the file) and buffers.
    ///
    /// # Errors
    ///
    /// [`CorpusError`] says what is wrong with the text, and where.
    pub fn open(request: &CorpusRequest, progress: &mut dyn FnMut(Progress)) -> Result<Self, CorpusError> {
        let source = Source::parse(&request.corpus)?;
        let mut buffer = Vec::new();
        let mut parts = vec![source.load(request, &mut buffer, progress)?];
        if let Some(path) = &request.test_corpus {
            parts.push(Source::File(path.clone()).load(request, &mut buffer, progress)?);
        }
        let entropy_rate = match source {
            Source::English { .. } if parts.len() == 1 => Some(english::entropy_rate()),
            _ => None,
        };
        let (alphabet, lengths) = encode(request.alphabet, &mut buffer, &parts)?;
        let (splits, name) = match (&parts[..], &lengths[..]) {
            ([first, second], [n, test_n]) => (
                request.split.in_two(*n, &first.place, *test_n, &second.place)?,
                format!("{} + {}", first.name, second.name),
            ),
            _ => {
                let only = parts.swap_remove(0);
                (request.split.in_one(buffer.len(), &only.place)?, only.name)
            }
        };
        let corpus = Self::assemble(name, alphabet, buffer, splits, entropy_rate);
        Ok(Self { request: Some(request.clone()), ..corpus })
    }

    /// A corpus of ids that are there already.
    ///
    /// # Errors
    ///
    /// An id is not in the alphabet, or the splits do not fit.
    pub fn from_parts(
        name: &str,
        alphabet: Alphabet,
        ids: Vec<u8>,
        split: &SplitRequest,
    ) -> Result<Self, CorpusError> {
        if ids.is_empty() {
            return Err(CorpusError::Empty { name: name.to_owned() });
        }
        alphabet.check_ids(&ids, name)?;
        let splits = split.in_one(ids.len(), name)?;
        Ok(Self::assemble(name.to_owned(), alphabet, ids, splits, None))
    }

    fn assemble(
        name: String,
        alphabet: Alphabet,
        ids: Vec<u8>,
        splits: Splits,
        entropy_rate: Option<f64>,
    ) -> Self {
        let digest = digest(&alphabet, [&splits.train, &splits.validation, &splits.test], &ids);
        Self { name, digest, alphabet, entropy_rate, request: None, ids, splits }
    }

    /// The ids of the train split.
    pub fn train(&self) -> &[u8] {
        &self.ids[self.splits.train.clone()]
    }

    /// The ids of the validation split.
    pub fn validation(&self) -> &[u8] {
        &self.ids[self.splits.validation.clone()]
    }

    /// The ids of the test split.
    pub fn test(&self) -> &[u8] {
        &self.ids[self.splits.test.clone()]
    }

    /// The ids of `split`.
    pub fn split(&self, split: Split) -> &[u8] {
        match split {
            Split::Train => self.train(),
            Split::Validation => self.validation(),
            Split::Test => self.test(),
        }
    }

    /// Bytes of memory that the text takes.
    pub fn memory(&self) -> usize {
        self.ids.capacity()
    }

    /// Mean cross-entropy, in nats, of the validation split for a model that knows how often each character occurs in
    /// the train split and nothing else: what any training should beat. (A character that does not occur there counts
    /// as if it had once.)
    pub fn unigram_loss(&self) -> f64 {
        let (train, validation) = (counts(&[self.train()]), counts(&[self.validation()]));
        let frequency = |id: usize| train[id].max(1) as f64 / self.train().len() as f64;
        let total: f64 = (0..256)
            .filter(|&id| validation[id] > 0)
            .map(|id| -(validation[id] as f64) * libm::log(frequency(id)))
            .sum();
        total / self.validation().len() as f64
    }

    /// Checks that each split has at least one window of `sequence_length` characters and their targets.
    ///
    /// # Errors
    ///
    /// [`CorpusError::TooShort`] for the first that has not.
    pub fn require(&self, sequence_length: usize) -> Result<(), CorpusError> {
        for split in [Split::Train, Split::Validation, Split::Test] {
            let characters = self.split(split).len();
            if characters <= sequence_length {
                return Err(CorpusError::TooShort { split, characters, sequence_length });
            }
        }
        Ok(())
    }

    /// What there is to know about the text.
    pub fn info(&self) -> CorpusInfo {
        let counts = counts(&[self.train(), self.validation(), self.test()]);
        let characters: u64 = counts.iter().sum();
        let symbols: Vec<SymbolCount> = (0..=255u8)
            .filter_map(|id| {
                let symbol = self.alphabet.symbol(id)?;
                Some(SymbolCount { id, symbol, count: counts[usize::from(id)] })
            })
            .collect();
        let unigram_entropy_bits = symbols
            .iter()
            .filter(|symbol| symbol.count > 0)
            .map(|symbol| {
                let p = symbol.count as f64 / characters as f64;
                -p * libm::log2(p)
            })
            // An empty sum, and that of a single symbol, is -0.
            .sum::<f64>()
            + 0.0;
        CorpusInfo {
            name: self.name.clone(),
            digest: self.digest.clone(),
            alphabet: self.alphabet.kind(),
            vocabulary: self.alphabet.len(),
            characters,
            train: self.train().len(),
            validation: self.validation().len(),
            test: self.test().len(),
            distinct: symbols.iter().filter(|symbol| symbol.count > 0).count(),
            unigram_entropy_bits,
            entropy_rate_bits: self.entropy_rate.map(|nats| nats / std::f64::consts::LN_2),
            symbols,
        }
    }
}

/// What `corpus info` says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CorpusInfo {
    /// Name of the corpus.
    pub name: String,
    /// Its digest.
    pub digest: String,
    /// How its alphabet was chosen.
    pub alphabet: AlphabetKind,
    /// Number of ids V.
    pub vocabulary: usize,
    /// Characters in the three splits together.
    pub characters: u64,
    /// Characters in the train split.
    pub train: usize,
    /// Characters in the validation split.
    pub validation: usize,
    /// Characters in the test split.
    pub test: usize,
    /// Number of characters of the alphabet that occur.
    pub distinct: usize,
    /// Bits per character of a model that knows the frequencies of characters and nothing else.
    pub unigram_entropy_bits: f64,
    /// Bits per character that no model can go below, where that is known.
    pub entropy_rate_bits: Option<f64>,
    /// Each character of the alphabet, in the order of ids, and how often it occurs.
    pub symbols: Vec<SymbolCount>,
}

/// How often a character occurs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SymbolCount {
    /// Its id.
    pub id: u8,
    /// The character, escaped if it is invisible.
    pub symbol: String,
    /// How often it occurs in the three splits together.
    pub count: u64,
}

/// How often each id occurs.
fn counts(texts: &[&[u8]]) -> [u64; 256] {
    let mut counts = [0; 256];
    for &id in texts.iter().copied().flatten() {
        counts[usize::from(id)] += 1;
    }
    counts
}

/// SHA-256 over a version line, the alphabet's form, the lengths of the splits, and their ids in that order.
/// Where in the text the splits lie, and what lies between them, does not count: no run sees it.
fn digest(alphabet: &Alphabet, splits: [&Range<usize>; 3], ids: &[u8]) -> String {
    let mut hash = Sha256::new();
    let form = alphabet.to_string_form();
    let lengths = splits.map(ExactSizeIterator::len);
    hash.update(format!("diapason corpus 1\n{}\n{form}\n{lengths:?}\n", form.len()));
    for split in splits {
        hash.update(&ids[split.clone()]);
    }
    format!("sha256:{}", hex(&hash.finalize()))
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where a text comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Text8,
    English { characters: usize, seed: u64 },
    File(PathBuf),
}

impl Source {
    fn parse(corpus: &str) -> Result<Self, CorpusError> {
        if corpus == "text8" {
            return Ok(Self::Text8);
        }
        let Some(builtin) = corpus.strip_prefix("builtin:") else {
            return Ok(Self::File(corpus.into()));
        };
        let wrong = |problem: String| CorpusError::Builtin { name: corpus.to_owned(), problem };
        let number = |text: &str, what| {
            let digits = text.replace('_', "");
            digits.parse::<u64>().map_err(|_| wrong(format!("`{text}` is not a number of {what}")))
        };
        let mut fields = builtin.split(':');
        if fields.next() != Some("english") {
            return Err(wrong("english is the only one".into()));
        }
        let characters =
            fields.next().map_or(Ok(BUILTIN_CHARACTERS as u64), |text| number(text, "characters"))?;
        let seed = fields.next().map_or(Ok(0), |text| {
            text.parse().map_err(|_| wrong(format!("`{text}` is not a seed (0 to 2^64 - 1)")))
        })?;
        if fields.next().is_some() {
            return Err(wrong("nothing follows the seed".into()));
        }
        let characters = usize::try_from(characters).map_err(|_| wrong("too many characters".into()))?;
        Ok(Self::English { characters, seed })
    }

    /// Appends the text, or its ids, to `buffer`.
    fn load(
        &self,
        request: &CorpusRequest,
        buffer: &mut Vec<u8>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Part, CorpusError> {
        let start = buffer.len();
        let (name, place, ids) = match self {
            Self::English { characters, seed } => {
                let name = match (*characters, *seed) {
                    (BUILTIN_CHARACTERS, 0) => "builtin:english".to_owned(),
                    (characters, 0) => format!("builtin:english:{characters}"),
                    (characters, seed) => format!("builtin:english:{characters}:{seed}"),
                };
                let total = Some(*characters as u64);
                read::check_memory(&name, *characters as u64)?;
                progress(Progress { what: "generating", done: 0, total });
                // No other text has been loaded yet: only the first can be built in.
                *buffer = english::generate(*characters, *seed);
                progress(Progress { what: "generating", done: *characters as u64, total });
                let ids = request.alphabet == AlphabetKind::Text8;
                if !ids {
                    *buffer = Alphabet::text8().decode(buffer)?;
                }
                (name.clone(), name, ids)
            }
            Self::Text8 => {
                let path = fetch::fetch(&fetch::Remote::text8(), &fetch::cache_folder()?, progress)?;
                let ids = read::append(&path, request.alphabet, request.normalize, buffer, progress)?;
                ("text8".to_owned(), path.display().to_string(), ids)
            }
            Self::File(path) => {
                let ids = read::append(path, request.alphabet, request.normalize, buffer, progress)?;
                let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
                (name, path.display().to_string(), ids)
            }
        };
        if buffer.len() == start {
            return Err(CorpusError::Empty { name: place });
        }
        Ok(Part { name, place, range: start..buffer.len(), ids })
    }
}

/// A text in the buffer, not yet encoded, or ids.
struct Part {
    /// Its name in reports.
    name: String,
    /// Its name in errors: the path as the user gave it.
    place: String,
    range: Range<usize>,
    ids: bool,
}

/// Encodes all parts where they are, closes gaps, and returns the alphabet and the parts' lengths in ids.
fn encode(
    kind: AlphabetKind,
    buffer: &mut Vec<u8>,
    parts: &[Part],
) -> Result<(Alphabet, Vec<usize>), CorpusError> {
    let alphabet = match kind {
        AlphabetKind::Text8 => Alphabet::text8(),
        AlphabetKind::Bytes => Alphabet::bytes(),
        AlphabetKind::Auto => {
            let texts: Vec<(&str, &[u8])> =
                parts.iter().map(|part| (part.place.as_str(), &buffer[part.range.clone()])).collect();
            Alphabet::auto_of_parts(&texts)?
        }
    };
    let mut end = 0;
    let mut lengths = Vec::new();
    for part in parts {
        let piece = &mut buffer[part.range.clone()];
        let length = if part.ids {
            alphabet.check_ids(piece, &part.place)?;
            piece.len()
        } else {
            alphabet.encode_in_place(piece, &part.place)?
        };
        if part.range.start > end {
            buffer.copy_within(part.range.start..part.range.start + length, end);
        }
        end += length;
        lengths.push(length);
    }
    buffer.truncate(end);
    buffer.shrink_to_fit();
    Ok((alphabet, lengths))
}
