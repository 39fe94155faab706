//! Rectangles of matrices that several threads may write at once.
//!
//! A weight gradient is dealt out in rectangles: a task computes one and updates the parameters under it. The
//! rectangles of one matrix share cache lines and slices but no element. [`BlockSet`] checks that once, when it is made; after that
//! [`crate::Pool::for_each_block`] can hand each task its rectangles without a lock.

use crate::extent;
use crate::gemm::Sheet;
use std::marker::PhantomData;

/// `rows` rows of `columns` numbers, `stride` apart, from `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Index of the first number.
    pub start: usize,
    /// Number of rows.
    pub rows: usize,
    /// Numbers in a row.
    pub columns: usize,
    /// From one row to the next.
    pub stride: usize,
}

/// Blocks that do not overlap.
#[derive(Clone, Debug)]
pub struct BlockSet {
    blocks: Vec<Block>,
    len: usize,
}

impl BlockSet {
    /// Checks that `blocks` lie inside of a vector of `len` numbers and share none of them.
    ///
    /// # Panics
    /// When they do not: a mistake of the caller.
    pub fn new(blocks: Vec<Block>, len: usize) -> Self {
        let mut spans: Vec<(usize, usize)> = blocks
            .iter()
            .flat_map(|b| {
                let end = extent(b.rows, b.stride, b.columns).checked_add(b.start);
                assert!(end.is_some_and(|end| end <= len), "a block lies outside of its vector");
                // Rows without a gap are one.
                let (rows, columns) =
                    if b.columns == b.stride { (1, b.rows * b.columns) } else { (b.rows, b.columns) };
                (0..rows).map(move |r| (b.start + r * b.stride, b.start + r * b.stride + columns))
            })
            .collect();
        spans.sort_unstable();
        assert!(spans.windows(2).all(|w| w[0].1 <= w[1].0), "blocks overlap");
        Self { blocks, len }
    }

    /// The blocks.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Length of the vectors that the blocks are cut from.
    pub(crate) fn vector_len(&self) -> usize {
        self.len
    }
}

/// Exclusive access to one block of a vector.
pub struct BlockMut<'a> {
    start: *mut f32,
    block: Block,
    lifetime: PhantomData<&'a mut [f32]>,
}

impl BlockMut<'_> {
    /// # Safety
    /// `vector` is valid for the whole vector for the lifetime, and nothing else touches the block's numbers.
    pub(crate) unsafe fn new(vector: *mut f32, block: Block) -> Self {
        Self { start: vector.wrapping_add(block.start), block, lifetime: PhantomData }
    }

    /// For a product that fetches it.
    pub fn sheet(&mut self) -> Sheet {
        let Block { rows, columns, stride, .. } = self.block;
        Sheet::new(self.row(0), stride, rows, columns)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.block.rows
    }

    /// Row `r`.
    pub fn row(&mut self, r: usize) -> &mut [f32] {
        assert!(r < self.block.rows);
        // SAFETY: inside of the block, which is ours alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(r * self.block.stride), self.block.columns) }
    }
}
