//! The sizes of one batch, and where an item keeps what.
//!
//! The batch is cut into *items*: groups of whole sequences, small enough that what passes between two operations
//! stays in the cache and that every thread gets some, large enough that a weight panel is used often before the
//! next one comes. How a batch is cut depends on its shape alone, never on the number of threads: that and
//! sums in item order make results independent of it.

use diapason_kernels::{AttentionShape, Precision, attention_scratch, half_rows_len, padded, rounded_rows};
use diapason_model::ModelConfig;
use std::ops::Range;

/// Items in a batch, at least, as long as they keep [`SMALLEST`] positions.
const ITEMS: usize = 8;
/// Positions in an item, about: no fewer.
const SMALLEST: usize = 64;
/// No more.
const LARGEST: usize = 256;

/// The model's sizes and strides, for windows of one length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sizes {
    /// Of the products.
    pub precision: Precision,
    /// Symbols V.
    pub v: usize,
    /// Width D.
    pub d: usize,
    /// MLP width F.
    pub f: usize,
    /// Heads H.
    pub h: usize,
    /// Blocks L.
    pub l: usize,
    /// Positions of a window T.
    pub t: usize,
    /// Row strides of matrices of V, D, F and 3 D columns.
    pub ld_v: usize,
    pub ld_d: usize,
    pub ld_f: usize,
    pub ld_qkv: usize,
    /// Windows in a full item.
    pub sequences: usize,
}

impl Sizes {
    /// For batches of `windows` windows of `t` positions.
    pub(super) fn new(model: &ModelConfig, precision: Precision, t: usize, windows: usize) -> Self {
        let tokens = (windows.saturating_mul(t) / ITEMS).clamp(SMALLEST, LARGEST);
        let (v, d, f) = (model.vocabulary, model.d_model, model.mlp_width());
        Self {
            precision,
            v,
            d,
            f,
            h: model.n_heads,
            l: model.n_layers,
            t,
            ld_v: padded(v),
            ld_d: padded(d),
            ld_f: padded(f),
            ld_qkv: padded(3 * d),
            sequences: (tokens / t).max(1),
        }
    }

    /// Positions in a full item.
    pub(super) fn tokens(&self) -> usize {
        self.sequences * self.t
    }

    pub(super) fn attention(&self) -> AttentionShape {
        AttentionShape {
            positions: self.t,
            heads: self.h,
            head_size: self.d / self.h,
            qkv_stride: self.ld_qkv,
            out_stride: self.ld_d,
        }
    }

    /// Numbers that one block keeps for one item.
    pub(super) fn block_len(&self) -> usize {
        BlockFields::new(self).end
    }

    /// Numbers that an item keeps beside its blocks.
    pub(super) fn ends_len(&self) -> usize {
        EndFields::new(self).end
    }

    /// Numbers of partial sums of the small parameters' gradients (biases, LayerNorm) in an item.
    pub(super) fn small_len(&self) -> usize {
        self.l * SmallFields::new(self).end + 2 * self.d
    }

    /// Numbers of scratch for one thread in the passes over items.
    pub(super) fn scratch_len(&self) -> usize {
        let rows = self.tokens() * (2 * self.ld_d + self.ld_f);
        rows + attention_scratch(&self.attention()) + self.rounded_len()
    }

    /// Numbers of them for the rounded left operand of a product.
    pub(super) fn rounded_len(&self) -> usize {
        match self.precision {
            Precision::F32 => 0,
            Precision::Half => half_rows_len(self.tokens(), self.f.max(3 * self.d).max(self.v)),
        }
    }

    /// Rows of a field that an item keeps: its positions, and what rounding them in place may need beyond.
    fn rows(&self) -> usize {
        match self.precision {
            Precision::F32 => self.tokens(),
            Precision::Half => rounded_rows(self.tokens()).max(self.tokens()),
        }
    }
}

/// Hands out consecutive ranges, each on a cache line of its own.
struct Places(usize);

impl Places {
    fn take(&mut self, len: usize) -> Range<usize> {
        let range = self.0..self.0 + len;
        self.0 = range.end.next_multiple_of(16);
        range
    }
}

