//! One file per command, and what several of them need.

pub(crate) mod bench;
pub(crate) mod config;
pub(crate) mod corpus;
pub(crate) mod decide;
pub(crate) mod eval;
pub(crate) mod generate;
mod page;
pub(crate) mod replay;
pub(crate) mod study;
pub(crate) mod train;
pub(crate) mod tune;
mod winner;
pub(crate) mod worker;
mod working;

use crate::args::Text;
use crate::failure::Failure;
use crate::progress::Work;
use diapason_corpus::{Corpus, CorpusRequest, SplitRequest};
use diapason_engine::{CpuEngine, Engine, EngineError, Precision, Shape};
use diapason_model::ModelConfig;
use diapason_study::STUDY_FILE;
use diapason_training::checkpoint::Stored;
use diapason_training::{BEST, CHECKPOINT, Config, PrecisionChoice};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// JSON on one line, which suits `jq` as well as a program that reads the last line.
fn json<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|e| Failure::failed(format!("cannot write JSON: {e}")))
}

/// The text that was asked for, with the defaults that a text has.
fn request(text: &Text, corpus: String) -> CorpusRequest {
    CorpusRequest {
        corpus,
        test_corpus: text.test_corpus.clone(),
        alphabet: text.alphabet.unwrap_or_default(),
        normalize: text.normalize,
        split: SplitRequest {
            train_chars: text.train_chars,
            validation_chars: text.validation_chars,
            test_chars: text.test_chars,
        },
    }
}

/// The text of a command that cannot do without one.
fn required_request(text: &Text) -> Result<CorpusRequest, Failure> {
    match &text.corpus {
        Some(corpus) => Ok(request(text, corpus.clone())),
        None => Err(Failure::usage("--corpus is missing").with_hint(
            "--corpus takes text8, builtin:english, or the path of a text; builtin:english needs no file and no network",
        )),
    }
}

/// Reads the text, with progress.
fn open(request: &CorpusRequest) -> Result<Corpus, Failure> {
    let mut work = Work::bytes();
    Ok(Corpus::open(request, &mut |p| work.at(p.what, p.done, p.total))?)
}

/// What `--recipe` names, or the defaults.
fn recipe(name: Option<&str>) -> Result<Config, Failure> {
    name.map_or(Ok(Config::default()), |name| Config::recipe(name).map_err(|e| Failure::from(e).typed()))
}

/// `--set KEY=V`, in the order in which they were typed, and `--steps N`, applied to `config`.
fn configured(mut config: Config, set: &[String], steps: Option<u64>) -> Result<Config, Failure> {
    for (i, assignment) in set.iter().enumerate() {
        let Some((key, value)) = assignment.split_once('=') else {
            return Err(Failure::usage(format!("--set {assignment}: there is no `=`"))
                .with_hint("write --set KEY=VALUE, as in --set d_model=128"));
        };
        let same = |other: &String| other.split('=').next().is_some_and(|other| other.trim() == key.trim());
        if set[..i].iter().any(same) {
            return Err(
                Failure::usage(format!("{} is set twice", key.trim())).with_hint("leave one --set out")
            );
        }
        config.set(key.trim(), value).map_err(|e| Failure::from(e).typed())?;
    }
    if let Some(steps) = steps {
        if set.iter().any(|assignment| key_of(assignment) == "steps") {
            return Err(
                Failure::usage("steps is in --set and given by --steps").with_hint("leave one of them out")
            );
        }
        config.steps = steps;
    }
    Ok(config)
}

/// The key of `KEY=...`.
fn key_of(assignment: &str) -> &str {
    assignment.split('=').next().unwrap_or_default().trim()
}

/// Refuses a file where a folder is to be made.
fn no_file(folder: &Path) -> Result<(), Failure> {
    match folder.ancestors().find(|part| part.exists()) {
        Some(file) if !file.is_dir() => {
            Err(Failure::usage(format!("{} is a file, not a folder", file.display()))
                .with_hint("choose another folder with --out"))
        }
        _ => Ok(()),
    }
}

/// The checkpoint at `path`: itself, or the best one in the folder of a run.
fn checkpoint_file(path: &Path) -> Result<PathBuf, Failure> {
    if !path.is_dir() {
        return Ok(path.to_path_buf());
    }
    let found = [BEST, CHECKPOINT].map(|name| path.join(name)).into_iter().find(|file| file.exists());
    found.ok_or_else(|| {
        let hint = if path.join(STUDY_FILE).exists() {
            format!("this is a study: its runs are below {}", path.join("trials").display())
        } else {
            format!("a run's folder has {BEST} and {CHECKPOINT}")
        };
        Failure::failed(format!("there is no checkpoint in {}", path.display())).with_hint(hint)
    })
}

