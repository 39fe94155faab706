//! Causal softmax attention of one sequence (Vaswani et al., 2017).
//!
//! Rows of `qkv` hold [query | key | value], D numbers each; head h owns columns h*d .. (h+1)*d of each part,
//! d = D/H. With scale = 1/sqrt(d), for every head:
//!
//! - S = scale Q K^T, P = softmax over the keys j <= i of each row, O = P V;
//! - backward, given dO: dV = P^T dO; dP = dO V^T; dS = P o (dP - rowsum(dP o P)) scale; dQ = dS K; dK = dS^T Q.
//!
//! P is not kept: the forward pass keeps the largest score and the sum of exponentials of each row, and the
//! backward pass computes P again, bit for bit (as in FlashAttention: Dao et al., 2022). Queries go in blocks of
//! [`QUERIES`] rows, so that the scratch stays in the cache whatever the length. The products run on the micro-tile
//! of `gemm.rs` and skip tiles that the causal mask empties.

use crate::extent;
use crate::gemm::{Init, Left, Lines, Single, padded, panel};
use crate::isa::dispatch;
use crate::packed::{pack_columns_generic, panels};
use crate::simd::Simd;

/// Query rows in a block.
const QUERIES: usize = 64;
/// Rows of a tile chunk: the causal limits move in these steps.
const CHUNK: usize = 8;
/// Rows whose softmax is computed side by side: a divisor of every number of lanes, so that their causal limits lie in the same vector.
const GROUP: usize = 4;

const _: () = assert!(QUERIES.is_multiple_of(CHUNK) && CHUNK.is_multiple_of(GROUP));

/// Sizes of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    /// Positions T.
    pub positions: usize,
    /// Heads H.
    pub heads: usize,
    /// Channels of a head d.
    pub head_size: usize,
    /// Row stride of `qkv`; at least 3 H d + 16, so that vector loads may run past a row's end.
    pub qkv_stride: usize,
    /// Row stride of the output and its gradient; at least H d + 16.
    pub out_stride: usize,
}

impl AttentionShape {
    fn check(&self, qkv: usize, out: usize, stats: usize, scratch: usize) {
        let d = extent(self.heads, self.head_size, self.head_size);
        assert!(self.out_stride >= 16 && self.out_stride - 16 >= d);
        assert!(self.qkv_stride >= 16 && (self.qkv_stride - 16) / 3 >= d);
        assert!(qkv >= extent(self.positions, self.qkv_stride, self.qkv_stride));
        assert!(out >= extent(self.positions, self.out_stride, self.out_stride));
        assert!(stats >= extent(self.positions, 2 * self.heads, 2 * self.heads));
        assert!(scratch >= attention_scratch(self));
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_size as f32).sqrt()
    }
}

/// Numbers of scratch that the two passes need.
pub fn attention_scratch(shape: &AttentionShape) -> usize {
    let Parts { end, .. } = Parts::of(shape);
    end
}

/// Where things lie in the scratch.
struct Parts {
    /// Values transposed and packed [d, T]; before them, from 0, the keys likewise.
    values: usize,
    /// P of a block [QUERIES, score_stride].
    p: usize,
    /// dS of a block.
    ds: usize,
    score_stride: usize,
    /// dK [T, head_stride]; dQ and dV go where Q and V were.
    dk: usize,
    head_stride: usize,
    end: usize,
}

impl Parts {
    fn of(shape: &AttentionShape) -> Self {
        let score_stride = padded(shape.positions);
        let head_stride = padded(shape.head_size);
        let packed = shape.head_size * shape.positions.next_multiple_of(16);
        let block = QUERIES.min(shape.positions) * score_stride;
        let head = shape.positions * head_stride;
        let values = packed;
        let p = values + packed;
        let ds = p + block;
        let dk = ds + block;
        Self { values, p, ds, score_stride, dk, head_stride, end: dk + head }
    }
}

dispatch! {
    /// O [T, H d] from `qkv` [T, 3 H d]; `stats` [H, T, 2] keeps each row's largest scaled score and the inverse of its sum of
    /// exponentials.
    pub fn attention_forward(shape: &AttentionShape, qkv: &[f32], out: &mut [f32], stats: &mut [f32], scratch: &mut [f32]) = forward;
}

