//! `study show`.

use super::words::{STATES, Table, cut, directions, lease, number, padded, shown_json, text, title, width};
use super::{Found, find};
use crate::args::{ShowStudy, State};
use crate::failure::{Failure, note};
use diapason_storage::{
    Item, ItemState, Opening, Page, StorageError, StudySummary, Trial, TrialState, printable,
};
use serde_json::json;
use std::io::{self, Write};

/// The system attribute that every trial has that `tune` or a worker made its own.
const CONFIG: &str = "diapason:config";

pub(super) fn show(args: &ShowStudy) -> Result<(), Failure> {
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
