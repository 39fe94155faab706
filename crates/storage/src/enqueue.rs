//! Enqueueing: how work comes into a study.
//!
//! A grid is enqueued in one transaction, and every item has a key that is unique in its study: asked for twice, or by
//! ten workers at once, it is there once. Only what is new is added, which is also how a grid is extended. Trials that
//! Python enqueued become items when somebody here can tell what they are.

use crate::database::{Statements, Value, insert_all};
use crate::encode::{self, Distribution};
use crate::item::ItemState;
use crate::storage::{Attributes, Storage, StudyId, lock_study};
use crate::trials::{self, Trial};
use crate::work::set_attributes;
use crate::{Result, StorageError};
use serde_json::{Map, Value as Json};
use std::collections::{BTreeMap, HashMap, HashSet};

/// So many new trials that PostgreSQL's idea of its tables is wrong until it looks at them again.
const MANY: usize = 1000;

/// A parameter of a trial that is enqueued.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Json,
    /// What else it could be.
    pub distribution: Distribution,
}

/// A trial to be enqueued.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTrial {
    /// What it is: unique in the study, and the same whenever the same thing is asked for.
    pub key: String,
    /// Its parameters, in the order in which they are declared.
    pub params: Vec<Param>,
    /// What is known of it from the beginning, for people to see.
    pub user_attributes: Vec<(String, Json)>,
    /// The same, for programs: dashboards do not show it.
    pub system_attributes: Vec<(String, Json)>,
}

/// What [`Storage::enqueue`] and [`Storage::adopt`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Enqueued {
    /// Items that are new.
    pub added: usize,
    /// Items that were there; of `adopt`, trials that nobody here can carry out.
    pub known: usize,
}

/// A trial that another program enqueued.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// Its number.
    pub number: i64,
    /// What it should be carried out with.
    pub fixed_params: Map<String, Json>,
    /// What was noted with it.
    pub user_attributes: Map<String, Json>,
}

impl Storage {
    /// Enqueues every trial whose key the study does not have yet, all in one transaction: as WAITING trials with
    /// parameters and `fixed_params`, so that Optuna shows them, and a Python worker could carry them out.
    ///
    /// # Errors
    /// Names and values that Optuna has no room for; a parameter whose kind differs from what the study has. Nothing
    /// is enqueued then.
    pub fn enqueue(&mut self, study: StudyId, trials: &[NewTrial]) -> Result<Enqueued> {
        let mut keys = HashSet::with_capacity(trials.len());
        for trial in trials {
            check(trial)?;
            if !keys.insert(trial.key.as_str()) {
                return Err(StorageError::Refused {
                    what: format!("two trials of the key `{}`", crate::printable(&trial.key)),
                });
            }
        }
        let done = self.write(|on| {
            lock_study(on, study)?;
            check_distributions(on, study, trials)?;
            let known =
                on.query("SELECT item_key FROM diapason_items WHERE study_id = $1", &[study.0.into()])?;
            let known: HashSet<&str> = known.iter().map(|row| row.text(0)).collect::<Result<_>>()?;
            let new: Vec<&NewTrial> =
                trials.iter().filter(|trial| !known.contains(trial.key.as_str())).collect();
            let mut number = next_number(on, study)?;
            // Some thousand rows at a time, so that a large grid does not need large memory.
            for chunk in new.chunks(1000) {
                insert_trials(on, study, number, chunk)?;
                number += chunk.len() as i64;
            }
            Ok(Enqueued { added: new.len(), known: trials.len() - new.len() })
        })?;
        if done.added >= MANY {
            self.look_again()?;
        }
        Ok(done)
    }

