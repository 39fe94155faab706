//! What sets one configuration of a study apart: the keys that vary and their values.
//!
//! The same pairs are shown to people (`d_model=256 n_heads=8`), name folders (`d_model=256,n_heads=8`) and
//! go into JSON as an object. They keep the order in which the grid declares its keys.

use serde::{Deserialize, Serialize};
use std::fmt;
use toml::{Table, Value};

/// Keys and values of one configuration, in declaration order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Params(pub Table);

/// Folder names stay below the 255 bytes that file systems allow, with room for a suffix.
const LONGEST_FOLDER_NAME: usize = 200;

impl Params {
    /// Parameters from pairs, in order.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, Value)>) -> Self {
        Self(pairs.into_iter().map(|(key, value)| (key.to_string(), value)).collect())
    }

    /// Keys with their values as text, in order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, String)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value_text(value)))
    }

    /// The value of `key` as text.
    pub fn text(&self, key: &str) -> Option<String> {
        self.0.get(key).map(value_text)
    }

    /// A name for a folder: `d_model=256,n_heads=8`. Bytes that some file system refuses are written as `%2F`;
    /// a name that would be too long is cut and ends in a hash of the whole.
    pub fn folder_name(&self) -> String {
        let mut name = String::new();
        for (i, (key, value)) in self.pairs().enumerate() {
            if i > 0 {
                name.push(',');
            }
            escape(key, &mut name);
            name.push('=');
            escape(&value, &mut name);
        }
        if name.is_empty() {
            return "base".to_string();
        }
        if name.len() > LONGEST_FOLDER_NAME {
            let hash = fnv1a(name.as_bytes());
            name.truncate(LONGEST_FOLDER_NAME - 17);
            name.push_str(&format!("~{hash:016x}"));
        }
        name
    }
}

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("(the base)");
        }
        for (i, (key, value)) in self.pairs().enumerate() {
            let space = if i > 0 { " " } else { "" };
            write!(f, "{space}{key}={value}")?;
        }
        Ok(())
    }
}

/// A value as a person types it: `256`, `0.001`, `1e-8`, `seed`.
pub fn value_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Float(x) if *x != 0.0 && (x.abs() < 1e-4 || x.abs() >= 1e15) => format!("{x:e}"),
        Value::Float(x) => x.to_string(),
        other => other.to_string(),
    }
}

/// Letters, digits and `._+-` as they are, every other byte as %XX.
fn escape(text: &str, out: &mut String) {
    for &byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"._+-".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// FNV-1a, 64 bits: enough to keep two long names apart, and the same on every machine and in every version.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_named_and_written_in_declaration_order() {
        let params = Params::new([
            ("n_layers", Value::Integer(4)),
            ("mlp_ratio", Value::Float(4.0)),
            ("epsilon", Value::Float(1e-8)),
            ("learning_rate", Value::Float(0.001)),
            ("norm", Value::String("layer_norm".into())),
        ]);
        assert_eq!(
            params.to_string(),
            "n_layers=4 mlp_ratio=4 epsilon=1e-8 learning_rate=0.001 norm=layer_norm"
        );
        assert_eq!(
            params.folder_name(),
            "n_layers=4,mlp_ratio=4,epsilon=1e-8,learning_rate=0.001,norm=layer_norm"
        );
        let json = serde_json::to_string(&params).unwrap();
        assert_eq!(
            json,
            r#"{"n_layers":4,"mlp_ratio":4.0,"epsilon":1e-8,"learning_rate":0.001,"norm":"layer_norm"}"#
        );
        assert_eq!(serde_json::from_str::<Params>(&json).unwrap(), params);
    }

    #[test]
    fn folder_names_are_safe() {
        let named = |text: &str| Params::new([("key", Value::String(text.into()))]).folder_name();
        assert_eq!(named("../../etc"), "key=..%2F..%2Fetc");
        assert_eq!(named("a b,c=d"), "key=a%20b%2Cc%3Dd");
        assert_eq!(named("é"), "key=%C3%A9");
        assert_eq!(named(""), "key=");
        let (a, b) = (named(&"x".repeat(300)), named(&format!("{}y", "x".repeat(299))));
        assert!(a.len() <= LONGEST_FOLDER_NAME && b.len() <= LONGEST_FOLDER_NAME);
        assert_ne!(a, b);
        assert_eq!(Params::default().folder_name(), "base");
    }
}
