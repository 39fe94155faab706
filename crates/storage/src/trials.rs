//! Reading trials: a page, one, all.
//!
//! A page is a hundred trials by number, whatever the size of the study: two indexes find them, and what belongs to
//! them is fetched in one statement per table.

use crate::database::{Row, Statements, Value, placeholders};
use crate::encode::{self, Distribution, TrialState};
use crate::item::{ITEM_COLUMNS, Item};
use crate::storage::{Storage, StudyId};
use crate::{Result, StorageError};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value as Json};
use std::collections::{BTreeMap, HashMap};

/// Most trials of a page.
pub const PAGE: usize = 100;

/// A trial as Optuna knows it, and its work item if it has one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// Its id in the database.
    #[serde(skip)]
    pub id: i64,
    /// Its place in the study, from 0.
    pub number: i64,
    /// How far it is.
    pub state: TrialState,
    /// When it was begun: naive UTC, unless Optuna up to 4.9 wrote it, which stored local time.
    pub datetime_start: Option<String>,
    /// When it was finished; see `datetime_start`.
    pub datetime_complete: Option<String>,
    /// One per objective, once it is finished.
    #[serde(serialize_with = "numbers")]
    pub values: Vec<f64>,
    /// Its parameters, in the order in which they were set.
    pub params: Map<String, Json>,
    /// The distribution of each parameter.
    #[serde(skip)]
    pub distributions: Vec<(String, Distribution)>,
    /// What people and programs noted.
    pub user_attributes: Map<String, Json>,
    /// What Optuna and its kin noted for themselves.
    pub system_attributes: Map<String, Json>,
    /// What was reported on the way, by step. Empty if it was not asked for.
    #[serde(serialize_with = "steps")]
    pub intermediate_values: BTreeMap<i64, f64>,
    /// Its work item; none for a trial of another program, or one that was tried again since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<Item>,
}

/// Which trials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The lowest number wanted.
    pub from: i64,
    /// Only those in this state.
    pub state: Option<TrialState>,
    /// At most so many, and at most [`PAGE`]; 0 is as many as there may be.
    pub limit: usize,
    /// With what they reported on the way.
    pub curves: bool,
}

impl Storage {
    /// A page of the trials of a study, by number. The next one is from the last number plus one.
    ///
    /// # Errors
    /// The database's, and rows that Optuna could not read either.
    pub fn trials(&mut self, study: StudyId, page: Page) -> Result<Vec<Trial>> {
        let items = self.has_items();
        let limit = if page.limit == 0 { PAGE } else { page.limit.min(PAGE) };
        let filter = page.state.map_or(String::new(), |state| format!("AND state = '{}'", state.name()));
        let sql = format!(
            "SELECT {HEAD} FROM trials WHERE study_id = $1 {filter} AND number >= $2 ORDER BY number LIMIT $3"
        );
        self.read(|on| {
            let heads = on.query(&sql, &[study.0.into(), page.from.into(), (limit as i64).into()])?;
            load(on, &heads, page.curves, items)
        })
    }

    /// One trial, with all that is known of it.
    ///
    /// # Errors
    /// There is none of this number.
    pub fn trial(&mut self, study: StudyId, number: i64) -> Result<Trial> {
        let page = Page { from: number, limit: 1, curves: true, state: None };
        self.trials(study, page)?
            .into_iter()
            .find(|trial| trial.number == number)
            .ok_or_else(|| StorageError::Content { what: format!("no trial {number} in this study") })
    }

    /// All trials of a study with all that is known of them, by number, page by page: each page is one moment of the
    /// study.
    ///
    /// # Errors
    /// The database's, and those of `take`.
    pub fn export<E: From<StorageError>>(
        &mut self,
        study: StudyId,
        mut take: impl FnMut(Trial) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut page = Page { curves: true, ..Page::default() };
        loop {
            let trials = self.trials(study, page)?;
            let Some(last) = trials.last() else { return Ok(()) };
            page.from = last.number + 1;
            trials.into_iter().try_for_each(&mut take)?;
        }
    }

