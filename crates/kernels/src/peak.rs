//! The machine's limits: fused multiply-adds on registers only, and reading only.

use crate::isa::{dispatch, dispatch_pairs};
use crate::packed::Precision;
use crate::simd::{Integers, Simd};
use std::hint::black_box;

/// Sums kept at once: enough to hide the latency of any current multiplier, few enough for 16 registers.
const CHAINS: usize = 12;

/// Operations, two for each multiply-add, of one iteration of [`peak`], or of [`peak_of_pairs`] for half precision.
pub fn flop_per_peak_iteration(isa: crate::Isa, precision: Precision) -> f64 {
    let in_a_lane = match precision {
        Precision::F32 => 1,
        Precision::Half => 2,
    };
    (2 * in_a_lane * CHAINS * isa.lanes()) as f64
}

/// Vectors that [`read`] asks for at once.
const LOADS: usize = 8;

dispatch! {
    /// Reads `data` once with the widest loads and adds it up: from its begin to its end, or as four stretches `side_by_side`,
    /// whichever the processor foresees better.
    pub fn read(data: &[f32], side_by_side: bool) -> f32 = read_generic;
}

#[inline(always)]
fn read_generic<S: Simd>(s: S, data: &[f32], side_by_side: bool) -> f32 {
    if side_by_side { stretches::<S, 4, { LOADS / 4 }>(s, data) } else { stretches::<S, 1, LOADS>(s, data) }
}

/// Q stretches, U vectors of each at a time.
#[inline(always)]
fn stretches<S: Simd, const Q: usize, const U: usize>(s: S, data: &[f32]) -> f32 {
    let vectors = data.len() / Q / (U * S::LANES) * U;
    let len = vectors * S::LANES;
    let mut sums = [[s.splat(0.0); U]; Q];
    for at in (0..len).step_by(U * S::LANES) {
        for (q, sums) in sums.iter_mut().enumerate() {
            for (u, sum) in sums.iter_mut().enumerate() {
                // SAFETY: U vectors from `at` on lie inside of a stretch, Q stretches inside of the data.
                let x = unsafe { s.load(data.as_ptr().add(q * len + at + u * S::LANES)) };
                *sum = s.add(*sum, x);
            }
        }
    }
    let mut total = s.splat(0.0);
    for sum in sums.as_flattened() {
        total = s.add(total, *sum);
    }
    s.sum(total) + data[Q * len..].iter().sum::<f32>()
}

dispatch! {
    /// Runs `iterations` rounds of independent multiply-adds, one per chain and round, and nothing else.
    pub fn peak(iterations: u64) = generic;
}

#[inline(always)]
fn generic<S: Simd>(s: S, iterations: u64) {
    let mut sums = [s.splat(0.0); CHAINS];
    let x = s.splat(black_box(0.999));
    let y = s.splat(black_box(1e-3));
    for _ in 0..iterations {
        for sum in &mut sums {
            *sum = s.mul_add(*sum, x, y);
        }
    }
    let mut total = sums[0];
    for sum in &sums[1..] {
        total = s.add(total, *sum);
    }
    black_box(s.sum(total));
}

dispatch_pairs! {
    /// The same with products of 16-bit pairs, added up in 32 bits: what half precision is made of.
    pub fn peak_of_pairs(iterations: u64) = pairs_generic;
}

#[inline(always)]
fn pairs_generic<S: Integers>(s: S, iterations: u64) {
    let mut sums = [s.repeat(0); CHAINS];
    let (x, y) = (s.repeat(black_box(0x0003_0001)), s.repeat(black_box(0x0001_0002)));
    for _ in 0..iterations {
        for sum in &mut sums {
            *sum = s.dot(x, *sum, y);
        }
    }
    let largest = sums.iter().fold(s.splat(0.0), |largest, &sum| s.max(largest, s.convert(sum)));
    black_box(s.sum(largest));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn everything_is_read_once() {
        for isa in Isa::available() {
            for len in [0, 1, 127, 128, 129, 1000, 4099] {
                let data: Vec<f32> = (0..len).map(|i| (i % 7) as f32).collect();
                let sum: f32 = data.iter().sum();
                assert_eq!((read(isa, &data, false), read(isa, &data, true)), (sum, sum), "{isa} {len}");
            }
        }
    }
}
