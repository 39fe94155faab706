//! A run on disk: one safetensors file.

use crate::{Config, CurvePoint, Protocol, RunState};
use diapason_corpus::{Alphabet, CorpusError};
use diapason_model::ModelConfig;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

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
    /// How the run ended, or `interrupted` while it has not.
    pub state: RunState,
    /// Every evaluation so far.
    pub curve: Vec<CurvePoint>,
    /// Sum of the training losses since the last evaluation, nats.
    pub loss_sum: f64,
    /// Number of losses in that sum.
    pub loss_count: u64,
    /// The last training loss that was a number, nats.
    pub last_finite_loss: Option<f64>,
    /// Seconds in training steps, over the segments whose steps survive.
    pub train_seconds: f64,
    /// Digest of the weights that the run started from, if they came from a file.
    pub init: Option<String>,
    /// Arithmetics that earlier segments of the run used, if others than the last.
    pub other_engines: Vec<String>,
}

/// Adam's moments, in the order of the model's layout.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// First moment m.
    pub first: Vec<f32>,
    /// Second moment v.
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
}

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

impl CheckpointError {
    /// What to do about it, if that is known.
    pub fn hint(&self) -> Option<String> {
        None
    }
}

impl Checkpoint {
    /// Reads and checks a checkpoint.
    ///
    /// # Errors
    /// A file that is truncated, altered, or no checkpoint of this program.
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        Err(CheckpointError::Io { path: path.to_path_buf(), source: std::io::ErrorKind::Unsupported.into() })
    }

    /// Writes the checkpoint, atomically.
    ///
    /// # Errors
    /// A file that cannot be written; the old one, if any, is then still there.
    pub fn write(&self, path: &Path) -> Result<(), CheckpointError> {
        Err(CheckpointError::Io { path: path.to_path_buf(), source: std::io::ErrorKind::Unsupported.into() })
    }

    /// The alphabet of the text that the model was trained on.
    ///
    /// # Errors
    /// A form that this version does not know.
    pub fn alphabet(&self) -> Result<Alphabet, CorpusError> {
        Alphabet::from_string_form(&self.header.alphabet)
    }
}
