//! The parameters' gradients, from what the items left behind, and the update.
//!
//! Each task computes one rectangle of one parameter's gradient as a sum over all items in their order, and hands it on, row by row, while
//! it is in the cache: what becomes of it is decided in `update.rs`. Tasks are independent, so threads take them in any order;
//! the order of every sum is fixed.

use super::passes::Item;
use super::sizes::{BlockFields, EndFields, Sizes, SmallEnds, SmallFields};
use diapason_kernels::{
    Block, BlockSet, Buffer, Isa, Precision, Sheet, Stretch, add, gemm_transposed, gemm_transposed_half,
    padded,
};
use diapason_model::{Layout, NgramTables};
use std::ops::Range;

/// Rows of a rectangle, at most: its gradient, the operands of an item and those of the next (which come meanwhile) have room in the
/// second-level cache.
const ROWS: usize = 128;
/// Columns of a rectangle, at most.
const COLUMNS: usize = 256;

/// Vectors that what becomes of a gradient touches, at most.
const SOON: usize = 3;

/// How one rectangle of gradients comes about.
enum Task {
    /// Rows `rows`, columns `columns` of X^T dY: X and dY are fields of block `block`.
    Matrix { block: usize, x: Operand, dy: Operand, rows: Range<usize>, columns: Range<usize> },
    /// The same for the output matrix; `tied`: transposed, and added to the rows of the token embedding.
    Head { rows: Range<usize>, columns: Range<usize> },
    /// These rows of the tables of n-grams, as far as the batch reads them: rows of `d_embedded` summed by n-gram.
    Ngrams(Range<usize>),
    /// Partial sums at this place in each item's `small`.
    Small(usize),
    /// The token embedding [V, D]: rows of `d_embedded` summed by symbol (and the output matrix's share if tied).
    Tokens { tied: bool },
    /// The position embedding [max_len, D]: rows of `d_embedded` summed by position.
    Positions,
}

/// Which rows of the tables of n-grams a batch reads, and where: few of them, of tables that may be large.
#[derive(Default)]
pub(super) struct Visits {
    /// Row and place in the batch, as the halves of one number, in order.
    all: Vec<u64>,
}

impl Visits {
    /// Bytes for batches of so many positions.
    pub(super) fn bytes(ngrams: &NgramTables, positions: usize) -> usize {
        size_of::<u64>() * positions * ngrams.count()
    }

    /// Those of a batch with windows of `t` symbols.
    pub(super) fn find(&mut self, ngrams: &NgramTables, inputs: &[u8], t: usize) {
        self.all.clear();
        if ngrams.count() == 0 {
            return;
        }
        assert!(u32::try_from(inputs.len()).is_ok(), "a batch of more than 2^32 positions");
        self.all.reserve_exact(inputs.len() * ngrams.count());
        for (i, window) in inputs.chunks(t).enumerate() {
            for position in 0..window.len() {
                let place = (i * t + position) as u64;
                ngrams.each_row(window, position, |row| self.all.push((row as u64) << 32 | place));
            }
        }
        self.all.sort_unstable();
    }

    /// The rows among `rows`, each with the visits to it.
    fn of(&self, rows: &Range<usize>) -> impl Iterator<Item = (usize, &[u64])> {
        let before = |row: usize| self.all.partition_point(|visit| visit >> 32 < row as u64);
        let visits = &self.all[before(rows.start)..before(rows.end)];
        visits.chunk_by(|a, b| a >> 32 == b >> 32).map(|visits| ((visits[0] >> 32) as usize, visits))
    }
}

/// A batch that the items have passed.
#[derive(Clone, Copy)]
pub(super) struct Passed<'a> {
    pub items: &'a [Item],
    pub inputs: &'a [u8],
    pub visits: &'a Visits,
}

/// Which tasks a thread is likely to work on.
#[derive(Clone, Copy)]
pub(super) struct Turn {
    /// The task.
    pub index: usize,
    /// The one after it, if all threads are as fast.
    pub next: usize,
}

/// A field of a block with its row stride.
#[derive(Clone, Copy)]
struct Operand {
    start: usize,
    stride: usize,
}

/// What a thread needs while it works on tasks.
pub(super) struct TaskScratch {
    /// Gradient of a rectangle.
    pub gradient: Buffer,
}

