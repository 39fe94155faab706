//! The model over one item, forward and back: each part's two directions side by side.
//!
//! x [n, D] is the residual stream, xhat the normalised rows of a LayerNorm, dz the gradient of the mean loss with respect to z.
//! The backward pass computes gradients of activations only; it leaves behind what the weight gradients
//! (`gradient.rs`) need.

use super::sizes::{BlockFields, EndFields, Sizes, SmallFields, split};
use super::weights::{DOWN, OUTPUT, QKV, UP, Weights};
use diapason_kernels::{
    Buffer, Init, Isa, Precision, add_rows, attention_backward, attention_forward, cross_entropy_backward,
    gelu, gelu_backward, gemm, layer_norm, layer_norm_backward, round_columns,
};
use diapason_model::{LAYER_NORM_EPSILON, Layout};

/// What all items share.
pub(super) struct Context<'a> {
    pub isa: Isa,
    pub sizes: Sizes,
    pub layout: &'a Layout,
    pub parameters: &'a [f32],
    pub weights: &'a Weights,
}

/// What a thread needs while it works on an item.
pub(super) struct Scratch<'a> {
    /// The residual stream [n, D].
    pub x: &'a mut [f32],
    /// Outputs of LayerNorm, and gradients [n, D].
    pub y: &'a mut [f32],
    /// GELU's output [n, F].
    pub g: &'a mut [f32],
    pub attention: &'a mut [f32],
    /// Rounded rows of the left operand of a product.
    pub rounded: &'a mut [f32],
}

