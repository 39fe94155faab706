//! From gradients to new parameters.
//!
//! Most updates need of the gradient only what lies over the parameter: Adam, AdamW and Lion follow rectangle by rectangle, while
//! the gradient is in the cache, and the whole gradient never exists in memory. Two things need more, and only then is there a
//! buffer for it:
//!
//! - *Clipping* asks for the length of the gradient, of all parameters or of each unit, before the first parameter changes: the
//!   gradient is written down, measured, and then applied.
//! - *Muon* multiplies the momentum of a whole matrix with itself. Its rectangles are written down with the momentum already in
//!   them; then the matrices, largest first, are dealt out to the threads ([`muon`]).
//!
//! The tables of n-grams have a rule of their own, and only for the rows that the batch has read: see [`Update::ngram_learning_rate`]. For adaptive
//! clipping such a row is a unit.
//!
//! Lengths are sums over rectangles in their order, so threads change no bit here either.

use super::CpuEngine;
use super::gradient::{Passed, Turn};
use crate::api::{Batch, Optimizer, Update, Updating};
use diapason_kernels::{
    AdamUpdate, Block, BlockMut, BlockSet, Buffer, Isa, LionUpdate, MuonUpdate, OrthogonalScratch, adam,
    add_squares, approach, lion, look_ahead, multiply, muon, muon_flop, scale, sum_of_squares,
};
use diapason_model::{Layout, ModelConfig, Tensor};
use std::sync::atomic::{AtomicU64, Ordering};

/// Parameters whose average is renewed at a time.
const STRETCH: usize = 1 << 14;
/// Columns of a matrix whose lengths are found together.
const COLUMNS: usize = 256;
/// Decay of the second moment of a row of n-grams.
const NGRAM_BETA2: f32 = 0.999;
/// A unit is no shorter than this for adaptive clipping: else what is zero could never begin to change (Brock et al., 2021).
const SHORTEST_UNIT: f32 = 1e-3;

/// How a tensor is treated.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Biases and scales: they do not decay.
    Vector,
    /// Tables, and the output matrix.
    Table,
    /// A matrix of a block: Muon's.
    Matrix,
    /// The tables of n-grams.
    Ngrams,
}

impl Kind {
    fn of(tensor: &Tensor) -> Self {
        match (tensor.shape.len(), tensor.name.starts_with("blocks.")) {
            (0 | 1, _) => Self::Vector,
            (2, true) => Self::Matrix,
            _ if tensor.name == "ngram_embedding" => Self::Ngrams,
            _ => Self::Table,
        }
    }
}

/// What a rectangle of a gradient does.
#[derive(Clone, Copy)]
enum Rule {
    Adam(AdamUpdate),
    Lion(LionUpdate),
    /// Only the momentum, with this decay; the gradient becomes what is to be orthogonalised.
    Momentum(f32),
}

impl Rule {
    fn of(update: &Update, kind: Kind) -> Self {
        let weight_decay = if kind == Kind::Vector { 0.0 } else { update.weight_decay };
        let adam = |learning_rate| {
            let Update { number, beta1, beta2, epsilon, .. } = *update;
            AdamUpdate::new(number, learning_rate, beta1, beta2, epsilon)
        };
        match (update.optimizer, kind) {
            (_, Kind::Ngrams) => {
                let Update { number, ngram_learning_rate, epsilon, .. } = *update;
                Self::Adam(AdamUpdate::new(number, ngram_learning_rate, 0.0, NGRAM_BETA2, epsilon))
            }
            (Optimizer::Adam, _) => Self::Adam(adam(update.learning_rate)),
            (Optimizer::AdamW, _) => Self::Adam(adam(update.learning_rate).with_weight_decay(weight_decay)),
            (Optimizer::Lion, _) => Self::Lion(LionUpdate {
                learning_rate: update.learning_rate,
                beta1: update.beta1,
                beta2: update.beta2,
                keep: 1.0 - update.learning_rate * weight_decay,
            }),
            (Optimizer::Muon, Kind::Matrix) => Self::Momentum(update.momentum),
            (Optimizer::Muon, _) => Self::Adam(adam(update.adam_learning_rate)),
        }
    }

    /// On one row: gradient, parameters, both moments.
    fn apply(&self, isa: Isa, g: &[f32], p: &mut [f32], m: &mut [f32], v: &mut [f32]) {
        match self {
            Self::Adam(update) => adam(isa, update, g, p, m, v),
            Self::Lion(update) => lion(isa, update, g, p, m),
            Self::Momentum(_) => {}
        }
    }
}

