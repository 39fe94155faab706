//! The numeric loops of the CPU engine.
//!
//! Functions over slices, each with its formula; they know shapes, not models. Every kernel is written once over
//! a vector type (`simd`) and compiled for each instruction set ([`Isa`]); a thread pool deals out items of
//! work ([`Pool`]). This is the only crate with `unsafe`: public functions are safe and check their operands.

mod activation;
mod adam;
mod attention;
mod blocks;
mod buffer;
mod cross_entropy;
mod few;
mod gelu;
mod gemm;
mod half;
mod isa;
mod layer_norm;
mod lion;
mod mixture;
mod orthogonal;
mod packed;
mod peak;
mod pool;
mod queries_keys;
mod rms_norm;
mod simd;
mod softcap;
mod symmetric;
#[cfg(test)]
mod testing;
mod vector;

pub use activation::{Activation, activate, activate_backward};
pub use adam::{AdamUpdate, adam};
pub use attention::{
    AttentionShape, attention_backward, attention_forward, attention_scratch, attention_step,
};
pub use blocks::{Block, BlockMut, BlockSet};
pub use buffer::Buffer;
pub use cross_entropy::{cross_entropy, cross_entropy_backward};
pub use few::gemm_few;
pub use gemm::{Init, Sheet, Stretch, gemm, gemm_transposed, padded};
pub use half::{gemm_transposed_half, half_rows_len, round_columns, rounded_rows};
pub use isa::Isa;
pub use layer_norm::{layer_norm, layer_norm_backward};
pub use lion::{LionUpdate, lion};
pub use mixture::{mix, mix_backward};
pub use orthogonal::{MuonUpdate, OrthogonalScratch, look_ahead, muon, muon_flop};
pub use packed::{Packed, Part, Precision};
pub use peak::{flop_per_peak_iteration, peak, peak_of_pairs, read};
pub use pool::Pool;
pub use queries_keys::{HeadShape, queries_keys, queries_keys_backward};
pub use rms_norm::{rms_norm, rms_norm_backward};
pub use softcap::softcap;
pub use vector::{add, add_rows, add_squares, approach, multiply, scale, sum_of_squares};

/// Numbers from the first of row 0 to the last of row `rows` - 1, for rows of `columns` numbers `stride` apart.
///
/// # Panics
/// When that is more than a vector can hold: a mistake of the caller.
#[inline(always)]
fn extent(rows: usize, stride: usize, columns: usize) -> usize {
    if rows == 0 || columns == 0 {
        return 0;
    }
    (rows - 1)
        .checked_mul(stride)
        .and_then(|start| start.checked_add(columns))
        .expect("a matrix larger than memory")
}
