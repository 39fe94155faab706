//! `generate`: text from a checkpoint.

use super::{checkpoint_file, json, trained};
use crate::args::Generate;
use crate::failure::Failure;
use diapason_corpus::{Alphabet, CorpusError};
use diapason_engine::{CpuEngine, Engine, Precision, cache_bytes};
use diapason_generation::{GenerationError, Request, generate, start_symbol};
use diapason_training::checkpoint::Stored;
use serde_json::json;
use std::io::{self, Write};
use std::ops::ControlFlow;

/// Texts that are generated side by side, at most: more bring no more speed.
const SIDE_BY_SIDE: usize = 256;

pub(crate) fn run(args: Generate) -> Result<(), Failure> {
    let file = checkpoint_file(&args.checkpoint)?;
    let mut checkpoint = Stored::open(&file)?;
    let alphabet = checkpoint.header().alphabet()?;
    let prompt = args.prompt.unwrap_or_default();
    let request = Request {
        prompt: alphabet.encode(prompt.as_bytes()).map_err(|e| foreign(&e, &alphabet))?,
        start: start_symbol(&alphabet),
        length: args.length,
        temperature: args.temperature,
        top_k: args.top_k,
        seeds: vec![args.seed],
        context: checkpoint.header().config.sequence_length,
    };
    let mut engine = trained(&mut checkpoint, Precision::F32, args.machine.threads())?;
    let mut out = io::stdout().lock();
    if args.texts == 1 && !args.json {
        stream(&mut engine, &request, &prompt, &alphabet, &mut out)?;
        return Ok(out.flush()?);
    }
    // What a cache takes may be an eighth of the memory that is left.
    let room = CpuEngine::memory_available().unwrap_or(u128::MAX) / 8;
    let one = cache_bytes(engine.model(), 1, request.context).max(1);
    let at_once = (room / one).clamp(1, SIDE_BY_SIDE as u128) as u64;
    let mut texts = Vec::new();
    for first in (0..args.texts).step_by(at_once as usize) {
        // After the largest seed comes 0.
        let seeds = (first..args.texts.min(first + at_once)).map(|i| args.seed.wrapping_add(i));
        let request = Request { seeds: seeds.collect(), ..request.clone() };
        for (seed, text) in request.seeds.iter().zip(several(&mut engine, &request, &prompt, &alphabet)?) {
            if args.json {
                texts.push(json!({ "seed": seed, "text": String::from_utf8_lossy(&text) }));
                continue;
            }
            writeln!(out, "--- seed {seed} ---")?;
            out.write_all(&text)?;
            writeln!(out, "\n")?;
        }
        out.flush()?;
    }
    if args.json {
        let object = json!({
            "prompt": prompt,
            "length": args.length,
            "temperature": args.temperature,
            "top_k": args.top_k,
            "texts": texts,
        });
        writeln!(out, "{}", json(&object)?)?;
    }
    Ok(out.flush()?)
}

/// Writes one text as it is made.
fn stream(
    engine: &mut CpuEngine,
    request: &Request,
    prompt: &str,
    alphabet: &Alphabet,
    out: &mut impl Write,
) -> Result<(), Failure> {
    // The prompt goes out with the first character: nothing is printed if the request is refused.
    let mut unwritten = prompt.as_bytes();
    let mut written = Ok(());
    generate(engine, request, &mut |_, symbol| {
        written = alphabet.decode(&[symbol]).map_err(Failure::from).and_then(|character| {
            out.write_all(std::mem::take(&mut unwritten))?;
            out.write_all(&character)?;
            Ok(out.flush()?)
        });
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .map_err(refused)?;
    written?;
    out.write_all(unwritten)?;
    Ok(writeln!(out)?)
}

/// A text for each seed, prompt included.
pub(super) fn several(
    engine: &mut CpuEngine,
    request: &Request,
    prompt: &str,
    alphabet: &Alphabet,
) -> Result<Vec<Vec<u8>>, Failure> {
    let mut texts = vec![Vec::new(); request.seeds.len()];
    generate(engine, request, &mut |text, symbol| {
        texts[text].push(symbol);
        ControlFlow::Continue(())
    })
    .map_err(refused)?;
    let whole = |ids: Vec<u8>| Ok([prompt.as_bytes(), &alphabet.decode(&ids)?].concat());
    texts.into_iter().map(whole).collect()
}

/// What is wrong with a request.
fn refused(error: GenerationError) -> Failure {
    match error {
        GenerationError::Temperature { .. } | GenerationError::TopK => Failure::from(error).typed(),
        error => error.into(),
    }
}

/// What is wrong with a prompt, in the words of this command.
fn foreign(error: &CorpusError, alphabet: &Alphabet) -> Failure {
    let message = match error {
        CorpusError::Character { character, offset, .. } => {
            format!("--prompt has {character} at byte {offset}, which is not in the model's alphabet")
        }
        other => format!("--prompt: {other}"),
    };
    let symbols: String =
        (0..=255).map_while(|id| alphabet.symbol(id)).filter(|symbol| symbol != " ").collect();
    let space = if alphabet.encode(b" ").is_ok() { " and space" } else { "" };
    Failure::usage(message).with_hint(format!("the model knows these characters: {symbols}{space}"))
}
