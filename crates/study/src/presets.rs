//! Studies with a name: the quick one of a bare `tune`, and the notebook's.

use crate::{Grid, StudyError, seed::SEED_GRID};
use diapason_training::Config;

/// Steps of the quick study: about three minutes for its four cells on two cores.
pub const QUICK_STEPS: u64 = 2_000;

/// Grid of the quick study: four small models, shaped like the notebook's (two numbers of heads, two depths).
pub const QUICK_GRID: [&str; 3] = ["d_model=64", "n_heads=4,8", "n_layers=2,4"];

/// The quick study: everything but sizes and steps is as in the notebook.
///
/// # Errors
/// None, as the test below makes sure.
pub fn quick_study() -> Result<(Config, Grid), StudyError> {
    Ok((Config { steps: QUICK_STEPS, ..Config::default() }, Grid::parse(&QUICK_GRID)?))
}

/// The notebook's study: its grid, its configuration, 20,000 steps. It is what `tune` does unless told
/// otherwise; with `Protocol::AsSeed` it is also evaluated as there.
///
/// # Errors
/// None, as the test below makes sure.
pub fn seed_study() -> Result<(Config, Grid), StudyError> {
    Ok((Config::default(), Grid::parse(&SEED_GRID)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_have_four_cells() {
        for (config, grid) in [quick_study().unwrap(), seed_study().unwrap()] {
            assert_eq!(grid.cells(&config, 27).unwrap().len(), 4);
        }
    }

    #[test]
    fn the_seed_study_is_the_notebooks() {
        let (config, grid) = seed_study().unwrap();
        assert_eq!(grid.to_string(), "d_model=256 n_heads=8,16 n_layers=4,8");
        assert_eq!((config.steps, config.batch_size, config.sequence_length), (20_000, 64, 32));
        assert_eq!((config.learning_rate, config.max_len), (1e-3, 128));
    }
}
