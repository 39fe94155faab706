//! How a training step is computed.
//!
//! [`Engine`] is the seam of the program: what lies above it (schedules, windows, evaluation, checkpoints)
//! knows nothing of tensors, what lies below knows nothing of time. An engine holds the parameters and the
//! optimizer's state of one model; plain numbers and slices cross the seam.

mod api;

pub use api::{Batch, Cache, Engine, EngineError, EngineId, Scores, State, StateMut, StepMetrics, Update};
