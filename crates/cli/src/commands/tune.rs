//! `tune`: a grid of configurations, a table, a verdict.

use super::winner::{self, PROMPT};
use super::working::{Task, work};
use super::{configured, json, key_of, no_file, nothing_learned, open, recipe, request, slug};
use crate::args::{Text, Tune};
use crate::failure::{Failure, note};
use crate::shell;
use crate::signals::Signals;
use crate::storage;
use diapason_corpus::{Corpus, CorpusRequest};
use diapason_report::{
    Extras, HTML_FILE, JSON_FILE, REPORT_FILE, RESULTS_FILE, StudyJson, to_text, write_files,
};
use diapason_study::{
    Cell, CorpusStamp, Grid, Home, Params, QUICK_GRID, QUICK_STEPS, Rule, SEED_GRID, SEED_STEPS, STUDY_FILE,
    Sampler, Search, Study, StudySpec, UNTIL_SEEDS,
};
use diapason_training::{BEST, Budget, CHECKPOINT, Config, Protocol};
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

/// Columns of a table that goes into a file or a pipe.
const NO_WIDTH: usize = 160;

/// How many configurations are drawn, if nobody says it.
const SAMPLES_DRAWN: u64 = 16;

/// What a bare `tune` reads.
const QUICK_CORPUS: &str = "builtin:english";

pub(crate) fn run(args: Tune, signals: &Signals) -> Result<(), Failure> {
    if args.text.corpus.is_none() && args.text.test_corpus.is_some() {
        return Err(Failure::usage("--test-corpus needs --corpus, the text to train on")
            .with_hint("as in --corpus text8_train.txt --test-corpus text8_test.txt"));
    }
    let mut typed =
        args.grid.iter().chain(&args.ablate).chain(&args.set).map(|assignment| key_of(assignment));
    if args.budget.is_some() && (args.steps.is_some() || typed.any(|key| key == "steps")) {
        return Err(Failure::usage("--budget and steps both say how long a trial is")
            .with_hint("leave one of them out"));
    }
    let search = search(&args)?;
    let quick = args.text.corpus.is_none()
        && args.grid.is_empty()
        && args.ablate.is_empty()
        && search.is_none()
        && args.set.is_empty()
        && args.recipe.is_none()
        && !args.as_seed
        && !args.enqueued;
    let (steps, default_grid) = if quick { (QUICK_STEPS, QUICK_GRID) } else { (SEED_STEPS, SEED_GRID) };
    let base = match &args.recipe {
        Some(name) => recipe(Some(name))?,
        None => Config { steps, ..Config::default() },
    };
    let mut config = configured(base, &args.set, args.steps)?;
    let rule = match args.rule.unwrap_or_default() {
        // One thing, one place: patience is a key of the configuration.
        Rule::Patience(evaluations) => {
            let drawn = args.range.iter().map(|range| range.key.as_str());
            let typed = args.grid.iter().chain(&args.set).map(|assignment| key_of(assignment));
            if typed.chain(drawn).any(|key| key == "patience") {
                return Err(Failure::usage("patience is given twice, by --rule and as a key")
                    .with_hint("leave one of them out"));
            }
            config.patience = evaluations;
            Rule::None
        }
        rule => rule,
    };
    let axes = if args.enqueued { Vec::new() } else { axes(&args, default_grid)? };
    let grid = Grid::parse(&axes).map_err(|e| Failure::from(e).typed())?;
    let ablate = Grid::parse(&args.ablate).map_err(|e| Failure::from(e).typed())?;
    let corpus = args.text.corpus.clone().unwrap_or_else(|| QUICK_CORPUS.to_string());
    let request = request(&args.text, corpus);
    let name = study_name(&request, quick, args.as_seed);
    let seeds = args.seeds.unwrap_or(1);
    let spec = StudySpec {
        seeds,
        protocol: if args.as_seed { Protocol::AsSeed } else { Protocol::Standard },
        early_fraction: args.early,
        budget: args.budget,
        enqueued_only: args.enqueued,
        search,
        ablate,
        rule,
        until_decided: args.until_decided.then_some(args.max_seeds.unwrap_or(UNTIL_SEEDS.max(seeds))),
        tolerance: args.tolerance.unwrap_or(0.01),
        cost: args.cost.into(),
        ..StudySpec::drafted(&name, config, grid)
    };
    // What can be refused without the text is refused before it is read.
    spec.check().map_err(|e| Failure::from(e).typed())?;
    let by_rule = matches!(args.rule, Some(Rule::Patience(_))).then_some("patience");
    let set: Vec<&str> = args.set.iter().map(|assignment| key_of(assignment)).chain(by_rule).collect();
    for text in spec.without_effect(&set).map_err(|e| Failure::from(e).typed())? {
        note(&format!("warning: {text}"));
    }
    let of_study = args.place.study.as_deref().map(slug);
    let folder =
        args.out.clone().unwrap_or_else(|| PathBuf::from("studies").join(of_study.as_ref().unwrap_or(&name)));
    no_file(&folder)?;
    if folder.join(CHECKPOINT).exists() {
        return Err(Failure::usage(format!("{} holds a run, not a study", folder.display()))
            .with_hint("choose another folder with --out; `diapason train --resume` goes on with a run"));
    }
    let storage = storage::place(args.place.storage.as_deref(), &folder)?;
    storage::reach(&storage)?;
    let home = Home { folder: folder.clone(), storage, name: args.place.study.clone() };
    let home = if home.is_local() { home } else { Home { name: home.name.or(Some(name.clone())), ..home } };
    let corpus = open(&request)?;
    let stamp = CorpusStamp { request: corpus.request.clone(), ..CorpusStamp::of(&corpus) };
    let mut spec = StudySpec { corpus: stamp, ..spec };
    if let Some(Budget::Flop(_)) = spec.budget {
        // How many a step takes depends on the alphabet.
        spec.symbols = Some(corpus.alphabet.len());
        spec.check().map_err(|e| Failure::from(e).typed())?;
    }

    let command = shell::line(&shell::this_command());
    let (study, bounds) =
        work(Task::Tune(&spec), &corpus, &home, &args.working, true, Some(&command), signals)?;
    let samples = winner::samples(&study, &folder, args.working.machine.threads());
    let extras = Extras { command: Some(command), samples, ..Extras::default() };
    write_files(&study, &bounds, &folder, &extras)?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", json(&StudyJson::new(&study, &bounds, &extras))?)?;
    } else {
        let width =
            console::Term::stdout().size_checked().map_or(NO_WIDTH, |(_, columns)| usize::from(columns));
        write!(out, "{}", to_text(&study, &bounds, width))?;
    }
    out.flush()?;
    say_what_next(&study, &args, &request, &corpus, &home);
    if study.verdict().is_none() {
        return Err(Failure::failed("no configuration has a result: there is nothing to choose from")
            .with_hint("the table says what became of each trial"));
    }
    Ok(())
}

