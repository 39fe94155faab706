//! The table of a study: one line per configuration, early and full side by side.

use crate::fits::{self, Fit};
use crate::stopped;
use crate::table::{Align, Column, Table};
use crate::{Bounds, RESULTS_FILE};
use diapason_study::{
    CellReading, Certainty, Cost, Grounds, Interval, Need, Pass, PassDecision, SEED_EARLY_STEP, SEED_LABEL,
    SeedNumbers, Standing, Study, Timings, Verdict, percent, seed_numbers,
};
use diapason_training::{Counting, Protocol};
use std::collections::BTreeMap;
use std::f64::consts::LN_2;

/// One pass of all cells, and the seed's numbers where it trained the same.
pub(crate) struct PassColumns {
    /// `early, 4000 steps`; with a budget `full, 10min each`.
    pub(crate) group: String,
    pub(crate) readings: Vec<CellReading>,
    /// Whether some cell has done other than the steps that the group's name says.
    pub(crate) other_steps: bool,
    pub(crate) seed: Vec<Option<&'static SeedNumbers>>,
    /// By how much each cell is worse than the best, as fractions of the best loss; empty if that is not known.
    pub(crate) intervals: Vec<Option<Interval>>,
    /// What that means for each; empty as well.
    pub(crate) standings: Vec<Option<Standing>>,
}

/// The cells of `study` as a table.
pub(crate) fn table(study: &Study) -> Table {
    let chosen = study.verdict().map(|verdict| verdict.chosen);
    let mut table = Table::default();
    let marks = study.cells.iter().map(|cell| if Some(&cell.params) == chosen.as_ref() { "*" } else { "" });
    table.push(Column::new("", "", 0, Align::Left, marks.map(str::to_string).collect()));
    for (key, cells) in what_differs(study) {
        let align = if key == CHANGE { Align::Left } else { Align::Right };
        table.push(Column::new("", key, 0, align, cells));
    }
    let passes: Vec<PassColumns> = study.passes().iter().map(|&pass| columns(study, pass)).collect();
    if let Some(full) = passes.last() {
        let counts =
            full.readings.iter().map(|reading| reading.parameters.map(thousands).unwrap_or_default());
        table.push(Column::new("", "parameters", 3, Align::Right, counts.collect()));
    }
    for pass in &passes {
        push_pass(&mut table, study, pass);
    }
    if let Some(full) = passes.last() {
        let speed = |reading: &CellReading| Some(reading.tokens_per_second).filter(|speed| speed.is_finite());
        let speeds =
            full.readings.iter().map(|r| speed(r).map(|s| thousands(s.round() as u64)).unwrap_or_default());
        table.push(Column::new("", "tokens/s", 6, Align::Right, speeds.collect()));
    }
    table
}

/// Name of the column that says what an ablation changed.
const CHANGE: &str = "change";

/// What the cells differ in, by column: the keys that vary; of an ablation, in which most rows would be blank in most of
/// these, the keys of its grid and what was changed.
pub(crate) fn what_differs(study: &Study) -> Vec<(&str, Vec<String>)> {
    let column = |key| study.cells.iter().map(|cell| cell.params.text(key).unwrap_or_default()).collect();
    let ablated = |key: &str| study.spec.ablate.axis(key).is_some();
    let mut columns: Vec<(&str, Vec<String>)> =
        study.keys().into_iter().filter(|key| !ablated(key)).map(|key| (key, column(key))).collect();
    if !study.spec.ablate.is_empty() {
        let changes = study.cells.iter().map(|cell| {
            // One by the ablation itself; what other programs enqueue may change several.
            let changed = cell.params.pairs().filter(|(key, _)| ablated(key));
            let changed: Vec<String> = changed.map(|(key, value)| format!("{key}={value}")).collect();
            if changed.is_empty() { "none".to_string() } else { changed.join(" ") }
        });
        columns.push((CHANGE, changes.collect()));
    }
    columns
}

