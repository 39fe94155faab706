//! `tune --parallel`: several trials at once, as seen from outside.

mod common;

use common::{Here, tiny};
use serde_json::Value;

fn tune<'a>(more: &[&'a str]) -> Vec<&'a str> {
    tiny("tune", &[&["--corpus", "text.txt", "--grid", "learning_rate=1e-3,3e-3,1e-2"], more].concat())
}

/// All that is the same however a study was run.
fn results(object: &Value) -> Vec<Value> {
    let keys = [
        "number",
        "params",
        "pass",
        "state",
        "steps",
        "validation_loss",
        "accuracy",
        "accuracy_last",
        "read_at",
    ];
    let trials = object["trials"].as_array().unwrap();
    trials.iter().map(|trial| keys.iter().map(|key| trial[*key].clone()).collect()).collect()
}

#[test]
fn trials_at_once_and_threads_change_no_number() {
    let here = Here::with_text();
    let mut seen = Vec::new();
    for parallel in ["1", "2", "3"] {
        for threads in ["1", "2", "3"] {
            let out = format!("{parallel}-{threads}");
            let args =
                ["--steps", "40", "--parallel", parallel, "--threads", threads, "--json", "--out", &out];
            let ran = here.run(&tune(&args)).ok();
            let object = ran.json();
            for trial in object["trials"].as_array().unwrap() {
                let mean = |key: &str| trial[key].as_f64().unwrap();
                let (at_once, had) = (mean("trials_at_once"), mean("threads"));
                assert!((1.0..=parallel.parse().unwrap()).contains(&at_once), "{trial}");
                assert!((1.0..=threads.parse().unwrap()).contains(&had), "{trial}");
            }
            seen.push(results(&object));
        }
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:#?}");
}

#[test]
fn how_the_trials_run_is_said_once() {
    let here = Here::with_text();
    let said = |args: &[&str]| {
        let ran = here.run(&tune(args)).ok();
        let lines = ran.stderr.lines().filter(|line| line.contains(" at a time"));
        (lines.map(str::to_string).collect::<Vec<_>>(), ran.stderr)
    };
    let (lines, _) = said(&["--steps", "40", "--threads", "2", "--parallel", "2", "--out", "forced"]);
    assert_eq!(lines, ["two trials at a time, one thread each"]);
    let (lines, _) = said(&["--steps", "40", "--threads", "2", "--parallel", "1", "--out", "one"]);
    assert!(lines.is_empty(), "{lines:?}");
    let (lines, _) = said(&["--steps", "40", "--threads", "1", "--out", "thread"]);
    assert!(lines.is_empty(), "{lines:?}");

    // Long enough to be timed: both ways are named, and the times are kept.
    let (lines, stderr) =
        said(&["--steps", "800", "--threads", "2", "--set", "patience=0", "--out", "timed"]);
    assert!(
        lines.len() == 1
            && lines[0].contains("one trial at a time") != lines[0].contains("two trials at a time"),
        "{lines:?}"
    );
    assert!(lines[0].contains(": about ") && lines[0].contains("; "), "{lines:?}");
    assert!(stderr.contains("trial 3/3 learning_rate=0.01: step 800/800"), "{stderr}");
    let costs = here.costs("timed");
    assert!(costs.len() == 1 && costs[0].seconds_per_step > 0.0, "{costs:?}");
    assert_eq!(costs[0].detail["threads"], 2, "{costs:?}");
    let report = String::from_utf8(here.read("timed/report.md")).unwrap();
    assert!(report.contains("- seconds are the steps times what one takes alone on 2 threads"), "{report}");
}