#[inline(always)]
fn forward<S: Simd>(
    s: S,
    shape: &AttentionShape,
    qkv: &[f32],
    out: &mut [f32],
    stats: &mut [f32],
    scratch: &mut [f32],
) {
    shape.check(qkv.len(), out.len(), stats.len(), scratch.len());
    let (t, d, width) = (shape.positions, shape.head_size, shape.heads * shape.head_size);
    let ld = shape.qkv_stride;
    let parts = Parts::of(shape);
    let (keys, rest) = scratch.split_at_mut(parts.values);
    let p = &mut rest[parts.p - parts.values..parts.ds - parts.values];
    for head in 0..shape.heads {
        let (q, k, v) = (head * d, width + head * d, 2 * width + head * d);
        pack_columns_generic(s, &qkv[k..], ld, (0, 0), (d, t), (d, t), keys);
        for i0 in (0..t).step_by(QUERIES) {
            let i1 = (i0 + QUERIES).min(t);
            scores(s, &qkv[q..], ld, keys, i0, i1, t, d, p, parts.score_stride);
            let stats = &mut stats[2 * (head * t + i0)..2 * (head * t + i1)];
            for (group, stats) in stats.chunks_mut(2 * GROUP).enumerate() {
                let i = i0 + group * GROUP;
                let rows = &mut p[group * GROUP * parts.score_stride..];
                match stats.len() / 2 {
                    GROUP => softmax::<S, GROUP>(s, rows, parts.score_stride, i + 1, shape.scale(), stats),
                    left => {
                        for r in 0..left {
                            let row = &mut rows[r * parts.score_stride..];
                            let stats = &mut stats[2 * r..][..2];
                            softmax::<S, 1>(s, row, parts.score_stride, i + r + 1, shape.scale(), stats);
                        }
                    }
                }
            }
            for r in (i0..i1).step_by(CHUNK) {
                let m = CHUNK.min(i1 - r);
                let a = Left::Rows { data: &p[(r - i0) * parts.score_stride..], stride: parts.score_stride };
                // SAFETY: P holds m rows of r + m columns, qkv r + m <= t rows that may be read 16 numbers past
                // their end, out m rows of d numbers from column head * d.
                unsafe {
                    let c = out.as_mut_ptr().add(r * shape.out_stride + head * d);
                    product(s, a, qkv.as_ptr().add(v), ld, m, d, r + m, Init::Zero, c, shape.out_stride);
                }
            }
        }
    }
}

dispatch! {
    /// The backward pass: `qkv` becomes its gradient, given `out`, `stats` and `dout` = d loss / d out.
    pub fn attention_backward(shape: &AttentionShape, qkv: &mut [f32], out: &[f32], dout: &[f32], stats: &[f32], scratch: &mut [f32]) = backward;
}

