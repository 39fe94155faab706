//! The sizes of one batch, and where an item keeps what.
//!
//! The batch is cut into *items*: groups of whole sequences, small enough that what passes between two operations
//! stays in the cache and that every thread gets some, large enough that a weight panel is used often before the
//! next one comes. How a batch is cut depends on its shape alone, never on the number of threads: that and
//! sums in item order make results independent of it.

use diapason_kernels::{AttentionShape, Precision, attention_scratch, half_rows_len, padded, rounded_rows};
use diapason_model::{ModelConfig, Norm};
use std::ops::Range;

/// Items in a batch, at least, as long as they keep [`SMALLEST`] positions.
const ITEMS: usize = 8;
/// Positions in an item, about: no fewer.
const SMALLEST: usize = 64;
/// No more.
const LARGEST: usize = 256;

/// The model's sizes, parts and strides, for windows of one length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sizes {
    /// Sizes and parts.
    pub model: ModelConfig,
    /// Of the products.
    pub precision: Precision,
    /// Symbols V.
    pub v: usize,
    /// Width D.
    pub d: usize,
    /// MLP width F.
    pub f: usize,
    /// Outputs of the MLP's first product: F, or 2 F with a gate.
    pub up: usize,
    /// Heads H.
    pub h: usize,
    /// Blocks L.
    pub l: usize,
    /// Positions of a window T.
    pub t: usize,
    /// Row strides of matrices of V, D, F, `up` and 3 D columns.
    pub ld_v: usize,
    pub ld_d: usize,
    pub ld_f: usize,
    pub ld_up: usize,
    pub ld_qkv: usize,
    /// Windows in a full item.
    pub sequences: usize,
}

