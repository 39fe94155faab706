//! A run on disk: one safetensors file.
//!
//! A run is worth hours; its file must either be right or be refused. So it is written to the side and
//! renamed ([`crate::files`]), it carries a digest of everything in it, and nothing in it is believed before
//! the digest has been checked: sizes are held against the length of the file first, so that a broken header
//! cannot make the program allocate what is not there.
//!
//! # Format
//!
//! [safetensors](https://github.com/huggingface/safetensors), so that any framework can load the weights.
//! Every tensor is little-endian `F32`, row-major, under its name in [`diapason_model::Layout`]:
//!
//! | tensor | shape |
//! |---|---|
//! | `token_embedding` | \[V, D\] |
//! | `ngram_embedding` | \[rows, D\]; rows as [`NgramTables`](diapason_model::NgramTables) has them |
//! | `position_embedding` | \[max_len, D\] |
//! | `blocks.N.embedding_residual` | \[2\], from the second block on |
//! | `blocks.N.attention_norm.scale`, `.bias` | \[D\] |
//! | `blocks.N.attention.query`, `.key`, `.value`, `.output` | \[D, D\], `[in, out]`; head h owns columns h D/H .. (h+1) D/H of the first three |
//! | `blocks.N.attention.value_residual` | \[1\], from the second block on |
//! | `blocks.N.mlp_norm.scale`, `.bias` | \[D\] |
//! | `blocks.N.mlp.gate`, `blocks.N.mlp.gate_bias` | \[D, F\], \[F\] |
//! | `blocks.N.mlp.up`, `blocks.N.mlp.up_bias` | \[D, F\], \[F\] |
//! | `blocks.N.mlp.down`, `blocks.N.mlp.down_bias` | \[F, D\], \[D\] |
//! | `final_norm.scale`, `.bias` | \[D\] |
//! | `head` | \[D, V\]; absent if the embeddings are tied |
//!
//! Those that the model's parts do not call for are absent: the names in a file say what the model is made of.
//!
//! `checkpoint.safetensors` also has the optimizer's moments, of the same shapes: as `adam.m.NAME` and `adam.v.NAME` (also of AdamW),
//! `lion.m.NAME` (and with tables of n-grams `lion.v.NAME`), or `muon.m.NAME` and `muon.v.NAME`; and `average.NAME`, where an average of the weights is kept.
//! `best.safetensors` has the weights alone that were evaluated. The metadata are strings:
//!
//! | key | value |
//! |---|---|
//! | `diapason_checkpoint` | version of this format, `2`; `1` knows neither other optimizers than Adam nor averages |
//! | `model`, `config`, `progress` | JSON: [`ModelConfig`], [`Config`], [`Progress`] |
//! | `protocol` | `standard` or `as-seed` |
//! | `alphabet` | as `Alphabet::to_string_form` writes it |
//! | `corpus_name`, `corpus_digest` | what it was trained on |
//! | `corpus_request` | JSON: [`CorpusRequest`], how that text was opened; or `null` |
//! | `seed`, `step` | numbers; step = updates done |
//! | `engine` | which arithmetic computed it |
//! | `digest` | `sha256:` and 64 hexadecimal digits |
//!
//! The digest is over: for each other metadata key in byte order, key, NUL, value, NUL; then for each tensor in
//! byte order of names, name, NUL, shape as `27x256`, NUL, and its bytes.

use crate::{Config, CurvePoint, Protocol, RunState, SpanReading, TimeSpent, files};
use diapason_corpus::{Alphabet, CorpusError, CorpusRequest, hex};
use diapason_engine::Optimizer;
use diapason_model::{Layout, ModelConfig};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The version of the format that this program writes, and the newest that it reads.
const VERSION: u32 = 2;
/// The metadata key that marks our files.
const MARK: &str = "diapason_checkpoint";
/// The metadata key of the digest.
const DIGEST: &str = "digest";
/// Longest header that is read. The largest model allowed needs less than half of it.
const MAX_HEADER: u64 = 16 << 20;
/// Prefix of the names of averages.
const AVERAGE: &str = "average.";
/// Every prefix that a tensor's name may have.
const PREFIXES: [&str; 7] = ["adam.m.", "adam.v.", "lion.m.", "lion.v.", "muon.m.", "muon.v.", AVERAGE];

