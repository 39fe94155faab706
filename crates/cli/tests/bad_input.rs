//! Bad input gets one clear line, exit code 1 or 2, and nothing half-written.

mod common;

use common::{Here, Ran, TINY, finish, signal, text, tiny, wait_for};

/// Runs a command that must be refused, checks the form of the refusal, and gives it back as a transcript.
#[track_caller]
fn refused(here: &Here, args: &[&str]) -> String {
    let before = here.files();
    let Ran { code, stdout, stderr } = here.run(args);
    let shown = args.join(" ").replace(&TINY.join(" "), "TINY");
    assert!(matches!(code, Some(1 | 2)), "{shown}: {code:?} {stderr}");
    assert_eq!(stdout, "", "{shown}");
    let lines: Vec<&str> = stderr.lines().collect();
    assert!(lines[0].starts_with("error: "), "{shown}: {stderr}");
    assert!(lines.len() == 1 || (lines.len() == 2 && lines[1].starts_with("hint: ")), "{shown}: {stderr}");
    assert_eq!(here.files(), before, "{shown} left something behind");
    format!("$ diapason {shown}\n{stderr}exit code {}\n\n", code.unwrap())
}

#[track_caller]
fn all_refused(here: &Here, commands: &[Vec<&str>]) -> String {
    commands.iter().map(|args| refused(here, args)).collect()
}

#[test]
fn texts() {
    let here = Here::new();
    here.write("capital.txt", format!("{}\nThe end", text(400)));
    here.write("latin1.txt", b"caf\xE9 ".repeat(100));
    here.write("empty.txt", "");
    here.write("short.txt", text(50));
    here.write("newline.txt", format!("{}\n", text(1000)));
    here.write("broken.npy", b"\x93NUMPY\x01\x00\xFF\xFFx");
    here.write("packed.zip", b"PK\x03\x04 and so on");
    std::fs::create_dir(here.path("folder")).unwrap();
    let train = |corpus| tiny("train", &["--out", "run", "--corpus", corpus]);
    let transcript = all_refused(
        &here,
        &[
            train("capital.txt"),
            train("latin1.txt"),
            train("empty.txt"),
            train("short.txt"),
            train("newline.txt"),
            train("broken.npy"),
            train("packed.zip"),
            train("folder"),
            train("absent.txt"),
            train("builtin:french"),
            train("builtin:english:many"),
            tiny("train", &["--corpus", "short.txt", "--train-chars", "51", "--out", "run"]),
            tiny("tune", &["--corpus", "capital.txt", "--out", "study"]),
            tiny("tune", &["--corpus", "short.txt", "--out", "study"]),
            vec!["corpus", "encode", "capital.txt", "out.npy"],
            vec!["corpus", "decode", "capital.txt", "out.txt"],
            vec!["corpus", "normalize", "absent.txt", "out.txt"],
            vec!["corpus", "fetch", "text9"],
            vec!["corpus", "info"],
            vec!["tune", "--test-corpus", "text.txt"],
        ],
    );
    insta::assert_snapshot!("bad-texts", transcript);
}

