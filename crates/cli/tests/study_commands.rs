//! `study`: what others see of a study, hostile content included.

mod common;

use common::{Here, Ran};
use diapason_storage::{
    Attributes, Claim, Claimed, Direction, Distribution, NewTrial, Opening, Outcome, Param, Policy, Record,
    Storage, StorageUrl, StudyId, Worker,
};
use serde_json::{Value as Json, json};
use std::path::Path;
use std::process::Command;

fn open(here: &Here, file: &str) -> Storage {
    let path = here.path(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    Storage::open(&StorageUrl::Sqlite(path), Opening::Create).unwrap()
}

fn new_trial(i: i64) -> NewTrial {
    let distribution = Distribution::Int { low: 0, high: 1000, log: false, step: 1 };
    NewTrial {
        key: format!("d_model={i}/seed-0"),
        params: vec![Param { name: "d_model".to_string(), value: json!(i), distribution }],
        user_attributes: vec![("seed".to_string(), json!(0))],
        system_attributes: Vec::new(),
    }
}

/// A study in its own folder, with so many trials that nobody has begun.
fn study(here: &Here, name: &str, trials: i64) -> (Storage, StudyId) {
    let mut storage = open(here, &format!("studies/{name}/study.db"));
    let spec = [(Attributes::User, "diapason:spec".to_string(), json!({}))];
    let study = storage.create_study(name, Direction::Minimize, &spec).unwrap();
    storage.enqueue(study, &(0..trials).map(new_trial).collect::<Vec<_>>()).unwrap();
    (storage, study)
}

fn claim(storage: &mut Storage, study: StudyId) -> Claim {
    let mut worker = Worker::this_process("cpu-1");
    worker.name = "anna:1".to_string();
    match storage.claim(study, &worker, &Policy::default()).unwrap() {
        Claimed::Work(claim) => *claim,
        nothing => panic!("{nothing:?}"),
    }
}

fn finish(storage: &mut Storage, study: StudyId, record: &Record, value: f64) {
    let lease = claim(storage, study).lease;
    storage.finish(&lease, record, &Outcome::Complete(value), &Policy::default()).unwrap();
}

/// Nothing that a terminal would obey.
#[track_caller]
fn harmless(ran: &Ran) {
    for text in [&ran.stdout, &ran.stderr] {
        let bad = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}');
        assert!(!text.contains(bad), "{ran:?}");
    }
}

fn run(here: &Here, args: &[&str]) -> Ran {
    let ran = finished(here.command(args).env_remove("DIAPASON_STORAGE"));
    harmless(&ran);
    ran
}

fn finished(command: &mut Command) -> Ran {
    let done = command.output().unwrap();
    Ran {
        code: done.status.code(),
        stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
    }
}

