//! The engine on the CPU.
//!
//! A step has three phases, each dealt out to the threads, with a join behind each:
//!
//! 1. `passes.rs`: forward, loss and backward of each item (a group of sequences) through the whole network; the
//!    item keeps what the weight gradients need.
//! 2. `gradient.rs` and `update.rs`: each rectangle of each parameter's gradient, summed over the items in their order, and
//!    the update of the parameters under it; in more than one phase where an optimizer has to see the whole gradient first.
//! 3. `weights.rs`: the changed matrices packed anew for the products.
//!
//! Nothing is allocated in a step once its shape has been seen. How work is cut never depends on the
//! number of threads, so neither does any bit of the result.

mod dropout;
mod generate;
mod gradient;
mod memory;
mod passes;
mod positions;
mod sizes;
mod update;
mod weights;

pub(crate) use memory::generation_needed;
pub use memory::{cache_bytes, memory_needed, memory_of_updates};
pub(crate) use update::flop_of_update;

use crate::api::{Batch, Cache, Engine, EngineError, EngineId, Scores, State, StateMut, StepMetrics, Update};
use diapason_kernels::{Buffer, Isa, Pool, Precision, cross_entropy};
use diapason_model::{Layout, LossPositions, ModelConfig, NgramTables};
use diapason_random::{Purpose, Stream};
use dropout::Masks;
use generate::{Group, Reading};
use gradient::{Gradient, Passed, TaskScratch, Turn, Visits};
use passes::{Context, Item, Scratch};
use positions::Tables;
use sizes::{EndFields, Sizes};
use update::Updater;
use weights::Weights;

/// The environment variable that names the instruction set to use instead of the best one.
const ISA_VARIABLE: &str = "DIAPASON_ISA";

/// The batch that an engine makes room for at the start. Others work too: room is made when they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Windows in a batch.
    pub batch_size: usize,
    /// Positions in a window.
    pub sequence_length: usize,
}

/// Forward, backward and update on the processor's vector instructions; in f32, but for the products, which may be in half precision.
pub struct CpuEngine {
    id: EngineId,
    isa: Isa,
    model: ModelConfig,
    layout: Layout,
    tables: Tables,
    ngrams: NgramTables,
    /// Where the next batch's dropout comes from.
    masks: Stream,
    parameters: Buffer,
    first_moment: Buffer,
    second_moment: Buffer,
    /// Average of the parameters; empty if none is kept.
    average: Buffer,
    weights: Weights,
    pool: Pool,
    /// Sizes that `items`, `gradient` and `threads` are made for.
    sizes: Sizes,
    items: Vec<Item>,
    gradient: Gradient,
    visits: Visits,
    updater: Updater,
    threads: Vec<ThreadScratch>,
}

/// What each thread owns.
struct ThreadScratch {
    passes: Buffer,
    tasks: TaskScratch,
    /// One block and the ends of an item, for evaluation.
    evaluation: Buffer,
    /// For generation.
    reading: Option<Reading>,
}

impl ThreadScratch {
    fn new(s: &Sizes, layout: &Layout) -> Self {
        Self {
            passes: Buffer::zeroed(s.scratch_len()),
            tasks: TaskScratch::new(s, layout),
            evaluation: Buffer::zeroed(CpuEngine::evaluation_len(s)),
            reading: None,
        }
    }
}

impl CpuEngine {
    /// An engine for `model` with these `parameters` (in the order of its layout) and zero moments, in f32 on `threads`
    /// threads. The instruction set is the best of the processor, or the one that the environment variable
    /// `DIAPASON_ISA` names.
    ///
    /// # Errors
    /// When the memory does not suffice, or `DIAPASON_ISA` names what the processor lacks.
    pub fn new(
        model: ModelConfig,
        parameters: &[f32],
        threads: usize,
        shape: Shape,
    ) -> Result<Self, EngineError> {
        Self::with_precision(Precision::F32, model, parameters, threads, shape)
    }

    /// [`CpuEngine::new`] with products in a given precision.
    ///
    /// # Errors
    /// As there.
    pub fn with_precision(
        precision: Precision,
        model: ModelConfig,
        parameters: &[f32],
        threads: usize,
        shape: Shape,
    ) -> Result<Self, EngineError> {
        Self::with_isa(Self::isa()?, precision, model, parameters, threads, shape)
    }

    /// The id of every engine with products in this precision that is made here.
    ///
    /// # Errors
    /// When `DIAPASON_ISA` names what the processor lacks.
    pub fn engine_id(precision: Precision) -> Result<EngineId, EngineError> {
        Self::isa().map(|isa| id(isa, precision))
    }