impl TaskScratch {
    pub(super) fn new(s: &Sizes, layout: &Layout) -> Self {
        Self { gradient: Buffer::zeroed(Self::gradient_len(s, layout)) }
    }

    fn gradient_len(s: &Sizes, layout: &Layout) -> usize {
        // The embeddings' gradients are whole, with the tied head's beside.
        let positions = layout.position_embedding.as_ref().map_or(0, Range::len);
        let embeddings = layout.token_embedding.len().max(positions);
        let head = s.d * padded(s.v);
        (ROWS * padded(COLUMNS)).max(embeddings + head).max(s.up)
    }

    pub(super) fn bytes(s: &Sizes, layout: &Layout) -> usize {
        4 * Self::gradient_len(s, layout)
    }
}

/// The tasks of a model for windows of one length, with the rectangles that they write.
pub(super) struct Gradient {
    tasks: Vec<Task>,
    set: BlockSet,
}

/// Cuts 0..n into pieces of at most `most`, as equal as multiples of `grain` allow.
fn pieces(n: usize, grain: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let count = n.div_ceil(most);
    let size = n.div_ceil(count.max(1)).next_multiple_of(grain).min(most);
    (0..n).step_by(size.max(1)).map(move |start| start..(start + size).min(n))
}

impl Gradient {
    pub(super) fn new(s: &Sizes, layout: &Layout) -> Self {
        let mut tasks = Vec::new();
        let mut blocks = Vec::new();
        let k = BlockFields::new(s);
        let mut matrix = |range: &Range<usize>,
                          inputs: usize,
                          outputs: usize,
                          task: &dyn Fn(Range<usize>, Range<usize>) -> Task| {
            for rows in pieces(inputs, 8, ROWS) {
                for columns in pieces(outputs, 16, COLUMNS) {
                    blocks.push(Block {
                        start: range.start + rows.start * outputs + columns.start,
                        rows: rows.len(),
                        columns: columns.len(),
                        stride: outputs,
                    });
                    tasks.push(task(rows.clone(), columns));
                }
            }
        };
        // Each matrix: Y = X W, so dW = X^T dY.
        let drops = s.model.dropout > 0.0;
        let (d_output, d_down) = if drops { (&k.d_output, &k.d_down) } else { (&k.d_mid, &k.d_out) };
        for (block, p) in layout.blocks.iter().enumerate() {
            let x = (&k.attention_in, 0, s.ld_d);
            let all = [
                (Some(&p.query), s.d, s.d, x, (&k.qkv, 0, s.ld_qkv)),
                (Some(&p.key), s.d, s.d, x, (&k.qkv, s.d, s.ld_qkv)),
                (Some(&p.value), s.d, s.d, x, (&k.qkv, 2 * s.d, s.ld_qkv)),
                (Some(&p.output), s.d, s.d, (&k.attended, 0, s.ld_d), (d_output, 0, s.ld_d)),
                (p.gate.as_ref(), s.d, s.f, (&k.mlp_in, 0, s.ld_d), (&k.d_hidden, 0, s.ld_up)),
                (Some(&p.up), s.d, s.f, (&k.mlp_in, 0, s.ld_d), (&k.d_hidden, s.up - s.f, s.ld_up)),
                (Some(&p.down), s.f, s.d, (&k.hidden, 0, s.ld_up), (d_down, 0, s.ld_d)),
            ];
            for (range, inputs, outputs, x, dy) in all {
                let Some(range) = range else { continue };
                let operand = |(field, column, stride): (&Range<usize>, usize, usize)| Operand {
                    start: field.start + column,
                    stride,
                };
                matrix(range, inputs, outputs, &|rows, columns| Task::Matrix {
                    block,
                    x: operand(x),
                    dy: operand(dy),
                    rows,
                    columns,
                });
            }
        }
        if let Some(head) = &layout.head {
            matrix(head, s.d, s.v, &|rows, columns| Task::Head { rows, columns });
        }
        let whole = |range: &Range<usize>| Block {
            start: range.start,
            rows: 1,
            columns: range.len(),
            stride: range.len(),
        };
        blocks.push(whole(&layout.token_embedding));
        tasks.push(Task::Tokens { tied: layout.head.is_none() });
        if let Some(range) = &layout.position_embedding {
            blocks.push(whole(range));
            tasks.push(Task::Positions);
        }
        if let Some(range) = &layout.ngram_embedding {
            for rows in pieces(range.len() / s.d, 1, (ROWS * COLUMNS / s.d).max(1)) {
                blocks.push(Block {
                    start: range.start + rows.start * s.d,
                    rows: rows.len(),
                    columns: s.d,
                    stride: s.d,
                });
                tasks.push(Task::Ngrams(rows));
            }
        }
        let m = SmallFields::new(s);
        for (block, p) in layout.blocks.iter().enumerate() {
            let (attention, mlp) = (p.attention_norm.as_ref(), p.mlp_norm.as_ref());
            for (range, field) in [
                (p.embedding_residual.clone(), &m.embedding_residual),
                (attention.map(|norm| norm.scale.clone()), &m.attention_scale),
                (attention.map(|norm| norm.bias.clone()), &m.attention_bias),
                (p.value_residual.clone(), &m.value_residual),
                (mlp.map(|norm| norm.scale.clone()), &m.mlp_scale),
                (mlp.map(|norm| norm.bias.clone()), &m.mlp_bias),
                (p.gate_and_up_bias(), &m.up_bias),
                (p.down_bias.clone(), &m.down_bias),
            ] {
                if let Some(range) = range {
                    blocks.push(whole(&range));
                    tasks.push(Task::Small(block * m.end + field.start));
                }
            }
        }
        if let Some(norm) = &layout.final_norm {
            let e = SmallEnds::new(s);
            for (range, field) in [(&norm.scale, &e.final_scale), (&norm.bias, &e.final_bias)] {
                blocks.push(whole(range));
                tasks.push(Task::Small(s.l * m.end + field.start));
            }
        }
        Self { tasks, set: BlockSet::new(blocks, layout.total) }
    }

