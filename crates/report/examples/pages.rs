//! Pages of studies that nobody has trained, to look at: `cargo run -p diapason-report --example pages FOLDER`.
//!
//! `scripts/report_screenshot` takes pictures of them. Losses and times are made up by formulas: what is to be seen is how
//! a page bears many trials, a name with markup in it, intervals, failures, and a study that runs.

use diapason_report::{Bounds, Curves, Extras, Sample, to_html};
use diapason_study::{
    Cell, CorpusStamp, Cost, Grid, Rule, RungCandidate, RungDecision, Study, StudySpec, Trial, TrialFailure,
    TrialRecord, TrialState,
};
use diapason_training::{Config, Counting, CurvePoint, Protocol, Reading, SpanReading};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

const STEPS: u64 = 4000;

/// The name of a study with markup in it.
pub(crate) const MARKUP: &str = "<b>bold</b> & <script>document.title = 'taken over'</script>\"'";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    pages(&PathBuf::from(std::env::args_os().nth(1).ok_or("which folder?")?))
}

/// Writes all pages: `many`, `markup`, `running` and `halved`.
pub(crate) fn pages(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    std::fs::create_dir_all(folder)?;
    let rates: Vec<String> = (1..=20).map(|i| format!("{}e-4", 2 * i)).collect();
    let rates = format!("learning_rate={}", rates.join(","));

    let mut many = made_up("two hundred trials", &[&rates, "d_model=32,64,96,128,160", "n_layers=1,2"]);
    with_spans(&mut many);
    write(folder, "many", &many, &Extras::default())?;

    let mut markup = made_up(MARKUP, &["d_model=16,32,64,128", "n_layers=1,2,4"]);
    if let Some(record) = &mut markup.trials[11].record {
        record.state = TrialState::Fail;
        record.early = None;
        let message = "diverged at step 12: <img src=x onerror=alert(1)>".to_string();
        record.failure = Some(TrialFailure { message, diverged_at: Some(12), last_finite_loss: None });
    }
    with_spans(&mut markup);
    let extras = Extras {
        command: Some(
            "diapason tune --corpus '<i>my book</i>.txt' --grid d_model=16,32,64,128 --grid n_layers=1,2,4"
                .into(),
        ),
        samples: vec![Sample { how: "seed 0, temperature 1".into(), text: "the </pre><h1>sea</h1>".into() }],
        ..Extras::default()
    };
    write(folder, "markup", &markup, &extras)?;
    write(folder, "halved", &halved(), &Extras::default())?;

    let mut running = made_up("running", &["d_model=64,128", "n_heads=2,4", "n_layers=2,4"]);
    for trial in &mut running.trials[3..] {
        if trial.number > 4 {
            trial.record = None;
        } else if let Some(record) = &mut trial.record {
            record.state = TrialState::Running;
        }
    }
    let as_of = Some(UNIX_EPOCH + Duration::from_secs(1_795_488_667));
    write(folder, "running", &running, &Extras { running: true, as_of, ..Extras::default() })
}

fn write(
    folder: &Path,
    name: &str,
    study: &Study,
    extras: &Extras,
) -> Result<(), Box<dyn std::error::Error>> {
    let curves = study.trials.iter().map(|trial| trial.record.as_ref().map(curve).unwrap_or_default());
    // As of a text whose source is known.
    let bounds = match study.spec.rule {
        Rule::None => Bounds::default(),
        _ => Bounds {
            entropy_rate: Some(1.1),
            window_floor: Some(1.25),
            counting: Some(Counting { order: 7, context: 32, loss: 1.5 }),
        },
    };
    let page = to_html(study, &bounds, &Curves::new(curves.collect()), extras);
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
        corpus: CorpusStamp { name: "made up".into(), digest: "sha256:00".into(), request: None },
        grid,
        config,
    };
    let trials = cells.iter().enumerate().map(|(number, cell)| trial(number, cell)).collect();
    Study { spec, cells, trials, timings: Vec::new(), decisions: Vec::new(), interrupted: false }
}

/// Gives each trial losses per span of text, around its loss.
fn with_spans(study: &mut Study) {
    for trial in &mut study.trials {
        let Some(record) = &mut trial.record else { continue };
        let Some(best) = record.best else { continue };
        let loss = |k: usize| best.validation_loss + 2e-3 * ((k * 37 + trial.number * k * k) % 13) as f64;
        record.spans =
            vec![SpanReading { step: best.step, losses: (0..240).map(|k| loss(k) as f32).collect() }];
    }
}

/// Nine configurations, of which three go on from the first comparison and one from the second.
fn halved() -> Study {
    let mut study = made_up("halved", &["d_model=32,64,128", "n_layers=1,2,4"]);
    study.spec.rule = "halving:eta=3".parse().expect("a rule");
    let mut left: Vec<usize> = (0..study.cells.len()).collect();
    for (rung, (step, next)) in [(444, 1333), (1333, STEPS)].into_iter().enumerate() {
        let loss = |cell: &usize| curve_at(study.trials[*cell].record.as_ref().expect("it has begun"), step);
        left.sort_by(|a, b| loss(a).total_cmp(&loss(b)));
        let keep = left.len() / 3;
        let best = loss(&left[0]);
        let candidates = left.iter().enumerate().map(|(place, cell)| RungCandidate {
            params: study.cells[*cell].params.clone(),
            cell: String::new(),
            loss: Some(loss(cell)),
            losses: [(0, loss(cell))].into(),
            cost: Some(1e9 * (1 + cell) as f64),
            goes_on: place < keep,
            why: format!("{:.4}: {:.1} % above the best loss", loss(cell), 100.0 * (loss(cell) / best - 1.0)),
        });
        let decision = RungDecision {
            bracket: 0,
            rung: rung as u32,
            step,
            next,
            eta: 3,
            tolerance: 0.01,
            noise: 0.0,
            cost: "FLOP of all steps".into(),
            candidates: candidates.collect(),
        };
        for cell in left.split_off(keep) {
            let record = study.trials[cell].record.as_mut().expect("it has begun");
            let lost = curve_at(record, step);
            record.train_seconds *= step as f64 / STEPS as f64;
            (record.state, record.steps) = (TrialState::Pruned, step);
            record.early = record.early.filter(|early| early.step <= step);
            let reading = record.last.map(|last| Reading { step, validation_loss: lost, ..last });
            (record.best, record.last) = (reading, reading);
        }
        study.decisions.push(decision);
    }
    for trial in &mut study.trials {
        trial.bracket = Some(0);
    }
    study
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
    let end = match record.state {
        TrialState::Running => STEPS * 15 / 40,
        _ => record.steps,
    };
    let point = |step: u64| CurvePoint {
        step,
        train_loss: 1.0,
        validation_loss: curve_at(record, step),
        accuracy: best.accuracy,
        accuracy_last: best.accuracy_last,
        train_seconds: record.train_seconds * step as f64 / record.steps as f64,
    };
    (1..=40).map(|i| i * STEPS / 40).filter(|step| *step < end).chain([end]).map(point).collect()
}

/// The loss at a step of the curve that ends at the record's.
fn curve_at(record: &TrialRecord, step: u64) -> f64 {
    let best = record.best.expect("a loss");
    let slope = |step: u64| 60.0 / (step as f64 + 25.0);
    best.validation_loss - slope(best.step) + slope(step)
}
