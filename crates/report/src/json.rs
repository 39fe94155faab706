//! The study as one JSON object: the contract of `tune --json`.
//!
//! Keys may be added, never renamed or taken away.

use crate::Bounds;
use diapason_study::{Cost, Row, SeedNumbers, Study, Verdict, seed_numbers};
use diapason_training::Protocol;
use serde::Serialize;

/// A study for machines.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StudyJson {
    /// Name of the study.
    pub name: String,
    /// The text.
    pub corpus: CorpusJson,
    /// When runs were evaluated and what ended them.
    pub protocol: Protocol,
    /// Seeds per configuration.
    pub seeds: u64,
    /// Whether trials are left to be done.
    pub finished: bool,
    /// One entry per pass of each trial that has begun.
    pub trials: Vec<Row>,
    /// The choice; null while there is none.
    pub verdict: Option<VerdictJson>,
    /// The notebook's numbers for the configurations that it trained too: text8, on a Colab GPU.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub seed_numbers: Vec<SeedNumbersJson>,
}

/// Which text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CorpusJson {
    /// Its name.
    pub name: String,
    /// Its digest: alphabet, splits and every character.
    pub digest: String,
    /// Entropy rate in nats per character, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entropy_rate: Option<f64>,
    /// The same with nothing but one window as context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_floor: Option<f64>,
}

/// The verdict, with what it was made by.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VerdictJson {
    /// Parameters of the chosen configuration, and why it was chosen.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The tolerance, as a fraction of the best loss.
    pub tolerance: f64,
    /// What "cheapest" meant.
    pub cost: Cost,
}

/// One line of the notebook's tables.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SeedNumbersJson {
    /// Width.
    pub d_model: usize,
    /// Heads.
    pub n_heads: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Steps trained.
    pub steps: u64,
    /// Seconds on its GPU.
    pub train_seconds: f64,
    /// Loss on text8, nats.
    pub validation_loss: f64,
}

impl From<&SeedNumbers> for SeedNumbersJson {
    fn from(row: &SeedNumbers) -> Self {
        Self {
            d_model: row.d_model,
            n_heads: row.n_heads,
            n_layers: row.n_layers,
            steps: row.steps,
            train_seconds: row.seconds,
            validation_loss: row.loss,
        }
    }
}

impl StudyJson {
    /// The study as it stands.
    pub fn new(study: &Study, bounds: &Bounds) -> Self {
        let steps = [diapason_study::SEED_EARLY_STEP, diapason_study::SEED_STEPS];
        Self {
            name: study.spec.name.clone(),
            corpus: CorpusJson {
                name: study.spec.corpus.name.clone(),
                digest: study.spec.corpus.digest.clone(),
                entropy_rate: bounds.entropy_rate,
                window_floor: bounds.window_floor,
            },
            protocol: study.spec.protocol,
            seeds: study.spec.seeds,
            finished: study.trials.iter().all(|trial| study.is_over(trial)),
            trials: study.rows(),
            verdict: study.verdict().map(|verdict| VerdictJson {
                verdict,
                tolerance: study.spec.tolerance,
                cost: study.spec.cost,
            }),
            seed_numbers: steps
                .iter()
                .flat_map(|&steps| {
                    study.cells.iter().filter_map(move |cell| seed_numbers(&cell.config, steps))
                })
                .map(SeedNumbersJson::from)
                .collect(),
        }
    }
}