#[test]
fn studies_are_listed() {
    let here = Here::new();
    let none = run(&here, &["study", "list"]).ok();
    assert_eq!(none.stdout, "");
    assert!(none.stderr.contains("no studies"), "{none:?}");
    assert_eq!(run(&here, &["study", "list", "--json"]).ok().json(), json!({"studies": []}));

    let (mut storage, id) = study(&here, "quick", 4);
    finish(&mut storage, id, &Record::new(), 1.330_712_345);
    claim(&mut storage, id);
    study(&here, "other", 1);
    // Neither a folder without a database nor a file is a study.
    std::fs::create_dir_all(here.path("studies/empty")).unwrap();
    here.write("studies/file", b"x");
    let listed = run(&here, &["study", "list"]).ok();
    let lines: Vec<Vec<&str>> = listed.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        lines[0],
        ["name", "trials", "waiting", "running", "complete", "pruned", "failed", "best", "begun", "database"]
    );
    assert_eq!(lines[1][..7], ["other", "1", "1", "0", "0", "0", "0"]);
    assert_eq!(lines[2][..8], ["quick", "4", "2", "1", "1", "0", "0", "1.33071"]);
    assert_eq!(lines.len(), 3);

    let object = run(&here, &["study", "list", "--json"]).ok().json();
    let quick = &object["studies"][1];
    assert_eq!(quick["states"], json!({"RUNNING": 1, "COMPLETE": 1, "WAITING": 2}));
    assert_eq!(quick["best"], json!(1.330_712_345));
    assert_eq!(quick["directions"], json!(["MINIMIZE"]));
    // A file, its folder and a URL are the same place.
    for storage in ["studies/quick/study.db", "studies/quick", "sqlite:///studies/quick/study.db"] {
        let one = run(&here, &["study", "list", "--json", "--storage", storage]).ok().json();
        assert_eq!(one["studies"].as_array().unwrap().len(), 1, "{storage}");
    }
    let by_variable =
        finished(here.command(&["study", "list", "--json"]).env("DIAPASON_STORAGE", "studies/quick")).ok();
    assert_eq!(by_variable.json()["studies"][0]["name"], "quick");

    // A folder that was renamed: the name is the one that commands take.
    std::fs::rename(here.path("studies/other"), here.path("studies/moved")).unwrap();
    let listed = run(&here, &["study", "list"]).ok();
    let lines: Vec<&str> = listed.stdout.lines().collect();
    assert!(lines[0].contains("  in the database  "), "{listed:?}");
    assert!(lines[1].starts_with("moved ") && lines[1].contains("  other  "), "{listed:?}");
    assert!(lines[2].starts_with("quick ") && lines[2].matches("quick").count() == 2, "{listed:?}");
    run(&here, &["study", "show", "moved"]).ok();
    let object = run(&here, &["study", "list", "--json"]).ok().json();
    assert_eq!(
        (&object["studies"][0]["name"], &object["studies"][0]["study"]),
        (&json!("moved"), &json!("other"))
    );
    let by_place = run(&here, &["study", "list", "--json", "--storage", "studies/moved"]).ok().json();
    assert_eq!(by_place["studies"][0]["name"], "other", "with --storage the name in the database");
    run(&here, &["study", "show", "other", "--storage", "studies/moved"]).ok();

    // One that is damaged does not hide the others.
    std::fs::create_dir_all(here.path("studies/broken")).unwrap();
    here.write(
        "studies/broken/study.db",
        "not a database at all, but long enough to be looked at".repeat(20),
    );
    let listed = run(&here, &["study", "list"]);
    assert_eq!((listed.code, listed.stdout.lines().count()), (Some(1), 3), "{listed:?}");
    assert!(listed.stderr.contains("broken") && listed.stderr.contains("1 of 3"), "{listed:?}");
}

