//! Generation: a forward pass over the context that keeps keys and values, then one position at a time.

use super::passes::{Context, Scratch};
use super::sizes::{BlockFields, EndFields, Sizes};
use super::weights::{DOWN, KEY, OUTPUT, QUERY, UP, VALUE};
use diapason_kernels::{Buffer, Init, attention_step, gelu, gemm, layer_norm};
use diapason_model::LAYER_NORM_EPSILON;

/// Streams that one thread advances together: as many rows as the micro-tile of the products has.
const GROUP: usize = 8;

/// Keys and values of a group of streams.
pub(super) struct Group {
    /// Number of streams, at most [`GROUP`].
    pub streams: usize,
    /// Positions read.
    length: usize,
    /// Positions that fit.
    capacity: usize,
    /// For each block and stream, keys then values, each [capacity, ld_d].
    cache: Buffer,
}

impl Group {
    /// Empty groups for `streams` streams of at most `capacity` positions.
    pub(super) fn all(s: &Sizes, streams: usize, capacity: usize) -> Vec<Self> {
        (0..streams)
            .step_by(GROUP)
            .map(|first| {
                let streams = GROUP.min(streams - first);
                let cache = Buffer::zeroed(s.l * streams * 2 * capacity * s.ld_d);
                Self { streams, length: 0, capacity, cache }
            })
            .collect()
    }

    /// Keys and values of one block and stream.
    fn pair(&mut self, s: &Sizes, block: usize, stream: usize) -> (&mut [f32], &mut [f32]) {
        let len = self.capacity * s.ld_d;
        self.cache[(block * self.streams + stream) * 2 * len..][..2 * len].split_at_mut(len)
    }
}