/// What is to be drawn, if anything.
fn search(args: &Tune) -> Result<Option<Search>, Failure> {
    if args.range.is_empty() && args.sampler.is_none() && args.samples.is_none() {
        return Ok(None);
    }
    let set = args.set.iter().map(|assignment| key_of(assignment));
    for range in &args.range {
        if set.clone().any(|key| key == range.key) {
            return Err(Failure::usage(format!("{} is in --range and in --set", range.key))
                .with_hint("leave one of them out"));
        }
    }
    if args.range.is_empty() && args.grid.is_empty() {
        return Err(Failure::usage("there is nothing to draw")
            .with_hint("--range gives a key a range, as in --range learning_rate=1e-4..1e-2:log"));
    }
    let sampler = args.sampler.unwrap_or(Sampler::Random { seed: 0 });
    Ok(Some(Search { sampler, samples: args.samples.unwrap_or(SAMPLES_DRAWN), ranges: args.range.clone() }))
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
    if args.grid.is_empty() && !(args.range.is_empty() && args.ablate.is_empty()) {
        // Only what has a range is drawn; only what is ablated changes.
        return Ok(Vec::new());
    }
    if args.grid.is_empty() {
        let or_set = |axis: &str| assigned(key_of(axis)).cloned().unwrap_or_else(|| axis.to_string());
        Ok(default_grid.iter().map(|axis| or_set(axis)).collect())
    } else {
        Ok(args.grid.clone())
    }
}

/// The files of the study, and commands that go on with the chosen configuration.
fn say_what_next(study: &Study, args: &Tune, request: &CorpusRequest, corpus: &Corpus, home: &Home) {
    note(&format!(
        "files: {STUDY_FILE}, {REPORT_FILE}, {HTML_FILE}, {JSON_FILE}, {RESULTS_FILE} and trials/ in {}; the study: {}",
        home.folder.display(),
        home.storage
    ));
    let Some((trial, loss)) = winner::trial(study) else { return };
    if let Some(text) = nothing_learned(loss, corpus) {
        note(&text);
    }
    let best = home.folder.join(&trial.folder).join(BEST);
    if !best.exists() {
        return note(&format!(
            "{} is not here: a worker with another --out trained it, and its folder has the weights",
            best.display()
        ));
    }
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
    let train = train_command(&program, &args.text, request, &study.cells[trial.cell], &study.spec);
    note(&format!("  {}", shell::line(&train)));
}

/// `train` for the chosen configuration, with as many steps as the notebook gave it if the study gave less
/// and did not compare numbers of steps; with ten times its budget if it had one.
fn train_command(
    program: &OsString,
    text: &Text,
    request: &CorpusRequest,
    chosen: &Cell,
    spec: &StudySpec,
) -> Vec<OsString> {
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
    // The grid's keys, then all else that differs from what `train` does by itself. A twentieth of the study's steps is
    // not what a longer run should be evaluated after.
    let by_default = Config { eval_every: 0, steps: spec.first_steps, ..Config::default() };
    let mut config = chosen.config.clone();
    if config.eval_every == by_default.steps_between_evaluations() {
        config.eval_every = 0;
    }
    let (recipe, changed) = config.nearest_recipe();
    if !recipe.values.is_empty() {
        flag("--recipe", Some(recipe.name.into()));
    }
    let changed = Params::new(changed);
    let others = changed.pairs().filter(|(key, _)| chosen.params.text(key).is_none());
    for (key, value) in chosen.params.pairs().chain(others).filter(|(key, _)| *key != "steps") {
        flag("--set", Some(format!("{key}={value}").into()));
    }
    let compared = chosen.params.text("steps").is_some() || spec.ablate.axis("steps").is_some();
    let steps = if compared { chosen.config.steps } else { chosen.config.steps.max(SEED_STEPS) };
    match spec.budget {
        Some(budget) => flag("--budget", Some(budget.times(10.0).to_string().into())),
        None => flag("--steps", Some(steps.to_string().into())),
    }
    if text.normalize {
        words.push("--normalize".into());
    }
    words
}

/// `quick`, `text8`, `my-book-as-seed`.
fn study_name(request: &CorpusRequest, quick: bool, as_seed: bool) -> String {
    let base = if quick { "quick".to_string() } else { slug(&request.corpus) };
    if as_seed { format!("{base}-as-seed") } else { base }
}
