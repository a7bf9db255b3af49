//! A TOML text with the place of every key and value, so that a finding about a value deep inside can
//! point at it.

use std::ops::Range;

use toml::de::{DeTable, DeValue};
use toml::Spanned;

/// One step of a path into a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A key of a table.
    Key(String),
    /// An element of an array.
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_string())
    }
}

impl From<&String> for Step {
    fn from(key: &String) -> Self {
        Self::Key(key.clone())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// Makes a path: `at!["users", 0, "uid"]`.
macro_rules! at {
    ($($step:expr),* $(,)?) => { &[$($crate::manifest::document::Step::from($step)),*][..] };
}
pub(super) use at;

/// A parsed TOML text.
#[derive(Debug)]
pub struct Document<'t> {
    root: Spanned<DeTable<'t>>,
}

impl<'t> Document<'t> {
    /// Parses; the error is the first fault of syntax.
    pub fn parse(text: &'t str) -> Result<Self, toml::de::Error> {
        Ok(Self {
            root: DeTable::parse(text)?,
        })
    }

    /// The root table.
    pub fn root(&self) -> &DeTable<'t> {
        self.root.get_ref()
    }

    /// Where the value at `path` stands; if it is not there, the nearest table or array around it.
    pub fn span(&self, path: &[Step]) -> Option<Range<usize>> {
        let (first, rest) = path.split_first()?;
        let Step::Key(key) = first else { return None };
        let mut value = lookup(self.root(), key)?;
        for step in rest {
            let next = match (step, value.get_ref()) {
                (Step::Key(key), DeValue::Table(table)) => lookup(table, key),
                (Step::Index(index), DeValue::Array(array)) => array.get(*index),
                _ => None,
            };
            match next {
                Some(next) => value = next,
                None => break,
            }
        }
        Some(value.span())
    }
}

fn lookup<'a, 't>(table: &'a DeTable<'t>, key: &str) -> Option<&'a Spanned<DeValue<'t>>> {
    table
        .iter()
        .find(|(name, _)| name.get_ref() == key)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_values_and_what_is_around_missing_ones() {
        let text = "name = \"x\"\n[[users]]\nname = \"u\"\n[packages]\nadd = [\"a\", \"b\"]\n";
        let document = Document::parse(text).unwrap();
        for (path, expected) in [
            (at!["name"], Some("\"x\"")),
            (at!["users", 0, "name"], Some("\"u\"")),
            (at!["users", 0, "uid"], Some("[[users]]")),
            (at!["packages", "add", 1], Some("\"b\"")),
            (at!["packages", "drop", 1], Some("[packages]")),
            (at!["base", "suite"], None),
            (at![], None),
        ] {
            let found = document.span(path).map(|span| &text[span]);
            assert_eq!(found, expected, "{path:?}");
        }
    }
}