    /// Whether products in half precision are faster here than in f32; everywhere they give the same.
    ///
    /// # Errors
    /// When `DIAPASON_ISA` names what the processor lacks.
    pub fn half_is_faster() -> Result<bool, EngineError> {
        Self::isa().map(Isa::has_pair_products)
    }

    fn isa() -> Result<Isa, EngineError> {
        match std::env::var(ISA_VARIABLE) {
            Ok(name) if !name.is_empty() => Isa::named(&name).ok_or_else(|| EngineError::InstructionSet {
                name,
                available: Isa::available().iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", "),
            }),
            _ => Ok(Isa::detect()),
        }
    }

    /// [`CpuEngine::with_precision`] on a given instruction set.
    ///
    /// # Errors
    /// When the memory does not suffice.
    ///
    /// # Panics
    /// When `parameters` has not the length of the model's layout.
    pub fn with_isa(
        isa: Isa,
        precision: Precision,
        model: ModelConfig,
        parameters: &[f32],
        threads: usize,
        shape: Shape,
    ) -> Result<Self, EngineError> {
        Self::check_memory(&model, precision, shape, threads)?;
        let layout = Layout::new(&model);
        assert_eq!(parameters.len(), layout.total, "parameters of another model");
        let sizes = Sizes::new(&model, precision, shape.sequence_length, shape.batch_size);
        let pool = Pool::new(threads);
        let mut engine = Self {
            id: id(isa, precision),
            isa,
            tables: Tables::new(&model),
            ngrams: NgramTables::new(&model),
            masks: Stream::new(0, Purpose::Dropout, 0),
            parameters: Buffer::from_slice(parameters),
            first_moment: Buffer::zeroed(layout.total),
            second_moment: Buffer::zeroed(layout.total),
            average: Buffer::zeroed(0),
            weights: Weights::new(isa, &sizes, &layout),
            gradient: Gradient::new(&sizes, &layout),
            visits: Visits::default(),
            updater: Updater::new(&layout),
            threads: (0..pool.threads()).map(|_| ThreadScratch::new(&sizes, &layout)).collect(),
            items: (0..shape.batch_size.div_ceil(sizes.sequences)).map(|_| Item::new(&sizes)).collect(),
            pool,
            sizes,
            layout,
            model,
        };
        engine.pack();
        Ok(engine)
    }

    /// Whether the machine has the memory for an engine.
    ///
    /// # Errors
    /// With both figures when it has not.
    pub fn check_memory(
        model: &ModelConfig,
        precision: Precision,
        shape: Shape,
        threads: usize,
    ) -> Result<(), EngineError> {
        Self::check_memory_and(model, precision, shape, threads, 0)
    }

    /// The same with so many bytes besides, of [`memory_of_updates`].
    ///
    /// # Errors
    /// With both figures when it has not.
    pub fn check_memory_and(
        model: &ModelConfig,
        precision: Precision,
        shape: Shape,
        threads: usize,
        besides: u128,
    ) -> Result<(), EngineError> {
        let needed = memory_needed(model, precision, shape, threads) + besides;
        let available = Self::memory_available();
        let gib = |bytes: u128| bytes as f64 / f64::from(1 << 30);
        match available {
            Some(available) if needed > available => {
                Err(EngineError::Memory { needed_gib: gib(needed), available_gib: gib(available) })
            }
            _ => Ok(()),
        }
    }

    /// Bytes that this process can still get; none where the system does not say.
    pub fn memory_available() -> Option<u128> {
        memory::available()
    }

    /// Numbers that a thread needs to evaluate an item.
    fn evaluation_len(s: &Sizes) -> usize {
        s.block_len() + s.ends_len()
    }

    fn pack(&mut self) {
        self.weights.pack(&self.parameters, &mut self.pool, &mut self.threads);
    }

    /// Makes room for batches of this shape; the same as before costs nothing.
    fn resize(&mut self, t: usize, windows: usize) {
        let sizes = Sizes::new(&self.model, self.sizes.precision, t, windows);
        if sizes == self.sizes {
            return;
        }
        self.sizes = sizes;
        self.items.clear();
        self.gradient = Gradient::new(&self.sizes, &self.layout);
        for thread in &mut self.threads {
            *thread = ThreadScratch::new(&self.sizes, &self.layout);
        }
    }

    /// Reads the next `symbols` of each stream; `logits` behind them.
    fn read(&mut self, groups: &mut [Group], symbols: &[u8], logits: &mut [f32]) {
        let s = self.sizes;
        let (weights, parameters) = (&mut self.weights, &self.parameters);
        weights.pack_singles(self.isa, s.precision, parameters, &mut self.pool, &mut self.threads);
        let context = Context {
            isa: self.isa,
            sizes: s,
            layout: &self.layout,
            parameters: &self.parameters,
            weights: &self.weights,
            tables: &self.tables,
            ngrams: &self.ngrams,
            masks: None,
        };
        let mut items = deal(groups, symbols, logits, s.v);
        if items.len() < self.pool.threads() {
            let Some(thread) = self.threads.first_mut() else { return };
            for (group, symbols, logits) in &mut items {
                let scratch = Reading::of(&mut thread.reading, &s, group.capacity);
                context.read(group, symbols, logits, scratch, Some(&mut self.pool));
            }
        } else {
            self.pool.for_each(&mut items, &mut self.threads, |_, (group, symbols, logits), thread| {
                let scratch = Reading::of(&mut thread.reading, &s, group.capacity);
                context.read(group, symbols, logits, scratch, None);
            });
        }
    }

    /// Forward and backward of all items; the mean loss.
    fn pass(&mut self, batch: Batch<'_>) -> StepMetrics {
        self.resize(batch.sequence_length, batch.windows());
        self.visits.find(&self.ngrams, batch.inputs, batch.sequence_length);
        let s = self.sizes;
        let count = batch.windows().div_ceil(s.sequences);
        while self.items.len() < count {
            self.items.push(Item::new(&s));
        }
        let positions = batch.inputs.len();
        let context = Context {
            isa: self.isa,
            sizes: s,
            layout: &self.layout,
            parameters: &self.parameters,
            weights: &self.weights,
            tables: &self.tables,
            ngrams: &self.ngrams,
            masks: Masks::new(self.masks, self.model.dropout, positions),
        };
        let counted = match self.model.loss_positions {
            LossPositions::All => positions,
            LossPositions::Last => batch.windows(),
        };
        let scale = 1.0 / counted as f32;
        self.pool.for_each(&mut self.items[..count], &mut self.threads, |index, item, thread| {
            let range = index * s.tokens()..((index + 1) * s.tokens()).min(positions);
            context.train(
                item,
                range.start,
                &batch.inputs[range.clone()],
                &batch.targets[range],
                scale,
                &mut thread.passes,
            );
        });
        let total: f64 = self.items[..count].iter().map(|item| item.loss).sum();
        StepMetrics { loss: total / counted as f64 }
    }
}

