//! The quick study of a bare `tune`: everything but sizes and steps is as in the notebook.

/// Steps of the quick study: about three minutes for its four cells on two cores.
pub const QUICK_STEPS: u64 = 2_000;

/// Grid of the quick study: four small models, shaped like the notebook's (two numbers of heads, two depths).
pub const QUICK_GRID: [&str; 3] = ["d_model=64", "n_heads=4,8", "n_layers=2,4"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Grid;
    use diapason_training::Config;

    #[test]
    fn it_is_small() {
        let config = Config { steps: QUICK_STEPS, ..Config::default() };
        let cells = Grid::parse(&QUICK_GRID).unwrap().cells(&config, 27).unwrap();
        assert_eq!(cells.len(), 4);
        let flop: f64 = cells
            .iter()
            .map(|cell| cell.config.model(27).unwrap().training_flop(64 * 32, 32) * cell.config.steps as f64)
            .sum();
        assert!(flop < 3e13, "{flop:e}");
        assert_eq!(cells[0].params.to_string(), "d_model=64 n_heads=4 n_layers=2");
    }
}