impl Sizes {
    /// For batches of `windows` windows of `t` positions.
    pub(super) fn new(model: &ModelConfig, precision: Precision, t: usize, windows: usize) -> Self {
        let tokens = (windows.saturating_mul(t) / ITEMS).clamp(SMALLEST, LARGEST);
        let (v, d, f, up) = (model.vocabulary, model.d_model, model.mlp_width(), model.up_width());
        Self {
            model: *model,
            precision,
            v,
            d,
            f,
            up,
            h: model.n_heads,
            l: model.n_layers,
            t,
            ld_v: padded(v),
            ld_d: padded(d),
            ld_f: padded(f),
            ld_up: padded(up),
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

    /// Whether the embedding has to be kept as it was before the first block.
    pub(super) fn keeps_embedded(&self) -> bool {
        self.model.embedding_norm || self.model.embedding_residual
    }

    /// Numbers that one block keeps for one item.
    pub(super) fn block_len(&self) -> usize {
        BlockFields::new(self).end
    }

    /// Numbers that an item keeps beside its blocks.
    pub(super) fn ends_len(&self) -> usize {
        EndFields::new(self).end
    }

    /// Numbers of partial sums of the small parameters' gradients (biases, LayerNorm, weights of mixtures) in an item.
    pub(super) fn small_len(&self) -> usize {
        self.l * SmallFields::new(self).end + SmallEnds::new(self).end
    }

    /// Numbers of scratch for one thread in the passes over items.
    pub(super) fn scratch_len(&self) -> usize {
        ScratchFields::new(self).end
    }

    /// Numbers of them for the rounded left operand of a product.
    fn rounded_len(&self) -> usize {
        match self.precision {
            Precision::F32 => 0,
            Precision::Half => half_rows_len(self.tokens(), self.up.max(3 * self.d).max(self.v)),
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

    /// Nothing where a model does not have the part.
    fn take_if(&mut self, has: bool, len: usize) -> Range<usize> {
        self.take(if has { len } else { 0 })
    }
}

/// What a thread needs while it works on an item of n positions.
pub(super) struct ScratchFields {
    /// The residual stream [n, D].
    pub x: Range<usize>,
    /// Outputs of LayerNorm, and gradients [n, D].
    pub y: Range<usize>,
    /// The activation's output [n, F].
    pub g: Range<usize>,
    pub attention: Range<usize>,
    /// Rows [query | key] of a window before they become their gradients [T, 3 D], for the norm of heads.
    pub queries_keys: Range<usize>,
    /// Values of the first block [n, D].
    pub values: Range<usize>,
    /// Gradient of those, from the blocks behind [n, D].
    pub d_values: Range<usize>,
    /// Gradient of the embedding from the blocks that mix it in [n, D].
    pub d_embedded: Range<usize>,
    /// Rounded rows of the left operand of a product.
    pub rounded: Range<usize>,
    pub end: usize,
}

impl ScratchFields {
    pub(super) fn new(s: &Sizes) -> Self {
        let (n, m) = (s.tokens(), &s.model);
        let mut places = Places(0);
        Self {
            x: places.take(n * s.ld_d),
            y: places.take(n * s.ld_d),
            g: places.take(n * s.ld_f),
            attention: places.take(attention_scratch(&s.attention())),
            queries_keys: places.take_if(m.qk_norm, s.t * s.ld_qkv),
            values: places.take_if(m.value_residual, n * s.ld_d),
            d_values: places.take_if(m.value_residual, n * s.ld_d),
            d_embedded: places.take_if(m.embedding_residual, n * s.ld_d),
            rounded: places.take(s.rounded_len()),
            end: places.0,
        }
    }
}

/// What a block keeps of an item of n positions between the forward pass, the backward pass and the weight gradients.
/// The backward pass overwrites what it has used with what the weight gradients need.
pub(super) struct BlockFields {
    /// The residual stream as it came in, where it is mixed with the embedding [n, D].
    pub before: Range<usize>,
    /// Forward: xhat of the norm before attention [n, D]; after backward: its output, the input of query, key, value.
    pub attention_in: Range<usize>,
    /// 1 / standard deviation, or 1 / root mean square, of each row [n].
    pub attention_rstd: Range<usize>,
    /// Forward: query, key, value [n, 3 D] as attention takes them; after backward: the gradients of what was projected.
    pub qkv: Range<usize>,
    /// 1 / root mean square of each head of queries and keys [n, 2 H].
    pub heads_rstd: Range<usize>,
    /// Values before they were mixed with those of the first block [n, D].
    pub values: Range<usize>,
    /// Softmax statistics [sequences, H, T, 2].
    pub stats: Range<usize>,
    /// Output of attention before its projection [n, D].
    pub attended: Range<usize>,
    /// As `attention_in`, of the norm before the MLP.
    pub mlp_in: Range<usize>,
    pub mlp_rstd: Range<usize>,
    /// Forward: the MLP's hidden values before the activation [n, up]; after backward: what it makes of them [n, F].
    pub hidden: Range<usize>,
    /// Gradient of the hidden values before the activation [n, up].
    pub d_hidden: Range<usize>,
    /// Gradient of the residual stream between attention and MLP [n, D].
    pub d_mid: Range<usize>,
    /// What of it reaches the output of attention, where dropout leaves some out [n, D].
    pub d_output: Range<usize>,
    /// Gradient of the residual stream behind the block [n, D].
    pub d_out: Range<usize>,
    /// What of it reaches the output of the MLP, where dropout leaves some out [n, D].
    pub d_down: Range<usize>,
    pub end: usize,
}

impl BlockFields {
    pub(super) fn new(s: &Sizes) -> Self {
        let (n, m) = (s.rows(), &s.model);
        let mut places = Places(0);
        Self {
            before: places.take_if(m.embedding_residual, n * s.ld_d),
            attention_in: places.take(n * s.ld_d),
            attention_rstd: places.take(n),
            qkv: places.take(n * s.ld_qkv),
            heads_rstd: places.take_if(m.qk_norm, 2 * n * s.h),
            values: places.take_if(m.value_residual, n * s.ld_d),
            stats: places.take(2 * n * s.h),
            attended: places.take(n * s.ld_d),
            mlp_in: places.take(n * s.ld_d),
            mlp_rstd: places.take(n),
            hidden: places.take(n * s.ld_up),
            d_hidden: places.take(n * s.ld_up),
            d_mid: places.take(n * s.ld_d),
            d_output: places.take_if(m.dropout > 0.0, n * s.ld_d),
            d_out: places.take(n * s.ld_d),
            d_down: places.take_if(m.dropout > 0.0, n * s.ld_d),
            end: places.0,
        }
    }
}

/// What an item keeps before the first and behind the last block.
pub(super) struct EndFields {
    /// The embedding as the first block reads it [n, D], where that is needed again.
    pub embedded: Range<usize>,
    /// 1 / root mean square of its rows before their norm [n].
    pub embedded_rstd: Range<usize>,
    /// Forward: xhat of the final norm [n, D]; after backward: its output.
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
            embedded: places.take_if(s.keeps_embedded(), n * s.ld_d),
            embedded_rstd: places.take_if(s.model.embedding_norm, n),
            final_in: places.take(n * s.ld_d),
            final_rstd: places.take(n),
            logits: places.take(n * s.ld_v),
            d_embedded: places.take(n * s.ld_d),
            end: places.0,
        }
    }
}

/// The small gradients of one block; those of [`SmallEnds`] follow behind all blocks. What a model does not have is empty.
pub(super) struct SmallFields {
    /// Weights of the residual stream and the embedding.
    pub embedding_residual: Range<usize>,
    pub attention_scale: Range<usize>,
    pub attention_bias: Range<usize>,
    /// Weight of the first block's values.
    pub value_residual: Range<usize>,
    pub mlp_scale: Range<usize>,
    pub mlp_bias: Range<usize>,
    /// Bias of the MLP's first product [up].
    pub up_bias: Range<usize>,
    pub down_bias: Range<usize>,
    pub end: usize,
}

impl SmallFields {
    pub(super) fn new(s: &Sizes) -> Self {
        let m = &s.model;
        let norms = m.norm == Norm::LayerNorm;
        let mut places = Places(0);
        Self {
            embedding_residual: places.take_if(m.embedding_residual, 2),
            attention_scale: places.take_if(norms, s.d),
            attention_bias: places.take_if(norms, s.d),
            value_residual: places.take_if(m.value_residual, 1),
            mlp_scale: places.take_if(norms, s.d),
            mlp_bias: places.take_if(norms, s.d),
            up_bias: places.take_if(m.mlp_bias, s.up),
            down_bias: places.take_if(m.mlp_bias, s.d),
            end: places.0,
        }
    }
}

/// The small gradients behind the blocks: of the final norm.
pub(super) struct SmallEnds {
    pub final_scale: Range<usize>,
    pub final_bias: Range<usize>,
    pub end: usize,
}

impl SmallEnds {
    pub(super) fn new(s: &Sizes) -> Self {
        let norms = s.model.norm == Norm::LayerNorm;
        let mut places = Places(0);
        Self {
            final_scale: places.take_if(norms, s.d),
            final_bias: places.take_if(norms, s.d),
            end: places.0,
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
