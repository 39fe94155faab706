//! Many workers, killed workers, a database that goes away: every item must succeed exactly once.

mod common;

use common::{Fixture, Kind, Server, until};
use diapason_storage::{
    Claimed, Courier, Direction, Distribution, Finished, Held, How, ItemState, NewTrial, Opening, Outcome,
    Page, Param, Policy, Record, Storage, StorageError, StorageUrl, StudyId, TrialState, Worker,
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const STEPS: u64 = 5;

fn grid(items: i64) -> Vec<NewTrial> {
    (0..items)
        .map(|i| NewTrial {
            key: format!("k{i}"),
            params: vec![Param {
                name: "x".to_string(),
                value: json!(i),
                distribution: Distribution::Int { low: 0, high: 100_000, log: false, step: 1 },
            }],
            user_attributes: vec![("seed".to_string(), json!(0))],
            system_attributes: Vec::new(),
        })
        .collect()
}

fn study_with(fixture: &Fixture, items: i64) -> StudyId {
    let mut storage = fixture.open();
    let study = storage.create_study("study", Direction::Minimize, &[]).unwrap();
    assert_eq!(storage.enqueue(study, &grid(items)).unwrap().added as i64, items);
    study
}

/// What training computes: a function of the trial alone.
fn loss(x: i64, step: u64) -> f64 {
    ((x * 37 % 101) as f64 + 1.0) / step as f64
}

/// Every item is done, by one complete trial with the right values; trials have the numbers 0, 1, 2, ...
fn check(fixture: &Fixture, study: StudyId, items: i64) {
    let mut storage = fixture.open();
    let counts = storage.item_counts(study).unwrap();
    assert_eq!((counts.of(ItemState::Done) as i64, counts.all() as i64), (items, items), "{counts:?}");
    let mut complete = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    storage
        .export(study, |trial| -> Result<(), StorageError> {
            numbers.insert(trial.number);
            if trial.state == TrialState::Complete {
                let x = trial.params["x"].as_i64().unwrap();
                assert!(complete.insert(x), "{x} succeeded twice");
                assert_eq!(trial.values, [loss(x, STEPS)]);
                let curve: BTreeMap<i64, f64> =
                    (1..=STEPS).map(|step| (step as i64, loss(x, step))).collect();
                assert_eq!(trial.intermediate_values, curve, "of {x}");
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(complete, (0..items).collect());
    assert_eq!(numbers, (0..numbers.len() as i64).collect());
    assert_eq!(fixture.number("SELECT COUNT(*) FROM trial_heartbeats"), 0);
}

/// Trains every item that can be had, through a courier, resuming at the last safe step.
fn work(url: &StorageUrl, name: &str, policy: Policy, pause: Duration, taken: &mut dyn FnMut(&How)) {
    let mut storage = Storage::open(url, Opening::Write).unwrap();
    storage.set_patience(Duration::from_secs(200));
    let study = storage.study("study").unwrap();
    let courier = Courier::start(storage, policy).unwrap();
    loop {
        let mut worker = Worker::this_process("cpu-1");
        worker.name = name.to_string();
        match courier.call(move |storage| storage.claim(study, &worker, &policy)).unwrap() {
            Claimed::Work(claim) => {
                taken(&claim.how);
                let x = claim.trial.params["x"].as_i64().unwrap();
                let mut held = courier.hold(claim.lease.clone());
                for step in claim.step + 1..=STEPS {
                    std::thread::sleep(pause);
                    if held.is_lost() {
                        break;
                    }
                    held.tell(Record::new().value(step, loss(x, step)).safe_step(step)).unwrap();
                }
                match held.finish(Record::new().attribute("owner", name), Outcome::Complete(loss(x, STEPS))) {
                    Ok(Finished::Done) | Err(StorageError::LeaseLost { .. }) => {}
                    other => panic!("{other:?}"),
                }
            }
            Claimed::Nothing { counts, .. } if counts.is_unfinished() => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Claimed::Nothing { .. } => return,
        }
    }
}

/// 64 on PostgreSQL, as many as one machine has on SQLite: nobody gets what another has, nobody waits for ever.
#[test]
fn many_claim_at_once() {
    for (kind, claimers, items) in [(Kind::Postgres, 64, 320), (Kind::Sqlite, 12, 120)] {
        let Some(fixture) = Fixture::new(kind) else { continue };
        let study = study_with(&fixture, items);
        let claimed = Mutex::new(Vec::new());
        let policy = Policy { lease: Duration::from_secs(600), ..Policy::default() };
        std::thread::scope(|scope| {
            for _ in 0..claimers {
                scope.spawn(|| {
                    let mut storage = fixture.open();
                    storage.set_patience(Duration::from_secs(200));
                    let worker = Worker::this_process("cpu-1");
                    while let Claimed::Work(claim) = storage.claim(study, &worker, &policy).unwrap() {
                        let x = claim.trial.params["x"].as_i64().unwrap();
                        claimed.lock().unwrap().push(x);
                        let mut record = Record::new();
                        for step in 1..=STEPS {
                            record = record.value(step, loss(x, step));
                        }
                        storage
                            .finish(&claim.lease, &record, &Outcome::Complete(loss(x, STEPS)), &policy)
                            .unwrap();
                    }
                });
            }
        });
        let claimed = claimed.into_inner().unwrap();
        assert_eq!(claimed.len() as i64, items);
        assert_eq!(claimed.into_iter().collect::<BTreeSet<_>>(), (0..items).collect());
        check(&fixture, study, items);
    }
}

/// Not a test of its own: what the next one starts as processes that it can kill.
#[test]
fn a_worker_process() {
    let Ok(url) = std::env::var("DIAPASON_TEST_WORKER") else { return };
    // The lease is so long that only the look at the dead process can save a trial in time.
    let policy = Policy { lease: Duration::from_secs(3600), losses: 1000, ..Policy::default() };
    let url = StorageUrl::parse(&url).unwrap();
    work(&url, "process", policy, Duration::from_millis(3), &mut |_| {});
}

#[test]
fn workers_are_killed_at_any_moment() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let Some(fixture) = Fixture::new(kind) else { continue };
        let items = 60;
        let study = study_with(&fixture, items);
        let spawn = || -> Child {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "a_worker_process", "--nocapture"])
                .env("DIAPASON_TEST_WORKER", &fixture.url)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        };
        let mut workers: Vec<Child> = (0..4).map(|_| spawn()).collect();
        let mut storage = fixture.open();
        let start = Instant::now();
        // Deterministic numbers, not deterministic moments.
        let mut dice = 12_345_u64;
        let mut kills = 0;
        while storage.item_counts(study).unwrap().is_unfinished() {
            assert!(start.elapsed() < Duration::from_secs(300), "{:?}", storage.item_counts(study));
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            std::thread::sleep(Duration::from_millis(10 + (dice >> 33) % 60));
            let at = (dice >> 40) as usize % workers.len();
            // SIGKILL.
            if kills < 25 {
                workers[at].kill().unwrap();
                kills += 1;
            }
            for worker in &mut workers {
                if worker.try_wait().unwrap().is_some() {
                    *worker = spawn();
                }
            }
        }
        for worker in &mut workers {
            worker.wait().unwrap();
        }
        assert!(kills >= 10, "only {kills} were killed");
        check(&fixture, study, items);
        if kind == Kind::Sqlite {
            assert_eq!(
                fixture.number("SELECT COUNT(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'"),
                1
            );
        }
    }
}