/// The rules of one update.
struct Rules {
    vector: Rule,
    table: Rule,
    matrix: Rule,
    ngrams: Rule,
}

impl Rules {
    fn new(update: &Update) -> Self {
        let of = |kind| Rule::of(update, kind);
        Self {
            vector: of(Kind::Vector),
            table: of(Kind::Table),
            matrix: of(Kind::Matrix),
            ngrams: of(Kind::Ngrams),
        }
    }

    fn of(&self, kind: Kind) -> &Rule {
        match kind {
            Kind::Vector => &self.vector,
            Kind::Table => &self.table,
            Kind::Matrix => &self.matrix,
            Kind::Ngrams => &self.ngrams,
        }
    }
}

/// What updates keep between steps beside the moments: nothing but room.
pub(super) struct Updater {
    /// Where each tensor begins, and its kind.
    kinds: Vec<(usize, Kind)>,
    /// The whole gradient, if an update has asked for it.
    gradient: Buffer,
    /// Sums of squares of the gradient's rectangles, as bits of f64.
    squares: Vec<AtomicU64>,
    /// All columns of each tensor, in stripes; but the tables of n-grams, whose units are rows.
    columns: BlockSet,
    /// Muon's matrices, largest first, each as one row; and their [rows, columns].
    matrices: BlockSet,
    shapes: Vec<(usize, usize)>,
    /// For each thread, if an update has asked for it.
    orthogonal: Vec<OrthogonalScratch>,
}

impl Updater {
    pub(super) fn new(layout: &Layout) -> Self {
        let mut columns = Vec::new();
        for tensor in layout.tensors.iter().filter(|tensor| Kind::of(tensor) != Kind::Ngrams) {
            let (rows, width) = match tensor.shape[..] {
                [rows, width] => (rows, width),
                _ => (1, tensor.range.len()),
            };
            // A vector is one unit, however long.
            let most = if rows == 1 { width } else { COLUMNS };
            for start in (0..width).step_by(most.max(1)) {
                columns.push(Block {
                    start: tensor.range.start + start,
                    rows,
                    columns: most.min(width - start),
                    stride: width,
                });
            }
        }
        let mut matrices: Vec<&Tensor> =
            layout.tensors.iter().filter(|tensor| Kind::of(tensor) == Kind::Matrix).collect();
        // Stable: equal ones stay in the order of the layout.
        matrices.sort_by(|a, b| muon_flop(shape(b)).total_cmp(&muon_flop(shape(a))));
        let whole = |tensor: &&Tensor| {
            let len = tensor.range.len();
            Block { start: tensor.range.start, rows: 1, columns: len, stride: len }
        };
        Self {
            kinds: layout.tensors.iter().map(|tensor| (tensor.range.start, Kind::of(tensor))).collect(),
            gradient: Buffer::zeroed(0),
            squares: Vec::new(),
            columns: BlockSet::new(columns, layout.total),
            shapes: matrices.iter().map(|tensor| shape(tensor)).collect(),
            matrices: BlockSet::new(matrices.iter().map(whole).collect(), layout.total),
            orthogonal: Vec::new(),
        }
    }

    /// Whether such updates write the whole gradient down.
    pub(super) fn keeps_gradient(updating: Updating) -> bool {
        updating.clips || updating.optimizer == Optimizer::Muon
    }

    /// Bytes that such updates take besides, for each thread.
    pub(super) fn scratch_bytes(layout: &Layout, updating: Updating) -> usize {
        if updating.optimizer != Optimizer::Muon {
            return 0;
        }
        let matrices = layout.tensors.iter().filter(|tensor| Kind::of(tensor) == Kind::Matrix);
        let (small, large) = largest(&matrices.map(shape).collect::<Vec<_>>());
        OrthogonalScratch::bytes(small, large)
    }

    /// Makes room for an update like this; the same as before costs nothing.
    fn fit(&mut self, update: &Update, total: usize, rectangles: usize, threads: usize) {
        if self.gradient.len() < total {
            self.gradient = Buffer::zeroed(total);
        }
        if self.squares.len() < rectangles {
            self.squares.resize_with(rectangles, AtomicU64::default);
        }
        if update.optimizer == Optimizer::Muon {
            let (small, large) = largest(&self.shapes);
            while self.orthogonal.len() < threads {
                self.orthogonal.push(OrthogonalScratch::new(small, large));
            }
        }
    }
}

