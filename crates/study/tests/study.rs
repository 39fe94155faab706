//! Whole studies with a toy engine: what they leave behind, and that nothing is lost or done twice.

mod toy;

use diapason_corpus::CorpusRequest;
use diapason_study::{
    Cost, DATABASE_FILE, Grid, Home, Pass, Row, STUDY_FILE, Sampler, Search, Study, StudySpec, TrialState,
};
use diapason_training::{BEST, CHECKPOINT, CURVE, Config, Protocol};
use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use toy::{Hooks, TOO_FAST, config, corpus, done, ran, spec, text, timeless};

const GRID: [&str; 2] = ["n_heads=2,4", "n_layers=1,2"];

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[test]
fn every_cell_and_seed_in_both_passes() {
    let (corpus, folder) = (corpus(), folder());
    let spec = StudySpec { seeds: 2, ..spec(&corpus, &GRID) };
    let study = done(&corpus, &spec, folder.path());
    let rows = study.rows();
    let names: Vec<String> =
        rows.iter().map(|row| format!("{} {} {} {}", row.number, row.params, row.seed, row.pass)).collect();
    assert_eq!(
        names[..4],
        [
            "0 n_heads=2 n_layers=1 0 early",
            "0 n_heads=2 n_layers=1 0 full",
            "1 n_heads=2 n_layers=2 0 early",
            "1 n_heads=2 n_layers=2 0 full"
        ]
    );
    assert_eq!(names[14..], ["7 n_heads=4 n_layers=2 1 early", "7 n_heads=4 n_layers=2 1 full"]);
    assert_eq!(rows.len(), 16);
    for row in &rows {
        assert_eq!(row.state, TrialState::Complete);
        assert_eq!(row.steps, if row.pass == Pass::Early { 8 } else { 40 });
        let loss = row.validation_loss.expect("a loss");
        assert!((0.1..1.5).contains(&loss), "{loss}");
        assert_eq!(row.validation_bpc, Some(loss / std::f64::consts::LN_2));
        assert!(row.accuracy.is_some() && row.accuracy_last.is_some());
        assert!(row.train_seconds > 0.0 && row.tokens_per_second > Some(0.0));
        assert_eq!(
            row.parameters,
            config().model(4).unwrap().parameters() as u64
                + if row.params.text("n_layers").unwrap() == "2" {
                    8 * 8 * 12 + 4 * 8 + 8 + 4 * 8
                } else {
                    0
                }
        );
        assert!(!row.stopped_early && row.error.is_none() && row.lost_by_seed_rule.is_none());
    }
    // The full pass is the best evaluation; the early one is at its step.
    for pair in rows.chunks(2) {
        assert_eq!(pair[0].read_at, Some(8));
        assert!(pair[1].validation_loss <= pair[0].validation_loss);
        assert!(pair[0].train_seconds < pair[1].train_seconds);
    }
    assert!(rows[0].validation_loss != rows[8].validation_loss, "seeds differ");
    let trial = folder.path().join("trials/n_heads=4,n_layers=2/seed-1");
    for file in [BEST, CHECKPOINT, CURVE] {
        assert!(trial.join(file).is_file(), "{file}");
    }
    // Whoever opens the folder sees the same.
    assert_eq!(Study::open(&Home::local(folder.path()), 4).unwrap(), study);
}

#[test]
fn a_batch_that_grows_costs_less() {
    let (corpus, folder) = (corpus(), folder());
    let spec = StudySpec { cost: Cost::Flop, ..spec(&corpus, &["batch_ramp=0,0.5"]) };
    let study = done(&corpus, &spec, folder.path());
    let flop = config().model(4).unwrap().training_flop(16, 8);
    // Batches of 2: one window in the first half of 40 steps, two in the second.
    for (pass, expected) in [(Pass::Full, [40.0, 30.0]), (Pass::Early, [8.0, 4.0])] {
        let costs: Vec<f64> = study.candidates(pass).iter().map(|candidate| candidate.cost).collect();
        assert_eq!(costs, expected.map(|full| full * flop), "{pass}");
    }
    for row in study.rows().iter().filter(|row| row.pass == Pass::Early) {
        let characters = 8.0 * if row.params.text("batch_ramp").unwrap() == "0" { 16.0 } else { 8.0 };
        let speed = row.tokens_per_second.unwrap() * row.train_seconds / characters;
        assert!((speed - 1.0).abs() < 1e-9, "{speed}: {row:?}");
    }
}

