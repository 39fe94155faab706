//! `bench`: the engine beside the machine's limits.

use super::{configured, json, key_of, precision, recipe, shape};
use crate::args::{Bench, What};
use crate::failure::{Failure, note};
use crate::memory;
use crate::progress::Work;
use diapason_corpus::Alphabet;
use diapason_engine::{
    Benchmark, Cell, CpuEngine, Precision, Shape, benchmark, cell, cells, evaluation, generation,
    generation_memory, memory_needed, memory_of_updates, trials,
};
use diapason_model::ModelConfig;
use diapason_training::{Config, updates};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::time::Duration;

pub(crate) fn run(args: Bench) -> Result<(), Failure> {
    let vocabulary = Alphabet::text8().len();
    let typed = configured(recipe(args.recipe.as_deref())?, &args.set, None)?;
    let config = match args.what {
        // Sizes that are named choose shapes, which need not fit the other defaults.
        What::Sweep => configured(recipe(args.recipe.as_deref())?, &others(&args.set), None)?,
        _ => typed.clone(),
    };
    let config = config.validated(vocabulary).map_err(|e| Failure::from(e).typed())?;
    let (precision, said) = precision(config.precision)?;
    let asked = Asked {
        precision,
        said,
        model: config.model(vocabulary)?,
        shape: shape(&config),
        threads: args.machine.threads(),
        duration: Duration::from_secs_f64(args.seconds.unwrap_or(match args.what {
            What::Sweep => 1.0,
            _ => 10.0,
        })),
        config,
    };
    let (text, object) = match args.what {
        What::Step => step(&asked)?,
        What::Evaluation => scoring(&asked)?,
        What::Generation => writing(&asked)?,
        What::Trials => several(&asked)?,
        What::Sweep => sweep(&asked, &args.set, &typed)?,
    };
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", json(&object)?)?;
    } else {
        write!(out, "{text}")?;
    }
    Ok(out.flush()?)
}

/// What was typed, checked.
struct Asked {
    config: Config,
    precision: Precision,
    /// What there is to say of it.
    said: Option<&'static str>,
    model: ModelConfig,
    shape: Shape,
    threads: usize,
    duration: Duration,
}

impl Asked {
    /// Whether there is the memory for an engine on `threads` threads; says what so many of them take, with so much beside them.
    fn check_memory(&self, engines: u128, threads: usize, beside: u128) -> Result<(), Failure> {
        let updates = memory_of_updates(&self.model, self.config.updating(), threads);
        CpuEngine::check_memory_and(&self.model, self.precision, self.shape, threads, updates)?;
        let each = memory_needed(&self.model, self.precision, self.shape, threads) + updates;
        self.said.into_iter().for_each(note);
        note(&memory::line(engines * each + beside, None, 0, 0));
        Ok(())
    }

    /// `model     d_model 256, 8 heads, ...`
    fn heading(&self) -> String {
        let c = &self.config;
        format!(
            "model     d_model {}, {} heads, {} layers: {} parameters; batches of {} x {}\n",
            c.d_model,
            c.n_heads,
            c.n_layers,
            self.model.parameters(),
            c.batch_size,
            c.sequence_length
        )
    }
}

/// What is printed for people, and for programs.
type Answer = Result<(String, Value), Failure>;

