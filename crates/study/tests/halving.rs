//! Studies whose trials are compared on the way: the same decisions whoever makes them, however often everything is
//! killed, and survivors that are what they would have been without rungs.

mod toy;

use diapason_corpus::Corpus;
use diapason_study::{
    Cost, Grid, Home, Pass, RungDecision, Study, StudyError, StudyEvent, StudySpec, TrialRecord, TrialState,
};
use diapason_training::{BEST, CHECKPOINT, Checkpoint, Config, Protocol};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use toy::{Hooks, Ran, TOO_FAST, config, corpus, done, ran, ran_watched, spec, timeless, worked};

const GRID: [&str; 2] = ["n_heads=2,4", "n_layers=1,2"];

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// A study with a rule, whose costs are the same on every machine.
fn ruled(corpus: &Corpus, grid: &[&str], rule: &str) -> StudySpec {
    StudySpec { rule: rule.parse().expect("a rule"), cost: Cost::Flop, ..spec(corpus, grid) }
}

fn bits(path: &Path) -> Vec<u32> {
    Checkpoint::read(path).expect("weights").parameters.iter().map(|x| x.to_bits()).collect()
}

fn states(study: &Study) -> Vec<TrialState> {
    study.trials.iter().map(|trial| trial.record.as_ref().expect("it has begun").state).collect()
}

fn steps(study: &Study) -> Vec<u64> {
    study.trials.iter().map(|trial| trial.record.as_ref().map_or(0, |record| record.steps)).collect()
}

/// Cells that went on from each rung.
fn kept(decisions: &[RungDecision]) -> Vec<(u64, usize, usize)> {
    decisions.iter().map(|d| (d.step, d.candidates.len(), d.kept())).collect()
}

#[test]
fn a_third_goes_on_and_survivors_are_what_they_would_have_been() {
    let (corpus, folder, exhaustive) = (corpus(), folder(), folder());
    let spec = ruled(&corpus, &GRID, "halving:eta=3");
    let mut notes = Vec::new();
    let ran = ran_watched(&corpus, &spec, folder.path(), Hooks::default(), &mut |event| match event {
        StudyEvent::Note { text } => notes.push(text.clone()),
        StudyEvent::Planned { work, .. } => {
            // What the ladder drops at least is known from the beginning.
            let steps: u64 = work.iter().map(|work| work.steps).sum();
            assert!((88..=92).contains(&steps), "{work:?}");
        }
        _ => {}
    });
    let study = ran.study.unwrap();
    let whole = done(&corpus, &StudySpec { rule: "none".parse().unwrap(), ..spec }, exhaustive.path());

    assert_eq!(kept(&study.decisions), [(5, 4, 2), (10, 2, study.decisions[1].kept())]);
    assert!(ran.steps <= 90, "{} of 160", ran.steps);
    assert_eq!(ran.steps, steps(&study).iter().sum::<u64>());
    let complete = states(&study).iter().filter(|state| **state == TrialState::Complete).count();
    assert_eq!(complete, study.decisions[1].kept());
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert_eq!(
        notes[0],
        "rule halving:eta=3: 4 configurations are compared at steps 5 and 10 of 40; \
         about 56 % of the training that all to the end would take"
    );
    assert!(notes[1].starts_with("rung at step 5: 2 of 4 configurations go on to step 10: "), "{notes:?}");

    for (trial, other) in study.trials.iter().zip(&whole.trials) {
        let (record, other_record) = (trial.record.as_ref().unwrap(), other.record.as_ref().unwrap());
        match record.state {
            TrialState::Complete => {
                let read = |record: &TrialRecord| {
                    [record.best, record.last]
                        .map(|reading| reading.map(|r| (r.step, r.validation_loss.to_bits())))
                };
                assert_eq!(read(record), read(other_record));
                for file in [BEST, CHECKPOINT] {
                    let of = |root: &Path| bits(&root.join(&trial.folder).join(file));
                    assert!(of(folder.path()) == of(exhaustive.path()), "{file}");
                }
                assert_eq!(study.dropped(trial), None);
            }
            TrialState::Pruned => {
                assert!([5, 10].contains(&record.steps));
                let why = study.dropped(trial).unwrap();
                assert!(why.starts_with(&format!("dropped at step {}: ", record.steps)), "{why}");
                assert!(why.ends_with(" above the best loss"), "{why}");
            }
            state => panic!("{state:?}"),
        }
    }
    // The same choice, and what it took.
    let (verdict, of_whole) = (study.verdict().unwrap(), whole.verdict().unwrap());
    assert_eq!(verdict.chosen, of_whole.chosen);
    assert!(verdict.reason.contains("(rule halving:eta=3: "), "{}", verdict.reason);
    assert!(!of_whole.reason.contains("rule"), "{}", of_whole.reason);
    let share = study.trained_share().unwrap();
    assert!((0.25..=0.6).contains(&share), "{share}");
    assert_eq!(whole.trained_share(), Some(1.0));
    // Tables say what became of whom.
    let rows = study.rows();
    let dropped: Vec<_> =
        rows.iter().filter(|row| row.pass == Pass::Full && row.state == TrialState::Pruned).collect();
    assert!(dropped.iter().all(|row| row.read_at == Some(row.steps) && row.error.is_some()));
    let readings = study.readings(Pass::Full);
    for (reading, state) in readings.iter().zip(states(&study)) {
        assert_eq!(reading.dropped.is_some(), state == TrialState::Pruned);
        assert_eq!(reading.left_out.is_some(), state == TrialState::Pruned);
    }
}

