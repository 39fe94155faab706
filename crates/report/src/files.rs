//! The files that a study's folder gets: `report.md` and `report.html` to read, `results.csv` and `report.json` to
//! compute with.

use crate::{Bounds, Curves, Extras, HTML_FILE, StudyJson, to_html, to_markdown};
use diapason_study::{RESULT_COLUMNS, Row, Study};
use diapason_training::files::write_atomically;
use std::io;
use std::path::{Path, PathBuf};

/// Name of the report, in Markdown.
pub const REPORT_FILE: &str = "report.md";

/// Name of the report, as one JSON object.
pub const JSON_FILE: &str = "report.json";

/// Name of the table, one line per pass of each trial.
pub const RESULTS_FILE: &str = "results.csv";

/// Why a report could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file that cannot be written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// The rows of a study as CSV: `number`, one column per key of the grid, then the columns of [`Row`] by their
/// names. A key that has the name of another column (`steps`) is written as `params_steps`. What is unknown is empty.
///
/// # Errors
/// None in practice: memory is written.
pub fn to_csv(study: &Study) -> io::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let keys = study.keys();
    let names = keys.iter().map(|key| {
        if RESULT_COLUMNS.contains(key) || *key == "number" {
            format!("params_{key}")
        } else {
            key.to_string()
        }
    });
    let header = std::iter::once("number".to_string())
        .chain(names)
        .chain(RESULT_COLUMNS.iter().map(|column| column.to_string()));
    writer.write_record(header)?;
    for row in study.rows() {
        let params = keys.iter().map(|key| row.params.text(key).unwrap_or_default());
        writer.write_record(std::iter::once(row.number.to_string()).chain(params).chain(fields(&row)))?;
    }
    writer.into_inner().map_err(|error| io::Error::other(error.to_string()))
}

/// In the order of [`RESULT_COLUMNS`].
fn fields(row: &Row) -> [String; RESULT_COLUMNS.len()] {
    let number = |value: Option<f64>| value.map(|x| x.to_string()).unwrap_or_default();
    let state = serde_json::to_value(row.state).ok().and_then(|v| v.as_str().map(str::to_string));
    [
        row.seed.to_string(),
        row.pass.to_string(),
        state.unwrap_or_default(),
        row.steps.to_string(),
        row.stopped_early.to_string(),
        number(row.validation_loss),
        number(row.validation_bpc),
        number(row.accuracy),
        number(row.accuracy_last),
        row.train_seconds.to_string(),
        number(row.tokens_per_second),
        row.parameters.to_string(),
        row.flop.to_string(),
        row.read_at.map(|step| step.to_string()).unwrap_or_default(),
        row.lost_by_seed_rule.map(|lost| lost.to_string()).unwrap_or_default(),
        row.error.clone().unwrap_or_default(),
        row.engine.clone().unwrap_or_default(),
        row.other_engines.join(" "),
        number(row.threads),
        number(row.trials_at_once),
        number(row.ms_per_step_alone),
        number(row.ms_per_step_noise),
    ]
}

/// Writes `report.md`, `report.html`, `report.json` and `results.csv` into the study's folder.
///
/// # Errors
/// A file that cannot be written; an older one is then still there.
pub fn write_files(
    study: &Study,
    bounds: &Bounds,
    folder: &Path,
    extras: &Extras,
) -> Result<(), ReportError> {
    write(folder, REPORT_FILE, Ok(to_markdown(study, bounds, extras).into_bytes()))?;
    write(folder, RESULTS_FILE, to_csv(study))?;
    let json = serde_json::to_vec_pretty(&StudyJson::new(study, bounds, extras)).map_err(io::Error::other);
    write(folder, JSON_FILE, json)?;
    write_page(study, bounds, folder, extras)
}

/// Writes `report.html` alone, which may be done while the study runs.
///
/// # Errors
/// A file that cannot be written; an older one is then still there.
pub fn write_page(study: &Study, bounds: &Bounds, folder: &Path, extras: &Extras) -> Result<(), ReportError> {
    let page = to_html(study, bounds, &Curves::read(study, folder), extras);
    write(folder, HTML_FILE, Ok(page.into_bytes()))
}

fn write(folder: &Path, name: &str, bytes: io::Result<Vec<u8>>) -> Result<(), ReportError> {
    let path = folder.join(name);
    bytes
        .and_then(|bytes| write_atomically(&path, |out| out.write_all(&bytes)))
        .map_err(|source| ReportError::Io { path, source })
}
