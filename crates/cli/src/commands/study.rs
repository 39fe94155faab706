//! `study`: list, show, export, delete.
//!
//! A study belongs to whoever can write to its database, and so does every name, value and attribute in it. So what
//! is printed goes through [`printable`], what becomes a cell of a spreadsheet through [`cell`], and no path from a
//! database is opened. Nothing but `delete` writes.

use super::json;
use crate::args::{Database, DeleteStudy, ExportStudy, Format, ListStudies, ShowStudy, State, Study};
use crate::failure::{Failure, note};
use crate::{shell, storage};
use diapason_report::{HTML_FILE, JSON_FILE, REPORT_FILE, RESULTS_FILE};
use diapason_storage::{
    Direction, Item, ItemState, Opening, PAGE, Page, Storage, StorageError, StorageUrl, StudyId,
    StudySummary, Trial, TrialState, printable,
};
use diapason_study::{DATABASE_FILE, STUDY_FILE};
use diapason_training::files::write_atomically;
use diapason_training::{BEST, CHECKPOINT, CURVE};
use serde::Serialize;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Component, Path, PathBuf};

/// Folder of the folders of studies, as `tune` makes it.
pub(super) const STUDIES: &str = "studies";

/// Folder of the trials in a study's folder.
const TRIALS: &str = "trials";

/// The system attribute that every trial has that `tune` or a worker made its own.
const CONFIG: &str = "diapason:config";

/// Every state, in the order in which a trial comes by them.
const STATES: [TrialState; 5] =
    [TrialState::Waiting, TrialState::Running, TrialState::Complete, TrialState::Pruned, TrialState::Fail];

pub(crate) fn run(command: Study) -> Result<(), Failure> {
    match command {
        Study::List(args) => list(&args),
        Study::Show(args) => show(&args),
        Study::Export(args) => export(&args),
        Study::Delete(args) => delete(&args),
    }
}

// Finding

/// A study in an open database.
pub(super) struct Found {
    storage: Storage,
    pub(super) url: StorageUrl,
    id: StudyId,
    pub(super) name: String,
}

impl Found {
    /// What is known of it without looking at its trials.
    fn summary(&mut self) -> Result<StudySummary, Failure> {
        let all = self.storage.studies()?;
        all.into_iter()
            .find(|study| study.id == self.id)
            .ok_or_else(|| StorageError::NoStudy { name: self.name.clone() }.into())
    }
}

fn open(url: &StorageUrl, opening: Opening) -> Result<Storage, Failure> {
    let storage = Storage::open(url, opening).map_err(|error| match error {
        // Nobody is training here.
        StorageError::Unreachable { .. } => Failure::failed(error.to_string()).with_hint(match url {
            StorageUrl::Postgres(_) => "does the server run, at this host and port?",
            StorageUrl::Sqlite(_) => "try again in a moment",
        }),
        error => error.into(),
    })?;
    if let Some(warning) = storage.warning() {
        note(&format!("warning: {}: {warning}", storage.place()));
    }
    Ok(storage)
}

/// The study that was named, or the only one there is.
pub(super) fn find(args: &Database, name: Option<&str>, opening: Opening) -> Result<Found, Failure> {
    if let Some(url) = storage::given(args.storage.as_deref())? {
        let storage = open(&url, opening)?;
        return choose(storage, url, name, name.is_none(), args);
    }
    let Some(name) = name else {
        return Err(Failure::usage("NAME is missing").with_hint("`diapason study list` names the studies"));
    };
    let folder = [Path::new(STUDIES).join(name), PathBuf::from(name)]
        .into_iter()
        .find(|folder| folder.join(DATABASE_FILE).is_file())
        .ok_or_else(|| unknown(name, &folders(Path::new(STUDIES)), args))?;
    let url = storage::place(None, &folder)?;
    let storage = open(&url, opening)?;
    let last = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    // The folder of a study has one study, whatever that is called.
    choose(storage, url, last.as_deref(), true, args)
}

