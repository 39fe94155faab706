//! How a command fails: one line that says what was wrong, a hint where there is one, an exit code.

use clap::CommandFactory;
use diapason_engine::EngineError;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something that was typed cannot be meant: exit code 2.
    Usage { message: String, hint: Option<String> },
    /// Something went wrong while doing it: exit code 1.
    Failed { message: String, hint: Option<String> },
    /// A signal came; the work so far is kept and `resume` continues it: exit code 129, 130 or 143.
    Interrupted { exit_code: u8, resume: String },
    /// Whoever read our output has seen enough (`| head`): nothing to complain of.
    OutputClosed,
}

impl Failure {
    /// A failure without a hint.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), hint: None }
    }

    /// A usage error without a hint.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: None }
    }

    /// The same failure with this hint.
    pub(crate) fn with_hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Usage { hint, .. } | Self::Failed { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    /// The same failure as a usage error: for values that were typed.
    pub(crate) fn typed(self) -> Self {
        match self {
            Self::Failed { message, hint } => Self::Usage { message, hint },
            other => other,
        }
    }

    /// The same failure, with the file that it is about.
    pub(crate) fn in_file(mut self, path: &Path) -> Self {
        if let Self::Usage { message, .. } | Self::Failed { message, .. } = &mut self {
            *message = format!("{}: {message}", path.display());
        }
        self
    }

    /// A file could not be read or written.
    pub(crate) fn file(what: &str, path: &Path, error: &io::Error) -> Self {
        Self::failed(format!("cannot {what} {}: {error}", path.display()))
    }

    /// Prints the failure and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Usage { message, hint } => {
                print(&message, hint.as_deref());
                ExitCode::from(2)
            }
            Self::Failed { message, hint } => {
                print(&message, hint.as_deref());
                ExitCode::from(1)
            }
            Self::Interrupted { exit_code, resume } => {
                note(&format!("interrupted; everything so far is kept. This resumes:\n{resume}"));
                ExitCode::from(exit_code)
            }
            Self::OutputClosed => ExitCode::SUCCESS,
        }
    }
}

/// Errors of writing to stdout.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::failed(format!("cannot write the output: {error}"))
        }
    }
}

/// Library errors that carry their own hint.
macro_rules! with_hint {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Failed { message: error.to_string(), hint: error.hint() }
            }
        }
    )*};
}

with_hint!(
    diapason_storage::StorageError,
    diapason_study::ReplayError,
    diapason_study::StudyError,
    diapason_study::TableError,
    diapason_training::CheckpointError,
    diapason_training::BudgetError,
    diapason_training::ConfigError,
    diapason_training::TrainingError,
);

/// Library errors that say all there is to say.
macro_rules! without_hint {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::failed(error.to_string())
            }
        }
    )*};
}

without_hint!(
    diapason_generation::GenerationError,
    diapason_report::ReportError,
    diapason_training::EvaluationError
);

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let hint = match error {
            EngineError::Memory { .. } => "make the model or batch_size smaller, or use fewer --threads",
            EngineError::InstructionSet { .. } => "unset DIAPASON_ISA to use the best there is",
        };
        Self::failed(error.to_string()).with_hint(hint)
    }
}

impl From<diapason_corpus::CorpusError> for Failure {
    fn from(error: diapason_corpus::CorpusError) -> Self {
        match error {
            diapason_corpus::CorpusError::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => {
                Self::OutputClosed
            }
            error => Self::Failed { hint: error.hint(), message: error.to_string() },
        }
    }
}

/// Prints an argument error of the parser in the form of all our errors.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        // The reader may be gone: `diapason help | head`.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
    }
    if error.kind() == ErrorKind::InvalidUtf8 {
        let words: Vec<String> = std::env::args_os()
            .skip(1)
            .filter(|word| word.to_str().is_none())
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        print(
            &format!("this is not UTF-8: {}", words.join(" ")),
            Some(
                "the path of a text is kept with what is made of it, as UTF-8: rename the file, or link to it",
            ),
        );
        return ExitCode::from(2);
    }
    let text = error.render().to_string();
    // The parser prints a paragraph with the error, one with tips, one with the usage, one with advice.
    let mut paragraphs = text.split("\n\n");
    let message = paragraphs.next().unwrap_or_default().trim_start_matches("error: ").to_string();
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let tip = text.lines().find_map(|line| line.trim_start().strip_prefix("tip: "));
    // `--limit -5` and `--limti 5`: two dashes would make a file's name of it.
    let of_an_option = tip.is_some_and(|tip| {
        let tips = |word: &str| tip.ends_with(&format!("use '-- {word}'"));
        words.windows(2).any(|two| two[0].starts_with("--") && tips(&two[1])) || tip.contains("use '-- --")
    });
    let tip = tip.filter(|_| !of_an_option);
    let help = match commands(&words) {
        None => "`diapason help` lists the commands".to_string(),
        Some(command) if matches!(error.kind(), ErrorKind::InvalidSubcommand) => {
            format!("`diapason help {command}` lists its commands")
        }
        Some(command) => format!("`diapason help {command}` says what it takes"),
    };
    print(&message, Some(tip.unwrap_or(&help)));
    ExitCode::from(2)
}

/// The command that these words begin with, as `study show`.
fn commands(words: &[String]) -> Option<String> {
    let mut command = &crate::args::Cli::command();
    let mut named = Vec::new();
    for word in words {
        let Some(next) = command.find_subcommand(word) else { break };
        named.push(word.as_str());
        command = next;
    }
    (!named.is_empty()).then(|| named.join(" "))
}

/// One line for the error, one for the hint.
fn print(message: &str, hint: Option<&str>) {
    let mut text = format!("error: {}", shown(message));
    if let Some(hint) = hint {
        text += &format!("\nhint: {}", shown(hint));
    }
    note(&text);
}

/// On one line, without what a terminal would obey: messages repeat names, and cells of tables.
fn shown(text: &str) -> String {
    diapason_storage::printable(&one_line(text)).into_owned()
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Prints a line to stderr. That stderr may be closed is no reason to stop.
pub(crate) fn note(text: &(impl Display + ?Sized)) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