impl Context<'_> {
    /// Reads the contexts [streams, T] of a group; `logits` [streams, V] behind the last position. `kept` and `ends` have
    /// room for one block and for the ends of an item.
    pub(super) fn prefill(
        &self,
        group: &mut Group,
        contexts: &[u8],
        logits: &mut [f32],
        kept: &mut [f32],
        ends: &mut [f32],
        scratch: &mut [f32],
    ) {
        let s = &self.sizes;
        let fields = BlockFields::new(s);
        let mut scratch = Scratch::of(s, scratch);
        for (stream, context) in contexts.chunks_exact(s.t).enumerate() {
            self.embed(context, scratch.x);
            for block in 0..s.l {
                self.block_forward(block, kept, s.t, &mut scratch);
                let qkv = &kept[fields.qkv.clone()];
                let (keys, values) = group.pair(s, block, stream);
                for i in 0..s.t {
                    let row = &qkv[i * s.ld_qkv..];
                    keys[i * s.ld_d..][..s.d].copy_from_slice(&row[s.d..2 * s.d]);
                    values[i * s.ld_d..][..s.d].copy_from_slice(&row[2 * s.d..3 * s.d]);
                }
            }
            let e = EndFields::new(s);
            let [hat, rstd, all] = super::sizes::split(ends, [&e.final_in, &e.final_rstd, &e.logits]);
            self.head_forward(s.t, hat, rstd, all, &mut scratch);
            logits[stream * s.v..][..s.v].copy_from_slice(&all[(s.t - 1) * s.ld_v..][..s.v]);
        }
        group.length = s.t;
    }

    /// Reads one symbol for each stream of a group; `logits` [streams, V].
    pub(super) fn decode(
        &self,
        group: &mut Group,
        symbols: &[u8],
        logits: &mut [f32],
        scratch: &mut DecodeScratch,
    ) {
        let s = &self.sizes;
        let (isa, n, d) = (self.isa, group.streams, s.d);
        assert!(group.length < group.capacity, "the cache is full");
        let position = group.length;
        group.length += 1;
        let DecodeScratch { x, y, hat, rstd, qkv, attended, hidden, g, scores, logits: padded_logits } =
            scratch;
        let tokens = &self.parameters[self.layout.token_embedding.clone()];
        let place = &self.parameters[self.layout.position_embedding.clone()][position * d..][..d];
        for (i, &symbol) in symbols.iter().enumerate() {
            let e = &tokens[usize::from(symbol) * d..][..d];
            for (x, (e, p)) in x[i * s.ld_d..][..d].iter_mut().zip(e.iter().zip(place)) {
                *x = e + p;
            }
        }
        let parameter = |range: &std::ops::Range<usize>| &self.parameters[range.clone()];
        for block in 0..s.l {
            let p = &self.layout.blocks[block];
            let w = |which| &self.weights.block(block, which).forward;
            let (scale, bias) = (parameter(&p.attention_norm_scale), parameter(&p.attention_norm_bias));
            layer_norm(isa, x, n, d, s.ld_d, LAYER_NORM_EPSILON, scale, bias, hat, rstd, y);
            for (part, which) in [QUERY, KEY, VALUE].into_iter().enumerate() {
                let rows = (&y[..], s.ld_d);
                gemm(isa, rows, w(which), n, Init::Zero, &mut qkv[part * d..], s.ld_qkv, &[]);
            }
            for stream in 0..n {
                let row = &qkv[stream * s.ld_qkv..];
                let (keys, values) = group.pair(s, block, stream);
                keys[position * s.ld_d..][..d].copy_from_slice(&row[d..2 * d]);
                values[position * s.ld_d..][..d].copy_from_slice(&row[2 * d..3 * d]);
                let out = &mut attended[stream * s.ld_d..][..d];
                attention_step(isa, s.h, d / s.h, row, keys, values, s.ld_d, position + 1, out, scores);
            }
            let rows = (&attended[..], s.ld_d);
            gemm(isa, rows, w(OUTPUT), n, Init::Accumulate, x, s.ld_d, &[]);
            let (scale, bias) = (parameter(&p.mlp_norm_scale), parameter(&p.mlp_norm_bias));
            layer_norm(isa, x, n, d, s.ld_d, LAYER_NORM_EPSILON, scale, bias, hat, rstd, y);
            let rows = (&y[..], s.ld_d);
            gemm(isa, rows, w(UP), n, Init::Bias(parameter(&p.up_bias)), hidden, s.ld_f, &[]);
            gelu(isa, hidden, n, s.f, s.ld_f, g);
            let rows = (&g[..], s.ld_f);
            gemm(isa, rows, w(DOWN), n, Init::AccumulateBias(parameter(&p.down_bias)), x, s.ld_d, &[]);
        }
        let (scale, bias) =
            (parameter(&self.layout.final_norm_scale), parameter(&self.layout.final_norm_bias));
        layer_norm(isa, x, n, d, s.ld_d, LAYER_NORM_EPSILON, scale, bias, hat, rstd, y);
        let rows = (&y[..], s.ld_d);
        gemm(isa, rows, &self.weights.head().forward, n, Init::Zero, padded_logits, s.ld_v, &[]);
        for (row, out) in padded_logits.chunks_exact(s.ld_v).zip(logits.chunks_exact_mut(s.v)) {
            out.copy_from_slice(&row[..s.v]);
        }
    }
}

/// What a thread needs to advance a group by one position: rows for each stream.
pub(super) struct DecodeScratch {
    x: Buffer,
    y: Buffer,
    hat: Buffer,
    rstd: Buffer,
    qkv: Buffer,
    attended: Buffer,
    hidden: Buffer,
    g: Buffer,
    scores: Buffer,
    logits: Buffer,
}

impl DecodeScratch {
    pub(super) fn new(s: &Sizes, capacity: usize) -> Self {
        let rows = |stride| Buffer::zeroed(GROUP * stride);
        Self {
            x: rows(s.ld_d),
            y: rows(s.ld_d),
            hat: rows(s.ld_d),
            rstd: rows(1),
            qkv: rows(s.ld_qkv),
            attended: rows(s.ld_d),
            hidden: rows(s.ld_f),
            g: rows(s.ld_f),
            scores: Buffer::zeroed(capacity),
            logits: rows(s.ld_v),
        }
    }
}
