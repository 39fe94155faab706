//! Signals, and going on after them.

mod common;

use common::{Here, Ran, finish, signal, tiny, wait_for};
use serde_json::Value;

/// A run of a second or two: long enough to be interrupted in the middle.
fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    tiny(
        "train",
        &[
            &[
                "--corpus",
                "text.txt",
                "--steps",
                "6000",
                "--set",
                "checkpoint_seconds=1",
                "--set",
                "patience=0",
            ],
            more,
        ]
        .concat(),
    )
}

/// The numbers that may not depend on interruptions: all but times.
fn numbers(ran: &Ran) -> Vec<Value> {
    let object = ran.json();
    ["final_validation_loss", "best_validation_loss", "best_step", "steps", "accuracy", "accuracy_last"]
        .map(|key| object[key].clone())
        .to_vec()
}

/// The numbers in a run's best.safetensors; what lies before them contains measured times.
fn weights(here: &Here, run: &str) -> Vec<u8> {
    let bytes = here.read(&format!("{run}/best.safetensors"));
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    bytes[8 + header as usize..].to_vec()
}

/// Starts `args` and sends `name` once evaluations have been printed.
fn interrupted(here: &Here, args: &[&str], name: &str, ready: impl Fn() -> bool) -> Ran {
    let child = here.start(args);
    wait_for("the run to begin", ready);
    signal(&child, name);
    finish(child)
}

#[test]
fn sigint_and_sigterm_keep_everything_and_say_how_to_resume() {
    let here = Here::with_text();
    // A folder whose name a shell would take apart.
    let whole = here.run(&train(&["--out", "whole", "--json"])).ok();
    let signals = [("INT", 130, "it's a run"), ("TERM", 143, "run-2")];
    // Elsewhere a hangup ends the program: it cannot be seen whether it is meant to be ignored.
    let hangup = [("HUP", 129, "run-3")];
    for (name, code, folder) in
        signals.into_iter().chain(hangup.into_iter().filter(|_| cfg!(target_os = "linux")))
    {
        let ready = || here.path(folder).join("best.safetensors").exists();
        let stopped = interrupted(&here, &train(&["--out", folder, "--json"]), name, ready);
        assert_eq!((stopped.code, stopped.stdout.as_str()), (Some(code), ""), "{stopped:?}");
        assert!(here.path(folder).join("checkpoint.safetensors").exists());
        let resume = stopped.stderr.lines().last().unwrap();
        assert!(resume.ends_with(" --resume"), "{stopped:?}");
        let resumed = here.shell(resume).ok();
        assert!(resumed.stderr.contains("going on at step "), "{resumed:?}");
        assert_eq!(numbers(&resumed), numbers(&whole));
    }
}

#[test]
fn a_run_that_was_killed_ends_with_the_same_numbers() {
    let here = Here::with_text();
    let whole = here.run(&train(&["--out", "whole", "--json"])).ok();
    let ready = || here.path("run/checkpoint.safetensors").exists();
    let killed = interrupted(&here, &train(&["--out", "run"]), "KILL", ready);
    assert_eq!(killed.code, None, "{killed:?}");
    let resumed = here.run(&train(&["--out", "run", "--resume", "--json"])).ok();
    assert_eq!(numbers(&resumed), numbers(&whole));
    assert!(weights(&here, "run") == weights(&here, "whole"), "the best weights differ");
}

/// A study of two trials that take a second or two.
fn tune<'a>(out: &'a str, parallel: &'a str) -> Vec<&'a str> {
    tiny(
        "tune",
        &[
            "--corpus",
            "text.txt",
            "--grid",
            "learning_rate=1e-3,3e-3",
            "--steps",
            "4000",
            "--set",
            "checkpoint_seconds=1",
            "--set",
            "patience=0",
            "--threads",
            "2",
            "--parallel",
            parallel,
            "--json",
            "--out",
            out,
        ],
    )
}

/// The numbers of a study that may not depend on interruptions.
fn numbers_of_trials(ran: &Ran) -> Vec<Value> {
    let object = ran.json();
    let trials = object["trials"].as_array().unwrap();
    trials
        .iter()
        .flat_map(|trial| {
            ["number", "pass", "state", "steps", "validation_loss", "accuracy", "accuracy_last"]
                .map(|key| trial[key].clone())
        })
        .collect()
}

#[test]
fn a_study_that_was_interrupted_and_killed_ends_with_the_same_numbers() {
    let here = Here::with_text();
    let whole = here.run(&tune("whole", "1")).ok();
    let trial =
        |name: &str| here.path("s/trials").join(format!("learning_rate={name}/seed-0/best.safetensors"));
    let killed = interrupted(&here, &tune("s", "1"), "KILL", || trial("0.001").exists());
    assert_eq!(killed.code, None, "{killed:?}");
    let stopped = interrupted(&here, &tune("s", "1"), "INT", || trial("0.003").exists());
    // Nobody is at it: the page says so, and is not read again.
    let page = String::from_utf8(here.read("s/report.html")).unwrap();
    assert!(page.contains("not finished: ") && !page.contains("http-equiv=\"refresh\""), "{page}");
    assert_eq!((stopped.code, stopped.stdout.as_str()), (Some(130), ""), "{stopped:?}");
    let resumed = here.shell(stopped.stderr.lines().last().unwrap()).ok();
    assert_eq!(numbers_of_trials(&resumed), numbers_of_trials(&whole));
    assert!(!resumed.stderr.contains("trial 1/2"), "the first trial was finished: {}", resumed.stderr);
}

