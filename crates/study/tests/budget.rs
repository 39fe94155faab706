//! Studies in which a budget takes the place of steps.

mod toy;

use diapason_study::{
    Cost, Home, Pass, Rule, STUDY_FILE, Search, Study, StudyEvent, StudySpec, Timings, read_curves, replay,
};
use diapason_training::Config;
use std::fs;
use std::path::Path;
use toy::{Hooks, config, corpus, done, ran, ran_watched, spec, timeless};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// A study with a budget, evaluated as often as nobody says.
fn budgeted(grid: &[&str], budget: &str) -> StudySpec {
    let spec = spec(&corpus(), grid);
    let config = Config { eval_every: 0, ..config() };
    StudySpec { budget: Some(budget.parse().unwrap()), config, ..spec }
}

fn steps(study: &Study) -> Vec<u64> {
    study.cells.iter().map(|cell| cell.config.steps).collect()
}

fn toml(folder: &Path) -> String {
    fs::read_to_string(folder.join(STUDY_FILE)).unwrap()
}

#[test]
fn characters_are_the_same_for_all() {
    let (corpus, folder) = (corpus(), folder());
    // Windows of 8 characters.
    let spec = budgeted(&["batch_size=2,4,8"], "1600chars");
    let mut said = Vec::new();
    let study = ran_watched(&corpus, &spec, folder.path(), Hooks::default(), &mut |event| {
        if let StudyEvent::Note { text } = event {
            said.push(text.clone());
        }
    });
    let study = study.study.unwrap();
    assert_eq!(steps(&study), [100, 50, 25]);
    assert_eq!(said, ["a budget of 1600chars for each configuration: 25 to 100 steps"]);
    // Each is read early at its own fifth, and evaluated at its own twentieths.
    let rows = study.rows();
    let read = |pass| rows.iter().filter(|row| row.pass == pass).map(|row| row.steps).collect::<Vec<_>>();
    assert_eq!((read(Pass::Early), read(Pass::Full)), (vec![20, 10, 5], vec![100, 50, 25]));
    let (_, curves) = read_curves(&Home::local(folder.path())).unwrap();
    assert_eq!(curves.iter().map(|curve| curve.len()).collect::<Vec<_>>(), [20, 25, 25]);
    let text = toml(folder.path());
    assert!(text.contains("\nbudget = \"1600chars\"\n"), "{text}");
    assert!(text.contains(" Steps are as many as the budget pays for.\n"), "{text}");
    assert_eq!(StudySpec::read(folder.path()).unwrap().unwrap(), study.spec);
    // The same again is nothing, whatever number of steps goes without saying; more values are only those.
    let other = StudySpec { config: Config { steps: 7, ..spec.config.clone() }, ..spec.clone() };
    assert_eq!(ran(&corpus, &other, folder.path(), Hooks::default()).steps, 0);
    let more = budgeted(&["batch_size=2,4,8,1"], "1600chars");
    assert_eq!(ran(&corpus, &more, folder.path(), Hooks::default()).steps, 200);
    let more = StudySpec { seeds: 2, ..more };
    assert_eq!(ran(&corpus, &more, folder.path(), Hooks::default()).steps, 375);
}

#[test]
fn another_budget_is_another_study() {
    let (corpus, of_steps, of_budget) = (corpus(), folder(), folder());
    let grid = ["batch_size=2,4"];
    let plain = StudySpec { budget: None, ..budgeted(&grid, "1chars") };
    let of = |budget| budgeted(&grid, budget);
    done(&corpus, &plain, of_steps.path());
    done(&corpus, &of("800chars"), of_budget.path());
    for (spec, folder, difference) in [
        (&of("800chars"), &of_steps, "budget was none, is 800chars"),
        (&plain, &of_budget, "budget was 800chars, is none"),
        (&of("900chars"), &of_budget, "budget was 800chars, is 900chars"),
        (&of("90s"), &of_budget, "budget was 800chars, is 90s"),
        (&of("1chars"), &of_budget, "budget was 800chars, is 1chars"),
    ] {
        let ran = ran(&corpus, spec, folder.path(), Hooks::default());
        assert_eq!((ran.steps, ran.timed), (0, 0), "{difference}");
        let error = ran.study.unwrap_err();
        assert!(error.to_string().ends_with(&format!("other settings: {difference}")), "{error}");
        assert!(error.hint().is_some());
    }
    let shorter = StudySpec { config: Config { eval_every: 3, ..config() }, ..of("800chars") };
    let error = ran(&corpus, &shorter, of_budget.path(), Hooks::default()).study.unwrap_err();
    assert!(error.to_string().ends_with("other settings: eval_every was 0, is 3"), "{error}");
}

