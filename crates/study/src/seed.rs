//! The study that this program started from: a notebook that tuned depth and heads on text8.
//!
//! Its grid and its numbers are kept here. The numbers are shown beside ours wherever the configuration is
//! the same, always with the label [`SEED_LABEL`]: another machine, and unless the corpus is text8 another text.

use crate::Params;

/// What the seed's numbers are, to be shown beside them.
pub const SEED_LABEL: &str = "the seed's numbers: text8, on a Colab GPU";

/// Its grid as it would be typed, in its order of enumeration.
pub const SEED_GRID: [&str; 3] = ["d_model=256", "n_heads=8,16", "n_layers=4,8"];

/// Its number of steps.
pub const SEED_STEPS: u64 = 20_000;

/// The step at which its early stopping ended all four trials.
pub const SEED_EARLY_STEP: u64 = 4_000;

/// One line of the notebook's two result tables.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SeedNumbers {
    /// Width.
    pub d_model: i64,
    /// Heads.
    pub n_heads: i64,
    /// Blocks.
    pub n_layers: i64,
    /// Steps trained: 4,000 in the early pass, 20,000 in the full one.
    pub steps: u64,
    /// Training time on the Colab GPU, seconds.
    pub seconds: f64,
    /// Validation loss, nats per character.
    pub loss: f64,
}

/// The notebook's two tables with all the digits that it printed: early, then full, in grid order.
pub const SEED_NUMBERS: [SeedNumbers; 8] = [
    row(8, 4, SEED_EARLY_STEP, 70.73276329040527, 1.4581079483032227),
    row(8, 8, SEED_EARLY_STEP, 137.31607007980347, 1.4512369632720947),
    row(16, 4, SEED_EARLY_STEP, 75.04076051712036, 1.4715590476989746),
    row(16, 8, SEED_EARLY_STEP, 146.54027605056763, 1.467713713645935),
    row(8, 4, SEED_STEPS, 331.1321680545807, 1.3307313919067383),
    row(8, 8, SEED_STEPS, 652.1351611614227, 1.3208262920379639),
    row(16, 4, SEED_STEPS, 351.33376145362854, 1.3433935642242432),
    row(16, 8, SEED_STEPS, 696.6427783966064, 1.3371410369873047),
];

const fn row(n_heads: i64, n_layers: i64, steps: u64, seconds: f64, loss: f64) -> SeedNumbers {
    SeedNumbers { d_model: 256, n_heads, n_layers, steps, seconds, loss }
}
