//! `config`: the keys of the configuration, and what recipes make of them.

use super::{json, recipe};
use crate::args::ShowConfig;
use crate::failure::Failure;
use diapason_training::{Config, KeyDoc};
use serde_json::json;
use std::io::{self, Write};

pub(crate) fn run(args: ShowConfig) -> Result<(), Failure> {
    let mut keys = Config::keys();
    if let Some(wanted) = &args.key {
        keys.retain(|key| key.name == wanted);
        if keys.is_empty() {
            // No such key: setting it says which one is near.
            Config::default().set(wanted, "0").map_err(|e| Failure::from(e).typed())?;
        }
    }
    let config = recipe(args.recipe.as_deref())?;
    let value = |key: &KeyDoc| config.get(key.name).map(|value| value.to_string()).unwrap_or_default();
    let mut out = io::stdout().lock();
    if args.json {
        let mut object = json!({ "keys": keys });
        if let Some(name) = &args.recipe {
            // Beside each default what the recipe has.
            object["recipe"] = json!(name);
            for (i, key) in keys.iter().enumerate() {
                object["keys"][i]["value"] = json!(value(key));
            }
        }
        writeln!(out, "{}", json(&object)?)?;
    } else {
        let name_width = keys.iter().map(|key| key.name.len()).max().unwrap_or(0);
        let value_width = keys.iter().map(|key| value(key).len()).max().unwrap_or(0);
        for key in &keys {
            writeln!(out, "{:name_width$}  {:value_width$}  {}", key.name, value(key), key.description)?;
        }
    }
    Ok(out.flush()?)
}