    /// Makes work items for the WAITING trials that another program enqueued. `recognise` says what such a trial is;
    /// what it does not recognise, or what the study has already, is marked as foreign and left alone. It is asked
    /// again if the transaction has to be run again.
    ///
    /// # Errors
    /// As [`Storage::enqueue`].
    pub fn adopt(
        &mut self,
        study: StudyId,
        mut recognise: impl FnMut(&Waiting) -> Option<NewTrial>,
    ) -> Result<Enqueued> {
        let strays = "SELECT t.trial_id FROM trials t WHERE t.study_id = $1 AND t.state = 'WAITING'
             AND NOT EXISTS (SELECT 1 FROM diapason_items i WHERE i.trial_id = t.trial_id) ORDER BY t.number";
        if self.read(|on| on.query(strays, &[study.0.into()]))?.is_empty() {
            return Ok(Enqueued::default());
        }
        self.write(|on| {
            lock_study(on, study)?;
            let mut done = Enqueued::default();
            for row in on.query(strays, &[study.0.into()])? {
                let trial = trials::by_id(on, row.int(0)?)?;
                let fixed = match trial.system_attributes.get("fixed_params") {
                    Some(Json::Object(fixed)) => fixed.clone(),
                    _ => trial.params.clone(),
                };
                let waiting = Waiting {
                    number: trial.number,
                    fixed_params: fixed,
                    user_attributes: trial.user_attributes.clone(),
                };
                let own = recognise(&waiting).map(|new| {
                    check(&new)?;
                    adopt_as(on, study, &trial, &new)
                });
                // One that the study has no room for is not to keep all the others waiting.
                let own = match own {
                    Some(Err(StorageError::Refused { .. })) | None => false,
                    Some(own) => own?,
                };
                if own {
                    done.added += 1;
                } else {
                    insert_item(on, study, &format!("foreign:{}", trial.id), trial.id, ItemState::Foreign)?;
                    done.known += 1;
                }
            }
            Ok(done)
        })
    }
}

/// The number of the next trial: Optuna counts those before it. The study is locked.
pub(crate) fn next_number(on: &mut dyn Statements, study: StudyId) -> Result<i64> {
    let rows = on.query("SELECT COUNT(*) FROM trials WHERE study_id = $1", &[study.0.into()])?;
    rows.first().map_or(Ok(0), |row| row.int(0))
}

fn insert_item(
    on: &mut dyn Statements,
    study: StudyId,
    key: &str,
    trial: i64,
    state: ItemState,
) -> Result<bool> {
    let inserted = on.execute(
        "INSERT INTO diapason_items (study_id, item_key, trial_id, state) VALUES ($1, $2, $3, $4)
         ON CONFLICT (study_id, item_key) DO NOTHING",
        &[study.0.into(), key.into(), trial.into(), state.name().into()],
    )?;
    Ok(inserted == 1)
}

/// Makes an item of a trial that another program enqueued; false if the study has the key already.
fn adopt_as(on: &mut dyn Statements, study: StudyId, trial: &Trial, new: &NewTrial) -> Result<bool> {
    check_distributions(on, study, std::slice::from_ref(new))?;
    if !insert_item(on, study, &new.key, trial.id, ItemState::Ready)? {
        return Ok(false);
    }
    let mut rows = Vec::new();
    for param in new.params.iter().filter(|param| !trial.params.contains_key(&param.name)) {
        rows.push(param_row(trial.id, param)?);
    }
    insert_all(on, PARAM_COLUMNS, "(?, ?, ?, ?)", "", &rows)?;
    for (kind, attributes) in
        [(Attributes::User, &new.user_attributes), (Attributes::System, &new.system_attributes)]
    {
        let attributes: BTreeMap<String, Json> = attributes.iter().cloned().collect();
        set_attributes(on, kind, trial.id, attributes.iter())?;
    }
    Ok(true)
}

const PARAM_COLUMNS: &str = "trial_params (trial_id, param_name, param_value, distribution_json)";

fn param_row(trial: i64, param: &Param) -> Result<Vec<Value>> {
    let internal = param.distribution.internal(&param.value).ok_or_else(|| StorageError::Refused {
        what: format!(
            "{} = {}: it is none of {}",
            crate::printable(&param.name),
            crate::printable(&param.value.to_string()),
            crate::printable(&param.distribution.to_json())
        ),
    })?;
    Ok(vec![trial.into(), param.name.as_str().into(), internal.into(), param.distribution.to_json().into()])
}

