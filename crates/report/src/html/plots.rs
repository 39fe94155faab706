//! The plots of a study: curves, cost against loss, differences, a map of two keys, a fit.
//!
//! No meaning is carried by a colour alone: lines have dashes of their own, marks have shapes, and the number beside a
//! mark is that of the configuration in the table. Where there are too many configurations to tell apart, the best
//! of them have colours and the others are a grey crowd, which is what one wants to see of them.

use super::configurations::count;
use super::curves::Curves;
use super::markup::text;
use super::svg::{Axis, Frame, HEIGHT, figure};
use super::{Shown, cost_name};
use crate::Bounds;
use crate::fits::{self, Fit, Size};
use crate::stopped;
use crate::summary::thousands;
use diapason_study::{Cost, TrialState, percent};
use diapason_training::{Counting, CurvePoint};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Configurations that are told apart by colour and dashes, if there are no more ...
const TOLD_APART: usize = 8;

/// ... and of more, those with the lowest losses.
const OF_MANY: usize = 6;

/// Marks that have their configuration's number beside them, at most.
const NUMBERED: usize = 12;

/// Configurations that the plot of differences has room for.
const DIFFERENCES: usize = 40;

/// Values of one key that a map has at most.
const MAP: usize = 60;

/// A loss that a curve reaches for a moment is not worth the others' room: the highest that is shown, in units of
/// the highest among the lowest losses of the curves.
const CURVE_ROOM: f64 = 3.0;

/// Where the point of a trial's curve stands on the horizontal axis: by its step, or by time.
type Across<'a> = dyn Fn(usize, &CurvePoint) -> f64 + 'a;

/// The curves of all trials, by step and by time, with straight and with logarithmic axes.
pub(super) fn learning_curves(shown: &Shown<'_>, curves: &Curves, bounds: &Bounds) -> String {
    let study = shown.study;
    let drawn: Vec<(usize, &[CurvePoint])> = curves
        .of_trials
        .iter()
        .enumerate()
        .filter(|(trial, curve)| *trial < study.trials.len() && !curve.is_empty())
        .map(|(trial, curve)| (trial, curve.as_slice()))
        .collect();
    if drawn.is_empty() {
        return String::new();
    }
    let styles = styles(shown, drawn.iter().map(|(trial, _)| study.trials[*trial].cell).collect());
    // The crowd first, what is told apart above it.
    let mut ordered = drawn.clone();
    ordered.sort_by_key(|(trial, _)| {
        let cell = study.trials[*trial].cell;
        let place = styles.get(&cell);
        (place.is_some(), shown.chosen() == Some(cell), Reverse(place.copied()))
    });
    let (clock, clock_label) = clock(shown);

    let by_step = |_: usize, point: &CurvePoint| point.step as f64;
    let by_time = |trial: usize, point: &CurvePoint| clock(trial, point);
    let plots: [(&str, &str, &Across<'_>, &str); 2] = [
        ("step", "Loss by step", &by_step, "training steps"),
        ("time", "Loss by time", &by_time, &clock_label),
    ];
    let mut html = String::from(
        "<span class=\"switch\">Axes:</span>\n\
         <input type=\"radio\" name=\"scale\" id=\"linear\" checked><label for=\"linear\">linear</label>\n\
         <input type=\"radio\" name=\"scale\" id=\"logarithmic\"><label for=\"logarithmic\">logarithmic</label>\n\
         <div class=\"plots\">\n",
    );
    for (id, heading, x, x_label) in plots {
        let mut layers = String::new();
        for log in [false, true] {
            let layer = if log { "log" } else { "lin" };
            let Some(frame) = curve_frame(&drawn, x, x_label, log, bounds) else { continue };
            let mut lines = String::new();
            if let Some(floor) = bounds.window_floor {
                lines += &frame.level(floor, "level", &format!("floor of this text: {floor:.4}"));
            }
            if let Some(Counting { order, loss, .. }) = bounds.counting {
                lines += &frame.level(loss, "level", &format!("counting {order}-grams: {loss:.4}"));
            }
            if id == "step" {
                for decision in &study.decisions {
                    lines +=
                        &frame.vertical(decision.step as f64, "rungline", &stopped::heading(study, decision));
                }
            }
            for &(trial, curve) in &ordered {
                let style = styles.get(&study.trials[trial].cell).copied();
                let first = id == "step" && !log;
                lines += &curve_line(shown, &frame, trial, curve, x, style, first);
            }
            let _ = write!(
                layers,
                "<g class=\"{layer}\">\n{}{}</g>\n",
                frame.axes(None),
                frame.inside(&format!("{id}-{layer}"), &lines)
            );
        }
        let told = format!(
            "Validation loss of {} against {x_label}; their readings are in the table of configurations.",
            count(drawn.len(), "trial")
        );
        html += &figure("curves", HEIGHT, &told, heading, &layers, "");
    }
    html += "</div>\n";
    html += &curve_legend(shown, &styles, &drawn);
    let missing =
        study.trials.iter().filter(|trial| trial.record.is_some()).count().saturating_sub(drawn.len());
    let mut remarks = Vec::new();
    if missing > 0 {
        remarks.push(format!("{} that began have no curve in this folder", count(missing, "trial")));
    }
    if curves.thinned {
        remarks.push("curves are thinned; curve.csv in each trial's folder has every evaluation".to_string());
    }
    if !remarks.is_empty() {
        let _ = writeln!(html, "<p class=\"remark\">{}.</p>", text(&remarks.join("; ")));
    }
    html
}

/// What the time of a curve's point is, and what it is called: as costs are, seconds alone on all threads where steps
/// have been timed.
fn clock<'a>(shown: &Shown<'a>) -> (impl Fn(usize, &CurvePoint) -> f64 + use<'a>, String) {
    let study = shown.study;
    let timed = study.timed();
    let label = match timed {
        Some(_) => "seconds alone on all threads".to_string(),
        None => "seconds of training".to_string(),
    };
    let clock = move |trial: usize, point: &CurvePoint| {
        let config = &study.cells[study.trials[trial].cell].config;
        match timed.and_then(|timings| timings.of(config)) {
            Some(timing) => config.full_batches(point.step) * timing.ms_per_step / 1e3,
            None => point.train_seconds,
        }
    };
    (clock, label)
}

