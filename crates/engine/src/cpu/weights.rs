//! The weight matrices, packed for the products: once a step, in both orientations.

use super::sizes::Sizes;
use diapason_kernels::{Isa, Packed, Part, Pool, Precision};
use diapason_model::Layout;
use std::ops::Range;

/// Matrices that share their input, at most.
const PARTS: usize = 3;

/// A matrix W [inputs, outputs], ready to multiply from the right. Query, key and value are one: they share their input;
/// and so are gate and up.
pub(super) struct Matrix {
    /// W, for Y = X W.
    pub forward: Packed,
    /// W transposed, for dX = dY W^T.
    pub backward: Packed,
    /// W in f32 where the others are not: for generation, when it has asked for it since the last change.
    single: Option<Packed>,
    /// Its place among the parameters.
    range: Range<usize>,
    inputs: usize,
    outputs: usize,
    /// How many matrices [inputs, outputs / parts] lie there one behind the other; W has them side by side.
    parts: usize,
    /// The parameters hold the transpose [outputs, inputs]: a tied embedding.
    transposed: bool,
}

impl Matrix {
    fn new(isa: Isa, precision: Precision, range: Range<usize>, inputs: usize, outputs: usize) -> Self {
        Self {
            forward: Packed::new(isa, precision, inputs, outputs),
            backward: Packed::new(isa, precision, outputs, inputs),
            single: None,
            range,
            inputs,
            outputs,
            parts: 1,
            transposed: false,
        }
    }

    /// What W and its transpose consist of; the last parts may be empty.
    fn parts<'a>(&self, parameters: &'a [f32]) -> [[Part<'a>; PARTS]; 2] {
        let (inputs, outputs) = (self.inputs, self.outputs / self.parts);
        let w = &parameters[self.range.clone()];
        let mut all = [[Part::new(&[], 0, (0, 0), (0, 0)); PARTS]; 2];
        if self.transposed {
            all[0][0] = Part::transposed(w, inputs, (0, 0), (inputs, outputs));
            all[1][0] = Part::new(w, inputs, (0, 0), (outputs, inputs));
            return all;
        }
        for (part, w) in w.chunks_exact(inputs * outputs).enumerate() {
            all[0][part] = Part::new(w, outputs, (0, part * outputs), (inputs, outputs));
            all[1][part] = Part::transposed(w, outputs, (part * outputs, 0), (outputs, inputs));
        }
        all
    }

    fn pack(&mut self, parameters: &[f32]) {
        let [forward, backward] = self.parts(parameters);
        self.forward.pack(&forward);
        self.backward.pack(&backward);
        self.single = None;
    }

    fn pack_single(&mut self, isa: Isa, parameters: &[f32]) {
        if self.single.is_none() {
            let mut single = Packed::new(isa, Precision::F32, self.inputs, self.outputs);
            single.pack(&self.parts(parameters)[0]);
            self.single = Some(single);
        }
    }

    /// W in f32, once [`Weights::pack_singles`] has been called.
    pub(super) fn single(&self) -> &Packed {
        self.single.as_ref().unwrap_or(&self.forward)
    }
}

/// Matrices of a block, in the order of [`Weights::matrices`]: query, key and value side by side [D, 3 D]; gate and up, if there is a gate,
/// likewise [D, 2 F].
pub(super) const QKV: usize = 0;
pub(super) const OUTPUT: usize = 1;
pub(super) const UP: usize = 2;
pub(super) const DOWN: usize = 3;
const PER_BLOCK: usize = 4;

/// All weight matrices.
pub(super) struct Weights {
    /// [`PER_BLOCK`] for each block, then the head.
    matrices: Vec<Matrix>,
}

impl Weights {
    pub(super) fn new(isa: Isa, s: &Sizes, layout: &Layout) -> Self {
        let (d, f) = (s.d, s.f);
        let matrix = |range, inputs, outputs| Matrix::new(isa, s.precision, range, inputs, outputs);
        let mut matrices = Vec::with_capacity(PER_BLOCK * s.l + 1);
        for block in &layout.blocks {
            let qkv = block.query.start..block.value.end;
            matrices.push(Matrix { parts: 3, ..matrix(qkv, d, 3 * d) });
            matrices.push(matrix(block.output.clone(), d, d));
            let parts = if block.gate.is_some() { 2 } else { 1 };
            matrices.push(Matrix { parts, ..matrix(block.gate_and_up(), d, s.up) });
            matrices.push(matrix(block.down.clone(), f, d));
        }
        matrices.push(match &layout.head {
            Some(range) => matrix(range.clone(), d, s.v),
            None => Matrix { transposed: true, ..matrix(layout.token_embedding.clone(), d, s.v) },
        });
        Self { matrices }
    }

    /// Bytes that [`Weights::new`] allocates.
    pub(super) fn bytes(s: &Sizes) -> usize {
        let both = |k, n| Packed::bytes(s.precision, k, n) + Packed::bytes(s.precision, n, k);
        s.l * (both(s.d, 3 * s.d) + both(s.d, s.d) + both(s.d, s.up) + both(s.f, s.d)) + both(s.d, s.v)
    }

    /// Packs all matrices.
    pub(super) fn pack<S: Send>(&mut self, parameters: &[f32], pool: &mut Pool, scratch: &mut [S]) {
        pool.for_each(&mut self.matrices, scratch, |_, matrix, _| matrix.pack(parameters));
    }

    /// Packs what generation reads, which is in f32 always, where that has not been done since the last [`Weights::pack`].
    pub(super) fn pack_singles<S: Send>(
        &mut self,
        isa: Isa,
        precision: Precision,
        parameters: &[f32],
        pool: &mut Pool,
        scratch: &mut [S],
    ) {
        if precision != Precision::F32 {
            pool.for_each(&mut self.matrices, scratch, |_, matrix, _| matrix.pack_single(isa, parameters));
        }
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
