//! The study as a page: `report.html`, one file that opens anywhere.
//!
//! Whoever gets the file may have no network, no script and a telephone: so everything is in it, everything is there
//! without its script, and nothing in it is loaded from elsewhere. It says first, in words, which configuration to keep;
//! then come the numbers, then the plots that let one see whether to believe it. It tells nothing that is not known: a
//! plot for which the study has no data is not there.
//!
//! While a study runs the page is written again and again, and reads itself again in the browser.

mod configurations;
mod curves;
mod markup;
mod plots;
mod svg;

use crate::facts::{command_in_words, facts};
use crate::{Bounds, JSON_FILE, REPORT_FILE, RESULTS_FILE, stopped, summary};
pub(crate) use configurations::count;
pub use curves::Curves;
use diapason_study::{Candidate, CellReading, Cost, Decision, Interval, Pass, STUDY_FILE, Study};
use markup::{lines, section, text};
use serde::Serialize;
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Name of the page.
pub const HTML_FILE: &str = "report.html";

/// What the page tells beside the study itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extras {
    /// Whether somebody works on the study: the page says so and reads itself again.
    pub running: bool,
    /// When the study was as the page shows it; said of a study that is not finished.
    pub as_of: Option<SystemTime>,
    /// The command that makes this study, as a shell reads it.
    pub command: Option<String>,
    /// Texts of the chosen configuration.
    pub samples: Vec<Sample>,
}

/// A text that a model has written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// How it was asked for: `seed 0, temperature 1`.
    pub how: String,
    /// The text.
    pub text: String,
}

/// A study with what all parts of its page need.
struct Shown<'a> {
    study: &'a Study,
    /// The pass that decides: the full one, or while no cell has finished it, the early one.
    pass: Pass,
    readings: Vec<CellReading>,
    /// The loss that each was stopped with, and the step, if it was.
    dropped: Vec<Option<(f64, u64)>>,
    candidates: Vec<Candidate>,
    decision: Option<Decision>,
    /// By how much each is worse than the best, as fractions of the best loss; empty if that is not known.
    intervals: Vec<Option<Interval>>,
}

impl<'a> Shown<'a> {
    fn new(study: &'a Study) -> Self {
        let decided = study.decided();
        let pass = decided.as_ref().map_or(Pass::Full, |decided| decided.pass);
        let dropped = study.readings(Pass::Full).into_iter();
        Self {
            study,
            pass,
            readings: study.readings(pass),
            dropped: dropped.map(|r| r.dropped.filter(|(loss, _)| loss.is_finite())).collect(),
            candidates: decided.as_ref().map_or(study.candidates(pass), |decided| decided.candidates.clone()),
            intervals: decided.as_ref().map(summary::intervals).unwrap_or_default(),
            decision: decided.map(|decided| decided.decision),
        }
    }

    /// The cells that are compared: those with a loss and a cost.
    fn compared(&self) -> impl Iterator<Item = usize> + '_ {
        self.decision.iter().flat_map(|decision| decision.compared.iter().map(|c| c.candidate))
    }

    fn chosen(&self) -> Option<usize> {
        self.decision.as_ref().map(|decision| decision.chosen)
    }

    /// A cell in words, for marks in plots.
    fn name(&self, cell: usize) -> String {
        self.study.cells[cell].params.to_string()
    }
}

/// What a cost is called, with its unit.
pub(crate) fn cost_name(cost: Cost) -> &'static str {
    match cost {
        Cost::Seconds => "seconds of training",
        Cost::Flop => "floating-point operations",
        Cost::Parameters => "parameters",
    }
}

/// The study as a page.
pub fn to_html(study: &Study, bounds: &Bounds, curves: &Curves, extras: &Extras) -> String {
    let shown = Shown::new(study);
    let title = format!("{}: a study of Diapason", study.spec.name);
    let mut body = format!("<header>\n<h1>{}</h1>\n", text(&study.spec.name));
    let _ = writeln!(body, "<p class=\"subject\">Text: {}</p>", text(&study.spec.corpus.name));
    body += &progress(study, extras);
    body += "</header>\n<main>\n";
    body += &verdict(&shown);
    body += &section("Configurations", &configurations::table(&shown));
    body += &section("Learning curves", &plots::learning_curves(&shown, curves, bounds));
    body += &section("Stopped early", &stopped_early(study));
    let comparison =
        [plots::pareto(&shown), plots::differences(&shown), plots::heatmap(&shown), plots::fits(&shown)];
    let comparison = comparison.concat();
    if !comparison.is_empty() {
        let early = shown.pass == Pass::Early;
        let remark = if early {
            "<p class=\"remark\">By the early reading: no full run has finished.</p>\n"
        } else {
            ""
        };
        body += &section("Comparison", &format!("{remark}<div class=\"plots\">\n{comparison}</div>\n"));
    }
    body += &section("What it writes", &samples(extras));
    body += &section("Notes", &notes(study, bounds));
    body += &section("How it was made", &provenance(study, extras));
    body += "</main>\n";
    markup::page(&title, extras.running, &body)
}

/// How far an unfinished study is.
fn progress(study: &Study, extras: &Extras) -> String {
    let total = study.trials.len();
    let over = study.trials.iter().filter(|trial| study.is_over(trial)).count();
    if over == total && !extras.running {
        return String::new();
    }
    let state = if extras.running { "running" } else { "not finished" };
    let mut line = format!("{state}: {over} of {} done", count(total, "trial"));
    if let Some(as_of) = extras.as_of {
        line += &format!(", as of {}", utc(as_of));
    }
    format!(
        "<p class=\"progress\" role=\"status\">{}<progress max=\"{total}\" value=\"{over}\"></progress></p>\n",
        text(&line)
    )
}