#[test]
fn a_study_with_two_trials_at_work_loses_neither() {
    let here = Here::with_text();
    let whole = here.run(&tune("whole", "1")).ok();
    let file = |rate: &str, name: &str| here.path(&format!("s/trials/learning_rate={rate}/seed-0/{name}"));
    let both = |name: &str| ["0.001", "0.003"].map(|rate| file(rate, name));
    let killed = interrupted(&here, &tune("s", "2"), "KILL", || {
        both("best.safetensors").iter().all(|best| best.exists())
    });
    assert_eq!(killed.code, None, "{killed:?}");
    // Both have gone on when both curves have been written anew.
    let written = || both("curve.csv").map(|file| std::fs::metadata(file).unwrap().modified().unwrap());
    let before = written();
    let gone_on = || written().iter().zip(&before).all(|(now, before)| now > before);
    let stopped = interrupted(&here, &tune("s", "2"), "INT", gone_on);
    assert_eq!((stopped.code, stopped.stdout.as_str()), (Some(130), ""), "{stopped:?}");
    for trial in ["trial 1 interrupted: ", "trial 2 interrupted: "] {
        assert!(stopped.stderr.contains(trial), "{stopped:?}");
    }
    let resumed = here.shell(stopped.stderr.lines().last().unwrap()).ok();
    assert!(resumed.stderr.contains("trial 1/2 learning_rate=0.001: going on at step "), "{resumed:?}");
    assert!(resumed.stderr.contains("trial 2/2 learning_rate=0.003: going on at step "), "{resumed:?}");
    assert_eq!(numbers_of_trials(&resumed), numbers_of_trials(&whole));
    for rate in ["0.001", "0.003"] {
        let run = |study: &str| format!("{study}/trials/learning_rate={rate}/seed-0");
        assert!(weights(&here, &run("s")) == weights(&here, &run("whole")), "the best weights differ");
    }
}

#[test]
fn outside_of_training_a_signal_ends_the_program_at_once() {
    let here = Here::with_text();
    // Reading from a pipe that nobody writes to.
    let pipe = here.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let normalize = ["corpus", "normalize", "pipe", "out.txt"];
    let train = ["train", "--corpus", "pipe"];
    for (args, name, code) in [(&train[..], "TERM", 143), (&train, "HUP", 129), (&normalize, "INT", 130)] {
        if name == "HUP" && cfg!(not(target_os = "linux")) {
            continue;
        }
        let child = here.start(args);
        std::thread::sleep(std::time::Duration::from_millis(300));
        signal(&child, name);
        assert_eq!(finish(child).code, Some(code), "{args:?}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn hangups_may_come_twice_and_may_be_ignored() {
    let here = Here::with_text();
    let whole = here.run(&train(&["--out", "whole", "--json"])).ok();
    // The terminal is gone: nobody reads what is printed.
    let mut child = here.start(&train(&["--out", "run"]));
    drop((child.stdout.take(), child.stderr.take()));
    wait_for("the run to begin", || here.path("run/best.safetensors").exists());
    signal(&child, "HUP");
    signal(&child, "HUP");
    assert_eq!(finish(child).code, Some(129));
    let resumed = here.run(&train(&["--out", "run", "--resume", "--json"])).ok();
    assert!(resumed.stderr.contains("going on at step "), "{resumed:?}");
    assert_eq!(numbers(&resumed), numbers(&whole));

    // As `nohup` starts it.
    let line = format!("trap '' HUP; exec \"$D\" {}", train(&["--out", "kept", "--json"]).join(" "));
    let child = here.start_shell(&line);
    wait_for("the run to begin", || here.path("kept/best.safetensors").exists());
    signal(&child, "HUP");
    assert_eq!(numbers(&finish(child).ok()), numbers(&whole));
}

/// Runs its arguments on a terminal of their own, closes that once the file of the first argument is there, and ends as
/// they end.
#[cfg(target_os = "linux")]
const CLOSED_TERMINAL: &str = "
import os, pty, sys
process, terminal = pty.fork()
if process == 0:
    os.execv(sys.argv[2], sys.argv[2:])
while not os.path.exists(sys.argv[1]):
    os.read(terminal, 4096)
os.close(terminal)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
";

#[test]
#[cfg(target_os = "linux")]
fn a_terminal_that_goes_away_costs_nothing() {
    let here = Here::with_text();
    let whole = here.run(&train(&["--out", "whole", "--json"])).ok();
    let mut python = std::process::Command::new("python3");
    python.current_dir(here.path("")).args(["-c", CLOSED_TERMINAL, "run/best.safetensors"]);
    python.arg(env!("CARGO_BIN_EXE_diapason")).args(train(&["--out", "run"]));
    let output = python.output().unwrap();
    assert_eq!(output.status.code(), Some(129), "{output:#?}");
    let resumed = here.run(&train(&["--out", "run", "--resume", "--json"])).ok();
    assert!(resumed.stderr.contains("going on at step "), "{resumed:?}");
    assert_eq!(numbers(&resumed), numbers(&whole));
}

#[test]
fn what_an_interrupted_conversion_leaves_is_replaced_by_the_next() {
    let here = Here::with_text();
    for _ in 0..2 {
        let mut command = here.command(&["corpus", "normalize", "-", "out.txt"]);
        let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
        // Begun means empty: the second time there is what the first has left.
        let temporary = here.path(".out.txt.tmp");
        wait_for("the file to be begun", || std::fs::read(&temporary).is_ok_and(|left| left.is_empty()));
        signal(&child, "INT");
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert_eq!(here.files(), [".out.txt.tmp", "text.txt"]);
        here.write(".out.txt.tmp", "half of a text");
    }
    here.run(&["corpus", "normalize", "text.txt", "out.txt"]).ok();
    assert_eq!(here.files(), ["out.txt", "text.txt"]);
}