    /// The rectangles, one per task.
    pub(super) fn set(&self) -> &BlockSet {
        &self.set
    }

    /// Whether a task's rectangle lies in a table of n-grams, of which a batch reads some rows only. The others have no gradient, and
    /// nothing about them changes: neither they nor their moments.
    pub(super) fn is_partial(&self, index: usize) -> bool {
        matches!(self.tasks[index], Task::Ngrams(_))
    }

    /// The rows of a task's rectangle that have a gradient.
    pub(super) fn rows(&self, index: usize, visits: &Visits, mut row: impl FnMut(usize)) {
        match &self.tasks[index] {
            Task::Ngrams(rows) => visits.of(rows).for_each(|(r, _)| row(r - rows.start)),
            _ => (0..self.set.blocks()[index].rows).for_each(row),
        }
    }

    /// Computes the gradient of a task, and hands those of [`Gradient::rows`] to `row(r, gradient)`. `soon`: the three
    /// vectors or fewer that `row` touches, fetched meanwhile.
    pub(super) fn compute(
        &self,
        turn: Turn,
        isa: Isa,
        s: &Sizes,
        Passed { items, inputs, visits }: Passed<'_>,
        scratch: &mut TaskScratch,
        soon: &[Sheet],
        mut row: impl FnMut(usize, &[f32]),
    ) {
        let block = self.set.blocks()[turn.index];
        let TaskScratch { gradient } = scratch;
        let width = match &self.tasks[turn.index] {
            Task::Matrix { block, x, dy, rows, columns } => {
                let width = padded(columns.len());
                let (strides, shape) = ((x.stride, dy.stride), (rows.len(), columns.len()));
                let own = |item| stretch(s, item, *block, (*x, rows), (*dy, columns));
                let mut ahead = [Sheet::nothing(); SOON + 2];
                ahead[..soon.len()].copy_from_slice(soon);
                if let Some(Task::Matrix { block, x, dy, rows, columns }) = self.tasks.get(turn.next) {
                    let (strides, shape) = ((x.stride, dy.stride), (rows.len(), columns.len()));
                    let first = stretch(s, &items[0], *block, (*x, rows), (*dy, columns));
                    ahead[SOON..].copy_from_slice(&first.sheets(s.precision, strides, shape));
                }
                product(isa, s.precision, items, strides, shape, &ahead, gradient, width, own);
                width
            }
            Task::Head { rows, columns } => {
                let width = padded(columns.len());
                head(isa, s, items, rows, columns, gradient, width);
                width
            }
            Task::Small(start) => {
                gradient[..block.columns].fill(0.0);
                for item in items {
                    add(isa, &item.small[*start..start + block.columns], &mut gradient[..block.columns]);
                }
                block.columns
            }
            Task::Tokens { tied } => {
                let (sums, rest) = gradient.split_at_mut(block.columns);
                sum_embedded(isa, s, items, sums, |i| usize::from(inputs[i]));
                if *tied {
                    // W = E^T: dE += dW^T.
                    let width = padded(s.v);
                    head(isa, s, items, &(0..s.d), &(0..s.v), rest, width);
                    for symbol in 0..s.v {
                        for c in 0..s.d {
                            sums[symbol * s.d + c] += rest[c * width + symbol];
                        }
                    }
                }
                block.columns
            }
            Task::Positions => {
                sum_embedded(isa, s, items, &mut gradient[..block.columns], |i| i % s.t);
                block.columns
            }
            Task::Ngrams(rows) => {
                let sum = &mut gradient[..s.d];
                let start = EndFields::new(s).d_embedded.start;
                for (r, visits) in visits.of(rows) {
                    sum.fill(0.0);
                    for &visit in visits {
                        let i = visit as u32 as usize;
                        let (item, i) = (&items[i / s.tokens()], i % s.tokens());
                        add(isa, &item.ends[start + i * s.ld_d..][..s.d], sum);
                    }
                    row(r - rows.start, sum);
                }
                return;
            }
        };
        for r in 0..block.rows {
            row(r, &gradient[r * width..][..block.columns]);
        }
    }
}

