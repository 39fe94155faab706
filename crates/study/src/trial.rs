//! One trial: a cell of the grid with a seed, and what came of it.
//!
//! A trial is one trajectory. The early and the full pass are two readings of it. What is known of a trial are the
//! attributes of an Optuna trial in the study's database; its checkpoint lies in a folder of its own. A trial is
//! found again by its configuration and its seed, not by its number or the name of its folder, so a grid can grow
//! without anything being trained twice.

use crate::rungs::Ladders;
use crate::{Cell, Params, StudyError, StudySpec};
use diapason_storage::{
    Distribution, FAIL_REASON, ItemId, ItemState, NewTrial, Page, Param, Storage, StudyId, Waiting,
    completed_rung, inside,
};
use diapason_training::{CHECKPOINT, Config, Protocol, Reading, RunOutcome, RunState, SeedRule, SpanReading};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The folder of a study's trials.
const TRIALS: &str = "trials";

/// Attributes of a trial that are there from the beginning.
const SEED: &str = "seed";
/// A system attribute: dashboards would show every trial as a page of settings.
const CONFIG: &str = "diapason:config";
/// Another one: the losses per span at the readings.
pub(crate) const SPANS: &str = "diapason:spans";
const CHECKPOINT_PATH: &str = "checkpoint";
/// Marks a trial that another program enqueued: it is no cell of the grid.
const ADOPTED: &str = "adopted";

/// A system attribute: the bracket in which a trial is compared on the way. Without it a trial runs to its end.
const BRACKET: &str = "diapason:bracket";
/// Another one: marks a seed that was added to a configuration, beyond those that all have.
const MORE_SEEDS: &str = "diapason:more_seeds";
/// Another one: the number of the sample that a trial trains, in a study that draws its configurations.
const SAMPLE: &str = "diapason:sample";
/// Why a trial was ended by a comparison.
pub(crate) const PRUNE_REASON: &str = "prune_reason";

/// Attributes of a record that hold one thing each, by the names of its fields.
const PLAIN: [&str; 14] = [
    SEED,
    "steps",
    "stopped_early",
    "seed_rule",
    "train_seconds",
    "tokens_per_second",
    "threads",
    "trials_at_once",
    "parameters",
    "tokens_per_step",
    "flop_per_step",
    "engine",
    "other_engines",
    "corpus_digest",
];
/// Readings: an attribute for each of their fields, as in `best_validation_loss`.
const READINGS: [&str; 3] = ["early", "best", "last"];
const READING: [&str; 5] = ["step", "validation_loss", "accuracy", "accuracy_last", "train_seconds"];
/// A failure's fields, and the attributes that hold them.
const FAILURE: [(&str, &str); 3] =
    [("message", FAIL_REASON), ("diverged_at", "diverged_at"), ("last_finite_loss", "last_finite_loss")];

/// How far a trial is, in Optuna's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TrialState {
    /// Begun and not finished: training now, or interrupted.
    Running,
    /// Finished.
    Complete,
    /// Ended by a comparison with others.
    Pruned,
    /// Ended without a result.
    Fail,
}

/// Why a trial has no result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialFailure {
    /// What happened, in one line.
    pub message: String,
    /// The update at which the loss was no longer a number. The same trial would diverge again: it is not
    /// repeated. None: another failure, which the next run tries again.
    pub diverged_at: Option<u64>,
    /// The last training loss that was a number, nats.
    pub last_finite_loss: Option<f64>,
}