#[inline(always)]
fn backward<S: Simd>(
    s: S,
    shape: &AttentionShape,
    qkv: &mut [f32],
    out: &[f32],
    dout: &[f32],
    stats: &[f32],
    scratch: &mut [f32],
) {
    shape.check(qkv.len(), out.len().min(dout.len()), stats.len(), scratch.len());
    let (t, d, width) = (shape.positions, shape.head_size, shape.heads * shape.head_size);
    let (ld, lo) = (shape.qkv_stride, shape.out_stride);
    let parts = Parts::of(shape);
    let (ls, lh) = (parts.score_stride, parts.head_stride);
    let (keys, rest) = scratch.split_at_mut(parts.values);
    let (values, rest) = rest.split_at_mut(parts.p - parts.values);
    let (p, rest) = rest.split_at_mut(parts.ds - parts.p);
    let (ds, dk) = rest.split_at_mut(parts.dk - parts.ds);
    let scale = shape.scale();
    for head in 0..shape.heads {
        let (q, k, v, o) = (head * d, width + head * d, 2 * width + head * d, head * d);
        pack_columns_generic(s, &qkv[k..], ld, (0, 0), (d, t), (d, t), keys);
        pack_columns_generic(s, &qkv[v..], ld, (0, 0), (d, t), (d, t), values);
        for i0 in (0..t).step_by(QUERIES) {
            let i1 = (i0 + QUERIES).min(t);
            scores(s, &qkv[q..], ld, keys, i0, i1, t, d, p, ls);
            scores(s, &dout[o..], lo, values, i0, i1, t, d, ds, ls);
            let stats = &stats[2 * (head * t + i0)..2 * (head * t + i1)];
            for (group, stats) in stats.chunks(2 * GROUP).enumerate() {
                let i = i0 + group * GROUP;
                let (p, ds) = (&mut p[group * GROUP * ls..], &mut ds[group * GROUP * ls..]);
                let (dout, out) = (&dout[i * lo + o..], &out[i * lo + o..]);
                match stats.len() / 2 {
                    GROUP => {
                        softmax_gradient::<S, GROUP>(s, p, ds, ls, i + 1, stats, scale, dout, out, lo, d)
                    }
                    left => {
                        for r in 0..left {
                            let (p, ds) = (&mut p[r * ls..], &mut ds[r * ls..]);
                            let (dout, out) = (&dout[r * lo..], &out[r * lo..]);
                            let stats = &stats[2 * r..][..2];
                            softmax_gradient::<S, 1>(s, p, ds, ls, i + r + 1, stats, scale, dout, out, lo, d);
                        }
                    }
                }
            }
            for j in (0..i1).step_by(CHUNK) {
                let m = CHUNK.min(i1 - j);
                // Rows before j have no share in key j: the mask.
                let from = i0.max(j);
                let init = if j >= i0 { Init::Zero } else { Init::Accumulate };
                let columns = |x| Left::Columns { data: x, stride: ls };
                // SAFETY: P and dS hold rows from..i1 and columns j..j + m of the block; dout and qkv hold rows
                // from..i1, readable 16 numbers past their end; dV m rows of d numbers in place of V, which `values` holds, dk as many.
                unsafe {
                    let a = columns(&p[(from - i0) * ls + j..]);
                    let c = qkv.as_mut_ptr().add(j * ld + v);
                    product(s, a, dout.as_ptr().add(from * lo + o), lo, m, d, i1 - from, init, c, ld);
                    let a = columns(&ds[(from - i0) * ls + j..]);
                    let c = dk.as_mut_ptr().add(j * lh);
                    product(s, a, qkv.as_ptr().add(from * ld + q), ld, m, d, i1 - from, init, c, lh);
                }
            }
            for r in (i0..i1).step_by(CHUNK) {
                let m = CHUNK.min(i1 - r);
                let a = Left::Rows { data: &ds[(r - i0) * ls..], stride: ls };
                // SAFETY: dS holds m rows of r + m columns, qkv r + m <= t rows readable 16 numbers past their end. dQ takes the place
                // of the queries of these rows, which dK above has read and no other block reads.
                unsafe {
                    let c = qkv.as_mut_ptr().add(r * ld + q);
                    product(s, a, qkv.as_ptr().add(k), ld, m, d, r + m, Init::Zero, c, ld);
                }
            }
        }
        for i in 0..t {
            copy(s, &dk[i * lh..][..d], &mut qkv[i * ld + k..][..d]);
        }
    }
}

/// C = A B (+ C) for B [k, n] as rows `b_stride` apart that may be read past column n.
///
/// # Safety
/// A holds [m, k]; k rows of B may be read up to the next multiple of LANES past n; C holds [m, n].
#[inline(always)]
unsafe fn product<S: Simd>(
    s: S,
    a: Left<'_>,
    b: *const f32,
    b_stride: usize,
    m: usize,
    n: usize,
    k: usize,
    init: Init<'_>,
    c: *mut f32,
    c_stride: usize,
) {
    for (first, width) in panels(n.div_ceil(S::LANES), S::TILE.1) {
        let column = first * S::LANES;
        // SAFETY: the caller's promise.
        unsafe {
            let (b, c) = (b.add(column), c.add(column));
            let operands = Single { a, b, b_stride, k };
            panel(s, width, operands, m, n - column, init, c, c_stride, Lines::Nothing);
        }
    }
}

/// Rows i0..i1 of A B^T without scale, for the columns that the causal mask leaves (and some more): A [t, d] as rows
/// `stride` apart, B packed [d, t]; `out` [i1 - i0, t].
#[inline(always)]
fn scores<S: Simd>(
    s: S,
    a: &[f32],
    stride: usize,
    packed: &[f32],
    i0: usize,
    i1: usize,
    t: usize,
    d: usize,
    out: &mut [f32],
    out_stride: usize,
) {
    assert!(a.len() >= (i1 - 1) * stride + d && out.len() >= (i1 - i0) * out_stride);
    for (first, width) in panels(t.div_ceil(S::LANES), S::TILE.1) {
        let column = first * S::LANES;
        if column >= i1 {
            break;
        }
        // Rows before the next vector's first column see only the vectors before it.
        for needed in 1..=width {
            let from = i0.max(column + (needed - 1) * S::LANES);
            let to = if needed == width { i1 } else { i1.min(column + needed * S::LANES) };
            if from >= to {
                continue;
            }
            // SAFETY: rows from..to of A hold d numbers, asserted; the panel lies in `packed` (d * t padded numbers);
            // rows of `out` hold at least t rounded up to a vector, since out_stride is padded(t).
            unsafe {
                let rows = Left::Rows { data: &a[from * stride..], stride };
                let b = packed.as_ptr().add(column * d);
                let c = out.as_mut_ptr().add((from - i0) * out_stride + column);
                let (b_stride, valid) = (width * S::LANES, needed * S::LANES);
                let m = to - from;
                let operands = Single { a: rows, b, b_stride, k: d };
                panel(s, needed, operands, m, valid, Init::Zero, c, out_stride, Lines::Nothing);
            }
        }
    }
}

