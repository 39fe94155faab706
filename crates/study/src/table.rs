//! Tables from elsewhere: CSV in, candidates for the decision out.
//!
//! Any program can write such a table: a header, the columns `seconds` and `loss`, and every other column is a
//! parameter. Rows with the same parameters (several seeds) count as one configuration, with their means.

use crate::{Candidate, Params};
use std::io::Read;
use toml::Value;

/// Why a table cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// Not CSV: ragged rows, bytes that are no text, a file that cannot be read.
    #[error("the table cannot be read: {0}")]
    Csv(#[from] csv::Error),
    /// No such column.
    #[error("the table has no column `{column}`; its columns are: {columns}")]
    MissingColumn {
        /// What is missing.
        column: &'static str,
        /// What there is.
        columns: String,
    },
    /// Two columns of one name.
    #[error("the table has two columns `{column}`")]
    DuplicateColumn {
        /// The name.
        column: String,
    },
    /// A header and nothing else, or not even that.
    #[error("the table has no rows")]
    Empty,
    /// A cell that should be a number.
    #[error("line {line}, column `{column}`: `{value}` is not {wanted}")]
    NotANumber {
        /// Line in the file, from 1.
        line: u64,
        /// Name of the column.
        column: &'static str,
        /// What stands there.
        value: String,
        /// What should.
        wanted: &'static str,
    },
}

impl TableError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::MissingColumn { .. } | Self::Empty => Some(
                "a table looks like this: a header `d_model,n_heads,seconds,loss`, then one line per run"
                    .to_string(),
            ),
            Self::NotANumber { column: "loss", .. } => Some(
                "write `nan` for a run that failed: it is left out of the decision and named".to_string(),
            ),
            _ => None,
        }
    }
}

/// Reads a CSV table. A loss of `nan` or `inf` marks a run that failed: its configuration is left out of the
/// decision.
///
/// # Errors
/// Anything that is not such a table, with line and column.
pub fn read_table(mut table: impl Read) -> Result<Vec<Candidate>, TableError> {
    let mut bytes = Vec::new();
    table.read_to_end(&mut bytes).map_err(csv::Error::from)?;
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let header = reader.headers()?.clone();
    for (i, column) in header.iter().enumerate() {
        if header.iter().take(i).any(|earlier| earlier == column) {
            return Err(TableError::DuplicateColumn { column: column.to_string() });
        }
    }
    if header.is_empty() {
        return Err(TableError::Empty);
    }
    let find = |column: &'static str| {
        header.iter().position(|name| name == column).ok_or_else(|| TableError::MissingColumn {
            column,
            columns: header.iter().collect::<Vec<_>>().join(", "),
        })
    };
    let (seconds_column, loss_column) = (find("seconds")?, find("loss")?);

    let mut groups: Vec<(Params, Vec<f64>, Vec<f64>)> = Vec::new();
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record)? {
        let start = record.position().map_or(0, |position| position.byte() as usize);
        let number = |index: usize, column: &'static str, wanted: &'static str| {
            let value = record.get(index).unwrap_or_default();
            value.parse::<f64>().map_err(|_| TableError::NotANumber {
                line: line_at(bytes, start),
                column,
                value: value.to_string(),
                wanted,
            })
        };
        let wanted_seconds = "a number of seconds, 0 or more";
        let seconds = number(seconds_column, "seconds", wanted_seconds)?;
        if !(seconds >= 0.0 && seconds.is_finite()) {
            let value = record.get(seconds_column).unwrap_or_default().to_string();
            let line = line_at(bytes, start);
            return Err(TableError::NotANumber { line, column: "seconds", value, wanted: wanted_seconds });
        }
        let loss = number(loss_column, "loss", "a number")?;
        let params = Params::new(
            header
                .iter()
                .zip(record.iter())
                .enumerate()
                .filter(|(i, _)| *i != seconds_column && *i != loss_column)
                .map(|(_, (key, value))| (key, Value::String(value.to_string()))),
        );
        match groups.iter_mut().find(|(seen, _, _)| *seen == params) {
            Some((_, all_seconds, losses)) => {
                all_seconds.push(seconds);
                losses.push(loss);
            }
            None => groups.push((params, vec![seconds], vec![loss])),
        }
    }
    if groups.is_empty() {
        return Err(TableError::Empty);
    }
    Ok(groups
        .into_iter()
        .map(|(params, seconds, losses)| Candidate {
            params,
            cost: mean(&seconds),
            loss: mean(&losses),
            left_out: None,
        })
        .collect())
}

/// Line, from 1, of the record that begins at or after `start`: blank lines before it are skipped, as the reader
/// skips them.
fn line_at(bytes: &[u8], start: usize) -> u64 {
    let blank = bytes[start..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    1 + bytes[..start + blank].iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// The mean, added up in order.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(table: &str) -> String {
        read_table(table.as_bytes()).expect_err("should be refused").to_string()
    }

    #[test]
    fn all_other_columns_are_parameters_in_column_order() {
        let table = "\u{feff}n_heads, loss ,optimizer,seconds\n8, 1.5 ,adam,10\n8,1.5,\"a, b\",20\n";
        let candidates = read_table(table.as_bytes()).unwrap();
        assert_eq!(candidates.len(), 2);
        assert_eq!(candidates[0].params.to_string(), "n_heads=8 optimizer=adam");
        assert_eq!((candidates[1].cost, candidates[1].loss), (20.0, 1.5));
        assert_eq!(candidates[1].params.text("optimizer").as_deref(), Some("a, b"));
    }

    #[test]
    fn repeated_rows_are_averaged() {
        let candidates =
            read_table("a,seconds,loss\n1,10,1\n2,1,1\n1,20,2\n1,30,nan\n2,3,4\n".as_bytes()).unwrap();
        assert_eq!(candidates.len(), 2);
        assert_eq!(candidates[0].cost, 20.0);
        assert!(candidates[0].loss.is_nan());
        assert_eq!((candidates[1].cost, candidates[1].loss), (2.0, 2.5));
    }

    #[test]
    fn errors_name_line_and_column() {
        assert_eq!(
            error("a,seconds,loss\n1,2,3\n\n1,2,good\n"),
            "line 4, column `loss`: `good` is not a number"
        );
        assert_eq!(
            error("a,seconds,loss\n1,-2,3\n"),
            "line 2, column `seconds`: `-2` is not a number of seconds, 0 or more"
        );
        assert_eq!(error("a,seconds\n1,2\n"), "the table has no column `loss`; its columns are: a, seconds");
        assert_eq!(error("a,loss,loss,seconds\n"), "the table has two columns `loss`");
        assert_eq!(error("a,seconds,loss\n"), "the table has no rows");
        assert_eq!(error(""), "the table has no rows");
        assert!(error("a,seconds,loss\n1,2\n").contains("line"), "{}", error("a,seconds,loss\n1,2\n"));
    }
}