/// What is known of a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialRecord {
    /// The cell, for readers of the file.
    pub params: Params,
    /// The seed.
    pub seed: u64,
    /// How far it is.
    pub state: TrialState,
    /// Updates done.
    pub steps: u64,
    /// Whether patience ended it.
    pub stopped_early: bool,
    /// The early reading; with the notebook's protocol, the evaluation that its early pass ended with.
    pub early: Option<Reading>,
    /// What the notebook's rule recorded; only with its protocol.
    pub seed_rule: Option<SeedRule>,
    /// The reading with the lowest validation loss.
    pub best: Option<Reading>,
    /// The last reading.
    pub last: Option<Reading>,
    /// Seconds in training steps.
    pub train_seconds: f64,
    /// Positions trained on per such second; none before the first step.
    pub tokens_per_second: Option<f64>,
    /// Threads that it ran on, mean over its time: they change when a neighbour ends.
    #[serde(default)]
    pub threads: Option<f64>,
    /// Trials at work while it ran, itself included, mean over its time.
    #[serde(default)]
    pub trials_at_once: Option<f64>,
    /// Number of parameters.
    pub parameters: u64,
    /// Positions in a step on a full batch.
    pub tokens_per_step: u64,
    /// Floating-point operations of such a step, by the field's usual count.
    pub flop_per_step: f64,
    /// Which arithmetic computed it.
    pub engine: String,
    /// Which other arithmetics computed earlier parts of it: the trial is then no function of its settings.
    pub other_engines: Vec<String>,
    /// Digest of the text.
    pub corpus_digest: String,
    /// Why there is no result.
    pub failure: Option<TrialFailure>,
    /// Losses per span of text at the readings, by step.
    #[serde(skip)]
    pub spans: Vec<SpanReading>,
    /// The complete configuration.
    pub config: Config,
}

impl TrialRecord {
    /// A trial that has not done a step.
    pub(crate) fn begun(
        cell: &Cell,
        seed: u64,
        vocabulary: usize,
        corpus_digest: &str,
    ) -> Result<Self, StudyError> {
        let config = &cell.config;
        let model = config.model(vocabulary)?;
        let tokens = config.batch_size * config.sequence_length;
        Ok(Self {
            params: cell.params.clone(),
            seed,
            state: TrialState::Running,
            steps: 0,
            stopped_early: false,
            early: None,
            seed_rule: None,
            best: None,
            last: None,
            train_seconds: 0.0,
            tokens_per_second: None,
            threads: None,
            trials_at_once: None,
            parameters: model.parameters() as u64,
            tokens_per_step: tokens as u64,
            flop_per_step: model.training_flop(tokens, config.sequence_length),
            engine: String::new(),
            other_engines: Vec::new(),
            corpus_digest: corpus_digest.to_string(),
            failure: None,
            spans: Vec::new(),
            config: config.clone(),
        })
    }

    /// Whether there is nothing left to do for a run of `steps` steps.
    pub(crate) fn is_finished(&self, steps: u64) -> bool {
        match self.state {
            TrialState::Complete => self.stopped_early || self.steps >= steps,
            TrialState::Pruned => true,
            TrialState::Fail => self.failure.as_ref().is_some_and(|failure| failure.diverged_at.is_some()),
            TrialState::Running => false,
        }
    }

    /// Takes in what a run came to.
    pub(crate) fn finish(&mut self, outcome: &RunOutcome) {
        self.steps = outcome.steps;
        self.best = outcome.best;
        self.last = outcome.last;
        self.spans = outcome.spans.clone();
        self.train_seconds = outcome.train_seconds;
        self.tokens_per_second =
            Some(outcome.tokens_per_second).filter(|speed| speed.is_finite() && *speed > 0.0);
        self.seed_rule = outcome.seed_rule;
        self.early = match outcome.seed_rule {
            // The notebook writes nothing down here. We do, and say so.
            Some(SeedRule::Lost) => outcome.last,
            _ => outcome.early,
        };
        self.stopped_early = outcome.state == RunState::StoppedEarly;
        self.failure = None;
        self.state = match outcome.state {
            RunState::Complete | RunState::StoppedEarly => TrialState::Complete,
            RunState::Interrupted { .. } => TrialState::Running,
            RunState::Diverged { step, last_finite_loss } => {
                let last = match last_finite_loss {
                    Some(loss) => format!("the last finite loss was {loss:.4}"),
                    None => "no loss was finite".to_string(),
                };
                self.failure = Some(TrialFailure {
                    message: format!("diverged at step {step}: {last}"),
                    diverged_at: Some(step),
                    last_finite_loss,
                });
                TrialState::Fail
            }
        };
    }