#[test]
fn configurations() {
    let here = Here::with_text();
    let set = |assignment| vec!["train", "--corpus", "text.txt", "--out", "run", "--set", assignment];
    let grid = |axis| vec!["tune", "--corpus", "text.txt", "--out", "study", "--grid", axis];
    let draw = |more: &[&'static str]| [&["tune", "--corpus", "text.txt", "--out", "study"], more].concat();
    let transcript = all_refused(
        &here,
        &[
            set("d_model=100"),
            set("norm=batch_norm"),
            set("ngram_table=9"),
            set("dropout=1"),
            set("mlp_ratio=2.501"),
            vec!["train", "--corpus", "text.txt", "--recipe", "slow"],
            [set("n_heads=2"), vec!["--set", "n_heads=4"]].concat(),
            set("d_modell=128"),
            set("zzz=1"),
            set("d_model"),
            set("d_model=wide"),
            set("d_model=-1"),
            set("d_model=0"),
            set("n_layers=0"),
            set("batch_size=0"),
            set("batch_size=99999999999999999999"),
            set("learning_rate=nan"),
            set("learning_rate=-1"),
            set("sequence_length=129"),
            set("steps=0"),
            set("beta1=1"),
            vec!["train", "--corpus", "text.txt", "--steps", "0"],
            vec!["train", "--corpus", "text.txt", "--steps", "-5"],
            vec!["train", "--corpus", "text.txt", "--steps", "many"],
            vec!["train", "--corpus", "text.txt", "--threads", "0"],
            vec!["train"],
            vec!["train", "--corpus", "text.txt", "--sett", "d_model=1"],
            vec!["trian"],
            vec!["tune", "--tolerance", "2"],
            vec!["tune", "--seeds", "0", "--corpus", "text.txt", "--out", "study"],
            vec!["tune", "--alphabet", "klingon"],
            vec!["tune", "--corpus", "text.txt", "--early", "2"],
            vec!["tune", "--corpus", "text.txt", "--early", "nan"],
            vec!["tune", "--corpus", "text.txt", "--steps", "10", "--set", "steps=20"],
            vec!["train", "--corpus", "text.txt", "--steps", "10", "--set", "steps = 20"],
            vec!["tune", "--grid", "d_model=64", "--set", "d_model=32"],
            grid("d_model=64,100"),
            grid("d_modle=64"),
            grid("d_model"),
            grid("d_model="),
            grid("d_model=64,64"),
            grid("n_heads=0,8"),
            grid("momentum=0.9,0.95"),
            grid("seed=1,2"),
            draw(&["--as-seed", "--grid", "patience=2,3"]),
            draw(&["--range", "averaging_share=0.1..0.5"]),
            vec!["train", "--corpus", "text.txt", "--budget", "5days"],
            vec!["train", "--corpus", "text.txt", "--budget", "1e30flop"],
            vec!["train", "--corpus", "text.txt", "--budget", "1e24flop"],
            vec!["train", "--corpus", "text.txt", "--budget", "1chars"],
            vec!["tune", "--corpus", "text.txt", "--budget", "5days"],
            draw(&["--budget", "60s", "--steps", "10"]),
            draw(&["--budget", "60s", "--set", "steps=10"]),
            draw(&["--budget", "60s", "--grid", "steps=10,20"]),
            draw(&["--budget", "60s", "--as-seed"]),
            draw(&["--budget", "60s", "--enqueued"]),
            draw(&["--budget", "60s", "--rule", "halving"]),
            draw(&["--budget", "60s", "--range", "learning_rate=1e-4..1e-2:log", "--sampler", "tpe"]),
            draw(&["--budget", "3000chars", "--grid", "batch_size=64,128"]),
            draw(&["--budget", "1e6flop"]),
            vec!["train", "--corpus", "text.txt", "--out", "text.txt"],
            vec!["train", "--corpus", "text.txt", "--out", "text.txt/run"],
            vec!["tune", "--corpus", "text.txt", "--out", "text.txt"],
            vec!["config", "learning-rate"],
            draw(&["--range", "learning_rate=1e-4"]),
            draw(&["--range", "learning_rat=1e-4..1e-2"]),
            draw(&["--range", "learning_rate=0..1e-2:log"]),
            draw(&["--range", "d_model=64..256:step=100"]),
            draw(&["--range", "norm=layer_norm..rms_norm"]),
            draw(&["--range", "steps=10..20"]),
            draw(&["--range", "n_heads=3..7:step=4", "--set", "d_model=64"]),
            draw(&["--range", "n_heads=1..4", "--range", "n_heads=1..2"]),
            draw(&["--range", "n_heads=1..4", "--set", "n_heads=2"]),
            draw(&["--range", "n_heads=1..4", "--grid", "n_heads=2,4"]),
            draw(&["--samples", "5"]),
            draw(&["--samples", "0", "--range", "n_heads=1..4"]),
            draw(&["--samples", "50", "--range", "n_heads=1..4"]),
            draw(&["--sampler", "grid", "--range", "n_heads=1..4"]),
            draw(&["--sampler", "tpe:rounds=2", "--range", "n_heads=1..4"]),
            draw(&[
                "--sampler",
                "tpe",
                "--samples",
                "30",
                "--range",
                "learning_rate=1e-4..1",
                "--rule",
                "hyperband",
            ]),
            draw(&["--rule", "halve"]),
            draw(&["--rule", "halving:eta=1"]),
            draw(&["--rule", "as-seed"]),
            draw(&["--rule", "patience"]),
            draw(&["--rule", "patience:3", "--set", "patience=4"]),
            draw(&["--max-seeds", "3"]),
            draw(&["--until-decided", "--max-seeds", "1"]),
            draw(&["--until-decided", "--max-seeds", "2", "--seeds", "3"]),
            draw(&["--cost", "money"]),
            vec!["replay", "nothing"],
            vec!["replay", "nothing", "--rule", "halving"],
            vec!["replay", "--rule", "halving"],
            vec!["replay", "nothing", "--rule", "halving:eta=99"],
            vec!["replay", "nothing", "--rule", "halve"],
            vec!["bench", "--set", "n_heads=7"],
            vec!["bench", "--seconds", "-1"],
            vec!["bench", "generation", "--set", "sequence_length=1"],
        ],
    );
    insta::assert_snapshot!("bad-configurations", transcript);
}

/// What is needed and what there is differ from machine to machine.
fn without_memory(transcript: &str) -> String {
    transcript
        .split(' ')
        .map(|word| if word.parse::<f64>().is_ok() { "N" } else { word })
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn sizes_that_fit_no_machine() {
    let here = Here::with_text();
    let one = ["--threads", "1", "--corpus", "text.txt", "--out", "out"];
    let huge = ["--set", "d_model=65536", "--set", "n_heads=1", "--set", "n_layers=1024"];
    let transcript = [
        refused(&here, &[&["train"], &one[..], &huge].concat()),
        refused(
            &here,
            &[&["train"], &one[..], &["--set", "batch_size=1000000", "--set", "sequence_length=128"]]
                .concat(),
        ),
        refused(
            &here,
            &[&["tune"], &one[..], &["--grid", "n_layers=1024,1", "--set", "d_model=65536"]].concat(),
        ),
        refused(&here, &[&["bench", "--threads", "1"], &huge[..]].concat()),
    ]
    .concat();
    insta::assert_snapshot!("bad-sizes", without_memory(&transcript));
}

#[test]
fn checkpoints() {
    let here = Here::with_text();
    here.run(&tiny("train", &["--corpus", "text.txt", "--steps", "3", "--out", "run"])).ok();
    let whole = here.read("run/best.safetensors");
    here.write("truncated.safetensors", &whole[..5000]);
    let mut altered = whole.clone();
    *altered.last_mut().unwrap() ^= 1;
    here.write("altered.safetensors", &altered);
    let mut huge_header = whole.clone();
    huge_header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    here.write("huge-header.safetensors", &huge_header);
    here.write("empty.safetensors", "");
    here.write("text.safetensors", text(1000));
    std::fs::create_dir(here.path("folder")).unwrap();
    let mut commands: Vec<Vec<&str>> = ["truncated", "altered", "huge-header", "empty", "text", "absent"]
        .map(|name| name.to_string() + ".safetensors")
        .iter()
        .map(|name| vec!["eval", &*name.clone().leak()])
        .collect();
    commands.extend([
        vec!["eval", "folder"],
        vec!["generate", "altered.safetensors"],
        vec!["generate", "run", "--prompt", "Hello"],
        vec!["generate", "run", "--prompt", "the", "--temperature", "-1"],
        vec!["generate", "run", "--top-k", "0"],
        vec!["generate", "run", "--texts", "0"],
        vec!["eval", "run", "--stride", "9"],
        vec!["eval", "run", "--stride", "0"],
        vec!["eval", "run", "--split", "train"],
        vec!["eval", "run", "--corpus", "text.txt", "--alphabet", "auto"],
        tiny("train", &["--corpus", "text.txt", "--steps", "3", "--out", "run"]),
        tiny("train", &["--corpus", "text.txt", "--out", "new", "--init", "altered.safetensors"]),
        vec![
            "train",
            "--corpus",
            "text.txt",
            "--out",
            "new",
            "--set",
            "d_model=32",
            "--init",
            "run/best.safetensors",
        ],
        tiny("train", &["--corpus", "text.txt", "--steps", "3", "--out", "run", "--resume", "--seed", "1"]),
        tiny(
            "train",
            &[
                "--corpus",
                "text.txt",
                "--steps",
                "3",
                "--out",
                "run",
                "--resume",
                "--set",
                "learning_rate=0.01",
            ],
        ),
    ]);
    // The size of a checkpoint varies with the times that it records.
    let transcript = all_refused(&here, &commands).replace(&whole.len().to_string(), "SIZE");
    insta::assert_snapshot!("bad-checkpoints", transcript);
}

#[test]
fn flags_of_a_text_that_is_not_named() {
    let here = Here::with_text();
    here.run(&tiny("train", &["--corpus", "text.txt", "--steps", "3", "--out", "run"])).ok();
    for flags in [
        &["--normalize"][..],
        &["--alphabet", "auto"],
        &["--validation-chars", "100"],
        &["--test-corpus", "text.txt"],
    ] {
        let said = refused(&here, &[&["eval", "run"], flags].concat());
        assert!(said.contains(&format!("error: {} says how a text is read", flags[0])), "{said}");
        assert!(said.contains("hint: name the text with --corpus") && said.contains("exit code 2"), "{said}");
    }
    here.run(&["eval", "run", "--corpus", "text.txt", "--normalize"]).ok();
}

#[test]
fn a_text_is_not_replaced_by_what_is_made_of_it() {
    let here = Here::with_text();
    let before = here.read("text.txt");
    for args in
        [["corpus", "encode", "text.txt", "text.txt"], ["corpus", "normalize", "text.txt", "./text.txt"]]
    {
        let said = refused(&here, &args);
        assert!(said.contains("is both the input and the output") && said.contains("exit code 2"), "{said}");
    }
    assert_eq!(here.read("text.txt"), before);
}

#[test]
fn a_run_and_a_study_do_not_share_a_folder() {
    let here = Here::with_text();
    here.run(&tiny("train", &["--corpus", "text.txt", "--steps", "3", "--out", "run"])).ok();
    let said = refused(&here, &["tune", "--corpus", "text.txt", "--out", "run"]);
    assert!(said.contains("run holds a run, not a study") && said.contains("exit code 2"), "{said}");
    std::fs::create_dir(here.path("study")).unwrap();
    std::fs::write(here.path("study/study.toml"), "").unwrap();
    let said = refused(&here, &["train", "--corpus", "text.txt", "--out", "study"]);
    assert!(said.contains("study holds a study, not a run") && said.contains("exit code 2"), "{said}");
    // The folder of a run stands for its best weights.
    here.run(&tiny("train", &["--corpus", "text.txt", "--steps", "3", "--out", "next", "--init", "run"]))
        .ok();
}

/// What was typed may be any bytes.
#[cfg(unix)]
#[test]
fn words_that_are_not_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let here = Here::with_text();
    let odd = std::ffi::OsStr::from_bytes(b"caf\xE9.txt");
    for args in [&[][..], &["train", "--corpus"], &["train", "--corpus", "text.txt", "--test-corpus"]] {
        let output = here.command(args).arg(odd).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.starts_with("error: "), "{stderr}");
        assert!(stderr.contains("caf\u{FFFD}.txt"), "{stderr}");
        assert_eq!(stderr.lines().count(), 2, "{stderr}");
    }
    assert_eq!(here.files(), ["text.txt"]);
}

