//! `bench`: one training step beside the machine's peak.

use super::{configured, json, shape};
use crate::args::Bench;
use crate::failure::Failure;
use crate::progress::Work;
use diapason_corpus::Alphabet;
use diapason_engine::{CpuEngine, benchmark};
use diapason_training::Config;
use serde_json::json;
use std::io::{self, Write};
use std::time::Duration;

pub(crate) fn run(args: Bench) -> Result<(), Failure> {
    let vocabulary = Alphabet::text8().len();
    let config = configured(Config::default(), &args.set, None)?;
    let config = config.validated(vocabulary).map_err(|e| Failure::from(e).typed())?;
    let (model, shape, threads) = (config.model(vocabulary)?, shape(&config), args.machine.threads());
    CpuEngine::check_memory(&model, shape, threads)?;
    let mut work = Work::count();
    let found = benchmark(
        model.clone(),
        shape,
        threads,
        Duration::from_secs_f64(args.seconds),
        &mut |round, rounds| {
            work.at("measuring", round as u64, Some(rounds as u64));
        },
    )?;
    work.finish();

    let mut out = io::stdout().lock();
    if args.json {
        let object = json!({
            "ms_per_step": found.ms_per_step,
            "tokens_per_second": found.tokens_per_second,
            "flop_per_step": found.flop_per_step,
            "peak_gflops": found.peak_gflops,
            "peak_fraction": found.peak_fraction,
            "threads": found.threads,
            "isa": found.isa,
            "ms_per_step_p10": found.ms_spread.0,
            "ms_per_step_p90": found.ms_spread.1,
            "rounds": found.rounds,
            "memory_bytes": found.memory_bytes as u64,
            "parameters": model.parameters(),
            "config": config,
        });
        writeln!(out, "{}", json(&object)?)?;
        return Ok(out.flush()?);
    }
    writeln!(
        out,
        "model     d_model {}, {} heads, {} layers: {} parameters; batches of {} x {}",
        config.d_model,
        config.n_heads,
        config.n_layers,
        model.parameters(),
        config.batch_size,
        config.sequence_length
    )?;
    writeln!(
        out,
        "step      {:.2} ms (a tenth below {:.2}, a tenth above {:.2}; {} steps), {:.0} tokens/s",
        found.ms_per_step, found.ms_spread.0, found.ms_spread.1, found.rounds, found.tokens_per_second
    )?;
    writeln!(
        out,
        "work      {:.2} GFLOP a step, {:.1} GFLOP/s",
        found.flop_per_step / 1e9,
        found.flop_per_step / found.ms_per_step / 1e6
    )?;
    writeln!(
        out,
        "peak      {:.1} GFLOP/s of fused multiply-adds, {} threads, {}",
        found.peak_gflops, found.threads, found.isa
    )?;
    writeln!(out, "fraction  {:.1} % of the peak", 100.0 * found.peak_fraction)?;
    writeln!(out, "memory    {:.1} MiB", found.memory_bytes as f64 / f64::from(1 << 20))?;
    Ok(out.flush()?)
}