/// X and dY of an item for a rectangle of a matrix: fields of block `block`, from the rectangle's first row and column.
fn stretch<'a>(
    s: &Sizes,
    item: &'a Item,
    block: usize,
    (x, rows): (Operand, &Range<usize>),
    (dy, columns): (Operand, &Range<usize>),
) -> Stretch<'a> {
    let fields = &item.blocks[block * s.block_len()..];
    Stretch { x: &fields[x.start + rows.start..], dy: &fields[dy.start + columns.start..], k: item.tokens }
}

/// `out` = X^T dY summed over the items in their order, `stretch` of each, with the row strides and the widths (`shape`) of X and dY. Each
/// product fetches what the next one reads, the last one what comes `soon`.
fn product<'a>(
    isa: Isa,
    precision: Precision,
    items: &'a [Item],
    strides: (usize, usize),
    shape: (usize, usize),
    soon: &[Sheet],
    out: &mut [f32],
    out_stride: usize,
    stretch: impl Fn(&'a Item) -> Stretch<'a>,
) {
    let multiply = match precision {
        Precision::F32 => gemm_transposed,
        Precision::Half => gemm_transposed_half,
    };
    for (i, item) in items.iter().enumerate() {
        let next = items.get(i + 1).map(|item| stretch(item).sheets(precision, strides, shape));
        let ahead = next.as_ref().map_or(soon, |sheets| &sheets[..]);
        multiply(isa, stretch(item), ahead, strides, shape, i > 0, out, out_stride);
    }
}

/// A rectangle of the output matrix's gradient.
fn head(
    isa: Isa,
    s: &Sizes,
    items: &[Item],
    rows: &Range<usize>,
    columns: &Range<usize>,
    out: &mut [f32],
    out_stride: usize,
) {
    let e = EndFields::new(s);
    let (strides, shape) = ((s.ld_d, s.ld_v), (rows.len(), columns.len()));
    product(isa, s.precision, items, strides, shape, &[], out, out_stride, |item| Stretch {
        x: &item.ends[e.final_in.start + rows.start..],
        dy: &item.ends[e.logits.start + columns.start..],
        k: item.tokens,
    });
}

/// `sums` [_, D]: each row of `d_embedded` added to the row that `place` names for its position in the batch.
fn sum_embedded(isa: Isa, s: &Sizes, items: &[Item], sums: &mut [f32], place: impl Fn(usize) -> usize) {
    sums.fill(0.0);
    let e = EndFields::new(s);
    let mut i = 0;
    for item in items {
        let rows = &item.ends[e.d_embedded.clone()];
        for r in 0..item.tokens {
            add(isa, &rows[r * s.ld_d..][..s.d], &mut sums[place(i) * s.d..][..s.d]);
            i += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn pieces_tile() {
        for n in 1..2000 {
            let mut end = 0;
            for piece in pieces(n, 16, 256) {
                assert_eq!(piece.start, end);
                assert!(piece.len() <= 256 && !piece.is_empty());
                end = piece.end;
            }
            assert_eq!(end, n);
        }
    }
}
