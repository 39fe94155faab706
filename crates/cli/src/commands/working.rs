//! Working on a study: what `tune` and `worker` share.

use super::{engine, page, precision, shape};
use crate::args::Working;
use crate::boards::Boards;
use crate::failure::{Failure, note};
use crate::memory;
use crate::progress::{Training, Work, duration};
use crate::shell;
use crate::signals::Signals;
use diapason_corpus::Corpus;
use diapason_corpus::english::{FLOOR_WINDOWS, window_floor};
use diapason_engine::{CpuEngine, memory_needed, memory_of_updates};
use diapason_model::ModelConfig;
use diapason_report::Bounds;
use diapason_study::{
    Engines, Forecast, Home, MadeEngine, Plan, Study, StudyEvent, StudySpec, TrialRecord, TrialState,
    join_study, run_study,
};
use diapason_training::{Config, Counting};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What is to be done.
#[derive(Clone, Copy)]
pub(crate) enum Task<'a> {
    /// Begin or continue this study.
    Tune(&'a StudySpec),
    /// Work on the one that is there, which is this.
    Join(&'a StudySpec),
}

/// Works on a study and shows how it goes, until it is finished, or, without `wait`, until no trial is to be had.
/// `command` is what makes the study, for its page. Returns with the study what is known of its text.
pub(crate) fn work(
    task: Task<'_>,
    corpus: &Corpus,
    home: &Home,
    working: &Working,
    wait: bool,
    command: Option<&str>,
    signals: &Signals,
) -> Result<(Study, Bounds), Failure> {
    let (study, known) = page::kept(corpus, home, command, |begin_page| {
        work_on(task, corpus, home, working, wait, begin_page, signals)
    });
    let study = study?;
    let bounds = known.unwrap_or_else(|| bounds(corpus, &study));
    let bounds = Bounds { counting: counting(corpus, &study, signals), ..bounds };
    Ok((study, bounds))
}

fn work_on(
    task: Task<'_>,
    corpus: &Corpus,
    home: &Home,
    working: &Working,
    wait: bool,
    begin_page: &dyn Fn(),
    signals: &Signals,
) -> Result<Study, Failure> {
    let (Task::Tune(spec) | Task::Join(spec)) = task;
    let threads = working.machine.threads();
    let (precision, said) = precision(spec.config.precision)?;
    let make = |model: ModelConfig, config: &Config, threads: usize| -> MadeEngine {
        let updates = memory_of_updates(&model, config.updating(), threads);
        Ok(Box::new(engine(model, precision, shape(config), threads, updates)?))
    };
    let engines = Engines {
        memory: &|model, config| {
            memory_needed(model, precision, shape(config), threads)
                + memory_of_updates(model, config.updating(), threads)
        },
        available: CpuEngine::memory_available(),
        id: CpuEngine::engine_id(precision)?.to_string(),
        make: &make,
        allow_other: working.allow_other_engine,
        threads,
        // At most 1024: the parser has checked.
        trials_at_once: working.parallel.map(|n| n as usize),
        lease: Duration::from_secs(working.lease),
        wait,
    };
    let (mut timing, mut progress) = (Work::count(), Training::new());
    let mut boards = Boards::new(working.tensorboard.as_deref());
    let mut observe = |event: &StudyEvent<'_>| match event {
        StudyEvent::Memory { engines } => {
            let others = diapason_training::memory_needed(&spec.config, spec.protocol) as u64;
            let counting = Counting::memory(corpus, &spec.config) as u64;
            said.into_iter().for_each(note);
            note(&memory::line(*engines, Some(corpus), others, counting));
        }
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
                begin_page();
            }
        }
        StudyEvent::TrialStarted { number, trials, params, seed } => {
            boards.begin(*number, &Path::new(&params.folder_name()).join(format!("seed-{seed}")));
            let seed = if spec.seeds > 1 || *seed > 0 { format!(" seed={seed}") } else { String::new() };
            progress.begin(*number, format!("trial {}/{trials} {params}{seed}", number + 1));
        }
        StudyEvent::Training { number, event } => {
            boards.event(*number, event);
            progress.event(*number, event, signals);
        }
        StudyEvent::TimeLeft { seconds } => progress.left(*seconds),
        StudyEvent::TrialFinished { number, record } => {
            boards.end(*number);
            progress.end(*number, &finished(*number, *record));
        }
        StudyEvent::TrialPutAside { number, error } => {
            boards.end(*number);
            progress.leave(*number, &format!("{error}; the others go on"));
        }
        StudyEvent::TrialWaits { number, record } => {
            boards.end(*number);
            progress.leave(*number, &waits(*number, record));
        }
        StudyEvent::Over { trials } => progress.over(*trials),
        StudyEvent::Waiting { others } => {
            let trials = if *others == 1 { "trial" } else { "trials" };
            progress.say(&format!("waiting: other workers have {others} {trials}"));
        }
        StudyEvent::Note { text } => progress.say(text),
    };
    let study = match task {
        Task::Tune(spec) => run_study(corpus, spec, home, &engines, signals.graceful(), &mut observe),
        Task::Join(_) => join_study(corpus, home, &engines, signals.graceful(), &mut observe),
    }?;
    progress.finish();
    if study.interrupted {
        return Err(Failure::Interrupted {
            exit_code: signals.exit_code(),
            resume: shell::line(&shell::this_command()),
        });
    }
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