/// Prefixes of the moments' names.
fn moments_of(config: &Config) -> &'static [&'static str] {
    match config.optimizer {
        Optimizer::Adam | Optimizer::AdamW => &["adam.m.", "adam.v."],
        // The tables of n-grams have a second moment under every optimizer.
        Optimizer::Lion if config.ngram_table > 0 => &["lion.m.", "lion.v."],
        Optimizer::Lion => &["lion.m."],
        Optimizer::Muon => &["muon.m.", "muon.v."],
    }
}

/// All that a checkpoint says apart from its numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// The model's sizes.
    pub model: ModelConfig,
    /// The configuration of the run.
    pub config: Config,
    /// How the run was evaluated.
    pub protocol: Protocol,
    /// The alphabet, as `Alphabet::to_string_form` writes it.
    pub alphabet: String,
    /// Name of the corpus.
    pub corpus_name: String,
    /// Digest of the corpus.
    pub corpus_digest: String,
    /// How the corpus was opened, paths as they were typed; none if it was made from parts.
    pub corpus_request: Option<CorpusRequest>,
    /// Seed of the run.
    pub seed: u64,
    /// Updates done.
    pub step: u64,
    /// Which arithmetic computed it, as `EngineId` prints itself.
    pub engine: String,
    /// The history of the run.
    pub progress: Progress,
}

/// What a run has to remember between two steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// How the run ended, or `Interrupted` if it has not.
    pub state: RunState,
    /// Every evaluation so far.
    pub curve: Vec<CurvePoint>,
    /// Losses per span at the early reading, the best and the last, by step.
    pub spans: Vec<SpanReading>,
    /// Sum of the training losses since the last evaluation, nats.
    pub loss_sum: f64,
    /// Number of losses in that sum.
    pub loss_count: u64,
    /// The last training loss that was a number, nats.
    pub last_finite_loss: Option<f64>,
    /// Seconds in training steps, over the segments whose steps survive.
    pub train_seconds: f64,
    /// Characters trained on.
    #[serde(default)]
    pub characters: u64,
    /// Updates that the average of the weights has seen.
    #[serde(default)]
    pub averaged: u64,
    /// What has been spent of a budget of time, if the run has one.
    #[serde(default)]
    pub time: Option<TimeSpent>,
    /// Digest of the weights that the run started from, if they came from a file.
    pub init: Option<String>,
    /// Arithmetics of earlier segments, where they are not the last one's.
    pub other_engines: Vec<String>,
}

/// The optimizer's moments, in the order of the model's layout.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// First moment m.
    pub first: Vec<f32>,
    /// Second moment v; zeros for an optimizer that has none.
    pub second: Vec<f32>,
}

