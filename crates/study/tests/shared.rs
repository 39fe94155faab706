//! Studies that several workers share: every trial is trained once, whoever comes and goes.

mod toy;

use diapason_corpus::Corpus;
use diapason_study::{Grid, Home, Study, StudyError, StudyEvent, StudySpec, TrialState};
use diapason_training::{BEST, CHECKPOINT, Checkpoint, Event};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use toy::{Hooks, OnStep, Ran, corpus, done, ran, spec, text, timeless, worked};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn slow() -> OnStep {
    Box::new(|_, _, _| std::thread::sleep(Duration::from_millis(1)))
}

/// Raises a flag when the test is through, or has failed.
struct Raised(Arc<AtomicBool>);

impl Drop for Raised {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Holds a trial up at its second step until the flag is up.
fn held_up(go_on: &Arc<AtomicBool>) -> Hooks {
    let go_on = Arc::clone(go_on);
    let wait: OnStep = Box::new(move |number, _, _| {
        while number == 2 && !go_on.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    Hooks { on_step: Some(wait), ..Hooks::default() }
}

fn joined(corpus: &Corpus, home: &Home, hooks: Hooks) -> Ran {
    worked(corpus, None, home, hooks, &mut |_| {})
}

/// Notes of a run, its trials' included.
fn notes(corpus: &Corpus, spec: Option<&StudySpec>, home: &Home, hooks: Hooks) -> (Ran, Vec<String>) {
    let notes = Mutex::new(Vec::new());
    let ran = worked(corpus, spec, home, hooks, &mut |event| match event {
        StudyEvent::Training { event: Event::Note(text), .. } => notes.lock().unwrap().push(text.clone()),
        StudyEvent::Note { text } => notes.lock().unwrap().push(text.clone()),
        StudyEvent::Waiting { others } => notes.lock().unwrap().push(format!("waiting for {others}")),
        _ => {}
    });
    (ran, notes.into_inner().unwrap())
}

fn states(study: &Study) -> Vec<Option<TrialState>> {
    study.trials.iter().map(|trial| trial.record.as_ref().map(|record| record.state)).collect()
}

#[test]
fn workers_share_a_study_and_do_nothing_twice() {
    let corpus = corpus();
    let spec = StudySpec { seeds: 2, ..spec(&corpus, &["n_heads=2,4", "n_layers=1,2"]) };
    let whole = {
        let folder = folder();
        timeless(&done(&corpus, &spec, folder.path()))
    };
    let folder = folder();
    // Begun at the same moment by three, two of which are told what it is.
    let runs: Vec<Ran> = std::thread::scope(|scope| {
        let tune = |threads| {
            let (corpus, spec, home) = (&corpus, &spec, Home::local(folder.path()));
            let hooks =
                Hooks { threads, trials_at_once: Some(threads), on_step: Some(slow()), ..Hooks::default() };
            scope.spawn(move || worked(corpus, Some(spec), &home, hooks, &mut |_| {}))
        };
        let both = [tune(1), tune(2)];
        let third = {
            let (corpus, home) = (&corpus, Home::local(folder.path()));
            scope.spawn(move || {
                loop {
                    // Until somebody has begun it.
                    let ran = joined(corpus, &home, Hooks { on_step: Some(slow()), ..Hooks::default() });
                    if !matches!(ran.study, Err(StudyError::NoStudy { .. })) {
                        return ran;
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
            })
        };
        both.into_iter().chain([third]).map(|run| run.join().expect("no panic")).collect()
    });
    let mut started: Vec<usize> = runs.iter().flat_map(|ran| ran.started.clone()).collect();
    started.sort_unstable();
    assert_eq!(started, (0..8).collect::<Vec<_>>(), "each trial once");
    assert_eq!(runs.iter().map(|ran| ran.steps).sum::<u64>(), 8 * 40);
    // All of them wait for the others, and see the same study in the end.
    for ran in runs {
        let study = ran.study.unwrap();
        assert!(!study.interrupted);
        assert!(timeless(&study) == whole, "{:?}", states(&study));
    }
}

#[test]
fn a_worker_that_waits_for_nobody_leaves() {
    let (corpus, folder) = (corpus(), folder());
    let spec = spec(&corpus, &["n_heads=2,4"]);
    let home = Home::local(folder.path());
    let error = joined(&corpus, &home, Hooks::default()).study.unwrap_err();
    assert!(matches!(error, StudyError::NoStudy { .. }) && error.hint().is_some(), "{error}");

    let go_on = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let raised = Raised(Arc::clone(&go_on));
        let first = scope.spawn(|| ran(&corpus, &spec, folder.path(), held_up(&go_on)));
        // Once the first has its trial, the second is to be had.
        while !folder.path().join("trials/n_heads=2/seed-0").join(CHECKPOINT).exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let second = joined(&corpus, &home, Hooks { no_wait: true, ..Hooks::default() });
        assert_eq!((second.started.as_slice(), second.steps), (&[1][..], 40));
        // What the first has to say of its trial may still be on its way to the database.
        let seen = states(&second.study.unwrap());
        assert!(
            matches!(seen[..], [None | Some(TrialState::Running), Some(TrialState::Complete)]),
            "{seen:?}"
        );
        drop(raised);
        let first = first.join().unwrap();
        assert_eq!(first.started, [0]);
        assert_eq!(states(&first.study.unwrap()), [Some(TrialState::Complete); 2]);
    });
    let other = text(3_001);
    let error = joined(&other, &home, Hooks::default()).study.unwrap_err().to_string();
    assert!(error.contains("corpus was toy (sha256:"), "{error}");
}

#[test]
fn without_its_checkpoint_a_trial_begins_again() {
    let corpus = corpus();
    let spec = spec(&corpus, &["n_heads=2"]);
    let (here, there) = (folder(), folder());
    ran(&corpus, &spec, here.path(), Hooks { interrupt_at: 20.into(), ..Hooks::default() }).study.unwrap();
    // The database is shared, the folder is not.
    let home = Home { folder: there.path().to_path_buf(), ..Home::local(here.path()) };
    let (ran, notes) = notes(&corpus, None, &home, Hooks::default());
    assert_eq!(ran.steps, 40);
    assert!(notes.iter().any(|note| note.contains("checkpoint of step 20 is not in")), "{notes:?}");
    let whole = folder();
    assert_eq!(timeless(&ran.study.unwrap()), timeless(&done(&corpus, &spec, whole.path())));
    assert!(there.path().join("trials/n_heads=2/seed-0").join(BEST).exists());
}

#[test]
fn another_arithmetic_is_refused_or_marked() {
    let (corpus, folder) = (corpus(), folder());
    let spec = spec(&corpus, &["n_heads=2,4"]);
    ran(&corpus, &spec, folder.path(), Hooks { interrupt_at: 20.into(), ..Hooks::default() }).study.unwrap();
    // What nobody has begun it may do; the other trial it may not.
    let other = || Hooks { other_engine: true, ..Hooks::default() };
    let refused = ran(&corpus, &spec, folder.path(), other());
    assert_eq!((refused.started.as_slice(), refused.steps), (&[1][..], 40));
    let error = refused.study.unwrap_err();
    assert!(matches!(error, StudyError::OtherEngine { trials: 1, .. }), "{error}");
    assert!(error.hint().unwrap().contains("--allow-other-engine"));
    let study = ran(&corpus, &spec, folder.path(), Hooks { allow_other: true, ..other() }).study.unwrap();
    let rows = study.rows();
    assert_eq!(
        (rows[1].engine.as_deref(), rows[1].other_engines.as_slice()),
        (Some("diapason-1/toy/f32"), &["diapason-0/toy/f32".to_string()][..])
    );
    assert!(rows[3].other_engines.is_empty());
}

#[test]
fn a_grid_that_grows_while_it_is_worked_on_is_finished_by_whoever_is_there() {
    let (corpus, folder) = (corpus(), folder());
    let small = spec(&corpus, &["n_heads=2"]);
    let large = StudySpec { grid: Grid::parse(&["n_heads=2,4,8"]).unwrap(), ..small.clone() };
    let (path, corpus) = (folder.path(), &corpus);
    let go_on = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let raised = Raised(Arc::clone(&go_on));
        let worker = scope.spawn(|| ran(corpus, &small, path, held_up(&go_on)));
        while !path.join("trials/n_heads=2/seed-0").join(CHECKPOINT).exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Enqueued, and left at once.
        let hooks = Hooks { interrupt_at: 1.into(), ..Hooks::default() };
        let grown = ran(corpus, &large, path, hooks).study.unwrap();
        assert_eq!(grown.trials.len(), 3);
        drop(raised);
        let worker = worker.join().unwrap();
        assert_eq!(worker.started.len(), 3, "{:?}", worker.started);
        assert_eq!(states(&worker.study.unwrap()), [Some(TrialState::Complete); 3]);
    });
    let whole = tempfile::tempdir().unwrap();
    let study = Study::open(&Home::local(path), 4).unwrap();
    assert_eq!(timeless(&study), timeless(&done(corpus, &large, whole.path())));
    let bits = |folder: &Path, heads: u32| {
        let best = folder.join(format!("trials/n_heads={heads}/seed-0")).join(BEST);
        Checkpoint::read(&best).unwrap().parameters.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    };
    for heads in [2, 4, 8] {
        assert_eq!(bits(path, heads), bits(whole.path(), heads));
    }
    assert_eq!(fs::read_dir(path.join("trials")).unwrap().count(), 3);
}
