//! Search space, trials and the decision between configurations.

mod decide;
mod params;
mod table;

pub use decide::{Candidate, Comparison, Decision, Tolerance, decide, percent};
pub use params::{Params, value_text};
pub use table::{TableError, read_table};