/// Which configurations are told apart, with the place of their colour. Of many, those with the lowest losses.
fn styles(shown: &Shown<'_>, mut cells: Vec<usize>) -> BTreeMap<usize, usize> {
    cells.sort_unstable();
    cells.dedup();
    if cells.len() > TOLD_APART {
        // Whatever was stopped comes after all that was not, the furthest first.
        let place = |cell: usize| {
            let (candidate, dropped) = (shown.candidates.get(cell)?, *shown.dropped.get(cell)?);
            let whole = candidate.left_out.is_none() && candidate.loss.is_finite();
            if whole { Some((u64::MAX, candidate.loss)) } else { dropped.map(|(loss, step)| (step, loss)) }
        };
        let place = |cell: usize| place(cell).unwrap_or((0, f64::INFINITY));
        cells.sort_by(|&a, &b| {
            let ((far_a, loss_a), (far_b, loss_b)) = (place(a), place(b));
            far_b.cmp(&far_a).then(loss_a.total_cmp(&loss_b))
        });
        // What is chosen need not be among the lowest.
        cells.sort_by_key(|&cell| shown.chosen() != Some(cell));
        cells.truncate(OF_MANY);
    }
    cells.into_iter().enumerate().map(|(place, cell)| (cell, place)).collect()
}

