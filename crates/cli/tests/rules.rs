//! Rules, ranges and replay as they are typed: one study played through, on a file and on a server.

mod common;
#[path = "../../storage/tests/common/mod.rs"]
mod databases;

use common::{Here, tiny};
use databases::Server;
use serde_json::Value as Json;

const GRID: [&str; 8] =
    ["--corpus", "text.txt", "--grid", "n_heads=1,2", "--grid", "n_layers=1,2", "--steps", "60"];

fn tune<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let grid: Vec<&str> = GRID.to_vec();
    let tiny: Vec<&str> = tiny("tune", &[]);
    // What the grid varies is not set.
    let mut words: Vec<&str> = Vec::new();
    for pair in tiny[1..].chunks(2) {
        if !["n_heads=2", "n_layers=1"].contains(&pair[1]) {
            words.extend(pair);
        }
    }
    [&["tune"], &words[..], &grid, &["--threads", "1", "--cost", "flop"], more].concat()
}

/// The object of a rule.
fn rule<'a>(replayed: &'a Json, name: &str) -> &'a Json {
    let rules = replayed["rules"].as_array().unwrap();
    rules.iter().find(|rule| rule["rule"].as_str().unwrap().starts_with(name)).unwrap()
}

#[test]
fn a_replay_says_what_halving_then_does() {
    let here = Here::with_text();
    let whole = here.run(&tune(&["--out", "studies/whole", "--json"])).ok().json();
    let words = ["--rule", "halving:eta=2", "--rule", "patience:3", "--rule", "as-seed", "--rule", "none"];
    let before = here.files();
    let ran = here.run(&[&["replay", "whole"], &words[..]].concat()).ok();
    assert_eq!(here.files(), before, "nothing is written");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(
        lines[0].starts_with("text: all 4 trials to their end, 240 steps, choose n_heads="),
        "{}",
        ran.stdout
    );
    assert!(
        lines[2].starts_with("rule ") && lines[2].contains(" regret ") && lines.len() == 7,
        "{}",
        ran.stdout
    );
    assert!(lines[6].starts_with("none ") && lines[6].ends_with(" 0 %"), "{}", ran.stdout);

    let replayed = here.run(&[&["replay", "studies/whole", "--json"], &words[..]].concat()).ok().json();
    assert_eq!(replayed["chosen"], whole["verdict"]["chosen"]);
    let none = rule(&replayed, "none");
    assert_eq!(
        (&none["same_choice"], &none["regret"], &none["steps"]),
        (&true.into(), &0.0.into(), &240.into())
    );

    let halved =
        here.run(&tune(&["--out", "studies/halved", "--rule", "halving:eta=2", "--json"])).ok().json();
    let halving = rule(&replayed, "halving");
    assert_eq!(halving["chosen"], halved["verdict"]["chosen"]);
    let full = halved["trials"].as_array().unwrap().iter().filter(|row| row["pass"] == "full");
    let steps: u64 = full.map(|row| row["steps"].as_u64().unwrap()).sum();
    assert_eq!(halving["steps"], steps);
    assert!(steps < 240 && halving["ended"].as_u64().unwrap() >= 1);
    assert_eq!(halving["decisions"].as_array().unwrap().len(), 3);

    // What is not there cannot be replayed.
    let refused = here.run(&["replay", "halved", "--rule", "median"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.starts_with("error: rule halving:eta=2 of the study ended "), "{refused:#?}");
    assert!(refused.stderr.contains("\nhint: replay a study of the same grid"), "{refused:#?}");

    // Nor need one rule that cannot be replayed keep the others from it.
    let first = ["replay", "whole", "--rule", "halving:eta=2,first=60", "--rule", "none"];
    let some = here.run(&first).ok();
    assert!(some.stderr.starts_with("left out: rule halving:eta=2,first=60: "), "{some:#?}");
    assert!(some.stdout.lines().count() == 4 && some.stdout.contains("\nnone "), "{some:#?}");
    assert_eq!(here.run(&first[..4]).code, Some(1));
}

#[test]
fn a_study_on_a_server_is_replayed() {
    let Some(server) = Server::start() else { return };
    let here = Here::with_text();
    let url = server.new_database();
    let place = ["--storage", &url, "--study", "it's \"größe\""];
    here.run(&tune(&[&place[..], &["--out", "s"]].concat())).ok();
    let replayed = ["replay", place[3], "--storage", &url, "--rule", "halving:eta=2", "--json"];
    let replayed = here.run(&replayed).ok().json();
    assert_eq!(replayed["steps"], 240);
    assert!(rule(&replayed, "halving")["steps"].as_u64().unwrap() < 240);
}

#[test]
fn samples_and_seeds_as_they_are_typed() {
    let here = Here::with_text();
    let common = ["--corpus", "text.txt", "--steps", "20", "--threads", "1", "--out", "s"];
    let set: Vec<&str> = tiny("tune", &common)[1..].to_vec();
    let drawn = |more: &[&'static str]| here.run(&[&["tune"], &set[..], more].concat());
    let range =
        ["--range", "learning_rate=1e-4..1e-2:log", "--sampler", "tpe:startup=2,round=2", "--samples", "5"];
    let ran = drawn(&[&range[..], &["--json"]].concat()).ok();
    assert_eq!(ran.json()["trials"].as_array().unwrap().len(), 10, "five samples, early and full");
    let round = "samples 3 to 4 of 5: drawn by tpe:startup=2,round=2,seed=0 in the light of the first 2";
    assert!(ran.stderr.contains(round), "{}", ran.stderr);
    assert!(ran.stderr.contains("sample 5 of 5: "), "{}", ran.stderr);
    let again = drawn(&range).ok();
    assert!(again.stderr.contains("nothing to train: 5 of 5 trials are done"), "{}", again.stderr);
    // The study says what was asked.
    let toml = String::from_utf8(here.read("s/study.toml")).unwrap();
    assert!(toml.contains("[search]\nsampler = \"tpe:startup=2,round=2,seed=0\"\nsamples = 5\n"), "{toml}");
    let refused = drawn(&["--range", "learning_rate=1e-4..1e-2:log", "--samples", "5"]);
    assert!(refused.stderr.contains("search was 5 samples by tpe:"), "{refused:#?}");

    // Seeds for what needs them: noted, trained, and said to be enough or not.
    let ran = here.run(&tune(&["--out", "u", "--until-decided", "--max-seeds", "2"])).ok();
    assert!(ran.stderr.contains("a second seed of "), "{}", ran.stderr);
    let toml = String::from_utf8(here.read("u/study.toml")).unwrap();
    assert!(toml.contains("\nuntil_decided = 2\n"), "{toml}");
    let patient = here.run(&tune(&["--out", "p", "--rule", "patience:2"])).ok();
    assert!(!patient.stderr.contains("rule"), "{}", patient.stderr);
    let toml = String::from_utf8(here.read("p/study.toml")).unwrap();
    assert!(toml.contains("\npatience = 2\n") && !toml.contains("\nrule = "), "{toml}");
}
