//! What a power cut, a full disk or a clumsy hand leaves of a study: the same command again ends with the same numbers,
//! or says in one line which file is damaged and what to do.
//!
//! Files are cut, emptied and removed at the places where a write could have been cut short. Most of these states cannot
//! come about (what is written is flushed before it counts), and none of them may lead to a wrong number.

mod common;

use common::{Here, Outcome, Ran, finish, outcomes, signal, tiny, wait_for};
use diapason_storage::ItemState;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

const DONE: &str = "trials/learning_rate=0.001/seed-0";
const BEGUN: &str = "trials/learning_rate=0.003/seed-0";

fn tune(out: &str) -> Vec<&str> {
    let more = [
        "--corpus",
        "text.txt",
        "--grid",
        "learning_rate=1e-3,3e-3",
        "--steps",
        "1500",
        "--set",
        "patience=0",
        "--set",
        "checkpoint_seconds=1",
        "--threads",
        "1",
        "--json",
        "--out",
        out,
    ];
    tiny("tune", &more)
}

/// The numbers that a study ends with.
fn numbers(ran: &Ran) -> Vec<String> {
    let object = ran.json();
    let keys = ["number", "params", "pass", "state", "steps", "validation_loss", "accuracy", "read_at"];
    let trials = object["trials"].as_array().unwrap().iter();
    trials.map(|trial| keys.map(|key| trial[key].to_string()).join(" ")).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A folder `killed` with a study whose process was killed in the middle of the second of two trials.
fn killed(here: &Here) {
    for _ in 0..20 {
        let _ = fs::remove_dir_all(here.path("killed"));
        let child = here.start(&tune("killed"));
        wait_for("the second trial to be under way", || {
            here.path("killed").join(BEGUN).join("curve.csv").exists()
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
        signal(&child, "KILL");
        finish(child);
        // Looking at the database itself would tidy it up.
        copy(&here.path("killed"), &here.path("looked-at"));
        let mut storage = here.storage("looked-at");
        let study = storage.studies().unwrap()[0].id;
        let states: Vec<ItemState> =
            storage.items(study, None, None, 9).unwrap().into_iter().map(|item| item.state).collect();
        drop(storage);
        fs::remove_dir_all(here.path("looked-at")).unwrap();
        let best = here.path("killed").join(BEGUN).join("best.safetensors");
        if states == [ItemState::Done, ItemState::Held] && best.exists() {
            return;
        }
    }
    panic!("it was never killed in the middle");
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Remove,
    /// To so many hundredths of its length.
    Cut(usize),
    /// By so many bytes.
    Shorten(usize),
    /// Another byte in the middle.
    Change,
    /// A file beside it that a write has left.
    Leftover,
}

impl Damage {
    /// False if there is nothing to be damaged.
    fn do_to(self, path: &Path) -> bool {
        let bytes = fs::read(path).unwrap_or_default();
        match self {
            Self::Remove => return fs::remove_file(path).is_ok(),
            Self::Cut(hundredths) => fs::write(path, &bytes[..bytes.len() * hundredths / 100]).unwrap(),
            Self::Shorten(less) if bytes.len() >= less => {
                fs::write(path, &bytes[..bytes.len() - less]).unwrap()
            }
            Self::Shorten(_) => return false,
            Self::Change if bytes.is_empty() => return false,
            Self::Change => {
                let mut bytes = bytes;
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0x55;
                fs::write(path, bytes).unwrap();
            }
            Self::Leftover => {
                let name = format!(".{}.tmp", path.file_name().unwrap().to_str().unwrap());
                fs::write(path.with_file_name(name), &bytes[..bytes.len() / 2]).unwrap();
            }
        }
        true
    }
}

/// What the study must come to.
struct Whole {
    numbers: Vec<String>,
    outcomes: (BTreeMap<String, Outcome>, Vec<i64>),
}

/// Damages a copy of a study, continues it, and says what came of it.
fn check(here: &Here, whole: &Whole, of: &str, case: usize, files: &[&str], damage: Damage) -> String {
    let name = format!("case-{case}");
    copy(&here.path(of), &here.path(&name));
    for file in files {
        if !damage.do_to(&here.path(&name).join(file)) {
            return format!("{damage:?} {files:?}: not there");
        }
    }
    let case = format!("{damage:?} {files:?}");
    let mut ran = here.run(&tune(&name));
    let mut came = "the same numbers".to_string();
    if ran.code != Some(0) {
        let (errors, hints): (Vec<&str>, Vec<&str>) = ran
            .stderr
            .lines()
            .filter(|line| line.starts_with("error: ") || line.starts_with("hint: "))
            .partition(|line| line.starts_with("error: "));
        assert_eq!((ran.code, errors.len(), hints.len()), (Some(1), 1, 1), "{case}: {ran:#?}");
        // The file, or its folder and its name.
        let names = |path: &Path| {
            [path.parent(), path.file_name().map(Path::new)]
                .into_iter()
                .flatten()
                .all(|part| errors[0].contains(part.to_str().unwrap()))
        };
        assert!(files.iter().any(|file| names(Path::new(file))), "{case} is not named: {ran:#?}");
        assert_eq!(ran.stdout, "", "{case}");
        came = format!("{} / {}", errors[0], hints[0]);
        // The way out: what is damaged goes away, a trial with its folder.
        for file in files {
            let path = here.path(&name).join(file);
            if file.starts_with("trials/") {
                fs::remove_dir_all(path.parent().unwrap()).unwrap();
            } else {
                for end in ["", "-wal", "-shm"] {
                    let _ = fs::remove_file(format!("{}{end}", path.display()));
                }
            }
        }
        ran = here.run(&tune(&name));
        assert_eq!(ran.code, Some(0), "{case}, way out: {ran:#?}");
    }
    assert_eq!(numbers(&ran), whole.numbers, "{case}: {ran:#?}");
    // Files of a trial that was done stay as damaged as they are: nothing done is run again.
    if !files.iter().any(|file| file.starts_with(DONE)) {
        let now = outcomes(&mut here.storage(&name), &here.path(&name));
        assert_eq!(now, whole.outcomes, "{case}: {ran:#?}");
    }
    fs::remove_dir_all(here.path(&name)).unwrap();
    format!("{case}: {came}")
}

#[test]
fn damaged_files_change_no_number() {
    let here = Here::with_text();
    let ran = here.run(&tune("whole")).ok();
    let outcomes = outcomes(&mut here.storage("whole"), &here.path("whole"));
    let whole = Whole { numbers: numbers(&ran), outcomes };
    killed(&here);

    let trials = [DONE, BEGUN].map(|trial| {
        ["checkpoint.safetensors", "best.safetensors", "curve.csv"].map(|file| format!("{trial}/{file}"))
    });
    let mut cases: Vec<(Vec<&str>, Damage)> = Vec::new();
    let cuts = [Damage::Remove, Damage::Cut(0), Damage::Cut(50), Damage::Shorten(1), Damage::Change];
    for file in trials.as_flattened() {
        cases.extend(cuts.map(|damage| (vec![file.as_str()], damage)));
        cases.push((vec![file], Damage::Leftover));
    }
    cases.extend(cuts.map(|damage| (vec!["study.toml"], damage)));
    cases.push((vec!["study.toml"], Damage::Leftover));
    cases.push((vec!["report.md"], Damage::Leftover));
    let wal = ["study.db-wal"];
    cases.extend([0, 1, 10, 25, 50, 75, 90].map(|hundredths| (wal.to_vec(), Damage::Cut(hundredths))));
    cases.extend([1, 24, 4096, 4120].map(|bytes| (wal.to_vec(), Damage::Shorten(bytes))));
    cases.extend([Damage::Remove, Damage::Change].map(|damage| (wal.to_vec(), damage)));
    cases.extend(
        [Damage::Remove, Damage::Cut(0), Damage::Cut(50), Damage::Change]
            .map(|damage| (vec!["study.db-shm"], damage)),
    );
    cases.extend(
        [Damage::Remove, Damage::Cut(0), Damage::Cut(50), Damage::Cut(1)]
            .map(|damage| (vec!["study.db"], damage)),
    );
    cases.push((vec!["study.db", "study.db-wal"], Damage::Remove));
    cases.push((vec!["study.db", "study.db-wal", "study.toml"], Damage::Remove));

    // A database that was closed, and has no -wal to make up for it.
    copy(&here.path("whole"), &here.path("closed"));
    assert!(!here.path("closed/study.db-wal").exists());
    for damage in [Damage::Cut(0), Damage::Cut(20), Damage::Cut(60), Damage::Cut(1), Damage::Remove] {
        check(&here, &whole, "closed", 1000, &["study.db"], damage);
    }

    let next = Mutex::new(cases.iter().enumerate());
    let said = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let Some((case, (files, damage))) = next.lock().unwrap().next() else { return };
                    let came = check(&here, &whole, "killed", case, files, *damage);
                    said.lock().unwrap().push(came);
                }
            });
        }
    });
    let said = said.into_inner().unwrap();
    assert_eq!(said.len(), cases.len());
    assert!(!said.iter().any(|case| case.ends_with("not there") && !case.contains("report")), "{said:#?}");
}
