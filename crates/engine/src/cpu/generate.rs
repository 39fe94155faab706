//! Generation: symbols are read in their order, and keys and values of what was read are kept.
//!
//! Reading a context and reading one more symbol are the same pass over rows: many for one stream, or one for each of some
//! streams. Streams go in groups. Where there are as many groups as threads, each thread has its own; fewer are bound by
//! reading the weights, so the threads share the columns of their products instead.

use super::passes::Context;
use super::sizes::Sizes;
use super::weights::{DOWN, OUTPUT, QKV, UP};
use diapason_kernels::{
    AttentionShape, Buffer, Init, Pool, attention_forward, attention_scratch, attention_step, gemm_few,
    layer_norm,
};
use diapason_model::LAYER_NORM_EPSILON;
use std::ops::Range;

/// Streams that are read together, at most: rows of some micro-tiles, which between them ask for the whole next panel of the weights
/// in time.
const LARGEST: usize = 32;
/// Streams of a group, about, for which a thread is better off alone: the rows of a micro-tile.
const SMALLEST: usize = 8;

/// Keys and values of a group of streams.
pub(super) struct Group {
    /// Number of streams, at most [`LARGEST`].
    pub streams: usize,
    /// Positions that fit.
    pub capacity: usize,
    /// Positions read.
    length: usize,
    /// For each block and stream, keys then values, each [capacity, ld_d].
    cache: Buffer,
}

impl Group {
    /// Empty groups for `streams` streams of at most `capacity` positions, as many for each of `threads` threads if there are
    /// streams enough. Into which group a stream comes changes none of its bits.
    pub(super) fn all(s: &Sizes, streams: usize, capacity: usize, threads: usize) -> Vec<Self> {
        let fewest = streams.div_ceil(LARGEST).max(1);
        let groups = if streams >= threads * SMALLEST { fewest.next_multiple_of(threads) } else { fewest };
        let each = streams.div_ceil(groups).max(1);
        (0..streams)
            .step_by(each)
            .map(|first| {
                let streams = each.min(streams - first);
                let cache = Buffer::zeroed(s.l * streams * 2 * capacity * s.ld_d);
                Self { streams, length: 0, capacity, cache }
            })
            .collect()
    }

    /// Forgets what was read.
    pub(super) fn clear(&mut self) {
        self.length = 0;
    }

    /// Keys and values of one block and stream.
    fn pair(&mut self, s: &Sizes, block: usize, stream: usize) -> (&mut [f32], &mut [f32]) {
        let len = self.capacity * s.ld_d;
        self.cache[(block * self.streams + stream) * 2 * len..][..2 * len].split_at_mut(len)
    }
}

