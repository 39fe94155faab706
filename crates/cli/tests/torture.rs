//! Workers are killed at any moment and the database goes away: every trial succeeds exactly once, and every number is
//! that of a study that nobody disturbed.
//!
//! `DIAPASON_TORTURE_KILLS` is the number of kills, and with it the length; `scripts/torture` is the long form.

mod common;
#[path = "../../storage/tests/common/mod.rs"]
mod databases;

use common::{Here, outcomes, tiny, wait_for};
use databases::{Kind, Server};
use diapason_storage::{ItemState, Opening, Storage, StorageUrl, TrialState};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// How many workers are killed, and with it the size of the study.
const KILLS: &str = "DIAPASON_TORTURE_KILLS";

const RATES: usize = 3;

/// Of a trial: a second or more on a quick machine that does nothing else, while a worker is killed about four times a
/// second. With 4,000 the study could be over before half of the kills.
const STEPS: &str = "16000";

/// How many workers are killed.
fn kills() -> usize {
    std::env::var(KILLS).map_or(8, |kills| kills.parse().unwrap())
}

/// A grid that takes a few times as long as the killing.
fn seeds() -> usize {
    (kills() / 3).max(2)
}

/// What happened: on stderr at once in the long form, else only where it is of use.
struct Log {
    begun: Instant,
    lines: RefCell<Vec<String>>,
}

impl Log {
    fn new() -> Self {
        Self { begun: Instant::now(), lines: RefCell::default() }
    }

    fn note(&self, text: &str) {
        let line = format!("{:8.3} s  {text}", self.begun.elapsed().as_secs_f64());
        if std::env::var_os(KILLS).is_some() {
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        }
        self.lines.borrow_mut().push(line);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr().lock(), "{}", self.lines.borrow().join("\n"));
        }
    }
}

/// Numbers that look random and are the same in every run. The moments that they are used at are not.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// A study under torture.
struct Study<'a> {
    here: &'a Here,
    url: &'a str,
}