#[test]
fn study_toml_is_complete() {
    let (corpus, folder) = (corpus(), folder());
    done(
        &corpus,
        &StudySpec { config: Config { eval_every: 0, ..config() }, ..spec(&corpus, &GRID) },
        folder.path(),
    );
    let text = fs::read_to_string(folder.path().join(STUDY_FILE)).unwrap();
    let table: toml::Table = text.parse().unwrap();
    for key in Config::keys() {
        assert!(table["config"].get(key.name).is_some(), "{}", key.name);
    }
    // What was left open is written out.
    assert_eq!(table["config"]["eval_every"].as_integer(), Some(2));
    assert_eq!(table["first_steps"].as_integer(), Some(40));
    let without_config = text.split("\n# Where the grid").next().unwrap().split_once('\n').unwrap().1;
    assert_eq!(
        without_config.trim(),
        format!(
            "name = \"toy\"\nseeds = 1\nprotocol = \"standard\"\nearly_fraction = 0.2\nfirst_steps = 40\n\
             tolerance = 0.01\ncost = \"seconds\"\n\n[corpus]\nname = \"toy\"\ndigest = \"{}\"\n\n\
             [grid]\nn_heads = [2, 4]\nn_layers = [1, 2]",
            corpus.digest
        )
    );
    let read = StudySpec::read(folder.path()).unwrap().unwrap();
    assert_eq!((read.seeds, read.config.steps, &read.grid), (1, 40, &Grid::parse(&GRID).unwrap()));
}

#[test]
fn study_toml_keeps_how_the_text_was_opened() {
    let (corpus, folder) = (corpus(), folder());
    let mut spec = spec(&corpus, &["n_heads=2"]);
    spec.corpus.request = Some(CorpusRequest { corpus: "a b/#\"1\".txt".into(), ..CorpusRequest::default() });
    done(&corpus, &spec, folder.path());
    assert_eq!(StudySpec::read(folder.path()).unwrap().unwrap().corpus, spec.corpus);
}

#[test]
fn the_same_command_does_finished_work_no_second_time() {
    let (corpus, folder) = (corpus(), folder());
    let spec = spec(&corpus, &GRID);
    let first = done(&corpus, &spec, folder.path());
    let again = ran(&corpus, &spec, folder.path(), Hooks::default());
    assert_eq!((again.engines, again.steps, again.started.len()), (0, 0, 0));
    // Times included: they were measured once.
    assert_eq!(again.study.unwrap(), first);
}

#[test]
fn interrupted_anywhere_and_continued_the_rows_are_the_same() {
    let corpus = corpus();
    let spec = StudySpec { seeds: 2, ..spec(&corpus, &["n_heads=2,4"]) };
    let whole = {
        let folder = folder();
        timeless(&done(&corpus, &spec, folder.path()))
    };
    for at in [1, 8, 40, 95, 160] {
        let folder = folder();
        let first = ran(&corpus, &spec, folder.path(), Hooks { interrupt_at: at.into(), ..Hooks::default() });
        let first = first.study.unwrap();
        assert_eq!(first.interrupted, at < 160, "{at}");
        let mut running = first.rows();
        running.retain(|row| row.state == TrialState::Running);
        assert!(running.len() <= 2, "{at}");
        let rest = ran(&corpus, &spec, folder.path(), Hooks::default());
        assert_eq!(rest.steps, 160 - at, "{at}: every step is done once");
        let study = rest.study.unwrap();
        assert!(!study.interrupted);
        assert_eq!(timeless(&study), whole, "{at}");
        assert!(study.trials.iter().all(|trial| study.is_over(trial)));
    }
}

#[test]
fn crashed_anywhere_and_continued_the_rows_are_the_same() {
    let corpus = corpus();
    let spec = spec(&corpus, &["n_heads=2,4"]);
    let whole = {
        let folder = folder();
        timeless(&done(&corpus, &spec, folder.path()))
    };
    for at in [1, 7, 23, 41, 66] {
        let folder = folder();
        let crash = Hooks { crash_at: at.into(), ..Hooks::default() };
        let crashed =
            std::panic::catch_unwind(AssertUnwindSafe(|| ran(&corpus, &spec, folder.path(), crash)));
        assert!(crashed.is_err(), "{at}");
        // A report from outside sees a running trial.
        let seen = Study::open(&Home::local(folder.path()), 4).unwrap();
        assert_eq!(
            seen.rows()
                .iter()
                .filter(|row| row.pass == Pass::Full && row.state == TrialState::Running)
                .count(),
            1
        );
        let rest = ran(&corpus, &spec, folder.path(), Hooks::default());
        assert!(rest.steps < 80 || at < 7, "{at}: {} steps", rest.steps);
        assert_eq!(timeless(&rest.study.unwrap()), whole, "{at}");
    }
}

