//! The table of configurations: a line for each, early and full side by side, the full one first.
//!
//! It has every column, since it can be scrolled; heads and the first column stay where they are. Configurations are
//! numbered, and marks in the plots carry these numbers.

use super::Shown;
use super::markup::text;
use crate::RESULTS_FILE;
use crate::summary::{
    PassColumns, columns, from_base, number, range, seconds, share, thousands, what_differs,
};
use diapason_study::{CellReading, Cost, Pass, SeedNumbers, Standing, percent};
use std::fmt::Write;

/// Configurations that the table has at most.
const MOST: usize = 1_000;

/// Up to so many stand in the order of the grid, which one sees at a glance; more are sorted.
const AT_A_GLANCE: usize = 24;

/// A column: its group, its head, what the head means, and its cells as markup.
struct Column {
    group: String,
    head: String,
    means: &'static str,
    cells: Vec<String>,
}

/// Adds a column: its group, its head, what the head means, its cells.
type Push<'a> = dyn FnMut(&str, &str, &'static str, Vec<String>) + 'a;

/// `3 trials`, `1 trial`.
pub(crate) fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{} {what}s", thousands(n as u64)) }
}

/// The table; nothing for a study without configurations.
pub(super) fn table(shown: &Shown<'_>) -> String {
    let study = shown.study;
    let mut order: Vec<usize> = (0..study.cells.len()).collect();
    if order.is_empty() {
        return String::new();
    }
    let sorted = order.len() > AT_A_GLANCE;
    if sorted {
        order.sort_by(|&a, &b| rank(shown, a).total_cmp(&rank(shown, b)));
    }
    order.truncate(MOST);
    let columns = all_columns(shown);
    let mut html = String::from(
        "<div class=\"scroll\" role=\"region\" aria-label=\"Table of configurations\" tabindex=\"0\">\n<table class=\"configurations\">\n<thead>\n<tr>",
    );
    html += "<th scope=\"col\" rowspan=\"2\" class=\"corner\">no.</th>";
    for group in columns.chunk_by(|a, b| a.group == b.group) {
        let scope = if group.len() > 1 { "colgroup" } else { "col" };
        let name = &group[0].group;
        let name = if name.is_empty() { "<td" } else { &format!("<th scope=\"{scope}\"") };
        let close = if name == "<td" { "</td>" } else { "</th>" };
        let _ = write!(
            html,
            "{name} class=\"group\" colspan=\"{}\"><span>{}</span>{close}",
            group.len(),
            text(&group[0].group)
        );
    }
    html += "</tr>\n<tr>";
    for (i, column) in columns.iter().enumerate() {
        let title = match column.means {
            "" => String::new(),
            means => format!(" title=\"{}\"", text(means)),
        };
        let _ = write!(
            html,
            "<th scope=\"col\"{}{title}>{}</th>",
            first(&columns, i),
            text(&column.head).replace('_', "_<wbr>")
        );
    }
    html += "</tr>\n</thead>\n<tbody>\n";
    for &row in &order {
        let (class, mark) = if shown.chosen() == Some(row) {
            (" class=\"chosen\"", " <span title=\"chosen\" aria-label=\"chosen\" role=\"img\">★</span>")
        } else {
            ("", "")
        };
        let _ = write!(html, "<tr{class}><th scope=\"row\">{}{mark}</th>", row + 1);
        for (i, column) in columns.iter().enumerate() {
            let _ = write!(html, "<td{}>{}</td>", first(&columns, i), column.cells[row]);
        }
        html += "</tr>\n";
    }
    html += "</tbody>\n</table>\n</div>\n";
    let mut remarks = Vec::new();
    if sorted {
        remarks.push("The lowest loss comes first.".to_string());
    }
    if order.len() < study.cells.len() {
        let others = count(study.cells.len() - order.len(), "configuration");
        remarks.push(format!("The other {others} are in {RESULTS_FILE}."));
    }
    if !remarks.is_empty() {
        let _ = writeln!(html, "<p class=\"remark\">{}</p>", text(&remarks.join(" ")));
    }
    html
}

/// What a long table is sorted by: the loss; what has none comes last.
fn rank(shown: &Shown<'_>, cell: usize) -> f64 {
    // As it stands in the table: what is weighed may be a mean over more seeds.
    match &shown.readings[cell] {
        reading if reading.left_out.is_none() && reading.loss.is_finite() => reading.loss,
        _ => shown.dropped[cell].map_or(f64::INFINITY, |(loss, _)| 1e9 + loss),
    }
}

/// The class of a group's first column, by which groups are told apart.
fn first(columns: &[Column], i: usize) -> &'static str {
    if i > 0 && columns[i].group != columns[i - 1].group { " class=\"first\"" } else { "" }
}