    /// The names of all parameters and of all user attributes that trials of a study have, in alphabetical order: the
    /// columns of a table of them.
    ///
    /// # Errors
    /// The database's.
    pub fn trial_columns(&mut self, study: StudyId) -> Result<(Vec<String>, Vec<String>)> {
        let of = |on: &mut dyn Statements, column: &str, table: &str| -> Result<Vec<String>> {
            let rows = on.query(
                &format!(
                    "SELECT DISTINCT x.{column} FROM {table} x JOIN trials t ON t.trial_id = x.trial_id
                     WHERE t.study_id = $1"
                ),
                &[study.0.into()],
            )?;
            let mut names: Vec<String> =
                rows.iter().map(|row| row.text(0).map(str::to_string)).collect::<Result<_>>()?;
            // Databases have alphabets of their own.
            names.sort();
            Ok(names)
        };
        self.read(|on| {
            Ok((of(on, "param_name", "trial_params")?, of(on, r#""key""#, "trial_user_attributes")?))
        })
    }

    /// How many trials are in each state.
    ///
    /// # Errors
    /// The database's.
    pub fn trial_counts(&mut self, study: StudyId) -> Result<BTreeMap<TrialState, u64>> {
        self.read(|on| {
            let rows = on.query(
                "SELECT CAST(state AS TEXT), COUNT(*) FROM trials WHERE study_id = $1 GROUP BY state",
                &[study.0.into()],
            )?;
            rows.iter()
                .map(|row| Ok((TrialState::from_name(row.text(0)?)?, row.int(1)?.unsigned_abs())))
                .collect()
        })
    }
}

/// Columns of a trial itself.
const HEAD: &str =
    "trial_id, number, CAST(state AS TEXT), CAST(datetime_start AS TEXT), CAST(datetime_complete AS TEXT)";

/// The trial of that id.
pub(crate) fn by_id(on: &mut dyn Statements, id: i64) -> Result<Trial> {
    let heads = on.query(&format!("SELECT {HEAD} FROM trials WHERE trial_id = $1"), &[id.into()])?;
    let mut trials = load(on, &heads, false, false)?;
    trials.pop().ok_or_else(|| StorageError::Content { what: format!("no trial of id {id}") })
}

/// All that belongs to these trials.
fn load(on: &mut dyn Statements, heads: &[Row], curves: bool, items: bool) -> Result<Vec<Trial>> {
    let mut trials = Vec::with_capacity(heads.len());
    let mut places = HashMap::new();
    for head in heads {
        places.insert(head.int(0)?, trials.len());
        trials.push(Trial {
            id: head.int(0)?,
            number: head.optional_int(1)?.unwrap_or_default(),
            state: TrialState::from_name(head.text(2)?)?,
            datetime_start: head.optional_text(3)?.map(encode::time),
            datetime_complete: head.optional_text(4)?.map(encode::time),
            values: Vec::new(),
            params: Map::new(),
            distributions: Vec::new(),
            user_attributes: Map::new(),
            system_attributes: Map::new(),
            intermediate_values: BTreeMap::new(),
            item: None,
        });
    }
    let Some(last) = trials.last().map(|trial| trial.id) else { return Ok(trials) };
    // One length for all pages, so that the database plans a statement once.
    let wanted = if trials.len() == 1 { 1 } else { trials.len().max(PAGE) };
    let ids: Vec<Value> = (0..wanted).map(|i| trials.get(i).map_or(last, |trial| trial.id).into()).collect();
    let among = placeholders(0, ids.len());
    let mut each = |sql: String, take: &mut dyn FnMut(&mut Trial, &Row) -> Result<()>| -> Result<()> {
        for row in on.query(&sql, &ids)? {
            if let Some(trial) = places.get(&row.int(0)?).and_then(|&place| trials.get_mut(place)) {
                take(trial, &row)?;
            }
        }
        Ok(())
    };
    each(
        format!(
            "SELECT trial_id, param_name, param_value, distribution_json FROM trial_params
             WHERE trial_id IN {among} ORDER BY param_id"
        ),
        &mut |trial, row| {
            let (name, distribution) = (row.text(1)?.to_string(), Distribution::from_json(row.text(3)?)?);
            trial.params.insert(name.clone(), distribution.external(row.real(2)?)?);
            trial.distributions.push((name, distribution));
            Ok(())
        },
    )?;
    each(
        format!(
            "SELECT trial_id, value, CAST(value_type AS TEXT) FROM trial_values
             WHERE trial_id IN {among} ORDER BY trial_id, objective"
        ),
        &mut |trial, row| {
            trial.values.push(encode::number(row.optional_real(1)?, row.text(2)?)?);
            Ok(())
        },
    )?;
    for (table, of) in [
        ("trial_user_attributes", user as fn(&mut Trial) -> &mut Map<String, Json>),
        ("trial_system_attributes", system),
    ] {
        each(
            format!(
                r#"SELECT trial_id, "key", value_json FROM {table} WHERE trial_id IN {among} ORDER BY {table}.{}_id"#,
                &table[..table.len() - 1]
            ),
            &mut |trial, row| {
                let value = encode::attribute(row.optional_text(2)?.unwrap_or("null"));
                of(trial).insert(row.text(1)?.to_string(), value);
                Ok(())
            },
        )?;
    }
    if curves {
        each(
            format!(
                "SELECT trial_id, step, intermediate_value, CAST(intermediate_value_type AS TEXT)
                 FROM trial_intermediate_values WHERE trial_id IN {among}"
            ),
            &mut |trial, row| {
                let value = encode::number(row.optional_real(2)?, row.text(3)?)?;
                trial.intermediate_values.insert(row.int(1)?, value);
                Ok(())
            },
        )?;
    }
    if items {
        each(
            format!("SELECT trial_id, {ITEM_COLUMNS} FROM diapason_items WHERE trial_id IN {among}"),
            &mut |trial, row| {
                trial.item = Some(Item::read(row, 1)?);
                Ok(())
            },
        )?;
    }
    Ok(trials)
}

fn user(trial: &mut Trial) -> &mut Map<String, Json> {
    &mut trial.user_attributes
}

fn system(trial: &mut Trial) -> &mut Map<String, Json> {
    &mut trial.system_attributes
}

/// A number in JSON, which has no NaN and no infinity: those are text, as Python names them.
fn json_number(x: f64) -> Json {
    let named = if x.is_nan() {
        "NaN"
    } else if x > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    serde_json::Number::from_f64(x).map_or_else(|| named.into(), Json::Number)
}

fn numbers<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(|&x| json_number(x)))
}

fn steps<S: Serializer>(values: &BTreeMap<i64, f64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(values.iter().map(|(step, &x)| (step.to_string(), json_number(x))))
}
