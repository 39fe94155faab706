//! What the program says of itself.

mod common;

use common::Here;

#[test]
fn help_texts() {
    let here = Here::new();
    let commands = [
        "", "tune", "worker", "train", "eval", "generate", "corpus", "decide", "replay", "config", "bench",
        "study",
    ];
    for command in commands {
        let args: Vec<&str> = ["help", command].into_iter().filter(|word| !word.is_empty()).collect();
        let ran = here.run(&args).ok();
        assert_eq!(ran.stderr, "");
        insta::assert_snapshot!(if command.is_empty() { "help" } else { command }, ran.stdout);
    }
    for command in ["fetch", "encode", "decode", "normalize", "info"] {
        let ran = here.run(&["help", "corpus", command]).ok();
        insta::assert_snapshot!(format!("corpus-{command}"), ran.stdout);
    }
    for command in ["list", "show", "export", "delete"] {
        let ran = here.run(&["help", "study", command]).ok();
        insta::assert_snapshot!(format!("study-{command}"), ran.stdout);
    }
}

#[test]
fn every_command_has_an_example() {
    let here = Here::new();
    for command in ["tune", "worker", "train", "eval", "generate", "decide", "replay", "config", "bench"] {
        let help = here.run(&[command, "--help"]).ok().stdout;
        assert!(help.contains("Example"), "{help}");
        assert!(help.contains(&format!("diapason {command}")), "{help}");
    }
}

#[test]
fn the_keys_of_the_configuration() {
    let here = Here::new();
    insta::assert_snapshot!("config-list", here.run(&["config"]).ok().stdout);
    let one = here.run(&["config", "learning_rate"]).ok().stdout;
    assert_eq!(one.lines().count(), 1);
    let object = here.run(&["config", "--json"]).ok().json();
    let keys = object["keys"].as_array().unwrap();
    assert!(keys.iter().any(|key| key["name"] == "d_model" && key["default"] == "256"), "{object}");
    // What a recipe has, every key of it.
    insta::assert_snapshot!("config-fast", here.run(&["config", "--recipe", "fast"]).ok().stdout);
    let object = here.run(&["config", "norm", "--recipe", "fast", "--json"]).ok().json();
    let norm = &object["keys"][0];
    assert!(norm["default"] == "\"layer_norm\"" && norm["value"] == "\"rms_norm\"", "{object}");
}

#[test]
fn no_arguments_is_wrong_usage_and_shows_the_help() {
    let ran = Here::new().run(&[]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("Usage: diapason <COMMAND>"), "{ran:?}");
}