/// By how much the loss of each cell differs from that of the one without its change, in nats; blank where there is no
/// change, or no loss.
pub(crate) fn from_base(study: &Study, readings: &[CellReading]) -> Vec<String> {
    let difference = |cell: usize| {
        let base = study.base_of(cell).filter(|base| *base != cell)?;
        let counts = |cell: usize| readings[cell].left_out.is_none();
        let difference = readings[cell].loss - readings[base].loss;
        (counts(cell) && counts(base) && difference.is_finite()).then(|| format!("{difference:+.4}"))
    };
    (0..readings.len()).map(|cell| difference(cell).unwrap_or_default()).collect()
}

pub(crate) fn columns(study: &Study, pass: Pass) -> PassColumns {
    let readings = study.readings(pass);
    // Where the pass is read, as planned, or where the notebook's rule ended it.
    let steps: Vec<Option<u64>> = study
        .cells
        .iter()
        .zip(&readings)
        .map(|(cell, reading)| {
            let read = Some(reading.steps).filter(|steps| steps.is_finite()).map(|steps| steps as u64);
            study.planned_steps(cell, pass).or(read)
        })
        .collect();
    let mut distinct: Vec<u64> = steps.iter().flatten().copied().collect();
    distinct.sort_unstable();
    distinct.dedup();
    // With a budget it is what all have in common, and the steps stand in a column.
    let common = if let ([steps], None) = (&distinct[..], study.spec.budget) { Some(*steps) } else { None };
    let seed = study
        .cells
        .iter()
        .zip(&steps)
        .map(|(cell, &steps)| match (pass, study.spec.protocol) {
            // Wherever its rule ends our run: its own run ended here.
            (Pass::Early, Protocol::AsSeed) => seed_numbers(&cell.config, SEED_EARLY_STEP),
            _ => seed_numbers(&cell.config, steps?),
        })
        .collect();
    let decided = study.decision(pass);
    PassColumns {
        group: match (pass, study.spec.budget, common) {
            (Pass::Full, Some(budget), _) => format!("{pass}, {budget} each"),
            (Pass::Early, Some(_), _) => {
                format!("{pass}, {} of the steps", percent(study.spec.early_fraction))
            }
            (_, None, Some(steps)) => format!("{pass}, {steps} steps"),
            (_, None, None) => pass.to_string(),
        },
        other_steps: readings
            .iter()
            .any(|r| r.steps.is_finite() && Some(r.steps) != common.map(|n| n as f64)),
        readings,
        seed,
        intervals: decided.as_ref().map(intervals).unwrap_or_default(),
        standings: decided
            .and_then(|decided| Some(decided.grounds.ok()?.weighed.standings))
            .unwrap_or_default(),
    }
}

/// The intervals of a decision as fractions of the best loss; empty if there are none.
pub(crate) fn intervals(decided: &PassDecision) -> Vec<Option<Interval>> {
    let Ok(Grounds { evidence, .. }) = &decided.grounds else { return Vec::new() };
    let part = |nats: f64| nats / evidence.loss.abs();
    let of = |interval: &Option<Interval>| {
        interval.map(|Interval { difference, low, high }| Interval {
            difference: part(difference),
            low: part(low),
            high: part(high),
        })
    };
    evidence.intervals.iter().map(of).collect()
}

/// `0.35 to 1.15 %`, from fractions.
pub(crate) fn range(interval: Interval) -> String {
    format!("{:.2} to {:.2} %", 100.0 * interval.low, 100.0 * interval.high)
}