/// The process of a worker is gone: its trial is taken over at once, though its lease has an hour to go.
#[test]
fn the_dead_are_succeeded_at_once() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let Some(fixture) = Fixture::new(kind) else { continue };
        let study = study_with(&fixture, 1);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_process_that_claims_and_waits", "--nocapture"])
            .env("DIAPASON_TEST_CLAIMER", &fixture.url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut storage = fixture.open();
        until("the child has claimed", || storage.item_counts(study).unwrap().of(ItemState::Held) == 1);
        let worker = Worker::this_process("cpu-1");
        let policy = Policy::default();
        assert!(
            matches!(storage.claim(study, &worker, &policy).unwrap(), Claimed::Nothing { .. }),
            "it lives"
        );
        child.kill().unwrap();
        child.wait().unwrap();
        let Claimed::Work(claim) = storage.claim(study, &worker, &policy).unwrap() else {
            panic!("not taken over")
        };
        assert!(matches!(claim.how, How::TakenOver { dead: true, .. }), "{:?}", claim.how);
    }
}

/// Clocks of workers are never compared: one that is two hours fast or slow takes nothing over and loses nothing. (Its
/// clock is only wrong where libfaketime is installed.)
#[test]
fn wrong_clocks_do_no_harm() {
    let Some(fixture) = Fixture::new(Kind::Postgres) else { return };
    let study = study_with(&fixture, 3);
    let mut storage = fixture.open();
    let worker = Worker::this_process("cpu-1");
    let policy = Policy { lease: Duration::from_secs(3600), ..Policy::default() };
    assert!(matches!(storage.claim(study, &worker, &policy).unwrap(), Claimed::Work(_)));
    let library = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"]
        .map(|folder| format!("{folder}/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| std::path::Path::new(path).is_file());
    let mut children = Vec::new();
    for (held, clock) in [(2, "+7200"), (3, "-7200")] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args(["--exact", "a_process_that_claims_and_waits", "--nocapture"])
            .env("DIAPASON_TEST_CLAIMER", &fixture.url)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if let Some(library) = &library {
            child.env("LD_PRELOAD", library).env("FAKETIME", clock);
        }
        children.push(child.spawn().unwrap());
        until("the child has claimed", || storage.item_counts(study).unwrap().of(ItemState::Held) == held);
    }
    for item in storage.items(study, None, None, 3).unwrap() {
        let left = item.lease_left.unwrap();
        assert!(item.claims == 1 && (3000.0..=3600.0).contains(&left), "{}: {left} s", item.key);
    }
    for trial in storage.trials(study, Page::default()).unwrap() {
        let start = trial.datetime_start.unwrap();
        assert!(start.starts_with("20"), "{start}");
    }
    let off = "SELECT MAX(ABS(EXTRACT(EPOCH FROM timezone('UTC', now()) - datetime_start))) FROM trials";
    assert!(fixture.number(off) < 600, "also the times that people see are the database's");
    assert!(matches!(storage.claim(study, &worker, &policy).unwrap(), Claimed::Nothing { .. }));
    for mut child in children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_process_that_claims_and_waits() {
    let Ok(url) = std::env::var("DIAPASON_TEST_CLAIMER") else { return };
    let mut storage = Storage::open(&StorageUrl::parse(&url).unwrap(), Opening::Write).unwrap();
    let study = storage.study("study").unwrap();
    let policy = Policy { lease: Duration::from_secs(3600), ..Policy::default() };
    storage.claim(study, &Worker::this_process("cpu-1"), &policy).unwrap();
    std::thread::sleep(Duration::from_secs(600));
}

/// The server is restarted without mercy, again and again, while workers train. They ride it out.
#[test]
fn the_database_is_restarted_under_the_workers() {
    let Some(server) = Server::start() else { return };
    let url = server.new_database();
    let parsed = StorageUrl::parse(&url).unwrap();
    let items = 60;
    let study = {
        let mut storage = Storage::open(&parsed, Opening::Create).unwrap();
        let study = storage.create_study("study", Direction::Minimize, &[]).unwrap();
        storage.enqueue(study, &grid(items)).unwrap();
        study
    };
    let running = AtomicUsize::new(8);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (parsed, running) = (&parsed, &running);
            scope.spawn(move || {
                let policy = Policy { lease: Duration::from_secs(600), ..Policy::default() };
                work(parsed, &format!("w{thread}"), policy, Duration::from_millis(20), &mut |how| {
                    assert!(!matches!(how, How::TakenOver { .. }), "nobody was lost");
                });
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(400));
            server.control("restart");
        }
    });
    let mut storage = Storage::open(&parsed, Opening::Write).unwrap();
    let trials = storage.trials(study, Page { curves: true, ..Page::default() }).unwrap();
    assert_eq!(trials.len() as i64, items, "no trial was tried again");
    for trial in trials {
        let x = trial.params["x"].as_i64().unwrap();
        assert_eq!((trial.state, trial.values.as_slice()), (TrialState::Complete, &[loss(x, STEPS)][..]));
        assert_eq!(trial.intermediate_values.len() as u64, STEPS);
    }
}