#[test]
fn a_corpus_that_changed() {
    let here = Here::with_text();
    let train = tiny("train", &["--corpus", "text.txt", "--steps", "3", "--out", "run", "--resume"]);
    here.run(&train).ok();
    let tune = [
        "tune",
        "--corpus",
        "text.txt",
        "--out",
        "study",
        "--set",
        "d_model=16",
        "--set",
        "n_layers=1",
        "--set",
        "batch_size=2",
        "--set",
        "validation_characters=256",
        "--steps",
        "3",
    ];
    here.run(&tune).ok();
    let mut changed = text(20_000);
    changed.replace_range(..3, "xyz");
    here.write("text.txt", &changed);
    let transcript =
        [refused(&here, &train), refused(&here, &tune), refused(&here, &["eval", "run"])].concat();
    insta::assert_snapshot!("bad-corpus-changed", digests_hidden(&transcript));

    // Asked for by name, it is another text to be scored on, which is said.
    let ran = here.run(&["eval", "run", "--corpus", "text.txt", "--json"]).ok();
    assert!(ran.json()["loss"].is_f64());
    assert!(ran.stderr.contains("is not the text that the model was trained on"), "{ran:?}");
}

fn digests_hidden(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("sha256:") {
        let (before, digest) = rest.split_at(at + "sha256:".len());
        shown += before;
        shown += "...";
        rest = digest.trim_start_matches(|c: char| c.is_ascii_hexdigit() || c == '.');
    }
    shown + rest
}

