//! How much memory an engine takes, and how much there is: said before anything is allocated.

use super::generate::Reading;
use super::gradient::{TaskScratch, Visits};
use super::passes::Item;
use super::positions::Tables;
use super::sizes::Sizes;
use super::update::Updater;
use super::weights::Weights;
use super::{CpuEngine, Shape};
use crate::api::Updating;
use diapason_kernels::{Precision, padded};
use diapason_model::{Layout, ModelConfig, NgramTables};

/// Bytes that an engine for `model` allocates, for training on batches of `shape` and for evaluation in batches of
/// any size.
pub fn memory_needed(model: &ModelConfig, precision: Precision, shape: Shape, threads: usize) -> u128 {
    needed(model, precision, shape, threads, true)
}

/// Bytes that an engine allocates besides with the first update, for updates of another kind than Adam's without clipping and averaging.
pub fn memory_of_updates(model: &ModelConfig, updating: Updating, threads: usize) -> u128 {
    let rough = 4 * parameters(model);
    let is_absurd = rough > 1 << 46;
    let vector = if is_absurd { rough } else { 4 * Layout::new(model).total as u128 };
    let vectors = u128::from(updating.averages) + u128::from(Updater::keeps_gradient(updating));
    let scratch = if is_absurd { 0 } else { Updater::scratch_bytes(&Layout::new(model), updating) };
    vectors * vector + threads as u128 * scratch as u128
}

/// Bytes that an engine allocates that generates texts with contexts of `positions`: with a cache for each of these numbers of
/// texts.
pub(crate) fn generation_needed(
    model: &ModelConfig,
    positions: usize,
    threads: usize,
    caches: &[usize],
) -> u128 {
    let shape = Shape { batch_size: 1, sequence_length: positions };
    let precision = Precision::F32;
    let reading = threads * Reading::bytes(&Sizes::new(model, precision, positions, 1), positions);
    let caches: u128 = caches.iter().map(|&streams| cache_bytes(model, streams, positions)).sum();
    needed(model, precision, shape, threads, false) + reading as u128 + caches
}

fn needed(model: &ModelConfig, precision: Precision, shape: Shape, threads: usize, evaluates: bool) -> u128 {
    // Sizes beyond what a usize holds are absurd, and must not overflow on the way to saying so.
    let rough = 12 * parameters(model);
    if rough > 1 << 46
        || shape.batch_size as u128 * shape.sequence_length as u128 * model.d_model as u128 > 1 << 44
    {
        return rough
            + 100 * shape.batch_size as u128 * shape.sequence_length as u128 * model.d_model as u128;
    }
    let s = Sizes::new(model, precision, shape.sequence_length, shape.batch_size);
    let layout = Layout::new(model);
    let items = shape.batch_size.div_ceil(s.sequences);
    // Evaluation may cut a larger batch into larger items.
    let windows = if evaluates { usize::MAX } else { shape.batch_size };
    let large = Sizes::new(model, precision, shape.sequence_length, windows);
    let passes = s.scratch_len().max(large.scratch_len());
    let evaluation = CpuEngine::evaluation_len(&s).max(CpuEngine::evaluation_len(&large));
    let thread = 4 * (passes + evaluation) + TaskScratch::bytes(&s, &layout);
    let tables = Tables::bytes(model);
    let visits = Visits::bytes(&NgramTables::new(model), shape.batch_size * shape.sequence_length);
    let shared = 3 * 4 * layout.total + Weights::bytes(&s) + tables + visits;
    (shared + items * Item::bytes(&s) + threads * thread) as u128
}

/// Bytes that a cache for `streams` texts of at most `positions` positions takes.
pub fn cache_bytes(model: &ModelConfig, streams: usize, positions: usize) -> u128 {
    let row = 4 * padded(model.d_model) as u128;
    model.n_layers as u128 * 2 * positions as u128 * row * streams as u128
}

/// The number of parameters without overflow.
fn parameters(model: &ModelConfig) -> u128 {
    let (d, f, l) = (model.d_model as u128, model.mlp_width() as u128, model.n_layers as u128);
    let rows = model.vocabulary + model.max_len + NgramTables::new(model).rows();
    rows as u128 * d + l * (4 * d * d + d * (f + model.up_width() as u128))
}

/// Bytes that this process can still get. None where the system does not say.
pub(super) fn available() -> Option<u128> {
    diapason_memory::available().map(u128::from)
}