/// A checkpoint in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// All that it says apart from its numbers.
    pub header: Header,
    /// Parameters, in the order of the model's layout.
    pub parameters: Vec<f32>,
    /// Optimizer state; `best.safetensors` has none.
    pub moments: Option<Moments>,
    /// Average of the parameters, if the run keeps one; `best.safetensors` has none.
    pub average: Option<Vec<f32>>,
}

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file that cannot be written. The old one, if any, is still there.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file that ends too early.
    #[error("{} is truncated: {found} bytes, but its header speaks of {expected}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// The length that it should have.
        expected: u64,
    },
    /// A file of another kind.
    #[error("{} is not a safetensors file: {detail}", path.display())]
    NotSafetensors {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        detail: String,
    },
    /// Tensors of another program.
    #[error("{} is a safetensors file, but not a checkpoint of diapason: it has no {MARK} in its metadata", path.display())]
    NotACheckpoint {
        /// The file.
        path: PathBuf,
    },
    /// A checkpoint of a format to come.
    #[error("{} has checkpoint format {version}, and this program reads formats up to {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        version: String,
    },
    /// The content is not what was written.
    #[error("{} has been altered: {detail}", path.display())]
    Altered {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        detail: String,
    },
    /// What was written is not understood.
    #[error("{}: cannot understand its {what}: {detail}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The part.
        what: &'static str,
        /// What does not fit.
        detail: String,
    },
    /// Weights of another model.
    #[error("{} holds a model of another architecture: {differences}", path.display())]
    Architecture {
        /// The file.
        path: PathBuf,
        /// What differs.
        differences: String,
    },
    /// Weights for another alphabet of the same size.
    #[error("{} holds a model for another alphabet, so its symbols mean other characters", path.display())]
    Alphabet {
        /// The file.
        path: PathBuf,
    },
    /// Weights that are no numbers.
    #[error("{}: tensor `{tensor}` holds a number that is not finite", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
}

impl CheckpointError {
    /// What to do about it, if that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Truncated { .. } | Self::Altered { .. } => Some(
                "copy the file again from where it came from, or go back to another checkpoint".to_string(),
            ),
            Self::Version { .. } => {
                Some("use the version of diapason that wrote it, or a newer one".to_string())
            }
            Self::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("free some space and resume; the last checkpoint is intact".to_string())
            }
            Self::Architecture { .. } => Some(
                "set the model's keys to those of the file (d_model, n_heads, n_layers, ...)".to_string(),
            ),
            _ => None,
        }
    }
}

/// A checkpoint on disk, all of it checked, whose numbers are still to be read: to where they are needed, so that a
/// large model is not held twice.
pub struct Stored<'a> {
    file: TensorFile<'a>,
    header: Header,
    layout: Layout,
    moments: bool,
    average: bool,
}

impl<'a> Stored<'a> {
    /// Opens a checkpoint and checks all of it.
    ///
    /// # Errors
    /// A file that is truncated, altered, not a checkpoint of this program or not of this version.
    pub fn open(path: &'a Path) -> Result<Self, CheckpointError> {
        let mut file = TensorFile::open(path)?;
        let header = file.header()?;
        let layout = Layout::new(&header.model);
        let names = moments_of(&header.config);
        let (moments, average) = (file.has(&layout, names[0]), file.has(&layout, AVERAGE));
        let mut prefixes = vec![""];
        prefixes.extend(names.iter().filter(|_| moments));
        prefixes.extend(average.then_some(AVERAGE));
        file.require_exactly(&layout, &prefixes)?;
        Ok(Self { file, header, layout, moments, average })
    }

    /// All that it says apart from its numbers.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether it holds the optimizer's state: it is then the last checkpoint of a run, and not its best.
    pub fn has_moments(&self) -> bool {
        self.moments
    }

    /// Reads the parameters into `parameters`, as many as the model has.
    ///
    /// # Errors
    /// A file that cannot be read (any more).
    pub fn read_parameters(&mut self, parameters: &mut [f32]) -> Result<(), CheckpointError> {
        self.file.read_into(&self.layout, "", parameters)
    }

    /// Whether it holds an average of the parameters.
    pub fn has_average(&self) -> bool {
        self.average
    }

    /// Reads the average of the parameters, if there is one.
    ///
    /// # Errors
    /// As [`Stored::read_parameters`].
    pub fn read_average(&mut self, average: &mut [f32]) -> Result<(), CheckpointError> {
        if self.average { self.file.read_into(&self.layout, AVERAGE, average) } else { Ok(()) }
    }

    /// Reads the weights that the run evaluates: their average, if it has begun, else the parameters themselves.
    ///
    /// # Errors
    /// As [`Stored::read_parameters`].
    pub fn read_evaluated(&mut self, weights: &mut [f32]) -> Result<(), CheckpointError> {
        self.file.read_into(&self.layout, evaluated(&self.header, self.average), weights)
    }

