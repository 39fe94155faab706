//! Generation: symbols are read in their order, and keys and values of what was read are kept.
//!
//! Reading a context and reading one more symbol are the same pass over rows: many for one stream, or one for each of some
//! streams. Streams go in groups. Where there are as many groups as threads, each thread has its own; fewer are bound by
//! reading the weights, so the threads share the columns of their products instead.

use super::passes::Context;
use super::sizes::Sizes;
use super::weights::{DOWN, OUTPUT, QKV, UP};
use diapason_kernels::{
    Activation, AttentionShape, Buffer, Init, Pool, activate, attention_forward, attention_scratch,
    attention_step, gemm_few, mix, queries_keys, softcap,
};
use diapason_model::LONGEST_NGRAM;
use std::ops::Range;

/// Streams that are read together, at most: rows of some micro-tiles, which between them ask for the whole next panel of the weights
/// in time.
const LARGEST: usize = 32;
/// Streams of a group, about, for which a thread is better off alone: the rows of a micro-tile.
const SMALLEST: usize = 8;
/// Symbols before the one that is read that an n-gram can have.
const RECENT: usize = LONGEST_NGRAM - 1;

/// Keys and values of a group of streams.
pub(super) struct Group {
    /// Number of streams, at most [`LARGEST`].
    pub streams: usize,
    /// Positions that fit.
    pub capacity: usize,
    /// Positions read.
    length: usize,
    /// The last symbols of each stream, as far as there are any: those that an n-gram can begin with.
    recent: Vec<[u8; RECENT]>,
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
                Self { streams, length: 0, recent: vec![[0; RECENT]; streams], capacity, cache }
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
        for (recent, symbols) in group.recent.iter_mut().zip(symbols.chunks_exact(p)) {
            for &symbol in &symbols[p.saturating_sub(RECENT)..] {
                recent.rotate_left(1);
                recent[RECENT - 1] = symbol;
            }
        }
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
        let parameter = |range: &Range<usize>| &self.parameters[range.clone()];
        let Reading {
            x,
            y,
            hat,
            rstd,
            qkv,
            attended,
            hidden,
            activated,
            stats,
            attention,
            scores,
            embedded,
            values,
            heads_rstd,
            logits: padded,
            ..
        } = scratch;
        for (i, row) in x.chunks_exact_mut(s.ld_d).take(n).enumerate() {
            let (stream, t) = (i / p, i % p);
            if start == 0 {
                self.embed_row(&symbols[stream * p..][..p], t, t, &mut row[..d]);
            } else {
                // One symbol, behind what was read.
                let mut window = [symbols[i]; LONGEST_NGRAM];
                window[..RECENT].copy_from_slice(&group.recent[streams.start + stream]);
                let known = start.min(RECENT);
                self.embed_row(&window[RECENT - known..], known, start, &mut row[..d]);
            }
        }
        self.embed_norm(n, x, s.ld_d, rstd, embedded);
        let shape = AttentionShape { positions: p, ..s.attention() };
        // From the last block's attention on, only the last position of each stream is needed.
        let (last, apart) = ((p - 1) * s.ld_d, p * s.ld_d);
        for block in 0..s.l {
            let w = |which| self.weights.block(block, which).single();
            let names = &self.layout.blocks[block];
            if let Some(weights) = self.pair(&names.embedding_residual) {
                mix(isa, x, s.ld_d, embedded, s.ld_d, n, d, weights, hat);
            }
            let rows = (self.norm(&names.attention_norm, x, n, s.ld_d, hat, rstd, y), s.ld_d);
            gemm_few(isa, team.as_deref_mut(), rows, w(QKV), n, Init::Zero, false, qkv, s.ld_qkv);
            self.mix_values(block, n, qkv, values, hat);
            for (i, stream) in streams.clone().enumerate() {
                let rows = &mut qkv[i * p * s.ld_qkv..][..p * s.ld_qkv];
                if let Some(heads) = self.heads(p, start) {
                    queries_keys(isa, &heads, rows, heads_rstd);
                }
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
            let rows = (self.norm(&names.mlp_norm, x, n, stride, hat, rstd, y), stride);
            let up = names.gate_and_up_bias().map_or(Init::Zero, |range| Init::Bias(parameter(&range)));
            // GELU is part of the product.
            let fused = self.activation() == Activation::Gelu;
            gemm_few(isa, team.as_deref_mut(), rows, w(UP), n, up, fused, hidden, s.ld_up);
            let rows = if fused {
                (&hidden[..], s.ld_up)
            } else {
                activate(isa, self.activation(), hidden, n, s.f, s.ld_up, activated, s.ld_f);
                (&activated[..], s.ld_f)
            };
            let down = names.down_bias.as_ref();
            let down = down.map_or(Init::Accumulate, |range| Init::AccumulateBias(parameter(range)));
            gemm_few(isa, team.as_deref_mut(), rows, w(DOWN), n, down, false, x, stride);
        }
        let (n, x) = (streams.len(), &x[last..]);
        let rows = (self.norm(&self.layout.final_norm, x, n, apart, hat, rstd, y), apart);
        let head = self.weights.head().single();
        gemm_few(isa, team, rows, head, n, Init::Zero, false, padded, s.ld_v);
        if s.model.logit_softcap > 0.0 {
            softcap(isa, padded, n, s.v, s.ld_v, s.model.logit_softcap as f32);
        }
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
    /// What the activation makes of it, where that is not part of the product.
    activated: Buffer,
    stats: Buffer,
    attention: Buffer,
    scores: Buffer,
    /// What the first block reads, where later ones mix it in.
    embedded: Buffer,
    /// The first block's values, likewise.
    values: Buffer,
    heads_rstd: Buffer,
    logits: Buffer,
}

impl Reading {
    /// What lies in `place`, made anew if it is too small for so many positions.
    pub(super) fn of<'a>(place: &'a mut Option<Self>, s: &Sizes, positions: usize) -> &'a mut Self {
        place.take_if(|reading| reading.positions < positions);
        place.get_or_insert_with(|| Self::new(s, positions))
    }

    fn new(s: &Sizes, positions: usize) -> Self {
        let rows = |numbers: usize| Buffer::zeroed(LARGEST.max(positions) * numbers);
        let parts = Parts::new(s);
        Self {
            positions,
            x: rows(s.ld_d),
            y: rows(s.ld_d),
            hat: rows(s.ld_d),
            rstd: rows(1),
            qkv: rows(s.ld_qkv),
            attended: rows(s.ld_d),
            hidden: rows(s.ld_up),
            activated: rows(parts.activated),
            stats: rows(2 * s.h),
            attention: Buffer::zeroed(attention_scratch(&AttentionShape { positions, ..s.attention() })),
            scores: Buffer::zeroed(s.h * (positions + 1)),
            embedded: rows(parts.embedded),
            values: rows(parts.values),
            heads_rstd: rows(parts.heads_rstd),
            logits: Buffer::zeroed(LARGEST * s.ld_v),
        }
    }

    /// Bytes that [`Reading::of`] takes.
    pub(super) fn bytes(s: &Sizes, positions: usize) -> usize {
        let Parts { activated, embedded, values, heads_rstd } = Parts::new(s);
        let parts = activated + embedded + values + heads_rstd;
        let rows = LARGEST.max(positions) * (4 * s.ld_d + 1 + s.ld_qkv + s.ld_up + 2 * s.h + parts);
        let attention = attention_scratch(&AttentionShape { positions, ..s.attention() });
        4 * (rows + attention + s.h * (positions + 1) + LARGEST * s.ld_v)
    }
}

/// Numbers in a row of the buffers that only some models need.
struct Parts {
    activated: usize,
    embedded: usize,
    values: usize,
    heads_rstd: usize,
}

impl Parts {
    fn new(s: &Sizes) -> Self {
        let row = |has: bool, numbers: usize| if has { numbers } else { 0 };
        let m = &s.model;
        Self {
            activated: row(m.activation != diapason_model::Activation::Gelu, s.ld_f),
            embedded: row(s.keeps_embedded(), s.ld_d),
            values: row(m.value_residual, s.ld_d),
            heads_rstd: row(m.qk_norm, 2 * s.h),
        }
    }
}
