//! The notebook's own study, as if its numbers had been measured here.

use diapason_study::{
    CorpusStamp, Cost, Grid, Rule, SEED_EARLY_STEP, SEED_GRID, SEED_NUMBERS, SEED_STEPS, SeedNumbers, Study,
    StudySpec, Trial, TrialRecord, TrialState,
};
use diapason_training::{Config, Protocol, Reading};
use std::collections::BTreeMap;
use std::path::PathBuf;

fn reading(row: &SeedNumbers, step: u64) -> Reading {
    Reading {
        step,
        validation_loss: row.loss,
        accuracy: 0.55,
        accuracy_last: 0.58,
        train_seconds: row.seconds,
    }
}

/// The notebook's study, finished.
pub(crate) fn study() -> Study {
    let (config, grid) = (Config::default(), Grid::parse(&SEED_GRID).unwrap());
    let cells = grid.cells(&config, 27).unwrap();
    let spec = StudySpec {
        name: "the seed".to_string(),
        seeds: 1,
        protocol: Protocol::Standard,
        early_fraction: 0.2,
        first_steps: SEED_STEPS,
        budget: None,
        symbols: None,
        ms_per_step: BTreeMap::new(),
        ablate: Grid::default(),
        enqueued_only: false,
        rule: Rule::None,
        until_decided: None,
        search: None,
        tolerance: 0.01,
        cost: Cost::Seconds,
        corpus: CorpusStamp { name: "text8".into(), digest: "sha256:00".into(), request: None },
        grid,
        config,
    };
    let (early, full) = SEED_NUMBERS.split_at(4);
    let trials = cells.iter().enumerate().map(|(i, cell)| {
        let model = cell.config.model(27).unwrap();
        let record = TrialRecord {
            params: cell.params.clone(),
            seed: 0,
            state: TrialState::Complete,
            steps: SEED_STEPS,
            stopped_early: false,
            early: Some(reading(&early[i], SEED_EARLY_STEP)),
            seed_rule: None,
            best: Some(reading(&full[i], SEED_STEPS)),
            last: Some(reading(&full[i], SEED_STEPS)),
            train_seconds: full[i].seconds,
            tokens_per_second: Some(2048.0 * SEED_STEPS as f64 / full[i].seconds),
            threads: None,
            trials_at_once: None,
            parameters: model.parameters() as u64,
            tokens_per_step: 2048,
            flop_per_step: model.training_flop(2048, 32),
            engine: "colab".into(),
            other_engines: Vec::new(),
            corpus_digest: "sha256:00".into(),
            failure: None,
            spans: Vec::new(),
            config: cell.config.clone(),
        };
        let folder = PathBuf::from("trials").join(cell.params.folder_name()).join("seed-0");
        Trial { number: i, cell: i, seed: 0, folder, record: Some(record), bracket: None, stored: None }
    });
    Study {
        spec,
        trials: trials.collect(),
        cells,
        timings: Vec::new(),
        decisions: Vec::new(),
        interrupted: false,
    }
}

pub(crate) fn record(study: &mut Study, number: usize) -> &mut TrialRecord {
    study.trials[number].record.as_mut().unwrap()
}