#[test]
fn a_folder_that_is_in_use() {
    let here = Here::with_text();
    let args = tiny("train", &["--corpus", "text.txt", "--steps", "100000000", "--out", "run"]);
    let mut first = here.start(&args);
    wait_for("the first process to train", || here.path("run/checkpoint.safetensors").exists());
    let second = here.run(&args);
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.starts_with("error: run is in use by "), "{second:?}");
    assert!(second.stderr.contains(&first.id().to_string()), "{second:?}");
    assert!(first.try_wait().unwrap().is_none(), "the first goes on undisturbed");
    signal(&first, "KILL");
    finish(first);
}

/// A limit on the size of files fails writes as a full disk does.
#[test]
fn a_full_disk() {
    let here = Here::with_text();
    let words = tiny("train", &["--corpus", "text.txt", "--steps", "3", "--out", "run"]);
    let limited = |limit: u32, words: &[&str]| {
        here.shell(&format!(r#"trap '' XFSZ; ulimit -f {limit}; exec "$D" {}"#, words.join(" ")))
    };
    let ran = limited(1, &words);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
    let error = ran.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
    assert!(error.contains("File too large") && error.contains("run/"), "{ran:?}");
    let left: Vec<String> = here
        .files()
        .into_iter()
        .filter(|name| name.contains("safetensors") || name.contains("tmp"))
        .collect();
    assert_eq!(left, [""; 0], "nothing half-written");

    let ran = limited(1, &["corpus", "encode", "text.txt", "text.npy"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(here.files().iter().filter(|name| name.contains("npy")).count(), 0, "{:?}", here.files());

    // A disk that is full for the output alone.
    let ran = here.shell(r#""$D" config > /dev/full"#);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.starts_with("error: cannot write the output: "), "{ran:?}");
}
