//! Where and how a study was made: the same facts on the page, in Markdown and in JSON.

use crate::Extras;
use crate::html::{cost_name, count};
use crate::summary::number;
use diapason_study::{Machine, STUDY_FILE, Study, percent, value_text};
use diapason_training::{Budget, Config, Protocol};
use std::collections::BTreeSet;

/// Name and value of each, those without a value left out.
pub(crate) fn facts(study: &Study) -> Vec<(&'static str, String)> {
    let mut facts: Vec<(&str, String)> = Vec::new();
    let records = || study.trials.iter().filter_map(|trial| trial.record.as_ref());
    facts.push(("program", format!("Diapason {}", env!("CARGO_PKG_VERSION"))));
    let engines: BTreeSet<&str> = records()
        .flat_map(|r| std::iter::once(&r.engine).chain(&r.other_engines))
        .map(String::as_str)
        .filter(|engine| !engine.is_empty())
        .collect();
    // An engine's id is program version, instruction set and precision.
    let sets: BTreeSet<String> = engines
        .iter()
        .filter_map(|engine| match engine.split('/').collect::<Vec<_>>()[..] {
            [_, isa, precision] => Some(format!("{isa}, {precision}")),
            _ => None,
        })
        .collect();
    facts.push(("engine", engines.into_iter().collect::<Vec<_>>().join(", ")));
    facts.push(("instruction set, precision", sets.into_iter().collect::<Vec<_>>().join("; ")));
    if study.timings.is_empty() {
        // Nobody has written down where it was trained.
        facts.push(("this was written on", Machine::this().processor));
    }
    let timed = study.timings.iter().map(|timings| {
        let machine = &timings.machine;
        format!("{} ({}), {}", machine.processor, machine.host, count(timings.threads, "thread"))
    });
    facts.push(("steps timed on", timed.collect::<Vec<_>>().join("; ")));
    if let Some(threads) = study.most_threads() {
        let at_once = records().filter_map(|record| record.trials_at_once).max_by(f64::total_cmp);
        let mut line = format!("up to {} a trial", number(threads, usize::from(threads.fract() != 0.0)));
        if let Some(at_once) = at_once.filter(|n| *n > 1.0) {
            let decimals = usize::from(at_once.fract() != 0.0);
            line += &format!(", {} trials side by side", number(at_once, decimals));
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
    facts.push(("ablation", spec.ablate.to_string()));
    facts.push(("search", spec.search.as_ref().map(ToString::to_string).unwrap_or_default()));
    if let Some(budget) = spec.budget {
        facts.push(("budget", format!("{budget} of training for each configuration")));
    }
    let until = spec.until_decided.map(|most| format!(", and up to {most} where the verdict needs more"));
    facts.push(("seeds", format!("{}{}", spec.seeds, until.unwrap_or_default())));
    if !spec.rule.is_none() {
        facts.push(("rule", spec.rule.to_string()));
    }
    facts.push(("tolerance", percent(spec.tolerance)));
    facts.push(("cost", cost_name(spec.cost).to_string()));
    let drawn =
        |key: &str| spec.search.iter().flat_map(|search| &search.ranges).any(|range| range.key == key);
    let other: Vec<String> = spec
        .config
        .differences(&Config::default())
        .into_iter()
        .filter(|(key, ..)| spec.grid.axis(key).is_none() && !drawn(key))
        .map(|(key, value, _)| format!("{key}={}", value_text(&value)))
        .collect();
    facts.push(("other settings", other.join(" ")));
    facts.retain(|(_, value)| !value.is_empty());
    facts
}

/// What the command that makes the study is introduced with.
pub(crate) fn command_in_words(study: &Study) -> String {
    match study.spec.budget {
        // Steps are timed anew where nothing is known of them.
        Some(Budget::Seconds(_)) => format!(
            "This command makes the same study again, in a folder that has a copy of this one's {STUDY_FILE} and nothing else; \
             in an empty one each configuration has the steps for which the time then suffices:"
        ),
        _ => "This command makes the same study again, in a folder where it is not yet:".to_string(),
    }
}

/// Facts and command in Markdown.
pub(crate) fn to_markdown(study: &Study, extras: &Extras) -> String {
    use crate::table::escape_markdown as plain;
    let mut text = String::new();
    for (name, value) in facts(study) {
        text += &format!("- {name}: {}\n", plain(&value));
    }
    if let Some(command) = &extras.command {
        text += &format!("\n{}\n\n{}", command_in_words(study), crate::table::block(command));
    }
    text
}
