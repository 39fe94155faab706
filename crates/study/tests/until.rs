//! Studies that go on until the verdict is decided: which seeds come next depends on results alone.

mod toy;

use diapason_corpus::Corpus;
use diapason_study::{
    Certainty, Cost, Home, Pass, Row, Study, StudyError, StudyEvent, StudySpec, TrialState, Until,
};
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use toy::{Hooks, Ran, TOO_FAST, config, corpus, done, ran, ran_watched, spec, timeless, worked};

const GRID: [&str; 2] = ["n_heads=1,8", "n_layers=1,2"];

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// A study with one seed that goes on, and whose costs are the same on every machine.
fn until(corpus: &Corpus, grid: &[&str], tolerance: f64, most: u64) -> StudySpec {
    StudySpec { until_decided: Some(most), cost: Cost::Parameters, tolerance, ..spec(corpus, grid) }
}

/// Seeds of each cell.
fn seeds(study: &Study) -> Vec<Vec<u64>> {
    let of = |cell| study.trials.iter().filter(move |trial| trial.cell == cell).map(|trial| trial.seed);
    (0..study.cells.len()).map(|cell| of(cell).collect()).collect()
}

/// What the study says is missing, as (cell, seed), and the notes on the way.
fn run_noting(corpus: &Corpus, spec: &StudySpec, folder: &Path) -> (Ran, Vec<String>) {
    let mut notes = Vec::new();
    let ran = ran_watched(corpus, spec, folder, Hooks::default(), &mut |event| {
        if let StudyEvent::Note { text } = event {
            notes.push(text.clone());
        }
    });
    (ran, notes)
}

#[test]
fn what_is_missing_is_trained_and_nothing_else() {
    let (corpus, folder) = (corpus(), folder());
    let spec = until(&corpus, &GRID, 0.002, 8);
    // As it stands with one seed.
    let first = done(&corpus, &StudySpec { until_decided: None, ..spec.clone() }, folder.path());
    assert_eq!(first.until_decided(), None);
    let decision = first.decision(Pass::Full).unwrap();
    let weighed = decision.grounds.unwrap().weighed;
    assert_eq!(weighed.certainty, Certainty::OneSeed);
    let missing = weighed.missing.unwrap().candidates;
    assert!(missing.len() < 4, "some configuration is out of the question: {missing:?}");

    let (ran, notes) = run_noting(&corpus, &spec, folder.path());
    let study = ran.study.unwrap();
    let certainty = first.verdict().unwrap().certainty_text;
    assert_eq!(notes[0], format!("{certainty}: {} more trials", missing.len()));
    let seeds = seeds(&study);
    for cell in 0..4 {
        let more = seeds[cell].len() - 1;
        assert_eq!(more > 0, missing.contains(&cell), "{seeds:?}");
        assert_eq!(seeds[cell], (0..=more as u64).collect::<Vec<_>>());
    }
    assert_eq!(ran.steps, 40 * (study.trials.len() as u64 - 4), "nothing is trained again");
    assert_eq!(study.until_decided(), Some(Until::Decided));
    let verdict = study.verdict().unwrap();
    assert_eq!((verdict.certainty, verdict.certainty_text.as_str()), (Some(Certainty::Decided), "decided"));

    // There is nothing more to do, for this command and for the one without.
    for again in [spec.clone(), StudySpec { until_decided: None, ..spec.clone() }] {
        let ran = self::ran(&corpus, &again, folder.path(), Hooks::default());
        assert_eq!((ran.steps, timeless(&ran.study.unwrap())), (0, timeless(&study)));
    }
    // Seeds for all take in those that are there.
    let ran = self::ran(&corpus, &StudySpec { seeds: 2, ..spec }, folder.path(), Hooks::default());
    assert_eq!(ran.steps, 40 * (4 - missing.len() as u64));
    let all = ran.study.unwrap();
    assert!((0..4).all(|cell| self::seeds(&all)[cell].len() >= 2));
    let found = |study: &Study| -> BTreeMap<String, Row> {
        let rows = timeless(study).into_iter();
        rows.map(|row| (format!("{} {} {}", row.params, row.seed, row.pass), row)).collect()
    };
    for (name, row) in found(&study) {
        assert_eq!(found(&all)[&name], row);
    }
}

