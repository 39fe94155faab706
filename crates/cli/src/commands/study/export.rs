//! `study export`.

use super::words::{cell, float, json_cell, shown_json};
use super::{Found, find};
use crate::args::{ExportStudy, Format};
use crate::failure::Failure;
use diapason_storage::{Opening, PAGE, Page, StorageError, Trial, printable};
use diapason_training::files::write_atomically;
use serde_json::Value as Json;
use std::io::{self, BufWriter, Write};

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

pub(super) fn export(args: &ExportStudy) -> Result<(), Failure> {
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