    /// Reads the optimizer's moments, if there are any; a second one that it does not have is left as it is.
    ///
    /// # Errors
    /// As [`Stored::read_parameters`].
    pub fn read_moments(&mut self, first: &mut [f32], second: &mut [f32]) -> Result<(), CheckpointError> {
        let names = moments_of(&self.header.config);
        for (prefix, values) in names.iter().zip([first, second]).filter(|_| self.moments) {
            self.file.read_into(&self.layout, prefix, values)?;
        }
        Ok(())
    }
}

impl Checkpoint {
    /// Reads a checkpoint and checks all of it.
    ///
    /// # Errors
    /// As [`Stored::open`].
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        let mut stored = Stored::open(path)?;
        let total = stored.layout.total;
        let zeros = || vec![0.0; total];
        let mut parameters = zeros();
        let mut moments = stored.moments.then(|| Moments { first: zeros(), second: zeros() });
        stored.read_parameters(&mut parameters)?;
        if let Some(Moments { first, second }) = &mut moments {
            stored.read_moments(first, second)?;
        }
        let mut average = stored.average.then(zeros);
        if let Some(average) = &mut average {
            stored.read_average(average)?;
        }
        Ok(Self { header: stored.header, parameters, moments, average })
    }

    /// Reads and checks all that a checkpoint says apart from its numbers.
    ///
    /// # Errors
    /// As [`Checkpoint::read`].
    pub fn read_header(path: &Path) -> Result<Header, CheckpointError> {
        TensorFile::open(path)?.header()
    }

    /// Writes the checkpoint, atomically.
    ///
    /// # Errors
    /// A file that cannot be written; the old one, if any, is then still there.
    pub fn write(&self, path: &Path) -> Result<(), CheckpointError> {
        let moments = self.moments.as_ref().map(|m| [m.first.as_slice(), m.second.as_slice()]);
        write(path, &self.header, &self.parameters, moments, self.average.as_deref())
    }
}

/// Reads the weights of `model` from a checkpoint, or from any safetensors file with the tensors of
/// [`Layout`], into `parameters`, as many as the model has: `--init`. Of a run that averages its weights, what it
/// evaluates: their average, if it has begun. Optimizer state in the file is left aside.
///
/// # Errors
/// As [`Stored::open`]; weights of another model or alphabet; weights that are not finite.
pub fn read_weights(
    path: &Path,
    model: &ModelConfig,
    alphabet: &str,
    parameters: &mut [f32],
) -> Result<(), CheckpointError> {
    let Weights { mut file, layout, prefix } = weights(path, model, alphabet)?;
    file.read_into(&layout, prefix, parameters)?;
    for tensor in &layout.tensors {
        if parameters[tensor.range.clone()].iter().any(|x| !x.is_finite()) {
            return Err(CheckpointError::NotFinite { path: path.to_path_buf(), tensor: tensor.name.clone() });
        }
    }
    Ok(())
}

/// What [`digest_of`] would say of the weights that [`read_weights`] would read.
pub(crate) fn digest_of_weights(
    path: &Path,
    model: &ModelConfig,
    alphabet: &str,
) -> Result<String, CheckpointError> {
    let Weights { mut file, layout, prefix } = weights(path, model, alphabet)?;
    let mut hash = Sha256::new();
    for tensor in &layout.tensors {
        file.stream(&file.info(&format!("{prefix}{}", tensor.name))?, &mut |bytes| hash.update(bytes))?;
    }
    Ok(hexadecimal(hash))
}

/// A file that holds weights, where in it they are, and the order in which to read them.
struct Weights<'a> {
    file: TensorFile<'a>,
    layout: Layout,
    /// Of the names of the tensors.
    prefix: &'static str,
}

