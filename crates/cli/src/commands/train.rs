//! `train`: one configuration.

use super::working::count;
use super::{
    checkpoint_file, configured, engine, json, key_of, no_file, nothing_learned, open, precision, recipe,
    required_request, shape, slug,
};
use crate::args::Train;
use crate::boards::Boards;
use crate::failure::{Failure, note};
use crate::memory;
use crate::progress::{Training, duration};
use crate::shell;
use crate::signals::Signals;
use diapason_corpus::Corpus;
use diapason_engine::{memory_needed, memory_of_updates};
use diapason_study::{Params, STUDY_FILE};
use diapason_training::{
    BEST, Budget, CHECKPOINT, CURVE, Config, Control, Counting, Event, Protocol, Reading, RunOutcome,
    RunSpec, RunState,
};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub(crate) fn run(args: Train, signals: &Signals) -> Result<(), Failure> {
    let request = required_request(&args.text)?;
    let mut config = configured(recipe(args.recipe.as_deref())?, &args.set, args.steps)?;
    let steps_are_given = args.steps.is_some() || args.set.iter().any(|set| key_of(set) == "steps");
    if args.budget.is_some() && steps_are_given {
        return Err(Failure::usage("--budget and steps both say how long the run is")
            .with_hint("leave one of them out"));
    }
    // What can be refused without the text is refused before it is read.
    config.clone().validated(1).map_err(|e| Failure::from(e).typed())?;
    if let Some(folder) = &args.out {
        no_file(folder)?;
    }
    let corpus = open(&request)?;
    let mut time_budget = None;
    match args.budget {
        Some(Budget::Seconds(seconds)) => time_budget = Some(seconds),
        Some(budget) => {
            config.steps =
                budget.steps(&config, corpus.alphabet.len()).map_err(|e| Failure::from(e).typed())?;
        }
        None => {}
    }
    let config = config.validated(corpus.alphabet.len()).map_err(|e| Failure::from(e).typed())?;
    corpus.require(config.sequence_length)?;
    let idle = args.set.iter().filter_map(|set| config.idle(key_of(set), Protocol::Standard));
    // How many steps fit into a budget of time, nobody knows.
    let warm_up = config.endless_warm_up().filter(|_| time_budget.is_none());
    for text in idle.map(|idle| idle.to_string()).chain(warm_up) {
        note(&format!("warning: {text}"));
    }
    let model = config.model(corpus.alphabet.len())?;
    let (shape, threads) = (shape(&config), args.machine.threads());
    let (precision, said) = precision(config.precision)?;
    let updates = memory_of_updates(&model, config.updating(), threads);
    let memory = memory::line(
        memory_needed(&model, precision, shape, threads) + updates,
        Some(&corpus),
        diapason_training::memory_needed(&config, Protocol::Standard) as u64,
        Counting::memory(&corpus, &config) as u64,
    );
    let mut engine = engine(model, precision, shape, threads, updates)?;

    let budget = time_budget.and(args.budget);
    let folder =
        args.out.clone().unwrap_or_else(|| default_folder(&request.corpus, &config, budget, args.seed));
    if folder.join(STUDY_FILE).exists() {
        return Err(Failure::usage(format!("{} holds a study, not a run", folder.display()))
            .with_hint("choose another folder with --out; `diapason tune` goes on with a study"));
    }
    if args.resume && !folder.join(CHECKPOINT).exists() {
        note(&format!("warning: nothing to resume in {}: the run starts at step 0", folder.display()));
    }
    let spec = RunSpec {
        resume: args.resume,
        init: args.init.as_deref().map(checkpoint_file).transpose()?,
        allow_other_engine: args.allow_other_engine,
        time_budget,
        ..RunSpec::new(config, args.seed, &folder)
    };
    let mut progress = Training::new();
    progress.begin(0, String::new());
    let mut boards = Boards::new(args.tensorboard.as_deref());
    boards.begin(0, Path::new(""));
    let control = Control { stop: &[signals.graceful()], ..Control::default() };
    let outcome = diapason_training::run(&corpus, &mut engine, &spec, &control, &mut |event| {
        if let Event::Started { .. } = event {
            progress.say(&memory);
            said.into_iter().for_each(|text| progress.say(text));
        }
        progress.event(0, event, signals);
        boards.event(0, event);
    })
    .map_err(|error| {
        let failure = Failure::from(error);
        match failure {
            // The hint speaks of a checkpoint, which a full disk may never have let be.
            Failure::Failed { message, hint: Some(hint) }
                if hint.contains("checkpoint is intact") && !folder.join(CHECKPOINT).exists() =>
            {
                Failure::failed(message)
                    .with_hint("free some space and start again: there is no checkpoint yet")
            }
            failure => failure,
        }
    })?;
    progress.finish();

    if let RunState::Interrupted { .. } = outcome.state {
        return Err(Failure::Interrupted {
            exit_code: signals.exit_code(),
            resume: resume_command(args.resume),
        });
    }
    let diverged = matches!(outcome.state, RunState::Diverged { .. });
    if !args.json && !diverged {
        print_summary(&outcome)?;
    }
    // Makes room: counting takes as much as a small engine.
    drop(engine);
    let counting = if diverged { None } else { count(&corpus, &spec.config, signals) };
    if args.json {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", json(&as_json(&outcome, &corpus, counting, &folder))?)?;
        out.flush()?;
    }
    if let RunState::Diverged { step, last_finite_loss } = outcome.state {
        let last = last_finite_loss.map_or_else(|| "none".to_string(), |loss| format!("{loss:.4}"));
        return Err(Failure::failed(format!(
            "the loss was not finite at step {step}; the last finite loss was {last}"
        ))
        .with_hint("a smaller learning_rate often helps, as in --set learning_rate=3e-4"));
    }
    if let Some(best) = outcome.best.map(|best| best.validation_loss) {
        let said = nothing_learned(best, &corpus);
        if let Some(text) = said.or(counting.map(|counting| beside_counting(best, counting))) {
            note(&text);
        }
    }
    say_what_next(&folder);
    Ok(())
}

