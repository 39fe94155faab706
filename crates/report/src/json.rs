//! The study as one JSON object: the contract of `tune --json` and of `report.json`.
//!
//! Keys may be added, never renamed or taken away.

use crate::{Bounds, Extras, Fit, Sample, facts, summary};
use diapason_study::{
    Comparison, Cost, Params, Pass, PassDecision, Row, RungDecision, SeedNumbers, Standing, Study, Verdict,
    seed_numbers,
};
use diapason_training::{Budget, Counting, Protocol};
use serde::Serialize;
use std::collections::BTreeMap;

/// A study for machines.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StudyJson {
    /// Name of the study.
    pub name: String,
    /// The text.
    pub corpus: CorpusJson,
    /// When runs were evaluated and what ended them.
    pub protocol: Protocol,
    /// What each configuration was trained for, in place of so many steps, as `60s` or `2e9chars`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
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
    /// What share of the training was done that all trials to their last step would be, by floating-point operations;
    /// null before every configuration has begun.
    pub trained_share: Option<f64>,
    /// What was decided at rungs, with everything that it was made from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<RungDecision>,
    /// How the loss goes with size, where the grid spans enough sizes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fits: Vec<Fit>,
    /// Texts of the chosen configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
    /// Where and how it was made, in words.
    pub environment: BTreeMap<String, String>,
    /// The command that makes the study again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
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
    /// What counting n-grams of the training text comes to on the characters that the trials are evaluated on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counting: Option<Counting>,
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
    /// Which reading it rests on.
    pub pass: Option<Pass>,
    /// Every configuration that was compared.
    pub comparison: Vec<ComparisonJson>,
    /// What each configuration of the cost-loss front saves against the next dearer one, in words, cheapest first.
    pub prices: Vec<String>,
}

/// How a configuration compares with the best one. Differences are fractions of the best loss.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComparisonJson {
    /// Its parameters.
    pub params: Params,
    /// Its loss, nats: the mean over its seeds.
    pub loss: f64,
    /// Its cost, in the unit of the verdict's.
    pub cost: f64,
    /// How much worse than the best loss it is, as measured.
    pub difference: f64,
    /// How much worse than the truly best one it is at least, with 95 % confidence for all at once; null where that is
    /// not known.
    pub low: Option<f64>,
    /// ... and at most.
    pub high: Option<f64>,
    /// `equivalent`, `worse` or `undecided`.
    pub standing: Option<Standing>,
}

fn comparison(decided: &PassDecision) -> Vec<ComparisonJson> {
    let one = |compared: &Comparison| {
        let place = compared.candidate;
        let candidate = &decided.candidates[place];
        let grounds = decided.grounds.as_ref().ok();
        let interval = grounds.and_then(|grounds| grounds.evidence.intervals.get(place).copied().flatten());
        let part = |nats: f64| grounds.map(|grounds| nats / grounds.evidence.loss.abs());
        ComparisonJson {
            params: candidate.params.clone(),
            loss: candidate.loss,
            cost: candidate.cost,
            difference: compared.difference,
            low: interval.and_then(|interval| part(interval.low)),
            high: interval.and_then(|interval| part(interval.high)),
            standing: grounds.and_then(|grounds| grounds.weighed.standings.get(place).copied().flatten()),
        }
    };
    decided.decision.compared.iter().map(one).collect()
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
    pub fn new(study: &Study, bounds: &Bounds, extras: &Extras) -> Self {
        let steps = [diapason_study::SEED_EARLY_STEP, diapason_study::SEED_STEPS];
        Self {
            name: study.spec.name.clone(),
            corpus: CorpusJson {
                name: study.spec.corpus.name.clone(),
                digest: study.spec.corpus.digest.clone(),
                entropy_rate: bounds.entropy_rate,
                window_floor: bounds.window_floor,
                counting: bounds.counting,
            },
            protocol: study.spec.protocol,
            budget: study.spec.budget,
            seeds: study.spec.seeds,
            finished: summary::is_over(study),
            trials: study.rows(),
            verdict: study.verdict().map(|verdict| {
                let decided = study.decided();
                VerdictJson {
                    verdict,
                    tolerance: study.spec.tolerance,
                    cost: study.spec.cost,
                    pass: decided.as_ref().map(|decided| decided.pass),
                    comparison: decided.as_ref().map(comparison).unwrap_or_default(),
                    prices: decided
                        .map(|decided| decided.decision.prices(&decided.candidates, study.spec.cost))
                        .unwrap_or_default(),
                }
            }),
            seed_numbers: steps
                .iter()
                .flat_map(|&steps| {
                    study.cells.iter().filter_map(move |cell| seed_numbers(&cell.config, steps))
                })
                .map(SeedNumbersJson::from)
                .collect(),
            trained_share: study.trained_share(),
            decisions: study.decisions.clone(),
            fits: summary::fits(study),
            samples: extras.samples.clone(),
            environment: facts::facts(study)
                .into_iter()
                .map(|(name, value)| (name.to_string(), value))
                .collect(),
            command: extras.command.clone(),
        }
    }
}
