//! Studies that draw their configurations: the same ones whoever works on them, however often everything is killed.

mod toy;

use diapason_corpus::Corpus;
use diapason_storage::{Distribution, Opening, Page, Storage};
use diapason_study::{
    Cost, Grid, Home, Row, Rule, Search, Study, StudyError, StudyEvent, StudySpec, TrialState, Until,
};
use diapason_training::{Config, Protocol};
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicU64;
use toy::{Hooks, Ran, config, corpus, done, ran, ran_watched, spec, timeless, worked};

const RANGES: [&str; 3] = ["learning_rate=1e-4..1e-1:log", "n_heads=1..8", "n_layers=1..6"];

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// A study that draws, whose costs are the same on every machine.
fn drawn(corpus: &Corpus, sampler: &str, samples: u64, ranges: &[&str], grid: &[&str]) -> StudySpec {
    let ranges = ranges.iter().map(|range| range.parse().expect("a range")).collect();
    let search = Search { sampler: sampler.parse().expect("a sampler"), samples, ranges };
    StudySpec { search: Some(search), cost: Cost::Flop, ..spec(corpus, grid) }
}

fn names(study: &Study) -> Vec<String> {
    study.cells.iter().map(|cell| cell.params.to_string()).collect()
}

fn number(study: &Study, cell: usize, key: &str) -> f64 {
    study.cells[cell].params.text(key).expect("the key").parse().expect("a number")
}

#[test]
fn samples_are_cells_like_any_other() {
    let (corpus, folder) = (corpus(), folder());
    let spec = drawn(&corpus, "random", 6, &RANGES, &["tie_embeddings=true,false"]);
    let study = done(&corpus, &spec, folder.path());
    assert_eq!((study.cells.len(), study.trials.len(), study.samples()), (6, 6, 6));
    assert_eq!(study.keys(), ["tie_embeddings", "learning_rate", "n_heads", "n_layers"]);
    assert_eq!(names(&study).into_iter().collect::<BTreeSet<_>>().len(), 6, "no two are the same");
    for cell in 0..6 {
        // Of 1 to 8 heads, those that divide a width of 8.
        assert!([1.0, 2.0, 4.0, 8.0].contains(&number(&study, cell, "n_heads")));
        assert!((1.0..=6.0).contains(&number(&study, cell, "n_layers")));
        let rate = number(&study, cell, "learning_rate");
        assert!((1e-4..=1e-1).contains(&rate) && format!("{rate:.3e}").parse() == Ok(rate), "{rate}");
        assert_eq!(study.cells[cell].config.learning_rate, rate);
    }
    assert!(study.verdict().is_some() && study.trials.iter().all(|trial| study.is_over(trial)));
    // In Optuna's words: the range, not the values.
    let mut storage = Storage::open(&Home::local(folder.path()).storage, Opening::Read).unwrap();
    let id = storage.studies().unwrap()[0].id;
    for (number, trial) in storage.trials(id, Page::default()).unwrap().iter().enumerate() {
        let of = |name: &str| &trial.distributions.iter().find(|(key, _)| key == name).unwrap().1;
        let rate = Distribution::Float { low: 1e-4, high: 1e-1, log: true, step: None };
        assert_eq!(of("learning_rate"), &rate);
        assert_eq!(of("n_heads"), &Distribution::Int { low: 1, high: 8, log: false, step: 1 });
        assert!(matches!(of("tie_embeddings"), Distribution::Categorical { choices } if choices.len() == 2));
        assert_eq!(trial.system_attributes["diapason:sample"], number);
    }
    // The same draws elsewhere, others with another seed, and more of the same with more samples.
    let elsewhere = self::folder();
    let again = done(&corpus, &spec, elsewhere.path());
    assert!(timeless(&again) == timeless(&study));
    let seeded = drawn(&corpus, "random:seed=1", 6, &RANGES, &["tie_embeddings=true,false"]);
    let other = self::folder();
    assert_ne!(names(&done(&corpus, &seeded, other.path())), names(&study));
    let more = drawn(&corpus, "random", 8, &RANGES, &["tie_embeddings=true,false"]);
    let ran = ran(&corpus, &more, folder.path(), Hooks::default());
    assert_eq!(ran.steps, 80, "two more samples");
    assert_eq!(names(&ran.study.unwrap())[..6], names(&study));
}

