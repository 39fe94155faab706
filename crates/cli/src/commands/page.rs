//! The page of a study, `report.html`, written again while the study runs.
//!
//! A thread of its own reads the study from its database, as any other reader does, and writes the page. Training does
//! not wait for it, and nothing that is shown passes through the observer. Whoever has the page open sees trials
//! end and curves grow. What goes wrong here is left to the end: the page is then written once more, and an error is told.

use super::working::bounds;
use crate::shell;
use diapason_corpus::{AlphabetKind, Corpus};
use diapason_report::{Bounds, Extras, write_page};
use diapason_study::{Cost, Home, Search, Study, StudySpec, UNTIL_SEEDS, value_text};
use diapason_training::{Config, Protocol};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Shortest time between two pages.
const INTERVAL: Duration = Duration::from_secs(10);

/// A page of a large study takes longer: at most one part in so many of the time goes into pages.
const SHARE: u32 = 50;

/// Does `work`, and keeps the study's page up to date from the moment when `work` calls what it is given. Returns with what `work` does
/// what was found out about the text meanwhile.
pub(super) fn kept<T>(
    corpus: &Corpus,
    home: &Home,
    command: Option<&str>,
    work: impl FnOnce(&dyn Fn()) -> T,
) -> (T, Option<Bounds>) {
    let (begin, begun) = channel::<()>();
    thread::scope(|scope| {
        let keeper = thread::Builder::new().name("page".to_string()).spawn_scoped(scope, move || {
            let mut known = None;
            if begun.recv().is_err() {
                return None;
            }
            loop {
                let started = Instant::now();
                write(corpus, home, command, true, known);
                let pause = INTERVAL.max(started.elapsed() * SHARE);
                // Takes a while, and the first page does not wait for it.
                known = known.or_else(|| Some(bounds(corpus, &open(corpus, home)?)));
                if let Err(RecvTimeoutError::Disconnected) = begun.recv_timeout(pause) {
                    break;
                }
            }
            // Whatever ended the work, nobody is at it now.
            write(corpus, home, command, false, known);
            known
        });
        let done = work(&|| {
            let _ = begin.send(());
        });
        drop(begin);
        // Without a thread there is no page before the end.
        let known = keeper.ok().and_then(|keeper| keeper.join().ok().flatten());
        (done, known)
    })
}

/// The command that makes a study, from what is stored of it; none if it does not say how its text was opened. The one
/// that was typed may have had less in it, and may have been typed on another machine.
pub(super) fn command(spec: &StudySpec) -> Option<String> {
    // Every setting is named here, so that one that is added cannot be forgotten.
    let StudySpec {
        name: _,
        seeds,
        protocol,
        early_fraction,
        first_steps,
        budget,
        // What the budget came to on the machine of the study.
        symbols: _,
        ms_per_step: _,
        enqueued_only,
        rule,
        until_decided,
        search,
        tolerance,
        cost,
        corpus,
        ablate,
        grid,
        config,
    } = spec;
    let request = corpus.request.as_ref()?;
    let mut words = vec!["diapason".to_string(), "tune".to_string()];
    words.extend(["--corpus".to_string(), request.corpus.clone()]);
    let mut flag = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            words.extend([name.to_string(), value]);
        }
    };
    flag("--test-corpus", request.test_corpus.as_ref().map(|path| path.display().to_string()));
    flag(
        "--alphabet",
        Some(request.alphabet).filter(|kind| *kind != AlphabetKind::default()).map(|k| k.to_string()),
    );
    flag("--train-chars", request.split.train_chars.map(|n| n.to_string()));
    flag("--validation-chars", request.split.validation_chars.map(|n| n.to_string()));
    flag("--test-chars", request.split.test_chars.map(|n| n.to_string()));
    for axis in grid.axes().iter().filter(|_| !*enqueued_only) {
        flag("--grid", Some(axis.to_string()));
    }
    for axis in ablate.axes() {
        flag("--ablate", Some(axis.to_string()));
    }
    for (key, value, _) in config.differences(&Config::default()) {
        let drawn = search.as_ref().is_some_and(|search| search.ranges.iter().any(|range| range.key == key));
        let set = grid.axis(key).is_none() && !drawn && !(key == "steps" && budget.is_some());
        flag("--set", set.then(|| format!("{key}={}", value_text(&value))));
    }
    if let Some(Search { sampler, samples, ranges }) = search {
        for range in ranges {
            flag("--range", Some(range.to_string()));
        }
        flag("--sampler", Some(sampler.to_string()));
        flag("--samples", Some(samples.to_string()));
    }
    flag("--budget", budget.map(|budget| budget.to_string()));
    flag("--seeds", Some(seeds.to_string()).filter(|_| *seeds > 1 && !*enqueued_only));
    flag("--tolerance", Some(tolerance.to_string()).filter(|_| *tolerance != 0.01));
    flag("--cost", Some(cost.name().to_string()).filter(|_| *cost != Cost::default()));
    flag("--rule", Some(rule.to_string()).filter(|_| !rule.is_none()));
    flag("--max-seeds", until_decided.filter(|most| *most != UNTIL_SEEDS).map(|most| most.to_string()));
    if *protocol == Protocol::Standard {
        // A study that was given more steps later is still read early where it first was.
        let share = match (grid.axis("steps").or(ablate.axis("steps")), budget) {
            (Some(_), _) | (_, Some(_)) => *early_fraction,
            (None, None) => early_fraction * *first_steps as f64 / config.steps.max(1) as f64,
        };
        flag("--early", Some(share.to_string()).filter(|_| share != 0.2));
    }
    let switches = [
        ("--normalize", request.normalize),
        ("--as-seed", *protocol == Protocol::AsSeed),
        ("--enqueued", *enqueued_only),
        ("--until-decided", until_decided.is_some()),
    ];
    words.extend(switches.iter().filter(|(_, on)| *on).map(|(name, _)| name.to_string()));
    Some(shell::line(&words))
}