#[test]
fn interrupted_anywhere_it_is_the_same_study() {
    let corpus = corpus();
    let spec = budgeted(&["batch_size=2,4"], "800chars");
    let whole = folder();
    let whole = timeless(&done(&corpus, &spec, whole.path()));
    for at in [1, 30, 60, 74] {
        let folder = folder();
        let hooks = Hooks { interrupt_at: at.into(), ..Hooks::default() };
        assert!(ran(&corpus, &spec, folder.path(), hooks).study.unwrap().interrupted, "{at}");
        let rest = ran(&corpus, &spec, folder.path(), Hooks::default());
        assert_eq!((rest.steps, timeless(&rest.study.unwrap())), (75 - at, whole.clone()), "{at}");
    }
}

#[test]
fn steps_are_timed_once_and_kept() {
    let (corpus, folder) = (corpus(), folder());
    let spec = budgeted(&["n_layers=1,2", "learning_rate=1e-3,1e-2"], "0.01s");
    // Stopped while steps are timed: nothing has begun.
    let place = folder.path().join("study");
    let hooks = Hooks { interrupt: true.into(), ..Hooks::default() };
    assert!(ran(&corpus, &spec, &place, hooks).study.unwrap().interrupted);
    assert!(!place.exists());
    // Killed on the way.
    let mut events = (0, 0);
    let hooks = Hooks { interrupt_at: 3.into(), ..Hooks::default() };
    let first = ran_watched(&corpus, &spec, &place, hooks, &mut |event| match event {
        StudyEvent::Memory { .. } => events.0 += 1,
        StudyEvent::Timing { .. } => events.1 += 1,
        _ => {}
    });
    assert!(first.timed > 0 && events.0 == 1 && events.1 > 0, "{} {events:?}", first.timed);
    let first = first.study.unwrap();
    assert!(first.interrupted);
    // One time for each kind of step; the steps follow.
    let before = toml(&place);
    assert!(before.contains("\nbudget = \"0.01s\"\n") && before.contains("\n[ms_per_step]\n"), "{before}");
    assert_eq!(first.spec.ms_per_step.len(), 2);
    for cell in &first.cells {
        let ms = first.spec.ms_per_step[&Timings::key(&cell.config)];
        assert!(cell.config.steps.abs_diff((10.0 / ms) as u64) <= 1, "{ms} {}", cell.config.steps);
    }
    // Costs go by the same times.
    let timed = first.timed().expect("times in the database");
    for (kind, ms) in &first.spec.ms_per_step {
        assert!((timed.configurations[kind].ms_per_step / ms - 1.0).abs() < 1e-3);
    }
    // Whoever goes on, has the same steps.
    let rest = ran(&corpus, &spec, &place, Hooks::default());
    assert_eq!(rest.timed, 0);
    let rest = rest.study.unwrap();
    assert_eq!((steps(&rest), &rest.spec), (steps(&first), &first.spec));
    assert_eq!(toml(&place), before);
    let of_rows: Vec<u64> =
        rest.rows().iter().filter(|row| row.pass == Pass::Full).map(|row| row.steps).collect();
    assert_eq!(of_rows, steps(&rest));
    assert_eq!(Study::open(&Home::local(&place), 4).unwrap(), rest);
    // From its file alone the same study is made again, elsewhere.
    let copy = folder.path().join("copy");
    fs::create_dir(&copy).unwrap();
    fs::write(copy.join(STUDY_FILE), &before).unwrap();
    assert_eq!(timeless(&done(&corpus, &spec, &copy)), timeless(&rest));

    // What shares a kind of step that was timed may be added; what does not, may not.
    let more = budgeted(&["n_layers=1,2", "learning_rate=1e-3,1e-2,1e-4"], "0.01s");
    let more = ran(&corpus, &more, &place, Hooks::default()).study.unwrap();
    assert_eq!(more.spec.ms_per_step, first.spec.ms_per_step);
    let before = toml(&place);
    let larger = budgeted(&["n_layers=1,2,3", "learning_rate=1e-3,1e-2,1e-4"], "0.01s");
    let refused = ran(&corpus, &larger, &place, Hooks::default());
    assert_eq!((refused.steps, refused.timed), (0, 0));
    let error = refused.study.unwrap_err();
    assert_eq!(
        error.to_string(),
        "n_layers=3 learning_rate=0.001: its steps were not timed when the study began with a budget of 0.01s, and \
         times of different days do not compare"
    );
    assert!(error.hint().unwrap().contains("--out"));
    let other = StudySpec {
        config: Config { d_model: 16, ..config() },
        ..budgeted(&["n_layers=1,2", "learning_rate=1e-3,1e-2,1e-4"], "0.01s")
    };
    let error = ran(&corpus, &other, &place, Hooks::default()).study.unwrap_err();
    assert!(error.to_string().contains("d_model was 8, is 16"), "differences come first: {error}");
    assert_eq!(toml(&place), before);
}

