//! `config`: the keys of the configuration.

use super::json;
use crate::args::ShowConfig;
use crate::failure::Failure;
use diapason_training::Config;
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
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", json(&json!({ "keys": keys }))?)?;
    } else {
        let name_width = keys.iter().map(|key| key.name.len()).max().unwrap_or(0);
        let default_width = keys.iter().map(|key| key.default.len()).max().unwrap_or(0);
        for key in &keys {
            writeln!(out, "{:name_width$}  {:default_width$}  {}", key.name, key.default, key.description)?;
        }
    }
    Ok(out.flush()?)
}
