//! `tune --budget`: the same characters, or the same time, for each configuration.

mod common;

use common::{Here, finish, signal, tiny, wait_for};
use serde_json::Value as Json;

/// A study of two sizes with a budget.
fn tune<'a>(budget: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let grid = ["--corpus", "text.txt", "--grid", "d_model=16,32", "--budget", budget, "--out", out];
    let set: Vec<&str> = tiny("tune", &[]);
    // What the grid varies is not set.
    let pairs = set[1..].chunks(2).filter(|pair| pair[1] != "d_model=16").flatten().copied();
    ["tune"]
        .into_iter()
        .chain(pairs)
        .chain(grid)
        .chain(["--json", "--set", "patience=0"])
        .chain(more.iter().copied())
        .collect()
}

/// The steps of the full passes, by the number of the trial.
fn steps(study: &Json) -> Vec<u64> {
    let rows = study["trials"].as_array().unwrap().iter();
    rows.filter(|row| row["pass"] == "full").map(|row| row["steps"].as_u64().unwrap()).collect()
}

#[test]
fn characters() {
    let here = Here::with_text();
    let ran = here.run(&tune("200000chars", "s", &[])).ok();
    let study = ran.json();
    // 4 windows of 8 characters.
    assert_eq!((steps(&study), &study["budget"]), (vec![6250, 6250], &"200000chars".into()));
    assert!(ran.stderr.contains("a budget of 200000chars for each configuration: 6250 steps"), "{ran:#?}");
    let command = study["command"].as_str().unwrap();
    assert!(command.contains(" --budget 200000chars "), "{command}");
    let toml = String::from_utf8(here.read("s/study.toml")).unwrap();
    assert!(toml.contains("\nbudget = \"200000chars\"\n"), "{toml}");
    let report = String::from_utf8(here.read("s/report.md")).unwrap();
    assert!(report.contains("\n- full, 200000chars each:\n"), "{report}");

    assert!(ran.stderr.trim_end().ends_with(" --budget 2e6chars"), "{ran:#?}");
    // The same budget is the same cost, whatever its division by whole steps leaves over.
    let verdict = study["verdict"]["reason"].as_str().unwrap();
    assert!(!verdict.contains("more time") || study["cost"] != "flop", "{verdict}");

    let again = here.run(&tune("2e5chars", "s", &[])).ok();
    assert!(again.stderr.contains("nothing to train: 2 of 2 trials are done"), "{again:#?}");
    let other = here.run(&tune("300000chars", "s", &[]));
    assert_eq!(other.code, Some(1));
    assert!(other.stderr.contains("budget was 200000chars, is 300000chars"), "{other:#?}");
    let replayed = here.run(&["replay", "s", "--rule", "patience:3", "--rule", "none", "--json"]).ok();
    assert_eq!(replayed.json()["steps"], 12_500);
    let refused = here.run(&["replay", "s", "--rule", "halving"]);
    assert!(refused.stderr.starts_with("error: rule halving:eta=2: with a budget each "), "{refused:#?}");
}

#[test]
fn time_that_is_killed_and_gone_on_with_keeps_its_steps() {
    let here = Here::with_text();
    let args = tune("1s", "s", &["--parallel", "1", "--set", "checkpoint_seconds=1"]);
    let child = here.start(&args);
    wait_for("the first evaluations", || here.path("s/trials/d_model=16/seed-0/best.safetensors").exists());
    signal(&child, "KILL");
    assert_eq!(finish(child).code, None);
    let before = String::from_utf8(here.read("s/study.toml")).unwrap();
    assert!(before.contains("\nbudget = \"1s\"\n") && before.contains("\n[ms_per_step]\n"), "{before}");
    // By the kind of step: d_model=16, then d_model=32.
    let times = before.split("[ms_per_step]\n").nth(1).unwrap().lines().take_while(|line| !line.is_empty());
    let ms = times.map(|line| line.rsplit(" = ").next().unwrap().parse::<f64>().unwrap());
    let expected: Vec<u64> = ms.map(|ms| ((1e3 / ms) as u64).max(1)).collect();
    assert_eq!(expected.len(), 2, "{before}");

    let done = here.run(&args).ok();
    assert_eq!(String::from_utf8(here.read("s/study.toml")).unwrap(), before);
    let steps = steps(&done.json());
    assert!(steps.iter().zip(&expected).all(|(a, b)| a.abs_diff(*b) <= 1), "{steps:?} {expected:?}");
    // What was not timed then cannot be added.
    let larger: Vec<&str> =
        args.iter().map(|word| if *word == "d_model=16,32" { "d_model=16,32,64" } else { word }).collect();
    let refused = here.run(&larger);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.starts_with("error: d_model=64: its steps were not timed when "), "{refused:#?}");
    assert!(refused.stderr.contains("\nhint: begin another study with --out"), "{refused:#?}");
}