fn step(asked: &Asked) -> Answer {
    let Asked { model, precision, shape, threads, .. } = asked;
    let beside = match precision {
        Precision::F32 => 0,
        Precision::Half => {
            memory_needed(model, Precision::F32, *shape, *threads)
                + memory_of_updates(model, asked.config.updating(), *threads)
        }
    };
    asked.check_memory(1, *threads, beside)?;
    let mut work = Work::count();
    let observe = &mut |round: usize, rounds: usize| work.at("measuring", round as u64, Some(rounds as u64));
    let update = updates::update(&asked.config, 1, 0.0, 0);
    let found = benchmark(model, *precision, *shape, *threads, &update, asked.duration, observe)?;
    work.finish();
    let text = asked.heading()
        + &format!(
            "step      {:.2} ms (a tenth below {:.2}, a tenth above {:.2}; {} rounds), {:.0} tokens/s\n",
            found.ms_per_step, found.ms_spread.0, found.ms_spread.1, found.rounds, found.tokens_per_second
        )
        + &format!(
            "work      {:.2} GFLOP a step, {:.1} GFLOP/s\n",
            found.flop_per_step / 1e9,
            found.flop_per_step / found.ms_per_step / 1e6
        )
        + &format!(
            "peak      {:.1} GFLOP/s of fused multiply-adds, {} threads, {}\n",
            found.peak_gflops, found.threads, found.isa
        )
        + &format!("fraction  {:.1} % of the peak\n", 100.0 * found.peak_fraction)
        + &found.optimizer_share.map_or(String::new(), |share| {
            format!("optimizer {:.1} % of the step, beyond what plain Adam takes\n", 100.0 * share)
        })
        + &found.half.as_ref().map_or_else(String::new, |half| {
            format!(
                "half      {:.1} GOP/s of 16-bit pairs at most; {:.1} % of that\n\
                 f32       {:.2} ms a step: {:.2} times as long (a tenth below {:.2}, a tenth above {:.2})\n",
                half.pair_peak_gops,
                100.0 * half.pair_peak_fraction,
                half.f32_ms_per_step,
                half.speedup,
                half.speedup_spread.0,
                half.speedup_spread.1
            )
        })
        + &format!("memory    {:.1} MiB\n", found.memory_bytes as f64 / f64::from(1 << 20));
    let half = found.half.as_ref().map(|half| {
        json!({
            "pair_peak_gops": half.pair_peak_gops,
            "pair_peak_fraction": half.pair_peak_fraction,
            "f32_ms_per_step": half.f32_ms_per_step,
            "speedup": half.speedup,
            "speedup_p10": half.speedup_spread.0,
            "speedup_p90": half.speedup_spread.1,
        })
    });
    let object = json!({
        "what": "step",
        "precision": found.precision.name(),
        "half": half,
        "ms_per_step": found.ms_per_step,
        "tokens_per_second": found.tokens_per_second,
        "flop_per_step": found.flop_per_step,
        "peak_gflops": found.peak_gflops,
        "peak_fraction": found.peak_fraction,
        "optimizer_share": found.optimizer_share,
        "threads": found.threads,
        "isa": found.isa,
        "ms_per_step_p10": found.ms_spread.0,
        "ms_per_step_p90": found.ms_spread.1,
        "rounds": found.rounds,
        "memory_bytes": found.memory_bytes as u64,
        "parameters": asked.model.parameters(),
        "config": asked.config,
    });
    Ok((text, object))
}

fn scoring(asked: &Asked) -> Answer {
    asked.check_memory(1, asked.threads, 0)?;
    let mut work = Work::count();
    let found = evaluation(
        &asked.model,
        asked.precision,
        asked.shape,
        asked.threads,
        asked.duration,
        &mut |round, rounds| {
            work.at("measuring", round as u64, Some(rounds as u64));
        },
    )?;
    work.finish();
    let text = asked.heading()
        + &format!(
            "scoring   {:.0} characters/s, {:.1} % of the peak; {} characters a call\n",
            found.evaluation_rate,
            100.0 * found.evaluation_peak_fraction,
            found.characters_per_call
        )
        + &format!(
            "training  {:.0} characters/s, {:.1} % of the peak\n",
            found.training_rate,
            100.0 * found.training_peak_fraction
        )
        + &format!(
            "ratio     {:.2} (a tenth below {:.2}, a tenth above {:.2}; {} rounds)\n",
            found.ratio, found.ratio_spread.0, found.ratio_spread.1, found.rounds
        )
        + &format!(
            "peak      {:.1} GFLOP/s of fused multiply-adds, {} threads, {}\n",
            found.peak_gflops, found.threads, found.isa
        );
    let object = json!({
        "what": "evaluation",
        "evaluation_characters_per_second": found.evaluation_rate,
        "training_characters_per_second": found.training_rate,
        "ratio": found.ratio,
        "ratio_p10": found.ratio_spread.0,
        "ratio_p90": found.ratio_spread.1,
        "evaluation_peak_fraction": found.evaluation_peak_fraction,
        "training_peak_fraction": found.training_peak_fraction,
        "peak_gflops": found.peak_gflops,
        "characters_per_call": found.characters_per_call,
        "threads": found.threads,
        "isa": found.isa,
        "rounds": found.rounds,
        "parameters": asked.model.parameters(),
        "config": asked.config,
    });
    Ok((text, object))
}

