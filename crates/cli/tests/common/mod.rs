//! A folder of its own for each test, and the built program to run in it.

// Every test binary includes this file and uses a part of it.
#![allow(dead_code, unreachable_pub)]

use diapason_storage::{Cost, Opening, Storage, StorageError, StorageUrl, TrialState};
use serde_json::Value;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A model that trains in milliseconds.
pub const TINY: [&str; 14] = [
    "--set",
    "d_model=16",
    "--set",
    "n_heads=2",
    "--set",
    "n_layers=1",
    "--set",
    "batch_size=4",
    "--set",
    "sequence_length=8",
    "--set",
    "max_len=16",
    "--set",
    "validation_characters=512",
];

/// What a run of the program came to.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn new(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The run, which must have been a success.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// Stdout as one JSON object and nothing else.
    #[track_caller]
    pub fn json(&self) -> Value {
        let value: Value = serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:#?}"));
        assert!(value.is_object() && self.stdout.lines().count() == 1, "{self:#?}");
        value
    }
}

/// An empty folder in which the program runs.
pub struct Here {
    folder: tempfile::TempDir,
}

impl Here {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A folder with `text.txt` in it.
    pub fn with_text() -> Self {
        let here = Self::new();
        here.write("text.txt", text(20_000));
        here
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// The program with these arguments, not started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_diapason"));
        command.args(args).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("DIAPASON_CACHE", self.path("cache")).env_remove("DIAPASON_ISA");
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::new(self.command(args).output().unwrap())
    }

    /// The program in the background, its output kept for [`finish`].
    pub fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// A line in a POSIX shell, to which `$D` is the program.
    pub fn shell(&self, line: &str) -> Ran {
        finish(self.start_shell(line))
    }

    /// The same in the background.
    pub fn start_shell(&self, line: &str) -> Child {
        let mut command = Command::new("sh");
        command.arg("-c").arg(line).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("D", env!("CARGO_BIN_EXE_diapason")).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// The database of the study in this folder.
    pub fn storage(&self, study: &str) -> Storage {
        Storage::open(&StorageUrl::Sqlite(self.path(study).join("study.db")), Opening::Read).unwrap()
    }

    /// What a step was measured to take in the study in this folder.
    pub fn costs(&self, study: &str) -> Vec<Cost> {
        let mut storage = self.storage(study);
        let studies = storage.studies().unwrap();
        storage.costs(studies[0].id).unwrap()
    }

    /// Every file and folder below, sorted.
    pub fn files(&self) -> Vec<String> {
        fn walk(folder: &Path, root: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                found.push(path.strip_prefix(root).unwrap().display().to_string());
                if path.is_dir() {
                    walk(&path, root, found);
                }
            }
        }
        let mut found = Vec::new();
        walk(self.folder.path(), self.folder.path(), &mut found);
        found.sort();
        found
    }
}

/// What came of a trial, as far as it may depend on nothing but its settings.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub state: TrialState,
    /// Bits of its value.
    pub value: Vec<u64>,
    /// Steps and bits of what it reported.
    pub curve: Vec<(i64, u64)>,
    /// Attributes without times, and what the machine was like.
    pub attributes: BTreeMap<String, Value>,
    /// What its last and its best weights come to.
    pub weights: [u64; 2],
    /// Columns of its `curve.csv` but the time.
    pub csv: Vec<String>,
}

/// What came of every trial of a study's only database, by the key of its work item, and the numbers of all trials.
pub fn outcomes(storage: &mut Storage, folder: &Path) -> (BTreeMap<String, Outcome>, Vec<i64>) {
    let studies = storage.studies().unwrap();
    assert_eq!(studies.len(), 1);
    let (mut outcomes, mut numbers) = (BTreeMap::new(), Vec::new());
    storage
        .export(studies[0].id, |trial| -> Result<(), StorageError> {
            numbers.push(trial.number);
            let Some(item) = trial.item else { return Ok(()) };
            let checkpoint = folder.join(trial.user_attributes["checkpoint"].as_str().unwrap());
            let curve = std::fs::read_to_string(checkpoint.with_file_name("curve.csv")).unwrap();
            let measured = ["_seconds", "tokens_per_second", "threads", "trials_at_once"];
            let outcome = Outcome {
                state: trial.state,
                value: trial.values.iter().map(|value| value.to_bits()).collect(),
                curve: trial.intermediate_values.iter().map(|(step, x)| (*step, x.to_bits())).collect(),
                attributes: trial
                    .user_attributes
                    .iter()
                    .filter(|(key, _)| !measured.iter().any(|end| key.ends_with(end)))
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect(),
                weights: [tensors(&checkpoint), tensors(&checkpoint.with_file_name("best.safetensors"))],
                csv: curve.lines().map(|line| line.rsplit_once(',').unwrap().0.to_string()).collect(),
            };
            assert!(outcomes.insert(item.key.clone(), outcome).is_none(), "{} twice", item.key);
            Ok(())
        })
        .unwrap();
    (outcomes, numbers)
}

/// The numbers in a checkpoint, as one; what lies before them contains measured times.
pub fn tensors(path: &Path) -> u64 {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut hasher = DefaultHasher::new();
    bytes[8 + header..].hash(&mut hasher);
    hasher.finish()
}

/// Waits for a program in the background.
pub fn finish(child: Child) -> Ran {
    Ran::new(child.wait_with_output().unwrap())
}

/// Sends a signal by name.
pub fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status().unwrap();
    assert!(status.success());
}

/// Waits until `ready`, at most a minute.
#[track_caller]
pub fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if ready() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("waited a minute for {what}");
}

/// `TINY` and more arguments after a command.
pub fn tiny<'a>(command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&[command], &TINY[..], more].concat()
}

/// Words in a random-looking order: text in the text8 alphabet.
pub fn text(characters: usize) -> String {
    let words =
        ["the", "cat", "sat", "on", "a", "mat", "and", "then", "it", "ran", "far", "away", "from", "here"];
    let mut text = String::new();
    let mut state = 1u32;
    while text.len() < characters {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text += words[(state >> 16) as usize % words.len()];
        text.push(' ');
    }
    text.truncate(characters);
    text
}
