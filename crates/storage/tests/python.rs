//! Round trips with Python Optuna, 5.0 and 4.9, on both databases.
//!
//! The interpreters are those of two virtual environments that `scripts/test` makes. Without them these tests fail, unless
//! they are left out by name.

mod common;

use common::{Fixture, Kind};
use diapason_storage::{
    Attributes, Claim, Claimed, Direction, Distribution, Finished, ItemState, NewTrial, Opening, Outcome,
    Page, Param, Policy, Record, Storage, StudyId, TrialState, Worker, lenient,
};
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// Set this to leave these tests out.
const SKIP: &str = "DIAPASON_SKIP_OPTUNA_TESTS";
/// Folder of the virtual environments, if it is not the top of the project.
const FOLDER: &str = "DIAPASON_OPTUNA_ENVIRONMENTS";
const VERSIONS: [&str; 2] = ["5.0.0", "4.9.0"];
const NAME: &str = "größe 'x' 幅";

/// What `optuna_peer.py` answers.
fn python(version: &str, command: &str, fixture: &Fixture, study: &str) -> Json {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = std::env::var_os(FOLDER).map_or(top, PathBuf::from);
    let program = folder.join(format!(".venv-optuna-{version}/bin/python"));
    assert!(
        program.is_file(),
        "{} is not there: run scripts/test, which makes it, or set {SKIP}=1",
        program.display()
    );
    let done = Command::new(program)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/optuna_peer.py"))
        // SQLAlchemy has several drivers; the environments have this one.
        .args([command, &fixture.url.replace("postgresql:", "postgresql+psycopg2:"), study])
        // Nine hours east of UTC, so that times in the wrong zone are seen.
        .env("TZ", "JST-9")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(done.status.success(), "{version} {command}: {}", String::from_utf8_lossy(&done.stderr));
    lenient(&String::from_utf8(done.stdout).unwrap()).unwrap()
}

/// Each test with each version on each database.
fn everywhere(test: impl Fn(&Fixture, &str)) {
    if std::env::var_os(SKIP).is_some() {
        return;
    }
    for version in VERSIONS {
        for kind in [Kind::Sqlite, Kind::Postgres] {
            if let Some(fixture) = Fixture::new(kind) {
                test(&fixture, version);
            }
        }
    }
}

fn new_trial(i: i64) -> NewTrial {
    let param = |name: &str, value: Json, distribution| Param { name: name.to_string(), value, distribution };
    let names = ["adam", "lion", "größe"].map(Json::from);
    NewTrial {
        key: format!("d_model={}/seed-{i}", 64 * i),
        params: vec![
            param("d_model", json!(64 * i), Distribution::Int { low: 0, high: 1024, log: false, step: 1 }),
            param(
                "learning_rate",
                json!(1e-3 / (i + 1) as f64),
                Distribution::Float { low: 1e-5, high: 0.1, log: true, step: None },
            ),
            param(
                "optimizer",
                names[i as usize % 3].clone(),
                Distribution::Categorical { choices: names.to_vec() },
            ),
        ],
        user_attributes: vec![("seed".to_string(), json!(i)), ("größe".to_string(), json!("幅"))],
        system_attributes: Vec::new(),
    }
}

fn claim(storage: &mut Storage, study: StudyId) -> Claim {
    match storage.claim(study, &Worker::this_process("cpu-1"), &Policy::default()).unwrap() {
        Claimed::Work(claim) => *claim,
        nothing => panic!("{nothing:?}"),
    }
}

