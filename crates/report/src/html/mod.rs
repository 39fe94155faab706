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

use crate::{Bounds, RESULTS_FILE, summary};
use configurations::count;
pub use curves::Curves;
use diapason_study::{Candidate, CellReading, Cost, Decision, Interval, Machine, Pass, STUDY_FILE, Study};
use diapason_training::{Config, Protocol};
use markup::{lines, section, text};
use std::collections::BTreeSet;
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    candidates: Vec<Candidate>,
    decision: Option<Decision>,
    /// By how much each is worse than the best, as fractions of the best loss; empty if that is not known.
    intervals: Vec<Option<Interval>>,
}

impl<'a> Shown<'a> {
    fn new(study: &'a Study) -> Self {
        let decided = study.decided();
        let pass = decided.as_ref().map_or(Pass::Full, |decided| decided.pass);
        Self {
            study,
            pass,
            readings: study.readings(pass),
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
fn cost_name(cost: Cost) -> &'static str {
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
    body += &section("Learning curves", &plots::learning_curves(&shown, curves));
    let comparison =
        [plots::pareto(&shown), plots::differences(&shown), plots::heatmap(&shown), plots::fit(&shown)];
    let comparison = comparison.concat();
    if !comparison.is_empty() {
        body += &section("Comparison", &format!("<div class=\"plots\">\n{comparison}</div>\n"));
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
    let unfinished = shown.study.trials.iter().any(|trial| !shown.study.is_over(trial));
    let mut content = match shown.study.verdict() {
        Some(verdict) => {
            format!(
                "<p class=\"verdict\">{} <strong>{}</strong></p>\n<p>{}.</p>\n",
                if unfinished { "So far:" } else { "Keep" },
                text(&shown.chosen().map(|cell| shown.name(cell)).unwrap_or_default()),
                text(&verdict.reason)
            ) + &format!("<p>Certainty: {}.</p>\n", text(&verdict.certainty_text))
        }
        None => "<p class=\"verdict\">No verdict yet: no configuration has a result.</p>\n".to_string(),
    };
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
    let mut facts: Vec<(&str, String)> = Vec::new();
    let records = || study.trials.iter().filter_map(|trial| trial.record.as_ref());
    facts.push(("program", format!("Diapason {}", env!("CARGO_PKG_VERSION"))));
    let engines: BTreeSet<&str> = records()
        .flat_map(|r| std::iter::once(&r.engine).chain(&r.other_engines))
        .map(String::as_str)
        .filter(|engine| !engine.is_empty())
        .collect();
    facts.push(("engine", engines.into_iter().collect::<Vec<_>>().join(", ")));
    if study.timings.is_empty() {
        // Nobody has written down where it was trained.
        facts.push(("this page was written on", Machine::this().processor));
    }
    for timings in &study.timings {
        let machine = &timings.machine;
        facts.push((
            "steps timed on",
            format!("{} ({}), {}", machine.processor, machine.host, count(timings.threads, "thread")),
        ));
    }
    if let Some(threads) = study.most_threads() {
        let at_once = records().filter_map(|record| record.trials_at_once).max_by(f64::total_cmp);
        let mut line =
            format!("up to {} a trial", summary::number(threads, usize::from(threads.fract() != 0.0)));
        if let Some(at_once) = at_once.filter(|n| *n > 1.0) {
            let decimals = usize::from(at_once.fract() != 0.0);
            line += &format!(", {} trials side by side", summary::number(at_once, decimals));
        }
        facts.push(("threads", line));
    }
    let spec = &study.spec;
    facts.push(("text", spec.corpus.name.clone()));
    facts.push(("digest of the text", spec.corpus.digest.clone()));
    facts.push((
        "protocol",
        match spec.protocol {
            Protocol::Standard => {
                "every configuration predicts the same characters of the validation text".to_string()
            }
            Protocol::AsSeed => "the notebook's own (--as-seed)".to_string(),
        },
    ));
    facts.push(("grid", spec.grid.to_string()));
    facts.push(("seeds", spec.seeds.to_string()));
    facts.push(("tolerance", diapason_study::percent(spec.tolerance)));
    facts.push(("cost", cost_name(spec.cost).to_string()));
    let other: Vec<String> = spec
        .config
        .differences(&Config::default())
        .into_iter()
        .filter(|(key, ..)| spec.grid.axis(key).is_none())
        .map(|(key, value, _)| format!("{key}={}", diapason_study::value_text(&value)))
        .collect();
    facts.push(("other settings", other.join(" ")));
    let mut html = String::from("<dl>\n");
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(html, "<div><dt>{}</dt> <dd>{}</dd></div>", text(name), text(value));
    }
    html += "</dl>\n";
    if let Some(command) = &extras.command {
        let _ = writeln!(
            html,
            "<p>This command makes the same study again, in a folder where it is not yet:</p>\n<pre class=\"command\"><code>{}</code></pre>",
            lines(command)
        );
    }
    let _ = writeln!(
        html,
        "<p>Beside this file, {} has every setting, and {} every number in full.</p>",
        text(STUDY_FILE),
        text(RESULTS_FILE)
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
