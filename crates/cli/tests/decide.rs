//! The decision rule on tables from elsewhere.

mod common;

use common::{Here, TINY};

const EARLY: &str = "\
d_model,n_heads,n_layers,seconds,loss
256,8,4,70.73276329040527,1.4581079483032227
256,8,8,137.31607007980347,1.4512369632720947
256,16,4,75.04076051712036,1.4715590476989746
256,16,8,146.54027605056763,1.467713713645935
";

const FULL: &str = "\
d_model,n_heads,n_layers,seconds,loss
256,8,4,331.1321680545807,1.3307313919067383
256,8,8,652.1351611614227,1.3208262920379639
256,16,4,351.33376145362854,1.3433935642242432
256,16,8,696.6427783966064,1.3371410369873047
";

#[test]
fn the_notebooks_tables_choose_what_its_author_chose() {
    let here = Here::new();
    here.write("early.csv", EARLY);
    here.write("full.csv", FULL);
    for table in ["early.csv", "full.csv"] {
        let ran = here.run(&["decide", table]).ok();
        assert_eq!(ran.stdout.lines().last(), Some("chosen: d_model=256 n_heads=8 n_layers=4"));
        assert_eq!(ran.stderr, "");
    }
    insta::assert_snapshot!("decide-full", here.run(&["decide", "full.csv"]).stdout);
}

#[test]
fn a_table_gives_a_terminal_no_orders() {
    let here = Here::new();
    here.write("evil.csv", "na\u{1b}[2Jme,seconds,loss\n\u{1b}]0;x\u{7},1,1\n");
    here.write("bad.csv", "name,seconds,loss\nx,1,\u{1b}[2J\n");
    for (table, code) in [("evil.csv", 0), ("bad.csv", 1)] {
        let ran = here.run(&["decide", table]);
        assert_eq!(ran.code, Some(code), "{ran:?}");
        assert!([&ran.stdout, &ran.stderr].iter().all(|text| !text.contains(['\u{1b}', '\u{7}'])), "{ran:?}");
        assert!(format!("{}{}", ran.stdout, ran.stderr).contains("\\u{1b}"), "{ran:?}");
    }
}

#[test]
fn the_tolerance_decides() {
    let here = Here::new();
    here.write("full.csv", FULL);
    for (tolerance, chosen) in
        [("0", "n_layers=8"), ("0.5%", "n_layers=8"), ("0.01", "n_layers=4"), ("2%", "n_layers=4")]
    {
        let ran = here.run(&["decide", "full.csv", "--tolerance", tolerance]).ok();
        assert_eq!(ran.stdout.lines().last().unwrap(), format!("chosen: d_model=256 n_heads=8 {chosen}"));
    }
}

#[test]
fn a_studys_own_results_lead_to_its_own_decision() {
    let here = Here::with_text();
    let grid = ["--corpus", "text.txt", "--grid", "d_model=16,24", "--grid", "n_layers=1,2", "--steps", "20"];
    // All of `TINY` that is not in the grid.
    let sizes: Vec<&str> = TINY
        .chunks(2)
        .filter(|set| !set[1].starts_with("d_") && !set[1].starts_with("n_l"))
        .flatten()
        .copied()
        .collect();
    let tune = [&["tune", "--seeds", "2", "--out", "study", "--json"], &grid[..], &sizes].concat();
    let chosen = here.run(&tune).ok().json()["verdict"]["chosen"].clone();
    let ran = here.run(&["decide", "study/results.csv"]).ok();
    let line = format!("chosen: d_model={} n_layers={}", chosen["d_model"], chosen["n_layers"]);
    assert_eq!(ran.stdout.lines().last(), Some(line.as_str()), "{ran:#?}");
    assert_eq!(
        ran.stderr,
        "results of a study: the full pass (--pass early decides on the other); times within 10 % count as equal\n"
    );
    assert_eq!(here.run(&["decide", "study"]).ok().stdout, ran.stdout, "its folder stands for them");
    let early = here.run(&["decide", "study", "--pass", "early"]).ok();
    assert!(early.stderr.starts_with("results of a study: the early pass"), "{early:#?}");
}

#[test]
fn bad_tables_get_one_line() {
    let here = Here::new();
    here.write("no-loss.csv", "a,seconds\n1,2\n");
    here.write("word.csv", "a,seconds,loss\n1,soon,2\n");
    here.write("empty.csv", "");
    here.write("header.csv", "a,seconds,loss\n");
    here.write("failed.csv", "a,seconds,loss\n1,2,nan\n");
    here.write("ragged.csv", "a,seconds,loss\n1,2\n");
    here.write("binary.csv", b"a,seconds,loss\n\xFF\xFE,2,3\n");
    let mut transcript = String::new();
    let tables = [
        "no-loss.csv",
        "word.csv",
        "empty.csv",
        "header.csv",
        "failed.csv",
        "ragged.csv",
        "binary.csv",
        "absent.csv",
        "folder",
    ];
    std::fs::create_dir(here.path("folder")).unwrap();
    for table in tables {
        let ran = here.run(&["decide", table]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{table}: {ran:?}");
        transcript += &format!("$ diapason decide {table}\n{}\n", ran.stderr);
    }
    insta::assert_snapshot!("decide-bad-tables", transcript);
}
