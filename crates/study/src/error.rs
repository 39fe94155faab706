//! What can go wrong with a study as a whole. A trial that diverges is no error: it is a result.

use crate::{Difference, Params};
use diapason_corpus::CorpusError;
use diapason_engine::EngineError;
use diapason_storage::{StorageError, printable};
use diapason_training::{Budget, BudgetError, ConfigError, Idle, TrainingError};
use std::path::{Path, PathBuf};

/// Why a study cannot begin, go on or be read.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// A configuration that is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An axis of the grid that cannot be read.
    #[error("grid `{axis}`: {what}")]
    Grid {
        /// The axis, as typed.
        axis: String,
        /// What is wrong with it.
        what: String,
    },
    /// A value of an ablation that changes nothing.
    #[error("ablate `{axis}`: {value} is what there is without it")]
    NoAblation {
        /// The axis, as typed.
        axis: String,
        /// The key and its value.
        value: String,
    },
    /// More cells than a study can hold.
    #[error("the grid has more than {most} cells")]
    TooManyCells {
        /// As many as there may be.
        most: usize,
    },
    /// More trials than a study can hold.
    #[error("{cells} cells with {seeds} seeds each are more than {most} trials")]
    TooManyTrials {
        /// Cells of the grid.
        cells: usize,
        /// Seeds of each.
        seeds: u64,
        /// As many trials as there may be.
        most: usize,
    },
    /// A cell that cannot be trained.
    #[error("{params}: {error}")]
    Cell {
        /// The cell.
        params: Params,
        /// Why not.
        error: Box<ConfigError>,
    },
    /// A cell that no engine can be made for.
    #[error("{params}: {error}")]
    Engine {
        /// The cell.
        params: Params,
        /// Why not.
        error: Box<EngineError>,
    },
    /// More trials at once than fit into memory.
    #[error("{trials} trials at once: {error}")]
    AtOnce {
        /// How many were asked for.
        trials: usize,
        /// What is missing.
        error: Box<EngineError>,
    },
    /// A text that is too short for a cell.
    #[error("{params}: {error}")]
    Text {
        /// The cell.
        params: Params,
        /// Why not.
        error: Box<CorpusError>,
    },
    /// A setting of the study outside of its range.
    #[error("{key} is {value}, but must lie between {low} and {high}")]
    OutOfRange {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// Smallest value allowed.
        low: &'static str,
        /// Largest value allowed.
        high: &'static str,
    },
    /// A bound on seeds that is below the seeds which each configuration is to have.
    #[error("at most {most} seeds of a configuration, and {seeds} of each")]
    FewerSeeds {
        /// The bound.
        most: u64,
        /// The seeds.
        seeds: u64,
    },
    /// A key that varies and changes nothing in any configuration.
    #[error("{0}: all configurations that differ in it would train the same")]
    Idle(Idle),
    /// Configurations that cannot be drawn.
    #[error("{what}")]
    Search {
        /// Why not.
        what: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// A rule that this study cannot have.
    #[error("rule {rule}: {what}")]
    Rule {
        /// The rule.
        rule: String,
        /// Why not.
        what: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// A budget that this study cannot have.
    #[error("a budget of {budget}: {what}")]
    Budget {
        /// The budget.
        budget: Budget,
        /// Why not.
        what: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// A cell that the budget does not do for.
    #[error("{params}: {error}")]
    Unpaid {
        /// The cell.
        params: Params,
        /// Why not.
        error: Box<BudgetError>,
    },
    /// A cell whose steps were not timed with those of the others.
    #[error(
        "{params}: its steps were not timed when the study began with a budget of {budget}, and times of different days do not compare"
    )]
    Untimed {
        /// The cell.
        params: Params,
        /// The budget.
        budget: Budget,
    },
    /// The folder belongs to another study.
    #[error("{} is the folder of another study, `{}`", folder.display(), printable(name))]
    OtherStudy {
        /// The folder.
        folder: PathBuf,
        /// That study's name.
        name: String,
    },
    /// The folder holds a study with other settings.
    #[error(
        "the study in {} was begun with other settings: {}",
        folder.display(),
        differences.iter().map(Difference::to_string).collect::<Vec<_>>().join("; ")
    )]
    OtherSettings {
        /// The study's folder.
        folder: PathBuf,
        /// Everything that differs.
        differences: Vec<Difference>,
    },
    /// A file of the study that is not what it should be.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A file or folder that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The database cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is no study at this place.
    #[error("there is no study in {place}")]
    NoStudy {
        /// The database, without a password, and the name that was asked for.
        place: String,
    },
    /// A study that another program made: it does not say what is to be trained.
    #[error(
        "the study `{}` was made by another program: it has no text and no configuration",
        printable(name)
    )]
    NotOurs {
        /// Its name.
        name: String,
    },
    /// A database with several studies, where one was expected.
    #[error("{place} holds {studies} studies")]
    WhichStudy {
        /// The database.
        place: String,
        /// How many.
        studies: usize,
    },
    /// A trial in the database that is not as this program writes it.
    #[error("trial {number} in the database: {message}")]
    Attributes {
        /// Its number.
        number: i64,
        /// What is wrong with it.
        message: String,
    },
    /// A value that Optuna has no place for.
    #[error("{key} = {value} has no place in an Optuna study")]
    NoParam {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// What is left was begun with another arithmetic.
    #[error(
        "{} begun by another engine than {engine}: a result would be neither's",
        match trials { 1 => "1 trial of this study was".to_string(), n => format!("{n} trials of this study were") }
    )]
    OtherEngine {
        /// How many.
        trials: u64,
        /// This process's engine.
        engine: String,
    },
    /// A trial that cannot go on: a damaged checkpoint, a full disk.
    #[error("the trial {params}, seed {seed}: {error}")]
    Trial {
        /// Its number.
        number: usize,
        /// Its cell.
        params: Params,
        /// Its seed.
        seed: u64,
        /// Its folder.
        folder: Box<Path>,
        /// The reason.
        error: Box<TrainingError>,
    },
}