/// The weights of `model` in a file.
fn weights<'a>(path: &'a Path, model: &ModelConfig, alphabet: &str) -> Result<Weights<'a>, CheckpointError> {
    let mut file = TensorFile::open(path)?;
    let layout = Layout::new(model);
    let mut prefix = "";
    // A damaged mark does not make a checkpoint of ours a plain file.
    if file.text(MARK).is_some() || file.text(DIGEST).is_some() {
        let header = file.header()?;
        // How the other model was trained does not matter to its weights.
        let (found, expected) = (header.model.for_inference(), model.for_inference());
        if found != expected {
            return Err(CheckpointError::Architecture {
                path: path.to_path_buf(),
                differences: model_differences(&found, &expected),
            });
        }
        if header.alphabet != alphabet {
            return Err(CheckpointError::Alphabet { path: path.to_path_buf() });
        }
        prefix = evaluated(&header, file.has(&layout, AVERAGE));
    }
    file.require_exactly(&layout, &["", prefix])?;
    Ok(Weights { file, layout, prefix })
}

/// The prefix of the tensors that a run evaluates: the average of the parameters, once it has begun, else the parameters themselves.
/// `best.safetensors` has no average beside them: what was evaluated is all that it holds.
fn evaluated(header: &Header, has_average: bool) -> &'static str {
    if has_average && header.progress.averaged > 0 { AVERAGE } else { "" }
}

/// `sha256:...` of numbers, as bytes in little-endian order.
pub(crate) fn digest_of(values: &[f32]) -> String {
    let mut hash = Sha256::new();
    // Writing into a hash cannot fail.
    let _ = little_endian(values, &mut |bytes| {
        hash.update(bytes);
        Ok(())
    });
    hexadecimal(hash)
}

/// Writes a checkpoint from borrowed numbers: a run need not copy its weights first.
pub(crate) fn write(
    path: &Path,
    header: &Header,
    parameters: &[f32],
    moments: Option<[&[f32]; 2]>,
    average: Option<&[f32]>,
) -> Result<(), CheckpointError> {
    let failed = |source| CheckpointError::Write { path: path.to_path_buf(), source };
    let layout = Layout::new(&header.model);
    let mut tensors: Vec<(String, &[usize], &[f32])> = Vec::new();
    let mut add = |prefix: &str, values| {
        for tensor in &layout.tensors {
            let values: &[f32] = values;
            tensors.push((format!("{prefix}{}", tensor.name), &tensor.shape, &values[tensor.range.clone()]));
        }
    };
    add("", parameters);
    for (prefix, values) in moments_of(&header.config).iter().zip(moments.into_iter().flatten()) {
        add(prefix, values);
    }
    if let Some(average) = average {
        add(AVERAGE, average);
    }

    let mut texts = header.to_texts().map_err(|error| failed(error.into()))?;
    let mut hash = Sha256::new();
    hash_texts(&mut hash, texts.iter().map(|(key, value)| (*key, value.as_str())));
    let mut sorted: Vec<_> = tensors.iter().collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, shape, values) in sorted {
        hash_name(&mut hash, name, shape);
        little_endian(values, &mut |bytes| {
            hash.update(bytes);
            Ok(())
        })
        .map_err(failed)?;
    }
    texts.insert(DIGEST, hexadecimal(hash));

    // The header as the safetensors crate writes it, but with the metadata in a fixed order: equal
    // checkpoints are equal files.
    let mut json = serde_json::Map::new();
    json.insert("__metadata__".to_string(), serde_json::json!(texts));
    let mut end = 0;
    for (name, shape, values) in &tensors {
        let start = end;
        end += 4 * values.len();
        let info = TensorInfo { dtype: Dtype::F32, shape: shape.to_vec(), data_offsets: (start, end) };
        json.insert(name.clone(), serde_json::to_value(info).map_err(|error| failed(error.into()))?);
    }
    let mut head = serde_json::to_vec(&json).map_err(|error| failed(error.into()))?;
    head.resize(head.len().next_multiple_of(8), b' ');

    files::write_atomically(path, |out| {
        out.write_all(&(head.len() as u64).to_le_bytes())?;
        out.write_all(&head)?;
        for (_, _, values) in &tensors {
            little_endian(values, &mut |bytes| out.write_all(bytes))?;
        }
        Ok(())
    })
    .map_err(failed)
}