fn reference(corpus: &Corpus, spec: &StudySpec) -> (Vec<Row>, Vec<String>) {
    let folder = folder();
    let study = done(corpus, spec, folder.path());
    (timeless(&study), names(&study))
}

#[test]
fn tpe_draws_the_same_for_any_number_of_workers() {
    let corpus = corpus();
    let spec = drawn(&corpus, "tpe:startup=3,round=2", 8, &RANGES, &[]);
    let (rows, names_) = reference(&corpus, &spec);
    assert_eq!(names_.len(), 8);
    let mut notes = Vec::new();
    {
        let folder = folder();
        let ran = ran_watched(&corpus, &spec, folder.path(), Hooks::default(), &mut |event| {
            if let StudyEvent::Note { text } = event {
                notes.push(text.clone());
            }
        });
        assert!(timeless(&ran.study.unwrap()) == rows);
    }
    let by = "drawn by tpe:startup=3,round=2,seed=0 in the light of the first";
    let expected =
        [("4 to 5", 3), ("6 to 7", 5)].map(|(which, first)| format!("samples {which} of 8: {by} {first}"));
    assert_eq!(notes[..2], expected);
    assert_eq!(notes[2], format!("sample 8 of 8: {by} 7"));
    // Without results the first ones are those of random search.
    let (_, random) = reference(&corpus, &drawn(&corpus, "random", 8, &RANGES, &[]));
    assert_eq!(names_[..3], random[..3]);
    assert_ne!(names_[3..], random[3..]);

    for (processes, threads) in [(1, 3), (3, 1)] {
        let folder = folder();
        let runs: Vec<Ran> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..processes)
                .map(|_| {
                    let (corpus, spec, home) = (&corpus, &spec, Home::local(folder.path()));
                    let hooks = Hooks { threads, trials_at_once: Some(threads), ..Hooks::default() };
                    scope.spawn(move || worked(corpus, Some(spec), &home, hooks, &mut |_| {}))
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().expect("no panic")).collect()
        });
        assert_eq!(runs.iter().map(|ran| ran.steps).sum::<u64>(), 320, "nothing is trained twice");
        for ran in runs {
            assert!(timeless(&ran.study.unwrap()) == rows, "{processes} x {threads}");
        }
    }
    for at in [60, 121, 281] {
        let folder = folder();
        let interrupted = Hooks { interrupt_at: AtomicU64::new(at), ..Hooks::default() };
        ran(&corpus, &spec, folder.path(), interrupted).study.unwrap();
        assert!(timeless(&done(&corpus, &spec, folder.path())) == rows, "interrupted at {at}");
    }
    let folder = folder();
    let crashed = AssertUnwindSafe(|| {
        let hooks = Hooks { crash_at: AtomicU64::new(130), ..Hooks::default() };
        ran(&corpus, &spec, folder.path(), hooks).study.map(|_| ())
    });
    assert!(std::panic::catch_unwind(crashed).is_err());
    // A worker that joins draws what is missing.
    let study =
        worked(&corpus, None, &Home::local(folder.path()), Hooks::default(), &mut |_| {}).study.unwrap();
    assert!(timeless(&study) == rows);
    // More samples are the next ones.
    let more = drawn(&corpus, "tpe:startup=3,round=2", 10, &RANGES, &[]);
    let study = done(&corpus, &more, folder.path());
    assert_eq!((names(&study).len(), &names(&study)[..7]), (10, &names_[..7]));
}

#[test]
fn rules_and_seeds_go_with_samples() {
    let corpus = corpus();
    // Halving among all samples of random search, and within each round of tpe.
    for (sampler, rungs) in [("random", 1), ("tpe:startup=4,round=4", 3)] {
        let rule: Rule = "halving:eta=2,first=10".parse().unwrap();
        let spec = StudySpec { rule, ..drawn(&corpus, sampler, 12, &RANGES, &[]) };
        let (rows, _) = reference(&corpus, &spec);
        let folder = folder();
        let hooks = Hooks { threads: 2, trials_at_once: Some(2), ..Hooks::default() };
        let study = ran(&corpus, &spec, folder.path(), hooks).study.unwrap();
        assert!(timeless(&study) == rows, "{sampler}");
        let brackets: BTreeSet<usize> = study.decisions.iter().map(|decision| decision.bracket).collect();
        assert_eq!(brackets.len(), rungs, "{sampler}");
        let pruned = study.trials.iter().filter(|t| t.record.as_ref().unwrap().state == TrialState::Pruned);
        assert!(pruned.count() >= 4, "{sampler}");
        assert_eq!(study.cells.len(), 12);
    }
    // Seeds until it is decided come after the last sample.
    let spec = StudySpec {
        until_decided: Some(3),
        tolerance: 0.002,
        ..drawn(&corpus, "tpe:startup=3,round=2", 5, &RANGES[1..], &[])
    };
    let folder = folder();
    let study = done(&corpus, &spec, folder.path());
    assert_eq!((study.cells.len(), study.samples()), (5, 5));
    assert!(study.trials.len() > 5 && study.trials[5..].iter().all(|trial| trial.seed > 0));
    assert!(matches!(study.until_decided(), Some(Until::Decided | Until::Open(_))));
    assert_eq!(ran(&corpus, &spec, folder.path(), Hooks::default()).steps, 0);
}

