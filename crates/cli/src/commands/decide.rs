//! `decide`: the decision rule on a table from anywhere.

use crate::args::{self, Decide};
use crate::failure::{Failure, note};
use diapason_report::RESULTS_FILE;
use diapason_storage::printable;
use diapason_study::{Cost, Pass, Tolerance, decide, percent, read_table};
use std::fs::File;
use std::io::{self, Write};

pub(crate) fn run(args: Decide) -> Result<(), Failure> {
    // The folder of a study stands for its results.
    let of_folder = args.table.is_dir();
    let path = if of_folder { args.table.join(RESULTS_FILE) } else { args.table };
    let file = File::open(&path).map_err(|error| match Failure::file("read", &path, &error) {
        failure if of_folder => failure.with_hint("the folder of a study has it once its trials are done"),
        failure => failure,
    })?;
    let pass = args.pass.map(|pass| match pass {
        args::Pass::Early => Pass::Early,
        args::Pass::Full => Pass::Full,
    });
    let cost = Cost::from(args.cost);
    let table = read_table(file, pass, cost).map_err(|e| Failure::from(e).in_file(&path))?;
    if let Some((there, pass)) = &table.pass {
        let other = there.iter().find(|other| *other != pass);
        let other = other.map_or(String::new(), |other| format!(" (--pass {other} decides on the other)"));
        let equal = match table.noise {
            0.0 => String::new(),
            noise => format!("; times within {} count as equal", percent(noise)),
        };
        note(&format!("results of a study: the {pass} pass{other}{equal}"));
        if table.further > 0 {
            note(
                "losses are means over the seeds that all configurations have; the study's own verdict counts the further ones too",
            );
        }
    }
    let candidates = table.candidates;
    let tolerance = Tolerance::new(args.tolerance)
        .ok_or_else(|| Failure::usage("--tolerance must lie between 0 and 1"))?;
    let decision = decide(&candidates, tolerance, table.noise).ok_or_else(|| {
        Failure::failed("no configuration has a finite loss and cost: nothing to choose from").in_file(&path)
    })?;
    let mut out = io::stdout().lock();
    for line in decision.explain(&candidates, cost) {
        // The table may be from anywhere.
        writeln!(out, "{}", printable(&line))?;
    }
    Ok(out.flush()?)
}