/// While there is no database, training neither waits nor believes that it is lost; what was said arrives later.
#[test]
fn the_courier_keeps_what_it_cannot_deliver() {
    let Some(server) = Server::start() else { return };
    let url = StorageUrl::parse(&server.new_database()).unwrap();
    let mut storage = Storage::open(&url, Opening::Create).unwrap();
    let study = storage.create_study("study", Direction::Minimize, &[]).unwrap();
    storage.enqueue(study, &grid(1)).unwrap();
    storage.set_patience(Duration::from_secs(200));
    let outages = std::sync::Arc::new(AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&outages);
    storage.on_outage(move |error| {
        assert!(error.is_transient());
        count.fetch_add(1, Ordering::Relaxed);
    });
    let policy = Policy { lease: Duration::from_secs(2), ..Policy::default() };
    let courier = Courier::start(storage, policy).unwrap();
    let claimed = courier.call(move |s| s.claim(study, &Worker::this_process("cpu-1"), &policy)).unwrap();
    let Claimed::Work(claim) = claimed else { panic!() };
    let mut held: Held = courier.hold(claim.lease);
    held.confirm().unwrap();
    assert!(held.is_certain());

    server.control("stop");
    let start = Instant::now();
    for step in 1..=1000 {
        held.tell(Record::new().value(step, loss(1, step))).unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(1), "telling waits for nobody");
    until("the lease is uncertain", || !held.is_certain());
    assert!(!held.is_lost(), "uncertain is not lost");
    // Whoever waits is served when the server is back.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(500));
            server.control("start");
        });
        held.confirm().unwrap();
    });
    assert!(held.is_certain() && outages.load(Ordering::Relaxed) > 0);
    assert_eq!(held.finish(Record::new(), Outcome::Complete(0.5)).unwrap(), Finished::Done);
    let trial = courier.call(move |s| s.trial(study, 0)).unwrap();
    assert_eq!((trial.values.as_slice(), trial.intermediate_values.len()), (&[0.5][..], 1000));
}

