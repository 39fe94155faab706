//! Several processes on one study: who has which trial, and what each of them may do to it.

mod common;
#[path = "../../storage/tests/common/mod.rs"]
mod databases;

use common::{Here, Ran, finish, outcomes, signal, tiny, wait_for};
use databases::{PASSWORD, Server};
use diapason_kernels::Isa;
use diapason_storage::{Attributes, EXTENDS, Item, ItemState, Opening, Page, Storage, StorageUrl, Trial};
use diapason_training::FolderLock;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

/// A study whose trials take a second or two each.
fn tune<'a>(rates: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let common = [
        "--corpus",
        "text.txt",
        "--grid",
        rates,
        "--steps",
        "4000",
        "--set",
        "checkpoint_seconds=1",
        "--set",
        "patience=0",
        "--threads",
        "1",
        "--out",
        out,
    ];
    tiny("tune", &[&common[..], more].concat())
}

fn open(url: &str) -> Storage {
    Storage::open(&StorageUrl::parse(url).unwrap(), Opening::Read).unwrap()
}

fn items(storage: &mut Storage) -> Vec<Item> {
    let studies = storage.studies().unwrap();
    storage.items(studies[0].id, None, None, 100).unwrap()
}

fn trials(storage: &mut Storage) -> Vec<Trial> {
    let studies = storage.studies().unwrap();
    storage.trials(studies[0].id, Page::default()).unwrap()
}

/// Stops a process where it holds neither the database nor the folder of its trial: there it would hold up everybody
/// for as long as it is stopped.
fn stop(child: &Child, database: &Path, folder: &Path) {
    loop {
        signal(child, "STOP");
        std::thread::sleep(Duration::from_millis(20));
        let connection = rusqlite::Connection::open(database).unwrap();
        connection.busy_timeout(Duration::ZERO).unwrap();
        if FolderLock::acquire(folder).is_ok()
            && connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok()
        {
            return;
        }
        signal(child, "CONT");
        std::thread::sleep(Duration::from_millis(3));
    }
}

fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let name = |entry: &std::fs::DirEntry| entry.file_name().into_string().unwrap();
    let files = entries.filter(|entry| name(entry) != ".lock");
    files.map(|entry| (name(&entry), std::fs::read(entry.path()).unwrap())).collect()
}

#[test]
fn a_worker_that_was_only_slow_leaves_its_successors_result_alone() {
    let here = Here::with_text();
    // So many that a fast worker is not through with the others before the lease is over.
    let rates: Vec<String> = (1..=20).map(|n| format!("{n}e-3")).collect();
    let rates = format!("learning_rate={}", rates.join(","));
    let rates = rates.as_str();
    here.run(&tune(rates, "whole", &[])).ok();
    let folder = here.path("s/trials/learning_rate=0.001/seed-0");
    let slow = here.start(&tune(rates, "s", &["--lease", "2"]));
    wait_for("the first trial to be under way", || folder.join("best.safetensors").exists());
    stop(&slow, &here.path("s/study.db"), &folder);

    let quick = here.start(&["worker", "--storage", "s", "--lease", "2", "--threads", "1"]);
    wait_for("the first trial to be done", || items(&mut here.storage("s"))[0].state == ItemState::Done);
    signal(&quick, "INT");
    let quick = finish(quick);
    assert_eq!(quick.code, Some(130), "{quick:#?}");
    assert!(
        quick.stderr.contains(", which has fallen silent: it goes on from its last checkpoint"),
        "{quick:#?}"
    );
    let before = contents(&folder);
    let of_successor = trials(&mut here.storage("s")).swap_remove(0);

    signal(&slow, "CONT");
    let slow = finish(slow).ok();
    assert!(slow.stderr.contains("trial 1 is with another worker now: left as it is"), "{slow:#?}");
    assert_eq!(slow.stderr.matches("is with another worker now").count(), 1, "{slow:#?}");
    assert!(contents(&folder) == before, "files of the first trial have changed");
    assert_eq!(trials(&mut here.storage("s")).swap_remove(0), of_successor);
    assert_eq!(items(&mut here.storage("s"))[0].claims, 2);
    let [s, whole] = ["s", "whole"].map(|study| outcomes(&mut here.storage(study), &here.path(study)));
    assert_eq!(s, whole);
}