/// Rows and decisions of a study with two seeds, worked on by one.
fn reference(corpus: &Corpus, spec: &StudySpec) -> (Vec<diapason_study::Row>, Vec<RungDecision>) {
    let folder = folder();
    let study = done(corpus, spec, folder.path());
    (timeless(&study), study.decisions)
}

#[test]
fn decisions_do_not_depend_on_who_makes_them() {
    let corpus = corpus();
    let spec = StudySpec { seeds: 2, ..ruled(&corpus, &["n_heads=1,2,4", "n_layers=1,2"], "halving:eta=2") };
    let (rows, decisions) = reference(&corpus, &spec);
    assert_eq!(kept(&decisions), [(5, 6, 3), (10, 3, 2), (15, 2, 2)]);
    // The seeds of a configuration go on, or are dropped, together.
    for decision in &decisions {
        assert!(decision.candidates.iter().all(|candidate| candidate.losses.len() == 2));
    }
    for (processes, threads) in [(1, 3), (2, 1), (3, 2)] {
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
        let all: u64 = runs.iter().map(|ran| ran.steps).sum();
        for ran in runs {
            let study = ran.study.unwrap();
            assert!(study.decisions == decisions, "{processes} x {threads}: {:?}", study.decisions);
            assert!(timeless(&study) == rows, "{processes} x {threads}");
            assert_eq!(all, steps(&study).iter().sum::<u64>(), "nothing is trained twice");
        }
    }
}

#[test]
fn interrupted_and_crashed_anywhere_the_decisions_are_the_same() {
    let corpus = corpus();
    let spec = ruled(&corpus, &GRID, "halving:eta=3");
    let (rows, decisions) = reference(&corpus, &spec);
    for at in [1, 4, 5, 6, 15, 19, 20, 21, 29, 30, 31, 40, 41, 50, 64] {
        let folder = folder();
        let interrupted = Hooks { interrupt_at: AtomicU64::new(at), ..Hooks::default() };
        ran(&corpus, &spec, folder.path(), interrupted).study.unwrap();
        let study = done(&corpus, &spec, folder.path());
        assert!(study.decisions == decisions && timeless(&study) == rows, "interrupted at {at}");
    }
    for at in [3, 5, 20, 33] {
        let folder = folder();
        // Twice, as a machine does that is not well.
        for _ in 0..2 {
            let crashed = AssertUnwindSafe(|| {
                let hooks = Hooks { crash_at: AtomicU64::new(at), ..Hooks::default() };
                ran(&corpus, &spec, folder.path(), hooks).study.map(|_| ())
            });
            _ = std::panic::catch_unwind(crashed);
        }
        let study = done(&corpus, &spec, folder.path());
        assert!(study.decisions == decisions && timeless(&study) == rows, "crashed at {at}");
    }
}

#[test]
fn nothing_is_decided_without_a_trial_whose_files_are_damaged() {
    let corpus = corpus();
    let spec = ruled(&corpus, &GRID, "halving:eta=3");
    let (rows, decisions) = reference(&corpus, &spec);
    let folder = folder();
    let interrupted = Hooks { interrupt_at: AtomicU64::new(3), ..Hooks::default() };
    ran(&corpus, &spec, folder.path(), interrupted).study.unwrap();
    let checkpoint = folder.path().join("trials/n_heads=2,n_layers=1/seed-0").join(CHECKPOINT);
    let bytes = std::fs::read(&checkpoint).unwrap();
    std::fs::write(&checkpoint, &bytes[..bytes.len() - 1]).unwrap();
    let broken = ran(&corpus, &spec, folder.path(), Hooks::default());
    assert!(matches!(broken.study, Err(StudyError::Trial { number: 0, .. })), "{:?}", broken.study);
    assert_eq!(broken.steps, 3 * decisions[0].step, "the others wait for it at the first rung");
    std::fs::write(&checkpoint, &bytes).unwrap();
    let study = done(&corpus, &spec, folder.path());
    assert!(study.decisions == decisions && timeless(&study) == rows);
}

