//! `eval`: a checkpoint on a whole split.

use super::{checkpoint_file, json, open, precision, request, trained};
use crate::args::{self, Eval, Text};
use crate::failure::{Failure, note};
use crate::memory;
use crate::progress::Work;
use diapason_corpus::Corpus;
use diapason_engine::{Shape, memory_needed};
use diapason_training::checkpoint::{Header, Stored};
use diapason_training::{EvaluationError, check_evaluation, evaluate_split};
use serde_json::json;
use std::io::{self, Write};
use std::ops::ControlFlow;

pub(crate) fn run(args: Eval) -> Result<(), Failure> {
    if let (None, Some(flag)) = (&args.text.corpus, first_flag(&args.text)) {
        return Err(Failure::usage(format!("{flag} says how a text is read, and --corpus names none"))
            .with_hint("name the text with --corpus; without it, the text is read as it was for training"));
    }
    let file = checkpoint_file(&args.checkpoint)?;
    let mut checkpoint = Stored::open(&file)?;
    let header = checkpoint.header().clone();
    let which = if checkpoint.has_moments() { "last" } else { "best" };
    let corpus = corpus_for(&args, &header)?;
    let (split, text) = match args.split {
        args::Split::Validation => ("validation", corpus.validation()),
        args::Split::Test => ("test", corpus.test()),
    };
    let t = header.config.sequence_length;
    check_evaluation(&header.model, text, t, args.stride).map_err(|error| match error {
        EvaluationError::Stride { .. } => Failure::from(error).typed(),
        error => error.into(),
    })?;
    let (model, threads) = (&header.model, args.machine.threads());
    let (precision, said) = precision(args.precision.unwrap_or(header.config.precision))?;
    let memory = memory_needed(model, precision, Shape { batch_size: 1, sequence_length: t }, threads);
    let memory = memory::line(memory, Some(&corpus), 0, 0);
    let mut engine = trained(&mut checkpoint, precision, threads)?;
    note(&memory);
    said.into_iter().for_each(note);
    note(&format!("scoring {}, the {which} checkpoint of a run, step {}", file.display(), header.step));
    let mut work = Work::count();
    let evaluation = evaluate_split(&mut engine, text, t, args.stride, &mut |done, total| {
        work.at("scoring", done, Some(total));
        ControlFlow::Continue(())
    })?;
    work.finish();

    let mut out = io::stdout().lock();
    if args.json {
        let object = json!({
            "loss": evaluation.loss,
            "bpc": evaluation.bpc(),
            "accuracy": evaluation.accuracy,
            "accuracy_last": evaluation.accuracy_last,
            "characters": evaluation.characters,
            "precision": precision.name(),
            "split": split,
            "stride": args.stride,
            "corpus": { "name": corpus.name, "digest": corpus.digest },
            "checkpoint": file.display().to_string(),
            "step": header.step,
            "which": which,
        });
        writeln!(out, "{}", json(&object)?)?;
    } else {
        writeln!(
            out,
            "{} {split}: loss {:.4} nats, {:.4} bits per character, accuracy {:.2} %, at the last position {:.2} %, {} characters",
            corpus.name,
            evaluation.loss,
            evaluation.bpc(),
            100.0 * evaluation.accuracy,
            100.0 * evaluation.accuracy_last,
            evaluation.characters
        )?;
    }
    Ok(out.flush()?)
}

/// The first flag that says how a text is read.
fn first_flag(text: &Text) -> Option<&'static str> {
    [
        ("--test-corpus", text.test_corpus.is_some()),
        ("--alphabet", text.alphabet.is_some()),
        ("--normalize", text.normalize),
        ("--train-chars", text.train_chars.is_some()),
        ("--validation-chars", text.validation_chars.is_some()),
        ("--test-chars", text.test_chars.is_some()),
    ]
    .into_iter()
    .find_map(|(flag, given)| given.then_some(flag))
}

/// The text that was asked for, or the one that the model was trained on.
fn corpus_for(args: &Eval, header: &Header) -> Result<Corpus, Failure> {
    let asked = args.text.corpus.as_ref().map(|corpus| request(&args.text, corpus.clone()));
    let Some(request) = asked.as_ref().or(header.corpus_request.as_ref()) else {
        return Err(Failure::usage(format!("the checkpoint does not say where {} lies", header.corpus_name))
            .with_hint("name the text with --corpus"));
    };
    let corpus = match open(request) {
        Err(failure @ Failure::Failed { .. }) if asked.is_none() => {
            return Err(failure.with_hint(format!(
                "the model was trained on {}: run this where that lies, or name it with --corpus",
                header.corpus_name
            )));
        }
        corpus => corpus?,
    };
    // Ids mean nothing in another alphabet.
    if corpus.alphabet.to_string_form() != header.alphabet {
        return Err(Failure::failed(format!(
            "{} has another alphabet ({} characters) than the model was trained with ({})",
            corpus.name,
            corpus.alphabet.len(),
            header.model.vocabulary
        ))
        .with_hint(
            "--alphabet text8, with --normalize if need be, or --alphabet bytes gives every text the same",
        ));
    }
    if corpus.digest != header.corpus_digest {
        let difference =
            format!("{} is not the text that the model was trained on ({})", corpus.name, header.corpus_name);
        if asked.is_none() {
            return Err(Failure::failed(format!("{difference}: it has changed since"))
                .with_hint("name a text with --corpus to score the model on it all the same"));
        }
        note(&format!("note: {difference}"));
    }
    Ok(corpus)
}
