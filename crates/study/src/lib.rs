//! Studies: which configurations are tried, what came of each, and which one to keep.
//!
//! - [`Grid`]: the search space, cell by cell, checked before anything runs.
//! - [`Search`]: configurations drawn from ranges, at random or by TPE.
//! - [`StudySpec`]: everything that was asked for, remembered in `study.toml`.
//! - [`run_study`]: begins or continues a study, and works on it; [`join_study`]: works on one that is there. The
//!   trials, one after the other or side by side, are runs of `diapason-training` read early and in full.
//! - [`Home`]: where a study is kept; its database is an Optuna study.
//! - [`Timings`]: what a step of each configuration takes, measured at the start.
//! - [`Study`]: a study as it stands, running, killed or finished: [`Row`]s, [`Candidate`]s, [`Verdict`].
//! - [`decide`]: the rule that chooses, on any table ([`read_table`]).
//! - [`compare`], [`weigh`]: how certain the choice is, from losses per span of text and per seed.
//! - [`Rule`], [`rungs`]: what may end a trial before its last step, and which go on.
//! - [`replay`]: what a stopping rule would have done to a study that is finished.
//! - [`SEED_NUMBERS`]: what the notebook that this program started from measured.
//!
//! A study's folder:
//!
//! ```text
//! study.toml                                   what was asked
//! study.db                                     the Optuna study, unless it lives on a server
//! trials/d_model=256,n_heads=8/seed-0/         checkpoint.safetensors, best.safetensors, curve.csv
//! ```

mod budget;
mod crew;
mod critical;
mod decide;
mod director;
mod error;
mod evidence;
mod grid;
mod home;
mod pace;
mod params;
mod presets;
mod replay;
mod rule;
mod run;
pub mod rungs;
mod search;
mod seed;
mod spec;
mod study;
mod table;
mod timings;
mod trial;
mod weigh;
mod worker;

pub use critical::critical_value;
pub use decide::{Candidate, Comparison, Cost, Decision, Tolerance, decide, percent};
pub use director::{RungCandidate, RungDecision};
pub use error::StudyError;
pub use evidence::{Evidence, EvidenceError, Interval, SeedSpread, SpanLosses, compare};
pub use grid::{Axis, Cell, Grid};
pub use home::{DATABASE_FILE, Home};
pub use params::{Params, value_text};
pub use presets::{QUICK_GRID, QUICK_STEPS};
pub use replay::{Curve, ReplayError, Replayed, Training, read_curves, replay};
pub use rule::{Median, Rule, RuleError, Rungs};
pub use run::{Forecast, Plan, StudyEvent, Work, join_study, run_study};
pub use search::{Range, Sampler, Search, SearchError};
pub use seed::{SEED_EARLY_STEP, SEED_GRID, SEED_LABEL, SEED_NUMBERS, SEED_STEPS, SeedNumbers, seed_numbers};
pub use spec::{CorpusStamp, Difference, STUDY_FILE, StudySpec, UNTIL_SEEDS};
pub use study::{CellReading, Grounds, Pass, PassDecision, Row, Study, Until, Verdict};
pub use table::{CandidateTable, RESULT_COLUMNS, TableError, read_table};
pub use timings::{Machine, SideBySide, Timing, Timings};
pub use trial::{StoredTrial, Trial, TrialFailure, TrialRecord, TrialState};
pub use weigh::{Certainty, Missing, Need, Standing, Weighed, weigh};
pub use worker::{Engines, MadeEngine};