#[test]
fn who_fails_is_dropped_with_all_seeds_and_not_tried_again() {
    let (corpus, folder) = (corpus(), folder());
    let rates = format!("learning_rate=0.001,{TOO_FAST}");
    let spec = StudySpec { seeds: 2, ..ruled(&corpus, &["n_heads=2,4", "n_layers=1,2", &rates], "halving") };
    let study = done(&corpus, &spec, folder.path());
    assert_eq!(kept(&study.decisions)[0], (5, 8, 4), "the places of the failed go to others");
    let failed = states(&study).iter().filter(|state| **state == TrialState::Fail).count();
    assert_eq!(failed, 8);
    let fates = &study.decisions[0].candidates;
    let why = fates.iter().filter(|fate| fate.loss.is_none()).map(|fate| fate.why.as_str());
    assert!(why.clone().all(|why| why.contains("diverged at step 3")), "{:?}", why.collect::<Vec<_>>());

    // No engine for two layers: tried again, then left; afterwards there is one, but the rung has been decided.
    let folder = self::folder();
    let spec = ruled(&corpus, &GRID, "halving");
    let hooks = Hooks { no_engine: 2, ..Hooks::default() };
    let study = ran(&corpus, &spec, folder.path(), hooks).study.unwrap();
    use TrialState::{Complete, Fail};
    assert_eq!(states(&study).iter().filter(|state| **state == Fail).count(), 2);
    let again = ran(&corpus, &spec, folder.path(), Hooks::default());
    assert_eq!(again.steps, 0);
    assert!(states(&again.study.unwrap()).contains(&Complete));
}

#[test]
fn a_study_with_rungs_stays_as_it_is() {
    let (corpus, folder) = (corpus(), folder());
    let spec = ruled(&corpus, &GRID, "halving:eta=3");
    done(&corpus, &spec, folder.path());
    let refused = |other: StudySpec| {
        let error = ran(&corpus, &other, folder.path(), Hooks::default()).study.unwrap_err();
        assert!(matches!(error, StudyError::OtherSettings { .. }), "{error}");
        error.to_string()
    };
    let text = refused(StudySpec { config: Config { steps: 80, ..config() }, ..spec.clone() });
    assert!(text.contains("steps was 40, is 80 (a study with rungs keeps its steps)"), "{text}");
    let text = refused(StudySpec { seeds: 2, ..spec.clone() });
    assert!(text.contains("seeds was 1, is 2 (a study with rungs keeps"), "{text}");
    let more = Grid::parse(&["n_heads=1,2,4", "n_layers=1,2"]).unwrap();
    let text = refused(StudySpec { grid: more, ..spec.clone() });
    assert!(text.contains("n_heads was 2,4, is 1,2,4"), "{text}");
    let text = refused(StudySpec { rule: "none".parse().unwrap(), ..spec.clone() });
    assert!(text.contains("rule was halving:eta=3, is none"), "{text}");
    let text = refused(StudySpec { tolerance: 0.02, cost: Cost::Parameters, ..spec.clone() });
    assert!(text.contains("tolerance was 0.01, is 0.02") && text.contains("cost was flop"), "{text}");
    assert_eq!(ran(&corpus, &spec, folder.path(), Hooks::default()).steps, 0);
}