/// Which columns are dropped last when they do not fit: what decides, then what it is compared with.
fn push_pass(table: &mut Table, study: &Study, pass: &PassColumns) {
    let column = |title: &str, rank, cell: &dyn Fn(&CellReading, Option<Interval>) -> String| {
        let intervals = pass.intervals.iter().copied().chain(std::iter::repeat(None));
        let cells = pass.readings.iter().zip(intervals).map(|(reading, of)| cell(reading, of)).collect();
        Column::new(&pass.group, title, rank, Align::Right, cells)
    };
    let mut push = |title: &str, rank, cell: &dyn Fn(&CellReading, Option<Interval>) -> String| {
        table.push(column(title, rank, cell));
    };
    if study.several_seeds() {
        push("seeds", 4, &|r, _| r.seeds.to_string());
    }
    if pass.other_steps {
        push("steps", 4, &|r, _| number(r.steps, 0));
    }
    push("loss", 0, &|r, _| match &r.left_out {
        Some(reason) if reason == "not finished" => "...".to_string(),
        Some(_) => match r.dropped {
            Some((loss, _)) => format!("pruned {}", number(loss, 4)),
            None => "failed".to_string(),
        },
        None => number(r.loss, 4),
    });
    let changes = from_base(study, &pass.readings);
    table.push(Column::new(&pass.group, "by change", 0, Align::Right, changes));
    let mut push = |title: &str, rank, cell: &dyn Fn(&CellReading, Option<Interval>) -> String| {
        table.push(column(title, rank, cell));
    };
    if !pass.intervals.is_empty() {
        push("worse by", 3, &|_, of| of.map(range).unwrap_or_default());
    }
    push("bpc", 8, &|r, _| number(r.bpc, 4));
    push("accuracy", 5, &|r, _| share(r.accuracy));
    push("at last", 7, &|r, _| share(r.accuracy_last));
    push("seconds", 1, &|r, _| seconds(r.seconds));
    // As they went by, where that is something else.
    if pass.readings.iter().any(|r| seconds(r.seconds) != seconds(r.train_seconds)) {
        push("training s", 9, &|r, _| seconds(r.train_seconds));
    }
    let rank = if study.spec.cost == Cost::Flop { 1 } else { 9 };
    push("FLOP", rank, &|r, _| if r.flop.is_finite() { format!("{:.2e}", r.flop) } else { String::new() });
    let mut push_seed = |title: &str, rank, cell: &dyn Fn(&SeedNumbers) -> String| {
        let cells = pass.seed.iter().map(|row| row.map(cell).unwrap_or_default()).collect();
        table.push(Column::new(&pass.group, title, rank, Align::Right, cells));
    };
    push_seed("seed's", 2, &|row| number(row.loss, 4));
    push_seed("seed's s", 6, &|row| seconds(row.seconds));
}

