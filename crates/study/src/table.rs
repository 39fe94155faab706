//! Tables: CSV in, candidates for the decision out.
//!
//! Any program can write such a table: a header, the columns `seconds` and `loss`, and every other column is a
//! parameter. Rows with the same parameters (several seeds) count as one configuration, with their means.
//!
//! A study's own `results.csv` is one too, with other columns and two rows for a trial that is read early and in full.
//! It is read back into [`Row`]s, so that it leads to the decision that the study itself came to.

use crate::study::readings;
use crate::{Candidate, Cost, Params, Pass, Row, TrialState};
use std::io::Read;
use toml::Value;

/// Columns of a study's `results.csv` that are no parameters; `number` is the first column, the parameters follow, then
/// these. A parameter of one of these names has `params_` before its own.
pub const RESULT_COLUMNS: [&str; 22] = [
    "seed",
    "pass",
    "state",
    "steps",
    "stopped_early",
    "validation_loss",
    "validation_bpc",
    "accuracy",
    "accuracy_last",
    "train_seconds",
    "tokens_per_second",
    "parameters",
    "flop",
    "read_at",
    "lost_by_seed_rule",
    "error",
    "engine",
    "other_engines",
    "threads",
    "trials_at_once",
    "ms_per_step_alone",
    "ms_per_step_noise",
];

/// The largest table that is read, in bytes.
const MOST: u64 = 1 << 28;

/// What a table says.
#[derive(Clone, Debug, PartialEq)]
pub struct CandidateTable {
    /// One for each configuration, in the order in which they come first.
    pub candidates: Vec<Candidate>,
    /// Which readings there are, if the table is a study's, and which of them the candidates are.
    pub pass: Option<(Vec<Pass>, Pass)>,
    /// How far apart two costs must be to count as different, as a fraction: times of a study have noise, a table from
    /// elsewhere is taken literally.
    pub noise: f64,
    /// Seeds that some configurations of a study have beyond those that all have, whose means the losses are.
    pub further: usize,
}

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
    /// A file that is no table by its size alone, or that does not end.
    #[error("the table is larger than {} MiB", MOST >> 20)]
    TooLarge,
    /// A pass was asked for, and there is none of that name.
    #[error("the table has no results of the pass `{pass}`")]
    NoSuchPass {
        /// What was asked for.
        pass: Pass,
    },
    /// A cell that should be something else.
    #[error("line {line}, column `{column}`: `{value}` is not {wanted}")]
    Value {
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
            Self::NoSuchPass { .. } => Some("leave --pass out to decide on what there is".to_string()),
            Self::Value { column: "loss", .. } => Some(
                "write `nan` for a run that failed: it is left out of the decision and named".to_string(),
            ),
            _ => None,
        }
    }
}

/// Reads a CSV table. A loss of `nan` or `inf` marks a run that failed: its configuration is left out of the
/// decision. Of a study's results, the reading `pass` is taken; without it, the full one if any run has come so far.
///
/// # Errors
/// Anything that is not such a table, with line and column.
pub fn read_table(table: impl Read, pass: Option<Pass>, cost: Cost) -> Result<CandidateTable, TableError> {
    let mut bytes = Vec::new();
    table.take(MOST + 1).read_to_end(&mut bytes).map_err(csv::Error::from)?;
    if bytes.len() as u64 > MOST {
        return Err(TableError::TooLarge);
    }
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
    let table = Table::read(bytes)?;
    let has = |columns: &[&str]| columns.iter().all(|column| table.header.iter().any(|name| name == *column));
    if !has(&[cost.name(), "loss"]) && has(&["train_seconds", "validation_loss"]) {
        return table.of_a_study(pass, cost);
    }
    match pass {
        Some(pass) => Err(TableError::NoSuchPass { pass }),
        None => table.of_anybody(cost),
    }
}

/// A table as it stands.
struct Table<'a> {
    bytes: &'a [u8],
    header: csv::StringRecord,
    rows: Vec<csv::StringRecord>,
}

