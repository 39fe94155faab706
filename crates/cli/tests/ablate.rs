//! `tune --ablate`: one key at a time.

mod common;

use common::{Here, tiny};
use serde_json::Value as Json;

fn tune<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let words = ["--corpus", "text.txt", "--steps", "40", "--cost", "flop", "--threads", "1"];
    let out = if more.contains(&"--out") { &[][..] } else { &["--out", "s"][..] };
    [&tiny("tune", &[])[..], &words[..], out, more].concat()
}

/// What sets the configurations apart, in the order of the table.
fn configurations(study: &Json) -> Vec<String> {
    let rows = study["trials"].as_array().unwrap().iter();
    rows.filter(|row| row["pass"] == "full").map(|row| row["params"].to_string()).collect()
}

#[test]
fn the_base_and_each_change_alone() {
    let here = Here::with_text();
    let ran = here.run(&tune(&["--ablate", "activation=relu,silu", "--json"])).ok();
    let study = ran.json();
    assert_eq!(configurations(&study), ["{}", r#"{"activation":"relu"}"#, r#"{"activation":"silu"}"#]);
    assert!(study["command"].as_str().unwrap().contains(" --ablate activation=relu,silu"), "{study}");

    // It grows as a grid does, and what is there is not trained again.
    let more = ["--ablate", "activation=relu,silu", "--ablate", "tie_embeddings=true"];
    let before = here.read("s/trials/activation=silu/seed-0/curve.csv");
    let ran = here.run(&tune(&more)).ok();
    assert_eq!(here.read("s/trials/activation=silu/seed-0/curve.csv"), before, "times and all");
    let table: Vec<&str> = ran.stdout.lines().take(7).collect();
    assert!(table[1].contains("change") && table[1].contains("by change"), "{}", ran.stdout);
    assert!(table[3].contains(" none ") && table[6].contains(" tie_embeddings=true "), "{}", ran.stdout);
    let signed = |line: &str| line.contains(" +0.") || line.contains(" -0.");
    assert!(!signed(table[3]) && table[4..7].iter().all(|line| signed(line)), "{}", ran.stdout);

    // The differences are those of the losses beside them.
    let study = here.run(&tune(&[&more[..], &["--json"]].concat())).ok().json();
    let rows = study["trials"].as_array().unwrap();
    let losses: Vec<f64> = rows
        .iter()
        .filter(|row| row["pass"] == "full")
        .map(|row| row["validation_loss"].as_f64().unwrap())
        .collect();
    for (line, loss) in table[4..7].iter().zip(&losses[1..]) {
        assert!(line.contains(&format!("{:+.4}", loss - losses[0])), "{line}: {losses:?}");
    }
    let report = String::from_utf8(here.read("s/report.md")).unwrap();
    assert!(report.contains("| change |") && report.contains("by change |"), "{report}");
    let page = String::from_utf8(here.read("s/report.html")).unwrap();
    assert!(page.contains("by change") && page.contains("tie_embeddings=true"));

    // The table of results leads to the same choice.
    let decided = here.run(&["decide", "s/results.csv", "--cost", "flop"]).ok();
    let chosen = match study["verdict"]["chosen"].as_object().unwrap().iter().next() {
        Some((key, value)) => format!("{key}={}", value.as_str().map_or(value.to_string(), str::to_string)),
        None => "(the base)".to_string(),
    };
    assert_eq!(decided.stdout.lines().last(), Some(format!("chosen: {chosen}").as_str()), "{decided:#?}");

    // What was trained cannot be left out, nor can the same values be multiplied out at one time and not at another.
    let grid = ["--grid", "activation=gelu,relu", "--grid", "tie_embeddings=false,true"];
    here.run(&tune(&[&grid[..], &["--out", "g"]].concat())).ok();
    let other =
        here.run(&tune(&["--ablate", "activation=relu", "--ablate", "tie_embeddings=true", "--out", "g"]));
    assert_eq!(other.code, Some(1));
    let was = "ablate was nothing, is activation=relu tie_embeddings=true";
    assert!(other.stderr.contains(was), "{other:#?}");
    let other = here.run(&tune(&["--ablate", "tie_embeddings=true"]));
    assert_eq!(other.code, Some(1));
    assert!(other.stderr.contains("activation was gelu,relu,silu, is gelu"), "{other:#?}");
}

#[test]
fn beside_each_cell_of_a_grid() {
    let here = Here::with_text();
    let study =
        here.run(&tune(&["--grid", "mlp_ratio=1,3", "--ablate", "norm=rms_norm", "--json"])).ok().json();
    assert_eq!(
        configurations(&study),
        [
            r#"{"mlp_ratio":1.0}"#,
            r#"{"mlp_ratio":1.0,"norm":"rms_norm"}"#,
            r#"{"mlp_ratio":3.0}"#,
            r#"{"mlp_ratio":3.0,"norm":"rms_norm"}"#
        ]
    );
}

#[test]
fn what_is_no_change_is_refused() {
    let here = Here::with_text();
    let refused = |more: &[&str], what: &str| {
        let ran = here.run(&tune(more));
        assert!(ran.code != Some(0) && ran.stderr.contains(what), "{what}: {ran:#?}");
        assert!(!ran.stderr.contains("panicked") && ran.stdout.is_empty(), "{ran:#?}");
    };
    refused(
        &["--ablate", "activation=gelu,relu"],
        "activation=gelu is what there is without it\nhint: leave ",
    );
    refused(&["--ablate", "activation"], "there is no `=`");
    refused(&["--ablate", "precision=half"], "all trials of a study have the same precision");
    refused(
        &["--grid", "norm=layer_norm,rms_norm", "--ablate", "norm=rms_norm"],
        "norm is in --grid and in --ablate\nhint: leave it out of one of them",
    );
    refused(&["--ablate", "momentum=0.9"], "would train the same");
    refused(&["--ablate", "norm=rms_norm", "--range", "learning_rate=1e-4..1e-2:log"], "cannot be used with");
}