/// The study of that name in a database; or its only one, if that will do.
fn choose(
    mut storage: Storage,
    url: StorageUrl,
    name: Option<&str>,
    or_only: bool,
    args: &Database,
) -> Result<Found, Failure> {
    if let Some(name) = name {
        match storage.study(name) {
            Ok(id) => return Ok(Found { storage, url, id, name: name.to_string() }),
            Err(StorageError::NoStudy { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let all = storage.studies()?;
    match (all.as_slice(), name) {
        ([only], _) if or_only => {
            let (id, name) = (only.id, only.name.clone());
            Ok(Found { storage, url, id, name })
        }
        (all, Some(name)) => {
            Err(unknown(name, &all.iter().map(|study| study.name.clone()).collect::<Vec<_>>(), args))
        }
        ([], None) => Err(Failure::failed(format!("there is no study in {url}"))),
        (all, None) => Err(Failure::usage(format!("NAME is missing: {} studies are in {url}", all.len()))
            .with_hint(format!("`{}` names them", list_command(args)))),
    }
}

/// No study of that name; perhaps one of these was meant.
fn unknown(name: &str, known: &[String], args: &Database) -> Failure {
    let near = known
        .iter()
        .map(|known| (strsim::jaro_winkler(&known.to_lowercase(), &name.to_lowercase()), known))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(near, _)| *near > 0.8);
    let failure = Failure::from(StorageError::NoStudy { name: name.to_string() });
    match near {
        Some((_, near)) => failure.with_hint(format!("did you mean `{}`?", printable(near))),
        None => failure.with_hint(format!("`{}` names those that are there", list_command(args))),
    }
}

/// The command that lists the studies of this database. (A password that was typed is no longer in the words.)
fn list_command(args: &Database) -> String {
    let mut words = vec!["diapason", "study", "list"];
    let typed = args.storage.as_deref().filter(|typed| StorageUrl::split_password(typed).is_none());
    if let Some(typed) = typed {
        words.extend(["--storage", typed]);
    }
    shell::line(&words)
}

/// Names of the folders in `studies` that have a database, in alphabetical order.
fn folders(studies: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(studies) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| studies.join(name).join(DATABASE_FILE).is_file())
        .collect();
    names.sort();
    names
}

// List

/// A study as `study list --json` has it.
#[derive(Serialize)]
struct Listed {
    /// What the commands take: the folder's name, or where --storage says the database, the study's.
    name: String,
    /// Its name in the database.
    study: String,
    database: String,
    directions: Vec<Direction>,
    trials: u64,
    states: BTreeMap<TrialState, u64>,
    best: Option<f64>,
    begun: Option<String>,
}

fn list(args: &ListStudies) -> Result<(), Failure> {
    let mut listed = Vec::new();
    let mut unread = 0;
    let (mut places, mut several) = (1, false);
    if let Some(url) = storage::given(args.database.storage.as_deref())? {
        read_list(&url, None, &mut listed)?;
    } else {
        let folders = folders(Path::new(STUDIES));
        places = folders.len();
        for name in &folders {
            let url = storage::place(None, &Path::new(STUDIES).join(name))?;
            // One that is damaged does not hide the others.
            if let Err(failure) = read_list(&url, Some(name), &mut listed) {
                let _ = failure.report();
                unread += 1;
            }
        }
        // A folder with several studies: one of them has no name but with its database.
        several = places > 1 || listed.len() > places;
    }
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", shown_json(&json!({ "studies": listed }))?)?;
    } else if !listed.is_empty() {
        let mut titles = vec!["name", "trials"];
        titles.extend(STATES.map(title));
        titles.extend(["best", "begun"]);
        titles.extend(["in the database", "database"]);
        let mut table = Table::new(&titles);
        for study in &listed {
            let mut row = vec![cut(&study.name, 60), study.trials.to_string()];
            row.extend(STATES.map(|state| study.states.get(&state).copied().unwrap_or(0).to_string()));
            row.push(study.best.map(number).unwrap_or_default());
            row.push(study.begun.as_deref().map(time).unwrap_or_default());
            // Columns without anything in them are not written.
            row.push(if study.study == study.name { String::new() } else { cut(&study.study, 60) });
            row.push(if several { printable(&study.database).into_owned() } else { String::new() });
            table.push(row);
        }
        table.write(&mut out, &["name", "begun", "in the database", "database"])?;
    }
    out.flush()?;
    if listed.is_empty() && unread == 0 {
        note("no studies: `diapason tune` makes one in `studies`, and --storage looks elsewhere");
    }
    match unread {
        0 => Ok(()),
        n => Err(Failure::failed(format!("{n} of {places} databases could not be read"))),
    }
}

/// The studies of a database; `folder`: the name of the folder that it is in, by which commands find its only study.
fn read_list(url: &StorageUrl, folder: Option<&str>, listed: &mut Vec<Listed>) -> Result<(), Failure> {
    let mut storage = open(url, Opening::Read)?;
    let studies = storage.studies()?;
    let folder = folder.filter(|_| studies.len() == 1);
    for study in studies {
        listed.push(Listed {
            states: storage.trial_counts(study.id)?,
            name: folder.map_or_else(|| study.name.clone(), str::to_string),
            study: study.name,
            database: url.to_string(),
            directions: study.directions,
            trials: study.trials,
            best: study.best,
            begun: study.begun,
        });
    }
    Ok(())
}

// Show

fn show(args: &ShowStudy) -> Result<(), Failure> {
    let mut found = find(&args.database, args.name.as_deref(), Opening::Read)?;
    let summary = found.summary()?;
    if let Some(number) = args.trial {
        return show_trial(&mut found, &summary, number, args.json);
    }
    let state = args.state.map(|state| match state {
        State::Waiting => TrialState::Waiting,
        State::Running => TrialState::Running,
        State::Complete => TrialState::Complete,
        State::Pruned => TrialState::Pruned,
        State::Fail => TrialState::Fail,
    });
    // At most a hundred: the parser has checked.
    let page = Page { from: args.from, state, limit: args.limit as usize, curves: false };
    let trials = found.storage.trials(found.id, page)?;
    let counts = found.storage.trial_counts(found.id)?;
    let next = match trials.last() {
        Some(last) if trials.len() == page.limit => Some(last.number + 1),
        _ => None,
    };
    let mut out = io::stdout().lock();
    if args.json {
        let object = json!({
            "name": summary.name,
            "database": found.url.to_string(),
            "directions": summary.directions,
            "best": summary.best,
            "begun": summary.begun,
            "states": counts,
            "trials": trials,
            "next": next,
        });
        writeln!(out, "{}", shown_json(&object)?)?;
        return Ok(out.flush()?);
    }
    writeln!(out, "{} in {}", printable(&summary.name), printable(&found.url.to_string()))?;
    let states: Vec<String> =
        STATES.iter().filter_map(|state| Some(format!("{} {}", counts.get(state)?, title(*state)))).collect();
    writeln!(
        out,
        "{} trials{}",
        summary.trials,
        if states.is_empty() { String::new() } else { format!(": {}", states.join(", ")) }
    )?;
    if let Some(best) = summary.best {
        writeln!(out, "best value {}, {}", number(best), directions(&summary.directions))?;
    }
    writeln!(out)?;
    trials_table(&trials).write(&mut out, &["state", "work", "worker", "params"])?;
    out.flush()?;
    if trials.is_empty() && summary.trials > 0 {
        let which = state.map_or_else(String::new, |state| format!(" that is {}", title(state)));
        let from = if args.from > 0 { format!(" from {} on", args.from) } else { String::new() };
        note(&format!("there is no trial{which}{from}"));
    }
    if let Some(next) = next {
        note(&format!("this is one page: --from {next} shows the next"));
    }
    Ok(())
}

fn trials_table(trials: &[Trial]) -> Table {
    let mut table = Table::new(&[
        "trial", "state", "work", "seed", "step", "value", "failures", "worker", "lease", "params",
    ]);
    for trial in trials {
        let values: Vec<String> = trial.values.iter().map(|&x| number(x)).collect();
        let params: Vec<String> = trial
            .params
            .iter()
            .map(|(name, value)| format!("{}={}", printable(name), cut(&text(value), 60)))
            .collect();
        let item = trial.item.as_ref();
        let of = |part: &dyn Fn(&Item) -> String| item.map(part).unwrap_or_default();
        table.push(vec![
            trial.number.to_string(),
            title(trial.state).to_string(),
            work(trial),
            trial.user_attributes.get("seed").map(|seed| cut(&text(seed), 20)).unwrap_or_default(),
            finished_steps(trial).unwrap_or_else(|| {
                of(&|item| if item.step > 0 { item.step.to_string() } else { String::new() })
            }),
            values.join(" "),
            of(&|item| if item.failures > 0 { item.failures.to_string() } else { String::new() }),
            // Who had it last does not matter any more once it is over.
            of(&|item| match (item.state, &item.owner) {
                (ItemState::Held, Some(owner)) => cut(owner, 40),
                _ => String::new(),
            }),
            of(&lease),
            params.join(" "),
        ]);
    }
    table
}

/// The state of a trial's work. One of our trials that has none any more made room for a later one.
fn work(trial: &Trial) -> String {
    match &trial.item {
        Some(item) => item.state.name().to_lowercase(),
        None if is_over(trial) && trial.system_attributes.contains_key(CONFIG) => "superseded".to_string(),
        None => String::new(),
    }
}

fn is_over(trial: &Trial) -> bool {
    matches!(trial.state, TrialState::Complete | TrialState::Pruned | TrialState::Fail)
}

/// How many steps a finished trial made, which is more than its last checkpoint says.
fn finished_steps(trial: &Trial) -> Option<String> {
    trial.user_attributes.get("steps").filter(|_| is_over(trial)).map(|steps| cut(&text(steps), 20))
}

/// `41 s left`, `over for 13 s`.
fn lease(item: &Item) -> String {
    match item.lease_left {
        Some(left) if left >= 0.0 => format!("{left:.0} s left"),
        Some(left) => format!("over for {:.0} s", -left),
        None => String::new(),
    }
}

fn show_trial(found: &mut Found, summary: &StudySummary, number_: i64, as_json: bool) -> Result<(), Failure> {
    let trials = summary.trials;
    let trial = match found.storage.trial(found.id, number_) {
        Err(StorageError::Content { .. }) if number_.unsigned_abs() >= trials => {
            let hint = match trials {
                0 => "the study has no trials".to_string(),
                n => format!("it has trials 0 to {}", n - 1),
            };
            let name = printable(&summary.name);
            return Err(Failure::failed(format!("there is no trial {number_} in `{name}`")).with_hint(hint));
        }
        trial => trial?,
    };
    let mut out = io::stdout().lock();
    if as_json {
        writeln!(out, "{}", shown_json(&trial)?)?;
        return Ok(out.flush()?);
    }
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut line = |name: &str, value: String| lines.push((printable(name).into_owned(), value));
    line("trial", trial.number.to_string());
    line("state", title(trial.state).to_string());
    for value in &trial.values {
        line("value", format!("{value}"));
    }
    for (name, time) in [("begun", &trial.datetime_start), ("finished", &trial.datetime_complete)] {
        if let Some(at) = time {
            line(name, printable(at).into_owned());
        }
    }
    if trial.item.is_none() && !work(&trial).is_empty() {
        line("work state", work(&trial));
    }
    if let Some(item) = &trial.item {
        line("work item", printable(&item.key).into_owned());
        line("work state", item.state.name().to_lowercase());
        line("safe step", item.step.to_string());
        line("claims", item.claims.to_string());
        line("failures", item.failures.to_string());
        for (name, text) in [("engine", &item.engine), ("worker", &item.owner)] {
            if let Some(text) = text {
                line(name, printable(text).into_owned());
            }
        }
        if item.lease_left.is_some() {
            line("lease", lease(item));
        }
    }
    write_pairs(&mut out, "", &lines)?;
    for (title, map) in [
        ("parameters", &trial.params),
        ("attributes", &trial.user_attributes),
        ("system attributes", &trial.system_attributes),
    ] {
        let pairs: Vec<(String, String)> = map
            .iter()
            .map(|(name, value)| (printable(name).into_owned(), printable(&text(value)).into_owned()))
            .collect();
        write_pairs(&mut out, title, &pairs)?;
    }
    let curve: Vec<(String, String)> = trial
        .intermediate_values
        .iter()
        .map(|(step, value)| (step.to_string(), format!("{value}")))
        .collect();
    write_pairs(&mut out, "values by step", &curve)?;
    Ok(out.flush()?)
}

/// Names and values below a title, unless there are none.
fn write_pairs(out: &mut dyn Write, title: &str, pairs: &[(String, String)]) -> io::Result<()> {
    if pairs.is_empty() {
        return Ok(());
    }
    let indent = if title.is_empty() { "" } else { "  " };
    if !title.is_empty() {
        writeln!(out, "\n{title}:")?;
    }
    // One long name does not move all values to the right.
    let width = pairs.iter().map(|(name, _)| width(name)).filter(|&width| width <= 30).max().unwrap_or(0);
    for (name, value) in pairs {
        writeln!(out, "{indent}{}  {value}", padded(name, width, false))?;
    }
    Ok(())
}

// Export

/// Why an export ended before its end.
enum Stop {
    /// The output cannot be written.
    Write(io::Error),
    /// Anything else.
    Other(Failure),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

impl From<csv::Error> for Stop {
    fn from(error: csv::Error) -> Self {
        Self::Write(error.into())
    }
}

impl From<StorageError> for Stop {
    fn from(error: StorageError) -> Self {
        Self::Other(error.into())
    }
}

fn export(args: &ExportStudy) -> Result<(), Failure> {
    let mut found = find(&args.database, args.name.as_deref(), Opening::Read)?;
    let objectives = found.summary()?.directions.len();
    let mut write = |out: &mut dyn Write| match args.format {
        Format::Csv => write_csv(&mut found, objectives, out),
        Format::Json => write_json(&mut found, true, out),
        Format::Jsonl => write_json(&mut found, false, out),
    };
    let done = match &args.out {
        Some(path) => write_atomically(path, write),
        None => {
            let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
            write(&mut out).and_then(|()| Ok(out.flush()?))
        }
    };
    done.map_err(|stop| match (stop, &args.out) {
        (Stop::Other(failure), _) => failure,
        (Stop::Write(error), Some(path)) => Failure::file("write", path, &error),
        (Stop::Write(error), None) => error.into(),
    })
}

/// All trials, page by page: a study of any size needs the memory of a page.
fn each_trial(
    found: &mut Found,
    curves: bool,
    take: &mut dyn FnMut(Trial) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let mut page = Page { curves, limit: PAGE, ..Page::default() };
    loop {
        let trials = found.storage.trials(found.id, page)?;
        let Some(last) = trials.last() else { return Ok(()) };
        page.from = last.number + 1;
        trials.into_iter().try_for_each(&mut *take)?;
    }
}

fn write_csv(found: &mut Found, objectives: usize, out: &mut dyn Write) -> Result<(), Stop> {
    let (params, attributes) = found.storage.trial_columns(found.id)?;
    let mut out = csv::Writer::from_writer(out);
    let mut header = vec!["number".to_string(), "state".to_string()];
    match objectives {
        0 | 1 => header.push("value".to_string()),
        n => header.extend((0..n).map(|i| format!("values_{i}"))),
    }
    header.extend(["datetime_start", "datetime_complete"].map(str::to_string));
    header.extend(params.iter().map(|name| format!("params_{}", printable(name))));
    header.extend(attributes.iter().map(|name| format!("user_attrs_{}", printable(name))));
    out.write_record(&header)?;
    each_trial(found, false, &mut |trial| {
        let mut row = vec![trial.number.to_string(), trial.state.name().to_string()];
        row.extend(
            (0..objectives.max(1)).map(|i| trial.values.get(i).copied().map(float).unwrap_or_default()),
        );
        row.extend(
            [&trial.datetime_start, &trial.datetime_complete]
                .map(|time| time.as_deref().map(cell).unwrap_or_default()),
        );
        let value = |value: Option<&Json>| value.map(json_cell).unwrap_or_default();
        row.extend(params.iter().map(|name| value(trial.params.get(name))));
        row.extend(attributes.iter().map(|name| value(trial.user_attributes.get(name))));
        Ok(out.write_record(&row)?)
    })?;
    Ok(out.flush()?)
}

fn write_json(found: &mut Found, array: bool, out: &mut dyn Write) -> Result<(), Stop> {
    let mut first = true;
    each_trial(found, true, &mut |trial| {
        if array {
            out.write_all(if first { b"[\n" } else { b",\n" })?;
        }
        out.write_all(shown_json(&trial).map_err(Stop::Other)?.as_bytes())?;
        if !array {
            out.write_all(b"\n")?;
        }
        first = false;
        Ok(())
    })?;
    match (array, first) {
        (true, true) => out.write_all(b"[]\n")?,
        (true, false) => out.write_all(b"\n]\n")?,
        (false, _) => {}
    }
    Ok(())
}

/// A number as Python writes it, and pandas into a table: NaN is nothing.
fn float(x: f64) -> String {
    if x.is_nan() {
        String::new()
    } else if x.is_infinite() {
        if x > 0.0 { "inf" } else { "-inf" }.to_string()
    } else {
        format!("{x:?}")
    }
}

/// A parameter or attribute in a table.
fn json_cell(value: &Json) -> String {
    match value {
        Json::Null => String::new(),
        Json::String(text) => cell(text),
        // A JSON number or word; lists and objects begin with a bracket.
        other => printable(&other.to_string()).into_owned(),
    }
}

/// Text in a table: on one line, and nothing that a spreadsheet would take for a formula.
fn cell(text: &str) -> String {
    let plain = printable(text);
    let formula = plain.trim_start().starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']);
    // A number may have a sign.
    if formula && plain.parse::<f64>().is_err() { format!("'{plain}") } else { plain.into_owned() }
}

// Delete

fn delete(args: &DeleteStudy) -> Result<(), Failure> {
    let mut found = find(&args.database, Some(&args.name), Opening::Read)?;
    let summary = found.summary()?;
    let name = printable(&found.name).into_owned();
    if !args.force {
        refuse_if_held(&mut found, &name)?;
    }
    let others = found.storage.studies()?.len() - 1;
    let files = if args.files { files_of(&found.url, &found.name, others)? } else { Files::default() };
    note(&format!(
        "this deletes the study `{name}` with its {} trials from {}",
        summary.trials,
        printable(&found.url.to_string())
    ));
    // What SQLite keeps beside the database goes without saying, and so does what a killed writer left.
    let goes_without_saying = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with("-wal") || name.ends_with("-shm") || name.starts_with('.')
    };
    for path in files.own.iter().filter(|path| !goes_without_saying(path)) {
        note(&format!("and {}", path.display()));
    }
    if let Some(trials) = files.folders.last() {
        note(&format!("and the checkpoints and curves in {}", trials.display()));
    }
    for path in files.others.iter().take(OTHERS_SHOWN) {
        note(&format!("{} stays: `tune` did not write it", printable(&path.to_string_lossy())));
    }
    if files.others.len() > OTHERS_SHOWN {
        note(&format!("so do {} more", files.others.len() - OTHERS_SHOWN));
    }
    if !args.yes && !confirmed()? {
        return Err(Failure::failed("nothing was deleted"));
    }
    // What looks writes nothing; what deletes needs all tables.
    let Found { url, storage, .. } = found;
    drop(storage);
    let mut storage = open(&url, Opening::Write)?;
    storage.delete_study(&summary.name)?;
    drop(storage);
    for path in files.own.iter().chain(&files.of_trials) {
        remove(path).map_err(|error| Failure::file("delete", path, &error))?;
    }
    for folder in files.folders.iter().chain(&files.folder) {
        // Something of the user's own may be in it: then it stays.
        let _ = fs::remove_dir(folder);
    }
    note(&format!("deleted `{name}`"));
    Ok(())
}

/// Somebody works on it.
fn refuse_if_held(found: &mut Found, name: &str) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let items = found.storage.items(found.id, Some(ItemState::Held), after, PAGE)?;
        let Some(last) = items.last() else { return Ok(()) };
        after = Some(last.id);
        if let Some(item) = items.iter().find(|item| item.lease_left.is_some_and(|left| left >= 0.0)) {
            let owner = item.owner.as_deref().map_or_else(|| "somebody".to_string(), |owner| cut(owner, 60));
            return Err(Failure::failed(format!("{owner} is working on `{name}`")).with_hint(format!(
                "end its workers first; the lease of one that is gone ends by itself ({}); --force deletes it all the same",
                lease(item)
            )));
        }
    }
}

