//! Studies: which configurations are tried, what came of each, and which one to keep.
//!
//! - [`Grid`]: the search space, cell by cell, checked before anything runs.
//! - [`StudySpec`]: everything that was asked for, remembered in `study.toml`.
//! - [`run_study`]: the trials, one after the other or side by side, each a run of `diapason-training` read early and in
//!   full.
//! - [`Timings`]: what a step of each configuration takes, measured at the start.
//! - [`Study`]: a study as it stands, running, killed or finished: [`Row`]s, [`Candidate`]s, [`Verdict`].
//! - [`decide`]: the rule that chooses, on any table ([`read_table`]).
//! - [`SEED_NUMBERS`]: what the notebook that this program started from measured.
//!
//! A study's folder:
//!
//! ```text
//! study.toml                                   what was asked
//! timings.json                                 what a step of each configuration takes
//! trials/d_model=256,n_heads=8/seed-0/         trial.json, checkpoint.safetensors, best.safetensors, curve.csv
//! ```

mod crew;
mod decide;
mod error;
mod grid;
mod pace;
mod params;
mod presets;
mod run;
mod seed;
mod spec;
mod study;
mod table;
mod timings;
mod trial;

pub use decide::{Candidate, Comparison, Cost, Decision, Tolerance, decide, percent};
pub use error::StudyError;
pub use grid::{Axis, Cell, Grid};
pub use params::{Params, value_text};
pub use presets::{QUICK_GRID, QUICK_STEPS};
pub use run::{Engines, Forecast, MadeEngine, Plan, StudyEvent, Work, run_study};
pub use seed::{SEED_EARLY_STEP, SEED_GRID, SEED_LABEL, SEED_NUMBERS, SEED_STEPS, SeedNumbers, seed_numbers};
pub use spec::{CorpusStamp, Difference, STUDY_FILE, StudySpec};
pub use study::{CellReading, Pass, PassDecision, Row, Study, Verdict};
pub use table::{TableError, read_table};
pub use timings::{Machine, SideBySide, TIMINGS_FILE, Timing, Timings};
pub use trial::{TRIAL_FILE, Trial, TrialFailure, TrialRecord, TrialState};
