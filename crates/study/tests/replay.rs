//! Replay: under a rule that is reproducible, a finished study says to the last bit what a real study would have come to.

mod toy;

use diapason_corpus::Corpus;
use diapason_study::{
    Cost, Curve, Home, ReplayError, Replayed, Rule, Study, StudySpec, TrialState, read_curves, replay,
};
use diapason_training::{Config, Protocol};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use toy::{Hooks, TOO_FAST, config, corpus, done, ran, spec};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// A study whose costs are the same on every machine.
fn asked(corpus: &Corpus, grid: &[&str], seeds: u64) -> StudySpec {
    StudySpec { seeds, cost: Cost::Flop, ..spec(corpus, grid) }
}

/// The study of `spec` without a rule, as its database has it.
fn exhaustive(corpus: &Corpus, spec: &StudySpec, folder: &Path) -> (Study, Vec<Curve>) {
    done(corpus, &StudySpec { rule: Rule::None, ..spec.clone() }, folder);
    read_curves(&Home::local(folder)).expect("a study")
}

/// What became of each trial.
fn fates(study: &Study) -> Vec<(String, u64, TrialState, u64, Option<String>)> {
    let of = |trial: &diapason_study::Trial| {
        let record = trial.record.as_ref().expect("it has begun");
        let params = study.cells[trial.cell].params.to_string();
        (params, trial.seed, record.state, record.steps, study.dropped(trial))
    };
    study.trials.iter().map(of).collect()
}

fn replayed((study, curves): &(Study, Vec<Curve>), rule: &str) -> Replayed {
    replay(study, curves, rule.parse().unwrap()).unwrap()
}

#[test]
fn a_replay_is_what_a_real_study_does() {
    let corpus = corpus();
    let rates = format!("learning_rate=0.001,{TOO_FAST}");
    let small = ["n_heads=2,4", "n_layers=1,2"];
    for (grid, seeds, rules) in [
        (vec![small[0], small[1]], 1, vec!["halving", "median:startup=1,warmup=0"]),
        (
            vec!["n_heads=1,2,4", "n_layers=1,2"],
            2,
            vec![
                "halving:eta=2,first=10",
                "hyperband:eta=3,first=5",
                "halving:asynchronous",
                "median:startup=9,warmup=0.1",
            ],
        ),
        (vec![small[0], small[1], rates.as_str()], 1, vec!["halving", "median:startup=1,warmup=0"]),
    ] {
        let (whole, real) = (folder(), folder());
        let spec = asked(&corpus, &grid, seeds);
        let study = exhaustive(&corpus, &spec, whole.path());
        for (i, rule) in rules.into_iter().enumerate() {
            let rule_ = rule.parse().unwrap();
            let real =
                done(&corpus, &StudySpec { rule: rule_, ..spec.clone() }, &real.path().join(i.to_string()));
            let replayed = replayed(&study, rule);
            assert_eq!(replayed.study.decisions, real.decisions, "{rule}");
            assert_eq!(fates(&replayed.study), fates(&real), "{rule}");
            assert_eq!(replayed.chosen, real.verdict().unwrap().chosen, "{rule}");
            let steps = real.trials.iter().map(|trial| trial.record.as_ref().unwrap().steps);
            assert_eq!(replayed.trained.steps, steps.sum::<u64>(), "{rule}");
            assert!(replayed.trained.steps < replayed.all.steps && replayed.ended > 0, "{rule}");
            assert_eq!(replayed.study.trained_share(), real.trained_share());
            assert_eq!(replayed.full_chosen, study.0.verdict().unwrap().chosen);
        }
    }
}

#[test]
fn patience_and_the_notebooks_rule() {
    let (corpus, whole, real) = (corpus(), folder(), folder());
    let eager = Config { min_improvement: 0.05, ..config() };
    let spec = StudySpec { config: eager.clone(), ..asked(&corpus, &["n_heads=2,4", "n_layers=1,2"], 1) };
    let study = exhaustive(&corpus, &spec, whole.path());
    let with_patience = Config { patience: 1, ..eager };
    let real = done(&corpus, &StudySpec { config: with_patience, ..spec.clone() }, real.path());
    let replayed_ = replayed(&study, "patience:1");
    assert_eq!(fates(&replayed_.study), fates(&real));
    assert_eq!(replayed_.chosen, real.verdict().unwrap().chosen);
    assert!(replayed_.ended > 0, "{:?}", fates(&real));
    for (mine, other) in replayed_.study.trials.iter().zip(&real.trials) {
        let best =
            |trial: &diapason_study::Trial| trial.record.as_ref().unwrap().best.unwrap().validation_loss;
        assert_eq!(best(mine).to_bits(), best(other).to_bits());
    }
    assert_eq!(replayed(&study, "patience:1000").ended, 0);

    // By hand: the fifth evaluation that improves by more than a thousandth.
    let as_seed = replay(&study.0, &study.1, Rule::AsSeed);
    let stop = |curve: &Curve| {
        let (mut best, mut improvements) = (1000.0, 0);
        for (&step, &loss) in curve {
            if loss + 1e-3 < best {
                (best, improvements) = (loss, improvements + 1);
            }
            if improvements == 5 {
                return Some(step);
            }
        }
        None
    };
    let stops: Vec<Option<u64>> = study.1.iter().map(stop).collect();
    match as_seed {
        Ok(as_seed) => {
            for (trial, stop) in as_seed.study.trials.iter().zip(&stops) {
                let record = trial.record.as_ref().unwrap();
                assert_eq!(record.steps, stop.unwrap_or(40));
                assert_eq!(record.state == TrialState::Complete, stop.is_some() || record.failure.is_none());
            }
        }
        Err(error) => assert!(matches!(error, ReplayError::NoResult { .. }) && stops == [None; 4], "{error}"),
    }
}