    /// Takes in that a run could not go on.
    pub(crate) fn fail(&mut self, message: String) {
        self.state = TrialState::Fail;
        self.failure = Some(TrialFailure { message, diverged_at: None, last_finite_loss: None });
    }

    /// The attributes of the Optuna trial that say all this. What is not known is null.
    pub(crate) fn attributes(&self) -> Map<String, Json> {
        // A record is a struct of plain values.
        let Ok(Json::Object(mut fields)) = serde_json::to_value(self) else { return Map::new() };
        let mut attributes = Map::new();
        for key in PLAIN {
            attributes.insert(key.to_string(), fields.remove(key).unwrap_or_default());
        }
        for reading in READINGS {
            let mut of = fields.remove(reading).unwrap_or_default();
            for field in READING {
                let value = of.get_mut(field).map(Json::take).unwrap_or_default();
                attributes.insert(format!("{reading}_{field}"), value);
            }
        }
        let mut failure = fields.remove("failure").unwrap_or_default();
        for (field, attribute) in FAILURE {
            let value = failure.get_mut(field).map(Json::take).unwrap_or_default();
            attributes.insert(attribute.to_string(), value);
        }
        attributes
    }

    /// What a trial's attributes say; `None` if it has not begun.
    ///
    /// # Errors
    /// Attributes that are not as [`TrialRecord::attributes`] writes them.
    pub(crate) fn from_attributes(
        attributes: &Map<String, Json>,
        cell: &Cell,
        state: TrialState,
    ) -> Result<Option<Self>, serde_json::Error> {
        if attributes.get("steps").is_none_or(Json::is_null) {
            return Ok(None);
        }
        let value = |key: &str| attributes.get(key).cloned().unwrap_or_default();
        let mut fields = Map::new();
        fields.insert("params".to_string(), serde_json::to_value(&cell.params)?);
        fields.insert("config".to_string(), serde_json::to_value(&cell.config)?);
        fields.insert("state".to_string(), serde_json::to_value(state)?);
        for key in PLAIN {
            fields.insert(key.to_string(), value(key));
        }
        for reading in READINGS {
            let of = READING.map(|field| (field.to_string(), value(&format!("{reading}_{field}"))));
            let known = !of[0].1.is_null();
            fields.insert(
                reading.to_string(),
                if known { Json::Object(of.into_iter().collect()) } else { Json::Null },
            );
        }
        let failure = FAILURE.map(|(field, attribute)| (field.to_string(), value(attribute)));
        let failed = state == TrialState::Fail && !failure[0].1.is_null();
        fields.insert(
            "failure".to_string(),
            if failed { Json::Object(failure.into_iter().collect()) } else { Json::Null },
        );
        serde_json::from_value(Json::Object(fields)).map(Some)
    }
}

/// A place in a study: a cell, a seed, and the record if there is one.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Place in the enumeration: all cells with seed 0, then all with seed 1, and so on. More seeds leave the
    /// numbers of a study as they are.
    pub number: usize,
    /// Index of its cell.
    pub cell: usize,
    /// Its seed.
    pub seed: u64,
    /// Its folder, relative to the study's.
    pub folder: PathBuf,
    /// The bracket in which it is compared with others on the way; none: it runs to its end.
    pub bracket: Option<usize>,
    /// What is known of it; none before it starts.
    pub record: Option<TrialRecord>,
    /// What it is in the database; none before the study has begun.
    pub stored: Option<StoredTrial>,
}