/// R rows of scores, `stride` apart, become probabilities: the first over its first `n` columns, the next over one more, and so
/// on, with zeros behind them up to the end of the chunk. `stats` [R, 2] gets the largest scaled score of each and the inverse of its sum
/// of exponentials.
///
/// The rows end in the same vector: R is 1, or [`GROUP`] with n - 1 a multiple of it. Each waits for its largest score, for the sum of
/// all exponentials, for a division; side by side they wait together.
#[inline(always)]
fn softmax<S: Simd, const R: usize>(
    s: S,
    rows: &mut [f32],
    stride: usize,
    n: usize,
    scale: f32,
    stats: &mut [f32],
) {
    const { assert!(S::LANES.is_multiple_of(GROUP)) };
    assert!(rows.len() >= R * stride && n + R - 1 + 16 <= stride && stats.len() == 2 * R);
    let factor = s.splat(scale);
    let columns = (0..n).step_by(S::LANES);
    // SAFETY: vectors from j < n end before n + LANES <= stride, asserted.
    unsafe {
        let start = rows.as_mut_ptr();
        let at = |r: usize, j: usize| start.add(r * stride + j);
        let mut largest = [s.splat(f32::NEG_INFINITY); R];
        for j in columns.clone() {
            for r in 0..R {
                let x = s.mul(s.load(at(r, j)), factor);
                // A NaN may get lost here; it reaches the loss through the sum below.
                largest[r] = s.max(largest[r], s.select_first(n + r - j, x, largest[r]));
            }
        }
        let mut shift = largest;
        for r in 0..R {
            stats[2 * r] = s.largest(largest[r]);
            shift[r] = s.splat(stats[2 * r]);
        }
        let mut sum = [s.splat(0.0); R];
        for j in columns.clone() {
            for r in 0..R {
                let e = s.exp(s.sub(s.mul(s.load(at(r, j)), factor), shift[r]));
                let e = s.select_first(n + r - j, e, s.splat(0.0));
                s.store(at(r, j), e);
                sum[r] = s.add(sum[r], e);
            }
        }
        let mut factor = sum;
        for r in 0..R {
            stats[2 * r + 1] = 1.0 / s.sum(sum[r]);
            factor[r] = s.splat(stats[2 * r + 1]);
        }
        for j in columns {
            for r in 0..R {
                s.store(at(r, j), s.mul(s.load(at(r, j)), factor[r]));
            }
        }
        for r in 0..R {
            clear_chunk(s, &mut rows[r * stride..][..stride], n + r);
        }
    }
}

/// Zeros from the end of the vector that holds column n - 1 to the end of the chunk: tiles read whole chunks.
#[inline(always)]
fn clear_chunk<S: Simd>(s: S, row: &mut [f32], n: usize) {
    for j in (n.next_multiple_of(S::LANES)..n.next_multiple_of(CHUNK)).step_by(S::LANES) {
        // SAFETY: a row holds more than n + CHUNK + LANES numbers (`padded`), and LANES < CHUNK where this runs.
        unsafe { s.store(row.as_mut_ptr().add(j), s.splat(0.0)) };
    }
}