impl Header {
    /// The alphabet of the text that the model was trained on.
    ///
    /// # Errors
    /// A form that this version does not know; a checkpoint that was read has none.
    pub fn alphabet(&self) -> Result<Alphabet, CorpusError> {
        Alphabet::from_string_form(&self.alphabet)
    }

    /// The metadata, without the digest.
    fn to_texts(&self) -> serde_json::Result<BTreeMap<&'static str, String>> {
        Ok(BTreeMap::from([
            (MARK, VERSION.to_string()),
            ("model", serde_json::to_string(&self.model)?),
            ("config", serde_json::to_string(&self.config)?),
            ("protocol", self.protocol.name().to_string()),
            ("alphabet", self.alphabet.clone()),
            ("corpus_name", self.corpus_name.clone()),
            ("corpus_digest", self.corpus_digest.clone()),
            ("corpus_request", serde_json::to_string(&self.corpus_request)?),
            ("seed", self.seed.to_string()),
            ("step", self.step.to_string()),
            ("engine", self.engine.clone()),
            ("progress", serde_json::to_string(&self.progress)?),
        ]))
    }
}

/// An open safetensors file whose header fits its length.
struct TensorFile<'a> {
    path: &'a Path,
    file: File,
    data_start: u64,
    metadata: Metadata,
}