/// The arithmetic of this version on an instruction set.
fn id(isa: Isa, precision: Precision) -> EngineId {
    EngineId {
        version: env!("CARGO_PKG_VERSION").to_string(),
        isa: isa.name().to_string(),
        precision: precision.name().to_string(),
    }
}

impl Engine for CpuEngine {
    fn id(&self) -> &EngineId {
        &self.id
    }

    fn model(&self) -> &ModelConfig {
        &self.model
    }

    fn threads(&self) -> usize {
        self.pool.threads()
    }

    fn set_threads(&mut self, threads: usize) {
        if threads.max(1) == self.pool.threads() {
            return;
        }
        self.pool = Pool::new(threads);
        // The scratch of threads that leave stays: they may come back.
        while self.threads.len() < self.pool.threads() {
            self.threads.push(ThreadScratch::new(&self.sizes, &self.layout));
        }
    }

    fn draw_masks(&mut self, seed: u64, update: u64) {
        self.masks = Stream::new(seed, Purpose::Dropout, update);
    }

    fn step(&mut self, batch: Batch<'_>, update: &Update) -> StepMetrics {
        let metrics = self.pass(batch);
        self.update(batch, update);
        self.pack();
        metrics
    }

    fn gradient(&mut self, batch: Batch<'_>, out: &mut [f32]) -> StepMetrics {
        let metrics = self.pass(batch);
        let (isa, s) = (self.isa, self.sizes);
        let items = &self.items[..batch.windows().div_ceil(s.sequences)];
        let passed = Passed { items, inputs: batch.inputs, visits: &self.visits };
        let (gradient, threads) = (&self.gradient, self.pool.threads());
        self.pool.for_each_block(gradient.set(), [out], &mut self.threads, |index, [mut block], thread| {
            let turn = Turn { index, next: index + threads };
            let soon = [block.sheet()];
            if gradient.is_partial(index) {
                (0..block.rows()).for_each(|r| block.row(r).fill(0.0));
            }
            gradient.compute(turn, isa, &s, passed, &mut thread.tasks, &soon, |r, g| {
                block.row(r).copy_from_slice(g);
            });
        });
        metrics
    }

