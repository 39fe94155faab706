//! `decide`: the decision rule on a table from anywhere.

use crate::args::Decide;
use crate::failure::Failure;
use diapason_study::{Cost, Tolerance, decide, read_table};
use std::fs::File;
use std::io::{self, Write};

pub(crate) fn run(args: Decide) -> Result<(), Failure> {
    let file = File::open(&args.table).map_err(|e| Failure::file("read", &args.table, &e))?;
    let candidates = read_table(file).map_err(|e| Failure::from(e).in_file(&args.table))?;
    let tolerance = Tolerance::new(args.tolerance)
        .ok_or_else(|| Failure::usage("--tolerance must lie between 0 and 1"))?;
    let decision = decide(&candidates, tolerance, 0.0).ok_or_else(|| {
        Failure::failed("no configuration has a finite loss and time: nothing to choose from")
            .in_file(&args.table)
    })?;
    let mut out = io::stdout().lock();
    for line in decision.explain(&candidates, Cost::Seconds) {
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}