fn curve_frame(
    drawn: &[(usize, &[CurvePoint])],
    x: &Across<'_>,
    x_label: &str,
    log: bool,
    bounds: &Bounds,
) -> Option<Frame> {
    let finite = |curve: &[CurvePoint]| -> Vec<f64> {
        curve.iter().map(|point| point.validation_loss).filter(|loss| loss.is_finite()).collect()
    };
    let lowest = drawn.iter().filter_map(|(_, curve)| finite(curve).into_iter().min_by(f64::total_cmp));
    let highest = CURVE_ROOM * lowest.max_by(f64::total_cmp)?;
    let xs = drawn.iter().flat_map(|(trial, curve)| curve.iter().map(|point| x(*trial, point)));
    // Straight axes begin at nothing.
    let begin = if log { None } else { Some(0.0) };
    let ys = drawn.iter().flat_map(|(_, curve)| finite(curve)).map(|loss| loss.min(highest));
    let ys = ys.chain(bounds.window_floor).chain(bounds.counting.map(|counting| counting.loss));
    Some(Frame::new(
        Axis::over(xs.chain(begin), log, if log { 0.02 } else { 0.0 }, x_label)?,
        Axis::over(ys, log, 0.03, "validation loss, nats per character")?,
    ))
}

/// The line of one trial. `first`: the one that carries the values for all of the trial's lines.
fn curve_line(
    shown: &Shown<'_>,
    frame: &Frame,
    trial: usize,
    curve: &[CurvePoint],
    x: &Across<'_>,
    style: Option<usize>,
    first: bool,
) -> String {
    let cell = shown.study.trials[trial].cell;
    let mut points = frame.points(curve.iter().map(|point| (x(trial, point), point.validation_loss)));
    if points.is_empty() {
        return String::new();
    }
    if !points.contains(' ') {
        // A point is a line to itself.
        points = format!("{points} {points}");
    }
    let class = match style {
        Some(place) => format!("curve c{} d{}", place % 6, place % 4),
        None => "curve crowd".to_string(),
    };
    let chosen = if shown.chosen() == Some(cell) { " chosen" } else { "" };
    let mut values = String::new();
    if first {
        values += " data-v=\"";
        for point in curve.iter().filter(|point| point.validation_loss.is_finite()) {
            let _ = write!(values, "{},{:.4},{:.1};", point.step, point.validation_loss, point.train_seconds);
        }
        values += "\"";
    }
    let mut line = format!(
        "<polyline class=\"{class}{chosen}\" data-t=\"{trial}\"{values} points=\"{points}\"><title>{}</title></polyline>\n",
        text(&trial_name(shown, trial))
    );
    // Where it was stopped, a cross.
    if is_stopped(shown, trial)
        && let Some((x, y)) = points.rsplit(' ').next().and_then(|end| end.split_once(','))
    {
        let place = style.map_or("crowd".to_string(), |place| format!("c{}", place % 6));
        let _ = writeln!(line, "<path class=\"end {place}\" d=\"M{x} {y}m-3.5 -3.5l7 7m0 -7l-7 7\"/>");
    }
    line
}

/// Whether a rule ended the trial.
fn is_stopped(shown: &Shown<'_>, trial: usize) -> bool {
    shown.study.trials[trial].record.as_ref().is_some_and(|record| record.state == TrialState::Pruned)
}

/// `no. 3: d_model=64, seed 1`.
fn trial_name(shown: &Shown<'_>, trial: usize) -> String {
    let trial = &shown.study.trials[trial];
    let mut name = format!("no. {}: {}", trial.cell + 1, shown.name(trial.cell));
    if shown.study.several_seeds() {
        let _ = write!(name, ", seed {}", trial.seed);
    }
    if let Some(why) = shown.study.dropped(trial) {
        let _ = write!(name, " ({why})");
    }
    name
}

