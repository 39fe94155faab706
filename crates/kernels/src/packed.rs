//! The right operand of a product, packed into panels: see `gemm.rs` for what they are good for.

use crate::buffer::Buffer;
use crate::extent;
use crate::half;
use crate::isa::{Isa, dispatch};
use crate::simd::Simd;

/// In which numbers products are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// f32 throughout.
    F32,
    /// Operands rounded to integers of 12 bits with a common quantum for each chunk of 128 along k; sums exact within a chunk, f32 between
    /// chunks. See `half.rs`.
    Half,
}

impl Precision {
    /// Its name: `f32`, `half`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Half => "half",
        }
    }
}

/// A block of a matrix, and where its numbers are.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    source: &'a [f32],
    stride: usize,
    /// The source holds the block's transpose.
    transposed: bool,
    /// The block's first row and column in the matrix.
    at: (usize, usize),
    /// Rows and columns.
    size: (usize, usize),
}

impl<'a> Part<'a> {
    /// The block [rows, columns] = `size` whose first row and column are `at`, row-major in `source` with row stride `stride`.
    ///
    /// # Panics
    /// When the source is smaller than that: a mistake in the caller, never of a user.
    pub fn new(source: &'a [f32], stride: usize, at: (usize, usize), size: (usize, usize)) -> Self {
        assert!(source.len() >= extent(size.0, stride, size.1));
        Self { source, stride, transposed: false, at, size }
    }

    /// The same where `source` is the transpose, [columns, rows].
    ///
    /// # Panics
    /// When the source is smaller than that.
    pub fn transposed(source: &'a [f32], stride: usize, at: (usize, usize), size: (usize, usize)) -> Self {
        assert!(source.len() >= extent(size.1, stride, size.0));
        Self { source, stride, transposed: true, at, size }
    }

    /// How many numbers it has.
    pub(crate) fn len(&self) -> usize {
        self.size.0 * self.size.1
    }

    /// What this and the block [rows, columns] = `size` at `at` share, placed as in that one.
    pub(crate) fn within(self, at: (usize, usize), size: (usize, usize)) -> Option<Self> {
        let shared = |own: usize, len: usize, other: usize, most: usize| {
            let (from, to) = (own.max(other), (own + len).min(other + most));
            (from < to).then(|| (from, to - from))
        };
        let (row, rows) = shared(self.at.0, self.size.0, at.0, size.0)?;
        let (column, columns) = shared(self.at.1, self.size.1, at.1, size.1)?;
        let (r, c) = (row - self.at.0, column - self.at.1);
        let start = if self.transposed { c * self.stride + r } else { r * self.stride + c };
        Some(Self {
            source: &self.source[start..],
            at: (row - at.0, column - at.1),
            size: (rows, columns),
            ..self
        })
    }

    /// Writes it into the panels of a matrix of size `whole`.
    #[inline(always)]
    pub(crate) fn copy<S: Simd>(self, s: S, whole: (usize, usize), out: &mut [f32]) {
        let Self { source, stride, transposed, at, size } = self;
        if transposed {
            pack_columns_generic(s, source, stride, at, size, whole, out);
        } else {
            pack_rows_generic(s, source, stride, at, size, whole, out);
        }
    }
}

/// The right operand B [k, n] in panels: in f32, or rounded.
pub struct Packed {
    isa: Isa,
    precision: Precision,
    k: usize,
    n: usize,
    data: Buffer,
}

impl Packed {
    /// A matrix [k, n] of zeros.
    pub fn new(isa: Isa, precision: Precision, k: usize, n: usize) -> Self {
        let width = n.next_multiple_of(isa.lanes());
        let data = Buffer::zeroed(extent(Self::rows(precision, k), width, width));
        Self { isa, precision, k, n, data }
    }

    /// Rows of a panel for k rows.
    fn rows(precision: Precision, k: usize) -> usize {
        match precision {
            Precision::F32 => k,
            Precision::Half => half::packed_rows(k),
        }
    }

    /// Bytes that [`Packed::new`] allocates.
    pub fn bytes(precision: Precision, k: usize, n: usize) -> usize {
        4 * Self::rows(precision, k) * n.div_ceil(16) * 16
    }

