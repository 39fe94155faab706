//! From a text to a decision and on to new text, with a tiny model.

mod common;

use common::{Here, TINY, finish, text, tiny};
use serde_json::{Value, json};
use std::io::Read;

/// A study of two cells that takes about a second.
const STUDY: [&str; 8] =
    ["--corpus", "text.txt", "--grid", "n_heads=2", "--grid", "n_layers=1,2", "--steps", "60"];

/// Two seeds of [`STUDY`], without the keys that are in its grid.
fn study<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let set = [
        "tune",
        "--set",
        "d_model=16",
        "--set",
        "batch_size=4",
        "--set",
        "sequence_length=8",
        "--set",
        "max_len=16",
        "--set",
        "validation_characters=512",
    ];
    [&set[..], &STUDY[..], more].concat()
}

#[test]
fn tune_json_keeps_its_contract() {
    let here = Here::with_text();
    let object = here.run(&study(&["--seeds", "2", "--json", "--out", "s"])).ok().json();
    assert_eq!(object["corpus"]["name"], "text.txt");
    assert!(object["corpus"]["digest"].as_str().unwrap().starts_with("sha256:"));
    let trials = object["trials"].as_array().unwrap();
    assert_eq!(trials.len(), 8, "two cells, two seeds, two passes");
    let places: Vec<Value> = trials
        .iter()
        .map(|t| json!([t["number"], t["params"]["n_layers"], t["seed"], t["pass"], t["steps"]]))
        .collect();
    insta::assert_snapshot!(serde_json::to_string(&places).unwrap(), @r#"[[0,1,0,"early",12],[0,1,0,"full",60],[1,2,0,"early",12],[1,2,0,"full",60],[2,1,1,"early",12],[2,1,1,"full",60],[3,2,1,"early",12],[3,2,1,"full",60]]"#);
    for trial in trials {
        for key in [
            "validation_loss",
            "validation_bpc",
            "accuracy",
            "accuracy_last",
            "train_seconds",
            "tokens_per_second",
        ] {
            assert!(trial[key].is_f64(), "{key}: {trial}");
        }
        assert_eq!(trial["state"], "COMPLETE");
        assert_eq!(trial["stopped_early"], false);
        assert!(trial["parameters"].as_u64().unwrap() > 1000);
        let bits = trial["validation_loss"].as_f64().unwrap() / std::f64::consts::LN_2;
        assert!((trial["validation_bpc"].as_f64().unwrap() - bits).abs() < 1e-12);
    }
    let chosen = object["verdict"]["chosen"].as_object().unwrap();
    assert_eq!(chosen.keys().collect::<Vec<_>>(), ["n_heads", "n_layers"]);
    assert!(object["verdict"]["reason"].is_string());
    for file in ["s/study.toml", "s/trials/n_heads=2,n_layers=1/seed-1/best.safetensors"] {
        assert!(here.path(file).exists(), "{:?}", here.files());
    }
}

#[test]
fn tune_ends_with_the_choice_and_the_same_command_continues() {
    let here = Here::with_text();
    let first = here.run(&study(&["--out", "s"])).ok();
    let chosen = first.stdout.lines().last().unwrap().to_string();
    assert!(chosen.starts_with("chosen: n_heads=2 n_layers="), "{first:?}");
    assert!(first.stderr.contains("trial 2/2 n_heads=2 n_layers=2: step 60/60"), "{}", first.stderr);
    assert!(first.stderr.contains("next:"), "{}", first.stderr);

    let checkpoint = "s/trials/n_heads=2,n_layers=1/seed-0/checkpoint.safetensors";
    let before = here.read(checkpoint);
    let second = here.run(&study(&["--out", "s"])).ok();
    assert_eq!(second.stdout, first.stdout, "nothing new was measured");
    assert!(!second.stderr.contains("trial 1"), "nothing was trained again: {}", second.stderr);
    assert!(second.stderr.contains("nothing to train: "), "{}", second.stderr);
    assert_eq!(here.read(checkpoint), before);

    // The commands that are printed can be typed.
    let next: Vec<&str> = second.stderr.lines().skip_while(|line| *line != "next:").skip(1).collect();
    assert_eq!(next.len(), 3, "{}", second.stderr);
    let generated = here.shell(&format!("{} --length 20", next[0])).ok();
    assert!(generated.stdout.starts_with("the "), "{generated:?}");
    assert_eq!(generated.stdout.len(), "the ".len() + 20 + "\n".len());
    assert!(here.shell(&format!("{} --json", next[1])).ok().json()["loss"].is_f64());
    assert!(next[2].contains("--set n_layers=") && next[2].ends_with("--steps 20000"), "{}", next[2]);
    here.shell(&format!("{} --steps 5", next[2].trim_end_matches(" --steps 20000"))).ok();
}

#[test]
fn the_printed_commands_fit_the_alphabet_and_repeat_what_was_set() {
    let here = Here::new();
    here.write("text.txt", "\u{430}\u{431}\u{432}".repeat(500));
    let args = tiny(
        "tune",
        &["--corpus", "text.txt", "--alphabet", "auto", "--grid", "learning_rate=0.01", "--set", "steps=3"],
    );
    let ran = here.run(&args).ok();
    let next: Vec<&str> = ran.stderr.lines().skip_while(|line| *line != "next:").skip(1).collect();
    assert!(!next[0].contains("--prompt"), "{}", next[0]);
    here.shell(&format!("{} --length 5", next[0])).ok();
    here.shell(next[1]).ok();
    let (train, steps) = next[2].split_once(" --steps ").unwrap();
    assert_eq!(steps, "20000");
    for set in ["learning_rate=0.01", "d_model=16", "batch_size=4"] {
        assert!(train.contains(&format!("--set {set}")), "{train}");
    }
    here.shell(&format!("{train} --steps 3")).ok();
}

/// All that is not the three minutes of training.
#[test]
fn a_bare_tune_is_the_quick_study_on_the_builtin_text() {
    let here = Here::new();
    let ran = here.run(&["tune", "--steps", "1", "--json"]).ok();
    let object = ran.json();
    assert_eq!(object["corpus"]["name"], "builtin:english");
    assert!(object["corpus"]["entropy_rate"].as_f64().unwrap() > 0.3, "{}", object["corpus"]);
    let counting = &object["corpus"]["counting"];
    assert!((0.8..1.5).contains(&counting["loss"].as_f64().unwrap()), "{counting}");
    assert_eq!(object["trials"].as_array().unwrap().len(), 8, "four cells, two passes");
    assert!(here.path("studies/quick/report.md").exists(), "{:?}", here.files());
    let page = String::from_utf8(here.read("studies/quick/report.html")).unwrap();
    assert!(
        page.contains("tune --steps 1 --json</code>") && !page.contains("http-equiv=\"refresh\""),
        "{page}"
    );
    // It has written something, and its curves have been read.
    assert!(page.contains("<pre>the ") && page.contains("data-t=\"3\""), "{page}");
    assert!(ran.stderr.contains("train --corpus builtin:english --set d_model="), "{}", ran.stderr);
}

#[test]
fn another_study_in_the_same_folder_is_refused() {
    let here = Here::with_text();
    here.run(&study(&["--out", "s"])).ok();
    let before = here.files();
    let ran = here.run(&study(&["--out", "s", "--set", "learning_rate=0.01"]));
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
    assert!(ran.stderr.contains("learning_rate was 0.001, is 0.01"), "{ran:?}");
    assert_eq!(here.files(), before);
}

#[test]
fn a_trial_that_diverges_is_named_and_the_study_goes_on() {
    let here = Here::with_text();
    let args = tiny(
        "tune",
        &[
            "--corpus",
            "text.txt",
            "--grid",
            "epsilon=1e-35,1e-8",
            "--set",
            "beta2=0",
            "--set",
            "learning_rate=0.1",
            "--steps",
            "20",
            "--out",
            "s",
            "--json",
        ],
    );
    let object = here.run(&args).ok().json();
    let states: Vec<&str> =
        object["trials"].as_array().unwrap().iter().map(|t| t["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]);
    let error = object["trials"][1]["error"].as_str().unwrap();
    assert!(error.starts_with("diverged at step ") && error.contains("the last finite loss was "), "{error}");
    assert_eq!(object["trials"][1]["validation_loss"], Value::Null);
    assert_eq!(object["verdict"]["chosen"]["epsilon"], 1e-8);
}

#[test]
fn as_seed_reads_where_its_rule_stops() {
    let here = Here::with_text();
    let args =
        tiny("tune", &["--corpus", "text.txt", "--as-seed", "--steps", "1100", "--out", "s", "--json"]);
    let object = here.run(&args).ok().json();
    assert_eq!(object["protocol"], "as-seed");
    let trials = object["trials"].as_array().unwrap();
    let cells: Vec<String> = trials.iter().step_by(2).map(|t| t["params"].to_string()).collect();
    assert_eq!(
        cells,
        [r#"{"d_model":16,"n_heads":2,"n_layers":1}"#],
        "--set replaces the values of the default grid"
    );
    // Evaluations after 1, 1001 and 1100 updates: at most three improvements, so the rule never stops.
    assert_eq!((&trials[0]["pass"], &trials[0]["steps"]), (&json!("early"), &json!(1100)));
    assert!(trials[0]["lost_by_seed_rule"].is_boolean(), "{}", trials[0]);
}

#[test]
fn train_eval_generate() {
    let here = Here::with_text();
    let args = tiny("train", &["--corpus", "text.txt", "--steps", "2000", "--out", "run", "--json"]);
    let ran = here.run(&args).ok();
    assert!(ran.stderr.contains("-grams of the training text comes to "), "{}", ran.stderr);
    let trained = ran.json();
    for key in ["final_validation_loss", "best_validation_loss", "train_seconds"] {
        assert!(trained[key].is_f64(), "{key}: {trained}");
    }
    assert!(trained["best_step"].as_u64().unwrap() <= trained["steps"].as_u64().unwrap());
    assert!(trained["best_validation_loss"].as_f64().unwrap() < 1.2, "{trained}");

    // Without --corpus: the text that it was trained on. The folder of a run stands for its best weights.
    let scored = here.run(&["eval", "run", "--json"]).ok().json();
    assert_eq!(scored["characters"], 1999, "2,000 characters, all but the first predicted");
    let (loss, bits) = (scored["loss"].as_f64().unwrap(), scored["bpc"].as_f64().unwrap());
    assert!((bits - loss / std::f64::consts::LN_2).abs() < 1e-12);
    assert!((loss - trained["best_validation_loss"].as_f64().unwrap()).abs() < 0.5);
    assert!(scored["accuracy"].is_f64() && scored["accuracy_last"].is_f64());

    // More context for every character, and so a lower loss.
    let strided = here.run(&["eval", "run", "--stride", "1", "--json"]).ok().json();
    assert_eq!(strided["characters"], 1999);
    assert!(strided["loss"].as_f64().unwrap() < loss, "{strided} {loss}");

    let test = here.run(&["eval", "run/best.safetensors", "--split", "test"]).ok();
    assert!(test.stdout.starts_with("text.txt test: loss "), "{test:?}");

    let generate =
        ["generate", "run", "--prompt", "the cat ", "--length", "40", "--temperature", "0.8", "--seed", "3"];
    let once = here.run(&generate).ok();
    assert!(once.stdout.starts_with("the cat ") && once.stdout.ends_with('\n'), "{once:?}");
    assert_eq!(once.stdout.trim_end_matches('\n').len(), 48);
    assert_eq!(once.stderr, "");
    assert_eq!(here.run(&generate).stdout, once.stdout, "the same seed, the same text");
    let other = here.run(&["generate", "run", "--prompt", "the cat ", "--length", "40", "--seed", "4"]).ok();
    assert_ne!(other.stdout, once.stdout);
    let greedy = ["generate", "run", "--length", "30", "--temperature", "0"];
    let top_one = ["generate", "run", "--length", "30", "--top-k", "1", "--seed", "9"];
    assert_eq!(here.run(&greedy).ok().stdout, here.run(&top_one).ok().stdout);

    // Several texts, each as it would be alone.
    let several = |more: &[&str]| {
        here.run(&[&["generate", "run", "--prompt", "the ", "--length", "40"], more].concat()).ok()
    };
    let alone: Vec<String> = (7..10)
        .map(|seed| several(&["--seed", &seed.to_string()]).stdout.trim_end_matches('\n').to_string())
        .collect();
    let expected: String =
        (7..10).zip(&alone).map(|(seed, text)| format!("--- seed {seed} ---\n{text}\n\n")).collect();
    assert_eq!(several(&["--seed", "7", "--texts", "3"]).stdout, expected);
    let object = several(&["--seed", "7", "--texts", "3", "--json"]).json();
    let texts = object["texts"].as_array().unwrap();
    assert_eq!(texts.len(), 3);
    for (i, text) in texts.iter().enumerate() {
        assert_eq!((&text["seed"], &text["text"]), (&json!(7 + i), &json!(alone[i])), "{object}");
    }
    assert_eq!((&object["prompt"], &object["length"]), (&json!("the "), &json!(40)));
    assert_eq!(several(&["--json"]).json()["texts"].as_array().unwrap().len(), 1);
}

#[test]
fn what_has_no_effect_is_said() {
    let here = Here::with_text();
    let warnings = |args: &[&str]| {
        let ran = here.run(args).ok();
        let lines = ran.stderr.lines().filter_map(|line| line.strip_prefix("warning: "));
        lines.map(str::to_string).collect::<Vec<_>>()
    };
    let train = |more: &[&str]| {
        warnings(&tiny("train", &[&["--corpus", "text.txt", "--steps", "2", "--out", "run"], more].concat()))
    };
    let set = |key| ["--set", key];
    let idle =
        [set("momentum=0.9"), set("averaging_share=0.1"), set("learning_rate=0.01"), set("warmup_steps=2")];
    // Nor is there a run to go on with.
    let said = train(&[idle.as_flattened(), &["--resume"]].concat());
    assert_eq!(
        said,
        [
            "`momentum` has no effect with optimizer = adam",
            "`averaging_share` has no effect with weight_averaging = none",
            "the warm-up lasts the whole run: warmup_steps = 2, steps = 2",
            "nothing to resume in run: the run starts at step 0",
        ]
    );
    let recipe = ["--recipe", "fast", "--set", "optimizer=adam", "--set", "warmup_steps=1", "--out", "adam"];
    let words = [&["train", "--corpus", "text.txt", "--steps", "2"], &TINY[..], &recipe].concat();
    assert_eq!(warnings(&words), [""; 0], "a recipe's keys were not asked for by name");

    let grid = ["--grid", "optimizer=adam,muon", "--grid", "momentum=0.9,0.95", "--steps", "2", "--out", "s"];
    let said = warnings(&tiny("tune", &[&["--corpus", "text.txt"], &grid[..]].concat()));
    let expected = "`momentum` has no effect with optimizer = adam: configurations that differ in it alone train the same";
    assert_eq!(said, [expected]);
}

#[test]
fn weights_of_another_run_are_a_start() {
    let here = Here::with_text();
    here.run(&tiny("train", &["--corpus", "text.txt", "--steps", "200", "--out", "a"])).ok();
    let init =
        ["--corpus", "text.txt", "--steps", "2", "--init", "a/best.safetensors", "--out", "b", "--json"];
    let from_weights = here.run(&tiny("train", &init)).ok().json();
    let from_nothing = here
        .run(&tiny("train", &["--corpus", "text.txt", "--steps", "2", "--out", "c", "--json"]))
        .ok()
        .json();
    let loss = |object: &Value| object["final_validation_loss"].as_f64().unwrap();
    assert!(loss(&from_weights) + 0.1 < loss(&from_nothing), "{from_weights} {from_nothing}");
}

#[test]
fn a_text_of_the_users_own_characters() {
    let here = Here::new();
    here.write("own.txt", "Où est le chat? Là-bas!\n".repeat(300));
    let args =
        tiny("train", &["--corpus", "own.txt", "--alphabet", "auto", "--steps", "150", "--out", "run"]);
    here.run(&args).ok();
    let ran = here.run(&["generate", "run", "--prompt", "Où ", "--length", "60"]).ok();
    assert!(ran.stdout.starts_with("Où "), "{ran:?}");
    assert!(here.run(&["eval", "run", "--json"]).ok().json()["loss"].as_f64().unwrap() < 3.0);
}

#[test]
fn the_number_of_threads_changes_no_digit() {
    let here = Here::with_text();
    let number = |threads: &str| {
        let args =
            ["--corpus", "text.txt", "--steps", "40", "--out", threads, "--threads", threads, "--json"];
        let object = here.run(&tiny("train", &args)).ok().json();
        (object["final_validation_loss"].to_string(), object["best_validation_loss"].to_string())
    };
    let one = number("1");
    assert_eq!(number("2"), one);
    assert_eq!(number("3"), one);
}

#[test]
fn the_notebooks_two_files() {
    let here = Here::new();
    here.write("train.txt", text(9000));
    here.write("test.txt", text(1000));
    let object = here
        .run(&["corpus", "info", "--corpus", "train.txt", "--test-corpus", "test.txt", "--json"])
        .ok()
        .json();
    assert_eq!(
        (&object["train"], &object["validation"], &object["test"]),
        (&json!(8000), &json!(1000), &json!(1000))
    );
}

#[test]
fn corpora_are_converted_and_described() {
    let here = Here::new();
    here.write("book.txt", "Chapter 2: the END.\n");
    here.run(&["corpus", "normalize", "book.txt", "book27.txt"]).ok();
    assert_eq!(String::from_utf8(here.read("book27.txt")).unwrap().trim(), "chapter two the end");
    let piped = here.shell(r#"cat book.txt | "$D" corpus normalize -"#).ok();
    assert_eq!(piped.stdout.as_bytes(), here.read("book27.txt"));

    here.write("text.txt", "abc xyz ");
    here.run(&["corpus", "encode", "text.txt", "text.npy"]).ok();
    let array = here.read("text.npy");
    assert_eq!(array[..6], *b"\x93NUMPY");
    assert_eq!(array[array.len() - 8..], [0, 1, 2, 26, 23, 24, 25, 26]);
    assert_eq!(here.run(&["corpus", "decode", "text.npy"]).ok().stdout, "abc xyz ");

    let info = here.run(&["corpus", "info", "builtin:english:5000"]).ok();
    assert!(info.stdout.contains("train 4000, validation 500, test 500"), "{info:?}");
    assert!(info.stdout.contains("no model can do better"), "{info:?}");
}

#[test]
fn bench_reports_every_field() {
    let here = Here::new();
    let ran = here.run(&tiny("bench", &["--seconds", "0.05", "--threads", "1", "--json"])).ok();
    let object = ran.json();
    for key in ["ms_per_step", "tokens_per_second", "flop_per_step", "peak_gflops", "peak_fraction"] {
        assert!(object[key].as_f64().unwrap() > 0.0, "{key}: {object}");
    }
    assert_eq!(object["threads"], 1);
    assert!(object["isa"].is_string());

    let positive = |what: &str, args: &[&str], keys: &[&str]| {
        let args = [&[what, "--seconds", "0.05", "--json"], args].concat();
        let object = here.run(&tiny("bench", &args)).ok().json();
        assert_eq!(object["what"], what);
        for &key in keys {
            let value = &object[key];
            let all = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
            assert!(all.iter().all(|x| x.as_f64().unwrap() > 0.0), "{key}: {object}");
        }
        object
    };
    // Half precision where it is faster.
    assert_eq!(object["precision"] == "f32", object["half"].is_null(), "{object}");
    let single = ["--seconds", "0.05", "--threads", "1", "--set", "precision=f32", "--json"];
    let object = here.run(&tiny("bench", &single)).ok().json();
    assert!(object["precision"] == "f32" && object["half"].is_null(), "{object}");
    // In half precision the step stands beside one in f32.
    let half = ["--seconds", "0.05", "--threads", "1", "--set", "precision=half"];
    let object = here.run(&tiny("bench", &[&half[..], &["--json"]].concat())).ok().json();
    assert_eq!(object["precision"], "half");
    for key in ["pair_peak_gops", "pair_peak_fraction", "f32_ms_per_step", "speedup"] {
        assert!(object["half"][key].as_f64().unwrap() > 0.0, "{key}: {object}");
    }
    let ran = here.run(&tiny("bench", &half)).ok();
    assert!(ran.stdout.contains("\nhalf      ") && ran.stdout.contains("times as long"), "{ran:?}");

    let rates = ["evaluation_characters_per_second", "training_characters_per_second", "ratio"];
    positive("evaluation", &["--threads", "1"], &rates);
    let rates = ["read_gigabytes_per_second", "characters_per_second", "bound_fraction", "peak_gflops"];
    let object = positive("generation", &["--threads", "2"], &rates);
    let streams = object["streams"].as_array().unwrap();
    for (n, one) in (0..).zip(streams) {
        assert_eq!(one["streams"], 1 << n);
        for key in ["characters_per_second", "peak_fraction", "characters_per_second_with_reencoding"] {
            assert!(one[key].as_f64().unwrap() > 0.0, "{key}: {one}");
        }
        assert!((0.0..1.0).contains(&one["reencoding_share"].as_f64().unwrap()), "{one}");
    }
    let object = positive(
        "trials",
        &["--threads", "2"],
        &["single_steps_per_second", "together_steps_per_second", "peak_ratio", "corrected"],
    );
    assert_eq!(object["together_steps_per_second"].as_array().unwrap().len(), 2);

    // Sizes choose from the table, and need not fit the defaults.
    let sizes = ["--set", "d_model=100", "--set", "sequence_length=32", "--set", "batch_size=8"];
    let args = [&["bench", "sweep", "--seconds", "0.05", "--threads", "1", "--json"], &sizes[..]].concat();
    let object = here.run(&args).ok().json();
    let cells = object["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 1, "{object}");
    assert!(cells[0]["peak_fraction"].as_f64().unwrap() > 0.0 && cells[0]["n_heads"] == 4, "{object}");
    let text = here.run(&args[..args.len() - 7].iter().chain(&sizes).copied().collect::<Vec<_>>()).ok();
    assert!(text.stdout.contains("1 shapes"), "{text:?}");
}

#[test]
fn precision_is_a_setting_and_checkpoints_know_none() {
    let here = Here::with_text();
    let train = |more: &[&str]| {
        here.run(&tiny("train", &[&["--corpus", "text.txt", "--json", "--out", "run"], more].concat()))
    };
    train(&["--steps", "5", "--set", "precision=half"]).ok();
    // Another precision is another engine.
    let single = ["--resume", "--set", "precision=f32"];
    let refused = train(&[&["--steps", "10"], &single[..]].concat());
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("/half") && refused.stderr.contains("--allow-other-engine"),
        "{refused:?}"
    );
    train(&["--steps", "10", "--resume", "--set", "precision=half"]).ok();
    let allowed = train(&[&["--steps", "15", "--allow-other-engine"], &single[..]].concat()).ok();
    assert!(allowed.stderr.contains("/half up to step 10, by "), "{allowed:?}");

    // A checkpoint is scored in the precision of its run, or another.
    train(&["--steps", "20", "--resume", "--allow-other-engine", "--set", "precision=half"]).ok();
    let score = |more: &[&str]| here.run(&[&["eval", "run", "--json"], more].concat()).ok().json();
    let (own, single) = (score(&[]), score(&["--precision", "f32"]));
    assert_eq!((own["precision"].as_str(), single["precision"].as_str()), (Some("half"), Some("f32")));
    let (a, b) = (own["loss"].as_f64().unwrap(), single["loss"].as_f64().unwrap());
    assert!(a != b && (a - b).abs() < 1e-3, "{a} {b}");
    // `auto` is one of the two, and says so where that is the slower one.
    let auto = here.run(&["eval", "run", "--precision", "auto", "--json"]).ok();
    let is_single = auto.json()["precision"] == "f32";
    assert_eq!(auto.stderr.contains("\"auto\" is f32 here"), is_single, "{auto:?}");

    for refused in [
        here.run(&tiny("train", &["--corpus", "text.txt", "--set", "precision=fp16"])),
        here.run(&["eval", "run", "--precision", "fp16"]),
        here.run(&["tune", "--corpus", "text.txt", "--grid", "precision=f32,half"]),
    ] {
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains("half"), "{refused:?}");
    }
}

/// `| head`: whoever reads has seen enough, and nobody complains.
#[test]
fn a_closed_pipe_is_no_error() {
    let here = Here::with_text();
    here.run(&tiny("train", &["--corpus", "text.txt", "--steps", "5", "--out", "run"])).ok();
    let mut child = here.start(&["generate", "run", "--length", "1000000"]);
    let mut start = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut start).unwrap();
    let ran = finish(child);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");

    for line in [
        r#""$D" help | head -n 1"#,
        r#""$D" config | head -n 1"#,
        r#""$D" corpus decode big.npy | head -c 1"#,
    ] {
        here.write("big.txt", text(2_000_000));
        here.run(&["corpus", "encode", "big.txt", "big.npy"]).ok();
        let ran = here.shell(line).ok();
        assert_eq!(ran.stderr, "", "{line}");
    }
}