#[test]
fn a_trial_that_diverges_is_recorded_and_the_study_goes_on() {
    let (corpus, folder) = (corpus(), folder());
    let fast = format!("learning_rate=0.001,{TOO_FAST},0.002");
    let spec = spec(&corpus, &[&fast]);
    let ran_once = ran(&corpus, &spec, folder.path(), Hooks::default());
    let study = ran_once.study.unwrap();
    assert_eq!(ran_once.started, [0, 1, 2]);
    let rows = study.rows();
    let states: Vec<TrialState> = rows.iter().map(|row| row.state).collect();
    use TrialState::{Complete, Fail};
    assert_eq!(states, [Complete, Complete, Fail, Fail, Complete, Complete]);
    let failure = study.trials[1].record.as_ref().unwrap().failure.clone().unwrap();
    assert_eq!(failure.diverged_at, Some(3));
    let last = failure.last_finite_loss.unwrap();
    assert!((0.5..2.5).contains(&last), "{last}");
    assert_eq!(failure.message, format!("diverged at step 3: the last finite loss was {last:.4}"));
    assert_eq!(
        (rows[3].steps, rows[3].validation_loss, rows[3].error.as_ref()),
        (3, None, Some(&failure.message))
    );
    let decided = study.decision(Pass::Full).unwrap();
    assert_eq!(decided.decision.left_out, [(1, failure.message)]);
    assert!(study.verdict().is_some());
    // It would diverge again: it is not repeated.
    let again = ran(&corpus, &spec, folder.path(), Hooks::default());
    assert_eq!(again.engines, 0);
    assert_eq!(timeless(&again.study.unwrap()), timeless(&study));
}

#[test]
fn a_study_in_which_everything_fails_has_no_verdict() {
    let (corpus, folder) = (corpus(), folder());
    let study = done(&corpus, &spec(&corpus, &[&format!("learning_rate={TOO_FAST}")]), folder.path());
    assert_eq!(study.verdict(), None);
    assert_eq!(study.rows().len(), 2);
}

#[test]
fn more_values_more_keys_and_more_seeds_are_new_work_alone() {
    let (corpus, folder) = (corpus(), folder());
    let first = done(&corpus, &spec(&corpus, &["n_heads=2,4"]), folder.path());
    let kept = |study: &Study| {
        let mut rows = study.rows();
        rows.retain(|row| row.seed == 0 && row.params.text("n_layers").is_none_or(|n| n == "1"));
        rows.retain(|row| ["2", "4"].contains(&row.params.text("n_heads").unwrap().as_str()));
        rows.into_iter().map(|row| (row.validation_loss, row.train_seconds)).collect::<Vec<_>>()
    };
    let before = kept(&first);

    let values = ran(&corpus, &spec(&corpus, &["n_heads=1,2,4"]), folder.path(), Hooks::default());
    assert_eq!((values.engines, values.steps), (1, 40));
    assert_eq!(kept(&values.study.unwrap()), before);

    let seeds = StudySpec { seeds: 2, ..spec(&corpus, &["n_heads=1,2,4"]) };
    let seeds = ran(&corpus, &seeds, folder.path(), Hooks::default());
    assert_eq!((seeds.engines, seeds.started), (3, vec![3, 4, 5]));
    assert_eq!(kept(&seeds.study.unwrap()), before);

    // A new key: the old cells are those with the value that it had.
    let key = StudySpec { seeds: 2, ..spec(&corpus, &["n_layers=1,2", "n_heads=1,2,4"]) };
    let key = ran(&corpus, &key, folder.path(), Hooks::default());
    assert_eq!((key.engines, key.steps), (6, 240));
    let study = key.study.unwrap();
    assert_eq!(kept(&study), before);
    assert_eq!(study.rows().len(), 24);
    assert_eq!(
        study.trials[1].folder,
        Path::new("trials/n_heads=2/seed-0"),
        "old folders stay where they are"
    );
    assert_eq!(study.trials[4].folder, Path::new("trials/n_layers=2,n_heads=2/seed-0"));
}

