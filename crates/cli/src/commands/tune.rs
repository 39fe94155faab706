//! `tune`: a grid of configurations, a table, a verdict.

use super::{configured, engine, json, open, request, shape, slug};
use crate::args::{self, Tune};
use crate::failure::{Failure, note};
use crate::progress::{Training, duration};
use crate::shell;
use crate::signals::Signals;
use diapason_corpus::english::{FLOOR_WINDOWS, window_floor};
use diapason_corpus::{Corpus, CorpusRequest};
use diapason_engine::CpuEngine;
use diapason_model::ModelConfig;
use diapason_report::{Bounds, REPORT_FILE, RESULTS_FILE, StudyJson, to_text, write_files};
use diapason_study::{
    CorpusStamp, Cost, Engines, Grid, MadeEngine, Params, QUICK_GRID, SEED_GRID, SEED_STEPS, STUDY_FILE,
    Study, StudyEvent, StudySpec, TrialRecord, TrialState, quick_study, run_study, seed_study,
};
use diapason_training::{BEST, Config, Protocol};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Columns of a table that goes into a file or a pipe.
const NO_WIDTH: usize = 160;

/// What a bare `tune` reads.
const QUICK_CORPUS: &str = "builtin:english";

pub(crate) fn run(args: Tune) -> Result<(), Failure> {
    let signals = Signals::install()?;
    let quick = args.text.corpus.is_none() && args.grid.is_empty() && args.set.is_empty() && !args.as_seed;
    let ((base, _), default_grid) =
        if quick { (quick_study()?, QUICK_GRID) } else { (seed_study()?, SEED_GRID) };
    let config = configured(base, &args.set, args.steps)?;
    let grid = Grid::parse(&axes(&args, default_grid)?).map_err(|e| Failure::from(e).typed())?;
    // What can be refused without the text is refused before it is read.
    grid.cells(&config, 1).map_err(|e| Failure::from(e).typed())?;

    let corpus = args.text.corpus.clone().unwrap_or_else(|| QUICK_CORPUS.to_string());
    let request = request(&args.text, corpus);
    let name = study_name(&request, quick, args.as_seed);
    let folder = args.out.clone().unwrap_or_else(|| PathBuf::from("studies").join(&name));
    let corpus = open(&request)?;
    let spec = StudySpec {
        seeds: args.seeds.unwrap_or(1),
        protocol: if args.as_seed { Protocol::AsSeed } else { Protocol::Standard },
        early_fraction: args.early,
        threads: args.machine.threads(),
        tolerance: args.tolerance.unwrap_or(0.01),
        cost: match args.cost {
            args::Cost::Seconds => Cost::Seconds,
            args::Cost::Flop => Cost::Flop,
            args::Cost::Parameters => Cost::Parameters,
        },
        corpus: CorpusStamp { request: corpus.request.clone(), ..CorpusStamp::of(&corpus) },
        ..StudySpec::new(&name, &corpus, config, grid)
    };

    let study = train(&corpus, &spec, &folder, args.allow_other_engine, &signals)?;
    if study.interrupted {
        return Err(Failure::Interrupted {
            exit_code: signals.exit_code(),
            resume: shell::line(&shell::this_command()),
        });
    }
    let bounds = bounds(&corpus, &study);
    write_files(&study, &bounds, &folder)?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", json(&StudyJson::new(&study, &bounds))?)?;
    } else {
        let width =
            console::Term::stdout().size_checked().map_or(NO_WIDTH, |(_, columns)| usize::from(columns));
        write!(out, "{}", to_text(&study, &bounds, width))?;
    }
    out.flush()?;
    say_what_next(&study, &args, &request, &folder);
    if study.verdict().is_none() {
        return Err(Failure::failed("no configuration has a result: there is nothing to choose from")
            .with_hint("the table says what became of each trial"));
    }
    Ok(())
}

/// The grid as typed. In the default grid a key of --set has the value that was set; in a grid that was typed
/// it would be said twice.
fn axes(args: &Tune, default_grid: [&str; 3]) -> Result<Vec<String>, Failure> {
    let assigned = |key: &str| args.set.iter().rev().find(|assignment| key_of(assignment) == key);
    if let Some(axis) = args.grid.iter().find(|axis| assigned(key_of(axis)).is_some()) {
        return Err(Failure::usage(format!("{} is in --grid and in --set", key_of(axis)))
            .with_hint("leave it out of --set: --grid gives its values"));
    }
    if args.steps.is_some() && args.grid.iter().any(|axis| key_of(axis) == "steps") {
        return Err(Failure::usage("steps is in --grid and given by --steps").with_hint("leave --steps out"));
    }
    if args.grid.is_empty() {
        let or_set = |axis: &str| assigned(key_of(axis)).cloned().unwrap_or_else(|| axis.to_string());
        Ok(default_grid.iter().map(|axis| or_set(axis)).collect())
    } else {
        Ok(args.grid.clone())
    }
}

