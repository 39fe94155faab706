//! Studies in a database: Optuna's own schema, and durable work items beside it.
//!
//! A study should open in the tools that people already have, and it should lose nothing: no cell of a grid forgotten
//! or trained twice, no trial running for ever that nobody runs. Optuna's tables give the first (`optuna.load_study`,
//! `optuna.visualization` and `optuna-dashboard` work on every study written here), a table of work items the second.
//!
//! - [`StorageUrl`]: where; SQLite for one machine, PostgreSQL for many.
//! - [`Storage`]: studies, attributes, pages of trials, export; and the life of a work item, from
//!   [`Storage::enqueue`] over [`Storage::claim`] to [`Storage::finish`].
//! - [`Courier`]: the thread that keeps a database's slowness away from training.
//! - [`inside`], [`printable`]: what comes out of a database is data.
//!
//! How things map to Optuna:
//!
//! | here | in Optuna |
//! |---|---|
//! | a cell of the grid with a seed (a work item) | one trial; a new one for each retry after a reported failure, and when a finished one is extended |
//! | the cell's keys and values | params: Int or Float for numbers, for ever; Categorical for names only |
//! | enqueued | WAITING, with params and `fixed_params` |
//! | claimed | RUNNING, `datetime_start`, a heartbeat on the database's clock |
//! | interrupted, waiting at a rung, or its worker lost | RUNNING without (or with an old) heartbeat; the truth is in the work item |
//! | taken over from a worker that died | the same trial: it is one trajectory, and goes on from its checkpoint |
//! | evaluation | an intermediate value at its step |
//! | finished, also by patience | COMPLETE with its value |
//! | lost at a rung | PRUNED with the last value reported |
//! | diverged or failed | FAIL, `fail_reason`; a retry has `failed_trial` and `retry_history` |
//!
//! What makes it hold: every change is one short transaction; an owner's write carries its lease and changes nothing
//! if somebody else has the item; every transaction may be run a second time, when the answer of the first was lost.
//! Clocks of workers are never compared: times are the database's.

mod claim;
mod courier;
mod database;
mod encode;
mod enqueue;
mod error;
mod filesystem;
#[cfg(test)]
mod forgetful;
mod item;
mod postgres;
mod schema;
mod sqlite;
mod storage;
mod text;
mod tls;
mod token;
mod trials;
mod url;
mod work;
mod worker;

pub use claim::{Claim, Claimed, How, Lease, Policy};
pub use courier::{Courier, Held};
pub use encode::{Direction, Distribution, TrialState, lenient};
pub use enqueue::{Enqueued, NewTrial, Param, Waiting};
pub(crate) use error::Result;
pub use error::StorageError;
pub use item::{Item, ItemCounts, ItemId, ItemState};
pub use storage::{Attributes, Cost, Opening, Storage, StudyId, StudySummary};
pub use text::{inside, printable};
pub use trials::{PAGE, Page, Trial};
pub use url::{Server, SslMode, StorageUrl};
pub use work::{Decision, EXTENDS, FAIL_REASON, Finished, Outcome, Record, completed_rung};
pub use worker::Worker;