#[test]
fn more_steps_continue_the_trajectories() {
    let corpus = corpus();
    let (short, long) = (folder(), folder());
    let spec = spec(&corpus, &["n_heads=2,4"]);
    let longer = StudySpec { config: Config { steps: 60, ..config() }, ..spec.clone() };
    let first = done(&corpus, &spec, short.path());
    let extended = ran(&corpus, &longer, short.path(), Hooks::default());
    assert_eq!((extended.engines, extended.steps), (2, 40), "20 more steps for each");
    let extended = extended.study.unwrap();
    // The early reading stays where it was; the full one is that of a study that was 60 steps long from the start.
    let at_once = done(&corpus, &longer, long.path());
    for (i, row) in timeless(&extended).iter().enumerate() {
        match row.pass {
            // Optuna's trials are immutable once they are complete: longer ones have numbers of their own.
            Pass::Early => assert_eq!(*row, numbered(&timeless(&first)[i], row.number)),
            Pass::Full => assert_eq!(*row, numbered(&timeless(&at_once)[i], row.number)),
        }
    }
    // A twentieth of the steps means a twentieth of the steps that the study began with.
    let default = StudySpec { config: Config { eval_every: 0, ..longer.config.clone() }, ..longer.clone() };
    assert_eq!(
        ran(&corpus, &default, short.path(), Hooks::default()).study.unwrap().spec.config.eval_every,
        5
    );
}

#[test]
fn an_extended_study_is_decided_by_what_has_gone_all_the_way() {
    let (corpus, folder) = (corpus(), folder());
    let spec = spec(&corpus, &["n_heads=2,4"]);
    done(&corpus, &spec, folder.path());
    let longer = StudySpec { config: Config { steps: 60, ..config() }, ..spec };
    // The first trial goes on and ends; the second has not yet gone on.
    let first = ran(&corpus, &longer, folder.path(), Hooks { interrupt_at: 20.into(), ..Hooks::default() });
    assert!(first.steps == 20 && first.study.is_ok());
    let study = Study::open(&Home::local(folder.path()), 4).unwrap();
    use TrialState::{Complete, Running};
    let states: Vec<TrialState> = study.rows().iter().map(|row| row.state).collect();
    assert_eq!(states, [Complete, Complete, Complete, Running]);
    assert_eq!(study.rows()[3].steps, 40);
    let full = study.decision(Pass::Full).unwrap();
    assert_eq!(full.candidates[1].left_out.as_deref(), Some("not finished"));
    assert_eq!(full.decision.chosen, 0);
    // The early reading stays as it is.
    assert!(study.candidates(Pass::Early).iter().all(|candidate| candidate.left_out.is_none()));
    let study = done(&corpus, &longer, folder.path());
    assert!(study.rows().iter().all(|row| row.state == Complete));
}

#[test]
fn an_extended_study_leaves_out_evaluations_that_a_longer_one_has_not() {
    let corpus = corpus();
    let (short, long) = (folder(), folder());
    // 40 is no multiple of 7.
    let every = Config { eval_every: 7, ..config() };
    let spec = StudySpec { config: every.clone(), ..spec(&corpus, &["n_heads=2,4"]) };
    done(&corpus, &spec, short.path());
    let longer = StudySpec { config: Config { steps: 60, ..every }, first_steps: 40, ..spec };
    let extended = timeless(&done(&corpus, &longer, short.path()));
    for (row, at_once) in extended.iter().zip(timeless(&done(&corpus, &longer, long.path()))) {
        assert_eq!(*row, numbered(&at_once, row.number));
    }
}

/// A row under another number.
fn numbered(row: &Row, number: i64) -> Row {
    Row { number, ..row.clone() }
}

#[test]
fn rows_say_which_engine_computed_them() {
    let (corpus, folder) = (corpus(), folder());
    let study = done(&corpus, &spec(&corpus, &["n_heads=2"]), folder.path());
    for row in study.rows() {
        assert_eq!((row.engine.as_deref(), row.other_engines.len()), (Some("diapason-0/toy/f32"), 0));
    }
}