/// A trial as the database knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTrial {
    /// Its number in Optuna's tools: in the order in which trials were enqueued.
    pub number: i64,
    /// The work item's key.
    pub key: String,
    /// The last rung at which it was read.
    pub rung: Option<i64>,
    /// What it was read at each, from the first.
    pub rung_losses: Vec<f64>,
    /// The sample that it trains, in a study that draws its configurations.
    pub sample: Option<u64>,
    /// Why it was ended, if it was not at a rung.
    pub prune_reason: Option<String>,
    pub(crate) item: ItemId,
    pub(crate) state: ItemState,
}

impl StoredTrial {
    /// The configuration's part of the key: the same for all seeds.
    pub fn cell_key(&self) -> &str {
        self.key.split_once('/').map_or(self.key.as_str(), |(cell, _)| cell)
    }

    /// Whether it waits at that rung for a decision.
    pub(crate) fn waits_at(&self, rung: u32) -> bool {
        self.state == ItemState::Rung && self.rung == Some(i64::from(rung))
    }
}

impl Trial {
    /// Its number for people: the one that Optuna's tools show, once it has one.
    pub fn shown_number(&self) -> i64 {
        self.stored.as_ref().map_or(self.number as i64, |stored| stored.number)
    }

    /// The trial to be enqueued; `sample`: the sample that it is, in a study that draws its configurations.
    pub(crate) fn new_trial(
        &self,
        cell: &Cell,
        spec: &StudySpec,
        sample: Option<usize>,
    ) -> Result<NewTrial, StudyError> {
        let trajectory = Trajectories::of(spec).of_config(&cell.config);
        let params = cell.params.0.iter().map(|(key, value)| {
            let values: Vec<Json> = match spec.listed(key) {
                // What another program enqueued may be none of them.
                Some(values) => {
                    let other = Some(value).filter(|value| !values.contains(value));
                    values.iter().chain(other).map(json).collect()
                }
                None => vec![json(value)],
            };
            param(spec, key, json(value), &values)
        });
        Ok(NewTrial {
            key: item_key(&trajectory, self.seed),
            params: params.collect::<Result<_, _>>()?,
            user_attributes: beginning(self.seed, &self.folder),
            system_attributes: std::iter::once(configuration(&cell.config))
                .chain(self.bracket.map(|bracket| (BRACKET.to_string(), bracket.into())))
                .chain(sample.map(|sample| (SAMPLE.to_string(), sample.into())))
                .collect(),
        })
    }

    /// A trial that is to be enqueued while the study runs.
    pub(crate) fn to_come(cell: usize, of: &Cell, seed: u64, bracket: Option<usize>) -> Self {
        let folder = folder_of(&of.params, seed);
        Self { number: 0, cell, seed, folder, bracket, record: None, stored: None }
    }

    /// A further seed of a configuration, to be enqueued: it is compared with nothing on the way.
    pub(crate) fn another_seed(
        cell: usize,
        of: &Cell,
        seed: u64,
        spec: &StudySpec,
    ) -> Result<NewTrial, StudyError> {
        let mut new = Self::to_come(cell, of, seed, None).new_trial(of, spec, None)?;
        new.system_attributes.push((MORE_SEEDS.to_string(), true.into()));
        Ok(new)
    }
}

/// The bracket that a trial's system attributes name.
pub(crate) fn bracket(system_attributes: &Map<String, Json>) -> Option<usize> {
    usize::try_from(system_attributes.get(BRACKET)?.as_u64()?).ok()
}

/// Attributes that a trial has before it begins.
fn beginning(seed: u64, folder: &Path) -> Vec<(String, Json)> {
    let path = folder.join(CHECKPOINT).to_string_lossy().into_owned();
    vec![(SEED.to_string(), seed.into()), (CHECKPOINT_PATH.to_string(), path.into())]
}

/// The attribute by which a trial is found again.
fn configuration(config: &Config) -> (String, Json) {
    // A configuration is a struct of plain values.
    (CONFIG.to_string(), serde_json::to_value(config).unwrap_or_default())
}