/// What a block keeps of an item of n positions between the forward pass, the backward pass and the weight gradients.
/// The backward pass overwrites what it has used with what the weight gradients need.
pub(super) struct BlockFields {
    /// Forward: xhat of the LayerNorm before attention [n, D]; after backward: its output, the input of query, key, value.
    pub attention_in: Range<usize>,
    /// 1 / standard deviation of each row [n].
    pub attention_rstd: Range<usize>,
    /// Forward: query, key, value [n, 3 D]; after backward: their gradients.
    pub qkv: Range<usize>,
    /// Softmax statistics [sequences, H, T, 2].
    pub stats: Range<usize>,
    /// Output of attention before its projection [n, D].
    pub attended: Range<usize>,
    /// As `attention_in`, of the LayerNorm before the MLP.
    pub mlp_in: Range<usize>,
    pub mlp_rstd: Range<usize>,
    /// Forward: the MLP's hidden values before GELU [n, F]; after backward: GELU of them.
    pub hidden: Range<usize>,
    /// Gradient of the hidden values before GELU [n, F].
    pub d_hidden: Range<usize>,
    /// Gradient of the residual stream between attention and MLP [n, D].
    pub d_mid: Range<usize>,
    /// Gradient of the residual stream behind the block [n, D].
    pub d_out: Range<usize>,
    pub end: usize,
}

impl BlockFields {
    pub(super) fn new(s: &Sizes) -> Self {
        let n = s.rows();
        let mut places = Places(0);
        Self {
            attention_in: places.take(n * s.ld_d),
            attention_rstd: places.take(n),
            qkv: places.take(n * s.ld_qkv),
            stats: places.take(2 * n * s.h),
            attended: places.take(n * s.ld_d),
            mlp_in: places.take(n * s.ld_d),
            mlp_rstd: places.take(n),
            hidden: places.take(n * s.ld_f),
            d_hidden: places.take(n * s.ld_f),
            d_mid: places.take(n * s.ld_d),
            d_out: places.take(n * s.ld_d),
            end: places.0,
        }
    }
}

/// What an item keeps before the first and behind the last block.
pub(super) struct EndFields {
    /// Forward: xhat of the final LayerNorm [n, D]; after backward: its output.
    pub final_in: Range<usize>,
    pub final_rstd: Range<usize>,
    /// Logits [n, V], then their gradients.
    pub logits: Range<usize>,
    /// Gradient of the embeddings' sum [n, D].
    pub d_embedded: Range<usize>,
    pub end: usize,
}

impl EndFields {
    pub(super) fn new(s: &Sizes) -> Self {
        let n = s.rows();
        let mut places = Places(0);
        Self {
            final_in: places.take(n * s.ld_d),
            final_rstd: places.take(n),
            logits: places.take(n * s.ld_v),
            d_embedded: places.take(n * s.ld_d),
            end: places.0,
        }
    }
}

/// The small gradients of one block; those of the final LayerNorm (scale, bias) follow behind all blocks.
pub(super) struct SmallFields {
    pub attention_scale: Range<usize>,
    pub attention_bias: Range<usize>,
    pub mlp_scale: Range<usize>,
    pub mlp_bias: Range<usize>,
    pub up_bias: Range<usize>,
    pub down_bias: Range<usize>,
    pub end: usize,
}

impl SmallFields {
    pub(super) fn new(s: &Sizes) -> Self {
        let (d, f) = (s.d, s.f);
        Self {
            attention_scale: 0..d,
            attention_bias: d..2 * d,
            mlp_scale: 2 * d..3 * d,
            mlp_bias: 3 * d..4 * d,
            up_bias: 4 * d..4 * d + f,
            down_bias: 4 * d + f..5 * d + f,
            end: 5 * d + f,
        }
    }
}

/// Splits `whole` at the fields, which lie in order.
pub(super) fn split<'a, const N: usize>(
    whole: &'a mut [f32],
    fields: [&Range<usize>; N],
) -> [&'a mut [f32]; N] {
    let mut rest = whole;
    let mut at = 0;
    fields.map(|field| {
        let (_, tail) = std::mem::take(&mut rest).split_at_mut(field.start - at);
        let (here, tail) = tail.split_at_mut(field.len());
        rest = tail;
        at = field.end;
        here
    })
}