/// The kind of the tensor in which parameter `at` lies.
fn kind(kinds: &[(usize, Kind)], at: usize) -> Kind {
    match kinds.partition_point(|&(start, _)| start <= at).checked_sub(1) {
        Some(index) => kinds[index].1,
        None => Kind::Vector,
    }
}

/// [rows, columns] of a tensor with two dimensions.
fn shape(tensor: &Tensor) -> (usize, usize) {
    (tensor.shape[0], tensor.shape[1])
}

/// Floating-point operations that an update needs beside what every optimizer does with each number: those of Muon's products,
/// symmetric ones counted as half.
pub(crate) fn flop_of_update(model: &ModelConfig, update: &Update) -> f64 {
    if update.optimizer != Optimizer::Muon {
        return 0.0;
    }
    let layout = Layout::new(model);
    let matrices = layout.tensors.iter().filter(|tensor| Kind::of(tensor) == Kind::Matrix);
    matrices.map(|tensor| muon_flop(shape(tensor))).sum()
}

/// The largest smaller and the largest larger side of matrices.
fn largest(shapes: &[(usize, usize)]) -> (usize, usize) {
    shapes.iter().fold((0, 0), |(small, large), &(rows, columns)| {
        (small.max(rows.min(columns)), large.max(rows.max(columns)))
    })
}

impl CpuEngine {
    /// Applies `update` with the gradient of the batch that `pass` has just seen.
    pub(super) fn update(&mut self, batch: Batch<'_>, update: &Update) {
        let rules = Rules::new(update);
        let clips = update.gradient_clip > 0.0 || update.adaptive_clip > 0.0;
        let (isa, s) = (self.isa, self.sizes);
        let items = &self.items[..batch.windows().div_ceil(s.sequences)];
        let visits = &self.visits;
        let passed = Passed { items, inputs: batch.inputs, visits };
        let (gradient, updater) = (&self.gradient, &mut self.updater);
        let set = gradient.set();
        let rectangles = set.blocks().len();
        let threads = self.pool.threads();
        let turn = |index| Turn { index, next: index + threads };
        let [p, m, v] = [&mut self.parameters, &mut self.first_moment, &mut self.second_moment];
        if clips {
            updater.fit(update, p.len(), rectangles, threads);
            let Updater { kinds, gradient: whole, squares, columns, .. } = updater;
            let (kinds, columns, squares) = (&*kinds, &*columns, &squares[..rectangles]);
            self.pool.for_each_block(set, [whole], &mut self.threads, |index, [mut block], thread| {
                let mut square = 0.0;
                let soon = [block.sheet()];
                let turn = turn(index);
                gradient.compute(turn, isa, &s, passed, &mut thread.tasks, &soon, |r, g| {
                    square += f64::from(sum_of_squares(isa, g));
                    block.row(r).copy_from_slice(g);
                });
                squares[index].store(square.to_bits(), Ordering::Relaxed);
            });
            let mut factor = 1.0;
            if update.adaptive_clip > 0.0 {
                let parameters = &**p;
                self.pool.for_each_block(columns, [whole], &mut self.threads, |index, [mut g], thread| {
                    let block = columns.blocks()[index];
                    clip_units(
                        isa,
                        update.adaptive_clip,
                        block,
                        parameters,
                        &mut g,
                        &mut thread.tasks.gradient,
                    );
                });
            }
            if update.gradient_clip > 0.0 {
                let square: f64 =
                    squares.iter().map(|square| f64::from_bits(square.load(Ordering::Relaxed))).sum();
                let length = square.sqrt();
                if length > f64::from(update.gradient_clip) {
                    factor = (f64::from(update.gradient_clip) / length) as f32;
                }
            }
            self.pool.for_each_block(
                set,
                [p, m, v, whole],
                &mut self.threads,
                |index, [mut p, mut m, mut v, mut g], _| {
                    let rule = rules.of(kind(kinds, set.blocks()[index].start));
                    let clips_rows = update.adaptive_clip > 0.0 && gradient.is_partial(index);
                    gradient.rows(index, visits, |r| {
                        let g = g.row(r);
                        if clips_rows {
                            clip_unit(isa, update.adaptive_clip, p.row(r), g);
                        }
                        if factor < 1.0 {
                            scale(isa, factor, g);
                        }
                        match rule {
                            Rule::Momentum(decay) => look_ahead(isa, *decay, g, m.row(r)),
                            rule => rule.apply(isa, g, p.row(r), m.row(r), v.row(r)),
                        }
                    });
                },
            );
        } else if update.optimizer == Optimizer::Muon {
            updater.fit(update, p.len(), rectangles, threads);
            let Updater { kinds, gradient: whole, .. } = updater;
            self.pool.for_each_block(
                set,
                [p, m, v, whole],
                &mut self.threads,
                |index, [mut p, mut m, mut v, mut u], thread| {
                    let rule = rules.of(kind(kinds, set.blocks()[index].start));
                    let soon = [u.sheet(), m.sheet()];
                    gradient.compute(
                        turn(index),
                        isa,
                        &s,
                        passed,
                        &mut thread.tasks,
                        &soon,
                        |r, g| match rule {
                            Rule::Momentum(decay) => {
                                u.row(r).copy_from_slice(g);
                                look_ahead(isa, *decay, u.row(r), m.row(r));
                            }
                            rule => rule.apply(isa, g, p.row(r), m.row(r), v.row(r)),
                        },
                    );
                },
            );
        } else {
            let kinds = &updater.kinds;
            self.pool.for_each_block(
                set,
                [p, m, v],
                &mut self.threads,
                |index, [mut p, mut m, mut v], thread| {
                    let rule = rules.of(kind(kinds, set.blocks()[index].start));
                    let soon = [p.sheet(), m.sheet(), v.sheet()];
                    let turn = turn(index);
                    gradient.compute(turn, isa, &s, passed, &mut thread.tasks, &soon, |r, g| {
                        rule.apply(isa, g, p.row(r), m.row(r), v.row(r));
                    });
                },
            );
        }
        if update.optimizer == Optimizer::Muon {
            self.orthogonal_steps(update);
        }
        self.average(update.average);
    }