/// A parameter as Optuna has it. A numeric one stays numeric for ever; names keep the choices they began with.
fn param(spec: &StudySpec, name: &str, value: Json, values: &[Json]) -> Result<Param, StudyError> {
    if let (Some(range), Some(number)) =
        (spec.search.as_ref().and_then(|search| search.range(name)), value.as_f64())
    {
        return Ok(Param { name: name.to_string(), value, distribution: range.distribution(number) });
    }
    let both = [Json::Bool(false), Json::Bool(true)];
    let choices = if value.is_boolean() { &both } else { values };
    let scale_is_logarithmic =
        name.ends_with("learning_rate") && !name.starts_with("final") || name == "epsilon";
    let distribution = Distribution::over(choices, scale_is_logarithmic)
        .ok_or_else(|| StudyError::NoParam { key: name.to_string(), value: value.to_string() })?;
    Ok(Param { name: name.to_string(), value, distribution })
}

fn json(value: &toml::Value) -> Json {
    // Plain values all have a counterpart.
    serde_json::to_value(value).unwrap_or_default()
}

/// The folder of a cell's trial, relative to the study's.
fn folder_of(params: &Params, seed: u64) -> PathBuf {
    Path::new(TRIALS).join(params.folder_name()).join(format!("seed-{seed}"))
}

/// What a trial that another program enqueued is here; none if it is nothing that could be trained on a text of
/// `vocabulary` symbols.
pub(crate) fn recognise(waiting: &Waiting, spec: &StudySpec, vocabulary: usize) -> Option<NewTrial> {
    let mut config = spec.config.clone();
    let (mut params, mut stored) = (toml::Table::new(), Vec::new());
    let mut seed = waiting.user_attributes.get(SEED).and_then(Json::as_u64).unwrap_or(0);
    for (key, value) in &waiting.fixed_params {
        if key == SEED {
            seed = value.as_u64()?;
            continue;
        }
        let whole = value.as_f64().filter(|x| x.fract() == 0.0 && x.abs() < 1e15);
        let value = match (config.get(key)?, whole) {
            (toml::Value::Integer(_), Some(x)) => toml::Value::Integer(x as i64),
            _ => serde_json::from_value(value.clone()).ok()?,
        };
        config.set_value(key, value).ok()?;
        let value = config.get(key)?;
        stored.push(param(spec, key, json(&value), &[json(&value)]).ok()?);
        params.insert(key.clone(), value);
    }
    let mut config = config.validated(vocabulary).ok()?;
    if !params.contains_key("steps") {
        config = spec.paid(&Params(params.clone()), config).ok()?;
    }
    let folder = folder_of(&Params(params), seed);
    let mut user_attributes = beginning(seed, &folder);
    user_attributes.push((ADOPTED.to_string(), true.into()));
    let key = item_key(&Trajectories::of(spec).of_config(&config), seed);
    let system_attributes = vec![configuration(&config)];
    Some(NewTrial { key, params: stored, user_attributes, system_attributes })
}

/// The key of a trial's work item: the same whenever the same trajectory is asked for.
fn item_key(trajectory: &str, seed: u64) -> String {
    let digest = Sha256::digest(trajectory.as_bytes());
    let digest: String = digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("{digest}/seed-{seed}")
}

