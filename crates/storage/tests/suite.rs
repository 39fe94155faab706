//! What a storage does, on both databases.

mod common;

use common::{Fixture, Kind, until};
use diapason_storage::{
    Attributes, Claim, Claimed, Cost, Decision, Direction, Distribution, EXTENDS, FAIL_REASON, Finished, How,
    ItemState, NewTrial, Opening, Outcome, Page, Param, Policy, Record, Storage, StorageError, StudyId,
    TrialState, Worker,
};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// Each test on SQLite and on PostgreSQL.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[test]
            fn $name() {
                super::$name(&super::Fixture::new(super::Kind::Sqlite).unwrap());
            })*
        }
        mod postgres {
            $(#[test]
            fn $name() {
                if let Some(fixture) = super::Fixture::new(super::Kind::Postgres) {
                    super::$name(&fixture);
                }
            })*
        }
    };
}

on_both!(
    studies_are_made_listed_and_deleted,
    attributes_come_back,
    a_grid_is_enqueued_once,
    many_enqueue_the_same_grid,
    a_parameter_keeps_its_kind,
    what_has_no_room_is_refused,
    a_trial_from_claim_to_result,
    numbers_that_are_none,
    a_pruned_trial_has_the_last_value_that_is_a_number,
    failures_are_tried_again_a_bounded_number_of_times,
    what_is_let_go_goes_on,
    rungs_are_decided_once,
    a_silent_worker_loses_its_trial_and_cannot_spoil_it,
    workers_lost_without_progress_are_bounded,
    another_arithmetic_takes_nothing_over,
    a_trial_ended_by_others_is_noticed,
    what_python_enqueued_is_adopted,
    finished_trials_are_extended,
    pages_and_export,
    costs_are_kept,
    what_is_not_understood_is_refused,
    reading_writes_nothing,
    many_make_the_schema_at_once,
    a_deleted_study_leaves_nothing_to_the_next,
    attributes_that_python_wrote_are_read,
);

fn int(name: &str, value: i64) -> Param {
    let distribution = Distribution::Int { low: 0, high: 1000, log: false, step: 1 };
    Param { name: name.to_string(), value: json!(value), distribution }
}

fn trial(key: &str, value: i64) -> NewTrial {
    NewTrial {
        key: key.to_string(),
        params: vec![int("d_model", value)],
        user_attributes: vec![("seed".to_string(), json!(0))],
        system_attributes: Vec::new(),
    }
}

/// A study with this many trials, `k0`, `k1`, ...
fn study_with(fixture: &Fixture, trials: i64) -> (Storage, StudyId) {
    let mut storage = fixture.open();
    let study = storage.create_study("study", Direction::Minimize, &[]).unwrap();
    let trials: Vec<NewTrial> = (0..trials).map(|i| trial(&format!("k{i}"), i)).collect();
    storage.enqueue(study, &trials).unwrap();
    (storage, study)
}

fn worker(name: &str) -> Worker {
    let mut worker = Worker::this_process("cpu-1");
    worker.name = name.to_string();
    worker
}

fn claim(storage: &mut Storage, study: StudyId) -> Claim {
    claim_as(storage, study, "worker", &Policy::default())
}

fn claim_as(storage: &mut Storage, study: StudyId, name: &str, policy: &Policy) -> Claim {
    match storage.claim(study, &worker(name), policy).unwrap() {
        Claimed::Work(claim) => *claim,
        nothing => panic!("{nothing:?}"),
    }
}

fn is_lost<T: std::fmt::Debug>(result: Result<T, StorageError>) -> bool {
    matches!(result, Err(StorageError::LeaseLost { .. }))
}

fn short() -> Policy {
    Policy { lease: Duration::from_millis(100), ..Policy::default() }
}

fn wait_for_the_lease() {
    std::thread::sleep(Duration::from_millis(150));
}

fn studies_are_made_listed_and_deleted(fixture: &Fixture) {
    let mut storage = fixture.open();
    assert!(storage.studies().unwrap().is_empty());
    let name = "größe 幅 'quoted'; DROP TABLE studies; --";
    let study = storage
        .create_study(name, Direction::Minimize, &[(Attributes::System, "a".to_string(), json!("b"))])
        .unwrap();
    assert_eq!(storage.create_study(name, Direction::Minimize, &[]).unwrap(), study);
    assert_eq!(storage.study(name).unwrap(), study);
    let other = storage.create_study(name, Direction::Maximize, &[]).unwrap_err();
    assert!(matches!(other, StorageError::StudyExists { .. }), "{other}");
    assert!(matches!(storage.study("absent"), Err(StorageError::NoStudy { .. })));
    storage.create_study("second", Direction::Maximize, &[]).unwrap();
    storage.enqueue(study, &[trial("a", 1)]).unwrap();
    let claim = claim(&mut storage, study);
    storage
        .finish(&claim.lease, &Record::new().value(1, 0.5), &Outcome::Complete(0.25), &Policy::default())
        .unwrap();

    let all = storage.studies().unwrap();
    assert_eq!(all.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), [name, "second"]);
    assert_eq!((all[0].trials, all[0].best, all[1].best), (1, Some(0.25), None));
    assert_eq!(all[1].directions, [Direction::Maximize]);
    assert!(all[0].begun.is_some());

    storage.delete_study(name).unwrap();
    assert!(matches!(storage.delete_study(name), Err(StorageError::NoStudy { .. })));
    assert_eq!(storage.studies().unwrap().len(), 1);
    for table in ["trials", "trial_params", "trial_values", "trial_intermediate_values", "diapason_items"] {
        assert_eq!(fixture.number(&format!("SELECT COUNT(*) FROM {table}")), 0, "{table}");
    }
}

