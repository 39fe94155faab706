//! Softmax and cross-entropy over rows of logits.
//!
//! loss = ln(sum_j e^(z_j - max)) + max - z_target; d loss / dz = softmax(z) - onehot(target). The logarithm is
//! `libm`'s in f64: one per position, and the same on every processor.

use crate::isa::dispatch;
use crate::simd::Simd;

dispatch! {
    /// `losses[r]`, nats, for `m` rows of `n` logits with row stride `stride`; `hits[r]`: whether the largest logit
    /// (the first of equals) is the target's.
    pub fn cross_entropy(logits: &[f32], n: usize, stride: usize, targets: &[u8], losses: &mut [f32], hits: &mut [bool]) = forward;
}

#[inline(always)]
fn forward<S: Simd>(
    s: S,
    logits: &[f32],
    n: usize,
    stride: usize,
    targets: &[u8],
    losses: &mut [f32],
    hits: &mut [bool],
) {
    let m = targets.len();
    assert!(n <= 256 && stride >= n && losses.len() >= m && hits.len() >= m);
    for r in 0..m {
        let row = &logits[r * stride..r * stride + n];
        let mut exponentials = [0.0; 256];
        let (largest, sum) = softmax_parts(s, row, &mut exponentials);
        let target = row[usize::from(targets[r])];
        losses[r] = loss(largest, sum, target);
        hits[r] = target >= largest && !row[..usize::from(targets[r])].contains(&target);
    }
}

dispatch! {
    /// The sum of the losses of all rows, and in place of the logits their gradient times `scale`. With `cap` c > 0 the logits are
    /// c tanh(x / c), and the gradient is that of x: times 1 - (logit / c)^2.
    pub fn cross_entropy_backward(logits: &mut [f32], n: usize, stride: usize, targets: &[u8], scale: f32, cap: f32) -> f64 = backward;
}

#[inline(always)]
fn backward<S: Simd>(
    s: S,
    logits: &mut [f32],
    n: usize,
    stride: usize,
    targets: &[u8],
    scale: f32,
    cap: f32,
) -> f64 {
    assert!(n <= 256 && stride >= n);
    let mut total = 0.0;
    let mut slopes = [1.0; 256];
    for (r, &target) in targets.iter().enumerate() {
        let row = &mut logits[r * stride..r * stride + n];
        let mut exponentials = [0.0; 256];
        let (largest, sum) = softmax_parts(s, row, &mut exponentials);
        let target = usize::from(target);
        total += f64::from(loss(largest, sum, row[target]));
        if cap > 0.0 {
            for (slope, &z) in slopes.iter_mut().zip(&*row) {
                *slope = 1.0 - (z / cap) * (z / cap);
            }
        }
        let factor = s.splat(scale / sum);
        for j in (0..n).step_by(S::LANES) {
            // SAFETY: j < n <= 256; a vector at j ends before 256 + LANES only if n - j < LANES, when n - j are used.
            unsafe {
                let e = s.load_upto(exponentials.as_ptr().add(j), n - j);
                s.store_upto(row.as_mut_ptr().add(j), s.mul(e, factor), n - j);
            }
        }
        row[target] -= scale;
        if cap > 0.0 {
            for (z, slope) in row.iter_mut().zip(slopes) {
                *z *= slope;
            }
        }
    }
    total
}

/// The largest logit, the sum of e^(z - largest), and those exponentials.
#[inline(always)]
fn softmax_parts<S: Simd>(s: S, row: &[f32], exponentials: &mut [f32; 256]) -> (f32, f32) {
    let n = row.len();
    // A NaN anywhere must end up in the loss: a comparison would pass over it.
    let mut largest = f32::NEG_INFINITY;
    for &z in row {
        largest = if z > largest || z.is_nan() { z } else { largest };
    }
    let shift = s.splat(largest);
    let mut sum = s.splat(0.0);
    for j in (0..n).step_by(S::LANES) {
        // SAFETY: j < n <= 256; the row is read and the array written for min(n - j, LANES) numbers.
        unsafe {
            let e = s.exp(s.sub(s.load_upto(row.as_ptr().add(j), n - j), shift));
            s.store_upto(exponentials.as_mut_ptr().add(j), e, n - j);
            sum = s.add(sum, s.load_upto(exponentials.as_ptr().add(j), n - j));
        }
    }
    (largest, s.sum(sum))
}