/// All trials of a study, in the order of their numbers, with what the database knows of them; those of the grid are
/// followed by further seeds and by trials that another program enqueued, whose cells follow those in `cells`.
pub(crate) fn trials(
    spec: &StudySpec,
    cells: &mut Vec<Cell>,
    folder: &Path,
    vocabulary: usize,
    from: Option<(&mut Storage, StudyId)>,
) -> Result<Vec<Trial>, StudyError> {
    let trajectories = Trajectories::of(spec);
    let place = |number, index, cell: &Cell, seed, there| {
        place(number, index, cell, seed, there, |cell, seed| {
            TrialRecord::begun(cell, seed, vocabulary, &spec.corpus.digest)
        })
    };
    let mut known = BTreeMap::new();
    let (mut sampled, mut adopted) = (Vec::new(), Vec::new());
    if let Some((storage, study)) = from {
        let mut page = Page::default();
        loop {
            let stored = storage.trials(study, page)?;
            let Some(last) = stored.last() else { break };
            page.from = last.number + 1;
            for trial in stored {
                let Some(there) = There::read(trial, folder)? else { continue };
                let key = (there.seed, trajectories.of_config(&there.config));
                if there.stored.sample.is_some() {
                    sampled.push(key.clone());
                } else if there.adopted || there.more_seeds {
                    adopted.push(key.clone());
                }
                known.entry(key).or_insert(there);
            }
        }
    }
    let ladders = Ladders::of(spec);
    let bracket = |index| ladders.as_ref().map(|ladders| ladders.bracket(index));
    let of_grid: Vec<String> = cells.iter().map(|cell| trajectories.of_config(&cell.config)).collect();
    let mut trials = Vec::new();
    for seed in 0..spec.seeds {
        for (index, trajectory) in of_grid.iter().enumerate() {
            let there = known.remove(&(seed, trajectory.clone()));
            trials.push(Trial {
                bracket: bracket(index),
                ..place(trials.len(), index, &cells[index], seed, there)?
            });
        }
    }
    // Cells of samples come before those of others: their number is their place.
    for key in sampled.into_iter().chain(adopted) {
        let Some(there) = known.remove(&key) else { continue };
        let (seed, mut config) = (there.seed, there.config.clone());
        // Those that a budget pays for stay what they are.
        if spec.budget.is_none() && !there.params.0.contains_key("steps") {
            config.steps = spec.config.steps;
        }
        let of_grid = of_grid.iter().position(|trajectory| *trajectory == key.1).filter(|_| there.more_seeds);
        let index = of_grid.or_else(|| cells.iter().position(|cell| cell.config == config));
        let index = index.unwrap_or_else(|| {
            cells.push(Cell { params: there.params.clone(), config });
            cells.len() - 1
        });
        trials.push(place(trials.len(), index, &cells[index], seed, Some(there))?);
    }
    Ok(trials)
}

fn place(
    number: usize,
    index: usize,
    cell: &Cell,
    seed: u64,
    there: Option<There>,
    begun: impl FnOnce(&Cell, u64) -> Result<TrialRecord, StudyError>,
) -> Result<Trial, StudyError> {
    let Some(there) = there else {
        let folder = folder_of(&cell.params, seed);
        return Ok(Trial { number, cell: index, seed, folder, bracket: None, record: None, stored: None });
    };
    let attributes = (&there.attributes, there.spans.as_ref());
    let mut record = record(attributes, cell, there.stored.state, there.stored.number)?;
    if record.is_none() && there.stored.state == ItemState::Failed {
        // Its workers were lost before one of them could say anything.
        let reason = there.attributes.get(FAIL_REASON).and_then(Json::as_str).unwrap_or("failed");
        record.insert(begun(cell, seed)?).fail(reason.to_string());
    }
    let There { folder, bracket, stored, .. } = there;
    Ok(Trial { number, cell: index, seed, folder, bracket, record, stored: Some(stored) })
}

/// What is known of a trial whose work item is in this state, by its user attributes and the one with losses per span.
pub(crate) fn record(
    (attributes, spans): (&Map<String, Json>, Option<&Json>),
    cell: &Cell,
    state: ItemState,
    number: i64,
) -> Result<Option<TrialRecord>, StudyError> {
    let state = match state {
        ItemState::Done => TrialState::Complete,
        ItemState::Pruned => TrialState::Pruned,
        ItemState::Failed => TrialState::Fail,
        _ => TrialState::Running,
    };
    let wrong = |error: serde_json::Error| StudyError::Attributes { number, message: error.to_string() };
    let mut record = TrialRecord::from_attributes(attributes, cell, state).map_err(wrong)?;
    if let (Some(record), Some(spans)) = (&mut record, spans) {
        record.spans = Vec::deserialize(spans)
            .map_err(|error| StudyError::Attributes { number, message: format!("{SPANS}: {error}") })?;
    }
    Ok(record)
}