#[test]
fn python_reads_what_we_write() {
    everywhere(|fixture, version| {
        let mut storage = fixture.open();
        let metric = [(Attributes::System, "study:metric_names".to_string(), json!(["validation_loss"]))];
        let study = storage.create_study(NAME, Direction::Minimize, &metric).unwrap();
        let policy = Policy::default();
        storage.enqueue(study, &(0..10).map(new_trial).collect::<Vec<_>>()).unwrap();
        let curve = |last: f64| {
            Record::new()
                .value(1, f64::NAN)
                .value(2, f64::INFINITY)
                .value(3, f64::NEG_INFINITY)
                .value(4, 0.1 + last)
                .value(5, last)
                .attribute("train_seconds", 0.1)
                .attribute("curve", json!([1, null, "x"]))
        };
        for i in 0..6 {
            let lease = claim(&mut storage, study).lease;
            let loss = 1.5 + 0.1 * f64::from(i);
            storage.finish(&lease, &curve(loss), &Outcome::Complete(loss), &policy).unwrap();
        }
        let finish = |storage: &mut Storage, outcome| {
            let lease = claim(storage, study).lease;
            storage.finish(&lease, &curve(2.5), &outcome, &policy).unwrap()
        };
        assert_eq!(finish(&mut storage, Outcome::Pruned), Finished::Pruned);
        let failed = Outcome::Failed { reason: "diverged".to_string(), retry: true };
        assert_eq!(finish(&mut storage, failed), Finished::Retried { number: 10 });
        assert_eq!(finish(&mut storage, Outcome::Complete(f64::INFINITY)), Finished::Done);
        let running = claim(&mut storage, study);
        storage.record(&running.lease, &curve(9.0), &policy).unwrap();

        let read = python(version, "load", fixture, NAME);
        assert_eq!(read["optuna"], json!(version));
        let trials = read["trials"].as_array().unwrap();
        let states: Vec<&str> = trials.iter().map(|t| t["state"].as_str().unwrap()).collect();
        assert_eq!(
            states,
            [
                "COMPLETE", "COMPLETE", "COMPLETE", "COMPLETE", "COMPLETE", "COMPLETE", "PRUNED", "FAIL",
                "RUNNING", "WAITING", "COMPLETE"
            ]
        );
        for (i, trial) in trials.iter().enumerate() {
            assert_eq!(trial["number"], json!(i));
            let ours = storage.trial(study, i as i64).unwrap();
            assert_eq!(trial["params"], Json::Object(ours.params.clone()), "trial {i}");
            assert_eq!(trial["user_attrs"], Json::Object(ours.user_attributes.clone()), "trial {i}");
            assert_eq!(trial["system_attrs"], Json::Object(ours.system_attributes.clone()), "trial {i}");
            let ours = serde_json::to_value(&ours).unwrap();
            assert_eq!(trial["intermediate_values"], ours["intermediate_values"], "trial {i}");
            let values = if trial["values"].is_null() { json!([]) } else { trial["values"].clone() };
            assert_eq!(values, ours["values"], "trial {i}");
            assert_eq!(
                trial["distributions"],
                json!({"d_model": "IntDistribution", "learning_rate": "FloatDistribution", "optimizer": "CategoricalDistribution"})
            );
        }
        assert_eq!(trials[0]["params"]["learning_rate"], json!(1e-3));
        assert_eq!(trials[0]["intermediate_values"]["1"], json!("NaN"));
        assert_eq!(trials[10]["system_attrs"]["failed_trial"], json!(7));
        assert_eq!(trials[10]["values"], json!(["Infinity"]));
        assert_eq!((&read["best"], &read["metric_names"]), (&json!(0), &json!(["validation_loss"])));
        assert_eq!(read["importances"].as_object().unwrap().len(), 3);
        assert_eq!(read["figures"], json!(9));
        // Optuna 5 takes the times for UTC; Optuna 4.9 for local time, so that it shows them nine hours early.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let shift = if version == "5.0.0" { 0.0 } else { -9.0 * 3600.0 };
        let off = trials[0]["start"].as_f64().unwrap() - now - shift;
        assert!(off.abs() < 300.0, "{version}: {off} s");
        assert!((0.0..300.0).contains(&trials[0]["seconds"].as_f64().unwrap()));
    });
}

