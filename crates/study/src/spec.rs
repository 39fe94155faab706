//! What a study is: everything that was asked for, complete.
//!
//! A study runs for hours and is continued by typing the same command again. `study.toml` remembers what was
//! asked, with every default written out, so that a default that changes in a later version does not change a
//! study, and so that a command with other settings is refused with the difference instead of quietly mixing
//! two studies. A study may grow: more cells, more seeds, more steps. Then only the new work is done.

use crate::grid::MOST_CELLS;
use crate::rungs::Ladders;
use crate::{Cell, Cost, Grid, Rule, Sampler, Search, StudyError, value_text};
use diapason_corpus::{Corpus, CorpusRequest};
use diapason_training::{Budget, Config, Protocol, decides_on, files};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::Path;

/// Name of the file that holds the specification, in the study's folder.
pub const STUDY_FILE: &str = "study.toml";

/// The most seeds of a configuration, if nobody says it, that are trained until the verdict is decided.
pub const UNTIL_SEEDS: u64 = 8;

/// A study, complete. Results depend on all of it but `name`, `tolerance` and `cost`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudySpec {
    /// Name, for reports.
    pub name: String,
    /// Each cell is trained with the seeds 0 to `seeds` - 1.
    pub seeds: u64,
    /// When runs are evaluated and what ends them.
    pub protocol: Protocol,
    /// The early read-out is at this fraction of the steps; 0: none. `Protocol::AsSeed` finds its own.
    pub early_fraction: f64,
    /// The number of steps that the study began with; 0 before it began. The early read-out is a fraction of
    /// these, and stays where it is when the study is extended.
    pub first_steps: u64,
    /// What each configuration is trained for, in place of so many steps, which are then another number for each; those of
    /// `config` mean nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// With a budget of floating-point operations: the size of the text's alphabet, which they depend on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symbols: Option<usize>,
    /// How much worse than the best loss is acceptable, as a fraction.
    pub tolerance: f64,
    /// What "cheapest" means.
    pub cost: Cost,
    /// What may end a trial before its last step.
    #[serde(default, skip_serializing_if = "Rule::is_none")]
    pub rule: Rule,
    /// Whether more seeds are trained, of what the verdict needs them of, until it is decided: up to so many of a
    /// configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_decided: Option<u64>,
    /// What is drawn from ranges and from the values of the grid, instead of all cells of the grid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
    /// Whether there is no grid: only what other programs enqueue is trained.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enqueued_only: bool,
    /// The text.
    pub corpus: CorpusStamp,
    /// With a budget of time: milliseconds of a step by its kind ([`Timings::key`](crate::Timings::key)), alone on all threads
    /// of the machine that the study began on; empty before it began.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ms_per_step: BTreeMap<String, f64>,
    /// Keys that vary one at a time: values that are tried beside each cell of the grid, each alone.
    #[serde(default, skip_serializing_if = "Grid::is_empty")]
    pub ablate: Grid,
    /// The keys that vary.
    pub grid: Grid,
    /// All keys; those of the grid are overridden by it.
    pub config: Config,
}

/// Which text a study is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorpusStamp {
    /// Its name.
    pub name: String,
    /// Its digest: alphabet, splits and every character.
    pub digest: String,
    /// How it was opened, if it was opened by name: enough to open it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<CorpusRequest>,
}

impl CorpusStamp {
    /// The stamp of `corpus`. Whoever opened it by name adds the request.
    pub fn of(corpus: &Corpus) -> Self {
        Self { name: corpus.name.clone(), digest: corpus.digest.clone(), request: None }
    }
}

/// A setting that is not what it was when the study began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The setting.
    pub key: String,
    /// Its value in `study.toml`.
    pub was: String,
    /// Its value now.
    pub is: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was {}, is {}", self.key, self.was, self.is)
    }
}

impl StudySpec {
    /// A study with the usual protocol: one seed, early read-out at a fifth of the steps, tolerance 1 %.
    pub fn new(name: &str, corpus: &Corpus, config: Config, grid: Grid) -> Self {
        Self { corpus: CorpusStamp::of(corpus), ..Self::drafted(name, config, grid) }
    }

    /// The same before its text has been read.
    pub fn drafted(name: &str, config: Config, grid: Grid) -> Self {
        Self {
            name: name.to_string(),
            seeds: 1,
            protocol: Protocol::Standard,
            early_fraction: 0.2,
            first_steps: 0,
            budget: None,
            symbols: None,
            tolerance: 0.01,
            cost: Cost::Seconds,
            rule: Rule::None,
            until_decided: None,
            search: None,
            enqueued_only: false,
            corpus: CorpusStamp { name: String::new(), digest: String::new(), request: None },
            ms_per_step: BTreeMap::new(),
            ablate: Grid::default(),
            grid,
            config,
        }
    }

