//! Studies that go back and forth between the program and Python's Optuna, 5.0 and 4.9.
//!
//! The interpreters are those of two virtual environments that `scripts/test` makes. Without them these tests fail, unless
//! they are left out by name. `diapason-storage` tests the tables one by one; this is about whole programs.

mod common;
#[path = "../../storage/tests/common/mod.rs"]
mod databases;

use common::{Here, finish};
use databases::Server;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Set this to leave these tests out.
const SKIP: &str = "DIAPASON_SKIP_OPTUNA_TESTS";
/// Folder of the virtual environments, if it is not the top of the project.
const FOLDER: &str = "DIAPASON_OPTUNA_ENVIRONMENTS";
const NAME: &str = "größe 'x'";

/// A model that trains in milliseconds, but for its layers.
const SMALL: [&str; 12] = [
    "--set",
    "d_model=16",
    "--set",
    "n_heads=2",
    "--set",
    "batch_size=4",
    "--set",
    "sequence_length=8",
    "--set",
    "max_len=16",
    "--set",
    "validation_characters=512",
];

/// One version of Optuna, and a database.
struct Peer {
    version: &'static str,
    url: String,
}

impl Peer {
    fn start(&self, command: &str) -> Child {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = std::env::var_os(FOLDER).map_or(here.join("../.."), PathBuf::from);
        let program = folder.join(format!(".venv-optuna-{}/bin/python", self.version));
        assert!(
            program.is_file(),
            "{} is not there: run scripts/test, which makes it, or set {SKIP}=1",
            program.display()
        );
        Command::new(program)
            .arg(here.join("tests/python/optuna_study.py"))
            .args([command, &self.url.replace("postgresql:", "postgresql+psycopg2:"), NAME])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn ask(&self, command: &str) -> Value {
        finish(self.start(command)).ok().json()
    }
}

/// Each version on each database.
fn everywhere(test: impl Fn(&Here, &Peer)) {
    if std::env::var_os(SKIP).is_some() {
        return;
    }
    let server = Server::start();
    for version in ["5.0.0", "4.9.0"] {
        let here = Here::with_text();
        let url = format!("sqlite:///{}", here.path("study.db").display());
        test(&here, &Peer { version, url });
        if let Some(server) = &server {
            test(&Here::with_text(), &Peer { version, url: server.new_database() });
        }
    }
}

fn tune<'a>(peer: &'a Peer, more: &[&'a str]) -> Vec<&'a str> {
    let common = ["--corpus", "text.txt", "--out", "s", "--threads", "1", "--json"];
    let place = ["--storage", &peer.url, "--study", NAME];
    [&["tune"], &SMALL[..], &common[..], &place, more].concat()
}

#[test]
fn python_reads_a_study_that_was_tuned() {
    everywhere(|here, peer| {
        let grid = ["--grid", "epsilon=1e-35,1e-3,1e-1", "--grid", "n_layers=1,2"];
        let rest = [
            "--seeds",
            "2",
            "--steps",
            "40",
            "--set",
            "beta2=0",
            "--set",
            "learning_rate=0.1",
            "--set",
            "patience=0",
        ];
        let ours = here.run(&tune(peer, &[&grid[..], &rest].concat())).ok().json();
        let read = peer.ask("read");
        let trials = read["trials"].as_array().unwrap();
        assert_eq!((trials.len(), &read["rows"], &read["figures"]), (12, &json!(12), &json!(9)));
        for trial in trials {
            let number = trial["number"].as_u64().unwrap();
            let mut rows = ours["trials"].as_array().unwrap().iter();
            let full = rows.rfind(|row| row["number"] == trial["number"] && row["pass"] == "full").unwrap();
            let diverges = trial["params"]["epsilon"] == json!(1e-35);
            assert_eq!(trial["state"], json!(if diverges { "FAIL" } else { "COMPLETE" }), "{number}");
            assert_eq!((&trial["state"], &trial["params"]), (&full["state"], &full["params"]), "{number}");
            let attributes = &trial["user_attrs"];
            assert_eq!(attributes["seed"], full["seed"], "{number}");
            for key in ["parameters", "engine", "corpus_digest", "flop_per_step", "train_seconds"] {
                assert!(!attributes[key].is_null(), "{number}: {key}");
            }
            let path = attributes["checkpoint"].as_str().unwrap();
            assert!(here.path("s").join(path).exists(), "{path}");
            if diverges {
                assert!(
                    attributes["fail_reason"].as_str().unwrap().starts_with("diverged at step "),
                    "{trial}"
                );
            } else {
                assert_eq!(
                    (&trial["value"], &trial["lowest"]),
                    (&full["validation_loss"], &full["validation_loss"])
                );
                assert_eq!(trial["steps"].as_array().unwrap().last(), Some(&json!(40)), "{number}");
                assert_eq!(attributes["best_validation_loss"], trial["value"], "{number}");
                assert!(
                    trial["seconds"].as_f64().unwrap() < 600.0 && trial["age"].as_f64().unwrap() < 600.0,
                    "{trial}"
                );
            }
        }
        assert_eq!(
            trials[0]["distributions"],
            json!({
                "epsilon": "FloatDistribution(high=0.1, log=True, low=1e-35, step=None)",
                "n_layers": "IntDistribution(high=2, log=False, low=1, step=1)"
            })
        );
        let losses = trials.iter().filter_map(|trial| trial["value"].as_f64());
        assert_eq!(read["best_value"].as_f64(), losses.min_by(f64::total_cmp));
        assert_eq!(read["best_params"], trials[read["best"].as_u64().unwrap() as usize]["params"]);
        assert_eq!(read["importances"].as_object().unwrap().len(), 2);
        let columns: Vec<&str> =
            read["columns"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        for column in ["params_epsilon", "params_n_layers", "user_attrs_seed", "user_attrs_train_seconds"] {
            assert!(columns.contains(&column), "{columns:?}");
        }
    });
}

#[test]
fn what_python_enqueues_is_trained() {
    everywhere(|here, peer| {
        assert_eq!(peer.ask("enqueue")["trials"], json!(6));
        // It says neither which text nor which model.
        let worker = ["worker", "--storage", &peer.url, "--study", NAME, "--out", "s", "--threads", "1"];
        let refused = here.run(&worker);
        assert_eq!(refused.code, Some(1), "{refused:#?}");
        assert!(
            refused.stderr.contains("was made by another program") && refused.stderr.contains("--enqueued"),
            "{refused:#?}"
        );

        let args =
            tune(peer, &["--enqueued", "--steps", "3000", "--set", "n_layers=1", "--set", "patience=0"]);
        let ran = here.run(&args).ok();
        assert!(ran.stderr.contains("3 enqueued trials cannot be trained here"), "{ran:#?}");
        let read = peer.ask("read");
        let trials = read["trials"].as_array().unwrap();
        let states: Vec<&str> = trials.iter().map(|trial| trial["state"].as_str().unwrap()).collect();
        assert_eq!(states, ["COMPLETE", "COMPLETE", "WAITING", "WAITING", "WAITING", "COMPLETE"]);
        let seeds = [0, 1, 5].map(|number: usize| trials[number]["user_attrs"]["seed"].clone());
        assert_eq!(seeds, [json!(0), json!(5), json!(7)]);
        assert_eq!(trials[5]["user_attrs"]["note"], json!("größe"));
        assert_eq!(trials[1]["config"]["n_layers"], json!(2));
        assert_eq!(trials[5]["config"]["d_model"], json!(32));
        assert_eq!(trials[1]["params"], json!({"learning_rate": 0.01, "n_layers": 2}));
        // Done is done.
        let again = here.run(&args).ok();
        assert!(again.stderr.contains("nothing to train: 3 of 3 trials are done"), "{again:#?}");

        // Now a worker knows what to do, also with what comes while it is at work.
        let mut python = peer.start("feed");
        let mut lines = BufReader::new(python.stdout.take().unwrap()).lines();
        lines.next().unwrap().unwrap();
        let ran = here.run(&worker).ok();
        let fed: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert!(python.wait().unwrap().success());
        assert_eq!(fed["running"], json!(true), "{ran:#?}");
        assert!(fed["values"].as_array().unwrap().iter().all(Value::is_f64), "{fed}");
        assert!(ran.stderr.contains("5 of 5 trials are done"), "{ran:#?}");
    });
}
