//! The search space: a grid over keys of the configuration.
//!
//! `d_model=256`, `n_heads=8,16`, `n_layers=4,8` are three axes; their product, in declaration order with the last
//! key varying fastest, are the cells. Every cell is a complete configuration that has been checked before
//! anything runs: a study never finds out in its third hour that its last cell is impossible.
//!
//! An ablation is a grid that is not multiplied out: behind each cell stand those that differ from it in one value
//! of one axis. So `n` values cost `n` cells more, not `n` times as many.

use crate::{Params, StudyError, value_text};
use diapason_training::Config;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use toml::{Table, Value};

/// More cells, or trials, than anyone trains; a slip of the keyboard is caught before it fills the memory.
pub(crate) const MOST_CELLS: usize = 1_000_000;

/// A grid: keys with the values each takes, in declaration order. No axes at all is a grid of one cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grid {
    axes: Vec<Axis>,
}

/// One key and its values.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// A key of [`Config`].
    pub key: String,
    /// Its values, all different, as the configuration holds them.
    pub values: Vec<Value>,
}

/// One point of the grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// The grid's keys with this cell's values.
    pub params: Params,
    /// The complete, checked configuration.
    pub config: Config,
}

impl Grid {
    /// Reads axes as they are typed: `KEY=V,V...`, one string per key.
    ///
    /// # Errors
    /// Text of another form, unknown keys, values of the wrong kind, anything given twice.
    pub fn parse<S: AsRef<str>>(axes: &[S]) -> Result<Self, StudyError> {
        let mut grid = Self::default();
        for text in axes {
            let text = text.as_ref();
            let refuse = |what: &str| StudyError::Grid { axis: text.to_string(), what: what.to_string() };
            let (key, values) = text.split_once('=').ok_or_else(|| refuse("there is no `=`"))?;
            let key = key.trim();
            if key.is_empty() {
                return Err(refuse("there is no key before the `=`"));
            }
            if key == "precision" {
                return Err(refuse(
                    "all trials of a study have the same precision, as in --set precision=half",
                ));
            }
            let mut parsed = Vec::new();
            for value in values.split(',') {
                let value = value.trim();
                if value.is_empty() {
                    return Err(refuse("a value is missing"));
                }
                let mut config = Config::default();
                config.set(key, value)?;
                parsed.extend(config.get(key));
            }
            grid.push(key, parsed)?;
        }
        Ok(grid)
    }

    /// Adds an axis; its values as [`Config::get`] gives them.
    fn push(&mut self, key: &str, values: Vec<Value>) -> Result<(), StudyError> {
        let axis = Axis { key: key.to_string(), values };
        let refuse = |what: String| StudyError::Grid { axis: axis.to_string(), what };
        if self.axis(key).is_some() {
            return Err(refuse(format!("{key} is given twice")));
        }
        if axis.values.is_empty() {
            return Err(refuse("there are no values".to_string()));
        }
        for (i, value) in axis.values.iter().enumerate() {
            if axis.values[..i].contains(value) {
                return Err(refuse(format!("the value {} is given twice", value_text(value))));
            }
        }
        self.axes.push(axis);
        Ok(())
    }

    /// The axes, in declaration order.
    pub fn axes(&self) -> &[Axis] {
        &self.axes
    }

    /// Whether there are no axes.
    pub fn is_empty(&self) -> bool {
        self.axes.is_empty()
    }

    /// The axis of `key`.
    pub fn axis(&self, key: &str) -> Option<&Axis> {
        self.axes.iter().find(|axis| axis.key == key)
    }

    /// Number of cells; as many as there may be, if there are more.
    pub fn size(&self) -> usize {
        let size = self.axes.iter().try_fold(1usize, |n, axis| n.checked_mul(axis.values.len()));
        size.map_or(MOST_CELLS, |size| size.min(MOST_CELLS))
    }

    /// How many values its axes have together.
    pub(crate) fn values(&self) -> usize {
        self.axes.iter().map(|axis| axis.values.len()).sum()
    }