fn curve_legend(
    shown: &Shown<'_>,
    styles: &BTreeMap<usize, usize>,
    drawn: &[(usize, &[CurvePoint])],
) -> String {
    let mut html = String::from("<ul class=\"legend\">\n");
    let line = |class: &str, what: &str| {
        format!(
            "<li><svg class=\"key\" viewBox=\"0 0 34 10\" aria-hidden=\"true\"><line class=\"curve {class}\" x1=\"1\" x2=\"33\" y1=\"5\" y2=\"5\"/></svg> {}</li>\n",
            text(what)
        )
    };
    let mut listed: Vec<(usize, usize)> = styles.iter().map(|(&cell, &place)| (place, cell)).collect();
    listed.sort_unstable();
    for (place, cell) in listed {
        let chosen = shown.chosen() == Some(cell);
        let class = format!("c{} d{}{}", place % 6, place % 4, if chosen { " chosen" } else { "" });
        let word = if chosen { ", chosen" } else { "" };
        html += &line(&class, &format!("no. {}: {}{word}", cell + 1, shown.name(cell)));
    }
    let mut others: Vec<usize> = drawn
        .iter()
        .map(|(trial, _)| shown.study.trials[*trial].cell)
        .filter(|cell| !styles.contains_key(cell))
        .collect();
    others.sort_unstable();
    others.dedup();
    if !others.is_empty() {
        html += &line("crowd", &count(others.len(), "other configuration"));
    }
    let mut key = |shape: &str, what: &str| {
        let _ = writeln!(
            html,
            "<li><svg class=\"key\" viewBox=\"0 0 20 10\" aria-hidden=\"true\">{shape}</svg> {}</li>",
            text(what)
        );
    };
    if drawn.iter().any(|(trial, _)| is_stopped(shown, *trial)) {
        key("<path class=\"end\" d=\"M6.5 1.5l7 7m0 -7l-7 7\"/>", "stopped by the rule");
    }
    if !shown.study.decisions.is_empty() {
        key("<line class=\"rungline\" x1=\"10\" x2=\"10\" y1=\"0\" y2=\"10\"/>", "a comparison");
    }
    html + "</ul>\n"
}

/// A mark of a configuration: shapes tell what it is.
#[derive(Clone, Copy, PartialEq)]
enum Mark {
    Chosen,
    Best,
    Front,
    Other,
}

impl Mark {
    fn at(self, x: f64, y: f64, told: &str) -> String {
        let (class, shape) = match self {
            Self::Chosen => ("chosen", format!("<path d=\"M{x:.1} {:.1}l8 8l-8 8l-8 -8z\"", y - 8.0)),
            Self::Best => ("best", format!("<path d=\"M{x:.1} {:.1}l7 12h-14z\"", y - 7.5)),
            Self::Front => ("front", format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\"")),
            Self::Other => ("other", format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"")),
        };
        let title = if told.is_empty() { String::new() } else { format!("<title>{}</title>", text(told)) };
        let tag = shape[1..].split(' ').next().unwrap_or_default();
        format!("{shape} class=\"mark {class}\">{title}</{tag}>\n")
    }

    fn key(self, what: &str) -> String {
        format!(
            "<li><svg class=\"key\" viewBox=\"0 0 20 20\" aria-hidden=\"true\">{}</svg> {}</li>\n",
            self.at(10.0, 10.0, ""),
            text(what)
        )
    }
}