#[test]
fn without_a_shared_folder_a_trial_begins_again_at_step_0() {
    let here = Here::with_text();
    here.run(&tune("learning_rate=1e-3", "whole", &[])).ok();
    let first = here.start(&tune("learning_rate=1e-3", "a", &["--storage", "shared.db"]));
    let step = || items(&mut open(&format!("sqlite:///{}", here.path("shared.db").display())))[0].step;
    wait_for("a checkpoint to be in the database", || {
        here.path("a/trials/learning_rate=0.001/seed-0/best.safetensors").exists() && step() > 0
    });
    signal(&first, "KILL");
    finish(first);
    let second = here.run(&["worker", "--storage", "shared.db", "--out", "b", "--threads", "1"]).ok();
    let said = ", whose process is gone: its checkpoint of step ";
    let where_not = " is not in b/trials/learning_rate=0.001/seed-0: it begins again at step 0";
    assert!(second.stderr.contains(said) && second.stderr.contains(where_not), "{second:#?}");
    assert!(second.stderr.contains("1 of 1 trials are done"), "{second:#?}");
    let url = format!("sqlite:///{}", here.path("shared.db").display());
    assert_eq!(
        outcomes(&mut open(&url), &here.path("b")),
        outcomes(&mut here.storage("whole"), &here.path("whole"))
    );
}

#[test]
fn a_worker_waits_for_what_others_may_leave_unless_it_is_told_not_to() {
    let here = Here::with_text();
    here.run(&tune("learning_rate=1e-3", "whole", &[])).ok();
    let busy = here.start(&tune("learning_rate=1e-3", "s", &[]));
    let folder = here.path("s/trials/learning_rate=0.001/seed-0");
    wait_for("the trial to be under way", || folder.join("best.safetensors").exists());
    stop(&busy, &here.path("s/study.db"), &folder);
    let gone = here.run(&["worker", "--storage", "s/study.db", "--no-wait"]).ok();
    assert!(gone.stderr.contains("0 of 1 trials are done") && !gone.stderr.contains("waiting"), "{gone:#?}");

    let patient = here.start(&["worker", "--storage", "s/study.db", "--threads", "1"]);
    std::thread::sleep(Duration::from_millis(500));
    signal(&busy, "KILL");
    finish(busy);
    let patient = finish(patient).ok();
    assert!(patient.stderr.contains("waiting: other workers have 1 trial"), "{patient:#?}");
    assert!(
        patient.stderr.contains(", whose process is gone: it goes on from its last checkpoint"),
        "{patient:#?}"
    );
    assert!(patient.stderr.contains("1 of 1 trials are done"), "{patient:#?}");
    assert!(here.path("s/report.md").exists(), "whoever finishes the study writes its report");
    let [s, whole] = ["s", "whole"].map(|study| outcomes(&mut here.storage(study), &here.path(study)));
    assert_eq!(s, whole);
}

#[test]
fn a_worker_with_another_instruction_set_leaves_what_others_began() {
    // This machine must have two.
    let [best, .., plain] = &Isa::available()[..] else { return };
    let here = Here::with_text();
    let mut begin = here.command(&tune("learning_rate=1e-3,3e-3", "s", &[]));
    let begin = begin.env("DIAPASON_ISA", plain.name()).stderr(Stdio::null()).spawn().unwrap();
    let folder = here.path("s/trials/learning_rate=0.001/seed-0");
    wait_for("the trial to be under way", || folder.join("best.safetensors").exists());
    signal(&begin, "TERM");
    assert_eq!(finish(begin).code, Some(143));

    let worker = |more: &[&str]| {
        let args = [&["worker", "--storage", "s", "--threads", "1"], more].concat();
        let child = here.command(&args).env("DIAPASON_ISA", best.name()).output().unwrap();
        Ran::new(child)
    };
    let refused = worker(&[]);
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    let lines: Vec<&str> = refused.stderr.lines().rev().take(2).collect();
    assert!(
        lines[1].starts_with("error: 1 trial of this study was begun by another engine than "),
        "{lines:?}"
    );
    assert!(lines[0].starts_with("hint: ") && lines[0].contains("--allow-other-engine"), "{lines:?}");
    // What nobody had begun it did.
    let states =
        |study| items(&mut here.storage(study)).into_iter().map(|item| item.state).collect::<Vec<_>>();
    assert_eq!(states("s"), [ItemState::Ready, ItemState::Done]);

    let allowed = worker(&["--allow-other-engine"]).ok();
    assert_eq!(states("s"), [ItemState::Done; 2]);
    let marked: Vec<usize> = trials(&mut here.storage("s"))
        .iter()
        .map(|trial| trial.user_attributes["other_engines"].as_array().unwrap().len())
        .collect();
    assert_eq!(marked, [1, 0], "{allowed:#?}");
    assert!(allowed.stderr.contains("computed by engine "), "{allowed:#?}");
}