/// R rows of scores in `p` become probabilities, products dO V^T in `ds` become scaled score gradients; zeros behind
/// the first `n` columns of the first row, one more of the next, in both, as in [`softmax`], which has made the `stats`. dO and O have rows of
/// d numbers `lo` apart; rowsum(dP o P) = dO . O.
#[inline(always)]
fn softmax_gradient<S: Simd, const R: usize>(
    s: S,
    p: &mut [f32],
    ds: &mut [f32],
    stride: usize,
    n: usize,
    stats: &[f32],
    scale: f32,
    dout: &[f32],
    out: &[f32],
    lo: usize,
    d: usize,
) {
    assert!(p.len().min(ds.len()) >= R * stride && n + R - 1 + 16 <= stride && stats.len() == 2 * R);
    assert!(dout.len().min(out.len()) >= (R - 1) * lo + d);
    let factor = s.splat(scale);
    let (p_start, ds_start) = (p.as_mut_ptr(), ds.as_mut_ptr());
    // SAFETY: as in `softmax`; rows of out and dout hold d numbers, asserted.
    unsafe {
        let mut dot = [s.splat(0.0); R];
        for j in (0..d).step_by(S::LANES) {
            for r in 0..R {
                let x = s.load_upto(dout.as_ptr().add(r * lo + j), d - j);
                dot[r] = s.mul_add(x, s.load_upto(out.as_ptr().add(r * lo + j), d - j), dot[r]);
            }
        }
        for r in 0..R {
            dot[r] = s.splat(s.sum(dot[r]));
        }
        for j in (0..n).step_by(S::LANES) {
            for r in 0..R {
                let (shift, norm) = (s.splat(stats[2 * r]), s.splat(stats[2 * r + 1]));
                let (pp, pd) = (p_start.add(r * stride + j), ds_start.add(r * stride + j));
                let e = s.mul(s.exp(s.sub(s.mul(s.load(pp), factor), shift)), norm);
                let g = s.mul(s.mul(e, s.sub(s.load(pd), dot[r])), factor);
                s.store(pp, s.select_first(n + r - j, e, s.splat(0.0)));
                s.store(pd, s.select_first(n + r - j, g, s.splat(0.0)));
            }
        }
    }
    for r in 0..R {
        clear_chunk(s, &mut p[r * stride..][..stride], n + r);
        clear_chunk(s, &mut ds[r * stride..][..stride], n + r);
    }
}

#[inline(always)]
fn copy<S: Simd>(s: S, from: &[f32], to: &mut [f32]) {
    let n = to.len();
    assert!(from.len() >= n);
    for j in (0..n).step_by(S::LANES) {
        // SAFETY: j < n, the length of both.
        unsafe { s.store_upto(to.as_mut_ptr().add(j), s.load_upto(from.as_ptr().add(j), n - j), n - j) };
    }
}

dispatch! {
    /// Attention of one new position over the `length` positions in a cache (itself among them): `qkv` holds its
    /// query in the first H d numbers, keys and values [length, H d] have row stride `stride`; `out` [H d];
    /// `scratch` at least H (length + 1) numbers. Keys and values are read in the order in which they lie.
    pub fn attention_step(heads: usize, head_size: usize, query: &[f32], keys: &[f32], values: &[f32], stride: usize, length: usize, out: &mut [f32], scratch: &mut [f32]) = step;
}