fn writing(asked: &Asked) -> Answer {
    let context = asked.shape.sequence_length;
    if context < 2 {
        return Err(Failure::usage("a context of sequence_length 1 has no room for a character more")
            .with_hint("--set sequence_length=N with N of 2 or more"));
    }
    let one = Shape { batch_size: 1, ..asked.shape };
    CpuEngine::check_memory(&asked.model, Precision::F32, one, asked.threads)?;
    note(&memory::line(generation_memory(&asked.model, context, asked.threads), None, 0, 0));
    let mut work = Work::count();
    let observe = &mut |round, rounds| work.at("measuring", round as u64, Some(rounds as u64));
    let found = generation(&asked.model, context, asked.threads, asked.duration, observe)?;
    work.finish();
    let c = &asked.config;
    let one = found.streams.first().map_or(0.0, |one| one.rate);
    let mut text = format!(
        "model     d_model {}, {} heads, {} layers: {} parameters; contexts of {context}, {} of them read again when full\n",
        c.d_model,
        c.n_heads,
        c.n_layers,
        asked.model.parameters(),
        found.kept
    ) + &format!(
        "weights   {:.2} MiB for a character, read at {:.1} GB/s: {:.0} characters/s at most for one text\n",
        found.weight_bytes as f64 / f64::from(1 << 20),
        found.read_gigabytes,
        found.bound
    ) + &format!(
        "one text  {one:.0} characters/s, {:.1} % of that (a tenth below {:.1}, a tenth above {:.1}; {} rounds)\n",
        100.0 * found.bound_fraction,
        100.0 * found.bound_spread.0,
        100.0 * found.bound_spread.1,
        found.rounds
    ) + &format!(
        "peak      {:.1} GFLOP/s of fused multiply-adds, {} threads, {}\n",
        found.peak_gflops, found.threads, found.isa
    ) + "\ntexts at once  characters/s  of the peak  time for reading again  characters/s with it\n";
    for many in &found.streams {
        text += &format!(
            "{:>13} {:>13.0} {:>10.1} % {:>20.1} % {:>21.0}\n",
            many.streams,
            many.rate,
            100.0 * many.peak_fraction,
            100.0 * many.reencoding,
            many.whole_rate
        );
    }
    let object = json!({
        "what": "generation",
        "context": context,
        "kept": found.kept,
        "weight_bytes": found.weight_bytes,
        "read_gigabytes_per_second": found.read_gigabytes,
        "bound_characters_per_second": found.bound,
        "characters_per_second": one,
        "bound_fraction": found.bound_fraction,
        "bound_fraction_p10": found.bound_spread.0,
        "bound_fraction_p90": found.bound_spread.1,
        "streams": found.streams.iter().map(|many| json!({
            "streams": many.streams,
            "characters_per_second": many.rate,
            "peak_fraction": many.peak_fraction,
            "reencoding_share": many.reencoding,
            "characters_per_second_with_reencoding": many.whole_rate,
        })).collect::<Vec<_>>(),
        "peak_gflops": found.peak_gflops,
        "threads": found.threads,
        "isa": found.isa,
        "rounds": found.rounds,
        "parameters": asked.model.parameters(),
        "config": asked.config,
    });
    Ok((text, object))
}

fn several(asked: &Asked) -> Answer {
    asked.check_memory(asked.threads as u128, 1, 0)?;
    let mut work = Work::count();
    let found = trials(
        &asked.model,
        asked.precision,
        asked.shape,
        asked.threads,
        asked.duration,
        &mut |round, rounds| {
            work.at("measuring", round as u64, Some(rounds as u64));
        },
    )?;
    work.finish();
    let rates = |rates: &[f64]| rates.iter().map(|r| format!("{r:.2}")).collect::<Vec<_>>().join(" + ");
    let text = asked.heading()
        + &format!("alone     {} steps/s, one trial on one thread at a time\n", rates(&found.single_rates))
        + &format!("together  {} steps/s, {} trials at once\n", rates(&found.together_rates), found.trials)
        + &format!(
            "peak      {:.1} GFLOP/s on one core, {:.1} on {}: {:.1} % of as many alone; {}\n",
            found.peak_one_gflops,
            found.peak_all_gflops,
            found.trials,
            100.0 * found.peak_ratio,
            found.isa
        )
        + &format!("ratio     {:.1} % of the sum of the rates alone\n", 100.0 * found.ratio)
        + &format!(
            "corrected {:.1} % (a tenth below {:.1}, a tenth above {:.1}; {} rounds): the ratio over the peak's\n",
            100.0 * found.corrected,
            100.0 * found.corrected_spread.0,
            100.0 * found.corrected_spread.1,
            found.rounds
        );
    let object = json!({
        "what": "trials",
        "trials": found.trials,
        "single_steps_per_second": found.single_rates,
        "together_steps_per_second": found.together_rates,
        "ratio": found.ratio,
        "peak_one_gflops": found.peak_one_gflops,
        "peak_all_gflops": found.peak_all_gflops,
        "peak_ratio": found.peak_ratio,
        "corrected": found.corrected,
        "corrected_p10": found.corrected_spread.0,
        "corrected_p90": found.corrected_spread.1,
        "isa": found.isa,
        "rounds": found.rounds,
        "parameters": asked.model.parameters(),
        "config": asked.config,
    });
    Ok((text, object))
}