    /// The cells of this grid over `base`, each followed by those that differ from it in one value of `ablation`, for a text
    /// of `vocabulary` symbols.
    ///
    /// # Errors
    /// As of [`Grid::cells`]; a value of the ablation that a cell has anyway, so that nothing would differ.
    pub fn cells_ablated(
        &self,
        ablation: &Self,
        base: &Config,
        vocabulary: usize,
    ) -> Result<Vec<Cell>, StudyError> {
        if self.size().saturating_mul(1 + ablation.values()) > MOST_CELLS {
            return Err(StudyError::TooManyCells { most: MOST_CELLS });
        }
        let mut cells = Vec::new();
        for whole in self.cells(base, vocabulary)? {
            let changed = ablation.axes.iter().flat_map(|axis| {
                axis.values.iter().map(|value| {
                    if whole.config.get(&axis.key).as_ref() == Some(value) {
                        return Err(StudyError::NoAblation {
                            axis: axis.to_string(),
                            value: format!("{}={}", axis.key, value_text(value)),
                        });
                    }
                    let mut params = whole.params.clone();
                    params.0.insert(axis.key.clone(), value.clone());
                    let mut config = whole.config.clone();
                    config.set_value(&axis.key, value.clone())?;
                    match config.validated(vocabulary) {
                        Ok(config) => Ok(Cell { params, config }),
                        Err(error) => Err(StudyError::Cell { params, error: Box::new(error) }),
                    }
                })
            });
            let changed: Vec<Cell> = changed.collect::<Result<_, _>>()?;
            cells.push(whole);
            cells.extend(changed);
        }
        Ok(cells)
    }

    /// Every cell over `base`, in declaration order, the last key varying fastest, for a text of `vocabulary`
    /// symbols.
    ///
    /// # Errors
    /// The first cell that cannot be trained, by name; more cells than anyone can train.
    pub fn cells(&self, base: &Config, vocabulary: usize) -> Result<Vec<Cell>, StudyError> {
        let count = self.axes.iter().try_fold(1usize, |n, axis| n.checked_mul(axis.values.len()));
        let count =
            count.filter(|&n| n <= MOST_CELLS).ok_or(StudyError::TooManyCells { most: MOST_CELLS })?;
        (0..count)
            .map(|index| {
                let mut params = Table::new();
                let mut rest = index;
                let mut below = count;
                for axis in &self.axes {
                    below /= axis.values.len();
                    params.insert(axis.key.clone(), axis.values[rest / below].clone());
                    rest %= below;
                }
                let params = Params(params);
                let mut config = base.clone();
                for (key, value) in &params.0 {
                    config.set_value(key, value.clone())?;
                }
                match config.validated(vocabulary) {
                    Ok(config) => Ok(Cell { params, config }),
                    Err(error) if self.axes.is_empty() => Err(error.into()),
                    Err(error) => Err(StudyError::Cell { params, error: Box::new(error) }),
                }
            })
            .collect()
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<String> = self.values.iter().map(value_text).collect();
        write!(f, "{}={}", self.key, values.join(","))
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axes: Vec<String> = self.axes.iter().map(Axis::to_string).collect();
        f.write_str(&axes.join(" "))
    }
}

/// In `study.toml` a grid is a table of arrays.
impl Serialize for Grid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.axes.iter().map(|axis| (&axis.key, &axis.values)))
    }
}