#[inline(always)]
fn step<S: Simd>(
    s: S,
    heads: usize,
    head_size: usize,
    query: &[f32],
    keys: &[f32],
    values: &[f32],
    stride: usize,
    length: usize,
    out: &mut [f32],
    scratch: &mut [f32],
) {
    let d = extent(heads, head_size, head_size);
    assert!(length > 0 && stride >= d && query.len() >= d && out.len() >= d);
    assert!(keys.len().min(values.len()) >= extent(length, stride, d));
    let row = length + 1;
    // For each head its scores, then what they are divided by.
    let scratch = &mut scratch[..heads * row];
    let scale = 1.0 / (head_size as f32).sqrt();
    for i in 0..length {
        for head in 0..heads {
            let c = head * head_size;
            let mut dot = s.splat(0.0);
            for j in (0..head_size).step_by(S::LANES) {
                let left = head_size - j;
                // SAFETY: the head's columns of row i, asserted above.
                unsafe {
                    let q = s.load_upto(query.as_ptr().add(c + j), left);
                    dot = s.mul_add(q, s.load_upto(keys.as_ptr().add(i * stride + c + j), left), dot);
                }
            }
            scratch[head * row + i] = s.sum(dot) * scale;
        }
    }
    for scores in scratch.chunks_exact_mut(row) {
        let mut largest = f32::NEG_INFINITY;
        for &score in &scores[..length] {
            largest = if largest > score { largest } else { score };
        }
        let mut sum = s.splat(0.0);
        for j in (0..length).step_by(S::LANES) {
            // SAFETY: a head has `length` scores.
            unsafe {
                let p = scores.as_mut_ptr().add(j);
                let e = s.exp(s.sub(s.load_upto(p, length - j), s.splat(largest)));
                s.store_upto(p, e, length - j);
                sum = s.add(sum, s.load_upto(p, length - j));
            }
        }
        scores[length] = 1.0 / s.sum(sum);
    }
    out[..d].fill(0.0);
    for i in 0..length {
        for (head, scores) in scratch.chunks_exact(row).enumerate() {
            let (c, p) = (head * head_size, s.splat(scores[i]));
            for j in (0..head_size).step_by(S::LANES) {
                let left = head_size - j;
                // SAFETY: the head's columns of row i and of out, asserted above.
                unsafe {
                    let v = s.load_upto(values.as_ptr().add(i * stride + c + j), left);
                    let o = out.as_mut_ptr().add(c + j);
                    s.store_upto(o, s.mul_add(p, v, s.load_upto(o, left)), left);
                }
            }
        }
    }
    for (head, scores) in scratch.chunks_exact(row).enumerate() {
        let inverse = s.splat(scores[length]);
        for j in (0..head_size).step_by(S::LANES) {
            let left = head_size - j;
            // SAFETY: the head's columns of out.
            unsafe {
                let o = out.as_mut_ptr().add(head * head_size + j);
                s.store_upto(o, s.mul(s.load_upto(o, left), inverse), left);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::{assert_close, numbers};
    use diapason_reference::attention as plain;

    #[test]
    fn as_the_reference() {
        for isa in Isa::available() {
            for (t, heads, d) in [
                (1, 1, 1),
                (32, 2, 16),
                (7, 3, 5),
                (40, 1, 33),
                (32, 2, 32),
                (65, 2, 8),
                (150, 1, 64),
                (17, 4, 20),
            ] {
                let width = heads * d;
                let shape = AttentionShape {
                    positions: t,
                    heads,
                    head_size: d,
                    qkv_stride: padded(3 * width),
                    out_stride: padded(width),
                };
                let (ld, lo) = (shape.qkv_stride, shape.out_stride);
                let start: Vec<f32> = numbers(1, t * ld).iter().map(|x| 2.0 * x).collect();
                let mut qkv = start.clone();
                let mut out = vec![7.0; t * lo];
                let mut stats = vec![0.0; 2 * heads * t];
                let mut scratch = vec![f32::NAN; attention_scratch(&shape)];
                attention_forward(isa, &shape, &qkv, &mut out, &mut stats, &mut scratch);
                let part = |x: &[f32], ld: usize, from: usize| -> Vec<f64> {
                    (0..t).flat_map(|i| x[i * ld + from..][..width].iter().map(|&x| f64::from(x))).collect()
                };
                let (q, k, v) = (part(&start, ld, 0), part(&start, ld, width), part(&start, ld, 2 * width));
                let (expected, p) = plain::forward(&q, &k, &v, t, heads);
                let narrow = |x: &[f64]| -> Vec<f32> { x.iter().map(|&x| x as f32).collect() };
                let what = format!("{isa} T {t}, {heads} heads of {d}");
                assert_close(&narrow(&part(&out, lo, 0)), &expected, 2e-6, &what);
                let dout = numbers(2, t * lo);
                attention_backward(isa, &shape, &mut qkv, &out, &dout, &stats, &mut scratch);
                let (dq, dk, dv) = plain::backward(&q, &k, &v, &p, &part(&dout, lo, 0), t, heads);
                assert_close(&narrow(&part(&qkv, ld, 0)), &dq, 5e-6, &format!("{what}: dq"));
                assert_close(&narrow(&part(&qkv, ld, width)), &dk, 5e-6, &format!("{what}: dk"));
                assert_close(&narrow(&part(&qkv, ld, 2 * width)), &dv, 5e-6, &format!("{what}: dv"));
                for i in 0..t {
                    assert_eq!(
                        qkv[i * ld + 3 * width..(i + 1) * ld],
                        start[i * ld + 3 * width..(i + 1) * ld]
                    );
                    assert!(out[i * lo + width..(i + 1) * lo].iter().all(|&x| x == 7.0));
                }
                // The last position again, over a cache.
                let mut last = vec![0.0; width];
                let query = &start[(t - 1) * ld..][..width];
                let mut scratch = vec![0.0; heads * (t + 1)];
                attention_step(
                    isa,
                    heads,
                    d,
                    query,
                    &start[width..],
                    &start[2 * width..],
                    ld,
                    t,
                    &mut last,
                    &mut scratch,
                );
                assert_close(&last, &expected[(t - 1) * width..], 2e-6, &format!("{what}: step"));
            }
        }
    }
}
