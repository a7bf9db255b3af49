//! Reading a TOML file into a value.

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

/// A value that was read.
#[derive(Debug)]
pub struct Parsed<T> {
    /// The value.
    pub value: T,
}

/// Reads `text`, the content of `file` (a name for messages).
pub fn parse<T: DeserializeOwned + JsonSchema>(file: &str, text: &str) -> Result<Parsed<T>> {
    let value = toml::from_str(text).with_context(|| format!("reading {file}"))?;
    Ok(Parsed { value })
}