/// A trial in the database that is one of ours.
struct There {
    stored: StoredTrial,
    seed: u64,
    config: Config,
    folder: PathBuf,
    params: Params,
    adopted: bool,
    more_seeds: bool,
    bracket: Option<usize>,
    attributes: Map<String, Json>,
    spans: Option<Json>,
}

impl There {
    /// None for a trial that is not ours, or that another has taken the place of since.
    fn read(trial: diapason_storage::Trial, folder: &Path) -> Result<Option<Self>, StudyError> {
        let Some(item) = trial.item.filter(|item| item.state != ItemState::Foreign) else { return Ok(None) };
        let wrong = |message: String| StudyError::Attributes { number: trial.number, message };
        let attribute = |key: &str| trial.user_attributes.get(key);
        let missing = |key: &str| wrong(format!("{key} is missing or of the wrong kind"));
        let seed = attribute(SEED).and_then(Json::as_u64).ok_or_else(|| missing(SEED))?;
        let config = trial.system_attributes.get(CONFIG).cloned().ok_or_else(|| missing(CONFIG))?;
        let config = serde_json::from_value(config).map_err(|error| wrong(format!("{CONFIG}: {error}")))?;
        let path =
            attribute(CHECKPOINT_PATH).and_then(Json::as_str).ok_or_else(|| missing(CHECKPOINT_PATH))?;
        // What leads out of the study's folder is refused.
        inside(folder, path)?;
        let params = trial.params.iter().map(|(key, value)| {
            Ok((
                key.clone(),
                serde_json::from_value(value.clone()).map_err(|error| wrong(error.to_string()))?,
            ))
        });
        Ok(Some(Self {
            seed,
            config,
            folder: Path::new(path).parent().map(Path::to_path_buf).unwrap_or_default(),
            params: Params(params.collect::<Result<_, StudyError>>()?),
            adopted: attribute(ADOPTED).is_some_and(|adopted| *adopted == Json::Bool(true)),
            more_seeds: trial.system_attributes.contains_key(MORE_SEEDS),
            bracket: bracket(&trial.system_attributes),
            stored: StoredTrial {
                number: trial.number,
                key: item.key,
                rung: item.rung,
                rung_losses: (0..)
                    .map_while(|rung| trial.system_attributes.get(&completed_rung(rung))?.as_f64())
                    .collect(),
                sample: trial.system_attributes.get(SAMPLE).and_then(Json::as_u64),
                prune_reason: attribute(PRUNE_REASON).and_then(Json::as_str).map(str::to_string),
                item: item.id,
                state: item.state,
            },
            attributes: trial.user_attributes,
            spans: trial.system_attributes.get(SPANS).cloned(),
        }))
    }
}

/// What two configurations of a study share exactly if they are the same trajectory, which may have been asked for with
/// different lengths.
pub(crate) struct Trajectories {
    steps_in_grid: bool,
    /// Then the steps follow from all else, and a twentieth of them is no setting of its own.
    by_budget: bool,
    protocol: Protocol,
}

impl Trajectories {
    pub(crate) fn of(spec: &StudySpec) -> Self {
        Self { steps_in_grid: spec.lists("steps"), by_budget: spec.budget.is_some(), protocol: spec.protocol }
    }

    /// The steps between evaluations count as they are meant: a twentieth of the steps is a number.
    pub(crate) fn of_config(&self, config: &Config) -> String {
        let default = Config::default();
        let checkpoint_seconds = default.checkpoint_seconds;
        let steps = if self.steps_in_grid { config.steps } else { default.steps };
        let eval_every = match self.protocol {
            Protocol::Standard if !self.by_budget => config.steps_between_evaluations(),
            Protocol::Standard | Protocol::AsSeed => config.eval_every,
        };
        Config { checkpoint_seconds, steps, eval_every, ..config.clone() }.to_toml()
    }
}