    /// Packs a matrix that consists of `parts`.
    ///
    /// # Panics
    /// When a part lies outside of the matrix, or the parts are not the whole: a mistake in the caller, never of a user.
    pub fn pack(&mut self, parts: &[Part<'_>]) {
        for Part { at, size, .. } in parts {
            assert!(at.0 <= self.k && size.0 <= self.k - at.0, "rows outside of the matrix");
            assert!(at.1 <= self.n && size.1 <= self.n - at.1, "columns outside of the matrix");
        }
        assert_eq!(parts.iter().map(Part::len).sum::<usize>(), self.k * self.n, "the whole matrix");
        match self.precision {
            Precision::F32 => copy_parts(self.isa, parts, (self.k, self.n), &mut self.data),
            Precision::Half => half::round_parts(self.isa, parts, (self.k, self.n), &mut self.data),
        }
    }

    /// (k, n).
    pub(crate) fn shape(&self) -> (usize, usize) {
        (self.k, self.n)
    }

    /// In which numbers.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// The panels, as [`Packed::precision`] has them, for the instruction set that they were made for.
    pub(crate) fn data(&self, isa: Isa) -> &[f32] {
        assert_eq!(isa, self.isa);
        &self.data
    }
}

dispatch! {
    /// Copies the parts of a matrix into its panels; sizes checked by the caller.
    fn copy_parts(parts: &[Part<'_>], whole: (usize, usize), out: &mut [f32]) = copy_parts_generic;
}

#[inline(always)]
fn copy_parts_generic<S: Simd>(s: S, parts: &[Part<'_>], whole: (usize, usize), out: &mut [f32]) {
    for part in parts {
        part.copy(s, whole, out);
    }
}

/// The panels of a matrix of `vectors` vectors' width, of at most `most` (2 or 3) each: (first vector, number of vectors).
#[inline(always)]
pub(crate) fn panels(vectors: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let width = match vectors - at {
            0 => return None,
            // Four are two and two: one alone would wait for its own sums.
            4 => 2,
            left => left.min(most),
        };
        at += width;
        Some((at - width, width))
    })
}

/// Packs the block `size` at `at` of a matrix of size (k, n), row-major in `source`; sizes checked by the caller.
#[inline(always)]
fn pack_rows_generic<S: Simd>(
    s: S,
    source: &[f32],
    stride: usize,
    at: (usize, usize),
    size: (usize, usize),
    (k, n): (usize, usize),
    out: &mut [f32],
) {
    for (first, width) in panels(n.div_ceil(S::LANES), S::TILE.1) {
        let columns = width * S::LANES;
        let column = first * S::LANES;
        // The panel's columns that the block has.
        let from = column.max(at.1);
        let to = (column + columns).min(at.1 + size.1);
        for kk in 0..size.0 {
            let place = column * k + (at.0 + kk) * columns;
            for c in (from..to).step_by(S::LANES) {
                // The next panel's columns of this row: rows are too far apart for the processor to foresee it.
                s.prefetch(source.as_ptr().wrapping_add(kk * stride + c - at.1 + columns));
                // SAFETY: row kk of the source holds the columns from..to of the block; row at.0 + kk < k of the panel holds its
                // columns.
                unsafe {
                    let x = s.load_upto(source.as_ptr().add(kk * stride + c - at.1), to - c);
                    s.store_upto(out.as_mut_ptr().add(place + c - column), x, to - c);
                }
            }
        }
    }
}

/// As [`pack_rows_generic`], for the transpose of `source`.
#[inline(always)]
pub(crate) fn pack_columns_generic<S: Simd>(
    s: S,
    source: &[f32],
    stride: usize,
    at: (usize, usize),
    size: (usize, usize),
    (k, n): (usize, usize),
    out: &mut [f32],
) {
    for (first, width) in panels(n.div_ceil(S::LANES), S::TILE.1) {
        let columns = width * S::LANES;
        let column = first * S::LANES;
        let from = column.max(at.1);
        let to = (column + columns).min(at.1 + size.1);
        if from >= to {
            continue;
        }
        let panel = &mut out[column * k..(column + columns) * k];
        // Squares of 8 by 8 where both sides have them, single numbers at the edges.
        let (whole_k, whole_c) = (size.0 / 8 * 8, from + (to - from) / 8 * 8);
        for k0 in (0..whole_k).step_by(8) {
            for c in (from..whole_c).step_by(8) {
                // SAFETY: rows c - at.1 .. + 8 of the source hold size.0 numbers; the panel holds rows at.0 .. + size.0 of `columns`.
                unsafe {
                    let from = source.as_ptr().add((c - at.1) * stride + k0);
                    let to = panel.as_mut_ptr().add((at.0 + k0) * columns + c - column);
                    s.transpose8(from, stride, to, columns);
                }
            }
        }
        for kk in 0..size.0 {
            for c in if kk < whole_k { whole_c } else { from }..to {
                panel[(at.0 + kk) * columns + c - column] = source[(c - at.1) * stride + kk];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    #[test]
    fn a_matrix_packed_in_blocks_is_the_same() {
        for isa in Isa::available() {
            let (k, n) = (201, 131);
            let (b, bt) = (numbers(1, k * n), numbers(2, n * k));
            for transposed in [false, true] {
                let source = if transposed { &bt } else { &b };
                let part = |k0: usize, n0: usize, rows: usize, columns: usize| {
                    if transposed {
                        Part::transposed(&source[n0 * k + k0..], k, (k0, n0), (rows, columns))
                    } else {
                        Part::new(&source[k0 * n + n0..], n, (k0, n0), (rows, columns))
                    }
                };
                let mut blocks = Vec::new();
                for (k0, rows) in [(0, 13), (13, k - 13)] {
                    for (n0, columns) in [(0, 50), (50, 1), (51, 80)] {
                        blocks.push(part(k0, n0, rows, columns));
                    }
                }
                for precision in [Precision::F32, Precision::Half] {
                    let [whole, parts] = [&[part(0, 0, k, n)], &blocks[..]].map(|parts| {
                        let mut packed = Packed::new(isa, precision, k, n);
                        packed.pack(parts);
                        packed.data.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
                    });
                    assert_eq!(whole, parts, "{isa} {precision:?}");
                }
            }
        }
    }

    #[test]
    fn panels_cover_every_width() {
        for (most, vectors) in [2, 3].into_iter().flat_map(|most| (0..40).map(move |vectors| (most, vectors)))
        {
            let mut at = 0;
            for (first, width) in panels(vectors, most) {
                assert_eq!(first, at);
                assert!((1..=most).contains(&width) && (width > 1 || vectors == 1 || most == 2));
                at += width;
            }
            assert_eq!(at, vectors);
        }
    }
}