#[test]
fn without_a_rule_nothing_is_lost_and_nothing_saved() {
    let (corpus, whole) = (corpus(), folder());
    let study = exhaustive(&corpus, &asked(&corpus, &["n_heads=2,4", "n_layers=1,2"], 1), whole.path());
    let all = replayed(&study, "none");
    assert!(all.same_choice());
    assert_eq!((all.ended, all.regret, all.trained), (0, Some(0.0), all.all));
    assert_eq!(all.all.steps, 160);
    assert_eq!(all.trained.saved(&all.all, Cost::Flop), 0.0);
    // Where the rule chooses another, its loss at the end is what counts.
    let decision = study.0.decision(diapason_study::Pass::Full).unwrap();
    for rule in ["halving:eta=4,first=5", "halving", "as-seed"] {
        let Ok(of) = replay(&study.0, &study.1, rule.parse().unwrap()) else { continue };
        let place = decision.candidates.iter().position(|candidate| candidate.params == of.chosen).unwrap();
        let best = decision.candidates[decision.decision.best].loss;
        let expected = (decision.candidates[place].loss - best) / best;
        assert!((of.regret_to_best.unwrap() - expected).abs() < 1e-12, "{rule}");
    }
}

#[test]
fn seeds_that_some_have_and_trials_of_others_are_left_out() {
    let (corpus, whole) = (corpus(), folder());
    let spec = StudySpec { tolerance: 0.002, ..asked(&corpus, &["n_heads=1,8", "n_layers=1,2"], 1) };
    let before = exhaustive(&corpus, &spec, whole.path());
    let until = StudySpec { until_decided: Some(3), ..spec };
    let after = done(&corpus, &until, whole.path());
    let trials = after.trials.len();
    assert!(trials > 4);
    let after = read_curves(&Home::local(whole.path())).unwrap();
    let (before, after) = (replayed(&before, "halving"), replayed(&after, "halving"));
    assert_eq!(fates(&before.study), fates(&after.study));
    assert_eq!((before.chosen, before.all), (after.chosen, after.all));
    assert_eq!((before.left_out, after.left_out), (0, trials - 4));
}

#[test]
fn what_cannot_be_replayed_says_why() {
    let corpus = corpus();
    let spec = asked(&corpus, &["n_heads=2,4", "n_layers=1,2"], 1);
    let refused = |spec: &StudySpec, hooks: Hooks, rule: &str| {
        let folder = folder();
        ran(&corpus, spec, folder.path(), hooks).study.unwrap();
        let (study, curves) = read_curves(&Home::local(folder.path())).unwrap();
        let error = replay(&study, &curves, rule.parse().unwrap()).unwrap_err();
        assert!(
            error.hint().is_some() || matches!(error, ReplayError::NoGrid | ReplayError::NoResult { .. })
        );
        error.to_string()
    };
    let interrupted = || Hooks { interrupt_at: AtomicU64::new(50), ..Hooks::default() };
    let text = refused(&spec, interrupted(), "halving");
    assert!(text.starts_with("the study is not finished: 3 of 4 trials are not at their end"), "{text}");
    let halved = StudySpec { rule: "halving".parse().unwrap(), ..spec.clone() };
    let text = refused(&halved, Hooks::default(), "median");
    assert!(text.starts_with("rule halving:eta=2 of the study ended 2 of 4 trials itself"), "{text}");
    let text = refused(&spec, Hooks::default(), "halving:first=40");
    assert!(text.contains("leave no room for a rung"), "{text}");
    let as_seed = StudySpec { protocol: Protocol::AsSeed, ..spec.clone() };
    let text = refused(&as_seed, Hooks::default(), "halving");
    assert!(text.contains("evaluates on other text each time"), "{text}");
    let enqueued = StudySpec { enqueued_only: true, ..spec.clone() };
    let text = refused(&enqueued, Hooks::default(), "none");
    assert!(text.contains("no trials of its own"), "{text}");
    let impatient = Config { patience: 1, min_improvement: 0.05, ..config() };
    let text = refused(&StudySpec { config: impatient, ..spec.clone() }, Hooks::default(), "patience:3");
    assert!(text.contains("the study's own patience of 1 ended trial "), "{text}");
    let failed = StudySpec { ..asked(&corpus, &[&format!("learning_rate={TOO_FAST}")], 1) };
    assert_eq!(refused(&failed, Hooks::default(), "none"), "rule none: no configuration has a result");
}
