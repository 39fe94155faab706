//! Event files, as TensorBoard itself reads them.
//!
//! The interpreter is that of a virtual environment that `scripts/test` makes. Without it this test fails, unless it is
//! left out by name.

use diapason_report::EventFile;
use serde_json::{Value as Json, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set this to leave the test out.
const SKIP: &str = "DIAPASON_SKIP_TENSORBOARD_TESTS";
/// Folder of the virtual environment, if it is not the top of the project.
const FOLDER: &str = "DIAPASON_TENSORBOARD_ENVIRONMENT";

fn read(runs: &Path) -> Json {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let program = std::env::var_os(FOLDER).map_or(top, PathBuf::from).join(".venv-tensorboard/bin/python");
    assert!(
        program.is_file(),
        "{} is not there: run scripts/test, which makes it, or set {SKIP}=1",
        program.display()
    );
    let done = Command::new(program)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/read_events.py"))
        .arg(runs)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

/// Evaluations every hundred steps from `from` to `to`; their values say which process computed them.
fn evaluate(file: &mut EventFile, from: u64, to: u64, process: f64) {
    for step in (from..=to).step_by(100) {
        file.scalar("validation/loss", step, 1000.5 + step as f64, process);
    }
    file.flush().unwrap();
}

#[test]
fn tensorboard_reads_curves_without_doubled_points() {
    if std::env::var_os(SKIP).is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("d_model=64,n_layers=2/seed-0");
    let mut first = EventFile::create(&run, 0).unwrap();
    evaluate(&mut first, 100, 500, 1.0);
    first.scalar("validation/accuracy", 500, 1500.5, 0.5);
    first.flush().unwrap();
    let path = first.path().to_path_buf();
    drop(first);
    // Killed in the midst of writing: 600 is half there.
    let mut second = EventFile::create(&folder.path().join("elsewhere"), 0).unwrap();
    evaluate(&mut second, 600, 600, 1.0);
    let whole = fs::read(second.path()).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend(&whole[whole.len() - 40..whole.len() - 7]);
    fs::write(&path, bytes).unwrap();
    // Its last checkpoint was of step 300; the evaluation of 400 and 500 comes once more, by another.
    evaluate(&mut EventFile::create(&run, 301).unwrap(), 400, 700, 2.0);
    // Another, that was killed before it had anything to say.
    drop(EventFile::create(&run, 701).unwrap());
    let mut strange = EventFile::create(&folder.path().join("strange"), 0).unwrap();
    for (step, value) in [(1, f64::NAN), (2, f64::INFINITY), (3, f64::NEG_INFINITY), (1 << 40, 1e300)] {
        strange.scalar("größe 幅", step, 0.0, value);
    }
    drop(strange);
    // A run that begins anew where another was.
    let again = folder.path().join("again");
    evaluate(&mut EventFile::create(&again, 0).unwrap(), 100, 300, 1.0);
    evaluate(&mut EventFile::create(&again, 0).unwrap(), 100, 200, 2.0);

    let found = read(folder.path());
    let curve = |run: &str| found[run]["validation/loss"].clone();
    assert_eq!(
        curve("d_model=64,n_layers=2/seed-0"),
        json!([
            [100, 1.0, 1100.5],
            [200, 1.0, 1200.5],
            [300, 1.0, 1300.5],
            [400, 2.0, 1400.5],
            [500, 2.0, 1500.5],
            [600, 2.0, 1600.5],
            [700, 2.0, 1700.5],
        ])
    );
    // What was told after the checkpoint of a tag that nobody tells of again is forgotten too.
    assert!(found["d_model=64,n_layers=2/seed-0"].get("validation/accuracy").is_none_or(|a| a == &json!([])));
    assert_eq!(curve("again"), json!([[100, 2.0, 1100.5], [200, 2.0, 1200.5]]));
    assert_eq!(
        found["strange"]["größe 幅"],
        json!([[1, "nan", 0.0], [2, "inf", 0.0], [3, "-inf", 0.0], [1u64 << 40, "inf", 0.0]])
    );
}