impl<'de> Deserialize<'de> for Grid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let mut grid = Self::default();
        for (key, values) in Table::deserialize(deserializer)? {
            let Value::Array(values) = values else {
                return Err(D::Error::custom(format!("grid.{key} is not a list of values")));
            };
            let mut checked = Vec::new();
            for value in values {
                let mut config = Config::default();
                config.set_value(&key, value).map_err(D::Error::custom)?;
                checked.extend(config.get(&key));
            }
            grid.push(&key, checked).map_err(D::Error::custom)?;
        }
        Ok(grid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(axes: &[&str]) -> Vec<String> {
        let cells = Grid::parse(axes).unwrap().cells(&Config::default(), 27).unwrap();
        cells.iter().map(|cell| cell.params.to_string()).collect()
    }

    fn error(axes: &[&str]) -> String {
        match Grid::parse(axes).and_then(|grid| grid.cells(&Config::default(), 27)) {
            Ok(_) => "accepted".to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn declaration_order_the_last_key_fastest() {
        assert_eq!(
            names(&["d_model=256", "n_heads=8,16", "n_layers=8,4"]),
            [
                "d_model=256 n_heads=8 n_layers=8",
                "d_model=256 n_heads=8 n_layers=4",
                "d_model=256 n_heads=16 n_layers=8",
                "d_model=256 n_heads=16 n_layers=4"
            ]
        );
        assert_eq!(names(&[]), ["(the base)"]);
    }

    #[test]
    fn any_key_numeric_or_named() {
        let axes =
            ["learning_rate=1e-3,3e-3", "norm=layer_norm", "tie_embeddings=true,false", "mlp_ratio=4,2.5"];
        let cells = Grid::parse(&axes).unwrap().cells(&Config::default(), 27).unwrap();
        assert_eq!(cells.len(), 8);
        assert_eq!(
            cells[7].params.to_string(),
            "learning_rate=0.003 norm=layer_norm tie_embeddings=false mlp_ratio=2.5"
        );
        assert_eq!((cells[7].config.learning_rate, cells[7].config.mlp_ratio), (3e-3, 2.5));
        assert!(cells[0].config.tie_embeddings);
    }

    #[test]
    fn impossible_cells_are_named() {
        assert_eq!(
            error(&["d_model=256,100", "n_heads=4,8"]),
            "d_model=100 n_heads=8: d_model 100 is not divisible by n_heads 8: each head needs the same whole number of channels"
        );
    }

    #[test]
    fn an_ablation_changes_one_key_at_a_time() {
        let cells = |grid: &[&str], ablation: &[&str]| {
            let ablation = Grid::parse(ablation).unwrap();
            let cells = Grid::parse(grid).unwrap().cells_ablated(&ablation, &Config::default(), 27);
            cells.map_err(|error| error.to_string())
        };
        let names = |cells: Vec<Cell>| cells.iter().map(|cell| cell.params.to_string()).collect::<Vec<_>>();
        let found = cells(&[], &["n_layers=2,3", "tie_embeddings=true"]).unwrap();
        assert_eq!(found[3].config, Config { tie_embeddings: true, ..Config::default() });
        assert_eq!(names(found), ["(the base)", "n_layers=2", "n_layers=3", "tie_embeddings=true"]);
        assert_eq!(
            names(cells(&["d_model=64,128"], &["n_layers=2"]).unwrap()),
            ["d_model=64", "d_model=64 n_layers=2", "d_model=128", "d_model=128 n_layers=2"]
        );
        assert_eq!(
            cells(&[], &["batch_size=32,64"]).unwrap_err(),
            "ablate `batch_size=32,64`: batch_size=64 is what there is without it"
        );
        assert!(
            cells(&[], &["n_heads=7"]).unwrap_err().starts_with("n_heads=7: d_model 256 is not divisible")
        );
    }

    #[test]
    fn bad_axes_are_refused() {
        assert_eq!(error(&["n_heads"]), "grid `n_heads`: there is no `=`");
        assert_eq!(error(&["n_heads=8,"]), "grid `n_heads=8,`: a value is missing");
        assert_eq!(error(&["=8"]), "grid `=8`: there is no key before the `=`");
        assert_eq!(error(&["n_heads=8", "n_heads=16"]), "grid `n_heads=16`: n_heads is given twice");
        assert_eq!(
            error(&["learning_rate=0.001,2e-3,1e-3"]),
            "grid `learning_rate=0.001,0.002,0.001`: the value 0.001 is given twice"
        );
        assert_eq!(error(&["n_head=8"]), "unknown key `n_head`");
        let unknown = Grid::parse(&["n_head=8"]).unwrap_err();
        assert_eq!(unknown.hint().as_deref(), Some("did you mean `n_heads`?"));
        assert!(error(&["n_heads=eight"]).contains("n_heads"));
        let many: Vec<String> = (1..=2000).map(|i| i.to_string()).collect();
        let many = many.join(",");
        assert_eq!(
            error(&[&format!("eval_every={many}"), &format!("patience={many}")]),
            "the grid has more than 1000000 cells"
        );
    }

    #[test]
    fn written_and_read_back_in_order() {
        let grid = Grid::parse(&["n_layers=4,8", "d_model=256", "learning_rate=1e-3"]).unwrap();
        let text = toml::to_string(&grid).unwrap();
        assert_eq!(text, "n_layers = [4, 8]\nd_model = [256]\nlearning_rate = [0.001]\n");
        assert_eq!(toml::from_str::<Grid>(&text).unwrap(), grid);
        assert!(toml::from_str::<Grid>("n_heads = [8, 8]").is_err());
        assert!(toml::from_str::<Grid>("n_heads = 8").is_err());
        assert!(toml::from_str::<Grid>("n_head = [8]").is_err());
    }
}