/// Cost against loss, with the front and the tolerance.
pub(super) fn pareto(shown: &Shown<'_>) -> String {
    let Some(decision) = shown.decision.as_ref().filter(|decision| decision.compared.len() > 1) else {
        return String::new();
    };
    let spec = &shown.study.spec;
    let at = |cell: usize| (shown.candidates[cell].cost, shown.candidates[cell].loss);
    let front = decision.front(&shown.candidates);
    let acceptable = at(decision.best).1 + at(decision.best).1.abs() * decision.tolerance.fraction();
    let costs = || shown.compared().map(|cell| at(cell).0);
    let (lowest, highest) = costs().fold((f64::INFINITY, 0.0f64), |(a, b), cost| (a.min(cost), b.max(cost)));
    let log = lowest > 0.0 && highest / lowest > 8.0;
    let losses = shown.compared().map(|cell| at(cell).1).chain([acceptable]);
    let axes = (
        Axis::over(costs(), log, 0.06, cost_name(spec.cost)),
        Axis::over(losses, false, 0.08, "validation loss, nats per character"),
    );
    let (Some(x), Some(y)) = axes else { return String::new() };
    let frame = Frame::new(x, y);
    let mut marks = format!(
        "<polyline class=\"frontline\" points=\"{}\"/>\n",
        frame.points(front.iter().map(|&cell| at(cell)))
    );
    let kind = |cell: usize| match cell {
        _ if cell == decision.chosen => Mark::Chosen,
        _ if cell == decision.best => Mark::Best,
        _ if front.contains(&cell) => Mark::Front,
        _ => Mark::Other,
    };
    // What matters lies above the rest.
    let mut cells: Vec<usize> = shown.compared().collect();
    cells.sort_by_key(|&cell| match kind(cell) {
        Mark::Other => 0,
        Mark::Front => 1,
        Mark::Best => 2,
        Mark::Chosen => 3,
    });
    let wanted =
        cells.iter().rev().copied().enumerate().filter(|&(place, cell)| {
            cells.len() <= NUMBERED || (place < NUMBERED && kind(cell) != Mark::Other)
        });
    let places = wanted.filter_map(|(_, cell)| {
        let (cost, loss) = at(cell);
        Some((cell, frame.x(cost)?, frame.y(loss)?))
    });
    let numbers = numbers(&places.collect::<Vec<_>>());
    for &cell in &cells {
        let (cost, loss) = at(cell);
        let (Some(x), Some(y)) = (frame.x(cost), frame.y(loss)) else { continue };
        let told =
            format!("no. {}: {}: loss {loss:.4}, {}", cell + 1, shown.name(cell), spec.cost.text(cost));
        marks += &kind(cell).at(x, y, &told);
    }
    let tolerance = percent(decision.tolerance.fraction());
    let level = frame.level(acceptable, "level", &format!("best loss + {tolerance}"));
    let svg = frame.axes(None) + &frame.inside("pareto", &(level + &marks)) + &numbers;
    let on_front: Vec<String> = front.iter().map(|cell| (cell + 1).to_string()).collect();
    let told = format!(
        "Cost against loss of {}. On the front, cheapest first: no. {}. Chosen: no. {}. A line marks the best loss and {tolerance}: {acceptable:.4}.",
        count(cells.len(), "configuration"),
        on_front.join(", "),
        decision.chosen + 1
    );
    let caption = format!(
        "Below the dashed line a loss is acceptable; the cheapest there is kept{}. Points bear the numbers of the table's rows.",
        if spec.cost == Cost::Seconds { " (costs within their noise count as equal)" } else { "" }
    );
    let mut keys = Mark::Chosen.key(if decision.chosen == decision.best {
        "chosen, and the lowest loss"
    } else {
        "chosen"
    });
    if decision.chosen != decision.best {
        keys += &Mark::Best.key("the lowest loss");
    }
    keys += &Mark::Front.key("on the front: nothing is both cheaper and better");
    keys += &Mark::Other.key("others");
    let prices = prices(shown, &front);
    figure("pareto", HEIGHT, &told, "Cost and loss", &svg, &caption)
        .replace("</figcaption>\n", &format!("</figcaption>\n{prices}"))
        .replace("</svg>\n<figcaption>", &format!("</svg>\n<ul class=\"legend\">\n{keys}</ul>\n<figcaption>"))
}

/// What each step along the front brings and costs, from the cheapest on.
fn prices(shown: &Shown<'_>, front: &[usize]) -> String {
    if front.len() < 2 {
        return String::new();
    }
    let cost = shown.study.spec.cost;
    let mut html = format!(
        "<details>\n<summary>What each step along the front costs</summary>\n\
         <div class=\"scroll\" role=\"region\" aria-label=\"Prices on the front\" tabindex=\"0\">\n<table class=\"prices\">\n<thead>\n\
         <tr><th scope=\"col\">no.</th><th scope=\"col\">{}</th><th scope=\"col\">loss</th><th scope=\"col\">than the one before</th></tr>\n\
         </thead>\n<tbody>\n",
        text(cost_name(cost))
    );
    let mut before: Option<(f64, f64)> = None;
    for &cell in front {
        let (own, loss) = (shown.candidates[cell].cost, shown.candidates[cell].loss);
        let step = before.map_or(String::new(), |(cheaper, worse)| {
            let less = percent((worse - loss) / worse.abs());
            format!("{less} less loss for {}", cost.difference((own - cheaper) / cheaper.abs()))
        });
        let class = if shown.chosen() == Some(cell) { " class=\"chosen\"" } else { "" };
        let _ = writeln!(
            html,
            "<tr{class}><th scope=\"row\">{}</th><td>{}</td><td>{loss:.4}</td><td>{}</td></tr>",
            cell + 1,
            text(&cost.text(own)),
            text(&step)
        );
        before = Some((own, loss));
    }
    html + "</tbody>\n</table>\n</div>\n</details>\n"
}