/// How many of the files that stay are named.
const OTHERS_SHOWN: usize = 5;

/// What is in the folder of a study.
#[derive(Default)]
struct Files {
    /// The study's folder.
    folder: Option<PathBuf>,
    /// Files in it that the program writes.
    own: Vec<PathBuf>,
    /// Such files of its trials.
    of_trials: Vec<PathBuf>,
    /// Folders of the trials, each after those in it; the last is the folder of them all.
    folders: Vec<PathBuf>,
    /// All the rest: somebody put it there, and it stays.
    others: Vec<PathBuf>,
}

impl Files {
    /// Looks through `trials/CELL/seed-N` at this depth below `trials`. Links are not followed.
    fn look_into(&mut self, folder: PathBuf, depth: usize) -> io::Result<()> {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let name = entry.file_name().to_string_lossy().into_owned();
            if depth == 2
                && !kind.is_dir()
                && (name == ".lock" || is_one_of(&name, &[CHECKPOINT, BEST, CURVE]))
            {
                self.of_trials.push(path);
            } else if kind.is_dir() && (depth == 0 || (depth == 1 && name.starts_with("seed-"))) {
                self.look_into(path, depth + 1)?;
            } else {
                self.others.push(path);
            }
        }
        self.folders.push(folder);
        Ok(())
    }
}

