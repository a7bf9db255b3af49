//! What can go wrong when release metadata is written.

use std::io;
use std::path::{Path, PathBuf};

use crate::keyfile::KeyFileError;

/// Why metadata could not be made or published.
#[derive(Debug, thiserror::Error)]
pub enum AuthorError {
    /// A private key could not be read.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// The key does not sign for this role.
    #[error("signing {role} metadata with {file}: {reason}; the root metadata names another key for this role")]
    Key {
        /// The role.
        role: String,
        /// The key file.
        file: PathBuf,
        /// What the check said.
        reason: String,
    },
    /// The product's root metadata is unusable.
    #[error("reading the product's root metadata: {0}")]
    Root(String),
    /// A target may not bear this name.
    #[error("adding the target '{name}': a target's name has only letters, digits and . _ + ~ -, at most 160 of them, and does not start with a dot")]
    Name {
        /// The name.
        name: String,
    },
    /// Targets cannot be left to such a role.
    #[error("delegating to '{name}': {reason}")]
    Delegation {
        /// The role.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A time of validity is out of range.
    #[error("setting the time of validity: {0}")]
    Expiry(String),
    /// Version numbers are used up.
    #[error("raising a metadata version: there is no higher number")]
    Versions,
    /// Reading or writing failed.
    #[error("{doing} {path}: {source}")]
    Io {
        /// "reading" or "writing".
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What stands in the update directory cannot be trusted or is damaged.
    #[error(
        "reading the published metadata {path}: {reason}; restore the directory from a good copy"
    )]
    Existing {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The product's root metadata does not follow what devices have been given.
    #[error("publishing the root metadata: {path}: {reason}")]
    Chain {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// JSON could not be made; it would be a defect of this program.
    #[error("writing metadata as JSON: {0}")]
    Json(String),
}

impl AuthorError {
    pub(super) fn json(error: impl std::fmt::Display) -> Self {
        Self::Json(error.to_string())
    }

    pub(super) fn io(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            doing,
            path: path.clone(),
            source,
        }
    }

    pub(super) fn existing(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self::Existing {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}