#[test]
fn other_settings_are_refused_with_the_difference() {
    let (corpus, folder) = (corpus(), folder());
    let spec = spec(&corpus, &GRID);
    done(&corpus, &spec, folder.path());
    let before = fs::read(folder.path().join(STUDY_FILE)).unwrap();
    let refused = |spec: &StudySpec| {
        let ran = ran(&corpus, spec, folder.path(), Hooks::default());
        assert_eq!(ran.engines, 0);
        let error = ran.study.expect_err("should be refused");
        assert!(error.hint().is_some());
        error.to_string().split_once(" other settings: ").expect("the difference").1.to_string()
    };
    let with = |change: &dyn Fn(&mut Config)| {
        let mut spec = spec.clone();
        change(&mut spec.config);
        refused(&spec)
    };
    assert_eq!(
        with(&|c| (c.learning_rate, c.patience) = (0.01, 3)),
        "learning_rate was 0.001, is 0.01; patience was 0, is 3"
    );
    assert_eq!(with(&|c| c.steps = 30), "steps was 40, is 30 (there may be more, not fewer)");
    assert_eq!(with(&|c| c.eval_every = 7), "eval_every was 5, is 7");
    let mut steps_in_grid = toy::spec(&corpus, &["n_heads=2,4", "n_layers=1,2", "steps=40,60"]);
    steps_in_grid.config.eval_every = 0;
    assert_eq!(
        refused(&steps_in_grid),
        "steps was 40 for every cell, is in the grid, so that each cell has evaluations of its own \
         (--set eval_every=5 keeps those of the study)"
    );
    let grid = |axes: &[&str]| refused(&StudySpec { grid: Grid::parse(axes).unwrap(), ..spec.clone() });
    assert_eq!(grid(&["n_heads=2", "n_layers=1,2"]), "n_heads was 2,4, is 2");
    assert_eq!(grid(&["n_heads=2,4"]), "n_layers was 1,2, is 1");
    assert_eq!(grid(&["n_heads=2,4", "n_layers=1,2", "batch_size=4"]), "batch_size was 2, is 4");
    assert_eq!(refused(&StudySpec { early_fraction: 0.5, ..spec.clone() }), "early_fraction was 0.2, is 0.5");
    assert_eq!(
        refused(&StudySpec { protocol: Protocol::AsSeed, ..spec.clone() }),
        "protocol was standard, is as-seed"
    );
    let other = text(3_001);
    let error = ran(&other, &toy::spec(&other, &GRID), folder.path(), Hooks::default()).study.unwrap_err();
    assert!(error.to_string().contains("corpus was toy (sha256:"), "{error}");
    assert_eq!(fs::read(folder.path().join(STUDY_FILE)).unwrap(), before);

    // What changes no result may differ.
    let free = StudySpec { name: "other".into(), tolerance: 0.5, cost: Cost::Flop, ..spec.clone() };
    let free = StudySpec { config: Config { checkpoint_seconds: 5, ..config() }, ..free };
    let ran = ran(&corpus, &free, folder.path(), Hooks::default());
    assert_eq!(
        (ran.engines, ran.study.unwrap().spec.name.as_str()),
        (0, "toy"),
        "its name is the database's"
    );
}

#[test]
fn what_cannot_run_is_refused_before_anything_is_written() {
    let corpus = corpus();
    let parent = folder();
    let folder = parent.path().join("study");
    let refused = |spec: &StudySpec| {
        let ran = ran(&corpus, spec, &folder, Hooks::default());
        assert_eq!(ran.engines, 0);
        assert!(!folder.exists());
        ran.study.expect_err("should be refused").to_string()
    };
    assert_eq!(
        refused(&spec(&corpus, &["n_heads=1,3"])),
        "n_heads=3: d_model 8 is not divisible by n_heads 3: each head needs the same whole number of channels"
    );
    assert_eq!(
        refused(&spec(&corpus, &["d_model=8,4096"])),
        "d_model=4096: this needs 100.0 GiB of memory, and the machine has 10.0 GiB"
    );
    let long = refused(&spec(&corpus, &["max_len=512", "sequence_length=8,400"]));
    assert!(
        long.starts_with("max_len=512 sequence_length=400: the validation split has 300 characters"),
        "{long}"
    );
    let base = spec(&corpus, &GRID);
    assert_eq!(
        refused(&StudySpec { seeds: 0, ..base.clone() }),
        "seeds is 0, but must lie between 1 and 100000"
    );
    let early = StudySpec { early_fraction: 1.5, ..base.clone() };
    assert_eq!(refused(&early), "early_fraction is 1.5, but must lie between 0 (no early read-out) and 1");
    let seeds = refused(&StudySpec { seeds: 3, until_decided: Some(2), ..base.clone() });
    assert_eq!(seeds, "at most 2 seeds of a configuration, and 3 of each");
    assert_eq!(
        refused(&StudySpec { tolerance: -1.0, ..base }),
        "tolerance is -1, but must lie between 0 and 1"
    );
}