impl StudyError {
    /// Whether only one trial cannot go on: the others can.
    pub(crate) fn is_of_one_trial(&self) -> bool {
        matches!(self, Self::Trial { error, .. } if error.is_damage())
    }

    /// What to do about it, if that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint(),
            Self::Cell { error, .. } => error.hint(),
            Self::Text { error, .. } => error.hint(),
            Self::Trial { error, folder, .. } if error.is_damage() => Some(format!(
                "put the file back as it was, or remove {}: the trial then starts anew; the others keep what they have",
                folder.display()
            )),
            Self::Trial { error, .. } => error.hint(),
            Self::Storage(error) => error.hint(),
            Self::FewerSeeds { seeds, .. } => {
                Some(format!("give --max-seeds {seeds} or more, or a smaller --seeds"))
            }
            Self::Idle(Idle { key, remedy, .. }) => {
                let remedy = remedy.as_ref().map_or(String::new(), |remedy| format!(", or {remedy}"));
                Some(format!("leave {key} out of what varies{remedy}"))
            }
            Self::NoAblation { value, .. } => Some(format!("leave {value} out: the base has it, and is trained too")),
            Self::Search { hint, .. } => Some((*hint).to_string()).filter(|hint| !hint.is_empty()),
            Self::Rule { hint, .. } | Self::Budget { hint, .. } => Some((*hint).to_string()),
            Self::Unpaid { error, .. } => error.hint(),
            Self::Untimed { .. } => Some(
                "begin another study with --out; with a budget in chars or flop there may be more configurations later"
                    .to_string(),
            ),
            Self::OtherStudy { .. } => Some("choose another folder with --out".to_string()),
            Self::NotOurs { .. } => Some(
                "`tune --storage URL --study NAME --enqueued` with --corpus and --set says what its trials are trained on"
                    .to_string(),
            ),
            Self::NoStudy { .. } => Some("`diapason tune` begins one".to_string()),
            Self::WhichStudy { .. } => {
                Some("say which one with --study; `diapason study list` names them".to_string())
            }
            Self::Attributes { .. } => {
                Some("another program has changed it; put the database back as it was".to_string())
            }
            Self::OtherEngine { .. } => Some(
                "finish them with the version and processor that began them; --allow-other-engine goes on all the same, and marks them"
                    .to_string(),
            ),
            Self::Grid { .. } => Some("an axis looks like n_heads=8,16".to_string()),
            Self::Engine { error, .. } if matches!(**error, EngineError::Memory { .. }) => {
                Some("take this cell out of the grid, or make batch_size smaller".to_string())
            }
            Self::AtOnce { .. } => Some("give a smaller number to --parallel".to_string()),
            Self::OtherSettings { .. } => Some(
                "give the settings that it began with, or another folder; more values, seeds or steps may be added"
                    .to_string(),
            ),
            Self::File { .. } => Some("put the file back as it was, or move the folder away".to_string()),
            _ => None,
        }
    }
}
