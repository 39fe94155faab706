//! Pages of studies that nobody has trained, to look at: `cargo run -p diapason-report --example pages FOLDER`.
//!
//! `scripts/report_screenshot` takes pictures of them. Losses and times are made up by formulas: what is to be seen is how
//! a page bears many trials, a name with markup in it, intervals, failures, and a study that runs.

use diapason_report::{Bounds, Curves, Extras, Sample, to_html};
use diapason_study::{
    Cell, CorpusStamp, Cost, Grid, Rule, Study, StudySpec, Trial, TrialFailure, TrialRecord, TrialState,
};
use diapason_training::{Config, CurvePoint, Protocol, Reading, SpanReading};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

const STEPS: u64 = 4000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("which folder?")?);
    std::fs::create_dir_all(&folder)?;
    let rates: Vec<String> = (1..=20).map(|i| format!("{}e-4", 2 * i)).collect();
    let rates = format!("learning_rate={}", rates.join(","));

    let many = made_up("two hundred trials", &[&rates, "d_model=32,64,96,128,160", "n_layers=1,2"]);
    write(&folder, "many", &many, &Extras::default())?;

    let name = "<b>bold</b> & <script>document.title = 'taken over'</script>\"'";
    let mut markup = made_up(name, &["d_model=16,32,64,128", "n_layers=1,2,4"]);
    if let Some(record) = &mut markup.trials[11].record {
        record.state = TrialState::Fail;
        record.early = None;
        let message = "diverged at step 12: <img src=x onerror=alert(1)>".to_string();
        record.failure = Some(TrialFailure { message, diverged_at: Some(12), last_finite_loss: None });
    }
    for trial in &mut markup.trials {
        let Some(record) = &mut trial.record else { continue };
        let Some(best) = record.best else { continue };
        let loss = |k: usize| best.validation_loss + 2e-3 * ((k * 37 + trial.number * k * k) % 13) as f64;
        record.spans =
            vec![SpanReading { step: best.step, losses: (0..240).map(|k| loss(k) as f32).collect() }];
    }
    let extras = Extras {
        command: Some(
            "diapason tune --corpus '<i>my book</i>.txt' --grid d_model=16,32,64,128 --grid n_layers=1,2,4"
                .into(),
        ),
        samples: vec![Sample { how: "seed 0, temperature 1".into(), text: "the </pre><h1>sea</h1>".into() }],
        ..Extras::default()
    };
    write(&folder, "markup", &markup, &extras)?;

    let mut running = made_up("running", &["d_model=64,128", "n_heads=2,4", "n_layers=2,4"]);
    for trial in &mut running.trials[3..] {
        if trial.number > 4 {
            trial.record = None;
        } else if let Some(record) = &mut trial.record {
            record.state = TrialState::Running;
        }
    }
    let as_of = Some(UNIX_EPOCH + Duration::from_secs(1_795_488_667));
    write(&folder, "running", &running, &Extras { running: true, as_of, ..Extras::default() })
}

fn write(
    folder: &Path,
    name: &str,
    study: &Study,
    extras: &Extras,
) -> Result<(), Box<dyn std::error::Error>> {
    let curves = study.trials.iter().map(|trial| trial.record.as_ref().map(curve).unwrap_or_default());
    let page = to_html(study, &Bounds::default(), &Curves::new(curves.collect()), extras);
    Ok(std::fs::write(folder.join(name).with_extension("html"), page)?)
}

/// A study of one seed, finished.
fn made_up(name: &str, axes: &[&str]) -> Study {
    let config = Config { steps: STEPS, ..Config::default() };
    let grid = Grid::parse(axes).expect("a grid");
    let cells = grid.cells(&config, 27).expect("cells");
    let spec = StudySpec {
        name: name.to_string(),
        seeds: 1,
        protocol: Protocol::Standard,
        early_fraction: 0.2,
        first_steps: STEPS,
        enqueued_only: false,
        rule: Rule::None,
        tolerance: 0.01,
        cost: Cost::Seconds,
        corpus: CorpusStamp { name: "made up".into(), digest: "sha256:00".into(), request: None },
        grid,
        config,
    };
    let trials = cells.iter().enumerate().map(|(number, cell)| trial(number, cell)).collect();
    Study { spec, cells, trials, timings: Vec::new(), decisions: Vec::new(), interrupted: false }
}

fn trial(number: usize, cell: &Cell) -> Trial {
    let model = cell.config.model(27).expect("a model");
    let parameters = model.parameters() as u64;
    // The best rate is a thousandth; each factor of two away from it costs a per cent.
    let rate = (cell.config.learning_rate / 1e-3).log2().powi(2) / 100.0;
    let lowest = 0.9 + (2.5 * (parameters as f64).powf(-0.1) + 0.4) * (1.0 + rate);
    let seconds = 2e-6 * parameters as f64 * STEPS as f64 / 10.0 + 4.0;
    let reading = |step: u64| Reading {
        step,
        validation_loss: lowest + 60.0 / (step as f64 + 25.0),
        accuracy: 1.0 - lowest / 4.0,
        accuracy_last: 1.0 - lowest / 4.2,
        train_seconds: seconds * step as f64 / STEPS as f64,
    };
    let record = TrialRecord {
        params: cell.params.clone(),
        seed: 0,
        state: TrialState::Complete,
        steps: STEPS,
        stopped_early: false,
        early: Some(reading(STEPS / 5)),
        seed_rule: None,
        best: Some(reading(STEPS)),
        last: Some(reading(STEPS)),
        train_seconds: seconds,
        tokens_per_second: Some(2048.0 * STEPS as f64 / seconds),
        threads: None,
        trials_at_once: None,
        parameters,
        tokens_per_step: 2048,
        flop_per_step: model.training_flop(2048, 32),
        engine: "none: made up".into(),
        other_engines: Vec::new(),
        corpus_digest: "sha256:00".into(),
        failure: None,
        spans: Vec::new(),
        config: cell.config.clone(),
    };
    let folder = PathBuf::from("trials").join(cell.params.folder_name()).join("seed-0");
    Trial { number, cell: number, seed: 0, folder, record: Some(record), bracket: None, stored: None }
}

/// Falls as fast at first as curves do.
fn curve(record: &TrialRecord) -> Vec<CurvePoint> {
    let Some(best) = record.best else { return Vec::new() };
    let end = if record.state == TrialState::Complete { 40 } else { 15 };
    let point = |i: u64| {
        let step = i * STEPS / 40;
        let lowest = best.validation_loss - 60.0 / (STEPS as f64 + 25.0);
        CurvePoint {
            step,
            train_loss: 1.0,
            validation_loss: lowest + 60.0 / (step as f64 + 25.0),
            accuracy: best.accuracy,
            accuracy_last: best.accuracy_last,
            train_seconds: record.train_seconds * i as f64 / 40.0,
        }
    };
    (1..=end).map(point).collect()
}