#[test]
fn a_wait_can_be_interrupted_and_has_an_end() {
    let Some(server) = Server::start() else { return };
    let url = StorageUrl::parse(&server.new_database()).unwrap();
    let mut storage = Storage::open(&url, Opening::Create).unwrap();
    let flag = std::sync::Arc::new(AtomicBool::new(false));
    storage.give_up_when(std::sync::Arc::clone(&flag));
    server.control("stop");
    storage.set_patience(Duration::from_millis(300));
    assert!(matches!(storage.studies(), Err(StorageError::Unreachable { .. })));
    storage.set_patience(Duration::from_secs(3600));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            flag.store(true, Ordering::Relaxed);
        });
        assert!(matches!(storage.studies(), Err(StorageError::Interrupted { .. })));
    });
}

/// The courier's heartbeats keep a lease that is much shorter than the training; and it tells who was too slow.
#[test]
fn heartbeats_keep_a_lease_and_losing_it_is_told() {
    let fixture = Fixture::new(Kind::Sqlite).unwrap();
    let study = study_with(&fixture, 1);
    let policy = Policy { lease: Duration::from_secs(2), ..Policy::default() };
    let courier = Courier::start(fixture.open(), policy).unwrap();
    let claim = || {
        let worker = Worker::this_process("cpu-1");
        match courier.call(move |storage| storage.claim(study, &worker, &policy)).unwrap() {
            Claimed::Work(claim) => claim,
            nothing => panic!("{nothing:?}"),
        }
    };
    let held = courier.hold(claim().lease);
    let beats = "SELECT CAST(1000 * MAX(lease_until) AS INTEGER) FROM diapason_items";
    let first = fixture.number(beats);
    until("the lease was renewed twice", || fixture.number(beats) > first + 800);
    assert!(!held.is_lost());
    fixture.sql("UPDATE diapason_items SET token = 'somebody else'");
    until("it is told", || held.is_lost());
    assert!(!held.is_certain() && held.lost().load(Ordering::Relaxed));
    assert!(matches!(held.confirm(), Err(StorageError::LeaseLost { .. })));
    drop(held);
    // Dropped without an end, it is let go.
    fixture.sql("UPDATE diapason_items SET state = 'READY'");
    let held = courier.hold(claim().lease);
    held.tell(Record::new().value(1, 1.0)).unwrap();
    assert!(held.tell(Record::new().value(1 << 40, 1.0)).is_err(), "no room for such a step");
    drop(held);
    until("it is ready", || fixture.number("SELECT COUNT(*) FROM diapason_items WHERE state = 'READY'") == 1);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM trial_intermediate_values"), 1);
}