#[test]
fn a_damaged_checkpoint_keeps_the_others_from_nothing() {
    let (corpus, folder) = (corpus(), folder());
    let spec = spec(&corpus, &["n_heads=2,4"]);
    ran(&corpus, &spec, folder.path(), Hooks { interrupt_at: 20.into(), ..Hooks::default() }).study.unwrap();
    let trial = folder.path().join("trials/n_heads=2/seed-0");
    let bytes = fs::read(trial.join(CHECKPOINT)).unwrap();
    fs::write(trial.join(CHECKPOINT), &bytes[..bytes.len() / 2]).unwrap();
    for others in [40, 0] {
        let broken = ran(&corpus, &spec, folder.path(), Hooks::default());
        assert_eq!(broken.steps, others, "the other trial is trained to its end, once");
        let error = broken.study.unwrap_err();
        assert!(error.to_string().starts_with("the trial n_heads=2, seed 0: "), "{error}");
        assert!(
            error.to_string().contains(CHECKPOINT) && error.to_string().contains("is truncated"),
            "{error}"
        );
        assert!(error.hint().unwrap().contains(&format!("remove {}: ", trial.display())), "{error:?}");
    }
    // Once it is repaired the trial goes on; once its folder is gone it starts anew.
    let anew = self::folder();
    for (removed, steps) in [(false, 20), (true, 40)] {
        let of = if removed { anew.path() } else { folder.path() };
        let trial = of.join("trials/n_heads=2/seed-0");
        if removed {
            ran(&corpus, &spec, of, Hooks { interrupt_at: 20.into(), ..Hooks::default() }).study.unwrap();
            fs::write(trial.join(CHECKPOINT), "").unwrap();
            ran(&corpus, &spec, of, Hooks::default()).study.unwrap_err();
            fs::remove_dir_all(&trial).unwrap();
        } else {
            fs::write(trial.join(CHECKPOINT), &bytes).unwrap();
        }
        let mended = ran(&corpus, &spec, of, Hooks::default());
        assert_eq!((mended.engines, mended.steps), (1, steps));
        assert!(mended.study.unwrap().rows().iter().all(|row| row.state == TrialState::Complete));
    }
}

#[test]
fn keys_without_an_effect_are_named() {
    let corpus = corpus();
    let said = |grid: &[&str], set: &[&str]| {
        let said = spec(&corpus, grid).without_effect(set);
        said.map_err(|error| format!("{error} / {}", error.hint().unwrap()))
    };
    assert_eq!(
        said(&["n_heads=2,4"], &["momentum", "learning_rate"]).unwrap(),
        ["`momentum` has no effect with optimizer = adam"]
    );
    assert_eq!(said(&["optimizer=adam,muon"], &["momentum"]).unwrap(), [""; 0], "it has one in some");
    assert_eq!(
        said(&["momentum=0.9,0.95"], &[]).unwrap_err(),
        "`momentum` has no effect with optimizer = adam: all configurations that differ in it would train the same / leave \
         momentum out of what varies, or set optimizer=muon"
    );
    assert_eq!(
        said(&["optimizer=adam,adamw,muon", "momentum=0.9,0.95"], &[]).unwrap(),
        [
            "`momentum` has no effect with optimizer = adam, adamw: configurations that differ in it alone train the same"
        ]
    );
    assert_eq!(said(&["warmup_steps=0,39"], &[]).unwrap(), [""; 0]);
    assert_eq!(
        said(&["warmup_steps=0,40", "steps=80,40"], &[]).unwrap(),
        ["the warm-up lasts the whole run: warmup_steps = 40, steps = 40"]
    );

    let ranges = |ranges: &[&str]| {
        let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
        let search = Some(Search { sampler: Sampler::Random { seed: 0 }, samples: 4, ranges });
        StudySpec { search, ..spec(&corpus, &[]) }.without_effect(&[])
    };
    assert!(ranges(&["momentum=0.8..0.99"]).is_err());
    assert_eq!(ranges(&["learning_rate=0.001..0.01"]).unwrap(), [""; 0]);
    assert!(ranges(&["patience=0..3", "min_improvement=0.001..0.01"]).unwrap()[0].contains("patience = 0: "));

    let as_seed = StudySpec { protocol: Protocol::AsSeed, ..spec(&corpus, &["patience=2,3"]) };
    assert!(as_seed.without_effect(&[]).unwrap_err().to_string().contains("protocol = as-seed"));
    let enqueued = StudySpec { enqueued_only: true, ..spec(&corpus, &[]) };
    assert_eq!(enqueued.without_effect(&["momentum"]).unwrap(), [""; 0], "others may choose muon");
}