    fn evaluate(&mut self, batch: Batch<'_>, scores: &mut Scores) {
        let positions = batch.inputs.len();
        scores.losses.clear();
        scores.losses.resize(positions, 0.0);
        scores.hits.clear();
        scores.hits.resize(positions, false);
        if positions == 0 {
            return;
        }
        let s = Sizes::new(&self.model, self.sizes.precision, batch.sequence_length, batch.windows());
        let context = Context {
            isa: self.isa,
            sizes: s,
            layout: &self.layout,
            parameters: &self.parameters,
            weights: &self.weights,
            tables: &self.tables,
            ngrams: &self.ngrams,
            masks: None,
        };
        self.threads.iter_mut().for_each(|thread| thread.fit(&s));
        let Scores { losses, hits } = scores;
        self.pool.for_each_chunk(
            s.tokens(),
            losses,
            hits,
            &mut self.threads,
            |index, losses, hits, thread| {
                let range = index * s.tokens()..((index + 1) * s.tokens()).min(positions);
                let inputs = &batch.inputs[range.clone()];
                let (kept, ends) = thread.evaluation.split_at_mut(s.block_len());
                let mut scratch = Scratch::of(&s, &mut thread.passes);
                context.embed(inputs, ends, &mut scratch);
                for block in 0..s.l {
                    context.block_forward(block, kept, ends, inputs.len(), range.start, &mut scratch);
                }
                context.head_forward(inputs.len(), ends, &mut scratch);
                let logits = &ends[EndFields::new(&s).logits];
                cross_entropy(context.isa, logits, s.v, s.ld_v, &batch.targets[range], losses, hits);
            },
        );
    }

    fn state(&self) -> State<'_> {
        State {
            parameters: &self.parameters,
            first_moment: &self.first_moment,
            second_moment: &self.second_moment,
            average: &self.average,
        }
    }

    fn with_state(&mut self, change: &mut dyn FnMut(StateMut<'_>)) {
        change(StateMut {
            parameters: &mut self.parameters,
            first_moment: &mut self.first_moment,
            second_moment: &mut self.second_moment,
            average: &mut self.average,
        });
        self.pack();
    }

    fn keep_average(&mut self, keep: bool) {
        let len = if keep { self.layout.total } else { 0 };
        if self.average.len() != len {
            self.average = Buffer::zeroed(len);
        }
    }

    fn swap_average(&mut self) {
        if !self.average.is_empty() {
            std::mem::swap(&mut self.parameters, &mut self.average);
            self.pack();
        }
    }

    fn cache(&self, streams: usize, positions: usize) -> Cache {
        let positions = positions.min(self.model.max_len);
        Box::new(Group::all(&self.sizes, streams, positions, self.pool.threads()))
    }

    fn prefill(&mut self, cache: &mut Cache, contexts: &[u8], logits: &mut [f32]) {
        let Some(groups) = cache.downcast_mut::<Vec<Group>>() else { return };
        groups.iter_mut().for_each(Group::clear);
        self.read(groups, contexts, logits);
    }

    fn decode(&mut self, cache: &mut Cache, symbols: &[u8], logits: &mut [f32]) {
        let Some(groups) = cache.downcast_mut::<Vec<Group>>() else { return };
        self.read(groups, symbols, logits);
    }
}

impl ThreadScratch {
    /// Makes room to evaluate windows of another length.
    fn fit(&mut self, s: &Sizes) {
        if self.passes.len() < s.scratch_len() {
            self.passes = Buffer::zeroed(s.scratch_len());
        }
        if self.evaluation.len() < CpuEngine::evaluation_len(s) {
            self.evaluation = Buffer::zeroed(CpuEngine::evaluation_len(s));
        }
    }
}

/// Each group with its share of the symbols, the same number for every stream, and logits.
fn deal<'a>(
    groups: &'a mut [Group],
    mut symbols: &'a [u8],
    mut logits: &'a mut [f32],
    v: usize,
) -> Vec<(&'a mut Group, &'a [u8], &'a mut [f32])> {
    let streams: usize = groups.iter().map(|group| group.streams).sum();
    let each = symbols.len() / streams.max(1);
    groups
        .iter_mut()
        .map(|group| {
            let (own, rest) = symbols.split_at(group.streams * each);
            symbols = rest;
            let (out, rest) = std::mem::take(&mut logits).split_at_mut(group.streams * v);
            logits = rest;
            (group, own, out)
        })
        .collect()
}
