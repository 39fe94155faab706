//! Recipes and the parts of the model, as they are typed: trained, compared, scored, written on with.

mod common;

use common::{Here, tiny};

#[test]
fn a_recipe_is_trained_scored_and_written_on_with() {
    let here = Here::with_text();
    let args = tiny("train", &["--corpus", "text.txt", "--recipe", "fast", "--steps", "300", "--json"]);
    let trained = here.run(&args).ok().json();
    let folder = trained["folder"].as_str().unwrap();
    assert!(folder.contains("/fast,") && !folder.contains("rms_norm"), "{folder}");
    assert!(trained["best_validation_loss"].as_f64().unwrap() < 1.6, "{trained}");
    let scored = here.run(&["eval", folder, "--json"]).ok().json();
    assert!(
        (scored["loss"].as_f64().unwrap() - trained["best_validation_loss"].as_f64().unwrap()).abs() < 0.5
    );
    // Far beyond the context, so that it is read again several times; the same text whichever way it is read.
    let greedy = |more: &[&str]| {
        let generate = ["generate", folder, "--length", "60", "--temperature", "0"];
        here.run(&[&generate[..], more].concat()).ok().stdout
    };
    assert_eq!(greedy(&["--threads", "1"]), greedy(&["--threads", "2"]));

    // A key by name wins over the recipe, and the recipe is no longer what the folder is called by alone.
    let args = tiny(
        "train",
        &["--corpus", "text.txt", "--recipe", "fast", "--set", "norm=layer_norm", "--steps", "3", "--json"],
    );
    let folder = here.run(&args).ok().json()["folder"].as_str().unwrap().to_string();
    assert!(folder.contains("norm=layer_norm"), "{folder}");
}

#[test]
fn parts_are_axes_of_a_grid() {
    let here = Here::with_text();
    let args = tiny(
        "tune",
        &[
            "--corpus",
            "text.txt",
            "--recipe",
            "fast",
            "--grid",
            "activation=relu_squared,swiglu",
            "--grid",
            "dropout=0,0.1",
            "--steps",
            "20",
            "--out",
            "s",
        ],
    );
    let ran = here.run(&args).ok();
    let chosen = ran.stdout.lines().last().unwrap();
    assert!(chosen.starts_with("chosen: activation="), "{ran:?}");
    // What is printed to go on with repeats the recipe, not its keys.
    let next = ran.stderr.lines().find(|line| line.contains(" train --corpus ")).unwrap();
    assert!(next.contains("--recipe fast") && !next.contains("qk_norm"), "{next}");
    assert!(here.path("s/trials/activation=swiglu,dropout=0.1/seed-0/best.safetensors").exists());
}