    /// Checks the study and its cells for a text of `vocabulary` symbols, and writes out what is left open: the
    /// steps that fractions refer to, and the steps between evaluations.
    ///
    /// # Errors
    /// The first setting that is out of range, the first cell that cannot be trained.
    pub(crate) fn completed(mut self, vocabulary: usize) -> Result<(Self, Vec<Cell>), StudyError> {
        let range = |key: &'static str, value: String, low: &'static str, high: &'static str| {
            StudyError::OutOfRange { key, value, low, high }
        };
        if !(1..=100_000).contains(&self.seeds) {
            return Err(range("seeds", self.seeds.to_string(), "1", "100000"));
        }
        if !(0.0..=1.0).contains(&self.early_fraction) {
            return Err(range(
                "early_fraction",
                self.early_fraction.to_string(),
                "0 (no early read-out)",
                "1",
            ));
        }
        self.check_search()?;
        if !(0.0..1.0).contains(&self.tolerance) {
            return Err(range("tolerance", self.tolerance.to_string(), "0", "1"));
        }
        self.check_budget()?;
        if self.budget.is_some() {
            // They mean nothing: the same ones whoever asks.
            self.config.steps = Config::default().steps;
            self.first_steps = self.config.steps;
        }
        if let (Some(Budget::Flop(_)), None) = (self.budget, self.symbols) {
            self.symbols = Some(vocabulary);
        }
        if self.first_steps == 0 {
            self.first_steps = self.config.steps;
        }
        // Of steps that vary each cell takes its own twentieth; the notebook's protocol knows another interval.
        let twentieth = !self.steps_vary() && self.protocol == Protocol::Standard;
        if self.config.eval_every == 0 && twentieth {
            self.config.eval_every = self.config.steps_between_evaluations();
        }
        let cells = self.cells(vocabulary)?;
        self.check_until()?;
        let seeds = self.seeds.max(self.until_decided.unwrap_or(0));
        if seeds > (MOST_CELLS / cells.len().max(1)) as u64 {
            return Err(StudyError::TooManyTrials { cells: cells.len(), seeds, most: MOST_CELLS });
        }
        self.check_rule()?;
        Ok((self, cells))
    }

    /// The cells that the study has from its beginning, for a text of `vocabulary` symbols: of a search, the samples that
    /// do not depend on results. With a budget each has the steps that it pays for, as far as what they take is known.
    ///
    /// # Errors
    /// The first cell that cannot be trained; samples that cannot be drawn.
    pub(crate) fn cells(&self, vocabulary: usize) -> Result<Vec<Cell>, StudyError> {
        let paid = |Cell { params, config }| self.paid(&params, config).map(|config| Cell { params, config });
        self.unpaid_cells(vocabulary)?.into_iter().map(paid).collect()
    }

    /// The same, each with the steps that it has without a budget.
    fn unpaid_cells(&self, vocabulary: usize) -> Result<Vec<Cell>, StudyError> {
        if self.enqueued_only {
            return Ok(Vec::new());
        }
        let Some(search) = &self.search else {
            return self.grid.cells_ablated(&self.ablate, &self.config, vocabulary);
        };
        let cells = search.first(self)?;
        for Cell { params, config } in &cells {
            config
                .clone()
                .validated(vocabulary)
                .map_err(|error| StudyError::Cell { params: params.clone(), error: Box::new(error) })?;
        }
        Ok(cells)
    }

    /// Whether the study can be begun, as far as that can be said before its text is read.
    ///
    /// # Errors
    /// What keeps it from that.
    pub fn check(&self) -> Result<(), StudyError> {
        // Whether the sizes of a cell fit together does not depend on the vocabulary.
        const ANY_VOCABULARY: usize = 1;
        self.check_search()?;
        self.check_budget()?;
        self.cells(ANY_VOCABULARY)?;
        self.check_until()?;
        self.check_rule()
    }

    /// Whether there may be as many seeds as it takes until the study is decided.
    fn check_until(&self) -> Result<(), StudyError> {
        match self.until_decided {
            Some(most) if !(2..=100_000).contains(&most) => Err(StudyError::OutOfRange {
                key: "until_decided",
                value: most.to_string(),
                low: "2",
                high: "100000",
            }),
            Some(most) if most < self.seeds => Err(StudyError::FewerSeeds { most, seeds: self.seeds }),
            _ => Ok(()),
        }
    }

    /// What to say of keys that were asked for and change nothing: `set`, those with one value for all configurations, in none; those that
    /// vary, in some. And of a warm-up that lasts the whole run.
    ///
    /// # Errors
    /// A key that varies and changes nothing in any configuration: the same would be trained several times.
    pub fn without_effect(&self, set: &[&str]) -> Result<Vec<String>, StudyError> {
        // What others enqueue is not known yet.
        if self.enqueued_only {
            return Ok(Vec::new());
        }
        let mut said = Vec::new();
        for key in set.iter().copied().chain(cells_keys(self)) {
            let mut beside = vec![self.config.clone()];
            if let Some(other) = decides_on(key) {
                beside = self.with_values(&beside, other)?;
                // Of two keys of an ablation only one is changed.
                let ablated = self.ablate.axis(other).filter(|_| self.ablate.axis(key).is_none());
                for value in ablated.iter().flat_map(|axis| &axis.values) {
                    let mut config = self.config.clone();
                    config.set_value(other, value.clone())?;
                    beside.push(config);
                }
            }
            let all = beside.len();
            let mut idle = beside.iter().filter_map(|config| config.idle(key, self.protocol));
            let Some(mut first) = idle.next() else { continue };
            let others: Vec<String> = idle.flat_map(|idle| idle.values).collect();
            let in_all = others.len() + 1 == all;
            first.values.extend(others);
            match (self.varies(key), in_all) {
                (true, true) => return Err(StudyError::Idle(first)),
                (true, false) => {
                    said.push(format!("{first}: configurations that differ in it alone train the same"));
                }
                (false, true) => said.push(first.to_string()),
                (false, false) => {}
            }
        }
        if self.budget.is_none() {
            let lengths = self.with_values(std::slice::from_ref(&self.config), "steps")?;
            said.extend(self.with_values(&lengths, "warmup_steps")?.iter().find_map(Config::endless_warm_up));
        }
        Ok(said)
    }

    /// Each of `configs` with each value that `key` has in the study; of a range its bounds.
    fn with_values(&self, configs: &[Config], key: &str) -> Result<Vec<Config>, StudyError> {
        let range = self.search.as_ref().and_then(|search| search.range(key));
        let values = match (self.grid.axis(key), range) {
            (Some(axis), _) => axis.values.clone(),
            (None, Some(range)) => range.bounds().to_vec(),
            (None, None) => return Ok(configs.to_vec()),
        };
        let mut all = Vec::new();
        for config in configs {
            for value in &values {
                let mut config = config.clone();
                config.set_value(key, value.clone())?;
                all.push(config);
            }
        }
        Ok(all)
    }

    /// Whether the study can have its search.
    fn check_search(&self) -> Result<(), StudyError> {
        if let Some(axis) = self.ablate.axes().iter().find(|axis| self.grid.axis(&axis.key).is_some()) {
            return Err(StudyError::Search {
                what: format!("{} is in --grid and in --ablate", axis.key),
                hint: "leave it out of one of them",
            });
        }
        let Some(search) = &self.search else { return Ok(()) };
        if !self.ablate.is_empty() {
            return Err(StudyError::Search {
                what: "an ablation changes one key of a configuration, and samples are drawn".to_string(),
                hint: "leave the ranges out, or the ablation",
            });
        }
        search.check(&self.grid)?;
        if self.enqueued_only {
            return Err(StudyError::Search {
                what: "trials that others enqueue are not drawn".to_string(),
                hint: "leave the ranges out",
            });
        }
        Ok(())
    }

    /// Whether the grid or the ablation gives a key its values.
    pub(crate) fn lists(&self, key: &str) -> bool {
        self.grid.axis(key).is_some() || self.ablate.axis(key).is_some()
    }

    /// The values that the grid or the ablation gives a key, with that which it has otherwise.
    pub(crate) fn listed(&self, key: &str) -> Option<Vec<toml::Value>> {
        let axis = self.grid.axis(key).map(|axis| axis.values.clone());
        let ablated =
            || Some(self.config.get(key).into_iter().chain(self.ablate.axis(key)?.values.clone()).collect());
        axis.or_else(ablated)
    }

    /// Whether cells may differ in a key.
    fn varies(&self, key: &str) -> bool {
        self.lists(key) || self.search.as_ref().is_some_and(|search| search.range(key).is_some())
    }

    /// Whether the study can have its rule.
    pub(crate) fn check_rule(&self) -> Result<(), StudyError> {
        let refuse = |what: &str, hint| {
            Err(StudyError::Rule { rule: self.rule.to_string(), what: what.to_string(), hint })
        };
        match self.rule {
            Rule::None => return Ok(()),
            Rule::Patience(_) => {
                return refuse("patience is a key of the configuration", "give it as in --set patience=5");
            }
            Rule::AsSeed => {
                return refuse("this is a protocol of its own", "--as-seed runs a study with it");
            }
            Rule::Halving(_) | Rule::Hyperband(_) | Rule::Median(_) => {}
        }
        if self.protocol == Protocol::AsSeed {
            return refuse(
                "the notebook's protocol evaluates each trial on other windows: they cannot be compared on the way",
                "leave --as-seed or the rule out",
            );
        }
        if self.budget.is_some() {
            return refuse(
                "with a budget each configuration has steps of its own: there is no step at which all are evaluated",
                "give --steps instead of the budget, or leave the rule out; patience works",
            );
        }
        let Some(ladders) = Ladders::of(self) else { return Ok(()) };
        let is_tpe = self.search.as_ref().is_some_and(|search| matches!(search.sampler, Sampler::Tpe { .. }));
        if is_tpe && matches!(self.rule, Rule::Hyperband(_)) {
            return refuse(
                "its brackets need all configurations at once, and tpe draws them in rounds",
                "halving compares round by round; --sampler random goes with hyperband",
            );
        }
        for key in ["steps", "eval_every"] {
            if self.lists(key) {
                return refuse(
                    &format!("where {key} varies there is no step at which all are evaluated"),
                    "give that key one value, or leave the rule out",
                );
            }
        }
        if self.enqueued_only {
            return refuse(
                "trials that others enqueue are not compared on the way",
                "leave the rule out; median works",
            );
        }
        if self.configurations() > 1 && !ladders.compares() {
            return refuse(
                &format!(
                    "{} steps with an evaluation every {} leave no room for a rung",
                    self.config.steps,
                    self.config.steps_between_evaluations()
                ),
                "give more steps, a smaller eval_every, or an earlier first rung",
            );
        }
        Ok(())
    }

    /// Whether trials may come of what others came to: whoever finds nothing to claim then looks what follows.
    pub(crate) fn has_rounds(&self) -> bool {
        let looks = |search: &Search| search.drawn_first() < search.samples;
        self.rule.rungs().is_some() || self.until_decided.is_some() || self.search.as_ref().is_some_and(looks)
    }

    /// How many configurations are compared with one another on the way.
    pub(crate) fn configurations(&self) -> usize {
        match &self.search {
            _ if self.enqueued_only => 0,
            Some(search) => search.samples as usize,
            None => (self.grid.size() * (1 + self.ablate.values())).min(MOST_CELLS),
        }
    }

    /// The step of a cell's early read-out.
    pub(crate) fn early_step(&self, cell: &Config) -> Option<u64> {
        if self.protocol == Protocol::AsSeed || self.early_fraction == 0.0 {
            return None;
        }
        let of = if self.steps_vary() { cell.steps } else { self.first_steps };
        Some(((self.early_fraction * of as f64).round() as u64).clamp(1, cell.steps))
    }

    /// Checks that this study may go on where `stored` stands, and completes it from there. What may differ:
    /// name, tolerance, cost, whether it goes on until it is decided, the seconds between checkpoints; more seeds, more cells; more steps, but
    /// not with the notebook's protocol, whose evaluations depend on which step is the last.
    ///
    /// # Errors
    /// Every other difference, all of them at once.
    pub(crate) fn continued(
        mut self,
        stored: &Self,
        folder: &Path,
        vocabulary: usize,
    ) -> Result<(Self, Vec<Cell>), StudyError> {
        let first_are_known = !stored.lists("steps") || self.lists("steps");
        self.first_steps = if first_are_known { stored.first_steps } else { self.config.steps };
        // What the budget was divided by then it is divided by now.
        (self.symbols, self.ms_per_step) = (stored.symbols, stored.ms_per_step.clone());
        let steps_vary = self.steps_vary() || stored.steps_vary();
        if self.config.eval_every == 0 && !steps_vary {
            // "A twentieth of the steps" of the study as it began.
            self.config.eval_every = stored.config.eval_every;
        }
        let in_a_grid = |key: &str| self.varies(key) || stored.varies(key);
        let mut differences = Vec::new();
        let mut differ = |key: &str, was: String, is: String| {
            differences.push(Difference { key: key.to_string(), was, is });
        };
        let has_rungs = stored.rule.rungs().is_some();
        if self.rule != stored.rule {
            differ("rule", stored.rule.to_string(), self.rule.to_string());
        } else if has_rungs {
            // What rungs decided was decided with these.
            let rungs = "a study with rungs keeps what it was begun with";
            if self.seeds > stored.seeds {
                differ("seeds", stored.seeds.to_string(), format!("{} ({rungs})", self.seeds));
            }
            if self.tolerance != stored.tolerance {
                differ("tolerance", stored.tolerance.to_string(), format!("{} ({rungs})", self.tolerance));
            }
            if self.cost != stored.cost {
                differ("cost", stored.cost.name().to_string(), format!("{} ({rungs})", self.cost.name()));
            }
        }
        let mut other_search = false;
        let text = |search: &Option<Search>| search.as_ref().map_or("none".to_string(), Search::to_string);
        match (&self.search, &stored.search) {
            (Some(now), Some(was)) if now.extends(was) && (!has_rungs || now == was) => {
                if self.grid != stored.grid {
                    // What was drawn was drawn from these.
                    differ("grid", stored.grid.to_string(), self.grid.to_string());
                }
            }
            (now, was) if now == was => {}
            (now, was) => {
                differ("search", text(was), text(now));
                other_search = true;
            }
        }
        if self.corpus.digest != stored.corpus.digest {
            let text = |stamp: &CorpusStamp| format!("{} ({})", stamp.name, short(&stamp.digest));
            differ("corpus", text(&stored.corpus), text(&self.corpus));
        }
        let other_budget = self.budget != stored.budget;
        if other_budget {
            let text =
                |budget: Option<Budget>| budget.map_or("none".to_string(), |budget| budget.to_string());
            differ("budget", text(stored.budget), text(self.budget));
        }
        if self.protocol != stored.protocol {
            differ("protocol", stored.protocol.name().to_string(), self.protocol.name().to_string());
        }
        if self.early_fraction != stored.early_fraction && self.protocol == Protocol::Standard {
            differ("early_fraction", stored.early_fraction.to_string(), self.early_fraction.to_string());
        }
        if self.enqueued_only && !stored.enqueued_only {
            differ("grid", stored.grid.to_string(), "only what others enqueue".to_string());
        }
        if self.seeds < stored.seeds {
            differ(
                "seeds",
                stored.seeds.to_string(),
                format!("{} (there may be more, not fewer)", self.seeds),
            );
        }
        // Nobody typed that `eval_every` is 0: it is the steps that are no longer the same for all.
        let every = stored.config.eval_every;
        let interval_is_lost = self.config.eval_every == 0
            && every != 0
            && !stored.steps_vary()
            && !other_budget
            && !in_a_grid("eval_every");
        if interval_is_lost {
            differ(
                "steps",
                format!("{} for every cell", stored.config.steps),
                format!(
                    "in the grid, so that each cell has evaluations of its own (--set eval_every={every} keeps those of the study)"
                ),
            );
        }
        // A difference is what is to be said first; what the budget does not pay for, or cannot, comes after.
        let cells = self.unpaid_cells(vocabulary)?;
        for (key, is, was) in self.config.differences(&stored.config) {
            // Nobody typed the interval, nor the steps of a study with a budget.
            let said = key == "eval_every"
                && (interval_is_lost || other_budget && self.config.eval_every == 0)
                || key == "steps" && (other_budget || self.budget.is_some());
            if in_a_grid(key) || key == "checkpoint_seconds" || said {
                continue;
            }
            let (was, mut is) = (value_text(&was), value_text(&is));
            if key == "steps" {
                let is_counted_on = cells.iter().any(|cell| cell.config.depends_on_length());
                let may_grow = self.protocol == Protocol::Standard && !has_rungs && !is_counted_on;
                if may_grow && self.config.steps > stored.config.steps {
                    continue;
                }
                if may_grow {
                    is += " (there may be more, not fewer)";
                } else if has_rungs {
                    is += " (a study with rungs keeps its steps)";
                } else if is_counted_on {
                    is += " (a schedule, a batch ramp or a tail average counts on them)";
                }
            }
            differ(key, was, is);
        }

        // Every cell that the study had must still be one of its cells.
        let keys: BTreeSet<&str> = cells_keys(&self).chain(cells_keys(stored)).collect();
        let place = |cell: &Cell| -> Vec<String> {
            keys.iter().filter_map(|key| cell.config.get(key)).map(|value| value_text(&value)).collect()
        };
        let places: BTreeSet<Vec<String>> = cells.iter().map(place).collect();
        let stored_cells = stored.unpaid_cells(vocabulary)?;
        // Of another search all cells are others.
        let other_cells = stored_cells.iter().any(|cell| !places.contains(&place(cell)))
            || (has_rungs && places.len() > stored_cells.len());
        if other_cells && !other_search {
            for key in &keys {
                let text = |spec: &Self| match spec.listed(key) {
                    Some(values) => values.iter().map(value_text).collect::<Vec<_>>().join(","),
                    None => spec.config.get(key).as_ref().map(value_text).unwrap_or_default(),
                };
                let (was, is) = (text(stored), text(&self));
                if was != is {
                    differ(key, was, is);
                }
            }
            // The same values can be multiplied out or not.
            if self.ablate != stored.ablate {
                let text = |ablate: &Grid| {
                    if ablate.is_empty() { "nothing".to_string() } else { ablate.to_string() }
                };
                differ("ablate", text(&stored.ablate), text(&self.ablate));
            }
        }
        if !differences.is_empty() {
            return Err(StudyError::OtherSettings { folder: folder.to_path_buf(), differences });
        }
        self.completed(vocabulary)
    }

    /// Checks that `corpus` is the study's text.
    ///
    /// # Errors
    /// It is another.
    pub(crate) fn check_corpus(&self, corpus: &Corpus, folder: &Path) -> Result<(), StudyError> {
        if self.corpus.digest == corpus.digest {
            return Ok(());
        }
        let text = |stamp: &CorpusStamp| format!("{} ({})", stamp.name, short(&stamp.digest));
        let difference = Difference {
            key: "corpus".to_string(),
            was: text(&self.corpus),
            is: text(&CorpusStamp::of(corpus)),
        };
        Err(StudyError::OtherSettings { folder: folder.to_path_buf(), differences: vec![difference] })
    }

    /// The text of `study.toml`.
    fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let mut table = toml::Table::try_from(self)?;
        table.remove("config");
        Ok(format!(
            "# A study of diapason {}: everything that was asked for, with every default written out.\n\n{}\n\
             # Where the grid gives a key values, those hold.{}\n[config]\n{}",
            env!("CARGO_PKG_VERSION"),
            toml::to_string(&table)?,
            if self.budget.is_some() { " Steps are as many as the budget pays for." } else { "" },
            self.config.to_toml()
        ))
    }

    /// Writes `study.toml` into `folder`, atomically.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), StudyError> {
        let path = folder.join(STUDY_FILE);
        let text = self
            .to_toml()
            .map_err(|error| StudyError::File { path: path.clone(), message: error.to_string() })?;
        files::write_atomically(&path, |out| out.write_all(text.as_bytes()))
            .map_err(|source| StudyError::Io { path, source })
    }

    /// Reads the `study.toml` of `folder`; `None` if there is none.
    ///
    /// # Errors
    /// A file that cannot be read or is no specification of a study.
    pub fn read(folder: &Path) -> Result<Option<Self>, StudyError> {
        let path = folder.join(STUDY_FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StudyError::Io { path, source }),
        };
        match toml::from_str(&text) {
            Ok(spec) => Ok(Some(spec)),
            Err(error) => {
                let line = error.span().map_or(String::new(), |span| {
                    format!(
                        "line {}: ",
                        1 + text.as_bytes()[..span.start].iter().filter(|&&b| b == b'\n').count()
                    )
                });
                Err(StudyError::File {
                    path,
                    message: format!("{line}{}", error.message().replace('\n', " ")),
                })
            }
        }
    }
}

/// The keys in which a study's cells may differ.
fn cells_keys(spec: &StudySpec) -> impl Iterator<Item = &str> {
    let ranges = spec.search.iter().flat_map(|search| &search.ranges);
    spec.grid
        .axes()
        .iter()
        .chain(spec.ablate.axes())
        .map(|axis| axis.key.as_str())
        .chain(ranges.map(|range| range.key.as_str()))
}

/// `sha256:0123456789ab...`, short enough for a message.
fn short(digest: &str) -> String {
    match digest.char_indices().nth(19) {
        Some((end, _)) => format!("{}...", &digest[..end]),
        None => digest.to_string(),
    }
}