/// Which configuration to keep, and why.
fn verdict(shown: &Shown<'_>) -> String {
    let unfinished = !summary::is_over(shown.study);
    let mut content = match shown.chosen() {
        Some(chosen) => format!(
            "<p class=\"verdict\">{} <strong>{}</strong></p>\n",
            if unfinished { "So far:" } else { "Keep" },
            text(&shown.name(chosen))
        ),
        None => "<p class=\"verdict\">No verdict yet: no configuration has a result.</p>\n".to_string(),
    };
    for (name, line) in summary::answer(shown.study) {
        let _ = writeln!(content, "<p><b>{name}:</b> {}.</p>", text(&line));
    }
    if shown.decision.is_some() {
        content += "<details>\n<summary>The reasoning, step by step</summary>\n<ul>\n";
        for line in summary::reasoning(shown.study) {
            let class = if line.starts_with("  ") { " class=\"step\"" } else { "" };
            let _ = writeln!(content, "<li{class}>{}</li>", text(line.trim_start()));
        }
        content += "</ul>\n</details>\n";
    }
    section("Verdict", &content)
}

/// What was stopped before its last step: the rule, what it spared, and every comparison with all that took part.
fn stopped_early(study: &Study) -> String {
    let mut html = String::new();
    for line in stopped::outline(study) {
        let _ = writeln!(html, "<p>{}.</p>", text(&line));
    }
    for decision in &study.decisions {
        let _ = writeln!(html, "<details>\n<summary>{}</summary>", text(&stopped::heading(study, decision)));
        let _ = write!(
            html,
            "<div class=\"scroll\" role=\"region\" aria-label=\"Comparison\" tabindex=\"0\">\n<table class=\"rung\">\n<thead>\n\
             <tr><th scope=\"col\">no.</th><th scope=\"col\">configuration</th><th scope=\"col\">loss</th>\
             <th scope=\"col\">{}</th><th scope=\"col\">then</th><th scope=\"col\">why</th></tr>\n</thead>\n<tbody>\n",
            text(&decision.cost)
        );
        for candidate in stopped::ordered(decision) {
            let cell = stopped::cell(study, candidate);
            let (class, then) = match candidate.goes_on {
                true => ("", "goes on"),
                false => (" class=\"pruned\"", "stopped"),
            };
            let _ = writeln!(
                html,
                "<tr{class}><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{then}</td><td>{}</td></tr>",
                cell.map(|cell| (cell + 1).to_string()).unwrap_or_default(),
                text(&candidate.params.to_string()),
                candidate.loss.map(|loss| summary::number(loss, 4)).unwrap_or_default(),
                stopped::cost(decision, candidate),
                text(&candidate.why)
            );
        }
        html += "</tbody>\n</table>\n</div>\n</details>\n";
    }
    let others = stopped::others(study);
    if !others.is_empty() {
        let _ =
            writeln!(html, "<details>\n<summary>{}</summary>\n<ul>", count(others.len(), "stopped trial"));
        for line in others {
            let _ = writeln!(html, "<li>{}</li>", text(&line));
        }
        html += "</ul>\n</details>\n";
    }
    html
}

fn samples(extras: &Extras) -> String {
    let figure = |sample: &Sample| {
        format!(
            "<figure class=\"sample\">\n<pre>{}</pre>\n<figcaption>{}</figcaption>\n</figure>\n",
            lines(&sample.text),
            text(&sample.how)
        )
    };
    extras.samples.iter().map(figure).collect()
}

fn notes(study: &Study, bounds: &Bounds) -> String {
    let mut list = String::from("<ul>\n");
    for note in summary::notes(study, bounds) {
        // The star is another character here.
        let note = note.strip_prefix("* ").map_or(note.clone(), |rest| format!("★ {rest}"));
        let class = if note.starts_with("failed: ") { " class=\"failure\"" } else { "" };
        let _ = writeln!(list, "<li{class}>{}</li>", text(&note));
    }
    list + "</ul>\n"
}

/// The environment, and what makes the same study again.
fn provenance(study: &Study, extras: &Extras) -> String {
    let mut html = String::from("<dl>\n");
    for (name, value) in facts(study) {
        let _ = writeln!(html, "<div><dt>{}</dt> <dd>{}</dd></div>", text(name), text(&value));
    }
    html += "</dl>\n";
    if let Some(command) = &extras.command {
        let _ = writeln!(
            html,
            "<p>{}</p>\n<pre class=\"command\"><code>{}</code></pre>",
            text(&command_in_words(study)),
            lines(command)
        );
    }
    let _ = writeln!(
        html,
        "<p>Beside this file, {} has every setting, {} every number in full, and {} and {} what is said here.</p>",
        text(STUDY_FILE),
        text(RESULTS_FILE),
        text(REPORT_FILE),
        text(JSON_FILE)
    );
    html
}

/// `2026-11-24 02:51:07 UTC`.
fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = ((seconds / 86_400) as i64, seconds % 86_400);
    // Years that begin in March have their odd day at the end; 400 of them have 146,097 days.
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!(
        "{:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        era * 400 + year + next,
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates() {
        let at = |seconds| utc(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(at(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(at(1_735_689_600), "2025-01-01 00:00:00 UTC");
        assert_eq!(at(1_795_488_667), "2026-11-24 02:51:07 UTC");
    }
}