#[test]
fn pages_of_many_trials() {
    let here = Here::new();
    let (mut storage, id) = study(&here, "many", 250);
    for i in 0..3 {
        finish(&mut storage, id, &Record::new().attribute("engine", "cpu-1"), 1.0 + f64::from(i));
    }
    let lease = claim(&mut storage, id).lease;
    storage.record(&lease, &Record::new().value(100, 2.5).safe_step(100), &Policy::default()).unwrap();

    let first = run(&here, &["study", "show", "many"]).ok();
    assert!(first.stdout.starts_with("many in sqlite:///studies/many/study.db\n250 trials: 246 waiting, 1 running, 3 complete\nbest value 1, smaller is better\n"), "{first:?}");
    assert!(first.stderr.contains("--from 50"), "{first:?}");
    let held = first.stdout.lines().find(|line| line.contains("held")).unwrap();
    let words: Vec<&str> = held.split_whitespace().collect();
    assert_eq!(words[..6], ["3", "running", "held", "0", "100", "anna:1"]);
    assert!(held.contains(" s left") && held.ends_with("d_model=3"), "{held}");

    // Page after page, as `next` says, every trial comes once.
    let mut numbers = Vec::new();
    let mut from = 0;
    loop {
        let text = from.to_string();
        let page = ["study", "show", "many", "--json", "--limit", "100", "--from", &text];
        let page = run(&here, &page).ok().json();
        numbers.extend(page["trials"].as_array().unwrap().iter().map(|t| t["number"].as_i64().unwrap()));
        match page["next"].as_i64() {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!(numbers, (0..250).collect::<Vec<_>>());
    let complete = run(&here, &["study", "show", "many", "--state", "complete", "--json"]).ok().json();
    assert_eq!(complete["trials"].as_array().unwrap().len(), 3);
    assert_eq!(complete["trials"][0]["user_attributes"], json!({"seed": 0, "engine": "cpu-1"}));
    let past = run(&here, &["study", "show", "many", "--from", "1000"]).ok();
    assert!(!past.stderr.contains("--from"), "{past:?}");
    let failed = run(&here, &["study", "show", "many", "--state", "fail"]).ok();
    assert!(failed.stderr.contains("no trial that is failed"), "{failed:?}");
    for wrong in [["--limit", "101"], ["--limit", "0"], ["--from", "-1"], ["--limit", "-5"], ["--bogus", "5"]]
    {
        let ran = run(&here, &[&["study", "show", "many"], &wrong[..]].concat());
        assert_eq!(ran.code, Some(2), "{wrong:?}");
        assert!(ran.stderr.ends_with("hint: `diapason help study show` says what it takes\n"), "{ran:?}");
    }
    assert_eq!(run(&here, &["study", "show", "many", "--state", "odd"]).code, Some(2));

    let csv = run(&here, &["study", "export", "many"]).ok().stdout;
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 251);
    assert_eq!(
        lines[0],
        "number,state,value,datetime_start,datetime_complete,params_d_model,user_attrs_engine,user_attrs_seed"
    );
    assert!(lines[1].starts_with("0,COMPLETE,1.0,2") && lines[1].ends_with(",0,cpu-1,0"), "{}", lines[1]);
    assert_eq!(lines[250], "249,WAITING,,,,249,,0");
    let array: Json =
        serde_json::from_str(&run(&here, &["study", "export", "many", "--format", "json"]).ok().stdout)
            .unwrap();
    let lines = run(&here, &["study", "export", "many", "--format", "jsonl"]).ok().stdout;
    let objects: Vec<Json> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // Seconds of a lease pass between the two.
    let without = |mut trial: Json| {
        trial["item"]["lease_left"].take();
        trial
    };
    let array: Vec<Json> = array.as_array().unwrap().iter().cloned().map(without).collect();
    assert_eq!(array, objects.into_iter().map(without).collect::<Vec<_>>());
    assert_eq!(array.len(), 250);
    assert_eq!(array[3]["intermediate_values"], json!({"100": 2.5}));
}

#[test]
fn trials_that_others_took_the_place_of() {
    let here = Here::new();
    let mut storage = open(&here, "studies/quick/study.db");
    let id = storage.create_study("quick", Direction::Minimize, &[]).unwrap();
    let mut trial = new_trial(1);
    trial.system_attributes.push(("diapason:config".to_string(), json!({})));
    storage.enqueue(id, &[trial]).unwrap();
    let lease = claim(&mut storage, id).lease;
    let record = Record::new().safe_step(50).attribute("steps", 60);
    storage
        .finish(
            &lease,
            &record,
            &Outcome::Failed { reason: "no memory".to_string(), retry: true },
            &Policy::default(),
        )
        .unwrap();
    finish(&mut storage, id, &record, 1.5);
    let shown = run(&here, &["study", "show", "quick"]).ok().stdout;
    let rows: Vec<Vec<&str>> = shown
        .lines()
        .skip_while(|line| !line.starts_with("trial"))
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0][..5], ["trial", "state", "work", "seed", "step"], "{shown}");
    assert_eq!(rows[1][..5], ["0", "failed", "superseded", "0", "60"], "{shown}");
    assert_eq!(rows[2][..6], ["1", "complete", "done", "0", "60", "1.5"], "{shown}");
    let one = run(&here, &["study", "show", "quick", "--trial", "0"]).ok().stdout;
    assert!(one.contains("work state  superseded"), "{one}");
}