#[test]
fn rules_that_a_study_cannot_have() {
    let corpus = corpus();
    let base = ruled(&corpus, &GRID, "halving");
    let with = |rule: &str| StudySpec { rule: rule.parse().unwrap(), ..base.clone() };
    for (spec, part) in [
        (with("patience:5"), "patience is a key of the configuration"),
        (with("as-seed"), "a protocol of its own"),
        (StudySpec { protocol: Protocol::AsSeed, ..base.clone() }, "evaluates each trial on other windows"),
        (ruled(&corpus, &["steps=40,80"], "halving"), "where steps varies"),
        (ruled(&corpus, &["eval_every=5,10"], "hyperband"), "where eval_every varies"),
        (StudySpec { enqueued_only: true, ..base.clone() }, "trials that others enqueue"),
        (with("halving:first=40"), "leave no room for a rung"),
    ] {
        let folder = folder();
        let error = ran(&corpus, &spec, folder.path(), Hooks::default()).study.unwrap_err();
        assert!(error.to_string().contains(part) && error.hint().is_some(), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was written");
    }
}

#[test]
fn asynchronous_halving_comes_to_an_end() {
    let corpus = corpus();
    let spec = ruled(&corpus, &["n_heads=1,2,4", "n_layers=1,2,3"], "halving:eta=3,asynchronous");
    for threads in [1, 3] {
        let folder = folder();
        let hooks = Hooks { threads, trials_at_once: Some(threads), ..Hooks::default() };
        let study = ran(&corpus, &spec, folder.path(), hooks).study.unwrap();
        let states = states(&study);
        assert!(states.iter().all(|state| matches!(state, TrialState::Complete | TrialState::Pruned)));
        assert!(states.contains(&TrialState::Complete) && states.contains(&TrialState::Pruned));
        assert_eq!(study.decisions.len(), 2, "in the end every rung is decided");
        assert!(study.trained_share().unwrap() < 0.7);
    }
}

#[test]
fn hyperband_compares_in_brackets() {
    let corpus = corpus();
    let spec = ruled(&corpus, &["n_heads=1,2,4,8", "n_layers=1,2,3"], "hyperband:eta=3");
    let (rows, decisions) = reference(&corpus, &spec);
    let brackets: Vec<(usize, u64)> = decisions.iter().map(|d| (d.bracket, d.step)).collect();
    assert_eq!(brackets, [(0, 5), (0, 15), (1, 15)]);
    let folder = folder();
    let hooks = Hooks { threads: 2, trials_at_once: Some(2), ..Hooks::default() };
    let study = ran(&corpus, &spec, folder.path(), hooks).study.unwrap();
    assert!(study.decisions == decisions && timeless(&study) == rows);
    // The last bracket compares nothing on the way.
    let whole = study.trials.iter().filter(|trial| trial.bracket == Some(2));
    assert!(whole.clone().count() >= 2 && whole.clone().all(|t| t.record.as_ref().unwrap().steps == 40));
}

#[test]
fn the_median_rule_ends_trials_and_says_why() {
    let corpus = corpus();
    let spec = ruled(&corpus, &["n_heads=1,2,4", "n_layers=1,2"], "median:startup=2,warmup=0");
    let (rows, _) = reference(&corpus, &spec);
    let folder = folder();
    let study = done(&corpus, &spec, folder.path());
    assert!(timeless(&study) == rows, "one worker: the same each time");
    let states = states(&study);
    assert!(states[..2].iter().all(|state| *state == TrialState::Complete), "the first two are not compared");
    assert!(states.contains(&TrialState::Pruned), "{states:?}");
    for (trial, state) in study.trials.iter().zip(&states) {
        if *state == TrialState::Pruned {
            let (record, why) = (trial.record.as_ref().unwrap(), study.dropped(trial).unwrap());
            assert!(record.steps < 40 && record.steps % 5 == 0 && record.last.unwrap().step == record.steps);
            assert!(why.starts_with(&format!("dropped at step {}: ", record.steps)), "{why}");
            assert!(why.contains(" at best so far, above ") && why.ends_with(" trials there"), "{why}");
        }
    }
    // Nobody looks at them again.
    assert_eq!(ran(&corpus, &spec, folder.path(), Hooks::default()).steps, 0);

    // Interrupted, and gone on with: the same end. 80 steps are those of the first two.
    for at in [81, 85, 90, 95, 101] {
        let folder = self::folder();
        let interrupted = Hooks { interrupt_at: AtomicU64::new(at), ..Hooks::default() };
        ran(&corpus, &spec, folder.path(), interrupted).study.unwrap();
        assert!(timeless(&done(&corpus, &spec, folder.path())) == rows, "interrupted at {at}");
    }
    // In Optuna's words.
    let mut storage =
        diapason_storage::Storage::open(&Home::local(folder.path()).storage, diapason_storage::Opening::Read)
            .unwrap();
    let id = storage.studies().unwrap()[0].id;
    let pruned =
        diapason_storage::Page { state: Some(diapason_storage::TrialState::Pruned), ..Default::default() };
    let pruned = storage.trials(id, pruned).unwrap();
    assert_eq!(pruned.len(), states.iter().filter(|state| **state == TrialState::Pruned).count());
    for trial in pruned {
        assert_eq!(trial.values.len(), 1);
        assert!(trial.user_attributes["prune_reason"].as_str().unwrap().contains("the median of"));
    }
}
