//! Reading a TOML file that a user wrote into a value. Syntax first, then the structure, then serde;
//! whichever finds fault says where.

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

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
    let fault = |error: &toml::de::Error| {
        let finding = Finding::new(error.span(), error.message());
        Rejected::new(file, text, vec![finding])
    };
    let document = Document::parse(text).map_err(|error| fault(&error))?;
    let schema = serde_json::to_value(schemars::schema_for!(T))
        .with_context(|| format!("preparing the schema for {file}"))?;
    let findings = structure::check(document.root(), &schema);
    if !findings.is_empty() {
        return Err(Rejected::new(file, text, findings).into());
    }
    let value = toml::from_str(text).map_err(|error| fault(&error))?;
    Ok(Parsed { value, document })
}