#[test]
fn damaged_files_of_the_study_are_named() {
    let (corpus, folder) = (corpus(), folder());
    let spec = spec(&corpus, &["n_heads=2"]);
    done(&corpus, &spec, folder.path());
    let error = || ran(&corpus, &spec, folder.path(), Hooks::default()).study.unwrap_err().to_string();
    let database = folder.path().join(DATABASE_FILE);
    fs::write(
        &database,
        "no database at all, and long enough to have a header of a hundred bytes: ".repeat(3),
    )
    .unwrap();
    assert!(error().contains(DATABASE_FILE), "{}", error());
    // The copy of the specification is what is left without one.
    fs::remove_file(&database).unwrap();
    fs::write(folder.path().join(STUDY_FILE), "name = \"x\"\nseeds = [\n").unwrap();
    assert!(error().contains("study.toml: line "), "{}", error());
    assert!(Study::open(&Home::local("/nowhere"), 4).is_err());
}

#[test]
fn a_study_whose_database_is_lost_goes_on_from_its_checkpoints() {
    let (corpus, folder) = (corpus(), folder());
    let spec = spec(&corpus, &["n_heads=2,4"]);
    let first = done(&corpus, &spec, folder.path());
    fs::remove_file(folder.path().join(DATABASE_FILE)).unwrap();
    // Other settings are still refused.
    let other = StudySpec { early_fraction: 0.5, ..spec.clone() };
    let error = ran(&corpus, &other, folder.path(), Hooks::default()).study.unwrap_err().to_string();
    assert!(error.contains("early_fraction was 0.2, is 0.5"), "{error}");
    let again = ran(&corpus, &spec, folder.path(), Hooks::default());
    assert_eq!(again.steps, 0);
    assert_eq!(timeless(&again.study.unwrap()), timeless(&first));
}