/// A study that grows: in its folder, and on a server.
fn grows(here: &Here, url: &str, place: &[&str]) {
    let run = |rates: &str, more: &[&str]| {
        let common = ["--corpus", "text.txt", "--grid", rates, "--threads", "1", "--out", "s"];
        here.run(&tiny("tune", &[&common[..], place, more].concat()))
    };
    let claims = || {
        let mut storage = open(url);
        let mut claims: Vec<(i64, i64)> = trials(&mut storage)
            .into_iter()
            .filter_map(|trial| Some((trial.number, trial.item?.claims)))
            .collect();
        claims.sort_unstable();
        claims
    };
    run("learning_rate=1e-3,3e-3", &["--steps", "40"]).ok();
    assert_eq!(claims(), [(0, 1), (1, 1)]);
    run("learning_rate=1e-3,3e-3", &["--steps", "40", "--seeds", "2"]).ok();
    assert_eq!(claims(), [(0, 1), (1, 1), (2, 1), (3, 1)], "more seeds");
    run("learning_rate=1e-3,2e-3,3e-3", &["--steps", "40", "--seeds", "2"]).ok();
    assert_eq!(claims(), [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1)], "another value");
    let again = run("learning_rate=1e-3,2e-3,3e-3", &["--steps", "40", "--seeds", "2"]).ok();
    assert!(again.stderr.contains("nothing to train: 6 of 6 trials are done"), "{again:#?}");

    for (args, said) in [
        (&["--steps", "40", "--seeds", "2", "--set", "beta1=0.8"][..], "beta1 was 0.9, is 0.8"),
        (&["--steps", "20", "--seeds", "2"], "steps was 40, is 20 (there may be more, not fewer)"),
        (&["--steps", "40"], "seeds was 2, is 1 (there may be more, not fewer)"),
        (&["--steps", "40", "--seeds", "2", "--early", "0.5"], "early_fraction was 0.2, is 0.5"),
    ] {
        let refused = run("learning_rate=1e-3,2e-3,3e-3", args);
        assert_eq!(refused.code, Some(1), "{refused:#?}");
        let message = format!("error: the study in s was begun with other settings: {said}");
        assert!(refused.stderr.starts_with(&message), "{refused:#?}");
        assert!(refused.stderr.contains("\nhint: ") && refused.stderr.lines().count() == 2, "{refused:#?}");
    }
    let refused = run("learning_rate=1e-3,2e-3", &["--steps", "40", "--seeds", "2"]);
    assert!(refused.stderr.contains("learning_rate was 0.001,0.002,0.003, is 0.001,0.002"), "{refused:#?}");

    let longer = run("learning_rate=1e-3,2e-3,3e-3", &["--steps", "80", "--seeds", "2"]).ok();
    assert_eq!(longer.stderr.matches("going on at step 40 of 80").count(), 6, "{longer:#?}");
    let now = claims();
    assert!(now.iter().all(|(number, claims)| (6..12).contains(number) && *claims == 2), "{now:?}");
    let extends =
        trials(&mut open(url)).into_iter().filter(|t| t.system_attributes.contains_key(EXTENDS)).count();
    assert_eq!(extends, 6);
}

#[test]
fn a_study_grows_and_refuses_to_become_another() {
    let here = Here::with_text();
    let url = format!("sqlite:///{}", here.path("s/study.db").display());
    grows(&here, &url, &[]);
    let Some(server) = Server::start() else { return };
    let here = Here::with_text();
    let url = server.new_database();
    grows(&here, &url, &["--storage", &url, "--study", "it's \"größe\""]);
}

/// A study is given more steps while a worker that began before has a trial of it: nothing stays too short.
#[test]
fn a_study_grows_under_its_workers() {
    let here = Here::with_text();
    let rates = "learning_rate=1e-3,3e-3,1e-2";
    let first = here.start(&tune(rates, "s", &[]));
    let begun = || here.path("s/trials/learning_rate=0.003/seed-0/best.safetensors").exists();
    wait_for("the second trial to be under way", begun);
    let args = tune(rates, "s", &[]);
    let args: Vec<&str> = args.iter().map(|word| if *word == "4000" { "6000" } else { *word }).collect();
    let second = here.run(&args).ok();
    let first = finish(first).ok();
    for ran in [&first, &second] {
        assert!(ran.stdout.contains("verdict") || ran.stderr.contains("next:"), "{ran:#?}");
    }
    let states: Vec<_> = trials(&mut here.storage("s"))
        .into_iter()
        .filter_map(|trial| Some((trial.item?.state, trial.user_attributes["steps"].clone())))
        .collect();
    assert_eq!(states.len(), 3);
    let wanted = (ItemState::Done, serde_json::Value::from(6000));
    assert!(states.iter().all(|state| *state == wanted), "{states:?} {first:#?} {second:#?}");
    // As a study that had so many steps from the beginning, and the same interval between evaluations.
    let whole: Vec<&str> = args.iter().map(|word| if *word == "s" { "longer" } else { *word }).collect();
    here.run(&[&whole[..], &["--set", "eval_every=200", "--early", "0.13333333333333333"]].concat()).ok();
    let values = |study| -> Vec<(String, Vec<f64>)> {
        let mut values: Vec<_> = trials(&mut here.storage(study))
            .into_iter()
            .filter_map(|trial| {
                trial.item.as_ref()?;
                Some((trial.params["learning_rate"].to_string(), trial.values))
            })
            .collect();
        values.sort_by(|a, b| a.0.cmp(&b.0));
        values
    };
    assert_eq!(values("s"), values("longer"));
}

