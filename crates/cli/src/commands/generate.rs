//! `generate`: text from a checkpoint.

use super::read_checkpoint;
use crate::args::Generate;
use crate::failure::Failure;
use diapason_engine::{CpuEngine, Shape};
use diapason_generation::{Request, generate, start_symbol};
use std::io::{self, Write};
use std::ops::ControlFlow;

pub(crate) fn run(args: Generate) -> Result<(), Failure> {
    let (_, checkpoint) = read_checkpoint(&args.checkpoint)?;
    let alphabet = checkpoint.alphabet()?;
    let prompt = args.prompt.unwrap_or_default();
    let header = &checkpoint.header;
    let request = Request {
        prompt: alphabet.encode(prompt.as_bytes()).map_err(|e| Failure::from(e).typed())?,
        start: start_symbol(&alphabet),
        length: args.length,
        temperature: args.temperature,
        top_k: args.top_k,
        seed: args.seed,
        context: header.config.sequence_length,
    };
    let shape = Shape { batch_size: 1, sequence_length: request.context };
    let mut engine =
        CpuEngine::new(header.model.clone(), &checkpoint.parameters, args.machine.threads(), shape)?;

    let mut out = io::stdout().lock();
    out.write_all(prompt.as_bytes())?;
    out.flush()?;
    let mut written = Ok(());
    generate(&mut engine, &request, &mut |symbol| {
        written = alphabet.decode(&[symbol]).map_err(Failure::from).and_then(|character| {
            out.write_all(&character)?;
            Ok(out.flush()?)
        });
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    written?;
    writeln!(out)?;
    Ok(out.flush()?)
}