#[inline(always)]
fn loss(largest: f32, sum: f32, target: f32) -> f32 {
    (libm::log(f64::from(sum)) + f64::from(largest) - f64::from(target)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::{assert_close, numbers};

    #[test]
    fn as_in_f64() {
        for isa in Isa::available() {
            for (m, n) in [(3, 27), (2, 256), (4, 1), (2, 2), (1, 33)] {
                let stride = n + 3;
                let z: Vec<f32> = numbers(1, m * stride).iter().map(|x| x * 9.0).collect();
                let targets: Vec<u8> = (0..m).map(|r| (r * 7 % n) as u8).collect();
                let (mut losses, mut hits) = (vec![0.0; m], vec![false; m]);
                cross_entropy(isa, &z, n, stride, &targets, &mut losses, &mut hits);
                let mut dz = z.clone();
                let total = cross_entropy_backward(isa, &mut dz, n, stride, &targets, 0.5, 0.0);
                let (mut expected_total, mut expected) = (0.0, Vec::new());
                for r in 0..m {
                    let row: Vec<f64> = z[r * stride..r * stride + n].iter().map(|&x| f64::from(x)).collect();
                    let t = usize::from(targets[r]);
                    let sum: f64 = row.iter().map(|x| x.exp()).sum();
                    expected.push(sum.ln() - row[t]);
                    expected_total += expected[r];
                    let gradient: Vec<f64> =
                        (0..n).map(|j| 0.5 * (row[j].exp() / sum - f64::from(u8::from(j == t)))).collect();
                    assert_close(&dz[r * stride..r * stride + n], &gradient, 2e-7, "gradient");
                    // A cap multiplies each number by the slope of the tanh that its logit came from.
                    let cap = 10.0;
                    let mut capped = z[r * stride..r * stride + n].to_vec();
                    cross_entropy_backward(isa, &mut capped, n, n, &targets[r..=r], 0.5, cap);
                    let gradient: Vec<f64> = gradient
                        .iter()
                        .zip(&row)
                        .map(|(g, z)| g * (1.0 - (z / f64::from(cap)).powi(2)))
                        .collect();
                    assert_close(&capped, &gradient, 2e-7, "capped");
                    assert_eq!(hits[r], row.iter().all(|&x| x <= row[t]));
                }
                assert_close(&losses, &expected, 1e-6, "losses");
                assert!((total - expected_total).abs() < 1e-5 * expected_total.max(1.0));
            }
        }
    }

    #[test]
    fn first_of_equals_and_extremes() {
        for isa in Isa::available() {
            let (mut losses, mut hits) = ([0.0; 2], [false; 2]);
            cross_entropy(isa, &[1.0, 1.0, 1.0, 1.0], 2, 2, &[0, 1], &mut losses, &mut hits);
            assert_eq!(hits, [true, false]);
            cross_entropy(isa, &[1e30, -1e30, -1e30, 1e30], 2, 2, &[0, 0], &mut losses, &mut hits);
            assert_eq!(losses[0], 0.0);
            assert!(losses[1] > 1e30);
            for bad in [f32::NAN, f32::INFINITY] {
                for place in 0..2 {
                    let mut z = [0.0, 0.0];
                    z[place] = bad;
                    assert!(
                        !cross_entropy_backward(isa, &mut z, 2, 2, &[0], 1.0, 0.0).is_finite(),
                        "{isa} {bad} {place}"
                    );
                }
            }
        }
    }
}
