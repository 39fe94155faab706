//! How a training step is computed.
//!
//! [`Engine`] is the seam of the program: what lies above it (schedules, windows, evaluation, checkpoints)
//! knows nothing of tensors, what lies below knows nothing of time. An engine holds the parameters and the
//! optimizer's state of one model; plain numbers and slices cross the seam.
//!
//! [`CpuEngine`] is the engine of this project: forward and backward written out on the kernels of
//! `diapason-kernels`, the batch dealt out to threads by sequences.

mod api;
mod bench;
mod cpu;

pub use api::{
    Batch, Cache, Engine, EngineError, EngineId, Optimizer, Scores, State, StateMut, StepMetrics, Update,
    Updating,
};
pub use bench::{
    Benchmark, Cell, Comparison, Evaluation, Generation, Streams, Trials, benchmark, cell, cells, evaluation,
    generation, generation_memory, trials,
};
pub use cpu::{CpuEngine, Shape, cache_bytes, memory_needed, memory_of_updates};
pub use diapason_kernels::Precision;