/// What stands under the table: one paragraph a line.
pub(crate) fn notes(study: &Study, bounds: &Bounds) -> Vec<String> {
    let mut notes = Vec::new();
    let timed = study.timed();
    let mut legend = "loss in nats per character of the validation text, bpc in bits".to_string();
    if timed.is_none() {
        legend += "; seconds are training steps alone";
    }
    if study.verdict().is_some() {
        legend = format!("* chosen; {legend}");
    }
    if study.several_seeds() {
        legend += ", means over seeds";
    }
    if study.decided().is_some_and(|decided| decided.grounds.is_ok()) {
        legend += "; worse by: than the truly best one, 95 % intervals that hold all at once";
    }
    if !study.spec.ablate.is_empty() {
        legend += "; by change: how much the loss differs from that without the change, nats";
    }
    notes.push(legend);
    let is_base = |cell: usize| study.base_of(cell) == Some(cell);
    let full = study.readings(Pass::Full);
    if (0..full.len()).any(|cell| is_base(cell) && full[cell].left_out.is_some()) {
        notes.push(
            "what a change does to the loss is not known where the base has no full result".to_string(),
        );
    }
    notes.extend(further_seeds(study));
    let together = study.trials.iter().filter_map(|trial| trial.record.as_ref()?.trials_at_once);
    let together = together.filter(|trials| *trials > 1.0).max_by(f64::total_cmp);
    if let Some(Timings { machine, threads, .. }) = timed {
        let mut note = format!(
            "seconds are the steps times what one takes alone on {threads} threads, timed before training on {} ({})",
            machine.host, machine.processor
        );
        if together.is_some() {
            note += &format!("; trials ran side by side, and the times that they took are in {RESULTS_FILE}");
        }
        notes.push(note);
    } else if let (Some(_), Some(most)) = (together, study.most_threads()) {
        notes.push(format!(
            "trials ran side by side: seconds are scaled as if each had had {most} threads, which is a rough comparison"
        ));
    }
    if study.passes().iter().any(|&pass| columns(study, pass).seed.iter().any(Option::is_some)) {
        notes.push(format!("seed's: {SEED_LABEL}; this study: {}, on this machine", study.spec.corpus.name));
    }
    if let Some(rate) = bounds.entropy_rate {
        let mut note = format!(
            "the text's entropy rate is {rate:.4} nats ({:.4} bits) per character: no model can do better",
            rate / LN_2
        );
        if let Some(floor) = bounds.window_floor {
            note += &format!("; with windows alone as context, {floor:.4} nats ({:.4} bits)", floor / LN_2);
        }
        if let Some(decided) = study.decided() {
            let loss = decided.candidates[decided.decision.chosen].loss;
            note += &format!(
                "; the chosen configuration is {:.4} nats above {}",
                loss - bounds.window_floor.unwrap_or(rate),
                if bounds.window_floor.is_some() { "that" } else { "it" }
            );
        }
        notes.push(note);
    }
    notes.extend(bounds.counting.map(|counting| against_counting(study, counting)));
    for trial in &study.trials {
        if let Some(failure) = trial.record.as_ref().and_then(|record| record.failure.as_ref()) {
            notes.push(format!(
                "failed: trial {}, {}, seed {}: {}",
                trial.shown_number(),
                study.cells[trial.cell].params,
                trial.seed,
                failure.message
            ));
        }
    }
    notes.extend(engines(study));
    if study.spec.protocol == Protocol::AsSeed {
        let lost = study.lost_by_seed_rule();
        for row in &lost {
            notes.push(format!(
                "the notebook's early pass would have left no number for {}, seed {}: its last evaluation was an \
                 improvement, but not the fifth",
                row.params, row.seed
            ));
        }
        if lost.is_empty() && is_over(study) {
            notes.push("the notebook's rule would have lost none of these cells".to_string());
        }
    }
    let over = study.trials.iter().filter(|trial| study.is_over(trial)).count();
    if over < study.trials.len() {
        notes.push(format!(
            "{} of {} trials have not finished; the same command continues",
            study.trials.len() - over,
            study.trials.len()
        ));
    }
    notes
}

/// What counting alone comes to, and what the choice is worth beside it.
fn against_counting(study: &Study, Counting { order, context, loss }: Counting) -> String {
    let mut note = format!(
        "counting {order}-grams of the training text, with no model at all and windows of {context} characters, comes to {loss:.4} nats ({:.4} bits) per character",
        loss / LN_2
    );
    if let Some(decided) = study.decided() {
        let chosen = decided.candidates[decided.decision.chosen].loss;
        note += &if chosen < loss {
            format!("; the chosen configuration is {:.4} nats better than that", loss - chosen)
        } else {
            format!(
                "; the chosen configuration is {:.4} nats worse: it needs more training, or is too small",
                chosen - loss
            )
        };
    }
    note
}

/// Why the table and the verdict may say different differences, if they may.
fn further_seeds(study: &Study) -> Option<String> {
    let readings = study.readings(study.decided()?.pass);
    let common = readings.iter().map(|reading| reading.seeds).max()?;
    let further: Vec<String> = (study.cells.iter().zip(&readings))
        .filter(|(_, reading)| reading.further > 0)
        .map(|(cell, reading)| format!("{} of {}", reading.further, cell.params))
        .collect();
    let seeds = if common == 1 { "the one seed".to_string() } else { format!("the {common} seeds") };
    (!further.is_empty()).then(|| {
        format!(
            "the table's losses are of {seeds} that all configurations have; the verdict and its intervals also count further seeds, without the luck of each: {}",
            further.join(", ")
        )
    })
}

/// Whether no trial is left to be done.
pub(crate) fn is_over(study: &Study) -> bool {
    study.trials.iter().all(|trial| study.is_over(trial))
}