/// Whether a file has one of these names, or the name under which such a file is written until it is whole.
fn is_one_of(file: &str, names: &[&str]) -> bool {
    let whole = file.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp")).unwrap_or(file);
    names.contains(&whole)
}

/// The files of a study that are there, all in one folder. Their names are the program's own, none is from the
/// database.
fn files_of(url: &StorageUrl, name: &str, others: usize) -> Result<Files, Failure> {
    let folder = match url {
        StorageUrl::Sqlite(path) => path.parent().map(Path::to_path_buf).unwrap_or_default(),
        StorageUrl::Postgres(_) => {
            let mut parts = Path::new(name).components();
            match (parts.next(), parts.next()) {
                (Some(Component::Normal(part)), None) => Path::new(STUDIES).join(part),
                _ => {
                    return Err(Failure::failed(
                        "the study's name is no name of a folder: its files are not known",
                    ));
                }
            }
        }
    };
    if !folder.join(STUDY_FILE).is_file() {
        return Err(Failure::failed(format!(
            "there is no {STUDY_FILE} in {}: this is not the folder of a study",
            if folder.as_os_str().is_empty() { Path::new(".") } else { &folder }.display()
        ))
        .with_hint("leave --files out, and delete by hand what you do not need"));
    }
    let mut names = vec![STUDY_FILE, REPORT_FILE, HTML_FILE, JSON_FILE, RESULTS_FILE];
    let database: Vec<String> =
        ["", "-wal", "-shm"].iter().map(|end| format!("{DATABASE_FILE}{end}")).collect();
    match url {
        StorageUrl::Sqlite(path) if others > 0 => {
            return Err(Failure::failed(format!(
                "{} has {others} other studies: whose files are in its folder is not known",
                path.display()
            ))
            .with_hint("leave --files out, and delete by hand what you do not need"));
        }
        StorageUrl::Sqlite(path) if path.file_name().is_some_and(|file| file == DATABASE_FILE) => {
            names.extend(database.iter().map(String::as_str));
        }
        _ => {}
    }
    let mut files = Files::default();
    let mut look = || -> io::Result<()> {
        let here = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
        for entry in fs::read_dir(here)? {
            let entry = entry?;
            let (file, kind) = (entry.file_name(), entry.file_type()?);
            let path = folder.join(&file);
            if !kind.is_dir() && is_one_of(&file.to_string_lossy(), &names) {
                files.own.push(path);
            } else if kind.is_dir() && file == TRIALS {
                files.look_into(path, 0)?;
            } else {
                files.others.push(path);
            }
        }
        Ok(())
    };
    look().map_err(|error| Failure::file("look into", &folder, &error))?;
    for paths in [&mut files.own, &mut files.of_trials, &mut files.others] {
        paths.sort();
    }
    files.folder = Some(folder);
    Ok(files)
}