/// An engine with the weights of a checkpoint, which go straight to their place, for windows of the length that it
/// was trained on, one at a time.
fn trained(checkpoint: &mut Stored<'_>, precision: Precision, threads: usize) -> Result<CpuEngine, Failure> {
    let header = checkpoint.header();
    let shape = Shape { batch_size: 1, sequence_length: header.config.sequence_length };
    let mut engine = engine(header.model, precision, shape, threads, 0)?;
    let mut read = Ok(());
    engine.with_state(&mut |state| read = checkpoint.read_evaluated(state.parameters));
    read?;
    Ok(engine)
}

/// What to say of a model whose best loss is no better than guessing.
fn nothing_learned(best: f64, corpus: &Corpus) -> Option<String> {
    let (symbols, counting) = (corpus.alphabet.len(), corpus.unigram_loss());
    let guessing = (symbols as f64).ln();
    if best >= guessing {
        Some(format!(
            "note: a loss of {best:.4} is no better than guessing among {symbols} characters ({guessing:.4}): more steps or a smaller learning_rate may help"
        ))
    } else if best >= counting {
        Some(format!(
            "note: a loss of {best:.4} is no better than knowing how often each character occurs ({counting:.4}): more steps or another learning_rate may help"
        ))
    } else {
        None
    }
}

/// The room that a configuration's batches need.
fn shape(config: &Config) -> Shape {
    Shape { batch_size: config.batch_size, sequence_length: config.sequence_length }
}

/// A CPU engine with zeros for parameters, which whoever trains fills in. Its updates will take `updates` bytes.
///
/// # Errors
/// Too little memory, before any of it is allocated.
fn engine(
    model: ModelConfig,
    precision: Precision,
    shape: Shape,
    threads: usize,
    updates: u128,
) -> Result<CpuEngine, EngineError> {
    CpuEngine::check_memory_and(&model, precision, shape, threads, updates)?;
    let zeros = vec![0.0; model.parameters()];
    CpuEngine::with_precision(precision, model, &zeros, threads, shape)
}

/// The precision that a choice comes to here, and what there is to say of it: nothing where it is the fastest.
fn precision(choice: PrecisionChoice) -> Result<(Precision, Option<&'static str>), EngineError> {
    let faster = CpuEngine::half_is_faster()?;
    let text = match choice {
        PrecisionChoice::Half if !faster => Some(
            "half precision: this processor has no AVX512-VNNI, so it gives what it gives elsewhere, but more slowly",
        ),
        PrecisionChoice::Auto if !faster => {
            Some("precision = \"auto\" is f32 here: this processor has no AVX512-VNNI")
        }
        _ => None,
    };
    Ok((choice.resolved(faster), text))
}

/// A short name for a corpus that is fit for a folder: `text8`, `builtin-english`, `my-book`.
fn slug(corpus: &str) -> String {
    let name = if corpus.starts_with("builtin:") {
        corpus.to_string()
    } else {
        Path::new(corpus)
            .file_stem()
            .map_or_else(|| corpus.to_string(), |stem| stem.to_string_lossy().into_owned())
    };
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "._".contains(c) { c } else { '-' }).collect();
    let plain = plain.trim_matches(['-', '.']);
    if plain.is_empty() { "text".to_string() } else { plain.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corpora_name_folders() {
        assert_eq!(slug("text8"), "text8");
        assert_eq!(slug("builtin:english:2000:1"), "builtin-english-2000-1");
        assert_eq!(slug("../books/My Book (2nd).txt"), "My-Book--2nd");
        assert_eq!(slug(".."), "text");
    }

    #[test]
    fn assignments() {
        let set = ["d_model=128".to_string(), "learning_rate = 3e-4".to_string()];
        let config = configured(Config::default(), &set, Some(7)).unwrap();
        assert_eq!((config.d_model, config.learning_rate, config.steps), (128, 3e-4, 7));
        assert!(configured(Config::default(), &["d_model".to_string()], None).is_err());
        assert!(configured(Config::default(), &["steps=7".to_string()], Some(7)).is_err());
    }
}
