//! Which outputs of a branch are left out in training (Srivastava et al., 2014), and by what the others grow.
//!
//! Every number is decided by 16 random bits at an address: (seed, dropout, update) names a stream, the branch, the position in the batch
//! and the channel a place in it. Nothing is kept between forward and backward, nothing depends on how the batch was cut, and a run that
//! goes on at update n needs n alone.

use diapason_random::Stream;

/// Channels that one draw of 128 bits decides.
const AT_ONCE: usize = 8;

/// The masks of one batch.
#[derive(Clone, Copy)]
pub(super) struct Masks {
    stream: Stream,
    /// A number stays if its 16 bits are below this.
    bound: u32,
    /// 65536 / bound: the sums stay what they are, on average.
    factor: f32,
    /// Positions in the batch.
    positions: usize,
}

impl Masks {
    /// None where nothing is left out.
    pub(super) fn new(stream: Stream, dropout: f64, positions: usize) -> Option<Self> {
        let bound = libm::round(65536.0 * (1.0 - dropout)) as u32;
        let factor = (65536.0 / f64::from(bound)) as f32;
        (dropout > 0.0).then_some(Self { stream, bound, factor, positions })
    }

    /// x [n, D] += what is left of the branch's output y; row 0 is position `first` of the batch, both have row stride `stride`.
    pub(super) fn add(
        &self,
        branch: usize,
        first: usize,
        (n, d, stride): (usize, usize, usize),
        y: &[f32],
        x: &mut [f32],
    ) {
        self.rows(branch, first, (n, d, stride), x, |at, factor, x| *x += y[at] * factor);
    }

    /// The backward pass: `dy` becomes the gradient of the branch's output, `dx` being that of the sum.
    pub(super) fn backward(
        &self,
        branch: usize,
        first: usize,
        (n, d, stride): (usize, usize, usize),
        dx: &[f32],
        dy: &mut [f32],
    ) {
        self.rows(branch, first, (n, d, stride), dy, |at, factor, dy| *dy = dx[at] * factor);
    }

    /// Calls `each(index, factor, number)` for the n x D numbers of `out`.
    fn rows(
        &self,
        branch: usize,
        first: usize,
        (n, d, stride): (usize, usize, usize),
        out: &mut [f32],
        each: impl Fn(usize, f32, &mut f32),
    ) {
        let draws = d.div_ceil(AT_ONCE);
        for r in 0..n {
            let place = (branch * self.positions + first + r) * draws;
            let row = &mut out[r * stride..][..d];
            for (draw, numbers) in row.chunks_mut(AT_ONCE).enumerate() {
                let bits = self.stream.bits((place + draw) as u64);
                for (c, number) in numbers.iter_mut().enumerate() {
                    let half = (bits[c / 2] >> (16 * (c % 2))) & 0xFFFF;
                    let factor = if half < self.bound { self.factor } else { 0.0 };
                    each(r * stride + draw * AT_ONCE + c, factor, number);
                }
            }
        }
    }
}
