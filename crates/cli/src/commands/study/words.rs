//! Values of a database as people and other programs read them, and tables of them.

use crate::commands::json;
use crate::failure::Failure;
use diapason_storage::{Direction, Item, TrialState, printable};
use serde::Serialize;
use serde_json::Value as Json;
use std::io::{self, Write};

/// Every state, in the order in which a trial comes by them.
pub(super) const STATES: [TrialState; 5] =
    [TrialState::Waiting, TrialState::Running, TrialState::Complete, TrialState::Pruned, TrialState::Fail];

/// A number as Python writes it, and pandas into a table: NaN is nothing.
pub(super) fn float(x: f64) -> String {
    if x.is_nan() {
        String::new()
    } else if x.is_infinite() {
        if x > 0.0 { "inf" } else { "-inf" }.to_string()
    } else {
        format!("{x:?}")
    }
}

/// A parameter or attribute in a table.
pub(super) fn json_cell(value: &Json) -> String {
    match value {
        Json::Null => String::new(),
        Json::String(text) => cell(text),
        // A JSON number or word; lists and objects begin with a bracket.
        other => printable(&other.to_string()).into_owned(),
    }
}

/// Text in a table: on one line, and nothing that a spreadsheet would take for a formula.
pub(super) fn cell(text: &str) -> String {
    let plain = printable(text);
    let formula = plain.trim_start().starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']);
    // A number may have a sign.
    if formula && plain.parse::<f64>().is_err() { format!("'{plain}") } else { plain.into_owned() }
}

pub(super) fn title(state: TrialState) -> &'static str {
    match state {
        TrialState::Waiting => "waiting",
        TrialState::Running => "running",
        TrialState::Complete => "complete",
        TrialState::Pruned => "pruned",
        TrialState::Fail => "failed",
    }
}

pub(super) fn directions(directions: &[Direction]) -> &'static str {
    match directions {
        [Direction::Minimize] => "smaller is better",
        [Direction::Maximize] => "larger is better",
        _ => "several objectives",
    }
}

/// A number in six digits.
pub(super) fn number(x: f64) -> String {
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

/// `41 s left`, `over for 13 s`.
pub(super) fn lease(item: &Item) -> String {
    match item.lease_left {
        Some(left) if left >= 0.0 => format!("{left:.0} s left"),
        Some(left) => format!("over for {:.0} s", -left),
        None => String::new(),
    }
}

/// A time without the fraction of its seconds.
pub(super) fn time(text: &str) -> String {
    printable(text.split('.').next().unwrap_or_default()).into_owned()
}

/// A value as people write it.
pub(super) fn text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Printable text of at most so many characters.
pub(super) fn cut(text: &str, most: usize) -> String {
    let shown = printable(text);
    if shown.chars().count() <= most {
        return shown.into_owned();
    }
    shown.chars().take(most - 1).chain(['…']).collect()
}

/// JSON on one line, in which what a terminal would obey is `\u001b`: the same data to whoever reads it.
pub(super) fn shown_json<T: Serialize>(value: &T) -> Result<String, Failure> {
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
pub(super) fn width(text: &str) -> usize {
    console::measure_text_width(text)
}

pub(super) fn padded(text: &str, to: usize, right: bool) -> String {
    let space = " ".repeat(to.saturating_sub(width(text)));
    if right { format!("{space}{text}") } else { format!("{text}{space}") }
}

/// Columns of text under titles; a column with nothing in it is left out.
pub(crate) struct Table {
    titles: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(titles: &[&str]) -> Self {
        Self { titles: titles.iter().map(|title| (*title).to_string()).collect(), rows: Vec::new() }
    }

    pub(crate) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// Writes it, these columns from their left edge, the others, which are numbers, from their right.
    pub(crate) fn write(&self, out: &mut dyn Write, left: &[&str]) -> io::Result<()> {
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
    use serde_json::json;

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
