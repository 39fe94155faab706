//! Why a run cannot start or go on.

use crate::{BEST, CHECKPOINT, CheckpointError, ConfigError, LockError};
use diapason_corpus::CorpusError;
use std::path::PathBuf;

/// Why a run cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// A configuration that is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A checkpoint that cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A folder that another process has.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A text that cannot be used.
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    /// A folder or a file that cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The folder or file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// An early read-out outside of the run.
    #[error(
        "the early read-out is at step {early_step}, but must lie between 1 and {steps}, the steps of the run"
    )]
    EarlyStep {
        /// The early step.
        early_step: u64,
        /// The last step.
        steps: u64,
    },
    /// A part of the training text that is no longer than a window.
    #[error(
        "train_fraction {train_fraction} leaves {left} characters of training text, and a window takes {needed}"
    )]
    TooLittleText {
        /// The part.
        train_fraction: f64,
        /// Its characters.
        left: usize,
        /// Characters of a window and its last target.
        needed: usize,
    },
    /// An engine that was made for another model.
    #[error("the engine computes another model than the configuration describes")]
    OtherModel,
    /// The folder holds a run, and resuming was not asked for.
    #[error("{} already holds a run", folder.display())]
    AlreadyThere {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder holds weights that a new run would overwrite, and no run to go on with.
    #[error("{} holds {BEST}, but no {CHECKPOINT} to go on from", folder.display())]
    WeightsAlone {
        /// The folder.
        folder: PathBuf,
    },
    /// The text is not the one that the run began with.
    #[error(
        "the corpus has changed since the run in {} began: it was {old_name} ({old_digest}), now it is {name} ({digest})",
        folder.display()
    )]
    CorpusChanged {
        /// The folder.
        folder: PathBuf,
        /// Name of the corpus that the run began with.
        old_name: String,
        /// Its digest.
        old_digest: String,
        /// Name of the corpus now.
        name: String,
        /// Its digest.
        digest: String,
    },
    /// The run was begun with other settings.
    #[error("the run in {} was begun with other settings: {differences}", folder.display())]
    SettingsChanged {
        /// The folder.
        folder: PathBuf,
        /// `learning_rate was 0.001, now 0.002; seed was 0, now 1`.
        differences: String,
    },
    /// The run was computed by another arithmetic.
    #[error(
        "the run in {} was computed by engine {old}, and this is {new}: the result would be neither's",
        folder.display()
    )]
    OtherEngine {
        /// The folder.
        folder: PathBuf,
        /// The engine so far.
        old: String,
        /// The engine now.
        new: String,
    },
}

impl TrainingError {
    /// Whether what is in the run's folder cannot be gone on with as it is: files that are damaged, or gone.
    pub fn is_damage(&self) -> bool {
        use CheckpointError::{Read, Write};
        match self {
            Self::Checkpoint(error) => !matches!(error, Read { .. } | Write { .. }),
            Self::WeightsAlone { .. } => true,
            _ => false,
        }
    }

    /// What to do about it, if that is known.
    pub fn hint(&self) -> Option<String> {
        let another_folder = "or choose another folder";
        match self {
            Self::Config(error) => error.hint(),
            Self::Checkpoint(error) => error.hint(),
            Self::Lock(error) => error.hint(),
            Self::Corpus(error) => error.hint(),
            Self::Write { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Some("free some space and resume; the last checkpoint is intact".to_string())
            }
            Self::AlreadyThere { .. } => Some(format!("--resume goes on with it; {another_folder}")),
            Self::WeightsAlone { folder } => Some(format!(
                "choose another folder; --init {} starts from its weights",
                folder.join(BEST).display()
            )),
            Self::CorpusChanged { .. } => Some(format!("give the text that it began with, {another_folder}")),
            Self::SettingsChanged { .. } => Some(format!(
                "give the same settings (patience may grow, and steps where nothing depends on their number; checkpoint_seconds may change), {another_folder}"
            )),
            Self::OtherEngine { .. } => {
                let precision = "--set precision=f32 (or half) goes on in the precision that it began in";
                Some(format!("{precision}; --allow-other-engine goes on all the same, and marks the run"))
            }
            _ => None,
        }
    }
}