impl Study<'_> {
    fn tune(&self, out: &str, storage: bool, threads: &str) -> Vec<String> {
        let (url, seeds) = (self.url, seeds().to_string());
        let place: &[&str] = if storage { &["--storage", url, "--study", "the study"] } else { &[] };
        let more = [
            "--corpus",
            "text.txt",
            "--grid",
            "learning_rate=1e-3,3e-3,1e-2",
            "--seeds",
            &seeds,
            "--steps",
            STEPS,
            "--set",
            "patience=0",
            "--set",
            "checkpoint_seconds=1",
            "--threads",
            threads,
            "--out",
            out,
        ];
        tiny("tune", &[&more[..], place].concat()).into_iter().map(str::to_string).collect()
    }

    /// The first process is `tune`, the others are workers.
    fn start(&self, place: usize) -> Child {
        let args: Vec<String> = match place {
            0 => self.tune("tortured", true, "1"),
            _ => [
                "worker",
                "--storage",
                self.url,
                "--study",
                "the study",
                "--out",
                "tortured",
                "--threads",
                "1",
            ]
            .map(str::to_string)
            .to_vec(),
        };
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let log = |name: &str| -> File {
            let path = self.here.path(&format!("{name}-{place}"));
            OpenOptions::new().create(true).append(true).open(path).unwrap()
        };
        self.here
            .command(&args)
            .stdout(log("stdout"))
            .stderr(log("stderr"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn said(&self, place: usize) -> String {
        String::from_utf8_lossy(&self.here.read(&format!("stderr-{place}"))).into_owned()
    }

    fn open(&self, opening: Opening) -> Option<Storage> {
        Storage::open(&StorageUrl::parse(self.url).unwrap(), opening).ok()
    }

    /// How many trials are in each state; none while nobody has enqueued them.
    fn counts(&self) -> Option<BTreeMap<&'static str, u64>> {
        let mut storage = self.open(Opening::Read)?;
        let study = storage.study("the study").ok()?;
        let counts = storage.item_counts(study).ok().filter(|counts| counts.all() > 0)?;
        let states = [ItemState::Ready, ItemState::Held, ItemState::Done, ItemState::Failed];
        Some(states.map(|state| (state.name(), counts.of(state))).into_iter().collect())
    }
}

/// Kills workers of a study at random, and calls `half_way` once in the middle.
fn torture(study: &Study<'_>, log: &Log, half_way: &mut dyn FnMut()) {
    let trials = (RATES * seeds()) as u64;
    let mut dice = Dice(20_260_101);
    let mut at_work: Vec<Option<Child>> = vec![Some(study.start(0))];
    wait_for("the trials to be enqueued", || study.counts().is_some());
    at_work.extend((1..3).map(|place| Some(study.start(place))));
    let (begun, mut killed) = (Instant::now(), 0);
    let limit = Duration::from_secs(300 + 20 * kills() as u64);
    while at_work.iter().any(Option::is_some) {
        assert!(begun.elapsed() < limit, "after {limit:?}: {:?}", study.counts());
        if killed < kills() {
            std::thread::sleep(Duration::from_millis(50 + dice.below(300)));
            let place = dice.below(at_work.len() as u64) as usize;
            if let Some(child) = &mut at_work[place] {
                child.kill().unwrap();
                child.wait().unwrap();
                killed += 1;
                log.note(&format!("killed number {killed}, worker {place}; trials: {:?}", study.counts()));
                at_work[place] = Some(study.start(place));
                if killed == kills() / 2 {
                    half_way();
                }
            }
        } else {
            std::thread::sleep(Duration::from_millis(50));
        }
        for place in 0..at_work.len() {
            let Some(status) = at_work[place].as_mut().and_then(|child| child.try_wait().unwrap()) else {
                continue;
            };
            let said = study.said(place);
            assert!(status.success(), "worker {place} ended with {status}:\n{said}");
            log.note(&format!("worker {place} is done: {}", said.lines().last().unwrap_or_default()));
            at_work[place] = None;
        }
    }
    assert!(killed > kills() / 2, "only {killed} were killed");
    assert_eq!(study.counts().unwrap()["DONE"], trials);
    let taken_over: usize = (0..3).map(|place| study.said(place).matches("taken over from ").count()).sum();
    log.note(&format!("{trials} trials done, {killed} workers killed, {taken_over} trials taken over"));
    assert!(taken_over > 0, "nothing was interrupted");
}

#[test]
fn killed_workers_cost_nothing() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let here = Here::with_text();
        let server = (kind == Kind::Postgres).then(Server::start);
        let url = match &server {
            None => format!("sqlite:///{}", here.path("tortured.db").display()),
            Some(Some(server)) => server.new_database(),
            Some(None) => continue,
        };
        let study = Study { here: &here, url: &url };
        let log = Log::new();
        log.note(&format!("{kind:?}: {} trials, {} workers to be killed", RATES * seeds(), kills()));
        let undisturbed = study.tune("whole", false, "2");
        here.run(&undisturbed.iter().map(String::as_str).collect::<Vec<_>>()).ok();
        log.note("the same study undisturbed is done");
        torture(&study, &log, &mut || {
            if let Some(Some(server)) = &server {
                server.control("restart");
                log.note("the server was restarted");
            }
        });

        let (whole, _) = outcomes(&mut here.storage("whole"), &here.path("whole"));
        let (tortured, numbers) = outcomes(&mut study.open(Opening::Read).unwrap(), &here.path("tortured"));
        assert_eq!(tortured.len(), RATES * seeds());
        assert!(tortured.values().all(|outcome| outcome.state == TrialState::Complete));
        // No cell was tried under a second number either.
        assert_eq!(numbers, (0..tortured.len() as i64).collect::<Vec<_>>());
        assert_eq!(tortured, whole);
        log.note("every number is that of the undisturbed study");

        // The same command again has nothing to do, and shows what the undisturbed study shows.
        let again = study.tune("tortured", true, "2");
        let again = here.run(&again.iter().map(String::as_str).collect::<Vec<_>>()).ok();
        assert!(again.stderr.contains("nothing to train: "), "{again:?}");
    }
}
