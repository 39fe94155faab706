//! The weight matrices, packed for the products: once a step, in both orientations.

use super::sizes::Sizes;
use diapason_kernels::{Isa, Packed, Pool};
use diapason_model::Layout;
use std::ops::Range;

/// A matrix W [inputs, outputs], ready to multiply from the right.
pub(super) struct Matrix {
    /// W, for Y = X W.
    pub forward: Packed,
    /// W transposed, for dX = dY W^T.
    pub backward: Packed,
    /// Its place among the parameters.
    range: Range<usize>,
    inputs: usize,
    outputs: usize,
    /// The parameters hold the transpose [outputs, inputs]: a tied embedding.
    transposed: bool,
}

impl Matrix {
    fn new(isa: Isa, range: Range<usize>, inputs: usize, outputs: usize, transposed: bool) -> Self {
        Self {
            forward: Packed::new(isa, inputs, outputs),
            backward: Packed::new(isa, outputs, inputs),
            range,
            inputs,
            outputs,
            transposed,
        }
    }

    fn pack(&mut self, parameters: &[f32]) {
        let (inputs, outputs) = (self.inputs, self.outputs);
        let w = &parameters[self.range.clone()];
        if self.transposed {
            self.forward.pack_transposed(w, inputs, inputs, outputs);
            self.backward.pack(w, inputs, outputs, inputs);
        } else {
            self.forward.pack(w, outputs, inputs, outputs);
            self.backward.pack_transposed(w, outputs, outputs, inputs);
        }
    }
}

/// Matrices of a block, in the order of [`Weights::matrices`].
pub(super) const QUERY: usize = 0;
pub(super) const KEY: usize = 1;
pub(super) const VALUE: usize = 2;
pub(super) const OUTPUT: usize = 3;
pub(super) const UP: usize = 4;
pub(super) const DOWN: usize = 5;
const PER_BLOCK: usize = 6;

/// All weight matrices.
pub(super) struct Weights {
    /// [`PER_BLOCK`] for each block, then the head.
    matrices: Vec<Matrix>,
}

impl Weights {
    pub(super) fn new(isa: Isa, s: &Sizes, layout: &Layout) -> Self {
        let (d, f) = (s.d, s.f);
        let mut matrices = Vec::with_capacity(PER_BLOCK * s.l + 1);
        for block in &layout.blocks {
            for (range, inputs, outputs) in [
                (&block.query, d, d),
                (&block.key, d, d),
                (&block.value, d, d),
                (&block.output, d, d),
                (&block.up, d, f),
                (&block.down, f, d),
            ] {
                matrices.push(Matrix::new(isa, range.clone(), inputs, outputs, false));
            }
        }
        let (range, tied) = match &layout.head {
            Some(range) => (range, false),
            None => (&layout.token_embedding, true),
        };
        matrices.push(Matrix::new(isa, range.clone(), d, s.v, tied));
        Self { matrices }
    }

    /// Bytes that [`Weights::new`] allocates.
    pub(super) fn bytes(s: &Sizes) -> usize {
        let both = |k, n| Packed::bytes(k, n) + Packed::bytes(n, k);
        s.l * (4 * both(s.d, s.d) + 2 * both(s.d, s.f)) + both(s.d, s.v)
    }

    /// Packs all matrices.
    pub(super) fn pack<S: Send>(&mut self, parameters: &[f32], pool: &mut Pool, scratch: &mut [S]) {
        pool.for_each(&mut self.matrices, scratch, |_, matrix, _| matrix.pack(parameters));
    }

    /// Matrix `which` of a block.
    pub(super) fn block(&self, block: usize, which: usize) -> &Matrix {
        &self.matrices[PER_BLOCK * block + which]
    }

    /// The output matrix [D, V].
    pub(super) fn head(&self) -> &Matrix {
        &self.matrices[self.matrices.len() - 1]
    }
}