fn all_columns(shown: &Shown<'_>) -> Vec<Column> {
    let study = shown.study;
    let mut all = Vec::new();
    let mut push = |group: &str, head: &str, means: &'static str, cells: Vec<String>| {
        // A column that has nothing to say is not there.
        if cells.iter().any(|cell| !cell.is_empty()) {
            all.push(Column { group: group.to_string(), head: head.to_string(), means, cells });
        }
    };
    for (key, values) in what_differs(study) {
        push("", key, "", values.iter().map(|value| text(value)).collect());
    }
    // What decides comes first: on a narrow screen the rest is scrolled to.
    for &pass in study.passes().iter().rev() {
        let of_pass = columns(study, pass);
        pass_columns(shown, &of_pass, pass, &mut push);
    }
    let parameters = shown.readings.iter().map(|r| r.parameters.map(thousands).unwrap_or_default());
    let head = if study.spec.cost == Cost::Parameters { "parameters (cost)" } else { "parameters" };
    push("", head, "", parameters.collect());
    let speed = |r: &CellReading| match r.tokens_per_second {
        speed if speed.is_finite() => thousands(speed.round() as u64),
        _ => String::new(),
    };
    let means = "characters trained on per second of the cost's time";
    push("", "tokens/s", means, shown.readings.iter().map(speed).collect());
    all
}

fn pass_columns(shown: &Shown<'_>, of_pass: &PassColumns, pass: Pass, push: &mut Push<'_>) {
    let study = shown.study;
    let group = of_pass.group.as_str();
    let cells = |cell: &dyn Fn(&CellReading) -> String| of_pass.readings.iter().map(cell).collect::<Vec<_>>();
    if study.several_seeds() {
        push(
            group,
            "seeds",
            "seeds that the means are over",
            cells(&|r| if r.seeds > 0 { r.seeds.to_string() } else { String::new() }),
        );
    }
    if of_pass.other_steps {
        push(group, "steps", "", cells(&|r| number(r.steps, 0)));
    }
    let losses = cells(&|r| match &r.left_out {
        Some(reason) if reason == "not finished" => "<span title=\"not finished\">…</span>".to_string(),
        Some(reason) => match r.dropped {
            Some((loss, _)) => {
                format!("<span class=\"pruned\" title=\"{}\">pruned {}</span>", text(reason), number(loss, 4))
            }
            None => format!("<span class=\"failure\" title=\"{}\">failed</span>", text(reason)),
        },
        None => number(r.loss, 4),
    });
    push(group, "loss", "mean cross-entropy on the validation text, nats per character", losses);
    let means = "how much the loss differs from that without the change, nats";
    push(group, "by change", means, from_base(study, &of_pass.readings));
    if let Some(decision) = study.decision(pass).map(|decided| decided.decision) {
        let differences = (0..study.cells.len()).map(|cell| match decision.comparison(cell) {
            Some(_) if cell == decision.best => "best".to_string(),
            Some(comparison) => format!("+{}", percent(comparison.difference)),
            None => String::new(),
        });
        push(
            group,
            "above best",
            "how much more loss than the best, as a fraction of it",
            differences.collect(),
        );
    }
    let of_interval = |interval: &Option<diapason_study::Interval>| interval.map(range).unwrap_or_default();
    let means = "how much more loss than the best the evidence allows, as fractions of the best loss";
    push(group, "worse by", means, of_pass.intervals.iter().map(of_interval).collect());
    let standing = |of: &Option<Standing>| match of {
        Some(Standing::Equivalent) => "equivalent".to_string(),
        Some(Standing::Worse) => "worse".to_string(),
        Some(Standing::Undecided) => "undecided".to_string(),
        None => String::new(),
    };
    let means = "whether that is within the tolerance for certain, outside of it for certain, or neither";
    push(group, "standing", means, of_pass.standings.iter().map(standing).collect());
    push(group, "bpc", "the loss in bits per character", cells(&|r| number(r.bpc, 4)));
    push(group, "accuracy", "how often the likeliest character was right", cells(&|r| share(r.accuracy)));
    let means = "the same at the last place of each window";
    push(group, "at last", means, cells(&|r| share(r.accuracy_last)));
    let is_cost = |cost: Cost| if study.spec.cost == cost { " (cost)" } else { "" };
    let flop = |r: &CellReading| if r.flop.is_finite() { format!("{:.2e}", r.flop) } else { String::new() };
    let means = "floating-point operations of the training steps";
    push(group, &format!("FLOP{}", is_cost(Cost::Flop)), means, cells(&flop));
    let means = "seconds of the training steps, as if alone on all threads";
    push(group, &format!("seconds{}", is_cost(Cost::Seconds)), means, cells(&|r| seconds(r.seconds)));
    let means = "seconds that the training steps took as they went by";
    push(group, "training s", means, cells(&|r| seconds(r.train_seconds)));
    let seed = |cell: &dyn Fn(&SeedNumbers) -> String| {
        of_pass.seed.iter().map(|row| row.map(cell).unwrap_or_default()).collect::<Vec<_>>()
    };
    push(group, "seed's", "the notebook's loss for the same configuration", seed(&|row| number(row.loss, 4)));
    push(group, "seed's s", "the notebook's training time, seconds", seed(&|row| seconds(row.seconds)));
}