fn attributes_come_back(fixture: &Fixture) {
    let mut storage = fixture.open();
    let study = storage.create_study("study", Direction::Minimize, &[]).unwrap();
    let value = json!({"größe": [1, 2.5, null, true], "zero": "a\u{0}b", "text": "x".repeat(100_000)});
    let attributes = [("b".to_string(), value.clone()), ("a".to_string(), json!(1e-300))];
    for kind in [Attributes::User, Attributes::System] {
        storage.set_study_attributes(study, kind, &attributes).unwrap();
        storage.set_study_attributes(study, kind, &[("a".to_string(), json!(0.1))]).unwrap();
        let back = storage.study_attributes(study, kind).unwrap();
        assert_eq!(back, [("a".to_string(), json!(0.1)), ("b".to_string(), value.clone())]);
    }
    let too_long = [("x".repeat(513), json!(1)), ("c".to_string(), json!(1))];
    assert!(storage.set_study_attributes(study, Attributes::User, &too_long).is_err());
    assert_eq!(storage.study_attributes(study, Attributes::User).unwrap().len(), 2);
}

fn a_grid_is_enqueued_once(fixture: &Fixture) {
    let (mut storage, study) = study_with(fixture, 3);
    let again: Vec<NewTrial> = (0..5).map(|i| trial(&format!("k{i}"), i)).collect();
    let done = storage.enqueue(study, &again).unwrap();
    assert_eq!((done.added, done.known), (2, 3));
    let trials = storage.trials(study, Page::default()).unwrap();
    assert_eq!(trials.iter().map(|t| t.number).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert!(trials.iter().all(|t| t.state == TrialState::Waiting && t.datetime_start.is_none()));
    assert_eq!(trials[4].params["d_model"], json!(4));
    assert_eq!(trials[4].system_attributes["fixed_params"], json!({"d_model": 4}));
    assert_eq!(trials[4].user_attributes["seed"], json!(0));
    assert_eq!(trials[4].item.as_ref().unwrap().key, "k4");
    // Another study has keys of its own.
    let other = storage.create_study("other", Direction::Minimize, &[]).unwrap();
    assert_eq!(storage.enqueue(other, &again).unwrap().added, 5);
    assert_eq!(storage.trials(other, Page::default()).unwrap()[4].number, 4);
    assert!(storage.enqueue(other, &[trial("x", 1), trial("x", 2)]).is_err());
}

fn many_enqueue_the_same_grid(fixture: &Fixture) {
    let (_, study) = study_with(fixture, 0);
    std::thread::scope(|scope| {
        for thread in 0..6 {
            scope.spawn(move || {
                let mut storage = fixture.open();
                // Overlapping parts of one grid, and a study that all of them make.
                let part: Vec<NewTrial> =
                    (thread * 10..thread * 10 + 40).map(|i| trial(&format!("k{i}"), i)).collect();
                storage.enqueue(study, &part).unwrap();
                storage.create_study("shared", Direction::Minimize, &[]).unwrap();
            });
        }
    });
    let mut storage = fixture.open();
    let trials = storage.trials(study, Page::default()).unwrap();
    let numbers: BTreeSet<i64> = trials.iter().map(|t| t.number).collect();
    assert_eq!(numbers, (0..90).collect());
    let keys: BTreeSet<String> = trials.iter().map(|t| t.item.as_ref().unwrap().key.clone()).collect();
    assert_eq!((trials.len(), keys.len()), (90, 90));
}

fn a_parameter_keeps_its_kind(fixture: &Fixture) {
    let (mut storage, study) = study_with(fixture, 1);
    let with = |key: &str, value: Json, distribution| NewTrial {
        key: key.to_string(),
        params: vec![Param { name: "d_model".to_string(), value, distribution }],
        user_attributes: Vec::new(),
        system_attributes: Vec::new(),
    };
    // Bounds may widen.
    let wider = Distribution::Int { low: 0, high: 5000, log: false, step: 1 };
    storage.enqueue(study, &[with("wider", json!(4096), wider)]).unwrap();
    let real = Distribution::Float { low: 0.0, high: 1.0, log: false, step: None };
    let named = Distribution::Categorical { choices: vec![json!("a")] };
    let log = Distribution::Int { low: 1, high: 9, log: true, step: 1 };
    for (value, distribution) in [(json!(0.5), real), (json!("a"), named), (json!(3), log)] {
        let both = [trial("new", 5), with("bad", value, distribution)];
        let error = storage.enqueue(study, &both).unwrap_err().to_string();
        assert!(error.contains("Optuna allows one kind"), "{error}");
    }
    assert_eq!(storage.trials(study, Page::default()).unwrap().len(), 2, "all or nothing");
}

fn what_has_no_room_is_refused(fixture: &Fixture) {
    let (mut storage, study) = study_with(fixture, 1);
    let refused = |result: Result<_, StorageError>| matches!(result, Err(StorageError::Refused { .. }));
    assert!(refused(storage.enqueue(study, &[trial(&"k".repeat(513), 1)]).map(|_| ())));
    assert!(refused(storage.enqueue(study, &[trial("k\0", 1)]).map(|_| ())));
    assert!(refused(storage.enqueue(study, &[trial("outside", 1001)]).map(|_| ())));
    assert!(refused(storage.create_study("", Direction::Minimize, &[]).map(|_| ())));
    let twice = NewTrial { params: vec![int("a", 1), int("a", 2)], ..trial("twice", 1) };
    assert!(refused(storage.enqueue(study, &[twice]).map(|_| ())));
    let claim = claim(&mut storage, study);
    let late = Record::new().value(1 << 31, 0.0).attribute("before", 1);
    assert!(refused(storage.record(&claim.lease, &late, &Policy::default())));
    assert!(storage.trial(study, 0).unwrap().user_attributes.get("before").is_none());
}

fn a_trial_from_claim_to_result(fixture: &Fixture) {
    let (mut storage, study) = study_with(fixture, 3);
    let policy = Policy::default();
    let first = claim(&mut storage, study);
    assert_eq!((first.trial.number, first.lease.key(), &first.how, first.step), (0, "k0", &How::New, 0));
    assert_eq!(first.trial.params["d_model"], json!(0));
    let running = storage.trial(study, 0).unwrap();
    assert_eq!(running.state, TrialState::Running);
    let item = running.item.unwrap();
    assert_eq!(
        (item.state, item.owner.as_deref(), item.engine.as_deref()),
        (ItemState::Held, Some("worker"), Some("cpu-1"))
    );
    assert!(item.lease_left.is_some_and(|left| left > 30.0 && left <= 60.0), "{:?}", item.lease_left);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM trial_heartbeats"), 1);
    assert_eq!(claim(&mut storage, study).trial.number, 1);

    let record = Record::new().value(10, 2.5).value(20, 2.25).attribute("tokens", 1).safe_step(20);
    storage.record(&first.lease, &record, &policy).unwrap();
    let record =
        Record::new().value(20, 2.0).value(30, 1.5).attribute("tokens", 2.5).attribute("größe", "幅");
    let finished = storage.finish(&first.lease, &record, &Outcome::Complete(1.5), &policy).unwrap();
    assert_eq!(finished, Finished::Done);
    let done = storage.trial(study, 0).unwrap();
    assert_eq!((done.state, done.values.as_slice()), (TrialState::Complete, &[1.5][..]));
    assert_eq!(done.intermediate_values.into_iter().collect::<Vec<_>>(), [(10, 2.5), (20, 2.0), (30, 1.5)]);
    assert_eq!(
        (&done.user_attributes["tokens"], &done.user_attributes["größe"]),
        (&json!(2.5), &json!("幅"))
    );
    let (start, end) = (done.datetime_start.unwrap(), done.datetime_complete.unwrap());
    assert!(start <= end && start.len() == 26 && start.starts_with("20"), "{start} {end}");
    assert_eq!(done.item.unwrap().state, ItemState::Done);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM trial_heartbeats"), 1, "the other trial's");
    // It is over: nothing more can be said of it.
    assert!(is_lost(storage.record(&first.lease, &record, &policy)));
    assert!(is_lost(storage.finish(&first.lease, &record, &Outcome::Pruned, &policy)));
    assert!(is_lost(storage.release(&first.lease, &record)));
    // Naive UTC, whatever the time zones of server and session are.
    let off = match fixture.kind {
        Kind::Sqlite => "SELECT ABS(unixepoch() - unixepoch(datetime_start)) FROM trials WHERE number = 0",
        Kind::Postgres => {
            "SELECT ABS(EXTRACT(EPOCH FROM timezone('UTC', now()) - datetime_start)) FROM trials WHERE number = 0"
        }
    };
    assert!(fixture.number(off) < 300);
    // Heartbeats as Optuna compares them: with the session's own `now()`.
    let age = match fixture.kind {
        Kind::Sqlite => "SELECT unixepoch(CURRENT_TIMESTAMP) - unixepoch(heartbeat) FROM trial_heartbeats",
        Kind::Postgres => {
            "SELECT EXTRACT(EPOCH FROM CAST(now() AS TIMESTAMP) - heartbeat) FROM trial_heartbeats"
        }
    };
    assert!((-1..300).contains(&fixture.number(age)));
}

fn numbers_that_are_none(fixture: &Fixture) {
    let (mut storage, study) = study_with(fixture, 3);
    let policy = Policy::default();
    let strange =
        Record::new().value(1, f64::NAN).value(2, f64::INFINITY).value(3, f64::NEG_INFINITY).value(4, 5e-324);
    let lease = claim(&mut storage, study).lease;
    storage.record(&lease, &strange, &policy).unwrap();
    // NaN is no value, and would be NaN again.
    let finished = storage.finish(&lease, &Record::new(), &Outcome::Complete(f64::NAN), &policy).unwrap();
    assert_eq!(finished, Finished::Failed);
    let failed = storage.trial(study, 0).unwrap();
    assert_eq!((failed.state, failed.values.len()), (TrialState::Fail, 0));
    assert_eq!(failed.user_attributes[FAIL_REASON], json!("its value is NaN"));
    let values: Vec<f64> = failed.intermediate_values.values().copied().collect();
    assert!(values[0].is_nan() && values[1..] == [f64::INFINITY, f64::NEG_INFINITY, 5e-324]);
    let lease = claim(&mut storage, study).lease;
    storage.finish(&lease, &Record::new(), &Outcome::Complete(f64::INFINITY), &policy).unwrap();
    assert_eq!(storage.trial(study, 1).unwrap().values, [f64::INFINITY]);
    let json = serde_json::to_value(storage.trial(study, 0).unwrap()).unwrap();
    assert_eq!(
        json["intermediate_values"],
        json!({"1": "NaN", "2": "Infinity", "3": "-Infinity", "4": 5e-324})
    );
    assert_eq!(
        fixture.number("SELECT COUNT(*) FROM trial_values WHERE value_type = 'INF_POS' AND value IS NULL"),
        1
    );
}

fn a_pruned_trial_has_the_last_value_that_is_a_number(fixture: &Fixture) {
    let (mut storage, study) = study_with(fixture, 3);
    let policy = Policy::default();
    let mut pruned = |record: Record| {
        let claim = claim(&mut storage, study);
        assert_eq!(
            storage.finish(&claim.lease, &record, &Outcome::Pruned, &policy).unwrap(),
            Finished::Pruned
        );
        let trial = storage.trial(study, claim.trial.number).unwrap();
        assert_eq!((trial.state, trial.item.unwrap().state), (TrialState::Pruned, ItemState::Pruned));
        trial.values
    };
    assert_eq!(pruned(Record::new().value(1, 1.0).value(2, 3.0)), [3.0]);
    assert!(pruned(Record::new().value(1, 1.0).value(2, f64::NAN)).is_empty());
    assert!(pruned(Record::new()).is_empty());
}

fn failures_are_tried_again_a_bounded_number_of_times(fixture: &Fixture) {
    let (mut storage, study) = study_with(fixture, 2);
    let policy = Policy { retries: 2, ..Policy::default() };
    let failure = |retry| Outcome::Failed { reason: "disk\nfull \x1b[2J".to_string(), retry };
    let first = claim(&mut storage, study);
    let record = Record::new().value(1, 9.0).attribute("checkpoint", "trials/a");
    let fail = |storage: &mut Storage, claim: &Claim| {
        storage.finish(&claim.lease, &record, &failure(true), &policy).unwrap()
    };
    assert_eq!(fail(&mut storage, &first), Finished::Retried { number: 2 });
    // Its place in the queue is that of its item.
    let second = claim(&mut storage, study);
    assert_eq!((second.lease.key(), second.trial.number, second.failures), ("k0", 2, 1));
    assert_eq!(second.how, How::Continued);
    assert_eq!(second.trial.params, first.trial.params);
    assert_eq!(second.trial.user_attributes["checkpoint"], json!("trials/a"));
    assert!(!second.trial.user_attributes.contains_key(FAIL_REASON));
    assert_eq!(second.trial.system_attributes["failed_trial"], json!(0));
    assert_eq!(second.trial.system_attributes["retry_history"], json!([0]));
    assert!(storage.trial(study, 2).unwrap().intermediate_values.is_empty());
    assert_eq!(fail(&mut storage, &second), Finished::Retried { number: 3 });
    let third = claim(&mut storage, study);
    assert_eq!(third.trial.system_attributes["failed_trial"], json!(0));
    assert_eq!(third.trial.system_attributes["retry_history"], json!([0, 2]));
    assert_eq!(fail(&mut storage, &third), Finished::Failed);
    // Reported, not forgotten, and not tried again.
    let failed = storage.items(study, Some(ItemState::Failed), None, 10).unwrap();
    assert_eq!((failed.len(), failed[0].key.as_str(), failed[0].failures), (1, "k0", 3));
    assert_eq!(storage.trial(study, 3).unwrap().user_attributes[FAIL_REASON], json!("disk full \\u{1b}[2J"));
    let other = claim(&mut storage, study);
    assert_eq!(other.lease.key(), "k1");
    assert_eq!(storage.finish(&other.lease, &record, &failure(false), &policy).unwrap(), Finished::Failed);
    let Claimed::Nothing { counts, .. } = storage.claim(study, &worker("w"), &policy).unwrap() else {
        panic!()
    };
    assert_eq!((counts.of(ItemState::Failed), counts.all(), counts.is_unfinished()), (2, 2, false));
    // Somebody has mended what was wrong.
    let k0 = storage.item(study, "k0").unwrap().unwrap();
    assert!(storage.item(study, "absent").unwrap().is_none());
    assert_eq!(storage.try_again(study, &[k0.id]).unwrap(), 1);
    assert_eq!(storage.try_again(study, &[k0.id]).unwrap(), 0);
    let fourth = claim(&mut storage, study);
    assert_eq!((fourth.lease.key(), fourth.failures), ("k0", 0));
    assert_eq!(fourth.trial.system_attributes["retry_history"], json!([0, 2, 3]));
}

fn what_is_let_go_goes_on(fixture: &Fixture) {
    let (mut storage, study) = study_with(fixture, 2);
    let policy = Policy::default();
    let first = claim(&mut storage, study);
    storage.release(&first.lease, &Record::new().value(5, 1.0).safe_step(7)).unwrap();
    assert_eq!(fixture.number("SELECT COUNT(*) FROM trial_heartbeats"), 0);
    assert!(is_lost(storage.record(&first.lease, &Record::new(), &policy)));
    assert_eq!(storage.trial(study, 0).unwrap().state, TrialState::Running);
    let again = claim(&mut storage, study);
    assert_eq!((again.trial.number, again.step, &again.how), (0, 7, &How::Continued));
    assert_eq!(storage.trial(study, 0).unwrap().intermediate_values.len(), 1);
    assert_eq!(again.trial.datetime_start, first.trial.datetime_start);
    // Its checkpoint is lost: from the beginning, and nothing that was said stays.
    storage.restart(&again.lease).unwrap();
    let trial = storage.trial(study, 0).unwrap();
    assert!(trial.intermediate_values.is_empty() && trial.item.unwrap().step == 0);
}

fn rungs_are_decided_once(fixture: &Fixture) {
    let (mut storage, study) = study_with(fixture, 3);
    let policy = Policy::default();
    let claims: Vec<Claim> = (0..3).map(|_| claim(&mut storage, study)).collect();
    for (claim, loss) in claims.iter().zip([1.0, 2.0, 3.0]) {
        storage.park(&claim.lease, &Record::new().value(100, loss).safe_step(100), 1).unwrap();
    }
    let Claimed::Nothing { counts, .. } = storage.claim(study, &worker("w"), &policy).unwrap() else {
        panic!()
    };
    assert_eq!((counts.of(ItemState::Rung), counts.is_unfinished()), (3, true));
    assert_eq!(storage.complete_values_at(study, 100).unwrap(), (0, vec![]), "none has its result");
    let items: Vec<_> = claims.iter().map(|claim| claim.lease.item()).collect();
    let decisions = [(items[2], Decision::Prune), (items[0], Decision::Promote)];
    let reason = ("rung_1".to_string(), json!({"promoted": ["k0"], "loss": 0.1}));
    assert_eq!(storage.decide(study, 0, &decisions, None).unwrap(), 0, "they wait at another rung");
    assert_eq!(storage.decide(study, 1, &decisions, Some(&reason)).unwrap(), 2);
    assert_eq!(storage.decide(study, 1, &decisions, Some(&reason)).unwrap(), 0, "another decided the same");
    let other = (reason.0.clone(), json!({"promoted": ["k1"]}));
    assert_eq!(storage.decide(study, 1, &[(items[1], Decision::Promote)], Some(&other)).unwrap(), 0);
    let pruned = storage.trial(study, 2).unwrap();
    assert_eq!((pruned.state, pruned.values.as_slice()), (TrialState::Pruned, &[3.0][..]));
    assert_eq!(storage.trial(study, 1).unwrap().item.unwrap().state, ItemState::Rung);
    let promoted = claim(&mut storage, study);
    assert_eq!((promoted.trial.number, promoted.rung, promoted.step), (0, Some(1), 100));
    let (policy, ended) = (Policy::default(), Outcome::Complete(0.5));
    storage.finish(&promoted.lease, &Record::new().value(200, 0.5), &ended, &policy).unwrap();
    assert_eq!(storage.complete_values_at(study, 100).unwrap(), (1, vec![1.0]));
    assert_eq!(storage.complete_values_at(study, 300).unwrap(), (1, vec![]));
    assert_eq!(storage.study_attributes(study, Attributes::User).unwrap(), [reason]);
    assert_eq!(pruned.system_attributes["completed_rung_1"], json!(3.0));
    assert!(!pruned.system_attributes.contains_key("completed_rung_0"));
}

fn a_silent_worker_loses_its_trial_and_cannot_spoil_it(fixture: &Fixture) {
    let (mut storage, study) = study_with(fixture, 1);
    let policy = short();
    let slow = claim_as(&mut storage, study, "slow", &policy);
    storage.record(&slow.lease, &Record::new().value(1, 4.0).safe_step(3), &policy).unwrap();
    let Claimed::Nothing { counts, .. } =
        storage.claim(study, &worker("fast"), &Policy { lease: Duration::from_secs(99), ..policy }).unwrap()
    else {
        // The machine was so slow that the lease was over already.
        return;
    };
    assert_eq!(counts.of(ItemState::Held), 1);
    wait_for_the_lease();
    // Late, but nobody else wanted it.
    storage.record(&slow.lease, &Record::new().value(2, 3.0), &policy).unwrap();
    wait_for_the_lease();
    let fast = claim_as(&mut storage, study, "fast", &Policy::default());
    assert_eq!(fast.how, How::TakenOver { owner: "slow".to_string(), dead: false });
    assert_eq!((fast.trial.number, fast.step), (0, 3));
    let spoil = Record::new().value(1, 99.0).value(3, 99.0).attribute("spoilt", true);
    assert!(is_lost(storage.record(&slow.lease, &spoil, &policy)));
    assert!(is_lost(storage.finish(&slow.lease, &spoil, &Outcome::Complete(99.0), &policy)));
    assert!(is_lost(storage.finish(
        &slow.lease,
        &spoil,
        &Outcome::Failed { reason: "x".into(), retry: true },
        &policy
    )));
    assert!(is_lost(storage.release(&slow.lease, &spoil)));
    assert!(is_lost(storage.park(&slow.lease, &spoil, 1)));
    assert!(is_lost(storage.restart(&slow.lease)));
    let both = [(&slow.lease, &spoil), (&fast.lease, &Record::new().value(3, 2.0))];
    assert_eq!(storage.record_all(&both, &Policy::default()).unwrap(), [false, true]);
    storage.finish(&fast.lease, &Record::new(), &Outcome::Complete(2.0), &policy).unwrap();
    let done = storage.trial(study, 0).unwrap();
    assert_eq!(done.values, [2.0]);
    assert_eq!(done.intermediate_values.into_iter().collect::<Vec<_>>(), [(1, 4.0), (2, 3.0), (3, 2.0)]);
    assert!(!done.user_attributes.contains_key("spoilt"));
}

fn workers_lost_without_progress_are_bounded(fixture: &Fixture) {
    let (mut storage, study) = study_with(fixture, 1);
    let policy = Policy { losses: 2, ..short() };
    let first = claim_as(&mut storage, study, "a", &policy);
    wait_for_the_lease();
    let second = claim_as(&mut storage, study, "b", &policy);
    wait_for_the_lease();
    let third = claim_as(&mut storage, study, "c", &policy);
    // Progress makes up for what was lost before.
    storage.record(&third.lease, &Record::new().safe_step(10), &policy).unwrap();
    for name in ["d", "e", "f"] {
        wait_for_the_lease();
        claim_as(&mut storage, study, name, &policy);
    }
    wait_for_the_lease();
    let Claimed::Nothing { counts, .. } = storage.claim(study, &worker("g"), &policy).unwrap() else {
        panic!()
    };
    assert_eq!(counts.of(ItemState::Failed), 1);
    let trial = storage.trial(study, 0).unwrap();
    assert_eq!(trial.state, TrialState::Fail);
    let reason = trial.user_attributes[FAIL_REASON].as_str().unwrap().to_string();
    assert!(reason.starts_with("3 workers were lost") && reason.ends_with("step 10"), "{reason}");
    assert!(is_lost(storage.record(&first.lease, &Record::new(), &policy)));
    assert!(is_lost(storage.record(&second.lease, &Record::new(), &policy)));
}

fn another_arithmetic_takes_nothing_over(fixture: &Fixture) {
    let (mut storage, study) = study_with(fixture, 3);
    let policy = short();
    let released = claim_as(&mut storage, study, "a", &policy);
    storage.release(&released.lease, &Record::new().safe_step(1)).unwrap();
    let silent = claim_as(&mut storage, study, "a", &policy);
    assert_eq!(silent.lease.key(), "k0");
    wait_for_the_lease();
    let mut other = worker("other");
    other.engine = "gpu-1".to_string();
    // What nobody has begun is anybody's.
    let Claimed::Work(fresh) = storage.claim(study, &other, &Policy::default()).unwrap() else { panic!() };
    assert_eq!((fresh.lease.key(), &fresh.other_engine), ("k1", &None));
    let Claimed::Work(_) = storage.claim(study, &other, &Policy::default()).unwrap() else { panic!() };
    let Claimed::Nothing { other_engine, .. } = storage.claim(study, &other, &policy).unwrap() else {
        panic!()
    };
    assert_eq!(other_engine, 1);
    other.allow_other_engine = true;
    let Claimed::Work(taken) = storage.claim(study, &other, &policy).unwrap() else { panic!() };
    assert_eq!((taken.lease.key(), taken.other_engine.as_deref()), ("k0", Some("cpu-1")));
    storage.release(&taken.lease, &Record::new()).unwrap();
    let Claimed::Nothing { other_engine, .. } = storage.claim(study, &worker("a"), &policy).unwrap() else {
        panic!()
    };
    assert_eq!(other_engine, 1, "it is the other's now");
}

fn a_trial_ended_by_others_is_noticed(fixture: &Fixture) {
    let (mut storage, study) = study_with(fixture, 2);
    let policy = Policy::default();
    let first = claim(&mut storage, study);
    // Optuna's heartbeat check found it stale.
    fixture.sql("UPDATE trials SET state = 'FAIL', datetime_complete = datetime_start WHERE number = 0");
    assert!(is_lost(storage.record(&first.lease, &Record::new().value(1, 1.0), &policy)));
    assert!(is_lost(storage.finish(&first.lease, &Record::new(), &Outcome::Complete(1.0), &policy)));
    assert_eq!(fixture.number("SELECT COUNT(*) FROM trial_intermediate_values"), 0);
    fixture.sql("UPDATE diapason_items SET lease_until = 0 WHERE item_key = 'k0'");
    let again = claim(&mut storage, study);
    assert_eq!((again.lease.key(), again.trial.number, again.failures), ("k0", 2, 1));
    assert_eq!(again.trial.system_attributes["retry_history"], json!([0]));
    // Somebody typed a value into a dashboard.
    let second = claim(&mut storage, study);
    storage.release(&second.lease, &Record::new()).unwrap();
    fixture.sql("UPDATE trials SET state = 'COMPLETE' WHERE number = 1");
    let Claimed::Nothing { counts, .. } = storage.claim(study, &worker("w"), &policy).unwrap() else {
        panic!()
    };
    assert_eq!((counts.of(ItemState::Done), counts.of(ItemState::Held)), (1, 1));
}

fn what_python_enqueued_is_adopted(fixture: &Fixture) {
    let (mut storage, study) = study_with(fixture, 1);
    // As `study.enqueue_trial` writes it.
    for (number, fixed) in [
        (1, r#"{"d_model": 64}"#),
        (2, r#"{"alien": 1}"#),
        (3, r#"{"d_model": 64}"#),
        (4, r#"{"d_model": 65}"#),
    ] {
        fixture.sql(&format!(
            "INSERT INTO trials (number, study_id, state) VALUES ({number}, {}, 'WAITING');
             INSERT INTO trial_system_attributes (trial_id, \"key\", value_json)
             SELECT trial_id, 'fixed_params', '{fixed}' FROM trials WHERE number = {number};",
            fixture.number("SELECT study_id FROM studies")
        ));
    }
    let recognise = |waiting: &diapason_storage::Waiting| {
        let value = waiting.fixed_params.get("d_model")?.as_i64()?;
        Some(NewTrial {
            user_attributes: vec![("seed".to_string(), json!(7))],
            ..trial(&format!("d{value}"), value)
        })
    };
    let done = storage.adopt(study, recognise).unwrap();
    assert_eq!((done.added, done.known), (2, 2));
    assert_eq!(storage.adopt(study, recognise).unwrap(), Default::default(), "nothing is left");
    let counts = storage.item_counts(study).unwrap();
    assert_eq!((counts.of(ItemState::Ready), counts.of(ItemState::Foreign)), (3, 2));
    assert_eq!(claim(&mut storage, study).trial.number, 0);
    let adopted = claim(&mut storage, study);
    assert_eq!((adopted.trial.number, adopted.lease.key()), (1, "d64"));
    assert_eq!(adopted.trial.params["d_model"], json!(64));
    assert_eq!(adopted.trial.user_attributes["seed"], json!(7));
    // A Python worker was quicker with the next one: it is that worker's affair, until it fails.
    fixture.sql("UPDATE trials SET state = 'RUNNING' WHERE number = 4");
    let Claimed::Nothing { counts, .. } = storage.claim(study, &worker("w"), &Policy::default()).unwrap()
    else {
        panic!()
    };
    assert_eq!((counts.of(ItemState::Away), counts.of(ItemState::Ready)), (1, 0));
    fixture.sql("UPDATE trials SET state = 'FAIL' WHERE number = 4");
    let back = claim(&mut storage, study);
    assert_eq!((back.lease.key(), back.trial.number), ("d65", 5));
}

fn finished_trials_are_extended(fixture: &Fixture) {
    let (mut storage, study) = study_with(fixture, 2);
    let policy = Policy::default();
    let first = claim(&mut storage, study);
    storage
        .finish(&first.lease, &Record::new().value(10, 2.0).safe_step(10), &Outcome::Complete(2.0), &policy)
        .unwrap();
    let items: Vec<_> = storage.items(study, None, None, 10).unwrap().iter().map(|item| item.id).collect();
    assert_eq!(storage.extend(study, &items).unwrap(), 1, "only what is done");
    assert_eq!(storage.extend(study, &items).unwrap(), 0);
    let again = claim(&mut storage, study);
    assert_eq!((again.lease.key(), again.trial.number, &again.how), ("k0", 2, &How::Continued));
    assert_eq!(again.trial.system_attributes[EXTENDS], json!(0));
    assert!(!again.trial.system_attributes.contains_key("failed_trial"));
    storage.finish(&again.lease, &Record::new().value(20, 1.0), &Outcome::Complete(1.0), &policy).unwrap();
    let trial = storage.trial(study, 2).unwrap();
    assert_eq!(trial.intermediate_values.into_iter().collect::<Vec<_>>(), [(10, 2.0), (20, 1.0)]);
    assert_eq!(storage.trial(study, 0).unwrap().values, [2.0], "what is finished stays as it is");
}

fn pages_and_export(fixture: &Fixture) {
    let (mut storage, study) = study_with(fixture, 250);
    let policy = Policy::default();
    for _ in 0..3 {
        let claim = claim(&mut storage, study);
        storage.finish(&claim.lease, &Record::new().value(1, 1.0), &Outcome::Complete(1.0), &policy).unwrap();
    }
    let numbers = |trials: &[diapason_storage::Trial]| trials.iter().map(|t| t.number).collect::<Vec<_>>();
    let page = |from, state, limit| Page { from, state, limit, curves: false };
    let first = storage.trials(study, page(0, None, 0)).unwrap();
    assert_eq!(numbers(&first), (0..100).collect::<Vec<_>>());
    assert!(
        first.iter().all(|t| t.intermediate_values.is_empty() && t.params.len() == 1 && t.item.is_some())
    );
    assert_eq!(
        numbers(&storage.trials(study, page(200, None, 100)).unwrap()),
        (200..250).collect::<Vec<_>>()
    );
    assert_eq!(numbers(&storage.trials(study, page(1, Some(TrialState::Complete), 100)).unwrap()), [1, 2]);
    assert_eq!(numbers(&storage.trials(study, page(1, Some(TrialState::Waiting), 2)).unwrap()), [3, 4]);
    assert!(storage.trials(study, page(250, None, 100)).unwrap().is_empty());
    assert!(storage.trial(study, 250).is_err() && storage.trial(study, -1).is_err());
    // Those of another study are not among them.
    let other = storage.create_study("other", Direction::Minimize, &[]).unwrap();
    let mut odd = trial("odd", 1);
    odd.params.push(int("a_param", 1));
    odd.user_attributes.push(("Z".to_string(), json!(1)));
    storage.enqueue(other, &[odd]).unwrap();
    let columns = |params: &[&str], attributes: &[&str]| {
        [params, attributes].map(|names| names.iter().map(|name| (*name).to_string()).collect::<Vec<_>>())
    };
    let both = |storage: &mut Storage, study| <[_; 2]>::from(storage.trial_columns(study).unwrap());
    assert_eq!(both(&mut storage, study), columns(&["d_model"], &["seed"]));
    assert_eq!(both(&mut storage, other), columns(&["a_param", "d_model"], &["Z", "seed"]));
    let mut exported = Vec::new();
    storage
        .export(study, |trial| -> Result<(), StorageError> {
            exported.push(trial);
            Ok(())
        })
        .unwrap();
    assert_eq!(numbers(&exported), (0..250).collect::<Vec<_>>());
    assert_eq!(exported[0].intermediate_values[&1], 1.0);
    let counts = storage.trial_counts(study).unwrap();
    assert_eq!((counts[&TrialState::Complete], counts[&TrialState::Waiting]), (3, 247));
    let items = storage.items(study, None, None, 200).unwrap();
    let rest = storage.items(study, Some(ItemState::Ready), items.last().map(|item| item.id), 200).unwrap();
    assert_eq!((items.len(), rest.len()), (200, 50));
}

fn costs_are_kept(fixture: &Fixture) {
    let (mut storage, study) = study_with(fixture, 0);
    let cost = |cell: &str, seconds_per_step| Cost {
        machine: "büro".to_string(),
        cell: cell.to_string(),
        seconds_per_step,
        detail: json!({"rounds": 5}),
    };
    storage.set_cost(study, &cost("d_model=256", 0.2)).unwrap();
    storage.set_cost(study, &cost("d_model=128", 0.1)).unwrap();
    storage.set_cost(study, &cost("d_model=256", 0.21)).unwrap();
    assert_eq!(storage.costs(study).unwrap(), [cost("d_model=128", 0.1), cost("d_model=256", 0.21)]);
    assert!(storage.set_cost(study, &cost("x", f64::NAN)).is_err());
}

fn what_is_not_understood_is_refused(fixture: &Fixture) {
    drop(fixture.open());
    let error = |fixture: &Fixture| match Storage::open(&fixture.storage_url(), Opening::Create) {
        Err(error @ StorageError::Incompatible { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    fixture.sql("UPDATE alembic_version SET version_num = 'v9.9.9'");
    assert!(error(fixture).contains("v9.9.9"));
    fixture.sql(
        "UPDATE alembic_version SET version_num = 'v3.2.0.a'; UPDATE version_info SET schema_version = 13",
    );
    assert!(error(fixture).contains("version 13"));
    fixture.sql("UPDATE version_info SET schema_version = 12; UPDATE diapason_version SET version = 2");
    assert!(error(fixture).contains("work items are of version 2"));
    fixture.sql("UPDATE diapason_version SET version = 1");
    drop(fixture.open());
    // What Optuna repairs, we repair.
    fixture.sql("DROP TABLE alembic_version");
    drop(fixture.open());
    assert_eq!(fixture.number("SELECT COUNT(*) FROM alembic_version WHERE version_num = 'v3.2.0.a'"), 1);
}

fn reading_writes_nothing(fixture: &Fixture) {
    let read = |fixture: &Fixture| Storage::open(&fixture.storage_url(), Opening::Read);
    assert!(matches!(read(fixture), Err(StorageError::NoDatabase { .. })));
    assert!(matches!(
        Storage::open(&fixture.storage_url(), Opening::Write),
        Err(StorageError::NoDatabase { .. })
    ));
    let (mut storage, study) = study_with(fixture, 2);
    claim(&mut storage, study);
    drop(storage);
    // As Python leaves it: without our tables.
    fixture.sql(match fixture.kind {
        Kind::Sqlite => "DROP TRIGGER diapason_forget; DROP TABLE diapason_items; DROP TABLE diapason_costs; DROP TABLE diapason_version",
        Kind::Postgres => "DROP TABLE diapason_items; DROP TABLE diapason_costs; DROP TABLE diapason_version",
    });
    let mode = "SELECT CASE journal_mode WHEN 'delete' THEN 1 ELSE 0 END FROM pragma_journal_mode";
    if fixture.kind == Kind::Sqlite {
        fixture.sql("PRAGMA journal_mode = DELETE");
        assert_eq!(fixture.number(mode), 1);
    }
    let mut storage = read(fixture).unwrap();
    let trials = storage.trials(study, Page::default()).unwrap();
    assert!(trials.len() == 2 && trials.iter().all(|t| t.item.is_none()));
    assert!(storage.items(study, None, None, 10).unwrap().is_empty());
    assert!(storage.costs(study).unwrap().is_empty());
    assert_eq!((storage.item_counts(study).unwrap().all(), storage.studies().unwrap().len()), (0, 1));
    drop(storage);
    if fixture.kind == Kind::Sqlite {
        assert_eq!(fixture.number(mode), 1);
    }
    let table = match fixture.kind {
        Kind::Sqlite => "SELECT COUNT(*) FROM sqlite_master WHERE name LIKE 'diapason%' AND type = 'table'",
        Kind::Postgres => "SELECT COUNT(*) FROM pg_class WHERE relname LIKE 'diapason%' AND relkind = 'r'",
    };
    assert_eq!(fixture.number(table), 0);
}

fn many_make_the_schema_at_once(fixture: &Fixture) {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| drop(fixture.open()))).collect();
        for thread in threads {
            thread.join().unwrap();
        }
    });
    for table in ["version_info", "alembic_version", "diapason_version"] {
        assert_eq!(fixture.number(&format!("SELECT COUNT(*) FROM {table}")), 1);
    }
}

fn a_deleted_study_leaves_nothing_to_the_next(fixture: &Fixture) {
    let (mut storage, study) = study_with(fixture, 2);
    storage
        .set_cost(
            study,
            &Cost { machine: "m".into(), cell: "c".into(), seconds_per_step: 1.0, detail: json!(null) },
        )
        .unwrap();
    // As Python deletes it, without foreign keys on SQLite.
    fixture.sql(
        "DELETE FROM trial_params; DELETE FROM trial_user_attributes; DELETE FROM trial_system_attributes;
         DELETE FROM trials; DELETE FROM study_directions; DELETE FROM studies;",
    );
    assert_eq!(fixture.number("SELECT COUNT(*) FROM diapason_items"), 0);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM diapason_costs"), 0);
    let next = storage.create_study("next", Direction::Minimize, &[]).unwrap();
    assert_eq!(storage.enqueue(next, &[trial("k0", 1)]).unwrap().added, 1);
}

fn attributes_that_python_wrote_are_read(fixture: &Fixture) {
    let (mut storage, study) = study_with(fixture, 1);
    fixture.sql(
        "INSERT INTO trial_user_attributes (trial_id, \"key\", value_json)
         SELECT trial_id, 'nan', '[NaN, -Infinity, 1.5]' FROM trials;
         INSERT INTO trial_user_attributes (trial_id, \"key\", value_json) SELECT trial_id, 'odd', 'no json' FROM trials;",
    );
    let trial = storage.trial(study, 0).unwrap();
    assert_eq!(trial.user_attributes["nan"], json!(["NaN", "-Infinity", 1.5]));
    assert_eq!(trial.user_attributes["odd"], json!("no json"));
}

/// TLS and passwords, as libpq has them.
#[test]
fn a_server_is_trusted_as_far_as_it_was_asked_for() {
    let Some(server) = common::Server::shared() else { return };
    let password = common::PASSWORD.replace('@', "%40").replace('/', "%2F");
    let file = |name: &str| server.folder.join(name).display().to_string();
    let open = |user: &str, host: &str, query: &str| {
        let url = format!("postgresql://{user}@{host}:{}/postgres?{query}", server.port);
        Storage::open(&diapason_storage::StorageUrl::parse(&url).unwrap(), Opening::Create).map(drop)
    };
    let guarded = format!("guarded:{password}");
    let (root, other) = (file("ca.crt"), file("other.crt"));
    let good = [
        ("localhost", format!("sslmode=verify-full&sslrootcert={root}")),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={root}")),
        ("127.0.0.1", format!("sslmode=require&sslrootcert={root}")),
        ("127.0.0.1", "sslmode=require".to_string()),
        ("127.0.0.1", "sslmode=prefer".to_string()),
        // A server that signs its own certificate.
        ("localhost", format!("sslmode=verify-full&sslrootcert={}", file("server.crt"))),
    ];
    for (host, query) in good {
        if let Err(error) = open(&guarded, host, &query) {
            panic!("{host} {query}: {error}");
        }
    }
    let bad = [
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={root}"), "not valid for name"),
        (
            "127.0.0.1",
            format!("sslmode=verify-full&sslrootcert={}", file("server.crt")),
            "not valid for name",
        ),
        ("localhost", format!("sslmode=verify-full&sslrootcert={other}"), "UnknownIssuer"),
        ("localhost", format!("sslmode=verify-ca&sslrootcert={other}"), "UnknownIssuer"),
        ("localhost", format!("sslmode=require&sslrootcert={other}"), "UnknownIssuer"),
        // This user may not come in the clear.
        ("127.0.0.1", "sslmode=disable".to_string(), "pg_hba.conf rejects"),
        ("localhost", format!("sslmode=verify-full&sslrootcert={}", file("absent.crt")), "absent.crt"),
    ];
    for (host, query, part) in bad {
        let error = open(&guarded, host, &query).unwrap_err().to_string();
        assert!(error.contains(part), "{host} {query}: {error}");
        assert!(!error.contains("p@ss") && !error.contains(&password), "{error}");
    }
    // A socket has no TLS, and needs none.
    let socket = format!("{}?sslmode=verify-full", server.url("postgres"));
    Storage::open(&diapason_storage::StorageUrl::parse(&socket).unwrap(), Opening::Write).unwrap();
    let error = open("guarded:hunter2", "127.0.0.1", "sslmode=require").unwrap_err();
    assert!(
        matches!(error, StorageError::Database { .. })
            && error.to_string().contains("password authentication failed")
    );
    assert!(!error.to_string().contains("hunter2") && !format!("{error:?}").contains("hunter2"));
}

/// A slip of the keyboard is told at once, and not waited for.
#[test]
fn what_cannot_be_reached_is_an_error_at_once() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = diapason_storage::StorageUrl::parse(&format!("postgresql://u@127.0.0.1:{port}/d")).unwrap();
    let error = Storage::open(&url, Opening::Create).unwrap_err();
    assert!(error.is_transient() && error.hint().is_some(), "{error:?}");
    assert!(error.to_string().contains("cannot reach the database at postgresql://u@127.0.0.1"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "this is no database, but long enough to be taken for one ".repeat(100)).unwrap();
    let url = diapason_storage::StorageUrl::Sqlite(path);
    let error = Storage::open(&url, Opening::Create).unwrap_err();
    assert!(matches!(error, StorageError::Damaged { .. }), "{error:?}");
}

/// A lock that another program keeps is waited for, and named when patience is at its end.
#[test]
fn a_locked_file_is_waited_for() {
    let fixture = Fixture::new(Kind::Sqlite).unwrap();
    let (mut storage, study) = study_with(&fixture, 1);
    let path = fixture.folder().join("study.db");
    let (locked, wait) = std::sync::mpsc::channel();
    let holder = std::thread::spawn(move || {
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        locked.send(()).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        connection.execute_batch("COMMIT").unwrap();
    });
    wait.recv().unwrap();
    // Readers are not stopped by a writer.
    assert_eq!(storage.trials(study, Page::default()).unwrap().len(), 1);
    claim(&mut storage, study);
    holder.join().unwrap();
    until("the file is free", || fixture.number("SELECT COUNT(*) FROM trials") == 1);
}
