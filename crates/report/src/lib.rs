//! What a finished or running study says: a table and a verdict for the terminal, the same in Markdown and CSV for
//! its folder, a page with plots for a browser, one JSON object for programs, and event files for TensorBoard.
//!
//! Nothing is computed here that a reader could not work out from [`diapason_study::Study`]; this crate finds
//! words and columns for it.

mod facts;
mod files;
mod fits;
mod html;
mod json;
mod stopped;
mod summary;
mod table;
mod tensorboard;

pub use files::{JSON_FILE, REPORT_FILE, RESULTS_FILE, ReportError, to_csv, write_files, write_page};
pub use fits::{Fit, Size};
pub use html::{Curves, Extras, HTML_FILE, Sample, to_html};
pub use json::{CorpusJson, SeedNumbersJson, StudyJson, VerdictJson};
pub use tensorboard::EventFile;

use diapason_study::Study;
use diapason_training::Counting;

/// What is known of the text itself: how good a model can be at best, and how good it should be at least. Nats per character.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounds {
    /// Entropy rate of the source that the text comes from.
    pub entropy_rate: Option<f64>,
    /// The best mean loss that windows of the study's length allow, without what came before them.
    pub window_floor: Option<f64>,
    /// What counting n-grams comes to.
    pub counting: Option<Counting>,
}

/// The study for a terminal of `width` columns: table, notes, reasoning, and last the line `chosen: KEY=VALUE ...`.
pub fn to_text(study: &Study, bounds: &Bounds, width: usize) -> String {
    let (mut text, dropped) = summary::table(study).to_text(width);
    text.push('\n');
    let mut notes = summary::notes(study, bounds);
    notes.extend(summary::decisions(study));
    if dropped {
        notes.push(format!("columns that do not fit here are in {REPORT_FILE} and {RESULTS_FILE}"));
    }
    for line in &notes {
        wrap(line, width, "  ", &mut text);
    }
    text.push('\n');
    for line in summary::reasoning(study) {
        let indent = if line.starts_with("  ") { "      " } else { "  " };
        // The last line is read by programs: it stays whole.
        wrap(&line, if line.starts_with("chosen: ") { usize::MAX } else { width }, indent, &mut text);
    }
    text
}

/// The study in Markdown: the answer, all columns, and what stands on the page in words.
pub fn to_markdown(study: &Study, bounds: &Bounds, extras: &Extras) -> String {
    use table::{block, escape_markdown as plain};
    let mut text = format!("# {}\n\n", plain(&study.spec.name));
    text += &format!("Text: {}, digest `{}`.\n\n", plain(&study.spec.corpus.name), study.spec.corpus.digest);
    text += "## Verdict\n\n";
    match study.verdict() {
        Some(verdict) => {
            let word = if summary::is_over(study) { "Keep" } else { "So far:" };
            text += &format!("**{word} {}**\n\n", plain(&verdict.chosen.to_string()));
        }
        None => text += "No verdict yet: no configuration has a result.\n\n",
    }
    for (name, line) in summary::answer(study) {
        text += &format!("- {name}: {}\n", plain(&line));
    }
    text += "\n## Configurations\n\n";
    text += &summary::table(study).to_markdown();
    text.push('\n');
    for note in summary::notes(study, bounds) {
        // A leading star would make a list of lists.
        let note = note
            .strip_prefix("* ")
            .map(|rest| format!("`*` {}", plain(rest)))
            .unwrap_or_else(|| plain(&note));
        text += &format!("- {note}\n");
    }
    let mut section = |heading: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            text += &format!("\n## {heading}\n\n");
            for line in lines {
                let (indent, line) = match line.strip_prefix("  ") {
                    Some(rest) => ("  ", rest),
                    None => ("", line.as_str()),
                };
                text += &format!("{indent}- {}\n", plain(line));
            }
        }
    };
    section("The reasoning, step by step", summary::reasoning(study));
    let of_rungs = study.decisions.iter().map(|decision| decision.text());
    section(
        "Stopped early",
        stopped::outline(study).into_iter().chain(of_rungs).chain(stopped::others(study)).collect(),
    );
    section("Loss and size", summary::fits(study).iter().map(fits::Fit::text).collect());
    if !extras.samples.is_empty() {
        text += "\n## What it writes\n";
        for sample in &extras.samples {
            text += &format!("\n{}:\n\n{}", plain(&sample.how), block(&sample.text));
        }
    }
    text += &format!("\n## How it was made\n\n{}", facts::to_markdown(study, extras));
    text
}

/// Appends `line` to `text`, broken at spaces so that no line is longer than `width`; later lines are indented.
fn wrap(line: &str, width: usize, indent: &str, text: &mut String) {
    // A number stays with its per cent: no-break spaces until the line is written.
    let line = line.replace(" %", "\u{a0}%");
    let mut current: String = line.chars().take_while(|c| *c == ' ').collect();
    let mut empty = true;
    let mut write = |line: &str| {
        text.push_str(&line.replace('\u{a0}', " "));
        text.push('\n');
    };
    for word in line.split(' ').filter(|word| !word.is_empty()) {
        let space = usize::from(!empty);
        if !empty && current.chars().count() + space + word.chars().count() > width {
            write(&current);
            current = indent.to_string();
            empty = true;
        }
        if !empty {
            current.push(' ');
        }
        current.push_str(word);
        empty = false;
    }
    write(&current);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_at_spaces() {
        let mut text = String::new();
        wrap("  one two three four", 11, "    ", &mut text);
        assert_eq!(text, "  one two\n    three\n    four\n");
        text.clear();
        wrap("unbreakable", 4, "  ", &mut text);
        wrap("", 4, "  ", &mut text);
        wrap("it is 49 % less", 9, "", &mut text);
        assert_eq!(text, "unbreakable\n\nit is\n49 % less\n");
    }
}