#[test]
fn one_trial_with_its_curve_and_numbers_that_are_none() {
    let here = Here::new();
    let (mut storage, id) = study(&here, "odd", 4);
    let record = Record::new()
        .value(1, f64::NAN)
        .value(2, f64::INFINITY)
        .value(3, f64::NEG_INFINITY)
        .value(4, 0.1)
        .attribute("train_seconds", 0.5)
        .attribute("list", json!([1, null]));
    finish(&mut storage, id, &record, 0.1);
    finish(&mut storage, id, &Record::new(), f64::INFINITY);
    finish(&mut storage, id, &Record::new(), f64::NEG_INFINITY);
    finish(&mut storage, id, &Record::new().value(7, f64::NAN), f64::NAN);

    let text = run(&here, &["study", "show", "odd", "--trial", "0"]).ok().stdout;
    for line in [
        "work item   d_model=0/seed-0",
        "work state  done",
        "value       0.1",
        "  d_model  0",
        "  train_seconds  0.5",
        "  list           [1,null]",
        "values by step:\n  1  NaN\n  2  inf\n  3  -inf\n  4  0.1\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let object = run(&here, &["study", "show", "odd", "--trial", "0", "--json"]).ok().json();
    assert_eq!(
        object["intermediate_values"],
        json!({"1": "NaN", "2": "Infinity", "3": "-Infinity", "4": 0.1})
    );
    let csv = run(&here, &["study", "export", "odd"]).ok().stdout;
    let values: Vec<&str> = csv.lines().skip(1).map(|line| line.split(',').nth(2).unwrap()).collect();
    assert_eq!(values, ["0.1", "inf", "-inf", ""]);
    assert!(csv.lines().nth(4).unwrap().contains(",FAIL,"), "{csv}");
    let listed = run(&here, &["study", "list"]).ok().stdout;
    assert!(listed.contains("  0.1  "), "{listed}");

    let absent = run(&here, &["study", "show", "odd", "--trial", "4"]);
    assert_eq!(absent.code, Some(1));
    assert!(absent.stderr.contains("no trial 4 in `odd`\nhint: it has trials 0 to 3"), "{absent:?}");
}

#[test]
fn hostile_content_is_shown_and_not_obeyed() {
    let here = Here::new();
    let name = "a\u{1b}]0;owned\u{7}\u{202e}\n../../x";
    let mut storage = open(&here, "shared.db");
    let id = storage.create_study(name, Direction::Minimize, &[]).unwrap();
    let evil = "=cmd|' /C calc'!A0\u{9b}2J\r\n\u{1b}[2J\"; DROP TABLE trials; --";
    let mut trial = new_trial(1);
    trial.key = evil.to_string();
    trial.params.push(Param {
        name: evil.to_string(),
        value: json!(evil),
        distribution: Distribution::Categorical { choices: vec![json!(evil)] },
    });
    trial.user_attributes.push((evil.to_string(), json!({ evil: evil })));
    trial.user_attributes.push(("checkpoint".to_string(), json!("../../../etc/passwd")));
    trial.user_attributes.push(("text".to_string(), json!(evil)));
    storage.enqueue(id, &[trial]).unwrap();
    let mut worker = Worker::this_process("cpu\u{1b}[31m");
    worker.name = "\u{1b}[31manna".to_string();
    assert!(matches!(storage.claim(id, &worker, &Policy::default()).unwrap(), Claimed::Work(_)));

    let at = ["--storage", "shared.db"];
    let with = |words: &[&str]| run(&here, &[words, &at[..]].concat());
    // `run` looks at each answer for what a terminal would obey.
    assert!(with(&["study", "list"]).ok().stdout.contains("\\u{1b}]0;owned\\u{7}\\u{202e}\\u{a}"));
    assert!(with(&["study", "show"]).ok().stdout.contains("\\u{1b}[31manna"));
    with(&["study", "show", "--trial", "0"]).ok();
    with(&["study", "show", name, "--trial", "7"]);
    with(&["study", "show", "a\u{1b}]"]);
    let listed = with(&["study", "list", "--json"]).ok().json();
    assert_eq!(listed["studies"][0]["name"], name);
    let shown = with(&["study", "show", "--json"]).ok().json();
    assert_eq!(shown["trials"][0]["params"][evil], evil);
    assert_eq!(shown["trials"][0]["item"]["key"], evil);
    let exported = with(&["study", "export", "--format", "jsonl"]).ok().json();
    assert_eq!(exported["user_attributes"][evil][evil], evil);
    let csv = with(&["study", "export"]).ok().stdout;
    assert_eq!(csv.lines().count(), 2, "{csv}");
    let mut rows = csv::Reader::from_reader(csv.as_bytes());
    for row in rows.records().map(Result::unwrap) {
        assert!(row.iter().all(|cell| !cell.starts_with(['=', '@', '\t'])), "{row:?}");
        assert!(row.iter().any(|cell| cell.starts_with("'=cmd|")), "{row:?}");
    }
    let refused = with(&["study", "delete", name, "--yes"]);
    assert!(refused.stderr.contains("\\u{1b}[31manna is working on"), "{refused:?}");
    with(&["study", "delete", name, "--yes", "--force"]).ok();
}

#[test]
fn wrong_names_and_places() {
    let here = Here::new();
    study(&here, "text8", 1);
    study(&here, "quick", 1);
    let fails = |args: &[&str], code: i32, parts: &[&str]| {
        let ran = run(&here, &[&["study"], args].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "{ran:?}");
        for part in parts {
            assert!(ran.stderr.contains(part), "{part}: {ran:?}");
        }
        assert!(ran.stderr.lines().count() <= 2 && !ran.stderr.contains("hunter2"), "{ran:?}");
    };
    fails(&["show", "quikc"], 1, &["no study `quikc`", "hint: did you mean `quick`?"]);
    fails(&["show", "zzz"], 1, &["no study `zzz`", "study list"]);
    fails(&["show", "zzz", "--storage", "studies/quick"], 1, &["no study `zzz`", "study list"]);
    fails(&["export", "Text9", "--storage", "studies/text8"], 1, &["did you mean `text8`?"]);
    fails(&["show"], 2, &["NAME is missing", "study list"]);
    fails(&["delete"], 2, &["NAME"]);
    fails(&["list", "--storage", "absent.db"], 1, &["no study database at absent.db"]);
    fails(&["list", "--storage", "absent/"], 1, &["no study database at absent/study.db"]);
    fails(&["show", "x", "--storage", "."], 1, &["no study database at ./study.db"]);
    std::fs::create_dir_all(here.path("folder/study.db")).unwrap();
    fails(&["list", "--storage", "folder"], 1, &["no study database at folder/study.db"]);
    here.write("text.db", "this is a text and no database, however long one looks at it. ".repeat(20));
    fails(&["list", "--storage", "text.db"], 1, &["text.db", "not a SQLite database", "--storage takes"]);
    here.write("empty.db", b"");
    fails(&["list", "--storage", "empty.db"], 1, &["no study database at empty.db"]);
    assert_eq!(std::fs::metadata(here.path("empty.db")).unwrap().len(), 0);
    fails(&["list", "--storage", ""], 2, &["storage URL"]);
    fails(&["list", "--storage", "mysql://u:hunter2@h/d"], 2, &["sqlite:///"]);
    fails(&["list", "--storage", "u:hunter2@h/d"], 2, &["storage URL"]);
    fails(
        &["list", "--storage", "postgresql://u:hunter2@127.0.0.1:1/d"],
        1,
        &["cannot reach", "u@127.0.0.1:1", "does the server run"],
    );
    let by_variable =
        finished(here.command(&["study", "list"]).env("DIAPASON_STORAGE", "mysql://u:hunter2@h/d"));
    assert_eq!(by_variable.code, Some(2));
    assert!(by_variable.stderr.contains("DIAPASON_STORAGE") && !by_variable.stderr.contains("hunter2"));
    // Two studies in one database: which?
    let mut storage = open(&here, "two.db");
    for name in ["a", "b"] {
        storage.create_study(name, Direction::Minimize, &[]).unwrap();
    }
    fails(&["show", "--storage", "two.db"], 2, &["2 studies", "study list --storage two.db`"]);
    fails(&["show", "zzz", "--storage", "two.db"], 1, &["no study `zzz`", "study list --storage two.db`"]);
    // A study's folder, wherever it is, and whatever its study is called.
    let mut storage = open(&here, "elsewhere/mine/study.db");
    storage.create_study("another name", Direction::Minimize, &[]).unwrap();
    assert!(run(&here, &["study", "show", "elsewhere/mine"]).ok().stdout.starts_with("another name in"));
    let nothing = run(&here, &["study", "export", "elsewhere/mine", "--format", "json"]).ok();
    assert_eq!(nothing.stdout, "[]\n");
}

#[test]
fn exports_to_files_are_whole_or_not_there() {
    let here = Here::new();
    study(&here, "quick", 3);
    let ran = run(&here, &["study", "export", "quick", "--out", "quick.csv"]).ok();
    assert_eq!(ran.stdout, "");
    assert_eq!(here.read("quick.csv"), run(&here, &["study", "export", "quick"]).ok().stdout.as_bytes());
    here.write("old.csv", b"old");
    // Half-way through, a row that no reader understands.
    sql(&here, "studies/quick/study.db", "UPDATE trials SET state = 'ODD' WHERE number = 2");
    let failed = run(&here, &["study", "export", "quick", "--out", "old.csv"]);
    assert_eq!(failed.code, Some(1));
    assert!(failed.stderr.contains("a trial in state `ODD`"), "{failed:?}");
    assert_eq!(here.read("old.csv"), b"old");
    assert!(here.files().iter().all(|name| !name.contains(".tmp")), "{:?}", here.files());
    let failed = run(&here, &["study", "export", "quick", "--out", "absent/x.csv"]);
    assert!(failed.stderr.contains("cannot write absent/x.csv"), "{failed:?}");
}

fn sql(here: &Here, file: &str, statements: &str) {
    rusqlite::Connection::open(here.path(file)).unwrap().execute_batch(statements).unwrap();
}

#[test]
fn deleting() {
    let here = Here::new();
    let (mut storage, id) = study(&here, "quick", 2);
    here.write("studies/quick/study.toml", b"");
    std::fs::create_dir_all(here.path("studies/quick/trials/d_model=0/seed-0")).unwrap();
    here.write("studies/quick/trials/d_model=0/seed-0/checkpoint.safetensors", b"x");
    here.write("studies/quick/trials/d_model=0/seed-0/.curve.csv.tmp", b"x");
    here.write("studies/quick/trials/d_model=0/seed-0/.lock", b"");
    std::fs::create_dir_all(here.path("studies/quick/trials/d_model=1/seed-0")).unwrap();
    std::fs::create_dir_all(here.path("studies/quick/trials/mine")).unwrap();
    let mine = ["notes.txt", "trials/mine/curve.csv", "trials/d_model=1/seed-0/notes.txt"]
        .map(|file| format!("studies/quick/{file}"));
    for file in &mine {
        here.write(file, b"mine");
    }
    let lease = claim(&mut storage, id).lease;
    let delete = |more: &[&str]| run(&here, &[&["study", "delete", "quick"], more].concat());

    let asked = delete(&["--force"]);
    assert_eq!(asked.code, Some(2));
    assert!(asked.stderr.contains("this deletes the study `quick` with its 2 trials"), "{asked:?}");
    assert!(asked.stderr.contains("hint: --yes"), "{asked:?}");
    let held = delete(&["--yes"]);
    assert_eq!(held.code, Some(1));
    assert!(
        held.stderr.contains("anna:1 is working on `quick`") && held.stderr.contains("--force"),
        "{held:?}"
    );
    assert_eq!(storage.trial_counts(id).unwrap().values().sum::<u64>(), 2);

    storage.release(&lease, &Record::new()).unwrap();
    drop(storage);
    delete(&["--yes"]).ok();
    // The rows are gone, the files are not.
    assert!(here.path("studies/quick/trials/d_model=0/seed-0/checkpoint.safetensors").is_file());
    assert_eq!(run(&here, &["study", "list", "--json"]).ok().json(), json!({"studies": []}));
    assert_eq!(delete(&["--yes"]).code, Some(1));

    drop(study(&here, "quick", 2));
    let deleted = delete(&["--yes", "--files"]).ok();
    assert!(deleted.stderr.contains("and the checkpoints and curves in studies/quick/trials"), "{deleted:?}");
    let mut left: Vec<String> = here.files().into_iter().filter(|name| here.path(name).is_file()).collect();
    left.sort();
    let mut mine = mine.to_vec();
    mine.sort();
    assert_eq!(left, mine);
    for file in &mine {
        assert!(deleted.stderr.contains(&format!("{file} stays")), "{deleted:?}");
    }
    assert!(!here.path("studies/quick/trials/d_model=0").exists());

    // No files are taken that may be another's.
    let mut shared = open(&here, "shared/study.db");
    for name in ["a", "b"] {
        shared.create_study(name, Direction::Minimize, &[]).unwrap();
    }
    here.write("shared/study.toml", b"");
    let refused = run(&here, &["study", "delete", "a", "--files", "--yes", "--storage", "shared"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("1 other studies"), "{refused:?}");
    std::fs::remove_file(here.path("shared/study.toml")).unwrap();
    let refused = run(&here, &["study", "delete", "a", "--files", "--yes", "--storage", "shared"]);
    assert!(refused.stderr.contains("no study.toml in shared"), "{refused:?}");
    run(&here, &["study", "delete", "a", "--yes", "--storage", "shared"]).ok();
    assert_eq!(shared.studies().unwrap().len(), 1);
}

#[cfg(unix)]
#[test]
fn a_database_that_may_only_be_read() {
    use std::os::unix::fs::PermissionsExt;
    let here = Here::new();
    drop(study(&here, "quick", 3));
    let set = |name: &str, mode| {
        std::fs::set_permissions(here.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set("studies/quick/study.db", 0o444);
    set("studies/quick", 0o555);
    set(".", 0o755);
    let as_other = |args: &[&str]| {
        let plain = here.command(args);
        // To root, nothing is forbidden.
        let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
        if !root {
            return finished(&mut here.command(args));
        }
        let copy = here.path("program");
        if !copy.is_file() {
            std::fs::copy(plain.get_program(), &copy).unwrap();
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(copy);
        finished(command.args(args).current_dir(here.path(".")))
    };
    assert_eq!(as_other(&["study", "list", "--json"]).ok().json()["studies"][0]["trials"], 3);
    assert_eq!(as_other(&["study", "export", "quick"]).ok().stdout.lines().count(), 4);
    let refused = as_other(&["study", "delete", "quick", "--yes"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(Path::new(&here.path("studies/quick/study.db")).is_file());
    set("studies/quick", 0o755);
}