fn open(corpus: &Corpus, home: &Home) -> Option<Study> {
    Study::open(home, corpus.alphabet.len()).ok()
}

fn write(corpus: &Corpus, home: &Home, command: Option<&str>, running: bool, known: Option<Bounds>) {
    let as_of = Some(SystemTime::now());
    let Some(study) = open(corpus, home) else { return };
    let command = command.map(str::to_string).or_else(|| self::command(&study.spec));
    let extras = Extras { running, as_of, command, ..Extras::default() };
    let _ = write_page(&study, &known.unwrap_or_default(), &home.folder, &extras);
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use diapason_corpus::{CorpusRequest, SplitRequest};
    use diapason_study::{CorpusStamp, Grid, Rule, Sampler};
    use std::collections::BTreeMap;

    #[test]
    fn a_study_says_what_makes_it() {
        let request = CorpusRequest {
            normalize: true,
            alphabet: AlphabetKind::Auto,
            split: SplitRequest { validation_chars: Some(500), ..SplitRequest::default() },
            ..CorpusRequest::new("my book.txt")
        };
        let config = Config { steps: 200, d_model: 64, learning_rate: 3e-4, ..Config::default() };
        let mut spec = StudySpec {
            name: "anything".into(),
            seeds: 3,
            protocol: Protocol::Standard,
            early_fraction: 0.2,
            first_steps: 100,
            budget: None,
            symbols: None,
            ms_per_step: BTreeMap::new(),
            ablate: Grid::default(),
            enqueued_only: false,
            rule: "halving:eta=4".parse().unwrap(),
            until_decided: Some(5),
            search: Some(Search {
                sampler: Sampler::Random { seed: 3 },
                samples: 12,
                ranges: vec!["learning_rate=1e-4..1e-2:log".parse().unwrap()],
            }),
            tolerance: 0.02,
            cost: Cost::Flop,
            corpus: CorpusStamp { name: "b".into(), digest: "d".into(), request: Some(request) },
            grid: Grid::parse(&["d_model=32,64", "n_layers=1,2"]).unwrap(),
            config,
        };
        let line = command(&spec).unwrap();
        assert_eq!(
            line,
            "diapason tune --corpus 'my book.txt' --alphabet auto --validation-chars 500 --grid d_model=32,64 \
             --grid n_layers=1,2 --set steps=200 --range learning_rate=0.0001..0.01:log --sampler random:seed=3 \
             --samples 12 --seeds 3 --tolerance 0.02 --cost flop --rule halving:eta=4 --max-seeds 5 --early 0.1 \
             --normalize --until-decided"
        );
        let typed = line.replace("'my book.txt'", "x");
        crate::args::Cli::try_parse_from(typed.split(' ')).unwrap();
        spec.budget = Some("90s".parse().unwrap());
        (spec.rule, spec.early_fraction) = (Rule::None, 0.3);
        let by_budget = command(&spec).unwrap();
        assert!(
            by_budget.contains(" --budget 90s --seeds 3 ") && by_budget.contains(" --early 0.3 "),
            "{by_budget}"
        );
        assert!(!by_budget.contains("steps"), "{by_budget}");
        crate::args::Cli::try_parse_from(by_budget.replace("'my book.txt'", "x").split(' ')).unwrap();
        (spec.budget, spec.protocol) = (None, Protocol::AsSeed);
        (spec.enqueued_only, spec.search) = (true, None);
        let typed = command(&spec).unwrap().replace("'my book.txt'", "x");
        assert!(
            typed.ends_with(" --as-seed --enqueued --until-decided") && !typed.contains("--early"),
            "{typed}"
        );
        crate::args::Cli::try_parse_from(typed.split(' ')).unwrap();
        spec.enqueued_only = false;
        spec.ablate = Grid::parse(&["norm=rms_norm", "n_heads=2,4"]).unwrap();
        let typed = command(&spec).unwrap().replace("'my book.txt'", "x");
        assert!(
            typed.contains(" --grid n_layers=1,2 --ablate norm=rms_norm --ablate n_heads=2,4 "),
            "{typed}"
        );
        crate::args::Cli::try_parse_from(typed.split(' ')).unwrap();
        spec.corpus.request = None;
        assert_eq!(command(&spec), None);
    }
}