/// Runs the study and shows how it goes.
fn train(
    corpus: &Corpus,
    spec: &StudySpec,
    folder: &Path,
    allow_other: bool,
    signals: &Signals,
) -> Result<Study, Failure> {
    let check =
        |model: &ModelConfig, config: &Config| CpuEngine::check_memory(model, shape(config), spec.threads);
    let make = |model: ModelConfig, config: &Config| -> MadeEngine {
        Ok(Box::new(engine(model, shape(config), spec.threads)?))
    };
    let engines = Engines { check: &check, make: &make, allow_other };
    let mut progress = Training::new();
    let study = run_study(corpus, spec, folder, &engines, signals.graceful(), &mut |event| match event {
        StudyEvent::Planned { work, .. } => progress.plan(work.iter().map(|work| work.flop).sum()),
        StudyEvent::TrialStarted { number, trials, params, seed, flop_per_step, .. } => {
            let seed = if spec.seeds > 1 { format!(" seed={seed}") } else { String::new() };
            progress.trial(format!("trial {}/{trials} {params}{seed}", number + 1), *flop_per_step);
        }
        StudyEvent::Training { event, .. } => progress.event(event, signals),
        StudyEvent::TrialFinished { number, record } => progress.say(&finished(*number, record)),
    })?;
    progress.finish();
    Ok(study)
}

/// What is known of the text: how good a model can be at best.
fn bounds(corpus: &Corpus, study: &Study) -> Bounds {
    // One floor can stand beside the table only if all its windows have one length.
    let lengths: BTreeSet<usize> = study.cells.iter().map(|cell| cell.config.sequence_length).collect();
    let window_floor = match (corpus.entropy_rate, lengths.first()) {
        (Some(_), Some(&length)) if lengths.len() == 1 => Some(window_floor(length, FLOOR_WINDOWS).mean),
        _ => None,
    };
    Bounds { entropy_rate: corpus.entropy_rate, window_floor }
}

/// The files of the study, and commands that go on with the chosen configuration.
fn say_what_next(study: &Study, args: &Tune, request: &CorpusRequest, folder: &Path) {
    note(&format!(
        "files: {}, {REPORT_FILE}, {RESULTS_FILE} and trials/ in {}",
        STUDY_FILE,
        folder.display()
    ));
    let Some(verdict) = study.verdict() else { return };
    let chosen = study.trials.iter().find(|trial| study.cells[trial.cell].params == verdict.chosen);
    let Some(trial) = chosen else { return };
    let best = folder.join(&trial.folder).join(BEST);
    let program = shell::program();
    let on_best = |words: &[&str]| {
        let mut line = vec![program.clone(), words[0].into(), best.clone().into_os_string()];
        line.extend(words[1..].iter().map(OsString::from));
        shell::line(&line)
    };
    note("next:");
    note(&format!("  {}", on_best(&["generate", "--prompt", "the "])));
    note(&format!("  {}", on_best(&["eval", "--split", "test"])));
    note(&format!("  {}", shell::line(&train_command(&program, args, request, &verdict.chosen, study))));
}

/// `train` for the chosen configuration, with as many steps as the notebook gave it if the study gave less.
fn train_command(
    program: &OsString,
    args: &Tune,
    request: &CorpusRequest,
    chosen: &Params,
    study: &Study,
) -> Vec<OsString> {
    let mut words: Vec<OsString> =
        vec![program.clone(), "train".into(), "--corpus".into(), request.corpus.clone().into()];
    let text = &args.text;
    let mut flag = |name: &str, value: Option<OsString>| {
        if let Some(value) = value {
            words.push(name.into());
            words.push(value);
        }
    };
    flag("--test-corpus", text.test_corpus.clone().map(OsString::from));
    flag("--alphabet", text.alphabet.map(|kind| kind.to_string().into()));
    flag("--train-chars", text.train_chars.map(|n| n.to_string().into()));
    flag("--validation-chars", text.validation_chars.map(|n| n.to_string().into()));
    flag("--test-chars", text.test_chars.map(|n| n.to_string().into()));
    let chosen: Vec<String> = chosen.pairs().map(|(key, value)| format!("{key}={value}")).collect();
    for assignment in
        args.set.iter().filter(|set| !chosen.iter().any(|c| key_of(c) == key_of(set))).chain(&chosen)
    {
        flag("--set", Some(assignment.into()));
    }
    if !chosen.iter().any(|c| key_of(c) == "steps") {
        flag("--steps", Some(study.spec.config.steps.max(SEED_STEPS).to_string().into()));
    }
    if text.normalize {
        words.push("--normalize".into());
    }
    words
}

/// The key of `KEY=...`.
fn key_of(assignment: &str) -> &str {
    assignment.split('=').next().unwrap_or_default().trim()
}

/// `trial 2/4 d_model=64: validation loss 1.7132 at step 1500, 42 s of training`.
fn finished(number: usize, record: &TrialRecord) -> String {
    let what = match (&record.failure, &record.best) {
        (Some(failure), _) => failure.message.clone(),
        (None, Some(best)) => format!(
            "best validation loss {:.4} at step {}, {} of training{}",
            best.validation_loss,
            best.step,
            duration(record.train_seconds),
            if record.stopped_early { ", ended by patience" } else { "" }
        ),
        (None, None) => "no evaluation".to_string(),
    };
    let verb = if record.state == TrialState::Running { "interrupted" } else { "done" };
    format!("trial {} {verb}: {}: {what}", number + 1, record.params)
}

/// `quick`, `text8`, `my-book-as-seed`.
fn study_name(request: &CorpusRequest, quick: bool, as_seed: bool) -> String {
    let base = if quick { "quick".to_string() } else { slug(&request.corpus) };
    if as_seed { format!("{base}-as-seed") } else { base }
}