/// The numbers of configurations beside their marks, which stand at these places; what matters most comes first, and a
/// number that would stand on another number or mark is left out.
fn numbers(marks: &[(usize, f64, f64)]) -> String {
    let mut svg = String::new();
    let mut taken: Vec<(f64, f64, f64)> = Vec::new();
    for &(cell, x, y) in marks {
        let name = (cell + 1).to_string();
        let width = 7.5 * name.len() as f64;
        // Left end and middle of the line of each place that comes into question.
        let free = [
            (x + 8.0, y - 10.0),
            (x - 8.0 - width, y + 10.0),
            (x + 8.0, y + 10.0),
            (x - 8.0 - width, y - 10.0),
        ]
        .into_iter()
        .find(|&(left, middle)| {
            let apart = |from: f64, to: f64, height: f64, reach: f64| {
                left > to + 1.0 || left + width < from - 1.0 || (middle - height).abs() > reach
            };
            left > 0.0
                && left + width < super::svg::WIDTH
                && taken.iter().all(|&(from, to, height)| apart(from, to, height, 12.0))
                && marks.iter().all(|&(other, x, y)| other == cell || apart(x - 5.0, x + 5.0, y, 10.0))
        });
        let Some((left, middle)) = free else { continue };
        taken.push((left, left + width, middle));
        let _ =
            writeln!(svg, "<text class=\"number\" x=\"{left:.1}\" y=\"{:.1}\">{name}</text>", middle + 4.5);
    }
    svg
}

