//! How a storage fares with a large study: `cargo run --release -p diapason-storage --example scale -- URL [TRIALS]`.
//!
//! Enqueues a grid (default 100,000 trials of four parameters), finishes some, and times one operation after the other on
//! the full study. Prints a table of milliseconds. The study is deleted in the end.

use diapason_storage::{
    Claimed, Direction, Distribution, NewTrial, Opening, Outcome, Page, Param, Policy, Record, Storage,
    StorageError, StorageUrl, TrialState, Worker,
};
use serde_json::json;
use std::error::Error;
use std::io::Write;
use std::time::Instant;

/// Each operation is timed this often.
const ROUNDS: usize = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = StorageUrl::parse(&arguments.next().ok_or("give a URL, as in sqlite:///scale.db")?)?;
    let trials: i64 = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let mut out = std::io::stdout().lock();
    let mut storage = Storage::open(&url, Opening::Create)?;
    let name = format!("scale-{}", std::process::id());
    let study = storage.create_study(&name, Direction::Minimize, &[])?;

    let parameter = |name: &str, value: i64| Param {
        name: name.to_string(),
        value: json!(value),
        distribution: Distribution::Int { low: 0, high: 10_000_000, log: false, step: 1 },
    };
    let grid: Vec<NewTrial> = (0..trials)
        .map(|i| NewTrial {
            key: format!("d_model={},n_heads={},n_layers={},batch_size={i}/seed-0", i % 7, i % 11, i % 13),
            params: vec![
                parameter("d_model", i % 7),
                parameter("n_heads", i % 11),
                parameter("n_layers", i % 13),
                parameter("batch_size", i),
            ],
            user_attributes: vec![("seed".to_string(), json!(0))],
            system_attributes: Vec::new(),
        })
        .collect();
    let start = Instant::now();
    storage.enqueue(study, &grid)?;
    writeln!(out, "{trials} trials on {url}")?;
    writeln!(out, "enqueue all        {:9.1} s", start.elapsed().as_secs_f64())?;
    let start = Instant::now();
    storage.enqueue(study, &grid)?;
    writeln!(out, "enqueue all again  {:9.1} s", start.elapsed().as_secs_f64())?;

    let worker = Worker::this_process("cpu-1");
    let policy = Policy::default();
    writeln!(out, "milliseconds           median      99 %       max")?;
    let mut table = |what: &str, mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        let at = |share: f64| 1e3 * times[((times.len() - 1) as f64 * share) as usize];
        writeln!(out, "{what:18} {:9.2} {:9.2} {:9.2}", at(0.5), at(0.99), at(1.0))
    };
    let (mut claims, mut records, mut finishes, mut failures) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let timed = |times: &mut Vec<f64>, start: Instant| times.push(start.elapsed().as_secs_f64());
    for round in 0..ROUNDS {
        let start = Instant::now();
        let Claimed::Work(claim) = storage.claim(study, &worker, &policy)? else {
            return Err("nothing to claim".into());
        };
        timed(&mut claims, start);
        let start = Instant::now();
        storage.record(&claim.lease, &Record::new().value(100, 1.5).safe_step(100), &policy)?;
        timed(&mut records, start);
        let mut record = Record::new().value(200, 1.25);
        for attribute in 0..15 {
            record = record.attribute(format!("attribute_{attribute}"), attribute);
        }
        let start = Instant::now();
        if round % 4 == 3 {
            let failed = Outcome::Failed { reason: "out of memory".to_string(), retry: true };
            storage.finish(&claim.lease, &record, &failed, &policy)?;
            timed(&mut failures, start);
        } else {
            storage.finish(&claim.lease, &record, &Outcome::Complete(1.25), &policy)?;
            timed(&mut finishes, start);
        }
    }
    table("claim", claims)?;
    table("intermediate value", records)?;
    table("finish", finishes)?;
    table("fail, enqueue anew", failures)?;
    let mut page =
        |storage: &mut Storage, what: &str, page: &dyn Fn(usize) -> Page| -> Result<(), Box<dyn Error>> {
            let mut times = Vec::new();
            for round in 0..ROUNDS {
                let start = Instant::now();
                let found = storage.trials(study, page(round))?;
                timed(&mut times, start);
                if found.is_empty() {
                    return Err("an empty page".into());
                }
            }
            Ok(table(what, times)?)
        };
    let spread = |round: usize| round as i64 * (trials - 100) / ROUNDS as i64;
    page(&mut storage, "page of 100", &|round| Page { from: spread(round), ..Page::default() })?;
    page(&mut storage, "page of waiting", &|round| Page {
        from: spread(round),
        state: Some(TrialState::Waiting),
        ..Page::default()
    })?;
    page(&mut storage, "page of complete", &|_| Page {
        state: Some(TrialState::Complete),
        curves: true,
        ..Page::default()
    })?;
    let mut counts = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        storage.item_counts(study)?;
        timed(&mut counts, start);
    }
    table("count by state", counts)?;
    let start = Instant::now();
    let mut exported = 0;
    storage.export(study, |_| -> Result<(), StorageError> {
        exported += 1;
        Ok(())
    })?;
    let export = start.elapsed().as_secs_f64();
    let start = Instant::now();
    storage.delete_study(&name)?;
    writeln!(out, "export {exported}      {export:9.1} s")?;
    writeln!(out, "delete             {:9.1} s", start.elapsed().as_secs_f64())?;
    Ok(())
}
