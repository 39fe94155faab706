//! The model written plainly: the specification that every engine is tested against.
//!
//! A fast kernel is hard to read and easy to get subtly wrong. Here the same mathematics stands as loops over
//! slices, one module per operation, forward and backward side by side with the formula, generic over `f32` and
//! `f64`. Nothing is fused, cached or parallel. The finite differences in this crate's tests show in `f64` that
//! each backward is the derivative of its forward; kernels and engines are then compared with these functions.
//!
//! Only tests use this crate. All matrices are row-major; N = B x T counts positions, B windows, T positions in
//! a window, D = `d_model`, H heads, F the MLP's width, V symbols. Functions panic when lengths do not fit.

pub mod activation;
pub mod adam;
pub mod attention;
pub mod bias;
pub mod clip;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
mod float;
pub mod gelu;
pub mod layer_norm;
pub mod lion;
pub mod matmul;
pub mod mixture;
mod model;
pub mod muon;
pub mod positions;
pub mod rms_norm;
pub mod softcap;

pub use float::Float;
pub use model::{logits, loss, loss_and_gradient};
