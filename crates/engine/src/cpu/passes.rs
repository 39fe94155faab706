//! The model over one item, forward and back: each part's two directions side by side.
//!
//! x [n, D] is the residual stream, xhat the normalised rows of a norm, dz the gradient of the mean loss with respect to z.
//! The backward pass computes gradients of activations only; it leaves behind what the weight gradients
//! (`gradient.rs`) need.
//!
//! Which parts a model has is asked once for a block of rows, never inside of a loop over numbers.

use super::dropout::Masks;
use super::positions::Tables;
use super::sizes::{BlockFields, EndFields, ScratchFields, Sizes, SmallEnds, SmallFields, split};
use super::weights::{DOWN, OUTPUT, QKV, UP, Weights};
use diapason_kernels::{
    Activation, Buffer, HeadShape, Init, Isa, Precision, activate, activate_backward, add, add_rows,
    attention_backward, attention_forward, cross_entropy_backward, gemm, layer_norm, layer_norm_backward,
    mix, mix_backward, queries_keys, queries_keys_backward, rms_norm, rms_norm_backward, round_columns,
    softcap,
};
use diapason_model::{Layout, LossPositions, NORM_EPSILON, NgramTables, NormTensors};
use std::ops::Range;

/// What all items share.
pub(super) struct Context<'a> {
    pub isa: Isa,
    pub sizes: Sizes,
    pub layout: &'a Layout,
    pub parameters: &'a [f32],
    pub weights: &'a Weights,
    pub tables: &'a Tables,
    pub ngrams: &'a NgramTables,
    /// What is left out of the branches; none in evaluation, and where nothing is.
    pub masks: Option<Masks>,
}

/// What a thread needs while it works on an item; see [`ScratchFields`].
pub(super) struct Scratch<'a> {
    pub x: &'a mut [f32],
    pub y: &'a mut [f32],
    pub g: &'a mut [f32],
    pub attention: &'a mut [f32],
    pub queries_keys: &'a mut [f32],
    pub values: &'a mut [f32],
    pub d_values: &'a mut [f32],
    pub d_embedded: &'a mut [f32],
    pub rounded: &'a mut [f32],
}

impl<'a> Scratch<'a> {
    pub(super) fn of(s: &Sizes, whole: &'a mut [f32]) -> Self {
        let k = ScratchFields::new(s);
        let [x, y, g, attention, queries_keys, values, d_values, d_embedded, rounded] = split(
            whole,
            [
                &k.x,
                &k.y,
                &k.g,
                &k.attention,
                &k.queries_keys,
                &k.values,
                &k.d_values,
                &k.d_embedded,
                &k.rounded,
            ],
        );
        Self { x, y, g, attention, queries_keys, values, d_values, d_embedded, rounded }
    }
}

/// An item of the training batch: what its forward pass leaves for the backward pass, and that for the weight gradients.
pub(super) struct Item {
    /// One stretch of [`Sizes::block_len`] for each block.
    pub blocks: Buffer,
    /// See [`EndFields`].
    pub ends: Buffer,
    /// Partial sums of small gradients, see [`SmallFields`].
    pub small: Buffer,
    /// Positions in use.
    pub tokens: usize,
    /// Sum of the losses.
    pub loss: f64,
}

impl Item {
    pub(super) fn new(s: &Sizes) -> Self {
        Self {
            blocks: Buffer::zeroed(s.l * s.block_len()),
            ends: Buffer::zeroed(s.ends_len()),
            small: Buffer::zeroed(s.small_len()),
            tokens: 0,
            loss: 0.0,
        }
    }

    pub(super) fn bytes(s: &Sizes) -> usize {
        4 * (s.l * s.block_len() + s.ends_len() + s.small_len())
    }
}

/// What one block's pass works on.
#[derive(Clone, Copy)]
struct Place {
    block: usize,
    /// Rows.
    n: usize,
    /// Position in the batch of the first row.
    first: usize,
}

