//! The study that this program started from: a notebook that tuned depth and heads on text8.
//!
//! Its grid and its numbers are kept here. The numbers are shown beside ours wherever the configuration is
//! the same, always with the label [`SEED_LABEL`]: another machine, and
//! unless the corpus is text8 another text.

use diapason_training::Config;

/// What the seed's numbers are, to be shown with them.
pub const SEED_LABEL: &str =
    "loss and seconds of the notebook that --as-seed reproduces: text8, on a Colab GPU";

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
    pub d_model: usize,
    /// Heads.
    pub n_heads: usize,
    /// Blocks.
    pub n_layers: usize,
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

const fn row(n_heads: usize, n_layers: usize, steps: u64, seconds: f64, loss: f64) -> SeedNumbers {
    SeedNumbers { d_model: 256, n_heads, n_layers, steps, seconds, loss }
}

/// The seed's numbers for a reading at `steps`, if it trained this configuration. How a run is evaluated and
/// stored does not matter; its protocol reads one update later than the round number says.
pub fn seed_numbers(config: &Config, steps: u64) -> Option<&'static SeedNumbers> {
    let seed = Config::default();
    let same = Config {
        d_model: config.d_model,
        n_heads: config.n_heads,
        n_layers: config.n_layers,
        steps: config.steps,
        eval_every: config.eval_every,
        validation_characters: config.validation_characters,
        patience: config.patience,
        min_improvement: config.min_improvement,
        checkpoint_seconds: config.checkpoint_seconds,
        ..seed
    };
    SEED_NUMBERS.iter().find(|row| {
        same == *config
            && (row.d_model, row.n_heads, row.n_layers) == (config.d_model, config.n_heads, config.n_layers)
            && (row.steps == steps || (row.steps == SEED_EARLY_STEP && row.steps + 1 == steps))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_notebooks() {
        let (config, grid) = (Config::default(), crate::Grid::parse(&SEED_GRID).unwrap());
        assert_eq!(grid.cells(&config, 27).unwrap().len(), 4);
        assert_eq!((config.steps, config.batch_size, config.sequence_length), (SEED_STEPS, 64, 32));
        assert_eq!((config.learning_rate, config.max_len), (1e-3, 128));
    }

    #[test]
    fn found_for_the_same_configuration_only() {
        let config = Config::default();
        assert_eq!(seed_numbers(&config, 4_000).unwrap().loss, 1.4581079483032227);
        assert_eq!(seed_numbers(&config, 4_001).unwrap().seconds, 70.73276329040527);
        assert_eq!(seed_numbers(&config, 20_000).unwrap().loss, 1.3307313919067383);
        assert_eq!(seed_numbers(&config, 20_001), None);
        assert_eq!(seed_numbers(&config, 2_000), None);
        let wide = Config { n_heads: 16, n_layers: 8, patience: 0, eval_every: 50, ..config.clone() };
        assert_eq!(seed_numbers(&wide, 20_000).unwrap().seconds, 696.6427783966064);
        assert_eq!(seed_numbers(&Config { batch_size: 32, ..config.clone() }, 4_000), None);
        assert_eq!(seed_numbers(&Config { n_heads: 4, ..config }, 4_000), None);
    }
}
