//! `tune`: a grid of configurations, a table, a verdict.

use super::{configured, engine, json, key_of, open, request, shape, slug};
use crate::args::{self, Text, Tune};
use crate::failure::{Failure, note};
use crate::progress::{Training, Work, duration};
use crate::shell;
use crate::signals::Signals;
use diapason_corpus::english::{FLOOR_WINDOWS, window_floor};
use diapason_corpus::{Corpus, CorpusRequest};
use diapason_engine::{CpuEngine, memory_needed};
use diapason_model::ModelConfig;
use diapason_report::{Bounds, REPORT_FILE, RESULTS_FILE, StudyJson, to_text, write_files};
use diapason_study::{
    Cell, CorpusStamp, Cost, Engines, Forecast, Grid, MadeEngine, Params, Plan, QUICK_GRID, QUICK_STEPS,
    SEED_GRID, SEED_STEPS, STUDY_FILE, Study, StudyEvent, StudySpec, TrialRecord, TrialState, run_study,
};
use diapason_training::{BEST, CHECKPOINT, Config, Protocol};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Columns of a table that goes into a file or a pipe.
const NO_WIDTH: usize = 160;

/// What `generate` is shown to begin with.
const PROMPT: &str = "the ";

/// What a bare `tune` reads.
const QUICK_CORPUS: &str = "builtin:english";

pub(crate) fn run(args: Tune, signals: &Signals) -> Result<(), Failure> {
    if args.text.corpus.is_none() && args.text.test_corpus.is_some() {
        return Err(Failure::usage("--test-corpus needs --corpus, the text to train on")
            .with_hint("as in --corpus text8_train.txt --test-corpus text8_test.txt"));
    }
    let quick = args.text.corpus.is_none() && args.grid.is_empty() && args.set.is_empty() && !args.as_seed;
    let (steps, default_grid) = if quick { (QUICK_STEPS, QUICK_GRID) } else { (SEED_STEPS, SEED_GRID) };
    let config = configured(Config { steps, ..Config::default() }, &args.set, args.steps)?;
    let grid = Grid::parse(&axes(&args, default_grid)?).map_err(|e| Failure::from(e).typed())?;
    // What can be refused without the text is refused before it is read.
    grid.cells(&config, 1).map_err(|e| Failure::from(e).typed())?;

    let corpus = args.text.corpus.clone().unwrap_or_else(|| QUICK_CORPUS.to_string());
    let request = request(&args.text, corpus);
    let name = study_name(&request, quick, args.as_seed);
    let folder = args.out.clone().unwrap_or_else(|| PathBuf::from("studies").join(&name));
    if folder.join(CHECKPOINT).exists() {
        return Err(Failure::usage(format!("{} holds a run, not a study", folder.display()))
            .with_hint("choose another folder with --out; `diapason train --resume` goes on with a run"));
    }
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

    let study = train(&corpus, &spec, &folder, &args, signals)?;
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
    say_what_next(&study, &args, &request, &corpus, &folder);
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
    args: &Tune,
    signals: &Signals,
) -> Result<Study, Failure> {
    let make = |model: ModelConfig, config: &Config, threads: usize| -> MadeEngine {
        Ok(Box::new(engine(model, shape(config), threads)?))
    };
    let engines = Engines {
        memory: &|model, config| memory_needed(model, shape(config), spec.threads),
        available: CpuEngine::memory_available(),
        make: &make,
        allow_other: args.allow_other_engine,
        // At most 1024: the parser has checked.
        trials_at_once: args.parallel.map(|n| n as usize),
    };
    let (mut timing, mut progress) = (Work::count(), Training::new());
    let study = run_study(corpus, spec, folder, &engines, signals.graceful(), &mut |event| match event {
        StudyEvent::Timing { done, of } => timing.at("timing steps", *done as u64, Some(*of as u64)),
        StudyEvent::Planned { trials, work, plan } => {
            timing.finish();
            if work.is_empty() {
                progress.say(&format!("nothing to train: {trials} of {trials} trials are done"));
            } else {
                if let Some(text) = way_of_running(plan) {
                    progress.say(&text);
                }
                progress.study(*trials, trials - work.len());
            }
        }
        StudyEvent::TrialStarted { number, trials, params, seed } => {
            let seed = if spec.seeds > 1 { format!(" seed={seed}") } else { String::new() };
            progress.begin(*number, format!("trial {}/{trials} {params}{seed}", number + 1));
        }
        StudyEvent::Training { number, event } => progress.event(*number, event, signals),
        StudyEvent::TimeLeft { seconds } => progress.left(*seconds),
        StudyEvent::TrialFinished { number, record } => progress.end(*number, &finished(*number, record)),
    })?;
    progress.finish();
    Ok(study)
}

