//! What happens to queries and keys before attention: each head divided by the root of its mean square (Henry et al., 2020), then turned
//! by angles that grow with the position (Su et al., 2021).
//!
//! Rows hold [query | key | value], D numbers each; head h owns columns h d .. (h + 1) d of each part. Turning pairs channel i of a head with
//! channel i + half, half = d / 2 rounded down; `turns` holds for each position the cosines of its half angles, then the sines:
//! y[i] = x[i] cos - x[i + half] sin; y[i + half] = x[i + half] cos + x[i] sin. The last channel of an odd number stays.
//!
//! A rotation changes no lengths and no angles between vectors, so the backward pass of the norm, dx = rstd (dy - y mean(dy y)),
//! is done on what was turned, and turned back.

use crate::extent;
use crate::isa::dispatch;
use crate::rms_norm::reciprocal_root;
use crate::simd::Simd;

/// Which rows, and what is done to them.
#[derive(Clone, Copy, Debug)]
pub struct HeadShape<'a> {
    /// Rows: positions that follow each other.
    pub rows: usize,
    /// Position of the first row.
    pub first: usize,
    /// Heads H.
    pub heads: usize,
    /// Channels of a head d.
    pub head_size: usize,
    /// Row stride; at least 2 H d.
    pub stride: usize,
    /// Added to the mean square; none: no norm.
    pub epsilon: Option<f32>,
    /// Cosines and sines [positions, 2 half]; none: nothing is turned.
    pub turns: Option<&'a [f32]>,
}

impl HeadShape<'_> {
    fn check(&self, matrices: &[&[f32]], rstd: usize) {
        let width = extent(2 * self.heads, self.head_size, self.head_size);
        assert!(self.stride >= width);
        assert!(matrices.iter().all(|x| x.len() >= extent(self.rows, self.stride, width)));
        assert!(self.epsilon.is_none() || rstd >= 2 * self.heads * self.rows);
        let pairs = 2 * (self.head_size / 2);
        assert!(self.turns.is_none_or(|turns| turns.len() >= (self.first + self.rows) * pairs));
    }
}