impl<'a> TensorFile<'a> {
    fn open(path: &'a Path) -> Result<Self, CheckpointError> {
        let failed = |source| CheckpointError::Read { path: path.to_path_buf(), source };
        let not = |detail: String| CheckpointError::NotSafetensors { path: path.to_path_buf(), detail };
        let mut file = File::open(path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        if !about.is_file() {
            return Err(not("it is not a regular file".to_string()));
        }
        let length = about.len();
        let truncated =
            |expected| CheckpointError::Truncated { path: path.to_path_buf(), found: length, expected };
        if length < 8 {
            return Err(truncated(8));
        }
        let mut number = [0; 8];
        file.read_exact(&mut number).map_err(failed)?;
        let head = u64::from_le_bytes(number);
        if head > MAX_HEADER {
            return Err(not(format!("its first 8 bytes speak of a header of {head} bytes")));
        }
        let data_start = 8 + head;
        if data_start > length {
            return Err(truncated(data_start));
        }
        let mut text = vec![0; head as usize];
        file.read_exact(&mut text).map_err(failed)?;
        let metadata: Metadata =
            serde_json::from_slice(&text).map_err(|error| not(format!("its header is broken ({error})")))?;
        // Offsets and shapes have been checked against each other; what is left is the file itself.
        let expected = data_start.saturating_add(metadata.data_len() as u64);
        if length < expected {
            return Err(truncated(expected));
        }
        if length > expected {
            return Err(CheckpointError::Altered {
                path: path.to_path_buf(),
                detail: format!("{} bytes follow its end", length - expected),
            });
        }
        Ok(Self { path, file, data_start, metadata })
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.metadata.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// Checks the digest of a checkpoint of ours, then understands the metadata.
    fn header(&mut self) -> Result<Header, CheckpointError> {
        let path = || self.path.to_path_buf();
        let version = self.text(MARK).ok_or_else(|| CheckpointError::NotACheckpoint { path: path() })?;
        if version.parse::<u32>().ok().is_none_or(|v| v == 0 || v > VERSION) {
            return Err(CheckpointError::Version { path: path(), version: version.to_string() });
        }
        let stated = self.text(DIGEST).unwrap_or_default().to_string();
        if self.digest()? != stated {
            return Err(CheckpointError::Altered {
                path: self.path.to_path_buf(),
                detail: "its content does not fit its digest".to_string(),
            });
        }
        let header = Header {
            model: self.json("model")?,
            config: self.json("config")?,
            protocol: self.word("protocol", Protocol::from_name)?,
            alphabet: self.word("alphabet", |s| Some(s.to_string()))?,
            corpus_name: self.word("corpus_name", |s| Some(s.to_string()))?,
            corpus_digest: self.word("corpus_digest", |s| Some(s.to_string()))?,
            corpus_request: self.json("corpus_request")?,
            seed: self.word("seed", |s| s.parse().ok())?,
            step: self.word("step", |s| s.parse().ok())?,
            engine: self.word("engine", |s| Some(s.to_string()))?,
            progress: self.json("progress")?,
        };
        let content =
            |what, detail: String| CheckpointError::Content { path: self.path.to_path_buf(), what, detail };
        let vocabulary = header.model.vocabulary;
        let config = header
            .config
            .clone()
            .validated(vocabulary)
            .map_err(|error| content("config", error.to_string()))?;
        if config.model(vocabulary).ok().as_ref() != Some(&header.model) {
            return Err(content("model", "it is not the model of its config".to_string()));
        }
        let alphabet = header.alphabet().map_err(|error| content("alphabet", error.to_string()))?;
        if alphabet.len() != vocabulary {
            return Err(content(
                "alphabet",
                format!("{} symbols for a vocabulary of {vocabulary}", alphabet.len()),
            ));
        }
        Ok(header)
    }

    fn digest(&mut self) -> Result<String, CheckpointError> {
        let mut hash = Sha256::new();
        let texts: BTreeMap<&str, &str> = self
            .metadata
            .metadata()
            .iter()
            .flatten()
            .filter(|(key, _)| *key != DIGEST)
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        hash_texts(&mut hash, texts.into_iter());
        let tensors: BTreeMap<String, TensorInfo> =
            self.metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        for (name, info) in &tensors {
            hash_name(&mut hash, name, &info.shape);
            self.stream(info, &mut |bytes| hash.update(bytes))?;
        }
        Ok(hexadecimal(hash))
    }

    fn json<T: DeserializeOwned>(&self, what: &'static str) -> Result<T, CheckpointError> {
        let text = self.text(what).unwrap_or_default();
        serde_json::from_str(text).map_err(|error| CheckpointError::Content {
            path: self.path.to_path_buf(),
            what,
            detail: error.to_string(),
        })
    }

    fn word<T>(&self, what: &'static str, parse: impl Fn(&str) -> Option<T>) -> Result<T, CheckpointError> {
        let text = self.text(what);
        text.and_then(parse).ok_or_else(|| CheckpointError::Content {
            path: self.path.to_path_buf(),
            what,
            detail: text.map_or("it is not there".to_string(), |text| format!("`{text}`")),
        })
    }

    /// Whether there is any tensor of `layout` under this prefix.
    fn has(&self, layout: &Layout, prefix: &str) -> bool {
        layout.tensors.iter().any(|tensor| self.metadata.info(&format!("{prefix}{}", tensor.name)).is_some())
    }

    /// Checks that the tensors are those of `layout` under each of `prefixes`, and no others but under known prefixes.
    fn require_exactly(&self, layout: &Layout, prefixes: &[&str]) -> Result<(), CheckpointError> {
        let another =
            |differences| CheckpointError::Architecture { path: self.path.to_path_buf(), differences };
        let mut wanted = BTreeSet::new();
        for prefix in prefixes {
            for tensor in &layout.tensors {
                let name = format!("{prefix}{}", tensor.name);
                match self.metadata.info(&name) {
                    None => return Err(another(format!("tensor `{name}` is missing"))),
                    Some(info) if info.dtype != Dtype::F32 => {
                        return Err(another(format!("tensor `{name}` is {:?}, not F32", info.dtype)));
                    }
                    Some(info) if info.shape != tensor.shape => {
                        return Err(another(format!(
                            "tensor `{name}` has shape {:?}, not {:?}",
                            info.shape, tensor.shape
                        )));
                    }
                    Some(_) => wanted.insert(name),
                };
            }
        }
        let others = self.metadata.offset_keys();
        let is_state = |name: &str| PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        match others.iter().find(|name| !wanted.contains(*name) && !is_state(name)) {
            Some(name) => Err(another(format!("it has a tensor `{name}`, which this model has not"))),
            None => Ok(()),
        }
    }

    /// The place of a tensor.
    fn info(&self, name: &str) -> Result<TensorInfo, CheckpointError> {
        self.metadata.info(name).cloned().ok_or_else(|| CheckpointError::Architecture {
            path: self.path.to_path_buf(),
            differences: format!("tensor `{name}` is missing"),
        })
    }

    /// Reads the tensors `prefix` + name to where `layout` has them in `values`. [`Self::require_exactly`] has
    /// been passed.
    fn read_into(
        &mut self,
        layout: &Layout,
        prefix: &str,
        values: &mut [f32],
    ) -> Result<(), CheckpointError> {
        for tensor in &layout.tensors {
            let mut left = values[tensor.range.clone()].iter_mut();
            self.stream(&self.info(&format!("{prefix}{}", tensor.name))?, &mut |bytes| {
                for (b, value) in bytes.chunks_exact(4).zip(left.by_ref()) {
                    *value = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                }
            })?;
        }
        Ok(())
    }

    /// Hands the bytes of a tensor to `take`, in pieces whose lengths are multiples of 8, but for the last.
    fn stream(&mut self, info: &TensorInfo, take: &mut dyn FnMut(&[u8])) -> Result<(), CheckpointError> {
        let failed = |source| CheckpointError::Read { path: self.path.to_path_buf(), source };
        let (start, end) = info.data_offsets;
        self.file.seek(SeekFrom::Start(self.data_start + start as u64)).map_err(failed)?;
        let mut buffer = vec![0; (end - start).min(1 << 16)];
        let mut left = end - start;
        while left > 0 {
            let piece = &mut buffer[..left.min(1 << 16)];
            self.file.read_exact(piece).map_err(failed)?;
            take(piece);
            left -= piece.len();
        }
        Ok(())
    }
}

fn model_differences(found: &ModelConfig, expected: &ModelConfig) -> String {
    let values = |model: &ModelConfig| match serde_json::to_value(model) {
        Ok(serde_json::Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    };
    let (found, expected) = (values(found), values(expected));
    let differing: Vec<String> = expected
        .iter()
        .filter_map(|(key, value)| {
            found.get(key).filter(|f| *f != value).map(|f| format!("{key} is {f}, not {value}"))
        })
        .collect();
    differing.join(", ")
}

fn hash_texts<'a>(hash: &mut Sha256, texts: impl Iterator<Item = (&'a str, &'a str)>) {
    for (key, value) in texts {
        for part in [key, value] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
    }
}

fn hash_name(hash: &mut Sha256, name: &str, shape: &[usize]) {
    let shape = shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
    hash.update(name.as_bytes());
    hash.update([0]);
    hash.update(shape.as_bytes());
    hash.update([0]);
}

fn hexadecimal(hash: Sha256) -> String {
    format!("sha256:{}", hex(&hash.finalize()))
}

/// Hands `values` to `take` as little-endian bytes, piece by piece.
fn little_endian(values: &[f32], take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(4 * values.len().min(1 << 14));
    for piece in values.chunks(1 << 14) {
        buffer.clear();
        for value in piece {
            buffer.extend_from_slice(&value.to_le_bytes());
        }
        take(&buffer)?;
    }
    Ok(())
}