#[test]
fn several_workers_divide_by_the_same_times() {
    let (corpus, folder) = (corpus(), folder());
    let spec = budgeted(&["n_layers=1,2", "n_heads=1,2"], "0.01s");
    let both: Vec<Study> = std::thread::scope(|scope| {
        let work = || ran(&corpus, &spec, folder.path(), Hooks::default()).study.unwrap();
        let workers = [scope.spawn(work), scope.spawn(work)];
        workers.map(|worker| worker.join().unwrap()).to_vec()
    });
    assert_eq!(both[0].spec, both[1].spec);
    assert_eq!(steps(&both[0]), steps(&both[1]));
    assert!(both.iter().flat_map(Study::rows).all(|row| row.error.is_none()));
}

#[test]
fn samples_have_the_steps_that_the_budget_pays_for() {
    let (corpus, folder) = (corpus(), folder());
    let ranges = vec!["batch_size=1..64:log".parse().unwrap()];
    let search = Search { sampler: "tpe:startup=3,round=2".parse().unwrap(), samples: 7, ranges };
    // Of 256 windows of 8 characters.
    let spec = StudySpec { search: Some(search.clone()), ..budgeted(&[], "2048chars") };
    let study = done(&corpus, &spec, folder.path());
    assert_eq!(study.cells.len(), 7);
    for (cell, trial) in study.cells.iter().zip(&study.trials) {
        assert_eq!(cell.config.steps, 256 / cell.config.batch_size as u64);
        assert_eq!(trial.record.as_ref().unwrap().steps, cell.config.steps);
    }
    assert_eq!(ran(&corpus, &spec, folder.path(), Hooks::default()).steps, 0);
    // What cannot be paid for is drawn again.
    let elsewhere = self::folder();
    let spec = StudySpec { search: Some(search), ..budgeted(&[], "64chars") };
    let study = done(&corpus, &spec, elsewhere.path());
    assert!(study.cells.iter().all(|cell| cell.config.batch_size <= 8), "{:?}", steps(&study));
}

#[test]
fn arithmetic_can_be_replayed_without_the_text() {
    let (corpus, folder) = (corpus(), folder());
    let of_step = config().model(4).unwrap().training_flop(16, 8);
    let spec = budgeted(&["n_layers=1,2", "learning_rate=1e-3,1e-2"], &format!("{}flop", 60.5 * of_step));
    let spec = StudySpec { cost: Cost::Flop, ..spec };
    let study = done(&corpus, &spec, folder.path());
    assert_eq!(steps(&study)[..2], [60, 60]);
    assert!(steps(&study)[2] < 60);
    // What is left over of the budget is no difference in cost.
    for (pass, share) in [(Pass::Full, 1.0), (Pass::Early, 0.2)] {
        let costs: Vec<f64> = study.candidates(pass).iter().map(|candidate| candidate.cost).collect();
        assert!(costs.iter().all(|cost| (cost / (60.5 * of_step * share) - 1.0).abs() < 1e-6), "{costs:?}");
        assert!(costs.iter().all(|cost| *cost == costs[0]), "{costs:?}");
    }
    assert!(toml(folder.path()).contains("\nsymbols = 4\n"));
    let (read, curves) = read_curves(&Home::local(folder.path())).unwrap();
    assert_eq!(steps(&read), steps(&study));
    let all: u64 = steps(&study).iter().sum();
    for rule in ["none", "patience:3", "as-seed"] {
        let replayed = replay(&read, &curves, rule.parse().unwrap()).unwrap();
        assert_eq!(replayed.all.steps, all, "{rule}");
    }
    let refused = |rule: Rule| replay(&read, &curves, rule).unwrap_err();
    let error = refused("halving".parse().unwrap());
    assert!(error.to_string().contains("with a budget each configuration has steps of its own"), "{error}");
    assert!(error.hint().is_some());
}

#[test]
fn more_seeds_are_as_long_as_the_others() {
    let (corpus, folder) = (corpus(), folder());
    let spec = StudySpec { until_decided: Some(3), ..budgeted(&["batch_size=2,4"], "800chars") };
    let study = done(&corpus, &spec, folder.path());
    for trial in &study.trials {
        assert_eq!(trial.record.as_ref().unwrap().steps, study.cells[trial.cell].config.steps);
    }
    assert_eq!(study.cells.len(), 2);
}
