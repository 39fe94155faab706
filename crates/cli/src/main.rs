//! The program `diapason`: parses what was typed, calls the crates below, prints what they say.
//!
//! One file per command lies in `commands`; [`args`] is all that can be typed. There is no logic of its own
//! here beyond that: what a run, a study or a decision is, the libraries know.

mod args;
mod boards;
mod commands;
mod failure;
mod memory;
mod progress;
mod screen;
mod shell;
mod signals;
mod sparkline;
mod storage;

use args::{Cli, Command};
use clap::Parser;
use failure::Failure;
use signals::Signals;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(failure) = storage::hide_password() {
        return failure.report();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return failure::usage(&error),
    };
    match Signals::install().and_then(|signals| run(cli.command, &signals)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(command: Command, signals: &Signals) -> Result<(), Failure> {
    match command {
        Command::Tune(args) => commands::tune::run(*args, signals),
        Command::Worker(args) => commands::worker::run(args, signals),
        Command::Train(args) => commands::train::run(args, signals),
        Command::Eval(args) => commands::eval::run(args),
        Command::Generate(args) => commands::generate::run(args),
        Command::Corpus(args) => commands::corpus::run(args),
        Command::Decide(args) => commands::decide::run(args),
        Command::Replay(args) => commands::replay::run(&args),
        Command::Config(args) => commands::config::run(args),
        Command::Bench(args) => commands::bench::run(args),
        Command::Study(command) => commands::study::run(command),
    }
}