/// Training goes on while the database is away, and can be stopped all the same.
#[test]
fn a_study_can_be_stopped_while_its_database_is_away() {
    let Some(server) = Server::start() else { return };
    let here = Here::with_text();
    let rates = "learning_rate=1e-3,3e-3";
    here.run(&tune(rates, "whole", &[])).ok();
    let url = server.new_database();
    let child = here.start(&tune(rates, "s", &["--storage", &url]));
    let folder = here.path("s/trials/learning_rate=0.001/seed-0");
    wait_for("the trial to be under way", || folder.join("best.safetensors").exists());
    server.control("stop");
    // Long enough for the trial to end: it waits to say so.
    std::thread::sleep(Duration::from_secs(3));
    signal(&child, "INT");
    let stopped = finish(child);
    assert_eq!(stopped.code, Some(130), "{stopped:#?}");
    assert!(stopped.stderr.contains("cannot reach the database at postgresql://tester@"), "{stopped:#?}");
    server.control("start");
    here.shell(stopped.stderr.lines().last().unwrap()).ok();
    assert_eq!(
        outcomes(&mut open(&url), &here.path("s")),
        outcomes(&mut here.storage("whole"), &here.path("whole"))
    );
}

/// Everything that a database holds, as text.
fn dump(client: &mut postgres::Client) -> String {
    let tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'";
    let tables: Vec<String> = client.query(tables, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert!(tables.len() > 10, "{tables:?}");
    let rows = tables.iter().flat_map(|table| {
        let rows = client.query(&format!("SELECT CAST(t AS TEXT) FROM {table} t"), &[]).unwrap();
        rows.iter().map(|row| row.get(0)).collect::<Vec<String>>()
    });
    rows.collect::<Vec<_>>().join("\n")
}

#[test]
#[cfg(target_os = "linux")]
fn a_password_is_written_nowhere() {
    let Some(server) = Server::start() else { return };
    let here = Here::with_text();
    let plain = server.new_database();
    let database = plain.rsplit_once('/').unwrap().1.split('?').next().unwrap();
    let written = PASSWORD.replace('@', "%40").replace(':', "%3A").replace('/', "%2F");
    let secret = |text: &str| text.contains(PASSWORD) || text.contains(&written) || text.contains("w/rd");
    let url = format!("postgresql://guarded:{written}@127.0.0.1:{}/{database}?sslmode=require", server.port);
    let args = tune("learning_rate=1e-3,3e-3", "s", &["--storage", &url, "--study", "kept"]);

    let mut command = here.command(&args);
    for variable in ["PGPASSWORD", "PGPASSFILE", "PGSSLMODE"] {
        command.env_remove(variable);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    wait_for("the trial to be under way", || {
        here.path("s/trials/learning_rate=0.001/seed-0/best.safetensors").exists()
    });
    let line = std::fs::read_to_string(format!("/proc/{}/cmdline", child.id())).unwrap();
    assert!(line.contains("postgresql://guarded@127.0.0.1") && !secret(&line), "{line}");
    signal(&child, "INT");
    let stopped = finish(child);
    assert_eq!(stopped.code, Some(130), "{stopped:#?}");
    let resume = stopped.stderr.lines().last().unwrap();
    assert!(resume.contains("guarded@127.0.0.1") && !secret(&stopped.stderr), "{stopped:#?}");

    let refused = here.shell(&format!("unset PGPASSWORD; {resume}"));
    assert!(refused.code == Some(1) && refused.stderr.contains("error: "), "{refused:#?}");
    let resumed = here.shell(&format!("PGPASSWORD='{PASSWORD}' {resume}")).ok();
    assert!(resumed.stderr.contains("going on at step "), "{resumed:#?}");
    let wrong = here.shell(&format!("PGPASSWORD='{PASSWORD}x' {resume}"));
    assert_eq!(wrong.code, Some(1), "{wrong:#?}");
    for ran in [&refused, &resumed, &wrong] {
        assert!(!secret(&ran.stdout) && !secret(&ran.stderr), "{ran:#?}");
    }
    for file in here.files() {
        let path = here.path(&file);
        if path.is_file() {
            assert!(!secret(&String::from_utf8_lossy(&std::fs::read(path).unwrap())), "{file}");
        }
    }
    let mut client = postgres::Client::connect(&plain, postgres::NoTls).unwrap();
    assert!(!secret(&dump(&mut client)));
    let mut storage = open(&plain);
    let study = storage.study("kept").unwrap();
    assert!(!storage.study_attributes(study, Attributes::User).unwrap().is_empty());
}
