//! `corpus`: fetch, encode, decode, normalize, info.

use super::{json, open, required_request};
use crate::args::Corpus;
use crate::failure::{Failure, note};
use crate::progress::Work;
use diapason_corpus::{Alphabet, AlphabetKind, CorpusError, Progress, convert, fetch, write_atomically};
use std::io::{self, BufWriter, Write};
use std::path::Path;

pub(crate) fn run(command: Corpus) -> Result<(), Failure> {
    match command {
        Corpus::Fetch { name } => fetch_named(&name),
        Corpus::Encode { input, output, alphabet, normalize } => encode(&input, &output, alphabet, normalize),
        Corpus::Decode { input, output, alphabet } => decode(&input, output.as_deref(), alphabet),
        Corpus::Normalize { input, output } => normalize(&input, output.as_deref()),
        Corpus::Info { name, mut text, json } => {
            text.corpus = name.or(text.corpus);
            info(&text, json)
        }
    }
}

fn fetch_named(name: &str) -> Result<(), Failure> {
    if name != "text8" {
        return Err(Failure::usage(format!("there is no corpus `{name}` to fetch"))
            .with_hint("text8 is the one that can be fetched; builtin:english needs no fetching"));
    }
    let mut work = Work::bytes();
    let path = fetch::fetch(&fetch::Remote::text8(), &fetch::cache_folder()?, &mut |p| show(&mut work, p))?;
    work.finish();
    let mut out = io::stdout().lock();
    writeln!(out, "{}", path.display())?;
    Ok(out.flush()?)
}

fn encode(input: &Path, output: &Path, alphabet: AlphabetKind, normalize: bool) -> Result<(), Failure> {
    apart(input, Some(output))?;
    let mut work = Work::bytes();
    let (alphabet, symbols) = write_atomically(output, |out| {
        convert::encode(input, alphabet, normalize, out, &mut |p| show(&mut work, p))
    })
    .map_err(|error| of_a_file(error.with_output(output)))?;
    work.finish();
    note(&format!("{symbols} symbols of {} in {}", alphabet.len(), output.display()));
    if alphabet.kind() == AlphabetKind::Auto {
        note(&format!("alphabet: {}", alphabet.to_string_form()));
    }
    Ok(())
}

fn decode(input: &Path, output: Option<&Path>, alphabet: AlphabetKind) -> Result<(), Failure> {
    let alphabet = match alphabet {
        AlphabetKind::Text8 => Alphabet::text8(),
        AlphabetKind::Bytes => Alphabet::bytes(),
        AlphabetKind::Auto => {
            return Err(Failure::usage("an array does not say which characters its alphabet auto had")
                .with_hint("--alphabet takes text8 or bytes here"));
        }
    };
    apart(input, output)?;
    let mut work = Work::bytes();
    into(output, &mut |out| convert::decode(input, &alphabet, out, &mut |p| show(&mut work, p)).map(drop))
}

fn normalize(input: &Path, output: Option<&Path>) -> Result<(), Failure> {
    apart(input, output)?;
    let mut work = Work::bytes();
    into(output, &mut |out| {
        let progress = &mut |p| show(&mut work, p);
        if input == Path::new("-") {
            diapason_corpus::normalize::normalize(&mut io::stdin().lock(), out, None, progress)
        } else {
            convert::normalize(input, out, progress)
        }
        .map(drop)
    })
}

fn info(text: &crate::args::Text, as_json: bool) -> Result<(), Failure> {
    let corpus = open(&required_request(text)?)?;
    let info = corpus.info();
    let mut out = io::stdout().lock();
    if as_json {
        writeln!(out, "{}", json(&info)?)?;
        return Ok(out.flush()?);
    }
    let characters: String = info.symbols.iter().take(64).map(|s| s.symbol.as_str()).collect();
    let more = if info.symbols.len() > 64 { " ..." } else { "" };
    writeln!(out, "name        {}", info.name)?;
    writeln!(out, "digest      {}", info.digest)?;
    writeln!(out, "alphabet    {}: {} characters: {characters}{more}", info.alphabet, info.vocabulary)?;
    writeln!(out, "characters  {}", info.characters)?;
    writeln!(out, "splits      train {}, validation {}, test {}", info.train, info.validation, info.test)?;
    writeln!(out, "unigrams    {:.4} bits per character", info.unigram_entropy_bits)?;
    if let Some(rate) = info.entropy_rate_bits {
        let nats = rate * std::f64::consts::LN_2;
        writeln!(out, "entropy     {rate:.4} bits per character ({nats:.4} nats): no model can do better")?;
    }
    Ok(out.flush()?)
}

/// Refuses to replace a text by what is made of it.
fn apart(input: &Path, output: Option<&Path>) -> Result<(), Failure> {
    let same = output.is_some_and(|output| match (input.canonicalize(), output.canonicalize()) {
        (Ok(a), Ok(b)) => a == b && a.is_file(),
        _ => false,
    });
    if same {
        return Err(Failure::usage(format!("{} is both the input and the output", input.display()))
            .with_hint("give the output another name: the text would be lost"));
    }
    Ok(())
}

/// Runs `write` into a file, atomically, or into stdout.
fn into(
    output: Option<&Path>,
    write: &mut dyn FnMut(&mut dyn Write) -> Result<(), CorpusError>,
) -> Result<(), Failure> {
    match output {
        Some(path) => {
            write_atomically(path, write).map_err(|error: CorpusError| of_a_file(error.with_output(path)))
        }
        None => {
            let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
            write(&mut out).map_err(of_a_file)?;
            Ok(out.flush()?)
        }
    }
}

/// A path that was typed here is a file, and never the name of a corpus.
fn of_a_file(error: CorpusError) -> Failure {
    match error {
        CorpusError::Missing { name } => {
            Failure::failed(format!("cannot read {name}: there is no such file"))
        }
        error => error.into(),
    }
}

fn show(work: &mut Work, progress: Progress) {
    work.at(progress.what, progress.done, progress.total);
}