impl<'a> Table<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, TableError> {
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
        Ok(Self { bytes, header, rows: reader.records().collect::<Result<_, _>>()? })
    }

    /// The place of a column.
    fn find(&self, column: &'static str) -> Result<usize, TableError> {
        self.header.iter().position(|name| name == column).ok_or_else(|| TableError::MissingColumn {
            column,
            columns: shortened(&self.header.iter().collect::<Vec<_>>().join(", ")),
        })
    }

    /// A cell, understood by `parse`.
    fn cell<T>(
        &self,
        row: &csv::StringRecord,
        column: &'static str,
        wanted: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, TableError> {
        let value = row.get(self.find(column)?).unwrap_or_default();
        parse(value).ok_or_else(|| {
            let start = row.position().map_or(0, |position| position.byte() as usize);
            let line = line_at(self.bytes, start);
            TableError::Value { line, column, value: value.to_string(), wanted }
        })
    }

    /// As [`Table::cell`]; none where the cell is empty or the column is not there.
    fn optional<T>(
        &self,
        row: &csv::StringRecord,
        column: &'static str,
        wanted: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, TableError> {
        match self.find(column) {
            Ok(place) if row.get(place).is_some_and(|value| !value.is_empty()) => {
                self.cell(row, column, wanted, parse).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// A cost, 0 or more.
    fn cost(&self, row: &csv::StringRecord, column: &'static str, cost: Cost) -> Result<f64, TableError> {
        let wanted = match cost {
            Cost::Seconds => "a number of seconds, 0 or more",
            Cost::Flop | Cost::Parameters => "a number, 0 or more",
        };
        self.cell(row, column, wanted, |value| number(value).filter(|s| *s >= 0.0 && s.is_finite()))
    }

    /// The cost and `loss`, and all else is a parameter but `seconds`.
    fn of_anybody(&self, cost: Cost) -> Result<CandidateTable, TableError> {
        let (seconds, loss) = (self.find(cost.name())?, self.find("loss")?);
        let also = self.find("seconds").unwrap_or(seconds);
        let mut groups: Groups<(f64, f64)> = Groups::default();
        for row in &self.rows {
            let own = (self.cost(row, cost.name(), cost)?, self.cell(row, "loss", "a number", number)?);
            let params = self.header.iter().zip(row).enumerate();
            let params = params.filter(|(i, _)| ![seconds, also, loss].contains(i)).map(|(_, pair)| pair);
            groups.push(params, own);
        }
        let candidates = groups.0.into_iter().map(|(params, runs)| {
            let mean = |number: fn(&(f64, f64)) -> f64| mean(&runs.iter().map(number).collect::<Vec<_>>());
            Candidate { params, cost: mean(|run| run.0), loss: mean(|run| run.1), left_out: None }
        });
        let candidates: Vec<Candidate> = candidates.collect();
        if candidates.is_empty() {
            return Err(TableError::Empty);
        }
        Ok(CandidateTable { candidates, pass: None, noise: 0.0, further: 0 })
    }

    /// What `results.csv` has.
    fn of_a_study(&self, asked: Option<Pass>, cost: Cost) -> Result<CandidateTable, TableError> {
        let mut groups: Groups<Row> = Groups::default();
        for row in &self.rows {
            let params = self.header.iter().zip(row).filter_map(|(name, value)| {
                let is_result = |name: &str| name == "number" || RESULT_COLUMNS.contains(&name);
                // Of an ablation each configuration has the key that sets it apart, and no other.
                if value.is_empty() {
                    return None;
                }
                match name.strip_prefix("params_").filter(|key| is_result(key)) {
                    Some(key) => Some((key, value)),
                    None => (!is_result(name)).then_some((name, value)),
                }
            });
            groups.push(params, self.row(row)?);
        }
        let all = || groups.0.iter().flat_map(|(_, rows)| rows);
        let there: Vec<Pass> =
            [Pass::Early, Pass::Full].into_iter().filter(|pass| all().any(|row| row.pass == *pass)).collect();
        let finished = |pass: &Pass| all().any(|row| row.pass == *pass && row.state == TrialState::Complete);
        // As the study's own verdict: the full pass, unless no run has come so far.
        let pass = match asked {
            Some(pass) => {
                there.iter().find(|there| **there == pass).ok_or(TableError::NoSuchPass { pass })?
            }
            None => {
                there.iter().rev().find(|pass| finished(pass)).or(there.last()).ok_or(TableError::Empty)?
            }
        };
        let of_pass = |rows: &Vec<Row>| rows.iter().filter(|row| row.pass == *pass).cloned().collect();
        let rows: Vec<Vec<Row>> = groups.0.iter().map(|(_, rows)| of_pass(rows)).collect();
        let several_seeds = all().any(|row| row.seed > 0);
        let readings = readings(&rows, several_seeds);
        let further = readings.iter().map(|reading| reading.further).sum();
        let candidates = readings.into_iter().zip(&groups.0);
        let candidates = candidates.map(|(reading, (params, _))| Candidate {
            params: params.clone(),
            cost: reading.cost(cost),
            loss: reading.loss,
            left_out: reading.left_out,
        });
        let candidates = candidates.collect();
        let timed = rows.iter().flatten().all(|row| row.ms_per_step_alone.is_some());
        let noises = rows.iter().filter_map(|rows| rows.first().filter(|_| timed)?.ms_per_step_noise);
        Ok(CandidateTable {
            candidates,
            further,
            noise: cost.noise(noises),
            pass: Some((there.clone(), *pass)),
        })
    }

    /// A row of `results.csv`, as far as the decision needs it.
    fn row(&self, row: &csv::StringRecord) -> Result<Row, TableError> {
        let whole = |value: &str| value.parse::<u64>().ok();
        let pass = |value: &str| [Pass::Early, Pass::Full].into_iter().find(|pass| pass.to_string() == value);
        let state = |value: &str| serde_json::from_value(value.into()).ok();
        Ok(Row {
            number: 0,
            params: Params::default(),
            seed: self.cell(row, "seed", "a whole number", whole)?,
            pass: self.cell(row, "pass", "early or full", pass)?,
            state: self.cell(row, "state", "COMPLETE, RUNNING, PRUNED or FAIL", state)?,
            steps: self.cell(row, "steps", "a whole number", whole)?,
            stopped_early: false,
            validation_loss: self.optional(row, "validation_loss", "a number", number)?,
            validation_bpc: None,
            accuracy: None,
            accuracy_last: None,
            train_seconds: self.cost(row, "train_seconds", Cost::Seconds)?,
            tokens_per_second: None,
            threads: self.optional(row, "threads", "a number", number)?,
            trials_at_once: None,
            ms_per_step_alone: self.optional(row, "ms_per_step_alone", "a number", number)?,
            ms_per_step_noise: self.optional(row, "ms_per_step_noise", "a number", number)?,
            parameters: self.optional(row, "parameters", "a whole number", whole)?.unwrap_or(0),
            flop: self.optional(row, "flop", "a number", number)?.unwrap_or(f64::NAN),
            read_at: None,
            engine: None,
            other_engines: Vec::new(),
            lost_by_seed_rule: None,
            error: self.optional(row, "error", "text", |value| Some(value.to_string()))?,
        })
    }
}

/// What was found under the same parameters, in the order in which these come first.
struct Groups<T>(Vec<(Params, Vec<T>)>);

impl<T> Default for Groups<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Groups<T> {
    fn push<'a>(&mut self, params: impl Iterator<Item = (&'a str, &'a str)>, own: T) {
        let params = Params::new(params.map(|(key, value)| (key, Value::String(value.to_string()))));
        match self.0.iter_mut().find(|(seen, _)| *seen == params) {
            Some((_, all)) => all.push(own),
            None => self.0.push((params, vec![own])),
        }
    }
}

/// What is no table may well have a first line of any length.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_string(),
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok()
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

    fn plain(table: &str) -> Result<Vec<Candidate>, TableError> {
        let CandidateTable { candidates, pass, noise, further } =
            read_table(table.as_bytes(), None, Cost::Seconds)?;
        assert!(pass.is_none() && noise == 0.0 && further == 0);
        Ok(candidates)
    }

    fn error(table: &str) -> String {
        plain(table).expect_err("should be refused").to_string()
    }

    #[test]
    fn all_other_columns_are_parameters_in_column_order() {
        let table = "\u{feff}n_heads, loss ,optimizer,seconds\n8, 1.5 ,adam,10\n8,1.5,\"a, b\",20\n";
        let candidates = plain(table).unwrap();
        assert_eq!(candidates.len(), 2);
        assert_eq!(candidates[0].params.to_string(), "n_heads=8 optimizer=adam");
        assert_eq!((candidates[1].cost, candidates[1].loss), (20.0, 1.5));
        assert_eq!(candidates[1].params.text("optimizer").as_deref(), Some("a, b"));
    }

    #[test]
    fn repeated_rows_are_averaged() {
        let candidates = plain("a,seconds,loss\n1,10,1\n2,1,1\n1,20,2\n1,30,nan\n2,3,4\n").unwrap();
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
        assert!(error(&"what is no table at all ".repeat(1000)).len() < 300);
        assert_eq!(error("a,seconds\n1,2\n"), "the table has no column `loss`; its columns are: a, seconds");
        assert_eq!(error("a,loss,loss,seconds\n"), "the table has two columns `loss`");
        assert_eq!(error("a,seconds,loss\n"), "the table has no rows");
        assert_eq!(error(""), "the table has no rows");
        assert!(error("a,seconds,loss\n1,2\n").contains("line"), "{}", error("a,seconds,loss\n1,2\n"));
    }

    const STUDY: &str = "\
number,n_heads,params_steps,seed,pass,state,steps,validation_loss,train_seconds,error
0,8,40,0,early,COMPLETE,8,2.0,1.0,
0,8,40,0,full,COMPLETE,40,1.5,5.0,
1,16,40,0,early,COMPLETE,8,1.9,1.05,
1,16,40,0,full,RUNNING,20,1.7,2.5,
2,4,40,0,early,FAIL,7,,0.9,diverged at step 7
2,4,40,0,full,FAIL,7,,0.9,diverged at step 7
3,8,40,1,early,COMPLETE,8,2.2,1.2,
3,8,40,1,full,COMPLETE,40,1.4,5.2,
";

    fn study(pass: Option<Pass>) -> CandidateTable {
        read_table(STUDY.as_bytes(), pass, Cost::Seconds).unwrap()
    }

    #[test]
    fn measured_times_bring_their_noise_along() {
        let table = |noise: &str| {
            let mut text = String::from(
                "n_heads,seed,pass,state,steps,validation_loss,train_seconds,ms_per_step_alone,ms_per_step_noise\n",
            );
            text += &format!(
                "8,0,full,COMPLETE,40,1.5,5.0,100,{noise}\n8,1,full,COMPLETE,40,1.5,5.0,100,{noise}\n"
            );
            text += "16,0,full,COMPLETE,40,1.49,5.0,120,0.05\n";
            let table = read_table(text.as_bytes(), None, Cost::Seconds).unwrap();
            assert_eq!(table.further, 1);
            table.noise
        };
        assert_eq!(table("0.2"), 0.25);
        assert_eq!(table("0.02"), 0.1);
        // Older tables do not say.
        assert_eq!(table(""), 0.1);
    }

    #[test]
    fn results_of_a_study_are_read_by_pass() {
        let full = study(None);
        assert_eq!(full.pass, Some((vec![Pass::Early, Pass::Full], Pass::Full)));
        assert_eq!((full.noise, full.further), (0.1, 0));
        let of = |table: &CandidateTable| -> Vec<(String, f64, f64, Option<String>)> {
            let candidates = table.candidates.iter();
            candidates.map(|c| (c.params.to_string(), c.cost, c.loss, c.left_out.clone())).collect()
        };
        let found = of(&full);
        assert_eq!(found[0], ("n_heads=8 steps=40".to_string(), 5.1, 1.45, None));
        assert_eq!((&found[1].0[..], found[1].3.as_deref()), ("n_heads=16 steps=40", Some("not finished")));
        assert_eq!(found[2].3.as_deref(), Some("seed 0: diverged at step 7"));
        // Compared on the seed that both have.
        let early = of(&study(Some(Pass::Early)));
        assert_eq!((early[0].1, early[0].2, early[1].1, early[1].2), (1.0, 2.0, 1.05, 1.9));
    }

    #[test]
    fn results_of_a_study_that_are_not_there() {
        let only_early: String =
            STUDY.lines().filter(|line| !line.contains("full")).map(|l| format!("{l}\n")).collect();
        let read =
            |table: &str, pass| read_table(table.as_bytes(), pass, Cost::Seconds).map_err(|e| e.to_string());
        assert_eq!(read(&only_early, None).unwrap().pass, Some((vec![Pass::Early], Pass::Early)));
        let error = read(&only_early, Some(Pass::Full)).unwrap_err();
        assert_eq!(error, "the table has no results of the pass `full`");
        assert!(read("a,seconds,loss\n1,2,3\n", Some(Pass::Full)).is_err());
        // No run has come to its end.
        let running = STUDY.replace("full,COMPLETE", "full,RUNNING");
        assert_eq!(read(&running, None).unwrap().pass.unwrap().1, Pass::Early);
        let header = STUDY.lines().next().unwrap();
        assert_eq!(read(header, None).unwrap_err(), "the table has no rows");
        let odd = STUDY.replace("0,full,RUNNING", "0,full,STOPPED");
        assert!(
            read(&odd, None).unwrap_err().starts_with("line 5, column `state`: `STOPPED` is not COMPLETE")
        );
        let odd = STUDY.replace("0,full,RUNNING", "0,half,RUNNING");
        assert_eq!(read(&odd, None).unwrap_err(), "line 5, column `pass`: `half` is not early or full");
    }
}