/// The sizes that a cell of the sweep has.
const SIZES: [&str; 5] = ["d_model", "n_heads", "n_layers", "sequence_length", "batch_size"];

/// The assignments to other keys than those.
fn others(set: &[String]) -> Vec<String> {
    set.iter().filter(|assignment| !SIZES.contains(&key_of(assignment))).cloned().collect()
}

/// `typed`: the sizes that `set` names; only shapes with these are measured.
fn sweep(asked: &Asked, set: &[String], typed: &Config) -> Answer {
    let sizes = [typed.d_model, typed.n_heads, typed.n_layers, typed.sequence_length, typed.batch_size];
    let wanted = |cell: &Cell| {
        let own = [cell.d_model, cell.n_heads, cell.n_layers, cell.sequence_length, cell.batch_size];
        (0..SIZES.len()).all(|i| own[i] == sizes[i] || set.iter().all(|s| key_of(s) != SIZES[i]))
    };
    let cells: Vec<Cell> = cells(&asked.model).into_iter().filter(wanted).collect();
    if cells.is_empty() {
        return Err(Failure::usage("the sweep's table has no shape with all the sizes that --set names")
            .with_hint("`diapason bench --set ...` without `sweep` measures any one shape"));
    }
    let mut work = Work::count();
    let mut found = Vec::new();
    for (i, &one) in cells.iter().enumerate() {
        work.at("measuring shapes", i as u64, Some(cells.len() as u64));
        // A shape that the machine has no memory for stays empty.
        let model = one.model(&asked.model);
        if CpuEngine::check_memory(&model, asked.precision, one.shape(), asked.threads).is_ok() {
            found.push((one, cell(one, &asked.model, asked.precision, asked.threads, asked.duration)?));
        }
    }
    work.finish();
    let below = found.iter().filter(|(cell, b)| b.peak_fraction < cell.target()).count();
    let object = json!({
        "what": "sweep",
        "cells": found.iter().map(|(cell, b)| json!({
            "d_model": cell.d_model,
            "n_heads": cell.n_heads,
            "n_layers": cell.n_layers,
            "sequence_length": cell.sequence_length,
            "batch_size": cell.batch_size,
            "ms_per_step": b.ms_per_step,
            "tokens_per_second": b.tokens_per_second,
            "flop_per_step": b.flop_per_step,
            "peak_gflops": b.peak_gflops,
            "peak_fraction": b.peak_fraction,
            "target": cell.target(),
            "rounds": b.rounds,
        })).collect::<Vec<_>>(),
        "below_target": below,
        "threads": asked.threads,
        "isa": found.first().map(|(_, b)| b.isa.clone()),
    });
    Ok((table(&found, asked.threads, below), object))
}

/// A row for each model, a column for each batch: per cent of the peak, with a mark where the target is missed.
fn table(found: &[(Cell, Benchmark)], threads: usize, below: usize) -> String {
    let mut columns: Vec<(usize, usize)> = Vec::new();
    let mut rows: Vec<(usize, usize, usize)> = Vec::new();
    for (cell, _) in found {
        let (column, row) =
            ((cell.sequence_length, cell.batch_size), (cell.d_model, cell.n_heads, cell.n_layers));
        if !columns.contains(&column) {
            columns.push(column);
        }
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    columns.sort_unstable();
    let isa = found.first().map_or("", |(_, b)| b.isa.as_str());
    let mut text = format!(
        "per cent of the peak of fused multiply-adds, {threads} threads, {isa}; columns: sequence_length x batch_size\n\
         d_model heads layers"
    );
    for (t, b) in &columns {
        text += &format!("{:>9}", format!("{t}x{b}"));
    }
    text += "\n";
    for row in rows {
        text += &format!("{:>7} {:>5} {:>6}", row.0, row.1, row.2);
        for column in &columns {
            let here = found.iter().find(|(cell, _)| {
                (cell.d_model, cell.n_heads, cell.n_layers) == row
                    && (cell.sequence_length, cell.batch_size) == *column
            });
            text += &match here {
                Some((cell, b)) => {
                    let mark = if b.peak_fraction < cell.target() { "!" } else { " " };
                    format!("{:>8.1}{mark}", 100.0 * b.peak_fraction)
                }
                None => format!("{:>8} ", "-"),
            };
        }
        text.truncate(text.trim_end().len());
        text += "\n";
    }
    text += &format!(
        "{} shapes; {below} below their target (!): 65 % for d_model >= 128, heads of 16 and more, 1024 characters and more a step, \
         sequence_length up to 256; 40 % elsewhere\n",
        found.len()
    );
    text
}
