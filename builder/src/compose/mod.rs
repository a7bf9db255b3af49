//! The root file system that a tree starts from, as one plain tar.

use std::path::PathBuf;

use anyhow::{bail, Result};

use crate::cache::Cache;
use crate::lock::BoardLock;
use crate::progress::Progress;
use crate::project::Merged;

/// A root file system as a tar.
#[derive(Debug, Clone)]
pub struct BaseTar {
    /// An uncompressed tar in the cache.
    pub path: PathBuf,
    /// Hash of everything that it was made from, 64 hex digits.
    pub key: String,
}

/// Makes the root file system of a product for a board from its lock, or takes it from the cache.
pub fn base(
    _merged: &Merged,
    _lock: &BoardLock,
    _source_date_epoch: u64,
    _cache: &Cache,
    _progress: Progress,
) -> Result<BaseTar> {
    bail!("composing a tree is not there yet")
}