#[test]
fn ranges_that_are_used_up_end_the_search() {
    let (corpus, folder) = (corpus(), folder());
    // Four numbers of heads divide a width of 8.
    let spec = drawn(&corpus, "tpe:startup=2,round=3", 9, &["n_heads=1..8"], &[]);
    let study = done(&corpus, &spec, folder.path());
    assert_eq!((study.cells.len(), study.samples()), (4, 4));
    assert!(study.verdict().unwrap().reason.contains("(4 of 9 samples are drawn)"));
    let spec = drawn(&corpus, "random", 5, &["n_heads=1..8"], &[]);
    let error = ran(&corpus, &spec, folder.path(), Hooks::default()).study.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("after 4 of 5 samples, 1000 draws brought no other configuration"), "{text}");
    assert!(error.hint().is_some());
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    let corpus = corpus();
    let base = drawn(&corpus, "tpe", 4, &RANGES, &[]);
    let with = |change: &dyn Fn(&mut StudySpec)| {
        let mut spec = base.clone();
        change(&mut spec);
        spec
    };
    let search = |change: &dyn Fn(&mut Search)| with(&|spec| spec.search.iter_mut().for_each(change));
    for (spec, part) in [
        (search(&|search| search.samples = 0), "samples is 0"),
        (search(&|search| search.ranges.push(search.ranges[0].clone())), "learning_rate has two ranges"),
        (search(&|search| search.ranges.clear()), "there is nothing to draw"),
        (
            with(&|spec| spec.grid = Grid::parse(&["n_heads=1,2"]).unwrap()),
            "n_heads is in the grid and has a range",
        ),
        (with(&|spec| spec.enqueued_only = true), "trials that others enqueue are not drawn"),
        (with(&|spec| spec.config = Config { d_model: 7, n_heads: 1, ..config() }), ""),
        (
            search(&|search| {
                (search.samples, search.ranges) = (20, vec!["n_heads=3..7:step=2".parse().unwrap()])
            }),
            "is not divisible by n_heads",
        ),
    ] {
        let folder = folder();
        match ran(&corpus, &spec, folder.path(), Hooks::default()).study {
            Ok(_) => assert_eq!(part, ""),
            Err(error) => {
                assert!(
                    matches!(error, StudyError::Search { .. }) && error.to_string().contains(part),
                    "{error}"
                );
                assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was written");
            }
        }
    }
    let hyperband =
        StudySpec { rule: "hyperband".parse().unwrap(), ..drawn(&corpus, "tpe", 20, &RANGES, &[]) };
    let error = hyperband.check().unwrap_err();
    assert!(error.to_string().contains("tpe draws them in rounds"), "{error}");
    assert!(StudySpec { protocol: Protocol::AsSeed, ..base.clone() }.check().is_ok());

    // A study keeps its search.
    let folder = folder();
    done(&corpus, &base, folder.path());
    for (spec, part) in [
        (search(&|search| search.samples = 3), "search was 4 samples by tpe:"),
        (
            search(&|search| search.sampler = "random".parse().unwrap()),
            "is 4 samples by random:seed=0 of learning_rate",
        ),
        (with(&|spec| spec.search = None), "is none"),
        (search(&|search| search.ranges[1].high = 4.0), "n_heads=1..8"),
        (with(&|spec| spec.grid = Grid::parse(&["batch_size=2,4"]).unwrap()), "grid was , is batch_size=2,4"),
    ] {
        let error = ran(&corpus, &spec, folder.path(), Hooks::default()).study.unwrap_err();
        assert!(matches!(error, StudyError::OtherSettings { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}
