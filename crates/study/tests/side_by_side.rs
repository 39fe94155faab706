//! Trials side by side: nothing but time depends on it, nothing is lost when one of them ends badly, and the
//! study knows what its configurations cost.

mod toy;

use diapason_corpus::Corpus;
use diapason_engine::{CpuEngine, Precision, Shape};
use diapason_model::ModelConfig;
use diapason_study::{
    Cost, Engines, Home, MadeEngine, Pass, Plan, Row, Study, StudyError, StudyEvent, StudySpec, TrialState,
    run_study,
};
use diapason_training::{BEST, CHECKPOINT, Checkpoint, Config};
use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use toy::{Hooks, OnStep, Ran, TOO_FAST, config, corpus, ran, ran_watched, spec, timeless};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn two_threads() -> Hooks {
    Hooks { threads: 2, ..Hooks::default() }
}

fn at_once(trials_at_once: usize) -> Hooks {
    Hooks { trials_at_once: Some(trials_at_once), ..two_threads() }
}

/// A grid of toy trials that take long enough to meet.
fn long(corpus: &Corpus, grid: &[&str], steps: u64) -> StudySpec {
    let config = Config { steps, eval_every: 50, ..config() };
    StudySpec { config, ..spec(corpus, grid) }
}

/// The study on the real engine.
fn on_cpu(
    corpus: &Corpus,
    spec: &StudySpec,
    folder: &Path,
    threads: usize,
    trials_at_once: Option<usize>,
    interrupt: &AtomicBool,
    watch: &mut dyn FnMut(&StudyEvent<'_>),
) -> Study {
    let shape =
        |config: &Config| Shape { batch_size: config.batch_size, sequence_length: config.sequence_length };
    let make = |model: ModelConfig, config: &Config, threads: usize| -> MadeEngine {
        let zeros = vec![0.0; model.parameters()];
        Ok(Box::new(CpuEngine::new(model, &zeros, threads, shape(config))?))
    };
    let engines = Engines {
        memory: &|model, config| {
            diapason_engine::memory_needed(model, Precision::F32, shape(config), threads)
        },
        available: CpuEngine::memory_available(),
        id: CpuEngine::engine_id(Precision::F32).unwrap().to_string(),
        make: &make,
        allow_other: false,
        threads,
        trials_at_once,
        lease: Duration::from_secs(60),
        wait: true,
    };
    run_study(corpus, spec, &Home::local(folder), &engines, interrupt, watch).expect("the study runs")
}

/// Every bit that a study leaves behind, times aside.
fn bits(study: &Study, folder: &Path) -> (Vec<Row>, Vec<Vec<u32>>) {
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let mut weights = Vec::new();
    for trial in &study.trials {
        let last = Checkpoint::read(&folder.join(&trial.folder).join(CHECKPOINT)).unwrap();
        let moments = last.moments.unwrap();
        weights.extend([bits(&last.parameters), bits(&moments.first), bits(&moments.second)]);
        weights.push(bits(&Checkpoint::read(&folder.join(&trial.folder).join(BEST)).unwrap().parameters));
    }
    (timeless(study), weights)
}

#[test]
fn no_bit_depends_on_trials_at_once_threads_or_interruptions() {
    let corpus = corpus();
    let spec = StudySpec {
        seeds: 2,
        config: Config { n_heads: 2, steps: 30, eval_every: 10, batch_size: 6, ..config() },
        ..spec(&corpus, &["n_layers=1,3,2"])
    };
    let never = AtomicBool::new(false);
    let whole = {
        let folder = folder();
        let study = on_cpu(&corpus, &spec, folder.path(), 1, Some(1), &never, &mut |_| {});
        bits(&study, folder.path())
    };
    for threads in 1..=3 {
        for trials_at_once in [None, Some(1), Some(2), Some(3)] {
            let folder = folder();
            // Stopped at the third and at the ninth evaluation, then to the end.
            for stop in [3, 9, usize::MAX] {
                let interrupt = AtomicBool::new(false);
                let mut seen = 0;
                let study = on_cpu(
                    &corpus,
                    &spec,
                    folder.path(),
                    threads,
                    trials_at_once,
                    &interrupt,
                    &mut |event| {
                        if let StudyEvent::Training {
                            event: diapason_training::Event::Evaluated(_), ..
                        } = event
                        {
                            seen += 1;
                            interrupt.fetch_or(seen == stop, Ordering::Relaxed);
                        }
                    },
                );
                if stop == usize::MAX {
                    assert!(!study.interrupted);
                    assert!(bits(&study, folder.path()) == whole, "{threads} {trials_at_once:?}");
                }
            }
        }
    }
}

#[test]
fn interrupted_with_two_at_work_both_go_on() {
    let corpus = corpus();
    let spec = long(&corpus, &["n_heads=2,4", "n_layers=1,2"], 400);
    let whole = {
        let folder = folder();
        timeless(&ran(&corpus, &spec, folder.path(), at_once(1)).study.unwrap())
    };
    for at in [1, 120, 700] {
        let folder = folder();
        let first = ran(&corpus, &spec, folder.path(), Hooks { interrupt_at: at.into(), ..at_once(2) });
        let study = first.study.unwrap();
        assert!(study.interrupted);
        let running =
            study.rows().into_iter().filter(|r| r.pass == Pass::Full && r.state == TrialState::Running);
        assert!((1..=2).contains(&running.count()), "{at}");
        let rest = ran(&corpus, &spec, folder.path(), at_once(3));
        assert_eq!(first.steps + rest.steps, 1600, "{at}: every step is done once");
        assert_eq!(timeless(&rest.study.unwrap()), whole, "{at}");
    }
}

/// Slows down trials with `n_heads` heads, so that others end first; at most some seconds in all.
fn slow(n_heads: usize) -> OnStep {
    Box::new(move |_, model, _| {
        if model.n_heads == n_heads {
            std::thread::sleep(Duration::from_millis(1));
        }
    })
}

#[test]
fn a_crash_in_one_stops_the_other_with_a_checkpoint() {
    let corpus = corpus();
    let spec = long(&corpus, &["n_heads=2,4"], 3000);
    let whole = {
        let folder = folder();
        timeless(&ran(&corpus, &spec, folder.path(), at_once(1)).study.unwrap())
    };
    let folder = folder();
    let crash: OnStep = Box::new(|number, model, _| {
        assert!(model.n_heads != 2 || number != 500, "a crash");
        slow(4)(number, model, 0);
    });
    let hooks = Hooks { on_step: Some(crash), ..at_once(2) };
    let crashed = std::panic::catch_unwind(AssertUnwindSafe(|| ran(&corpus, &spec, folder.path(), hooks)));
    assert!(crashed.is_err());
    let seen = Study::open(&Home::local(folder.path()), 4).unwrap();
    let steps = |number: usize| seen.trials[number].record.as_ref().map(|record| record.steps);
    assert!(steps(0) < Some(500) && steps(1) < Some(3000), "{:?} {:?}", steps(0), steps(1));
    let stopped = Checkpoint::read(&folder.path().join(&seen.trials[1].folder).join(CHECKPOINT)).unwrap();
    assert_eq!(Some(stopped.header.step), steps(1), "the other stopped in order");
    let rest = ran(&corpus, &spec, folder.path(), at_once(2));
    assert_eq!(timeless(&rest.study.unwrap()), whole);
}

#[test]
fn a_trial_that_cannot_write_is_named_and_the_other_stops_with_a_checkpoint() {
    let corpus = corpus();
    let spec = long(&corpus, &["n_heads=2,4"], 3000);
    let whole = {
        let folder = folder();
        timeless(&ran(&corpus, &spec, folder.path(), at_once(1)).study.unwrap())
    };
    let folder = folder();
    let trial = folder.path().join("trials/n_heads=2/seed-0");
    let gone = folder.path().join("gone");
    let (from, to) = (trial.clone(), gone.clone());
    let vanish: OnStep = Box::new(move |number, model, _| {
        if model.n_heads == 2 && number == 70 {
            fs::rename(&from, &to).unwrap();
        }
        slow(4)(number, model, 0);
    });
    let failed = ran(&corpus, &spec, folder.path(), Hooks { on_step: Some(vanish), ..at_once(2) });
    let error = failed.study.unwrap_err();
    assert!(matches!(error, StudyError::Trial { number: 0, .. } | StudyError::Io { .. }), "{error:?}");
    assert!(error.to_string().contains("n_heads=2"), "{error}");
    let seen = Study::open(&Home::local(folder.path()), 4).unwrap();
    let steps = seen.trials[1].record.as_ref().unwrap().steps;
    assert!((1..3000).contains(&steps), "{steps}");
    let stopped = Checkpoint::read(&folder.path().join(&seen.trials[1].folder).join(CHECKPOINT)).unwrap();
    assert_eq!(stopped.header.step, steps);
    // Once the folder is back, both go on.
    let _ = fs::remove_dir_all(&trial);
    fs::rename(&gone, &trial).unwrap();
    assert_eq!(timeless(&ran(&corpus, &spec, folder.path(), at_once(2)).study.unwrap()), whole);
}

#[test]
fn a_trial_that_diverges_or_gets_no_engine_stops_nobody() {
    let corpus = corpus();
    let one = folder();
    let rates = format!("learning_rate=0.001,{TOO_FAST},0.002");
    let diverging = ran(&corpus, &long(&corpus, &[&rates], 200), one.path(), at_once(2)).study.unwrap();
    use TrialState::{Complete, Fail};
    let states = |study: &Study| {
        study.trials.iter().map(|trial| trial.record.as_ref().unwrap().state).collect::<Vec<_>>()
    };
    assert_eq!(states(&diverging), [Complete, Fail, Complete]);
    assert!(!diverging.interrupted);

    let other = folder();
    let spec = long(&corpus, &["n_layers=1,2,3"], 200);
    let missing = ran(&corpus, &spec, other.path(), Hooks { no_engine: 2, ..at_once(2) }).study.unwrap();
    assert_eq!(states(&missing), [Complete, Fail, Complete]);
    // It is tried again.
    let again = ran(&corpus, &spec, other.path(), at_once(2));
    assert_eq!((again.started, states(&again.study.unwrap())), (vec![1], vec![Complete; 3]));
}

#[test]
fn the_threads_of_idle_workers_go_to_those_at_work() {
    let (corpus, folder) = (corpus(), folder());
    // The first trial is over long before the second, which is slow until it has been given both threads.
    let spec = long(&corpus, &["steps=10,3000"], 3000);
    let seen: &'static Mutex<Vec<usize>> = Box::leak(Box::default());
    let on_step: OnStep = Box::new(|_, _, threads| {
        let mut seen = seen.lock().unwrap();
        seen.push(threads);
        if threads == 1 {
            drop(seen);
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let study =
        ran(&corpus, &spec, folder.path(), Hooks { on_step: Some(on_step), ..at_once(2) }).study.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!((seen[0], seen[seen.len() - 1]), (1, 2));
    let rows = study.rows();
    assert!(rows.iter().all(|row| row.threads >= Some(1.0) && row.trials_at_once >= Some(1.0)), "{rows:?}");
    assert!(rows[3].threads <= Some(2.0) && rows[3].trials_at_once < Some(2.0), "{rows:?}");
}

/// A study that is worth timing, the plan that it was given, and the turns that it was timed in.
fn timed(corpus: &Corpus, spec: &StudySpec, folder: &Path, hooks: Hooks) -> (Ran, Plan, usize) {
    let (mut plan, mut turns) = (None, 0);
    let ran = ran_watched(corpus, spec, folder, hooks, &mut |event| match event {
        StudyEvent::Planned { plan: p, .. } => plan = Some((*p).clone()),
        StudyEvent::Timing { of, .. } => turns = *of,
        _ => {}
    });
    (ran, plan.expect("a plan"), turns)
}

#[test]
fn steps_are_timed_once_and_give_the_cost() {
    let (corpus, folder) = (corpus(), folder());
    let spec = long(&corpus, &["n_heads=2,4", "learning_rate=0.001,0.002"], 1300);
    let (ran, plan, turns) = timed(&corpus, &spec, folder.path(), two_threads());
    let study = ran.study.unwrap();
    // Two kinds of steps, alone and in pairs, three turns each.
    assert_eq!(turns, 12);
    assert!(ran.timed >= 12 + 24, "{}", ran.timed);
    let ways: Vec<usize> = plan.forecasts.iter().map(|forecast| forecast.trials_at_once).collect();
    assert_eq!(ways, [1, 2]);
    let best = plan.forecasts.iter().min_by(|a, b| a.seconds.total_cmp(&b.seconds)).unwrap();
    assert_eq!((plan.trials_at_once, plan.threads), (best.trials_at_once, 2));

    let timings = study.timed().expect("timings");
    assert_eq!((timings.configurations.len(), timings.threads), (2, 2));
    assert_eq!(timings.engine, "diapason-0/toy/f32");
    assert!(
        timings.configurations.values().all(|timing| timing.turns >= 3 && timing.side_by_side.len() == 1)
    );
    let rows = study.rows();
    let costs: Vec<f64> = study.candidates(Pass::Full).iter().map(|candidate| candidate.cost).collect();
    for (cost, row) in costs.iter().zip(rows.iter().skip(1).step_by(2)) {
        assert_eq!(*cost, 1300.0 * row.ms_per_step_alone.unwrap() / 1e3);
    }
    // What differs in the learning rate alone costs the same.
    assert_eq!(costs[0], costs[1]);
    assert_eq!(study.candidates(Pass::Early)[0].cost, 260.0 * rows[0].ms_per_step_alone.unwrap() / 1e3);
    // Whoever opens the folder sees the same, and a second run measures nothing.
    assert_eq!(Study::open(&Home::local(folder.path()), 4).unwrap(), study);
    let before = study.timings.clone();
    let longer = StudySpec { config: Config { steps: 2600, ..spec.config.clone() }, ..spec.clone() };
    let (ran, plan, _) = timed(&corpus, &longer, folder.path(), two_threads());
    assert_eq!((ran.timed, plan.forecasts.len()), (0, 2));
    assert_eq!(ran.study.unwrap().timings, before);

    // A new kind of cell: all are timed anew, in one go.
    let more = StudySpec {
        grid: diapason_study::Grid::parse(&["n_heads=2,4,8", "learning_rate=0.001"]).unwrap(),
        ..longer.clone()
    };
    let wider = StudySpec {
        grid: diapason_study::Grid::parse(&["n_heads=2,4,8", "learning_rate=0.001,0.002"]).unwrap(),
        ..longer
    };
    assert!(toy::ran(&corpus, &more, folder.path(), two_threads()).study.is_err());
    let (ran, _, _) = timed(&corpus, &wider, folder.path(), two_threads());
    assert!(ran.timed > 0);
    assert_eq!(ran.study.unwrap().timed().unwrap().configurations.len(), 3);
}

#[test]
fn timing_is_left_out_where_it_does_not_pay() {
    let corpus = corpus();
    // Some steps are worth more than their study: side by side, unseen.
    let short = folder();
    let (ran, plan, _) = timed(&corpus, &long(&corpus, &["n_heads=2,4"], 60), short.path(), two_threads());
    assert_eq!((ran.timed, plan.trials_at_once, plan.forecasts.len()), (0, 2, 0));
    let study = ran.study.unwrap();
    assert!(study.timed().is_none());
    // Without times of single steps, costs are what was seen, as if on equal threads.
    let most = study.most_threads().unwrap();
    for (candidate, row) in study.candidates(Pass::Full).iter().zip(study.rows().iter().skip(1).step_by(2)) {
        assert_eq!(candidate.cost, row.train_seconds * (row.threads.unwrap() / most));
    }
    assert_eq!(study.spec.cost, Cost::Seconds);

    // Alone pays sooner than in pairs: the cost is known, the way of running is not a choice.
    let middle = folder();
    let spec = long(&corpus, &["n_heads=2,4"], 300);
    let (ran, plan, _) = timed(&corpus, &spec, middle.path(), two_threads());
    assert!(ran.timed >= 12);
    assert_eq!((plan.trials_at_once, plan.forecasts.len()), (2, 1));
    assert!(ran.study.unwrap().timed().is_some());

    // One trial: nothing to choose, and nothing to compare its cost with.
    let one = folder();
    let (ran, plan, _) = timed(&corpus, &long(&corpus, &["n_heads=2"], 1300), one.path(), two_threads());
    assert_eq!((ran.timed, plan.trials_at_once), (0, 1));
    assert!(ran.study.unwrap().timings.is_empty());

    // One thread: nothing to choose, but the cost is to be known.
    let single = folder();
    let hooks = Hooks { threads: 1, ..Hooks::default() };
    let (ran, plan, _) = timed(&corpus, &long(&corpus, &["n_heads=2,4"], 1300), single.path(), hooks);
    assert!(ran.timed >= 12 && plan.trials_at_once == 1);
    assert!(ran.study.unwrap().timed().is_some());

    // Asked for one at a time: the cost is timed all the same.
    let forced = folder();
    let (ran, plan, _) = timed(&corpus, &long(&corpus, &["n_heads=2,4"], 1300), forced.path(), at_once(1));
    assert!(ran.timed >= 12 && plan.trials_at_once == 1);
    assert!(
        ran.study
            .unwrap()
            .rows()
            .iter()
            .all(|row| row.trials_at_once == Some(1.0) && row.threads == Some(2.0))
    );
}

#[test]
fn an_interrupt_while_timing_leaves_a_study_to_continue() {
    let (corpus, folder) = (corpus(), folder());
    let spec = long(&corpus, &["n_heads=2,4"], 1300);
    let hooks = Hooks { interrupt: AtomicBool::new(true), ..two_threads() };
    let first = ran(&corpus, &spec, folder.path(), hooks);
    let study = first.study.unwrap();
    assert!(study.interrupted && study.timings.is_empty());
    assert_eq!((first.steps, first.timed), (0, 0));
    assert!(!ran(&corpus, &spec, folder.path(), two_threads()).study.unwrap().interrupted);
}

#[test]
fn memory_limits_the_trials_at_once() {
    let corpus = corpus();
    let spec = long(&corpus, &["n_heads=1,2,4,8"], 60);
    let hooks = |hooks: Hooks| Hooks { threads: 4, ..hooks };
    for (room, expected) in [(1, 1), (2, 2), (3, 2), (4, 4)] {
        let folder = folder();
        let (_, plan, _) = timed(&corpus, &spec, folder.path(), hooks(Hooks { room, ..two_threads() }));
        assert_eq!(plan.trials_at_once, expected, "room for {room}");
    }
    let folder = folder();
    let refused = ran(&corpus, &spec, &folder.path().join("s"), hooks(Hooks { room: 2, ..at_once(3) }));
    let error = refused.study.unwrap_err();
    assert_eq!(
        error.to_string(),
        "3 trials at once: this needs 1.5 GiB of memory, and the machine has 1.0 GiB"
    );
    assert!(error.hint().unwrap().contains("--parallel"));
    assert!(!folder.path().join("s").exists(), "nothing is written");
    // More than there are trials is no more than the trials.
    let (_, plan, _) =
        timed(&corpus, &spec, &folder.path().join("s"), hooks(Hooks { room: 4, ..at_once(99) }));
    assert_eq!(plan.trials_at_once, 4);
}