impl Context<'_> {
    /// Reads the next `symbols` [streams, p] of a group, more than one a stream only into an empty group; `logits` [streams, V]
    /// behind the last. The threads of a `team` share the products.
    pub(super) fn read(
        &self,
        group: &mut Group,
        symbols: &[u8],
        logits: &mut [f32],
        scratch: &mut Reading,
        mut team: Option<&mut Pool>,
    ) {
        let (streams, v) = (group.streams, self.sizes.v);
        let p = symbols.len() / streams;
        assert!(symbols.len() == p * streams && logits.len() == streams * v, "a share for each stream");
        assert!(p == 1 || group.length == 0, "a context goes into an empty cache");
        assert!(p <= group.capacity - group.length, "the cache is full");
        if p == 1 {
            self.rows(group, 0..streams, symbols, logits, scratch, team);
        } else {
            let all = symbols.chunks_exact(p).zip(logits.chunks_exact_mut(v));
            for (stream, (symbols, logits)) in all.enumerate() {
                self.rows(group, stream..stream + 1, symbols, logits, scratch, team.as_deref_mut());
            }
        }
        group.length += p;
    }

    /// The same for some streams of the group, one row for each symbol.
    fn rows(
        &self,
        group: &mut Group,
        streams: Range<usize>,
        symbols: &[u8],
        logits: &mut [f32],
        scratch: &mut Reading,
        mut team: Option<&mut Pool>,
    ) {
        let s = &self.sizes;
        let (isa, n, d, start) = (self.isa, symbols.len(), s.d, group.length);
        let p = n / streams.len();
        let Reading {
            x, y, hat, rstd, qkv, attended, hidden, stats, attention, scores, logits: padded, ..
        } = scratch;
        let tokens = &self.parameters[self.layout.token_embedding.clone()];
        let positions = &self.parameters[self.layout.position_embedding.clone()];
        for (i, &symbol) in symbols.iter().enumerate() {
            let e = &tokens[usize::from(symbol) * d..][..d];
            let place = &positions[(start + i % p) * d..][..d];
            for (x, (e, p)) in x[i * s.ld_d..][..d].iter_mut().zip(e.iter().zip(place)) {
                *x = e + p;
            }
        }
        let parameter = |range: &Range<usize>| &self.parameters[range.clone()];
        let shape = AttentionShape { positions: p, ..s.attention() };
        // From the last block's attention on, only the last position of each stream is needed.
        let (last, apart) = ((p - 1) * s.ld_d, p * s.ld_d);
        for block in 0..s.l {
            let w = |which| &self.weights.block(block, which).forward;
            let names = &self.layout.blocks[block];
            let (scale, bias) =
                (parameter(&names.attention_norm_scale), parameter(&names.attention_norm_bias));
            layer_norm(isa, x, n, d, s.ld_d, LAYER_NORM_EPSILON, scale, bias, hat, rstd, y);
            let rows = (&y[..], s.ld_d);
            gemm_few(isa, team.as_deref_mut(), rows, w(QKV), n, Init::Zero, false, qkv, s.ld_qkv);
            for (i, stream) in streams.clone().enumerate() {
                let rows = &qkv[i * p * s.ld_qkv..][..p * s.ld_qkv];
                let (keys, values) = group.pair(s, block, stream);
                for (row, at) in rows.chunks_exact(s.ld_qkv).zip(start..) {
                    keys[at * s.ld_d..][..d].copy_from_slice(&row[d..2 * d]);
                    values[at * s.ld_d..][..d].copy_from_slice(&row[2 * d..3 * d]);
                }
                let out = &mut attended[i * p * s.ld_d..][..p * s.ld_d];
                if p == 1 {
                    attention_step(isa, s.h, d / s.h, rows, keys, values, s.ld_d, start + 1, out, scores);
                } else {
                    attention_forward(isa, &shape, rows, out, stats, attention);
                }
            }
            let (from, stride, n) =
                if block + 1 == s.l { (last, apart, streams.len()) } else { (0, s.ld_d, n) };
            let x = &mut x[from..];
            let rows = (&attended[from..], stride);
            gemm_few(isa, team.as_deref_mut(), rows, w(OUTPUT), n, Init::Accumulate, false, x, stride);
            let (scale, bias) = (parameter(&names.mlp_norm_scale), parameter(&names.mlp_norm_bias));
            layer_norm(isa, x, n, d, stride, LAYER_NORM_EPSILON, scale, bias, hat, rstd, y);
            let up = Init::Bias(parameter(&names.up_bias));
            gemm_few(isa, team.as_deref_mut(), (&y[..], stride), w(UP), n, up, true, hidden, s.ld_f);
            let rows = (&hidden[..], s.ld_f);
            let down = Init::AccumulateBias(parameter(&names.down_bias));
            gemm_few(isa, team.as_deref_mut(), rows, w(DOWN), n, down, false, x, stride);
        }
        let (n, x) = (streams.len(), &x[last..]);
        let (scale, bias) =
            (parameter(&self.layout.final_norm_scale), parameter(&self.layout.final_norm_bias));
        layer_norm(isa, x, n, d, apart, LAYER_NORM_EPSILON, scale, bias, hat, rstd, y);
        let head = &self.weights.head().forward;
        gemm_few(isa, team, (&y[..], apart), head, n, Init::Zero, false, padded, s.ld_v);
        for (row, out) in padded.chunks_exact(s.ld_v).zip(logits.chunks_exact_mut(s.v)) {
            out.copy_from_slice(&row[..s.v]);
        }
    }
}

/// What a thread needs while it reads: a row for each position of a stream, or for each stream of a group.
pub(super) struct Reading {
    /// Positions that a stream can have.
    positions: usize,
    x: Buffer,
    y: Buffer,
    hat: Buffer,
    rstd: Buffer,
    qkv: Buffer,
    attended: Buffer,
    hidden: Buffer,
    stats: Buffer,
    attention: Buffer,
    scores: Buffer,
    logits: Buffer,
}

impl Reading {
    /// What lies in `place`, made anew if it is too small for so many positions.
    pub(super) fn of<'a>(place: &'a mut Option<Self>, s: &Sizes, positions: usize) -> &'a mut Self {
        place.take_if(|reading| reading.positions < positions);
        place.get_or_insert_with(|| Self::new(s, positions))
    }

    fn new(s: &Sizes, positions: usize) -> Self {
        let rows = |stride| Buffer::zeroed(LARGEST.max(positions) * stride);
        Self {
            positions,
            x: rows(s.ld_d),
            y: rows(s.ld_d),
            hat: rows(s.ld_d),
            rstd: rows(1),
            qkv: rows(s.ld_qkv),
            attended: rows(s.ld_d),
            hidden: rows(s.ld_f),
            stats: rows(2 * s.h),
            attention: Buffer::zeroed(attention_scratch(&AttentionShape { positions, ..s.attention() })),
            scores: Buffer::zeroed(s.h * (positions + 1)),
            logits: Buffer::zeroed(LARGEST * s.ld_v),
        }
    }

    /// Bytes that [`Reading::of`] takes.
    pub(super) fn bytes(s: &Sizes, positions: usize) -> usize {
        let rows = LARGEST.max(positions) * (4 * s.ld_d + 1 + s.ld_qkv + s.ld_f + 2 * s.h);
        let attention = attention_scratch(&AttentionShape { positions, ..s.attention() });
        4 * (rows + attention + s.h * (positions + 1) + LARGEST * s.ld_v)
    }
}