/// What was decided on the way: a paragraph for each comparison.
pub(crate) fn decisions(study: &Study) -> Vec<String> {
    let warning =
        study.spec.rule.not_reproducible().map(|warning| format!("rule {}: {warning}", study.spec.rule));
    study.decisions.iter().map(|decision| decision.text()).chain(warning).collect()
}

/// The answer before all figures, a sentence each: what the choice costs and brings, why it was made, how certain it is,
/// and what is missing.
pub(crate) fn answer(study: &Study) -> Vec<(&'static str, String)> {
    let (Some(decided), Some(verdict)) = (study.decided(), study.verdict()) else { return Vec::new() };
    let mut lines = Vec::new();
    let decision = &decided.decision;
    if let Some(compared) = decision.comparison(decision.chosen).filter(|_| decision.chosen != decision.best)
    {
        let (chosen, best) = (&decided.candidates[decision.chosen], &decided.candidates[decision.best]);
        let cost = study.spec.cost;
        lines.push((
            "Price",
            format!(
                "{} more loss for {}: {:.4} instead of {:.4} nats per character, {} instead of {}",
                percent(compared.difference),
                cost_in_words(cost, compared.cost_difference),
                chosen.loss,
                best.loss,
                cost.text(chosen.cost),
                cost.text(best.cost)
            ),
        ));
    }
    lines.push(("Why", verdict.reason));
    if let Some(line) = stopped::stopped(study) {
        lines.push(("Stopped early", line));
    }
    let certainty = match verdict.certainty {
        Some(Certainty::Decided) => {
            "decided: with 95 % confidence no other choice would be right, for other text of this kind and other seeds"
                .to_string()
        }
        _ => verdict.certainty_text,
    };
    match certainty.split_once(": ").filter(|_| verdict.certainty.is_some_and(|c| c != Certainty::Decided)) {
        Some((certainty, missing)) => {
            lines.push(("Certainty", certainty.to_string()));
            let seeds = decided.grounds.as_ref().ok().and_then(|grounds| grounds.weighed.missing.as_ref());
            let seeds = seeds.is_some_and(|m| matches!(m.need, Need::SecondSeed | Need::Seeds(_)));
            let trains = seeds && is_over(study) && study.spec.until_decided.is_none();
            let how = if trains { "; the same command with --until-decided trains them" } else { "" };
            lines.push(("Missing", format!("{missing}{how}")));
        }
        None => lines.push(("Certainty", certainty)),
    }
    lines
}

/// The lines through losses and sizes for which the study has enough of them.
pub(crate) fn fits(study: &Study) -> Vec<Fit> {
    let Some(decided) = study.decided() else { return Vec::new() };
    let compared: Vec<usize> = decided.decision.compared.iter().map(|compared| compared.candidate).collect();
    fits::fits(study, &decided.candidates, &study.readings(decided.pass), &compared)
}

/// Shares that have a name, with what they are called.
const SHARES: [(f64, &str); 8] = [
    (0.1, "a tenth"),
    (0.2, "a fifth"),
    (0.25, "a quarter"),
    (1.0 / 3.0, "a third"),
    (0.5, "half"),
    (2.0 / 3.0, "two thirds"),
    (0.75, "three quarters"),
    (0.9, "nine tenths"),
];

/// `half the time`, where the share is within a twentieth of one that has a name; else `38 % less time`.
fn cost_in_words(cost: Cost, difference: f64) -> String {
    let share = 1.0 + difference;
    let of = match cost {
        Cost::Seconds => "the time",
        Cost::Flop => "the computation",
        Cost::Parameters => "the parameters",
    };
    match SHARES.iter().find(|(named, _)| (share / named - 1.0).abs() < 0.05) {
        Some((_, "half")) => format!("half {of}"),
        Some((_, name)) => format!("{name} of {of}"),
        None => cost.difference(difference),
    }
}

