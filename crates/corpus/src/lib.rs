//! placeholder
pub mod english;
