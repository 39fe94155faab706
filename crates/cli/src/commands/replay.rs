//! `replay`: what stopping rules would have done to a study that is finished.

use super::json;
use super::study::{Found, STUDIES, Table, find};
use crate::args::Replay;
use crate::failure::{Failure, note};
use diapason_storage::{Opening, StorageUrl, printable};
use diapason_study::{Cost, Home, Replayed, percent, read_curves, replay};
use serde_json::{Value as Json, json};
use std::io::{self, Write};
use std::path::Path;

pub(crate) fn run(args: &Replay) -> Result<(), Failure> {
    let Found { url, name, .. } = find(&args.database, args.name.as_deref(), Opening::Read)?;
    let folder = match &url {
        StorageUrl::Sqlite(path) => path.parent().unwrap_or(Path::new("")).to_path_buf(),
        StorageUrl::Postgres(_) => Path::new(STUDIES).join(super::slug(&name)),
    };
    let home = Home { folder, storage: url, name: Some(name.clone()) };
    let (study, curves) = read_curves(&home)?;
    // A rule that this study cannot be replayed under does not keep the others from it.
    let (mut replayed, mut refused) = (Vec::new(), Vec::new());
    for &rule in &args.rule {
        match replay(&study, &curves, rule) {
            Ok(of) => replayed.push(of),
            Err(error) => refused.push((rule, error)),
        }
    }
    let (cost, timed) = (study.spec.cost, study.timed().is_some());
    let Some(first) = replayed.first() else {
        return refused.into_iter().next().map_or(Ok(()), |(_, error)| Err(error.into()));
    };
    for (_, error) in &refused {
        note(&format!("left out: {error}"));
    }
    let mut out = io::stdout().lock();
    if args.json {
        let object = json!({
            "study": name,
            "chosen": first.full_chosen,
            "trials": first.trials,
            "left_out": first.left_out,
            "steps": first.all.steps,
            "seconds": first.all.seconds,
            "flop": first.all.flop,
            "cost": cost.name(),
            "timed": timed,
            "rules": replayed.iter().map(of_rule).collect::<Vec<_>>(),
            "refused": refused.iter().map(|(rule, error)| json!({ "rule": rule, "error": error.to_string() })).collect::<Vec<_>>(),
        });
        writeln!(out, "{}", json(&object)?)?;
        return Ok(out.flush()?);
    }
    let saved = match cost {
        Cost::Seconds => "time saved",
        Cost::Flop | Cost::Parameters => "FLOP saved",
    };
    let mut table =
        Table::new(&["rule", "chosen", "loss", "regret", "to best", "ended", "steps", "steps saved", saved]);
    for of in &replayed {
        let above = |regret: Option<f64>| regret.map_or("no result".to_string(), percent);
        table.push(vec![
            of.rule.to_string(),
            printable(&of.chosen.to_string()).into_owned(),
            format!("{:.4}", of.loss),
            above(of.regret),
            above(of.regret_to_best),
            format!("{} of {}", of.ended, of.trials),
            of.trained.steps.to_string(),
            percent(1.0 - of.trained.steps as f64 / of.all.steps as f64),
            percent(of.trained.saved(&of.all, cost)),
        ]);
    }
    writeln!(
        out,
        "{}: all {} trials to their end, {} steps, choose {}",
        printable(&name),
        first.trials,
        first.all.steps,
        printable(&first.full_chosen.to_string())
    )?;
    writeln!(out)?;
    table.write(&mut out, &["rule", "chosen"])?;
    out.flush()?;
    if first.left_out > 0 {
        note(&format!(
            "{} further trials of the study are left out: a rule meets the seeds that all configurations have, and no trials that others enqueued",
            first.left_out
        ));
    }
    if cost == Cost::Seconds && !timed {
        note("steps were not timed alone: the time saved rests on training times as they went by");
    }
    for of in &replayed {
        if let Some(why) = of.rule.not_reproducible() {
            note(&format!("{}: {why}; replayed as with one worker", of.rule));
        }
    }
    Ok(())
}

fn of_rule(of: &Replayed) -> Json {
    json!({
        "rule": of.rule,
        "chosen": of.chosen,
        "same_choice": of.same_choice(),
        "loss": of.loss,
        "full_loss": of.full_loss,
        "regret": of.regret,
        "regret_to_best": of.regret_to_best,
        "ended": of.ended,
        "steps": of.trained.steps,
        "seconds": of.trained.seconds,
        "flop": of.trained.flop,
        "reproducible": of.rule.not_reproducible().is_none(),
        "decisions": of.study.decisions,
    })
}