impl Context<'_> {
    /// The last that the passes do with n rows of `columns` numbers: what is left is for the weight gradients.
    fn settle(&self, x: &mut [f32], n: usize, columns: usize, stride: usize) {
        match self.sizes.precision {
            Precision::F32 => {}
            Precision::Half => round_columns(self.isa, x, n, columns, stride),
        }
    }

    /// Forward, loss and backward of one item, whose first position is number `first` of the batch; `scale` is 1 / the number of positions
    /// of the whole batch that count.
    pub(super) fn train(
        &self,
        item: &mut Item,
        first: usize,
        inputs: &[u8],
        targets: &[u8],
        scale: f32,
        scratch: &mut [f32],
    ) {
        let s = &self.sizes;
        let n = inputs.len();
        item.tokens = n;
        let mut scratch = Scratch::of(s, scratch);
        self.embed(inputs, &mut item.ends, &mut scratch);
        for (block, kept) in item.blocks.chunks_exact_mut(s.block_len()).enumerate() {
            self.block_forward(block, kept, &item.ends, n, first, &mut scratch);
        }
        self.head_forward(n, &mut item.ends, &mut scratch);
        item.loss = self.loss(&mut item.ends, targets, scale);

        item.small.fill(0.0);
        scratch.d_values.fill(0.0);
        scratch.d_embedded.fill(0.0);
        let fields = SmallFields::new(s);
        let (small_blocks, small_ends) = item.small.split_at_mut(s.l * fields.end);
        // The gradient behind the last block goes where that block expects it, the one before the first into
        // `d_embedded`.
        let e = EndFields::new(s);
        let [embedded, embedded_rstd, final_in, final_rstd, logits, d_embedded] = split(
            &mut item.ends,
            [&e.embedded, &e.embedded_rstd, &e.final_in, &e.final_rstd, &e.logits, &e.d_embedded],
        );
        let mut blocks = item.blocks.chunks_exact_mut(s.block_len()).enumerate().rev().peekable();
        let d_out = match blocks.peek_mut() {
            Some((_, last)) => &mut last[BlockFields::new(s).d_out.clone()],
            None => &mut *d_embedded,
        };
        self.head_backward(n, final_in, final_rstd, logits, d_out, small_ends, &mut scratch);
        self.settle(final_in, n, s.d, s.ld_d);
        self.settle(logits, n, s.v, s.ld_v);
        while let Some((block, kept)) = blocks.next() {
            let small = &mut small_blocks[block * fields.end..][..fields.end];
            let dx = match blocks.peek_mut() {
                Some((_, before)) => &mut before[BlockFields::new(s).d_out.clone()],
                None => &mut *d_embedded,
            };
            self.block_backward(Place { block, n, first }, kept, embedded, dx, small, &mut scratch);
        }
        self.embed_backward(n, embedded, embedded_rstd, d_embedded, &mut scratch);
    }

    /// x = E[token] + P[position] + T_2[bigram] + T_3[trigram] + .., those that there are, then its norm if it has one. (The tables' backward is a sum over the
    /// batch: `gradient.rs`.)
    pub(super) fn embed(&self, inputs: &[u8], ends: &mut [f32], scratch: &mut Scratch<'_>) {
        let s = &self.sizes;
        let e = EndFields::new(s);
        let [embedded, rstd] = split(ends, [&e.embedded, &e.embedded_rstd]);
        for (window, x) in inputs.chunks_exact(s.t).zip(scratch.x.chunks_exact_mut(s.t * s.ld_d)) {
            for (t, x) in x.chunks_exact_mut(s.ld_d).enumerate() {
                self.embed_row(window, t, t, &mut x[..s.d]);
            }
        }
        self.embed_norm(inputs.len(), scratch.x, s.ld_d, rstd, embedded);
    }

    /// The sum of embeddings of place `t` of `symbols`, which is position `position` of its window.
    pub(super) fn embed_row(&self, symbols: &[u8], t: usize, position: usize, x: &mut [f32]) {
        let d = x.len();
        let row = |range: &Range<usize>, row: usize| &self.parameters[range.start + row * d..][..d];
        let token = row(&self.layout.token_embedding, usize::from(symbols[t]));
        let place = match (&self.layout.position_embedding, self.tables.sinusoidal()) {
            (Some(range), _) => Some(row(range, position)),
            (None, Some(table)) => Some(&table[position * d..][..d]),
            (None, None) => None,
        };
        match place {
            Some(place) => x.iter_mut().zip(token.iter().zip(place)).for_each(|(x, (e, p))| *x = e + p),
            None => x.copy_from_slice(token),
        }
        if let Some(range) = &self.layout.ngram_embedding {
            self.ngrams.each_row(symbols, t, |number| {
                x.iter_mut().zip(row(range, number)).for_each(|(x, e)| *x += e);
            });
        }
    }

    /// The norm of n rows of embeddings, in place; `embedded` keeps what the first block reads.
    pub(super) fn embed_norm(
        &self,
        n: usize,
        x: &mut [f32],
        stride: usize,
        rstd: &mut [f32],
        embedded: &mut [f32],
    ) {
        let s = &self.sizes;
        if !s.keeps_embedded() {
            return;
        }
        let rows = n * stride;
        if s.model.embedding_norm {
            rms_norm(self.isa, x, n, s.d, stride, NORM_EPSILON, rstd, embedded);
            x[..rows].copy_from_slice(&embedded[..rows]);
        } else {
            embedded[..rows].copy_from_slice(&x[..rows]);
        }
    }

    /// From the gradient of what the first block reads, in `d_embedded`, to that of the embeddings' sum.
    fn embed_backward(
        &self,
        n: usize,
        embedded: &[f32],
        rstd: &[f32],
        d_embedded: &mut [f32],
        scratch: &mut Scratch<'_>,
    ) {
        let s = &self.sizes;
        let rows = n * s.ld_d;
        if s.model.embedding_residual {
            add(self.isa, &scratch.d_embedded[..rows], &mut d_embedded[..rows]);
        }
        if s.model.embedding_norm {
            scratch.y[..rows].copy_from_slice(&d_embedded[..rows]);
            rms_norm_backward(self.isa, scratch.y, n, s.d, s.ld_d, embedded, rstd, None, d_embedded);
        }
    }

    /// x = a x + b x0; x += Attention(Norm(x)); x += MLP(Norm(x)), for n positions of which the first is number `first` of the batch.
    pub(super) fn block_forward(
        &self,
        block: usize,
        kept: &mut [f32],
        ends: &[f32],
        n: usize,
        first: usize,
        scratch: &mut Scratch<'_>,
    ) {
        let s = &self.sizes;
        let (isa, d, f) = (self.isa, s.d, s.f);
        let p = &self.layout.blocks[block];
        let w = |which| &self.weights.block(block, which).forward;
        let k = BlockFields::new(s);
        let [
            before,
            attention_in,
            attention_rstd,
            qkv,
            heads_rstd,
            values,
            stats,
            attended,
            mlp_in,
            mlp_rstd,
            hidden,
        ] = split(
            kept,
            [
                &k.before,
                &k.attention_in,
                &k.attention_rstd,
                &k.qkv,
                &k.heads_rstd,
                &k.values,
                &k.stats,
                &k.attended,
                &k.mlp_in,
                &k.mlp_rstd,
                &k.hidden,
            ],
        );
        let Scratch { x, y, g, attention, values: first_values, rounded, .. } = scratch;

        if let Some(weights) = self.pair(&p.embedding_residual) {
            let embedded = &ends[EndFields::new(s).embedded];
            mix(isa, x, s.ld_d, embedded, s.ld_d, n, d, weights, before);
        }
        let rows = self.norm(&p.attention_norm, x, n, s.ld_d, attention_in, attention_rstd, y);
        gemm(isa, (rows, s.ld_d), w(QKV), n, Init::Zero, qkv, s.ld_qkv, &[], rounded);
        self.mix_values(block, n, qkv, first_values, values);
        let shape = s.attention();
        for i in 0..n / s.t {
            let qkv = &mut qkv[i * s.t * s.ld_qkv..][..s.t * s.ld_qkv];
            if let Some(heads) = self.heads(s.t, 0) {
                let rstd = i * s.t * 2 * s.h;
                queries_keys(isa, &heads, qkv, heads_rstd.get_mut(rstd..).unwrap_or_default());
            }
            let out = &mut attended[i * s.t * s.ld_d..][..s.t * s.ld_d];
            let stats = &mut stats[2 * i * s.t * s.h..][..2 * s.t * s.h];
            attention_forward(isa, &shape, qkv, out, stats, attention);
        }
        let rows = (&attended[..], s.ld_d);
        match &self.masks {
            None => gemm(isa, rows, w(OUTPUT), n, Init::Accumulate, x, s.ld_d, &[], rounded),
            Some(masks) => {
                gemm(isa, rows, w(OUTPUT), n, Init::Zero, y, s.ld_d, &[], rounded);
                masks.add(2 * block, first, (n, d, s.ld_d), y, x);
            }
        }

        let rows = self.norm(&p.mlp_norm, x, n, s.ld_d, mlp_in, mlp_rstd, y);
        let bias = p.gate_and_up_bias().map_or(Init::Zero, |range| Init::Bias(&self.parameters[range]));
        gemm(isa, (rows, s.ld_d), w(UP), n, bias, hidden, s.ld_up, &[], rounded);
        activate(isa, self.activation(), hidden, n, f, s.ld_up, g, s.ld_f);
        let rows = (&g[..], s.ld_f);
        let bias = p.down_bias.clone().map(|range| &self.parameters[range]);
        match &self.masks {
            None => {
                let init = bias.map_or(Init::Accumulate, Init::AccumulateBias);
                gemm(isa, rows, w(DOWN), n, init, x, s.ld_d, &[], rounded);
            }
            Some(masks) => {
                let init = bias.map_or(Init::Zero, Init::Bias);
                gemm(isa, rows, w(DOWN), n, init, y, s.ld_d, &[], rounded);
                masks.add(2 * block + 1, first, (n, d, s.ld_d), y, x);
            }
        }
    }

    /// From `d_out` in `kept` to `dx`, the gradient of the block's input.
    fn block_backward(
        &self,
        Place { block, n, first }: Place,
        kept: &mut [f32],
        embedded: &[f32],
        dx: &mut [f32],
        small: &mut [f32],
        scratch: &mut Scratch<'_>,
    ) {
        let s = &self.sizes;
        let (isa, d, f) = (self.isa, s.d, s.f);
        let p = &self.layout.blocks[block];
        let w = |which| &self.weights.block(block, which).backward;
        let k = BlockFields::new(s);
        let [
            before,
            attention_in,
            attention_rstd,
            qkv,
            heads_rstd,
            values,
            stats,
            attended,
            mlp_in,
            mlp_rstd,
            hidden,
            d_hidden,
            d_mid,
            d_output,
            d_out,
            d_down,
        ] = split(
            kept,
            [
                &k.before,
                &k.attention_in,
                &k.attention_rstd,
                &k.qkv,
                &k.heads_rstd,
                &k.values,
                &k.stats,
                &k.attended,
                &k.mlp_in,
                &k.mlp_rstd,
                &k.hidden,
                &k.d_hidden,
                &k.d_mid,
                &k.d_output,
                &k.d_out,
                &k.d_down,
            ],
        );
        let m = SmallFields::new(s);
        let [
            d_embedding_residual,
            d_attention_scale,
            d_attention_bias,
            d_value_residual,
            d_mlp_scale,
            d_mlp_bias,
            d_up_bias,
            d_down_bias,
        ] = split(
            small,
            [
                &m.embedding_residual,
                &m.attention_scale,
                &m.attention_bias,
                &m.value_residual,
                &m.mlp_scale,
                &m.mlp_bias,
                &m.up_bias,
                &m.down_bias,
            ],
        );
        let Scratch { y, attention, queries_keys: kept_queries_keys, values: first_values, rounded, .. } =
            scratch;

        // MLP: out = mid + activation(Norm(mid) Wup + bup) Wdown + bdown.
        let branch = match &self.masks {
            None => &*d_out,
            Some(masks) => {
                masks.backward(2 * block + 1, first, (n, d, s.ld_d), d_out, d_down);
                &*d_down
            }
        };
        add_rows(isa, branch, n, s.ld_d, d_down_bias);
        gemm(isa, (branch, s.ld_d), w(DOWN), n, Init::Zero, d_hidden, s.ld_up, &[], rounded);
        let bias = s.model.mlp_bias.then_some(d_up_bias);
        activate_backward(isa, self.activation(), hidden, d_hidden, n, f, s.ld_up, bias);
        self.settle(hidden, n, f, s.ld_up);
        let rows = (&d_hidden[..], s.ld_up);
        gemm(isa, rows, w(UP), n, Init::Zero, y, s.ld_d, &[], rounded);
        self.settle(d_hidden, n, s.up, s.ld_up);
        let small = (d_mlp_scale, d_mlp_bias);
        self.norm_backward(&p.mlp_norm, y, n, mlp_in, mlp_rstd, Some(d_out), d_mid, small);
        self.settle(mlp_in, n, d, s.ld_d);
        self.settle(if self.masks.is_some() { d_down } else { d_out }, n, d, s.ld_d);

        // Attention: mid = x + Attention(Norm(x) Wqkv) Wout.
        let branch = match &self.masks {
            None => &*d_mid,
            Some(masks) => {
                masks.backward(2 * block, first, (n, d, s.ld_d), d_mid, d_output);
                &*d_output
            }
        };
        // Attention reads query, key and value in narrow columns, which the processor does not foresee.
        gemm(isa, (branch, s.ld_d), w(OUTPUT), n, Init::Zero, y, s.ld_d, &[qkv, attended], rounded);
        let shape = s.attention();
        for i in 0..n / s.t {
            let qkv = &mut qkv[i * s.t * s.ld_qkv..][..s.t * s.ld_qkv];
            let rows = i * s.t * s.ld_d..(i + 1) * s.t * s.ld_d;
            let stats = &stats[2 * i * s.t * s.h..][..2 * s.t * s.h];
            // The norm of heads needs them again, where now their gradients go.
            if s.model.qk_norm {
                for (kept, row) in
                    kept_queries_keys.chunks_exact_mut(s.ld_qkv).zip(qkv.chunks_exact(s.ld_qkv))
                {
                    kept[..2 * d].copy_from_slice(&row[..2 * d]);
                }
            }
            attention_backward(isa, &shape, qkv, &attended[rows.clone()], &y[rows], stats, attention);
            if let Some(heads) = self.heads(s.t, 0) {
                let rstd = heads_rstd.get(i * s.t * 2 * s.h..).unwrap_or_default();
                queries_keys_backward(isa, &heads, kept_queries_keys, rstd, qkv);
            }
        }
        self.settle(attended, n, d, s.ld_d);
        self.mix_values_backward(block, n, qkv, values, first_values, scratch.d_values, d_value_residual);
        gemm(isa, (&qkv[..], s.ld_qkv), w(QKV), n, Init::Zero, y, s.ld_d, &[], rounded);
        self.settle(qkv, n, 3 * d, s.ld_qkv);
        let small = (d_attention_scale, d_attention_bias);
        self.norm_backward(&p.attention_norm, y, n, attention_in, attention_rstd, Some(d_mid), dx, small);
        self.settle(attention_in, n, d, s.ld_d);
        self.settle(if self.masks.is_some() { d_output } else { d_mid }, n, d, s.ld_d);
        if let Some(weights) = self.pair(&p.embedding_residual) {
            let d_first = &mut *scratch.d_embedded;
            let gradient = mix_backward(isa, dx, s.ld_d, before, embedded, s.ld_d, n, d, weights, d_first);
            d_embedding_residual.copy_from_slice(&gradient);
        }
    }

    /// What the MLP does between its matrices.
    pub(super) fn activation(&self) -> Activation {
        match self.sizes.model.activation {
            diapason_model::Activation::Gelu => Activation::Gelu,
            diapason_model::Activation::Relu => Activation::Relu,
            diapason_model::Activation::ReluSquared => Activation::ReluSquared,
            diapason_model::Activation::Silu => Activation::Silu,
            diapason_model::Activation::Swiglu => Activation::Swiglu,
        }
    }

    /// What happens to queries and keys of `rows` positions from `first` on, if anything does.
    pub(super) fn heads(&self, rows: usize, first: usize) -> Option<HeadShape<'_>> {
        let s = &self.sizes;
        let epsilon = s.model.qk_norm.then_some(NORM_EPSILON);
        let turns = self.tables.turns();
        (epsilon.is_some() || turns.is_some()).then(|| HeadShape {
            rows,
            first,
            heads: s.h,
            head_size: s.d / s.h,
            stride: s.ld_qkv,
            epsilon,
            turns,
        })
    }

    /// Two learned weights.
    pub(super) fn pair(&self, range: &Option<Range<usize>>) -> Option<[f32; 2]> {
        range.as_ref().map(|range| [self.parameters[range.start], self.parameters[range.start + 1]])
    }

    /// v = (1 - w) v + w v0 in the last third of `qkv`, in every block but the first, which gives v0; `before` keeps v.
    pub(super) fn mix_values(
        &self,
        block: usize,
        n: usize,
        qkv: &mut [f32],
        first: &mut [f32],
        before: &mut [f32],
    ) {
        let s = &self.sizes;
        if !s.model.value_residual {
            return;
        }
        match &self.layout.blocks[block].value_residual {
            None => {
                for (first, row) in first.chunks_exact_mut(s.ld_d).zip(qkv.chunks_exact(s.ld_qkv)).take(n) {
                    first[..s.d].copy_from_slice(&row[2 * s.d..3 * s.d]);
                }
            }
            Some(range) => {
                let w = self.parameters[range.start];
                let values = &mut qkv[2 * s.d..];
                mix(self.isa, values, s.ld_qkv, first, s.ld_d, n, s.d, [1.0 - w, w], before);
            }
        }
    }

    /// The same for gradients: the first block's values collect theirs in `d_first`.
    fn mix_values_backward(
        &self,
        block: usize,
        n: usize,
        d_qkv: &mut [f32],
        before: &[f32],
        first: &[f32],
        d_first: &mut [f32],
        d_weight: &mut [f32],
    ) {
        let s = &self.sizes;
        if !s.model.value_residual {
            return;
        }
        match &self.layout.blocks[block].value_residual {
            None => {
                for (share, row) in d_first.chunks_exact(s.ld_d).zip(d_qkv.chunks_exact_mut(s.ld_qkv)).take(n)
                {
                    add(self.isa, &share[..s.d], &mut row[2 * s.d..3 * s.d]);
                }
            }
            Some(range) => {
                let w = self.parameters[range.start];
                let dv = &mut d_qkv[2 * s.d..];
                let weights = [1.0 - w, w];
                let [own, other] =
                    mix_backward(self.isa, dv, s.ld_qkv, before, first, s.ld_d, n, s.d, weights, d_first);
                d_weight[0] = other - own;
            }
        }
    }

    /// The norm of n rows of x; gives the rows of its output, which lie in `hat` (kept for the backward pass) or, where they are scaled
    /// and shifted besides, in `y`.
    pub(super) fn norm<'b>(
        &self,
        tensors: &Option<NormTensors>,
        x: &[f32],
        n: usize,
        stride: usize,
        hat: &'b mut [f32],
        rstd: &mut [f32],
        y: &'b mut [f32],
    ) -> &'b [f32] {
        let d = self.sizes.d;
        match tensors {
            Some(norm) => {
                let scale = &self.parameters[norm.scale.clone()];
                let bias = &self.parameters[norm.bias.clone()];
                layer_norm(self.isa, x, n, d, stride, NORM_EPSILON, scale, bias, hat, rstd, y);
                y
            }
            None => {
                rms_norm(self.isa, x, n, d, stride, NORM_EPSILON, rstd, hat);
                hat
            }
        }
    }

    /// dx = residual + the gradient through the norm of dy; `hat` becomes its output, `small` += the gradients of scale and bias.
    fn norm_backward(
        &self,
        tensors: &Option<NormTensors>,
        dy: &[f32],
        n: usize,
        hat: &mut [f32],
        rstd: &[f32],
        residual: Option<&[f32]>,
        dx: &mut [f32],
        (d_scale, d_bias): (&mut [f32], &mut [f32]),
    ) {
        let (isa, d, stride) = (self.isa, self.sizes.d, self.sizes.ld_d);
        match tensors {
            Some(norm) => {
                let scale = &self.parameters[norm.scale.clone()];
                let bias = &self.parameters[norm.bias.clone()];
                layer_norm_backward(
                    isa, dy, n, d, stride, scale, bias, hat, rstd, residual, dx, d_scale, d_bias,
                );
            }
            None => rms_norm_backward(isa, dy, n, d, stride, hat, rstd, residual, dx),
        }
    }

    /// logits = Norm(x) W, with its cap if there is one.
    pub(super) fn head_forward(&self, n: usize, ends: &mut [f32], scratch: &mut Scratch<'_>) {
        let s = &self.sizes;
        let e = EndFields::new(s);
        let [final_in, final_rstd, logits] = split(ends, [&e.final_in, &e.final_rstd, &e.logits]);
        let Scratch { x, y, rounded, .. } = scratch;
        let rows = self.norm(&self.layout.final_norm, x, n, s.ld_d, final_in, final_rstd, y);
        gemm(
            self.isa,
            (rows, s.ld_d),
            &self.weights.head().forward,
            n,
            Init::Zero,
            logits,
            s.ld_v,
            &[],
            rounded,
        );
        if s.model.logit_softcap > 0.0 {
            softcap(self.isa, logits, n, s.v, s.ld_v, s.model.logit_softcap as f32);
        }
    }

    /// The sum of the losses of the positions that count; in place of the logits their gradient, before the cap.
    fn loss(&self, ends: &mut [f32], targets: &[u8], scale: f32) -> f64 {
        let s = &self.sizes;
        let logits = &mut ends[EndFields::new(s).logits];
        let cap = s.model.logit_softcap as f32;
        match s.model.loss_positions {
            LossPositions::All => cross_entropy_backward(self.isa, logits, s.v, s.ld_v, targets, scale, cap),
            LossPositions::Last => {
                let windows = logits.chunks_exact_mut(s.t * s.ld_v).zip(targets.chunks_exact(s.t));
                windows
                    .map(|(logits, targets)| {
                        let (others, last) = logits.split_at_mut((s.t - 1) * s.ld_v);
                        others.fill(0.0);
                        let target = &targets[s.t - 1..];
                        cross_entropy_backward(self.isa, last, s.v, s.ld_v, target, scale, cap)
                    })
                    .sum()
            }
        }
    }

    /// From the logits' gradient to `dx`, the gradient of the last block's output.
    fn head_backward(
        &self,
        n: usize,
        final_in: &mut [f32],
        final_rstd: &[f32],
        d_logits: &[f32],
        dx: &mut [f32],
        small: &mut [f32],
        scratch: &mut Scratch<'_>,
    ) {
        let s = &self.sizes;
        let m = SmallEnds::new(s);
        let [d_scale, d_bias] = split(small, [&m.final_scale, &m.final_bias]);
        let Scratch { y, rounded, .. } = scratch;
        let rows = (d_logits, s.ld_v);
        gemm(self.isa, rows, &self.weights.head().backward, n, Init::Zero, y, s.ld_d, &[], rounded);
        let small = (d_scale, d_bias);
        self.norm_backward(&self.layout.final_norm, y, n, final_in, final_rstd, None, dx, small);
    }
}
