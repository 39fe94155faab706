//! The chosen configuration: which of its trials has the weights to go on with, and what they write.

use super::generate::several;
use super::trained;
use crate::failure::Failure;
use diapason_engine::Precision;
use diapason_generation::{Request, start_symbol};
use diapason_report::Sample;
use diapason_study::{Study, Trial};
use diapason_training::BEST;
use diapason_training::checkpoint::Stored;
use std::path::Path;

/// What `generate` is shown to begin with.
pub(super) const PROMPT: &str = "the ";

/// Characters of each text in the report, and how many there are.
const SAMPLE: usize = 300;
const SAMPLES: u64 = 2;

/// The trial whose weights stand for the chosen configuration, with its loss: of its seeds, the one with the lowest
/// loss; another may have failed and left no weights.
pub(super) fn trial(study: &Study) -> Option<(&Trial, f64)> {
    let verdict = study.verdict()?;
    study
        .trials
        .iter()
        .filter(|trial| study.cells[trial.cell].params == verdict.chosen)
        .filter_map(|trial| Some((trial, trial.record.as_ref()?.best?.validation_loss)))
        .min_by(|a, b| a.1.total_cmp(&b.1))
}

/// What it writes, for the report of a study in `folder`. Nothing where its weights are not here, or cannot be read:
/// the study has its result without.
pub(super) fn samples(study: &Study, folder: &Path, threads: usize) -> Vec<Sample> {
    let written = trial(study).map(|(trial, _)| written(&folder.join(&trial.folder), threads));
    written.and_then(Result::ok).unwrap_or_default()
}

fn written(folder: &Path, threads: usize) -> Result<Vec<Sample>, Failure> {
    let file = folder.join(BEST);
    let mut checkpoint = Stored::open(&file)?;
    let alphabet = checkpoint.header().alphabet()?;
    // The prompt's characters must be in the alphabet.
    let (prompt, ids) = alphabet.encode(PROMPT.as_bytes()).map_or(("", Vec::new()), |ids| (PROMPT, ids));
    let request = Request {
        prompt: ids,
        start: start_symbol(&alphabet),
        length: SAMPLE,
        temperature: 1.0,
        top_k: None,
        seeds: (0..SAMPLES).collect(),
        context: checkpoint.header().config.sequence_length,
    };
    let mut engine = trained(&mut checkpoint, Precision::F32, threads)?;
    let texts = several(&mut engine, &request, prompt, &alphabet)?;
    let after = if prompt.is_empty() { String::new() } else { format!(", after {PROMPT:?}") };
    let sample = |(seed, text): (&u64, Vec<u8>)| Sample {
        how: format!("seed {seed}, temperature 1{after}"),
        text: String::from_utf8_lossy(&text).into_owned(),
    };
    Ok(request.seeds.iter().zip(texts).map(sample).collect())
}