/// `two trials at a time, one thread each: about 31 min 10 s; one at a time: 33 min 05 s`. Nothing where there was
/// nothing to choose.
fn way_of_running(plan: &Plan) -> Option<String> {
    let (trials, threads) = (plan.trials_at_once, plan.threads);
    let each = match threads / trials {
        0 => "one thread each".to_string(),
        1 if threads % trials == 0 => "one thread each".to_string(),
        n if threads % trials == 0 => format!("{} threads each", in_words(n)),
        n => format!("{} or {} threads each", in_words(n), in_words(n + 1)),
    };
    let way = match trials {
        1 => "one trial at a time, on all threads".to_string(),
        n => format!("{} trials at a time, {each}", in_words(n)),
    };
    let (chosen, others): (Vec<&Forecast>, Vec<&Forecast>) =
        plan.forecasts.iter().partition(|forecast| forecast.trials_at_once == trials);
    match chosen.first() {
        Some(chosen) if trials > 1 || !others.is_empty() => {
            let mut text = format!("{way}: about {}", duration(chosen.seconds));
            for other in others {
                text +=
                    &format!("; {} at a time: {}", in_words(other.trials_at_once), duration(other.seconds));
            }
            Some(text)
        }
        _ => (trials > 1).then_some(way),
    }
}

fn in_words(n: usize) -> String {
    match n {
        1 => "one".to_string(),
        2 => "two".to_string(),
        3 => "three".to_string(),
        4 => "four".to_string(),
        n => n.to_string(),
    }
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
fn say_what_next(study: &Study, args: &Tune, request: &CorpusRequest, corpus: &Corpus, folder: &Path) {
    note(&format!(
        "files: {}, {REPORT_FILE}, {RESULTS_FILE} and trials/ in {}",
        STUDY_FILE,
        folder.display()
    ));
    let Some(verdict) = study.verdict() else { return };
    // Of its seeds, the one with the lowest loss: another may have failed and left no weights.
    let chosen = study
        .trials
        .iter()
        .filter(|trial| study.cells[trial.cell].params == verdict.chosen)
        .filter_map(|trial| Some((trial, trial.record.as_ref()?.best?.validation_loss)))
        .min_by(|a, b| a.1.total_cmp(&b.1));
    let Some((trial, _)) = chosen else { return };
    let best = folder.join(&trial.folder).join(BEST);
    let program = shell::program();
    let on_best = |words: &[&str]| {
        let mut line = vec![program.clone(), words[0].into(), best.clone().into_os_string()];
        line.extend(words[1..].iter().map(OsString::from));
        shell::line(&line)
    };
    note("next:");
    // The prompt's characters must be in the alphabet.
    let prompt: &[&str] =
        if corpus.alphabet.encode(PROMPT.as_bytes()).is_ok() { &["--prompt", PROMPT] } else { &[] };
    note(&format!("  {}", on_best(&[&["generate"], prompt].concat())));
    note(&format!("  {}", on_best(&["eval", "--split", "test"])));
    let train = train_command(&program, &args.text, request, &study.cells[trial.cell]);
    note(&format!("  {}", shell::line(&train)));
}

/// `train` for the chosen configuration, with as many steps as the notebook gave it if the study gave less
/// and did not compare numbers of steps.
fn train_command(program: &OsString, text: &Text, request: &CorpusRequest, chosen: &Cell) -> Vec<OsString> {
    let mut words: Vec<OsString> =
        vec![program.clone(), "train".into(), "--corpus".into(), request.corpus.clone().into()];
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
    // The grid's keys, then all else that differs from what `train` does by itself.
    let changed = chosen.config.differences(&Config::default());
    let changed = Params::new(changed.iter().map(|(key, value, _)| (*key, value.clone())));
    let others = changed.pairs().filter(|(key, _)| chosen.params.text(key).is_none());
    for (key, value) in chosen.params.pairs().chain(others).filter(|(key, _)| *key != "steps") {
        flag("--set", Some(format!("{key}={value}").into()));
    }
    let compared = chosen.params.text("steps").is_some();
    let steps = if compared { chosen.config.steps } else { chosen.config.steps.max(SEED_STEPS) };
    flag("--steps", Some(steps.to_string().into()));
    if text.normalize {
        words.push("--normalize".into());
    }
    words
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_of_running_is_said_in_one_line() {
        let said = |trials_at_once, threads, forecasts: &[(usize, f64)]| {
            let forecasts =
                forecasts.iter().map(|&(trials_at_once, seconds)| Forecast { trials_at_once, seconds });
            way_of_running(&Plan { trials_at_once, threads, forecasts: forecasts.collect() })
        };
        let both = [(1, 1980.0), (2, 1865.0)];
        assert_eq!(
            said(2, 2, &both).unwrap(),
            "two trials at a time, one thread each: about 31 min 05 s; one at a time: 33 min 00 s"
        );
        assert_eq!(
            said(1, 2, &both).unwrap(),
            "one trial at a time, on all threads: about 33 min 00 s; two at a time: 31 min 05 s"
        );
        assert_eq!(said(4, 6, &[]).unwrap(), "four trials at a time, one or two threads each");
        assert_eq!(said(2, 16, &[(1, 5.0)]).unwrap(), "two trials at a time, 8 threads each");
        assert_eq!(said(3, 2, &[]).unwrap(), "three trials at a time, one thread each");
        assert_eq!(said(1, 2, &[(1, 5.0)]), None);
    }
}