#[test]
fn the_same_seeds_whoever_trains_and_whatever_is_killed() {
    let corpus = corpus();
    let spec = until(&corpus, &GRID, 0.002, 8);
    let reference = {
        let folder = folder();
        timeless(&done(&corpus, &spec, folder.path()))
    };
    let steps = 20 * reference.len() as u64;
    for (processes, threads) in [(1, 2), (3, 1)] {
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
        assert_eq!(runs.iter().map(|ran| ran.steps).sum::<u64>(), steps, "nothing is trained twice");
        for ran in runs {
            assert!(timeless(&ran.study.unwrap()) == reference, "{processes} x {threads}");
        }
    }
    for at in [7, 160, 190] {
        let folder = folder();
        let interrupted = Hooks { interrupt_at: AtomicU64::new(at), ..Hooks::default() };
        ran(&corpus, &spec, folder.path(), interrupted).study.unwrap();
        assert!(timeless(&done(&corpus, &spec, folder.path())) == reference, "interrupted at {at}");
    }
    for at in [160, 175] {
        let folder = folder();
        let crashed = AssertUnwindSafe(|| {
            let hooks = Hooks { crash_at: AtomicU64::new(at), ..Hooks::default() };
            ran(&corpus, &spec, folder.path(), hooks).study.map(|_| ())
        });
        assert!(std::panic::catch_unwind(crashed).is_err());
        // A worker that joins does the rest.
        let home = Home::local(folder.path());
        let study = worked(&corpus, None, &home, Hooks::default(), &mut |_| {}).study.unwrap();
        assert!(timeless(&study) == reference, "crashed at {at}");
    }
}

#[test]
fn what_seeds_cannot_decide_is_said() {
    let corpus = corpus();
    let open = |spec: &StudySpec| {
        let folder = folder();
        let (ran, notes) = run_noting(&corpus, spec, folder.path());
        let study = ran.study.unwrap();
        let Some(Until::Open(why)) = study.until_decided() else { panic!("{:?}", study.until_decided()) };
        assert_eq!(notes.last().unwrap(), &format!("no more seeds: {why}"));
        (study, why)
    };
    // Too little text.
    let (study, why) = open(&until(&corpus, &GRID, 0.001, 8));
    assert!(why.contains("more validation text for") && why.contains("seeds alone are not enough"), "{why}");
    assert!(study.several_seeds());
    // One configuration is left.
    let rates = format!("learning_rate=0.001,{TOO_FAST}");
    let (study, why) = open(&until(&corpus, &[&rates], 0.002, 8));
    assert!(why.contains("came to their end, and there is one"), "{why}");
    assert_eq!(seeds(&study), [[0], [0]], "no other seed would say more");
    // None is left.
    let (_, why) = open(&until(&corpus, &[&format!("learning_rate={TOO_FAST}")], 0.002, 8));
    assert_eq!(why, "no configuration has a result");
    // A bound that is no bound.
    let folder = folder();
    let error =
        ran(&corpus, &until(&corpus, &GRID, 0.002, 1), folder.path(), Hooks::default()).study.unwrap_err();
    assert!(matches!(error, StudyError::OutOfRange { key: "until_decided", .. }), "{error}");
}

#[test]
fn a_seed_that_diverges_takes_its_configuration_out() {
    let (corpus, folder) = (corpus(), folder());
    let spec = until(&corpus, &["n_heads=1,2,4"], 0.002, 4);
    let first = done(&corpus, &StudySpec { until_decided: None, ..spec.clone() }, folder.path());
    // From here on a model with two heads finds no engine.
    let hooks = Hooks { no_engine: 1, ..Hooks::default() };
    let study = ran(&corpus, &spec, folder.path(), hooks).study.unwrap();
    assert!(study.trials.len() > first.trials.len());
    let failed = study.trials.iter().filter(|t| t.record.as_ref().unwrap().state == TrialState::Fail);
    assert_eq!(failed.count(), study.trials.len() - first.trials.len());
    let Some(Until::Open(why)) = study.until_decided() else { panic!("{:?}", study.until_decided()) };
    assert!(why == "no configuration has a result" || why.contains("a comparison needs two"), "{why}");
    // What failed by something that has been mended is tried again, and then the study comes to its end.
    let study = done(&corpus, &spec, folder.path());
    assert_eq!(study.until_decided(), Some(Until::Decided));
}

#[test]
fn survivors_of_rungs_get_more_seeds() {
    let (corpus, folder) = (corpus(), folder());
    let rule = "halving:eta=2,first=20".parse().unwrap();
    let spec = StudySpec { rule, ..until(&corpus, &GRID, 0.002, 3) };
    let study = done(&corpus, &spec, folder.path());
    let dropped = study.trials.iter().filter(|t| t.record.as_ref().unwrap().state == TrialState::Pruned);
    assert!(dropped.clone().count() >= 2);
    assert!(dropped.clone().all(|trial| trial.seed == 0));
    let more: Vec<_> = study.trials.iter().filter(|trial| trial.seed > 0).collect();
    assert!(!more.is_empty());
    for trial in more {
        assert_eq!((trial.bracket, trial.record.as_ref().unwrap().steps), (None, config().steps));
    }
    assert!(matches!(study.until_decided(), Some(Until::Decided | Until::Open(_))));
    assert_eq!(ran(&corpus, &spec, folder.path(), Hooks::default()).steps, 0);
}