/// How much worse than the best each configuration is, with what the evidence allows, and the tolerance as a band.
/// Nothing where nothing but the losses is known.
pub(super) fn differences(shown: &Shown<'_>) -> String {
    let Some(decision) = &shown.decision else { return String::new() };
    let mut rows: Vec<(usize, super::Interval)> = shown
        .intervals
        .iter()
        .enumerate()
        .filter_map(|(cell, interval)| Some((cell, (*interval)?)))
        .collect();
    rows.retain(|(_, i)| [i.difference, i.low, i.high].iter().all(|x| x.is_finite()));
    if rows.is_empty() {
        return String::new();
    }
    rows.sort_by(|a, b| a.1.difference.total_cmp(&b.1.difference));
    let left_out = rows.len().saturating_sub(DIFFERENCES);
    rows.truncate(DIFFERENCES);
    let tolerance = 100.0 * decision.tolerance.fraction();
    let ends = rows.iter().flat_map(|(_, i)| [100.0 * i.low, 100.0 * i.high]);
    let n = rows.len() as f64;
    let axes = (
        Axis::over(ends.chain([0.0, tolerance]), false, 0.04, "above the best loss, per cent of it"),
        Axis::over([0.5, n + 0.5], false, 0.0, "configuration"),
    );
    let (Some(x), Some(y)) = axes else { return String::new() };
    let height = 24.0 * n + 70.0;
    let frame = Frame::new(x, y).of_height(height);
    let row = |place: usize| n - place as f64;
    let names: Vec<(f64, String)> =
        rows.iter().enumerate().map(|(place, (cell, _))| (row(place), (cell + 1).to_string())).collect();
    let mut marks = String::new();
    if let (Some(left), Some(right), Some(top), Some(bottom)) =
        (frame.x(0.0), frame.x(tolerance), frame.y(n + 0.5), frame.y(0.5))
    {
        let _ = writeln!(
            marks,
            "<rect class=\"band\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            right - left,
            bottom - top
        );
    }
    for (place, (cell, interval)) in rows.iter().enumerate() {
        let at = |value: f64| frame.x(100.0 * value);
        let (Some(low), Some(high), Some(middle), Some(y)) =
            (at(interval.low), at(interval.high), at(interval.difference), frame.y(row(place)))
        else {
            continue;
        };
        let _ =
            writeln!(marks, "<path class=\"bar\" d=\"M{low:.1} {:.1}v10m0 -5H{high:.1}m0 -5v10\"/>", y - 5.0);
        let kind = match *cell {
            cell if cell == decision.chosen => Mark::Chosen,
            cell if cell == decision.best => Mark::Best,
            _ => Mark::Front,
        };
        let told = format!(
            "no. {}: {}: {} ({} to {})",
            cell + 1,
            shown.name(*cell),
            percent(interval.difference),
            percent(interval.low),
            percent(interval.high)
        );
        marks += &kind.at(middle, y, &told);
    }
    let told = format!(
        "How far {} are above the best loss, with intervals; the band is the tolerance, 0 to {tolerance} %. The table has the numbers.",
        count(rows.len(), "configuration")
    );
    let mut caption = "The band is the tolerance. What lies in it as a whole is as good as the best; what lies beyond it as a whole is worse; the rest is undecided.".to_string();
    if left_out > 0 {
        let _ =
            write!(caption, " {} with greater differences are not shown.", count(left_out, "configuration"));
    }
    let svg = frame.axes(Some(&names)) + &frame.inside("differences", &marks);
    figure("differences", height, &told, "Differences from the best", &svg, &caption)
}

/// The losses of a grid of two keys as a table whose cells are the darker the lower.
pub(super) fn heatmap(shown: &Shown<'_>) -> String {
    let study = shown.study;
    let axes: Vec<_> = study.spec.grid.axes().iter().filter(|axis| axis.values.len() > 1).collect();
    let [rows, columns] = axes[..] else { return String::new() };
    if rows.values.len() > MAP || columns.values.len() > MAP || shown.compared().count() == 0 {
        return String::new();
    }
    // Of an ablation the map has the configurations without a change.
    let is_there = |cell: &usize| study.base_of(*cell).is_none_or(|base| base == *cell);
    let losses = || shown.compared().filter(is_there).map(|cell| shown.candidates[cell].loss);
    let (low, high) = losses().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
    let value = |value| diapason_study::value_text(value);
    let (row_key, column_key) = (rows.key.as_str(), columns.key.as_str());
    let mut html = format!(
        "<figure class=\"map\">\n<h3>Loss by {} and {}</h3>\n\
         <div class=\"scroll\" role=\"region\" aria-label=\"Map of losses\" tabindex=\"0\">\n<table class=\"map\">\n<thead>\n\
         <tr><td></td><th scope=\"colgroup\" colspan=\"{}\">{}</th></tr>\n<tr><th scope=\"col\">{}</th>",
        text(row_key),
        text(column_key),
        columns.values.len(),
        text(column_key),
        text(row_key)
    );
    for column in &columns.values {
        let _ = write!(html, "<th scope=\"col\">{}</th>", text(&value(column)));
    }
    html += "</tr>\n</thead>\n<tbody>\n";
    let mut stopped = false;
    for row in &rows.values {
        let _ = write!(html, "<tr><th scope=\"row\">{}</th>", text(&value(row)));
        for column in &columns.values {
            let cell = study.cells.iter().position(|cell| {
                cell.params.text(row_key) == Some(value(row))
                    && cell.params.text(column_key) == Some(value(column))
            });
            let candidate = cell.map(|cell| &shown.candidates[cell]);
            html += &match candidate {
                Some(candidate) if candidate.left_out.is_none() && candidate.loss.is_finite() => {
                    let depth = if high > low { (high - candidate.loss) / (high - low) } else { 1.0 };
                    let chosen = cell == shown.chosen();
                    let (class, star) = if chosen { (" class=\"chosen\"", "★ ") } else { ("", "") };
                    format!(
                        "<td{class} style=\"--depth:{:.0}%\">{star}{:.4}</td>",
                        6.0 + 54.0 * depth,
                        candidate.loss
                    )
                }
                Some(candidate) => match candidate.left_out.as_deref() {
                    Some("not finished") => "<td>…</td>".to_string(),
                    Some(reason) if reason.starts_with("dropped at ") || reason.starts_with("pruned") => {
                        let loss = cell.and_then(|cell| shown.dropped[cell]);
                        stopped |= loss.is_some();
                        format!(
                            "<td class=\"pruned\" title=\"{}\">{}</td>",
                            text(reason),
                            loss.map_or("pruned".to_string(), |(loss, _)| format!("× {loss:.4}"))
                        )
                    }
                    reason => format!(
                        "<td class=\"failure\" title=\"{}\">failed</td>",
                        text(reason.unwrap_or_default())
                    ),
                },
                None => "<td></td>".to_string(),
            };
        }
        html += "</tr>\n";
    }
    let of = format!("{} reading", shown.pass);
    html + &format!(
        "</tbody>\n</table>\n</div>\n<figcaption>The deeper the colour, the lower the loss ({of}); ★ chosen{}.</figcaption>\n</figure>\n",
        if stopped { "; × stopped early, with the loss there" } else { "" }
    )
}