/// How good a model can be at best. Takes a second or so.
pub(crate) fn bounds(corpus: &Corpus, study: &Study) -> Bounds {
    // One floor can stand beside the table only if all its windows have one length.
    let lengths: BTreeSet<usize> = study.cells.iter().map(|cell| cell.config.sequence_length).collect();
    let window_floor = match (corpus.entropy_rate, lengths.first()) {
        (Some(_), Some(&length)) if lengths.len() == 1 => Some(window_floor(length, FLOOR_WINDOWS).mean),
        _ => None,
    };
    Bounds { entropy_rate: corpus.entropy_rate, window_floor, counting: None }
}

/// How good a model should be at least, when all are trained and their engines gone: this takes seconds, and as much memory as one of
/// them.
fn counting(corpus: &Corpus, study: &Study, signals: &Signals) -> Option<Counting> {
    // Where windows or parts of the text differ: the longest windows, the largest part.
    let configs = || study.cells.iter().map(|cell| &cell.config);
    let sequence_length = configs().map(|config| config.sequence_length).max()?;
    let train_fraction = configs().map(|config| config.train_fraction).max_by(f64::total_cmp)?;
    count(corpus, &Config { sequence_length, train_fraction, ..study.spec.config.clone() }, signals)
}

/// What counting comes to where a run of `config` is evaluated; none if it was interrupted.
pub(crate) fn count(corpus: &Corpus, config: &Config, signals: &Signals) -> Option<Counting> {
    let mut work = Work::count();
    let counting = Counting::of(corpus, config, &mut |done, all| {
        work.at("counting n-grams", done, Some(all));
        match signals.graceful().load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    work.finish();
    counting
}

/// `trial 2/4 d_model=64: validation loss 1.7132 at step 1500, 42 s of training`.
fn finished(number: usize, record: Option<&TrialRecord>) -> String {
    let Some(record) = record else {
        return format!("trial {} is with another worker now: left as it is", number + 1);
    };
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
    let verb = match record.state {
        TrialState::Running => "interrupted",
        TrialState::Pruned => "pruned",
        TrialState::Complete | TrialState::Fail => "done",
    };
    format!("trial {} {verb}: {}: {what}", number + 1, record.params)
}

/// `trial 2/4 d_model=64: validation loss 1.7132 at step 222: waits for the others`.
fn waits(number: usize, record: &TrialRecord) -> String {
    let loss = record.last.map_or(f64::NAN, |reading| reading.validation_loss);
    format!(
        "trial {} read: {}: validation loss {loss:.4} at step {}, {} of training: it waits for the comparison",
        number + 1,
        record.params,
        record.steps,
        duration(record.train_seconds)
    )
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
