//! The examples of starting workers work as they stand.

mod common;

use common::{Here, TINY};
use diapason_storage::ItemState;
use std::io::Write;
use std::path::Path;
use std::process::Command;

fn example(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name).display().to_string()
}

/// Runs an example in a shell, on a tiny grid; every trial must then have been done once.
fn run(name: &str, arguments: &str) {
    let here = Here::with_text();
    let settings =
        format!("--corpus text.txt --grid learning_rate=1e-3,3e-3 --seeds 2 --steps 400 {}", TINY.join(" "));
    let ran = here.shell(&format!("DIAPASON=$D exec '{}' {arguments} {settings}", example(name))).ok();
    let mut storage = here.storage("s");
    let study = storage.studies().unwrap()[0].id;
    let items = storage.items(study, None, None, 9).unwrap();
    assert!(items.len() == 4 && items.iter().all(|item| item.state == ItemState::Done), "{ran:#?}");
    assert!(items.iter().all(|item| item.claims == 1), "{items:#?}");
}

fn is_installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|done| done.status.success());
    if !found {
        let _ = writeln!(std::io::stderr().lock(), "{program} is not installed: its example is not tried");
    }
    found
}

#[test]
fn two_shells() {
    run("two-shells.sh", "s");
}

#[test]
fn gnu_parallel() {
    if is_installed("parallel") {
        run("gnu-parallel.sh", "3 s");
    }
}

/// The array job with a cluster of one: `srun` is a script that runs what follows it.
#[test]
fn slurm() {
    let here = Here::with_text();
    here.write("srun", "#!/bin/sh\nshift\nexec \"$D\" \"$@\"\n");
    let line = format!(
        "chmod +x srun; export PATH=\"$PWD:$PATH\" SLURM_SUBMIT_DIR=$PWD SLURM_CPUS_PER_TASK=1 USER=me;
         export DIAPASON_STORAGE=study.db DIAPASON_FOLDER=s;
         sed -e 's/--corpus text8 --seeds 3/--corpus text.txt --steps 20 --seeds 1 {}/' \
             -e 's/d_model=128,256/d_model=8,16/; s/n_heads=4,8/n_heads=2,4/; s/n_layers=4,8/n_layers=1/' '{}' > job;
         for task in 0 1 2; do bash job & tasks=\"${{tasks-}} $!\"; done; for task in $tasks; do wait $task || exit 1; done",
        ["batch_size=4", "sequence_length=8", "max_len=16", "validation_characters=512"].map(|set| format!("--set {set}")).join(" "),
        example("slurm.sbatch")
    );
    let ran = here.shell(&line).ok();
    let url = diapason_storage::StorageUrl::Sqlite(here.path("study.db"));
    let mut storage = diapason_storage::Storage::open(&url, diapason_storage::Opening::Read).unwrap();
    let study = storage.study("text8").unwrap();
    let items = storage.items(study, None, None, 9).unwrap();
    assert!(items.len() == 4 && items.iter().all(|item| item.state == ItemState::Done), "{ran:#?}");
}

/// The flags in the examples that cannot be run here are flags of the program, and the file is one that Kubernetes could
/// read: two spaces a level, no tabs, a job with as many indices as workers.
#[test]
fn kubernetes() {
    let text = std::fs::read_to_string(example("kubernetes.yaml")).unwrap();
    let here = Here::new();
    let help = here.run(&["help", "tune"]).ok().stdout;
    let flags: Vec<&str> =
        text.lines().filter_map(|line| line.trim().strip_prefix("- --")?.split('=').next()).collect();
    assert!(flags.len() > 5 && flags.iter().all(|flag| help.contains(&format!("--{flag} "))), "{flags:?}");
    // Python reads YAML where PyYAML is installed.
    let script = "import sys\ntry:\n    import yaml\nexcept ImportError:\n    sys.exit(77)\n\
                  job = yaml.safe_load(sys.stdin)\nassert job['kind'] == 'Job' and job['spec']['completionMode'] == 'Indexed'\n\
                  container = job['spec']['template']['spec']['containers'][0]\n\
                  assert container['command'] == ['diapason', 'tune'] and all(a.startswith('--') for a in container['args'])\n";
    let mut child = Command::new("python3");
    let status =
        child.args(["-c", script]).stdin(std::fs::File::open(example("kubernetes.yaml")).unwrap()).status();
    assert!(matches!(status.unwrap().code(), Some(0 | 77)), "it is not the YAML of such a job");
    assert!(!text.contains('\t') && text.lines().all(|line| (line.len() - line.trim_start().len()) % 2 == 0));
}
