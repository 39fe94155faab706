//! Dropout (Srivastava et al., 2014): in training each number is zero with probability p, the others grow to make up for it.
//!
//! Which are zero is decided by numbers at an address: (seed, dropout, update) names a stream, and (branch, position in the batch,
//! channel) a 16-bit number in it. Branches count from 0: attention and MLP of the first block, of the second, and so on. Channels go
//! in eights: number `(branch x positions + position) x eights + channel / 8` of the stream has 128 bits, of which channel c
//! has bits 16 (c mod 8) to 16 (c mod 8) + 15, as an integer u. It stays if u < round(65536 (1 - p)), times 65536 / that bound.

use crate::Float;
use diapason_random::Stream;

/// The factors of the numbers of a branch \[positions, D\]: 0 or 1 / (1 - p).
pub fn factors<F: Float>(stream: &Stream, p: f64, branch: usize, positions: usize, d_model: usize) -> Vec<F> {
    let bound = libm::round(65536.0 * (1.0 - p));
    let eights = d_model.div_ceil(8);
    let mut factors = Vec::with_capacity(positions * d_model);
    for position in 0..positions {
        for channel in 0..d_model {
            let at = (branch * positions + position) * eights + channel / 8;
            let word = stream.bits(at as u64)[channel % 8 / 2];
            let u = f64::from(if channel % 2 == 0 { word & 0xFFFF } else { word >> 16 });
            factors.push(F::from_f64(if u < bound { 65536.0 / bound } else { 0.0 }));
        }
    }
    factors
}