dispatch! {
    /// Queries and keys in `qkv`, in place; the norm keeps `rstd` [rows, 2 H].
    pub fn queries_keys(shape: &HeadShape<'_>, qkv: &mut [f32], rstd: &mut [f32]) = forward;
}

#[inline(always)]
fn forward<S: Simd>(s: S, shape: &HeadShape<'_>, qkv: &mut [f32], rstd: &mut [f32]) {
    shape.check(&[qkv], rstd.len());
    let d = shape.head_size;
    let heads = 2 * shape.heads;
    if let Some(epsilon) = shape.epsilon {
        for r in 0..shape.rows {
            for head in 0..heads {
                // SAFETY: the head's d numbers in row r, checked.
                unsafe {
                    let x = qkv.as_mut_ptr().add(r * shape.stride + head * d);
                    let root = reciprocal_root(s, x, d, epsilon);
                    rstd[r * heads + head] = root;
                    for j in (0..d).step_by(S::LANES) {
                        s.store_upto(x.add(j), s.mul(s.load_upto(x.add(j), d - j), s.splat(root)), d - j);
                    }
                }
            }
        }
    }
    if let Some(turns) = shape.turns {
        turn::<S, false>(s, shape, turns, qkv);
    }
}

/// Turns both parts of all rows, or turns them back.
#[inline(always)]
fn turn<S: Simd, const BACK: bool>(s: S, shape: &HeadShape<'_>, turns: &[f32], qkv: &mut [f32]) {
    let half = shape.head_size / 2;
    for r in 0..shape.rows {
        for head in 0..2 * shape.heads {
            for j in (0..half).step_by(S::LANES) {
                let left = half - j;
                // SAFETY: the head's numbers in row r and the position's in `turns`, checked.
                unsafe {
                    let cos = turns.as_ptr().add((shape.first + r) * 2 * half + j);
                    let (cos, sin) = (s.load_upto(cos, left), s.load_upto(cos.add(half), left));
                    let sin = if BACK { s.sub(s.splat(0.0), sin) } else { sin };
                    let p = qkv.as_mut_ptr().add(r * shape.stride + head * shape.head_size + j);
                    let (a, b) = (s.load_upto(p, left), s.load_upto(p.add(half), left));
                    s.store_upto(p, s.neg_mul_add(b, sin, s.mul(a, cos)), left);
                    s.store_upto(p.add(half), s.mul_add(a, sin, s.mul(b, cos)), left);
                }
            }
        }
    }
}

dispatch! {
    /// The backward pass, in place: the gradients in `dqkv` of what [`queries_keys`] gave become those of what it took. `after` holds what
    /// it gave, with the same stride, and is not read without a norm.
    pub fn queries_keys_backward(shape: &HeadShape<'_>, after: &[f32], rstd: &[f32], dqkv: &mut [f32]) = backward;
}

#[inline(always)]
fn backward<S: Simd>(s: S, shape: &HeadShape<'_>, after: &[f32], rstd: &[f32], dqkv: &mut [f32]) {
    shape.check(&[dqkv], rstd.len());
    let d = shape.head_size;
    let heads = 2 * shape.heads;
    if shape.epsilon.is_some() {
        shape.check(&[after], rstd.len());
        for r in 0..shape.rows {
            for head in 0..heads {
                // SAFETY: the head's d numbers in row r of both, checked.
                unsafe {
                    let at = r * shape.stride + head * d;
                    let (y, g) = (after.as_ptr().add(at), dqkv.as_mut_ptr().add(at));
                    let mut dot = s.splat(0.0);
                    for j in (0..d).step_by(S::LANES) {
                        dot = s.mul_add(s.load_upto(g.add(j), d - j), s.load_upto(y.add(j), d - j), dot);
                    }
                    let mean = s.splat(s.sum(dot) * (1.0 / d as f32));
                    let root = s.splat(rstd[r * heads + head]);
                    for j in (0..d).step_by(S::LANES) {
                        let left = d - j;
                        let e = s.neg_mul_add(s.load_upto(y.add(j), left), mean, s.load_upto(g.add(j), left));
                        s.store_upto(g.add(j), s.mul(e, root), left);
                    }
                }
            }
        }
    }
    if let Some(turns) = shape.turns {
        turn::<S, true>(s, shape, turns, dqkv);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::{assert_close, numbers};
    use diapason_reference::{positions, rms_norm};

    #[test]
    fn as_the_reference() {
        for isa in Isa::available() {
            for (t, heads, d, pad) in
                [(5, 2, 32, 16), (3, 3, 5, 0), (1, 1, 1, 4), (9, 1, 66, 1), (4, 2, 2, 0)]
            {
                let (width, half) = (heads * d, d / 2);
                let stride = 3 * width + pad;
                let mut turns = Vec::new();
                for p in 0..t {
                    let angle = |i: usize| p as f64 / 10_000f64.powf(i as f64 / half as f64);
                    turns.extend((0..half).map(|i| angle(i).cos() as f32));
                    turns.extend((0..half).map(|i| angle(i).sin() as f32));
                }
                let (qkv, dqkv) = (numbers(1, t * stride), numbers(2, t * stride));
                for (epsilon, turns) in
                    [(None, Some(&turns[..])), (Some(1e-6), None), (Some(1e-6), Some(&turns[..]))]
                {
                    let shape = HeadShape { rows: t, first: 0, heads, head_size: d, stride, epsilon, turns };
                    let (mut after, mut rstd) = (qkv.clone(), vec![0.0; 2 * heads * t]);
                    queries_keys(isa, &shape, &mut after, &mut rstd);
                    let mut before = dqkv.clone();
                    queries_keys_backward(isa, &shape, &after, &rstd, &mut before);
                    let part = |x: &[f32], at: usize| -> Vec<f64> {
                        (0..t)
                            .flat_map(|i| x[i * stride + at..][..width].iter().map(|&x| f64::from(x)))
                            .collect()
                    };
                    let narrow = |x: &[f64]| -> Vec<f32> { x.iter().map(|&x| x as f32).collect() };
                    for at in [0, width] {
                        let what = format!("{isa} T {t}, {heads} heads of {d}, {epsilon:?}, at {at}");
                        let x = part(&qkv, at);
                        let mut y = if epsilon.is_some() { rms_norm::forward(&x, d) } else { x.clone() };
                        let mut g = part(&dqkv, at);
                        if turns.is_some() {
                            y = positions::rotary_forward(&y, t, width, heads);
                            g = positions::rotary_backward(&g, t, width, heads);
                        }
                        if epsilon.is_some() {
                            g = rms_norm::backward(&x, d, &g);
                        }
                        assert_close(&narrow(&part(&after, at)), &y, 1e-6, &what);
                        assert_close(&narrow(&part(&before, at)), &g, 5e-6, &what);
                    }
                    for i in 0..t {
                        let rest = i * stride + 2 * width..(i + 1) * stride;
                        assert_eq!(after[rest.clone()], qkv[rest.clone()]);
                        assert_eq!(before[rest.clone()], dqkv[rest]);
                    }
                    // A row alone, at its position.
                    let row = t - 1;
                    let mut alone = qkv[row * stride..].to_vec();
                    let shape = HeadShape { rows: 1, first: row, ..shape };
                    queries_keys(isa, &shape, &mut alone, &mut rstd);
                    assert_eq!(alone, after[row * stride..]);
                }
            }
        }
    }
}
