//! What a command says that it will take of memory is what it takes, within 10 %.
#![cfg(target_os = "linux")]

mod common;

use common::{Here, Ran, finish, text};

/// Runs the program; what it said, and the most that it had, in MiB.
fn said_and_had(here: &Here, args: &[&str]) -> (f64, f64, Ran) {
    let mut child = here.start(args);
    let status = format!("/proc/{}/status", child.id());
    let mut had = 0.0;
    while child.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next());
        had = peak.and_then(|kib| kib.parse::<f64>().ok()).map_or(had, |kib| kib / 1024.0);
        std::thread::sleep(std::time::Duration::from_millis(3));
    }
    let ran = finish(child).ok();
    let line = ran.stderr.lines().find_map(|line| line.strip_prefix("memory: "));
    let said = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    (said.unwrap_or_else(|| panic!("{ran:#?}")), had, ran)
}

#[track_caller]
fn check(here: &Here, args: &[&str]) -> Ran {
    let (said, had, ran) = said_and_had(here, args);
    assert!(had > 10.0 && (said - had).abs() <= 0.1 * had, "said {said} MiB, had {had}: {ran:#?}");
    ran
}

#[test]
fn memory_is_what_was_said() {
    let here = Here::new();
    here.write("text.txt", text(8_000_000));
    let small = ["--set", "validation_characters=9600", "--set", "d_model=64", "--set", "n_layers=1"];
    let large =
        ["--set", "validation_characters=9600", "--set", "batch_size=100", "--set", "sequence_length=50"];
    for (sizes, folder) in [(&small[..], "small"), (&large[..], "large")] {
        let train = |more: &[&'static str]| -> Vec<&str> {
            [&["train", "--corpus", "text.txt", "--validation-chars", "9000", "--out", folder], sizes, more]
                .concat()
        };
        check(&here, &train(&["--steps", "1", "--threads", "1"]));
        // What is read of the checkpoint goes straight into the engine.
        let resumed = check(&here, &train(&["--steps", "2", "--threads", "2", "--resume"]));
        assert!(resumed.stderr.contains("going on at step 1 of 2"), "{resumed:#?}");
        let init = format!("{folder}/checkpoint.safetensors");
        let other = ["--out", "other", "--steps", "1", "--init", &init];
        check(&here, &[&["train", "--corpus", "text.txt"], sizes, &other].concat());
        std::fs::remove_dir_all(here.path("other")).unwrap();
        check(&here, &["eval", folder]);
        check(&here, &["eval", &init, "--threads", "3"]);
    }
}

#[test]
fn memory_of_a_benchmark_is_what_was_said() {
    let here = Here::new();
    let sizes = ["--seconds", "0.1", "--threads", "2", "--set", "n_layers=1", "--set", "batch_size=128"];
    for what in ["step", "trials", "evaluation", "generation"] {
        check(&here, &[&["bench", what], &sizes[..]].concat());
    }
    check(&here, &[&["bench", "--set", "precision=half"], &sizes[..]].concat());
}

#[test]
fn memory_of_a_study_is_what_was_said() {
    let here = Here::new();
    here.write("text.txt", text(8_000_000));
    let tune = |grid: &'static str, steps: &'static str, out: &'static str, more: &[&'static str]| {
        let args = [
            &["tune", "--corpus", "text.txt", "--grid", grid, "--grid", "n_layers=1,2", "--steps", steps][..],
            &["--set", "validation_characters=6400", "--threads", "2", "--out", out],
            more,
        ];
        check(&here, &args.concat())
    };
    // One after the other, smaller and larger in turn; side by side; timed first.
    tune("d_model=256,64", "2", "one", &["--parallel", "1"]);
    tune("d_model=128,256", "2", "two", &["--parallel", "2"]);
    let timed = tune("d_model=32,48", "150", "timed", &["--set", "batch_size=128"]);
    assert!(!here.costs("timed").is_empty(), "{timed:#?}");
}