#[test]
fn a_study_cut_short_compares_cells_on_the_seeds_that_all_have() {
    let (corpus, folder) = (corpus(), folder());
    let spec = StudySpec { seeds: 2, ..spec(&corpus, &["n_heads=2,4,8"]) };
    // Four of six trials and a half.
    let cut = ran(&corpus, &spec, folder.path(), Hooks { interrupt_at: 180.into(), ..Hooks::default() });
    let study = cut.study.unwrap();
    let readings = study.readings(Pass::Full);
    assert_eq!(readings.iter().map(|r| r.seeds).collect::<Vec<_>>(), [1, 1, 1]);
    let rows = study.rows();
    assert_eq!(Some(readings[0].loss), rows[1].validation_loss);
    // The early pass of the fifth trial is over.
    assert_eq!(study.readings(Pass::Early).iter().map(|r| r.seeds).collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(study.rows()[8].state, TrialState::Complete);
    assert_eq!(study.rows()[9].state, TrialState::Running);
    let reason = study.verdict().unwrap().reason;
    assert!(reason.ends_with("(2 of 6 trials have not finished)"), "{reason}");

    let first = ran(
        &corpus,
        &spec,
        folder_of_another().path(),
        Hooks { interrupt_at: 50.into(), ..Hooks::default() },
    );
    let study = first.study.unwrap();
    let candidates = study.candidates(Pass::Full);
    assert_eq!(candidates[0].left_out, None);
    assert_eq!(candidates[1].left_out.as_deref(), Some("not finished"));

    let whole = done(&corpus, &spec, folder.path());
    let rows = whole.rows();
    let mean = (rows[1].validation_loss.unwrap() + rows[7].validation_loss.unwrap()) / 2.0;
    assert_eq!(whole.readings(Pass::Full)[0].loss, mean);
}

/// A second folder, where `folder` is the first.
fn folder_of_another() -> tempfile::TempDir {
    folder()
}

#[test]
fn cost_is_what_was_asked_for() {
    let (corpus, folder) = (corpus(), folder());
    let spec = StudySpec { cost: Cost::Parameters, ..spec(&corpus, &["n_layers=1,2"]) };
    let study = done(&corpus, &spec, folder.path());
    let costs: Vec<f64> = study.candidates(Pass::Full).iter().map(|c| c.cost).collect();
    assert_eq!(costs, study.rows().iter().step_by(2).map(|row| row.parameters as f64).collect::<Vec<_>>());
    let flop = done(&corpus, &StudySpec { cost: Cost::Flop, ..spec }, folder.path());
    let costs: Vec<f64> = flop.candidates(Pass::Early).iter().map(|c| c.cost).collect();
    let model = flop.cells[1].config.model(4).unwrap();
    assert_eq!(costs[1], 8.0 * model.training_flop(16, 8));
    let explained = flop.decision(Pass::Full).unwrap();
    let text = explained.decision.explain(&explained.candidates, Cost::Flop).join("\n");
    assert!(text.contains(" FLOP"), "{text}");
}

#[test]
fn without_an_early_fraction_there_is_one_pass() {
    let (corpus, folder) = (corpus(), folder());
    let spec = StudySpec { early_fraction: 0.0, ..spec(&corpus, &["n_heads=2"]) };
    let rows = done(&corpus, &spec, folder.path()).rows();
    assert_eq!(rows.iter().map(|row| row.pass).collect::<Vec<_>>(), [Pass::Full]);
}

#[test]
fn steps_can_be_a_key_of_the_grid() {
    let (corpus, folder) = (corpus(), folder());
    let spec = spec(&corpus, &["steps=20,40"]);
    let rows = done(&corpus, &spec, folder.path()).rows();
    assert_eq!(rows.iter().map(|row| row.steps).collect::<Vec<_>>(), [4, 20, 8, 40]);
    let more = ran(&corpus, &toy::spec(&corpus, &["steps=20,40,60"]), folder.path(), Hooks::default());
    assert_eq!((more.engines, more.steps), (1, 60));
}

#[test]
fn steps_of_the_grid_may_become_those_of_all_cells() {
    let (corpus, folder) = (corpus(), folder());
    let before = done(&corpus, &spec(&corpus, &["n_heads=2,4", "steps=40"]), folder.path());
    let fixed = ran(&corpus, &spec(&corpus, &["n_heads=2,4"]), folder.path(), Hooks::default());
    assert_eq!(fixed.started, Vec::<usize>::new(), "the same trajectories");
    let (fixed, losses) = (fixed.study.unwrap(), |study: &Study| -> Vec<Option<f64>> {
        study.rows().iter().map(|row| row.validation_loss).collect()
    });
    assert_eq!(losses(&fixed), losses(&before));
    assert_eq!(fixed.rows()[0].read_at, Some(8), "the early step of 40");
    // And on from there.
    let longer = StudySpec { config: Config { steps: 60, ..config() }, ..spec(&corpus, &["n_heads=2,4"]) };
    let longer = ran(&corpus, &longer, folder.path(), Hooks::default());
    assert_eq!(longer.study.unwrap().rows()[1].steps, 60);
}

#[test]
fn patience_is_reported() {
    let (corpus, folder) = (corpus(), folder());
    // Nothing improves by a whole nat: patience ends the run at the second evaluation after the first.
    let impatient = Config { patience: 2, min_improvement: 1.0, ..config() };
    let spec = StudySpec { config: impatient, ..spec(&corpus, &["n_heads=2"]) };
    let study = done(&corpus, &spec, folder.path());
    let rows = study.rows();
    assert_eq!((rows[0].stopped_early, rows[0].steps), (false, 8));
    assert_eq!((rows[1].stopped_early, rows[1].state), (true, TrialState::Complete));
    assert!(rows[1].steps < 40);
    // More steps are no reason to go on with it.
    let longer = StudySpec { config: Config { steps: 80, ..spec.config.clone() }, ..spec };
    assert_eq!(ran(&corpus, &longer, folder.path(), Hooks::default()).steps, 0);
}

#[test]
fn the_notebooks_protocol() {
    let (corpus, folder) = (corpus(), folder());
    let as_seed = |steps| StudySpec {
        protocol: Protocol::AsSeed,
        config: Config { steps, ..config() },
        ..spec(&corpus, &["n_heads=2,4"])
    };
    let study = done(&corpus, &as_seed(40), folder.path());
    let rows = study.rows();
    assert_eq!(rows.len(), 4);
    for pair in rows.chunks(2) {
        let (early, full) = (&pair[0], &pair[1]);
        assert_eq!((early.state, full.state), (TrialState::Complete, TrialState::Complete));
        assert_eq!((full.steps, full.read_at), (40, Some(40)), "the last loss, not the best");
        assert!(early.stopped_early, "five improvements come soon");
        assert_eq!(early.steps % 5, 1, "iteration i is evaluated after update i + 1");
        assert_eq!(early.lost_by_seed_rule, Some(false));
    }
    let error = ran(&corpus, &as_seed(60), folder.path(), Hooks::default()).study.unwrap_err().to_string();
    assert!(error.ends_with("steps was 40, is 60"), "{error}");

    // One evaluation alone is an improvement and not the fifth: the rule ends without a number.
    let short = folder_of_another();
    let study = done(&corpus, &as_seed(1), short.path());
    let rows = study.rows();
    assert_eq!(rows[0].lost_by_seed_rule, Some(true));
    assert_eq!((rows[0].steps, rows[0].stopped_early), (1, false));
    assert_eq!(rows[0].validation_loss, rows[1].validation_loss, "recorded all the same");
    assert_eq!(study.lost_by_seed_rule().len(), 2);
}