/// Inserts trials with consecutive numbers from `number`.
fn insert_trials(on: &mut dyn Statements, study: StudyId, number: i64, new: &[&NewTrial]) -> Result<()> {
    let heads: Vec<Vec<Value>> =
        (0..new.len()).map(|i| vec![(number + i as i64).into(), study.0.into()]).collect();
    let made = insert_all(
        on,
        "trials (number, study_id, state)",
        "(?, ?, 'WAITING')",
        "RETURNING number, trial_id",
        &heads,
    )?;
    let ids: HashMap<i64, i64> =
        made.iter().map(|row| Ok((row.int(0)?, row.int(1)?))).collect::<Result<_>>()?;
    let (mut params, mut user, mut system, mut items) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (trial, number) in new.iter().zip(number..) {
        let id = *ids
            .get(&number)
            .ok_or_else(|| StorageError::Content { what: format!("no trial {number} after making it") })?;
        for param in &trial.params {
            params.push(param_row(id, param)?);
        }
        for (key, value) in &trial.user_attributes {
            user.push(vec![id.into(), key.as_str().into(), encode::json_text(value).into()]);
        }
        let fixed =
            encode::fixed_params(trial.params.iter().map(|param| (param.name.as_str(), &param.value)));
        system.push(vec![id.into(), "fixed_params".into(), encode::json_text(&fixed).into()]);
        for (key, value) in &trial.system_attributes {
            system.push(vec![id.into(), key.as_str().into(), encode::json_text(value).into()]);
        }
        items.push(vec![study.0.into(), trial.key.as_str().into(), id.into()]);
    }
    insert_all(on, PARAM_COLUMNS, "(?, ?, ?, ?)", "", &params)?;
    insert_all(on, r#"trial_user_attributes (trial_id, "key", value_json)"#, "(?, ?, ?)", "", &user)?;
    insert_all(on, r#"trial_system_attributes (trial_id, "key", value_json)"#, "(?, ?, ?)", "", &system)?;
    insert_all(on, "diapason_items (study_id, item_key, trial_id, state)", "(?, ?, ?, 'READY')", "", &items)?;
    Ok(())
}

/// What can be refused without a database.
fn check(trial: &NewTrial) -> Result<()> {
    encode::name("key", &trial.key)?;
    let mut names = HashSet::new();
    for param in &trial.params {
        encode::name("parameter", &param.name)?;
        if !names.insert(&param.name) {
            return Err(StorageError::Refused {
                what: format!("the parameter `{}` twice in one trial", crate::printable(&param.name)),
            });
        }
        param_row(0, param)?;
    }
    for attributes in [&trial.user_attributes, &trial.system_attributes] {
        let mut keys = HashSet::new();
        for (key, _) in attributes {
            encode::name("attribute", key)?;
            if !keys.insert(key) {
                return Err(StorageError::Refused {
                    what: format!("the attribute `{}` twice in one trial", crate::printable(key)),
                });
            }
        }
    }
    Ok(())
}

/// A parameter has one kind of distribution in a study: Optuna refuses to read a study where it has two.
fn check_distributions(on: &mut dyn Statements, study: StudyId, trials: &[NewTrial]) -> Result<()> {
    let mut seen: HashMap<&str, Distribution> = HashMap::new();
    for param in trials.iter().flat_map(|trial| &trial.params) {
        let known = match seen.get(param.name.as_str()) {
            Some(known) => known.clone(),
            None => {
                let rows = on.query(
                    "SELECT p.distribution_json FROM trial_params p JOIN trials t ON t.trial_id = p.trial_id
                     WHERE t.study_id = $1 AND p.param_name = $2 LIMIT 1",
                    &[study.0.into(), param.name.as_str().into()],
                )?;
                match rows.first() {
                    Some(row) => Distribution::from_json(row.text(0)?)?,
                    None => param.distribution.clone(),
                }
            }
        };
        if known.widened(&param.distribution).is_none() {
            return Err(StorageError::Refused {
                what: format!(
                    "the parameter `{}` as {}: in this study it is {}, and Optuna allows one kind",
                    crate::printable(&param.name),
                    crate::printable(&param.distribution.to_json()),
                    crate::printable(&known.to_json())
                ),
            });
        }
        seen.insert(&param.name, known);
    }
    Ok(())
}