/// What to know where not all was computed by one arithmetic.
fn engines(study: &Study) -> Vec<String> {
    let mut notes = Vec::new();
    let records = || study.trials.iter().filter_map(|trial| Some((trial, trial.record.as_ref()?)));
    let mut by_engine: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (trial, record) in records().filter(|(_, record)| !record.engine.is_empty()) {
        by_engine.entry(&record.engine).or_default().push(trial.shown_number().to_string());
    }
    if by_engine.len() > 1 {
        let engines: Vec<String> = by_engine
            .iter()
            .map(|(engine, numbers)| {
                let trials = if numbers.len() == 1 { "trial" } else { "trials" };
                format!("{engine} ({trials} {})", numbers.join(", "))
            })
            .collect();
        notes.push(format!(
            "the trials were computed by different engines, and small differences between them may be the \
             engines': {}",
            engines.join("; ")
        ));
    }
    for (trial, record) in records().filter(|(_, record)| !record.other_engines.is_empty()) {
        notes.push(format!(
            "trial {} went on with another engine, {}, than it began with, {}: its result is neither's",
            trial.shown_number(),
            record.engine,
            record.other_engines.join(", ")
        ));
    }
    notes
}

/// The reasoning of each pass, and at the end the choice.
pub(crate) fn reasoning(study: &Study) -> Vec<String> {
    let mut lines = Vec::new();
    let mut choices = Vec::new();
    for &pass in study.passes() {
        let Some(decided) = study.decision(pass) else { continue };
        let mut explained = decided.decision.explain(&decided.candidates, study.spec.cost);
        // Its last line names the choice: there is one such line in all, at the end.
        explained.pop();
        lines.push(format!("{}:", columns(study, pass).group));
        if let Ok(Grounds { evidence, weighed }) = &decided.grounds {
            explained.extend(weighed.explain(evidence));
        }
        lines.extend(explained.iter().map(|line| format!("  {line}")));
        lines.push(format!("  choice of this pass: {}", decided.chosen()));
        choices.push(decided.chosen().clone());
    }
    if let [early, full] = &choices[..] {
        lines.push(if early == full {
            "both passes choose the same configuration".to_string()
        } else {
            "the passes choose different configurations: the full one decides".to_string()
        });
    }
    match study.verdict() {
        Some(Verdict { chosen, reason, certainty_text, .. }) => {
            lines.push(format!("verdict: {reason}"));
            lines.push(format!("certainty: {certainty_text}"));
            lines.push(format!("chosen: {chosen}"));
        }
        None => lines.push("no verdict yet: no configuration has a result".to_string()),
    }
    lines
}

pub(crate) fn number(value: f64, decimals: usize) -> String {
    if value.is_finite() { format!("{value:.decimals$}") } else { String::new() }
}

pub(crate) fn share(value: f64) -> String {
    if value.is_finite() { format!("{:.1} %", 100.0 * value) } else { String::new() }
}

pub(crate) fn seconds(value: f64) -> String {
    let decimals = match value.abs() {
        0.0..0.95 => 3,
        0.95..9_999.5 => 1,
        _ => 0,
    };
    number(value, decimals)
}

/// `3,202,048`.
pub(crate) fn thousands(n: u64) -> String {
    thousands_of(&n.to_string())
}

/// The same for digits that are written already, with a sign or without.
pub(crate) fn thousands_of(digits: &str) -> String {
    if let Some(digits) = digits.strip_prefix('-') {
        return format!("-{}", thousands_of(digits));
    }
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!([0, 12, 999, 1_000, 3_202_048].map(thousands), ["0", "12", "999", "1,000", "3,202,048"]);
        assert_eq!(seconds(331.13), "331.1");
        assert_eq!(seconds(12_345.6), "12346");
        assert_eq!(seconds(f64::NAN), "");
        assert_eq!(share(0.5557), "55.6 %");
    }

    #[test]
    fn costs_in_words() {
        let said = [-0.4923, -0.68, -0.76, -0.8, -0.38, 0.0, 0.5].map(|d| cost_in_words(Cost::Seconds, d));
        assert_eq!(
            said,
            [
                "half the time",
                "a third of the time",
                "a quarter of the time",
                "a fifth of the time",
                "38 % less time",
                "0 % less time",
                "50 % more time"
            ]
        );
    }
}
