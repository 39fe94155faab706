//! What was stopped before its last step: by which rule, after what, and what it cost.
//!
//! Whoever sees a curve that ends in the midst wants to know who ended it and whether that was fair. So each comparison is
//! shown with all that took part in it: loss, cost, and why it went on or did not.

use crate::html::count;
use crate::summary::{number, seconds, thousands};
use diapason_study::{Rule, RungCandidate, RungDecision, Study, Trial, TrialRecord, TrialState, percent};

/// The rule, a sentence for each thing to know; nothing if no trial was or will be stopped.
pub(crate) fn outline(study: &Study) -> Vec<String> {
    let mut lines = Vec::new();
    let rule = &study.spec.rule;
    match rule {
        Rule::Halving(rungs) | Rule::Hyperband(rungs) => lines.push(format!(
            "Rule {rule}: at some steps on the way, the rungs, configurations are compared; about one in {} goes on from its \
             checkpoint, those first that the verdict could still choose, and the others are stopped",
            rungs.eta
        )),
        Rule::Median(_) => lines.push(format!(
            "Rule {rule}: a trial is stopped that is worse than half of those before it were at the same step"
        )),
        Rule::None => {}
        rule => lines.push(format!("Rule {rule}")),
    }
    let patient =
        study.trials.iter().filter(|trial| trial.record.as_ref().is_some_and(|r| r.stopped_early)).count();
    if patient > 0 {
        lines.push(format!(
            "{} ended by patience: {} evaluations without an improvement of {} nats",
            count(patient, "trial"),
            study.spec.config.patience,
            study.spec.config.min_improvement
        ));
    }
    if let Some(warning) = rule.not_reproducible() {
        lines.push(format!("Under this rule the study is {warning}"));
    }
    lines
}

/// How many trials a rule stopped, and what they have cost; none if it stopped none.
pub(crate) fn stopped(study: &Study) -> Option<String> {
    let records = || study.trials.iter().filter_map(|trial| trial.record.as_ref());
    let stopped = || records().filter(|record| record.state == TrialState::Pruned);
    let flop = |record: &TrialRecord| record.steps as f64 * record.flop_per_step;
    let (all, of_stopped): (f64, f64) = (records().map(flop).sum(), stopped().map(flop).sum());
    if stopped().count() == 0 || all <= 0.0 {
        return None;
    }
    Some(format!(
        "{} of {} stopped; they took {} of the training that was done",
        count(stopped().count(), "trial"),
        study.trials.len(),
        percent(of_stopped / all)
    ))
}

/// The place in the grid of a configuration that took part in a comparison; none if the study has it no more.
pub(crate) fn cell(study: &Study, candidate: &RungCandidate) -> Option<usize> {
    let stored =
        |trial: &&Trial| trial.stored.as_ref().is_some_and(|stored| stored.cell_key() == candidate.cell);
    let by_params = || study.cells.iter().position(|cell| cell.params == candidate.params);
    study.trials.iter().find(stored).map(|trial| trial.cell).or_else(by_params)
}

/// Trials that were stopped at no rung, in words.
pub(crate) fn others(study: &Study) -> Vec<String> {
    let at_rung = |trial: &Trial| {
        let of = |decision: &RungDecision| {
            let dropped = |c: &RungCandidate| !c.goes_on && cell(study, c) == Some(trial.cell);
            Some(decision.bracket) == trial.bracket && decision.candidates.iter().any(dropped)
        };
        study.decisions.iter().any(of)
    };
    let of = |trial: &Trial| {
        let why = study.dropped(trial).filter(|_| !at_rung(trial))?;
        let seed = if study.several_seeds() { format!(", seed {}", trial.seed) } else { String::new() };
        Some(format!("trial {}, {}{seed}: {why}", trial.shown_number(), study.cells[trial.cell].params))
    };
    study.trials.iter().filter_map(of).collect()
}

/// `Step 222: 3 of 9 configurations go on to step 667`.
pub(crate) fn heading(study: &Study, decision: &RungDecision) -> String {
    let several = study.decisions.iter().any(|other| other.bracket != decision.bracket);
    let bracket = if several { format!("Bracket {}, step", decision.bracket) } else { "Step".to_string() };
    format!(
        "{bracket} {}: {} of {} configurations go on to step {}",
        thousands(decision.step),
        decision.kept(),
        decision.candidates.len(),
        thousands(decision.next)
    )
}

/// Those that took part, what went on first, then by loss.
pub(crate) fn ordered(decision: &RungDecision) -> Vec<&RungCandidate> {
    let mut candidates: Vec<&RungCandidate> = decision.candidates.iter().collect();
    let loss = |candidate: &RungCandidate| candidate.loss.unwrap_or(f64::INFINITY);
    candidates.sort_by(|a, b| b.goes_on.cmp(&a.goes_on).then(loss(a).total_cmp(&loss(b))));
    candidates
}

/// A cost of a decision in the digits that its unit needs.
pub(crate) fn cost(decision: &RungDecision, candidate: &RungCandidate) -> String {
    match candidate.cost {
        None => String::new(),
        Some(cost) if decision.cost.starts_with("FLOP") => format!("{cost:.2e}"),
        Some(cost) if decision.cost == "parameters" => number(cost, 0),
        Some(cost) => seconds(cost),
    }
}