#[test]
fn we_read_what_python_writes_and_carry_it_out() {
    everywhere(|fixture, version| {
        let made = python(version, "create", fixture, NAME);
        assert_eq!(made["trials"], json!(13));
        // Looking changes nothing.
        let mut looker = Storage::open(&fixture.storage_url(), Opening::Read).unwrap();
        let study = looker.study(NAME).unwrap();
        let trials = looker.trials(study, Page { curves: true, ..Page::default() }).unwrap();
        assert!(trials.iter().all(|trial| trial.item.is_none()));
        drop(looker);
        let states: Vec<&str> = trials.iter().map(|trial| trial.state.name()).collect();
        assert_eq!(states[..6], ["COMPLETE"; 6]);
        assert_eq!(states[6..], ["COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING", "WAITING", "WAITING"]);
        assert_eq!(
            trials[2].params,
            *json!({"d_model": 128, "learning_rate": 1e-3 / 3.0, "optimizer": "größe"}).as_object().unwrap()
        );
        assert_eq!(
            (trials[2].values.as_slice(), trials[6].values.as_slice()),
            (&[1.8][..], &[f64::INFINITY][..])
        );
        let curve: Vec<f64> = trials[2].intermediate_values.values().copied().collect();
        assert!(curve[0].is_nan() && curve[1..] == [f64::INFINITY, f64::NEG_INFINITY, 1.8]);
        assert_eq!(trials[2].user_attributes["nan"], json!("NaN"));
        assert_eq!(trials[2].user_attributes["list"], json!([1, "Infinity"]));
        assert_eq!(trials[10].system_attributes["fixed_params"]["d_model"], json!(640));

        let mut storage = Storage::open(&fixture.storage_url(), Opening::Write).unwrap();
        assert_eq!(
            storage.study_attributes(study, Attributes::User).unwrap(),
            [("größe".to_string(), json!({"幅": [1, 2.5, null]}))]
        );
        let adopted = storage
            .adopt(study, |waiting| {
                let d_model = waiting.fixed_params.get("d_model")?.as_i64()?;
                assert_eq!(waiting.user_attributes["from"], json!("Python"));
                Some(new_trial(d_model / 64))
            })
            .unwrap();
        assert_eq!((adopted.added, adopted.known), (2, 1));
        let first = claim(&mut storage, study);
        assert_eq!((first.trial.number, &first.trial.params["d_model"]), (10, &json!(640)));
        storage
            .finish(&first.lease, &Record::new().value(1, 0.5), &Outcome::Complete(0.25), &Policy::default())
            .unwrap();
        // Trials of our own join those of Python: its numbers go on, its distributions hold.
        assert_eq!(storage.enqueue(study, &[new_trial(3)]).unwrap().added, 1);
        assert_eq!(claim(&mut storage, study).trial.number, 11);
        assert_eq!(claim(&mut storage, study).trial.number, 13);
        let read = python(version, "load", fixture, NAME);
        assert_eq!((&read["best"], &read["trials"][10]["values"]), (&json!(10), &json!([0.25])));
        assert_eq!(
            read["trials"][10]["params"],
            json!({"d_model": 640, "learning_rate": 1e-3 / 11.0, "optimizer": "lion"})
        );
        assert_eq!(read["trials"][12]["state"], json!("WAITING"));
        assert_eq!(read["figures"], json!(9));
        // What Python deletes is gone for us too.
        python(version, "delete", fixture, NAME);
        assert_eq!(fixture.number("SELECT COUNT(*) FROM diapason_items"), 0);
        assert!(storage.studies().unwrap().is_empty());
    });
}

/// A Python worker joins a study of ours on a server. (On SQLite, Optuna itself warns against several workers.)
#[test]
fn python_works_beside_us() {
    everywhere(|fixture, version| {
        if fixture.kind == Kind::Sqlite {
            return;
        }
        let mut storage = fixture.open();
        let study = storage.create_study(NAME, Direction::Minimize, &[]).unwrap();
        storage.enqueue(study, &(0..3).map(new_trial).collect::<Vec<_>>()).unwrap();
        let ours = claim(&mut storage, study);
        assert_eq!(ours.trial.number, 0);
        let theirs = python(version, "work", fixture, NAME);
        assert_eq!(theirs["number"], json!(1), "what is held is left alone");
        assert_eq!((&theirs["params"]["d_model"], &theirs["value"]), (&json!(64), &json!(0.064)));
        assert_eq!(claim(&mut storage, study).trial.number, 2);
        let Claimed::Nothing { counts, .. } =
            storage.claim(study, &Worker::this_process("cpu-1"), &Policy::default()).unwrap()
        else {
            panic!()
        };
        assert_eq!((counts.of(ItemState::Done), counts.of(ItemState::Held)), (1, 2));
    });
}

/// Optuna's own check for dead workers spares the living, whatever the server's time zone, and its verdict is obeyed.
#[test]
fn python_spares_the_living() {
    everywhere(|fixture, version| {
        let mut storage = fixture.open();
        let study = storage.create_study(NAME, Direction::Minimize, &[]).unwrap();
        storage.enqueue(study, &(0..3).map(new_trial).collect::<Vec<_>>()).unwrap();
        let living = claim(&mut storage, study);
        let parked = claim(&mut storage, study);
        storage.park(&parked.lease, &Record::new(), 1).unwrap();
        let dead = claim(&mut storage, study);
        let old = match fixture.kind {
            Kind::Sqlite => "datetime('now', '-1 hour')",
            Kind::Postgres => "CAST(now() AS TIMESTAMP) - INTERVAL '1 hour'",
        };
        let of_dead = "trial_id = (SELECT trial_id FROM trials WHERE number = 2)";
        fixture.sql(&format!("UPDATE trial_heartbeats SET heartbeat = {old} WHERE {of_dead}"));
        assert_eq!(python(version, "stale", fixture, NAME)["failed"], json!([2]));
        let policy = Policy::default();
        storage.record(&living.lease, &Record::new(), &policy).unwrap();
        assert!(storage.record(&dead.lease, &Record::new(), &policy).is_err());
        assert_eq!(storage.trial(study, 1).unwrap().state, TrialState::Running);
    });
}