    /// Muon's matrices go their step along what the buffer of the gradient holds.
    fn orthogonal_steps(&mut self, update: &Update) {
        let isa = self.isa;
        let step = MuonUpdate {
            learning_rate: update.learning_rate,
            keep: 1.0 - update.learning_rate * update.weight_decay,
        };
        let Updater { gradient, matrices, shapes, orthogonal, .. } = &mut self.updater;
        self.pool.for_each_block(
            matrices,
            [&mut self.parameters, gradient],
            orthogonal,
            |index, [mut p, mut u], scratch| muon(isa, &step, shapes[index], u.row(0), p.row(0), scratch),
        );
    }

    /// average += share (parameters - average).
    fn average(&mut self, share: f32) {
        if share == 0.0 || self.average.is_empty() {
            return;
        }
        let isa = self.isa;
        let [average, parameters] = [&mut self.average[..], &mut self.parameters[..]];
        self.pool.for_each_chunk(STRETCH, average, parameters, &mut self.threads, |_, average, p, _| {
            if share == 1.0 {
                average.copy_from_slice(p);
            } else {
                approach(isa, share, p, average);
            }
        });
    }
}

/// What a unit's gradient is scaled by, so that it is at most `most` times as long as its parameters; both squared.
fn unit_factor(most: f32, own: f32, gradient: f32) -> f32 {
    let limit = most * own.sqrt().max(SHORTEST_UNIT);
    let length = gradient.sqrt();
    if length > limit { limit / length } else { 1.0 }
}

/// Scales the gradient of a unit that is a row.
fn clip_unit(isa: Isa, most: f32, own: &[f32], g: &mut [f32]) {
    scale(isa, unit_factor(most, sum_of_squares(isa, own), sum_of_squares(isa, g)), g);
}

/// Scales each unit of a gradient, a column of `block` or the whole of a single row, down to `most` times the length of its
/// parameters.
fn clip_units(
    isa: Isa,
    most: f32,
    block: Block,
    parameters: &[f32],
    g: &mut BlockMut<'_>,
    scratch: &mut [f32],
) {
    let row = |r: usize| &parameters[block.start + r * block.stride..][..block.columns];
    if block.rows == 1 {
        return clip_unit(isa, most, row(0), g.row(0));
    }
    let (own, rest) = scratch.split_at_mut(block.columns);
    let gradient = &mut rest[..block.columns];
    own.fill(0.0);
    gradient.fill(0.0);
    for r in 0..block.rows {
        add_squares(isa, row(r), own);
        add_squares(isa, g.row(r), gradient);
    }
    for (own, &gradient) in own.iter_mut().zip(&*gradient) {
        *own = unit_factor(most, *own, gradient);
    }
    for r in 0..block.rows {
        multiply(isa, own, g.row(r));
    }
}