/// The loss against sizes, where the grid spans enough of them.
pub(super) fn fits(shown: &Shown<'_>) -> String {
    let compared: Vec<usize> = shown.compared().collect();
    let fits = fits::fits(shown.study, &shown.candidates, &shown.readings, &compared);
    fits.iter().map(|fit| fit_plot(shown, fit)).collect()
}

fn fit_plot(shown: &Shown<'_>, fit: &Fit) -> String {
    let (size, what) = (|p: &(u64, f64)| p.0 as f64, fit.against.name());
    let axes = (
        Axis::over(fit.points.iter().map(size), true, 0.05, what),
        Axis::over(fit.points.iter().map(|p| p.1), true, 0.1, "validation loss, nats per character"),
    );
    let ((Some(x), Some(y)), Some(first), Some(last)) = (axes, fit.points.first(), fit.points.last()) else {
        return String::new();
    };
    let frame = Frame::new(x, y);
    let mut marks = format!(
        "<polyline class=\"frontline\" points=\"{}\"/>\n",
        frame.points([first, last].map(|p| (size(p), fit.at(size(p)))))
    );
    for (point, &cell) in fit.points.iter().zip(&fit.cells) {
        let (Some(x), Some(y)) = (frame.x(size(point)), frame.y(point.1)) else { continue };
        let kind = if shown.chosen() == Some(cell) { Mark::Chosen } else { Mark::Front };
        let told = format!(
            "no. {}: {}: {} {what}, loss {:.4}",
            cell + 1,
            shown.name(cell),
            thousands(point.0),
            point.1
        );
        marks += &kind.at(x, y, &told);
    }
    let caption = format!(
        "A {}. The interval holds if the points lie about a line by chance. The line holds for this text and this range only, where all were trained alike; beyond it a loss falls more slowly, since no text can be foretold entirely.",
        fit.text()
    );
    let told = format!(
        "Loss against {what} on logarithmic axes, {} between {} and {}; exponent {}.",
        count(fit.points.len(), "size"),
        thousands(first.0),
        thousands(last.0),
        fit.exponent_text()
    );
    let (id, heading) = match fit.against {
        Size::Parameters => ("fit-parameters", "Loss and size of the model"),
        Size::TrainingCharacters => ("fit-characters", "Loss and amount of training"),
    };
    let svg = frame.axes(None) + &frame.inside(id, &marks);
    figure("fit", HEIGHT, &told, heading, &svg, &caption)
}
