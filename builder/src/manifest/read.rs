//! Reading a TOML file that a user wrote into a value. Syntax first, then the structure, then serde;
//! whichever finds fault says where.

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::document::Document;
use super::finding::{Finding, Rejected};
use super::structure;

/// A value that was read, with its text for findings about what it means.
#[derive(Debug)]
pub struct Parsed<'t, T> {
    /// The value.
    pub value: T,
    /// Where everything stands.
    pub document: Document<'t>,
}

/// Reads `text`, the content of `file` (a name for messages). A fault of the text is a [`Rejected`].
pub fn parse<'t, T: DeserializeOwned + JsonSchema>(
    file: &str,
    text: &'t str,
) -> Result<Parsed<'t, T>> {
    let schema = serde_json::to_value(schemars::schema_for!(T))
        .with_context(|| format!("preparing the schema for {file}"))?;
    let document = checked(file, text, &schema)?;
    let value = toml::from_str(text).map_err(|error| fault(file, text, &error))?;
    Ok(Parsed { value, document })
}

/// Holds `text`, the content of `file`, against `schema`; what is wrong is a [`Rejected`].
pub fn structure(file: &str, text: &str, schema: &Value) -> Result<()> {
    checked(file, text, schema).map(drop)
}

fn checked<'t>(file: &str, text: &'t str, schema: &Value) -> Result<Document<'t>> {
    let document = Document::parse(text).map_err(|error| fault(file, text, &error))?;
    let findings = structure::check(document.root(), schema);
    if !findings.is_empty() {
        return Err(Rejected::new(file, text, findings).into());
    }
    Ok(document)
}

fn fault(file: &str, text: &str, error: &toml::de::Error) -> Rejected {
    let finding = Finding::new(error.span(), error.message());
    Rejected::new(file, text, vec![finding])
}