fn print_summary(outcome: &RunOutcome) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let reading = |name: &str, r: &Reading| {
        format!(
            "{name}: validation loss {:.4} nats ({:.4} bits per character), accuracy {:.2} %, at the last position {:.2} %, step {}",
            r.validation_loss,
            r.bpc(),
            100.0 * r.accuracy,
            100.0 * r.accuracy_last,
            r.step
        )
    };
    if let Some(last) = &outcome.last {
        writeln!(out, "{}", reading("final", last))?;
    }
    if let Some(best) = &outcome.best {
        writeln!(out, "{}", reading("best", best))?;
    }
    let stopped = if outcome.state == RunState::StoppedEarly { ", ended by patience" } else { "" };
    writeln!(
        out,
        "{} steps{stopped}, {} of training, {:.0} tokens/s, {} parameters",
        outcome.steps,
        duration(outcome.train_seconds),
        outcome.tokens_per_second,
        outcome.parameters
    )?;
    Ok(out.flush()?)
}

/// What a loss is worth beside that of counting.
fn beside_counting(best: f64, Counting { order, loss, .. }: Counting) -> String {
    let counting = format!("counting {order}-grams of the training text comes to {loss:.4} nats");
    if best < loss {
        format!("for comparison: {counting}")
    } else {
        format!("note: {counting}, and the model to {best:.4}: it needs more training, or is too small")
    }
}

fn say_what_next(folder: &Path) {
    let (program, best) = (shell::program(), folder.join(BEST));
    let words =
        |command: &str| shell::line(&[program.clone(), command.into(), best.clone().into_os_string()]);
    note(&format!("files: {BEST}, {CHECKPOINT} and {CURVE} in {}", folder.display()));
    note(&format!("next:  {} --split test\n       {}", words("eval"), words("generate")));
}

fn as_json(outcome: &RunOutcome, corpus: &Corpus, counting: Option<Counting>, folder: &Path) -> Value {
    let state = match outcome.state {
        RunState::Complete | RunState::StoppedEarly => "COMPLETE",
        RunState::Diverged { .. } => "FAIL",
        RunState::Interrupted { .. } => "RUNNING",
    };
    json!({
        "final_validation_loss": outcome.last.map(|r| r.validation_loss),
        "best_validation_loss": outcome.best.map(|r| r.validation_loss),
        "best_step": outcome.best.map(|r| r.step),
        "steps": outcome.steps,
        "train_seconds": outcome.train_seconds,
        "state": state,
        "stopped_early": outcome.state == RunState::StoppedEarly,
        "final_validation_bpc": outcome.last.map(|r| r.bpc()),
        "accuracy": outcome.last.map(|r| r.accuracy),
        "accuracy_last": outcome.last.map(|r| r.accuracy_last),
        "tokens_per_second": outcome.tokens_per_second,
        "parameters": outcome.parameters,
        "corpus": { "name": corpus.name, "digest": corpus.digest, "counting": counting },
        "folder": folder.display().to_string(),
    })
}

/// `runs/text8/d_model=128,steps=2000/seed-0`: what differs from the nearest recipe names the folder, and a budget of time.
fn default_folder(corpus: &str, config: &Config, budget: Option<Budget>, seed: u64) -> PathBuf {
    let (recipe, mut changed) = config.nearest_recipe();
    changed.extend(budget.map(|budget| ("budget", budget.to_string().into())));
    let (is_changed, params) = (!changed.is_empty(), Params::new(changed));
    let name = match (recipe.values.is_empty(), is_changed) {
        (true, _) => params.folder_name(),
        (false, true) => format!("{},{}", recipe.name, params.folder_name()),
        (false, false) => recipe.name.to_string(),
    };
    PathBuf::from("runs").join(slug(corpus)).join(name).join(format!("seed-{seed}"))
}

/// The command that was typed, with `--resume`.
fn resume_command(has_resume: bool) -> String {
    let mut words = shell::this_command();
    if !has_resume {
        words.push("--resume".into());
    }
    shell::line(&words)
}
