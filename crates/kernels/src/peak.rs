//! The machine's limit: fused multiply-adds on registers only.

use crate::isa::dispatch;
use crate::simd::Simd;
use std::hint::black_box;

/// Sums kept at once: enough to hide the latency of any current multiplier, few enough for 16 registers.
const CHAINS: usize = 12;

/// Floating-point operations of one iteration of [`peak`].
pub fn flop_per_peak_iteration(isa: crate::Isa) -> f64 {
    (2 * CHAINS * isa.lanes()) as f64
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
