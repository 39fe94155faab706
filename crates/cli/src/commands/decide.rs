//! `decide`: the decision rule on a table from anywhere.

use crate::args::{self, Decide};
use crate::failure::{Failure, note};
use diapason_storage::printable;
use diapason_study::{Cost, Pass, Tolerance, decide, percent, read_table};
use std::fs::File;
use std::io::{self, Write};

pub(crate) fn run(args: Decide) -> Result<(), Failure> {
    let file = File::open(&args.table).map_err(|e| Failure::file("read", &args.table, &e))?;
    let pass = args.pass.map(|pass| match pass {
        args::Pass::Early => Pass::Early,
        args::Pass::Full => Pass::Full,
    });
    let table = read_table(file, pass).map_err(|e| Failure::from(e).in_file(&args.table))?;
    if let Some((there, pass)) = &table.pass {
        let other = there.iter().find(|other| *other != pass);
        let other = other.map_or(String::new(), |other| format!(" (--pass {other} decides on the other)"));
        note(&format!(
            "results of a study: the {pass} pass{other}; times within {} count as equal",
            percent(table.noise)
        ));
    }
    let candidates = table.candidates;
    let tolerance = Tolerance::new(args.tolerance)
        .ok_or_else(|| Failure::usage("--tolerance must lie between 0 and 1"))?;
    let decision = decide(&candidates, tolerance, table.noise).ok_or_else(|| {
        Failure::failed("no configuration has a finite loss and time: nothing to choose from")
            .in_file(&args.table)
    })?;
    let mut out = io::stdout().lock();
    for line in decision.explain(&candidates, Cost::Seconds) {
        // The table may be from anywhere.
        writeln!(out, "{}", printable(&line))?;
    }
    Ok(out.flush()?)
}
