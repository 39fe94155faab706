//! `study list`.

use super::words::{STATES, Table, cut, number, shown_json, time, title};
use super::{STUDIES, folders, open};
use crate::args::ListStudies;
use crate::failure::{Failure, note};
use crate::storage;
use diapason_storage::{Direction, Opening, StorageUrl, TrialState, printable};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

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

pub(super) fn list(args: &ListStudies) -> Result<(), Failure> {
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
