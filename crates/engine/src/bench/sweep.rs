//! A table of shapes: how much of the peak a training step reaches where nobody tuned it.
//!
//! Widths, heads, depths, window lengths and batches over the range that people train such models in, among them sizes
//! that are no multiple of any vector's width. Cells whose step would take seconds are left out, so that the table
//! takes minutes.

use super::{Benchmark, benchmark};
use crate::api::{EngineError, Update};
use crate::cpu::Shape;
use diapason_kernels::Precision;
use diapason_model::ModelConfig;
use std::time::Duration;

/// The largest step in the table, floating-point operations.
const LARGEST: f64 = 200e9;

/// d_model, heads, layers.
const MODELS: [[usize; 3]; 16] = [
    [64, 1, 2],
    [64, 4, 4],
    [72, 4, 4],
    [100, 4, 4],
    [128, 2, 4],
    [128, 8, 2],
    [128, 4, 12],
    [200, 8, 4],
    [256, 4, 4],
    [256, 8, 4],
    [256, 16, 4],
    [256, 8, 12],
    [264, 8, 4],
    [384, 12, 4],
    [512, 8, 2],
    [512, 32, 4],
];

/// Windows of how many characters, and how many in a batch.
const SHAPES: [[usize; 2]; 9] =
    [[32, 8], [32, 64], [32, 256], [33, 62], [100, 20], [128, 16], [256, 8], [256, 32], [512, 8]];

/// One shape to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Heads.
    pub n_heads: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Positions of a window.
    pub sequence_length: usize,
    /// Windows in a batch.
    pub batch_size: usize,
}

impl Cell {
    /// The share of the peak that a step should reach at least: 65 % where the products are large enough, 40 % elsewhere.
    pub fn target(&self) -> f64 {
        let wide = self.d_model >= 128 && self.d_model / self.n_heads >= 16;
        let many = self.batch_size * self.sequence_length >= 1024 && self.sequence_length <= 256;
        if wide && many { 0.65 } else { 0.40 }
    }

    /// `base` with the cell's sizes.
    pub fn model(&self, base: &ModelConfig) -> ModelConfig {
        ModelConfig {
            d_model: self.d_model,
            n_heads: self.n_heads,
            n_layers: self.n_layers,
            max_len: base.max_len.max(self.sequence_length),
            ..*base
        }
    }

    /// The cell's batch.
    pub fn shape(&self) -> Shape {
        Shape { batch_size: self.batch_size, sequence_length: self.sequence_length }
    }
}

/// The table, row by row (a model), each from left to right (a batch).
pub fn cells(base: &ModelConfig) -> Vec<Cell> {
    let all = MODELS.iter().flat_map(|&[d_model, n_heads, n_layers]| {
        SHAPES.iter().map(move |&[sequence_length, batch_size]| Cell {
            d_model,
            n_heads,
            n_layers,
            sequence_length,
            batch_size,
        })
    });
    all.filter(|cell| {
        let positions = cell.batch_size * cell.sequence_length;
        cell.model(base).training_flop(positions, cell.sequence_length) <= LARGEST
    })
    .collect()
}

/// Measures one cell for about `duration`.
///
/// # Errors
/// As [`crate::CpuEngine::new`].
pub fn cell(
    cell: Cell,
    base: &ModelConfig,
    precision: Precision,
    threads: usize,
    duration: Duration,
) -> Result<Benchmark, EngineError> {
    let update = Update::default();
    benchmark(&cell.model(base), precision, cell.shape(), threads, &update, duration, &mut |_, _| {})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_spans_the_range() {
        let base = ModelConfig {
            vocabulary: 27,
            d_model: 256,
            n_heads: 8,
            n_layers: 4,
            mlp_ratio: 4.0,
            max_len: 128,
            tie_embeddings: false,
            ..ModelConfig::default()
        };
        let cells = cells(&base);
        for cell in &cells {
            assert!(cell.model(&base).validated().is_ok(), "{cell:?}");
            assert!((16..=64).contains(&(cell.d_model / cell.n_heads)), "{cell:?}");
        }
        let of = |f: fn(&Cell) -> usize| {
            (cells.iter().map(f).min().unwrap_or(0), cells.iter().map(f).max().unwrap_or(0))
        };
        assert_eq!(of(|c| c.d_model), (64, 512));
        assert_eq!(of(|c| c.n_layers), (2, 12));
        assert_eq!(of(|c| c.sequence_length), (32, 512));
        assert_eq!(of(|c| c.batch_size), (8, 256));
        assert!(cells.iter().any(|c| c.target() == 0.65) && cells.iter().any(|c| c.target() == 0.40));
    }
}