/// Deletes a file or a link.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        // SQLite takes its own two files away when it closes the database.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Asks at the terminal.
fn confirmed() -> Result<bool, Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(
            Failure::usage("there is no terminal to ask at").with_hint("--yes deletes without asking")
        );
    }
    let mut out = io::stderr().lock();
    write!(out, "Delete it? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .map_err(|e| Failure::failed(format!("cannot read the answer: {e}")))?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

// Words

fn title(state: TrialState) -> &'static str {
    match state {
        TrialState::Waiting => "waiting",
        TrialState::Running => "running",
        TrialState::Complete => "complete",
        TrialState::Pruned => "pruned",
        TrialState::Fail => "failed",
    }
}

fn directions(directions: &[Direction]) -> &'static str {
    match directions {
        [Direction::Minimize] => "smaller is better",
        [Direction::Maximize] => "larger is better",
        _ => "several objectives",
    }
}

/// A number in six digits.
fn number(x: f64) -> String {
    if !x.is_finite() {
        return if x.is_nan() { "nan".to_string() } else { float(x) };
    }
    let magnitude = if x == 0.0 { 0.0 } else { x.abs().log10().floor() };
    if !(-4.0..9.0).contains(&magnitude) {
        return format!("{x:.5e}");
    }
    let decimals = (5.0 - magnitude).max(0.0) as usize;
    let text = format!("{x:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    }
}

/// A time without the fraction of its seconds.
fn time(text: &str) -> String {
    printable(text.split('.').next().unwrap_or_default()).into_owned()
}

/// A value as people write it.
fn text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Printable text of at most so many characters.
fn cut(text: &str, most: usize) -> String {
    let shown = printable(text);
    if shown.chars().count() <= most {
        return shown.into_owned();
    }
    shown.chars().take(most - 1).chain(['…']).collect()
}

/// JSON on one line, in which what a terminal would obey is `\u001b`: the same data to whoever reads it.
fn shown_json<T: Serialize>(value: &T) -> Result<String, Failure> {
    let plain = json(value)?;
    if matches!(printable(&plain), std::borrow::Cow::Borrowed(_)) {
        return Ok(plain);
    }
    let mut shown = String::with_capacity(plain.len() + 16);
    let mut buffer = [0; 4];
    for c in plain.chars() {
        if let std::borrow::Cow::Borrowed(text) = printable(c.encode_utf8(&mut buffer)) {
            shown.push_str(text);
        } else {
            // Such characters stand inside of texts only.
            for unit in c.encode_utf16(&mut [0; 2]) {
                shown.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    Ok(shown)
}

/// How many columns of a terminal a text takes.
fn width(text: &str) -> usize {
    console::measure_text_width(text)
}

fn padded(text: &str, to: usize, right: bool) -> String {
    let space = " ".repeat(to.saturating_sub(width(text)));
    if right { format!("{space}{text}") } else { format!("{text}{space}") }
}

/// Columns of text under titles; a column with nothing in it is left out.
pub(super) struct Table {
    titles: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(titles: &[&str]) -> Self {
        Self { titles: titles.iter().map(|title| (*title).to_string()).collect(), rows: Vec::new() }
    }

    pub(super) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// Writes it, these columns from their left edge, the others, which are numbers, from their right.
    pub(super) fn write(&self, out: &mut dyn Write, left: &[&str]) -> io::Result<()> {
        let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
        let columns: Vec<(usize, usize, bool)> = (0..self.titles.len())
            .filter(|&column| cells(column).any(|cell| !cell.is_empty()))
            .map(|column| {
                let title = &self.titles[column];
                let widest = cells(column).map(|cell| width(cell)).max().unwrap_or(0);
                (column, widest.max(width(title)), !left.contains(&title.as_str()))
            })
            .collect();
        for row in std::iter::once(&self.titles).chain(&self.rows) {
            let cells: Vec<String> =
                columns.iter().map(|&(column, width, right)| padded(&row[column], width, right)).collect();
            writeln!(out, "{}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people_and_for_tables() {
        let shown = [1.330_712_345, 0.0, -2.5, 12_345_678.9, 1e-7, 1e12, 1000.0, f64::NAN].map(number);
        assert_eq!(shown, ["1.33071", "0", "-2.5", "12345679", "1.00000e-7", "1.00000e12", "1000", "nan"]);
        let written = [0.1, 1.0, 1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(float);
        assert_eq!(written, ["0.1", "1.0", "1e300", "", "inf", "-inf"]);
    }

    #[test]
    fn cells_are_no_formulas() {
        for (text, cell_) in [
            ("=1+1", "'=1+1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("-2+3", "'-2+3"),
            ("\t=1", "\\u{9}=1"),
            (" =1", "' =1"),
            ("-2.5e-3", "-2.5e-3"),
            ("+1", "+1"),
            ("a=1", "a=1"),
            ("a\nb\u{1b}[2J", "a\\u{a}b\\u{1b}[2J"),
            ("größe", "größe"),
        ] {
            assert_eq!(cell(text), cell_);
        }
        assert_eq!(json_cell(&json!(["=1", null])), "[\"=1\",null]");
        assert_eq!(json_cell(&json!(-1.5)), "-1.5");
        assert_eq!(json_cell(&Json::Null), "");
    }

    #[test]
    fn json_is_the_same_data_without_what_terminals_obey() {
        let value = json!({"a\u{9b}2J": "\u{202e}x\u{1b}\u{7f}\u{e0041} größe \u{1f3b5}"});
        let shown = shown_json(&value).unwrap();
        assert!(matches!(printable(&shown), std::borrow::Cow::Borrowed(_)), "{shown}");
        assert!(shown.contains("größe \u{1f3b5}"));
        assert_eq!(serde_json::from_str::<Json>(&shown).unwrap(), value);
    }

    #[test]
    fn columns_with_nothing_are_left_out() {
        let mut table = Table::new(&["a", "b", "long"]);
        table.push(vec!["幅".to_string(), String::new(), "1".to_string()]);
        table.push(vec!["x".to_string(), String::new(), "10".to_string()]);
        let mut out = Vec::new();
        table.write(&mut out, &["a"]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a   long\n幅     1\nx     10\n");
    }
}
