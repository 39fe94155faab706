//! `generate`: text from a checkpoint.

use super::{checkpoint_file, trained};
use crate::args::Generate;
use crate::failure::Failure;
use diapason_corpus::{Alphabet, CorpusError};
use diapason_generation::{GenerationError, Request, generate, start_symbol};
use diapason_training::checkpoint::Stored;
use std::io::{self, Write};
use std::ops::ControlFlow;

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
        seed: args.seed,
        context: checkpoint.header().config.sequence_length,
    };
    let mut engine = trained(&mut checkpoint, args.machine.threads())?;

    let mut out = io::stdout().lock();
    // The prompt goes out with the first character: nothing is printed if the request is refused.
    let mut unwritten = prompt.as_bytes();
    let mut written = Ok(());
    generate(&mut engine, &request, &mut |symbol| {
        written = alphabet.decode(&[symbol]).map_err(Failure::from).and_then(|character| {
            out.write_all(std::mem::take(&mut unwritten))?;
            out.write_all(&character)?;
            Ok(out.flush()?)
        });
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .map_err(|error| match error {
        GenerationError::Temperature { .. } | GenerationError::TopK => Failure::from(error).typed(),
        error => error.into(),
    })?;
    written?;
    out.write_all(unwritten)?;
    writeln!(out)?;
    Ok(out.flush()?)
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