impl<'a> Scratch<'a> {
    pub(super) fn of(s: &Sizes, whole: &'a mut [f32]) -> Self {
        let n = s.tokens();
        let (x, rest) = whole.split_at_mut(n * s.ld_d);
        let (y, rest) = rest.split_at_mut(n * s.ld_d);
        let (g, rest) = rest.split_at_mut(n * s.ld_f);
        let (rounded, attention) = rest.split_at_mut(s.rounded_len());
        Self { x, y, g, attention, rounded }
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

impl Context<'_> {
    /// The last that the passes do with n rows of `columns` numbers: what is left is for the weight gradients.
    fn settle(&self, x: &mut [f32], n: usize, columns: usize, stride: usize) {
        match self.sizes.precision {
            Precision::F32 => {}
            Precision::Half => round_columns(self.isa, x, n, columns, stride),
        }
    }

    /// Forward, loss and backward of one item; `scale` is 1 / positions of the whole batch.
    pub(super) fn train(
        &self,
        item: &mut Item,
        inputs: &[u8],
        targets: &[u8],
        scale: f32,
        scratch: &mut [f32],
    ) {
        let s = &self.sizes;
        item.tokens = inputs.len();
        let mut scratch = Scratch::of(s, scratch);
        self.embed(inputs, scratch.x);
        for (block, kept) in item.blocks.chunks_exact_mut(s.block_len()).enumerate() {
            self.block_forward(block, kept, inputs.len(), &mut scratch);
        }
        let fields = EndFields::new(s);
        let [final_in, final_rstd, logits, d_embedded] =
            split(&mut item.ends, [&fields.final_in, &fields.final_rstd, &fields.logits, &fields.d_embedded]);
        self.head_forward(inputs.len(), final_in, final_rstd, logits, &mut scratch);

        item.loss = cross_entropy_backward(self.isa, logits, s.v, s.ld_v, targets, scale);

        item.small.fill(0.0);
        let (small_blocks, small_final) = item.small.split_at_mut(s.l * SmallFields::new(s).end);
        // The gradient behind the last block goes where that block expects it, the one before the first into
        // `d_embedded`.
        let n = inputs.len();
        let mut blocks = item.blocks.chunks_exact_mut(s.block_len()).enumerate().rev().peekable();
        let d_out = match blocks.peek_mut() {
            Some((_, last)) => &mut last[BlockFields::new(s).d_out.clone()],
            None => &mut *d_embedded,
        };
        self.head_backward(n, final_in, final_rstd, logits, d_out, small_final, &mut scratch);
        self.settle(final_in, n, s.d, s.ld_d);
        self.settle(logits, n, s.v, s.ld_v);
        while let Some((block, kept)) = blocks.next() {
            let small = &mut small_blocks[block * SmallFields::new(s).end..][..SmallFields::new(s).end];
            let dx = match blocks.peek_mut() {
                Some((_, before)) => &mut before[BlockFields::new(s).d_out.clone()],
                None => &mut *d_embedded,
            };
            self.block_backward(block, kept, n, dx, small, &mut scratch);
        }
    }

    /// x = E[token] + P[position] (its backward is a sum over the batch: `gradient.rs`).
    pub(super) fn embed(&self, inputs: &[u8], x: &mut [f32]) {
        let s = &self.sizes;
        let tokens = &self.parameters[self.layout.token_embedding.clone()];
        let positions = &self.parameters[self.layout.position_embedding.clone()];
        for (i, &symbol) in inputs.iter().enumerate() {
            let e = &tokens[usize::from(symbol) * s.d..][..s.d];
            let p = &positions[(i % s.t) * s.d..][..s.d];
            for (x, (e, p)) in x[i * s.ld_d..][..s.d].iter_mut().zip(e.iter().zip(p)) {
                *x = e + p;
            }
        }
    }

    /// x += Attention(LayerNorm(x)); x += MLP(LayerNorm(x)), for n positions.
    pub(super) fn block_forward(&self, block: usize, kept: &mut [f32], n: usize, scratch: &mut Scratch<'_>) {
        let s = &self.sizes;
        let (isa, d, f) = (self.isa, s.d, s.f);
        let p = &self.layout.blocks[block];
        let parameter = |range: &std::ops::Range<usize>| &self.parameters[range.clone()];
        let w = |which| &self.weights.block(block, which).forward;
        let k = BlockFields::new(s);
        let [attention_in, attention_rstd, qkv, stats, attended, mlp_in, mlp_rstd, hidden] = split(
            kept,
            [
                &k.attention_in,
                &k.attention_rstd,
                &k.qkv,
                &k.stats,
                &k.attended,
                &k.mlp_in,
                &k.mlp_rstd,
                &k.hidden,
            ],
        );
        let Scratch { x, y, g, attention, rounded } = scratch;

        let (scale, bias) = (parameter(&p.attention_norm_scale), parameter(&p.attention_norm_bias));
        layer_norm(isa, x, n, d, s.ld_d, LAYER_NORM_EPSILON, scale, bias, attention_in, attention_rstd, y);
        gemm(isa, (&y[..], s.ld_d), w(QKV), n, Init::Zero, qkv, s.ld_qkv, &[], rounded);
        let shape = s.attention();
        for i in 0..n / s.t {
            let qkv = &qkv[i * s.t * s.ld_qkv..][..s.t * s.ld_qkv];
            let out = &mut attended[i * s.t * s.ld_d..][..s.t * s.ld_d];
            let stats = &mut stats[2 * i * s.t * s.h..][..2 * s.t * s.h];
            attention_forward(isa, &shape, qkv, out, stats, attention);
        }
        let rows = (&attended[..], s.ld_d);
        gemm(isa, rows, w(OUTPUT), n, Init::Accumulate, x, s.ld_d, &[], rounded);

        let (scale, bias) = (parameter(&p.mlp_norm_scale), parameter(&p.mlp_norm_bias));
        layer_norm(isa, x, n, d, s.ld_d, LAYER_NORM_EPSILON, scale, bias, mlp_in, mlp_rstd, y);
        let rows = (&y[..], s.ld_d);
        gemm(isa, rows, w(UP), n, Init::Bias(parameter(&p.up_bias)), hidden, s.ld_f, &[], rounded);
        gelu(isa, hidden, n, f, s.ld_f, g);
        let rows = (&g[..], s.ld_f);
        gemm(isa, rows, w(DOWN), n, Init::AccumulateBias(parameter(&p.down_bias)), x, s.ld_d, &[], rounded);
    }

    /// From `d_out` in `kept` to `dx`, the gradient of the block's input.
    fn block_backward(
        &self,
        block: usize,
        kept: &mut [f32],
        n: usize,
        dx: &mut [f32],
        small: &mut [f32],
        scratch: &mut Scratch<'_>,
    ) {
        let s = &self.sizes;
        let (isa, d, f) = (self.isa, s.d, s.f);
        let p = &self.layout.blocks[block];
        let parameter = |range: &std::ops::Range<usize>| &self.parameters[range.clone()];
        let w = |which| &self.weights.block(block, which).backward;
        let k = BlockFields::new(s);
        let [
            attention_in,
            attention_rstd,
            qkv,
            stats,
            attended,
            mlp_in,
            mlp_rstd,
            hidden,
            d_hidden,
            d_mid,
            d_out,
        ] = split(
            kept,
            [
                &k.attention_in,
                &k.attention_rstd,
                &k.qkv,
                &k.stats,
                &k.attended,
                &k.mlp_in,
                &k.mlp_rstd,
                &k.hidden,
                &k.d_hidden,
                &k.d_mid,
                &k.d_out,
            ],
        );
        let m = SmallFields::new(s);
        let [d_attention_scale, d_attention_bias, d_mlp_scale, d_mlp_bias, d_up_bias, d_down_bias] = split(
            small,
            [&m.attention_scale, &m.attention_bias, &m.mlp_scale, &m.mlp_bias, &m.up_bias, &m.down_bias],
        );
        let Scratch { y, attention, rounded, .. } = scratch;

        // MLP: out = mid + GELU(LayerNorm(mid) Wup + bup) Wdown + bdown.
        add_rows(isa, d_out, n, s.ld_d, d_down_bias);
        let rows = (&d_out[..], s.ld_d);
        gemm(isa, rows, w(DOWN), n, Init::Zero, d_hidden, s.ld_f, &[], rounded);
        gelu_backward(isa, hidden, d_hidden, n, f, s.ld_f, d_up_bias);
        self.settle(hidden, n, f, s.ld_f);
        let rows = (&d_hidden[..], s.ld_f);
        gemm(isa, rows, w(UP), n, Init::Zero, y, s.ld_d, &[], rounded);
        self.settle(d_hidden, n, f, s.ld_f);
        layer_norm_backward(
            isa,
            y,
            n,
            d,
            s.ld_d,
            parameter(&p.mlp_norm_scale),
            parameter(&p.mlp_norm_bias),
            mlp_in,
            mlp_rstd,
            Some(d_out),
            d_mid,
            d_mlp_scale,
            d_mlp_bias,
        );
        self.settle(mlp_in, n, d, s.ld_d);
        self.settle(d_out, n, d, s.ld_d);

        // Attention: mid = x + Attention(LayerNorm(x) Wqkv) Wout.
        let rows = (&d_mid[..], s.ld_d);
        // Attention reads query, key and value in narrow columns, which the processor does not foresee.
        gemm(isa, rows, w(OUTPUT), n, Init::Zero, y, s.ld_d, &[qkv, attended], rounded);
        let shape = s.attention();
        for i in 0..n / s.t {
            let qkv = &mut qkv[i * s.t * s.ld_qkv..][..s.t * s.ld_qkv];
            let rows = i * s.t * s.ld_d..(i + 1) * s.t * s.ld_d;
            let stats = &stats[2 * i * s.t * s.h..][..2 * s.t * s.h];
            attention_backward(isa, &shape, qkv, &attended[rows.clone()], &y[rows], stats, attention);
        }
        self.settle(attended, n, d, s.ld_d);
        gemm(isa, (&qkv[..], s.ld_qkv), w(QKV), n, Init::Zero, y, s.ld_d, &[], rounded);
        self.settle(qkv, n, 3 * d, s.ld_qkv);
        layer_norm_backward(
            isa,
            y,
            n,
            d,
            s.ld_d,
            parameter(&p.attention_norm_scale),
            parameter(&p.attention_norm_bias),
            attention_in,
            attention_rstd,
            Some(d_mid),
            dx,
            d_attention_scale,
            d_attention_bias,
        );
        self.settle(attention_in, n, d, s.ld_d);
        self.settle(d_mid, n, d, s.ld_d);
    }

    /// logits = LayerNorm(x) W.
    pub(super) fn head_forward(
        &self,
        n: usize,
        final_in: &mut [f32],
        final_rstd: &mut [f32],
        logits: &mut [f32],
        scratch: &mut Scratch<'_>,
    ) {
        let s = &self.sizes;
        let scale = &self.parameters[self.layout.final_norm_scale.clone()];
        let bias = &self.parameters[self.layout.final_norm_bias.clone()];
        let Scratch { x, y, rounded, .. } = scratch;
        layer_norm(self.isa, x, n, s.d, s.ld_d, LAYER_NORM_EPSILON, scale, bias, final_in, final_rstd, y);
        let rows = (&y[..], s.ld_d);
        gemm(self.isa, rows, &self.weights.head().forward, n, Init::Zero, logits, s.ld_v, &[], rounded);
    }

    /// From the logits' gradient to `dx`, the gradient of the last block's output; `small` = [dscale, dbias].
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
        let scale = &self.parameters[self.layout.final_norm_scale.clone()];
        let bias = &self.parameters[self.layout.final_norm_bias.clone()];
        let (d_scale, d_bias) = small.split_at_mut(s.d);
        let Scratch { y, rounded, .. } = scratch;
        let rows = (d_logits, s.ld_v);
        gemm(self.isa, rows, &self.weights.head().backward, n, Init::Zero, y, s.ld_d, &[], rounded);
        layer_norm_backward(
            self.isa, y, n, s.d, s.ld_d, scale, bias, final_in, final_rstd, None, dx, d_scale, d_bias,
        );
    }
}
